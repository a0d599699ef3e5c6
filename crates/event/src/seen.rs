//! Which fields the events of each type have.

use crate::field::{Fields, PATH_BYTES_MAX};
use crate::schema::{data_of, types_of};
use crate::split::{Unknown, Walk};
use arrow::record_batch::RecordBatch;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Most fields that are known, of all types together.
const FIELDS_MAX: usize = 10_000;
/// Fields of types with longer names are not told.
pub(crate) const TYPE_BYTES_MAX: usize = 128;

/// No field that is told has a longer name: it is a path with points between its steps.
const NAME_BYTES_MAX: usize = 2 * PATH_BYTES_MAX;

/// What kinds of values a field had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueKinds(u8);

impl ValueKinds {
    const NAMES: [&str; 4] = ["number", "text", "boolean", "list"];

    /// The kind of a value that begins with this byte; none for an object, whose members are fields, and for null.
    pub(crate) fn beginning(byte: u8) -> Self {
        Self(match byte {
            b'"' => 2,
            b't' | b'f' => 4,
            b'[' => 8,
            b'{' | b'n' => 0,
            _ => 1,
        })
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, name)| name)
    }
}

/// The fields that were seen, by the type of their events. A field is the names on the way to it, joined by points: letters, digits and
/// underscores each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenFields {
    types: BTreeMap<String, BTreeMap<String, ValueKinds>>,
    /// Number of fields.
    count: usize,
    is_partial: bool,
}

impl SeenFields {
    /// Those that are known of nothing: there may be any.
    pub fn unknown() -> Self {
        Self { is_partial: true, ..Self::default() }
    }

    /// Adds the fields of events.
    pub fn add_events(&mut self, rows: &RecordBatch) {
        let mut walk = Walk::new(Fields::default(), Unknown::Seen);
        for (text, event_type) in data_of(rows).iter().zip(types_of(rows)) {
            if let Some(text) = text {
                walk.of_type(event_type.unwrap_or_default());
                walk.row(text, &mut |_, _| {});
            }
        }
        self.add(&walk.seen());
    }

    /// Adds what was seen elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.is_partial |= other.is_partial;
        for (event_type, fields) in &other.types {
            for (field, kinds) in fields {
                self.put(event_type, field, *kinds);
            }
        }
    }

    /// Adds a field, as long as there is room.
    pub(crate) fn put(&mut self, event_type: &str, field: &str, kinds: ValueKinds) {
        if let Some(known) = self.types.get_mut(event_type).and_then(|fields| fields.get_mut(field)) {
            known.add(kinds);
        } else if self.count < FIELDS_MAX && event_type.len() <= TYPE_BYTES_MAX && field.len() <= NAME_BYTES_MAX {
            self.types.entry(event_type.to_owned()).or_default().insert(field.to_owned(), kinds);
            self.count += 1;
        } else {
            self.is_partial = true;
        }
    }

    /// There are more than are told.
    pub(crate) fn not_all(&mut self) {
        self.is_partial = true;
    }

    /// Whether there may be more than are told.
    pub fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Each type with its fields, in the order of their names.
    pub fn types(&self) -> impl Iterator<Item = (&str, &BTreeMap<String, ValueKinds>)> {
        self.types.iter().map(|(name, fields)| (name.as_str(), fields))
    }

    /// As a file holds them.
    pub fn to_json(&self) -> String {
        let of_type = |(name, fields): (&String, &BTreeMap<String, ValueKinds>)| {
            let fields: Map<String, Value> =
                fields.iter().map(|(field, kinds)| (field.clone(), kinds.0.into())).collect();
            (name.clone(), Value::from(fields))
        };
        let types: Map<String, Value> = self.types.iter().map(of_type).collect();
        json!({ "types": types, "partial": self.is_partial }).to_string()
    }

    /// From what a file holds; unknown when that is something else.
    pub fn from_json(text: &str) -> Self {
        let read = || {
            let json: Value = serde_json::from_str(text).ok()?;
            let mut seen = Self { is_partial: json["partial"].as_bool()?, ..Self::default() };
            for (name, fields) in json["types"].as_object()? {
                for (field, kinds) in fields.as_object()? {
                    seen.put(name, field, ValueKinds(u8::try_from(kinds.as_u64()?).ok()?));
                }
            }
            Some(seen)
        };
        read().unwrap_or_else(Self::unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events_schema;
    use arrow::array::{ArrayRef, StringArray, new_null_array};
    use std::sync::Arc;

    fn seen(events: &[(&str, &str)]) -> SeenFields {
        let schema = events_schema();
        let text = |place: fn(&(&str, &str)) -> String| -> ArrayRef {
            Arc::new(events.iter().map(|event| Some(place(event))).collect::<StringArray>())
        };
        let columns = schema.fields().iter().map(|field| match field.name().as_str() {
            "type" => text(|(event_type, _)| (*event_type).to_owned()),
            "data" => text(|(_, data)| (*data).to_owned()),
            _ => new_null_array(field.data_type(), events.len()),
        });
        let fields: Vec<_> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let schema = arrow::datatypes::Schema::new(fields);
        let rows = RecordBatch::try_new(Arc::new(schema), columns.collect()).expect("as the schema says");
        let mut seen = SeenFields::default();
        seen.add_events(&rows);
        seen
    }

    fn shown(seen: &SeenFields) -> Vec<String> {
        let of_type = |(name, fields): (&str, &BTreeMap<String, ValueKinds>)| -> Vec<String> {
            let shown = |(field, kinds): (&String, &ValueKinds)| {
                format!("{name} {field} {}", kinds.names().collect::<Vec<_>>().join("+"))
            };
            fields.iter().map(shown).collect()
        };
        seen.types().flat_map(of_type).collect()
    }

    #[test]
    fn fields_are_told_by_type_with_the_kinds_of_their_values() {
        let seen = seen(&[
            ("reading", r#"{"t": 1, "room": {"Floor": 2, "list": [1], "none": null, "empty": {}}}"#),
            ("alarm", r#"{"on": true, "odd name": 1}"#),
            ("reading", r#"{"t": "n/a", "room": 7}"#),
            ("alarm", "[1]"),
        ]);
        let expected = [
            "alarm on boolean",
            "reading room number",
            "reading room.Floor number",
            "reading room.list list",
            "reading t number+text",
        ];
        assert_eq!(shown(&seen), expected);
        assert!(!seen.is_partial());
        assert_eq!(SeenFields::from_json(&seen.to_json()), seen);
        assert_eq!(SeenFields::from_json("{}"), SeenFields::unknown());
        let mut twice = seen.clone();
        twice.add(&seen);
        assert_eq!(twice, seen);
    }

    #[test]
    fn types_with_long_names_and_fields_that_lie_too_deep_are_not_told_which_is() {
        let (longest, longer) = ("t".repeat(TYPE_BYTES_MAX), "u".repeat(TYPE_BYTES_MAX + 1));
        let told = seen(&[(&longest, r#"{"n": 1}"#)]);
        assert_eq!((shown(&told), told.is_partial()), (vec![format!("{longest} n number")], false));
        let told = seen(&[(&longer, r#"{"n": 1}"#), ("t", r#"{"n": 1}"#)]);
        assert_eq!((shown(&told), told.is_partial()), (vec!["t n number".to_owned()], true));
        let of_other = format!(r#"{{"types": {{"{longer}": {{"n": 1}}}}, "partial": false}}"#);
        assert_eq!(SeenFields::from_json(&of_other), SeenFields::unknown());
        let named = |bytes: usize| {
            SeenFields::from_json(&format!(r#"{{"types": {{"t": {{"{}": 1}}}}, "partial": false}}"#, "n".repeat(bytes)))
        };
        assert_eq!(shown(&named(2 * PATH_BYTES_MAX)).len(), 1);
        assert!(named(2 * PATH_BYTES_MAX + 1).is_partial() && shown(&named(2 * PATH_BYTES_MAX + 1)).is_empty());
        let deep = format!(r#"{}{{"n": 1}}{}"#, r#"{"a": "#.repeat(8), "}".repeat(8));
        for data in [deep.as_str(), &format!(r#"{{"{0}": {{"{0}": 1}}}}"#, "a".repeat(100))] {
            let told = seen(&[("t", data)]);
            assert!(told.is_partial() && shown(&told).is_empty(), "{data}: {:?}", shown(&told));
        }
    }

    #[test]
    fn what_lies_too_deep_is_not_told_and_what_is_beside_it_is() {
        let deepest = format!(r#"{}{{"n": 1, "o": {{"p": 1}}}}{}"#, r#"{"a": "#.repeat(7), "}".repeat(7));
        let told = seen(&[("t", &deepest)]);
        assert_eq!((shown(&told), told.is_partial()), (vec!["t a.a.a.a.a.a.a.n number".to_owned()], true));
    }

    #[test]
    fn types_are_told_apart_however_often_they_change_up_to_a_bound() {
        let names: Vec<String> = (0..257).map(|n| format!("type{n}")).collect();
        let of = |count: usize| {
            let events: Vec<(&str, &str)> = names[..count].iter().map(|name| (name.as_str(), r#"{"n": 1}"#)).collect();
            seen(&events)
        };
        assert_eq!((of(256).types().count(), of(256).is_partial()), (256, false));
        assert_eq!((of(257).types().count(), of(257).is_partial()), (256, true));
        let turns: Vec<(&str, &str)> = (0..600).map(|n| (["one", "two"][n % 2], r#"{"n": 1}"#)).collect();
        let told = seen(&[&turns[..], &[("three", r#"{"n": 1}"#)]].concat());
        assert_eq!((told.types().count(), told.is_partial()), (3, false));
    }

    #[test]
    fn what_is_known_is_bounded_and_says_so() {
        let many: Vec<(String, String)> = (0..300)
            .map(|n| {
                let fields: Vec<String> = (0..100).map(|field| format!("\"f{n}_{field}\":1")).collect();
                (format!("type{n}"), format!("{{{}}}", fields.join(",")))
            })
            .collect();
        let events: Vec<(&str, &str)> = many.iter().map(|(name, data)| (name.as_str(), data.as_str())).collect();
        let mut all = SeenFields::default();
        for some in events.chunks(20) {
            all.add(&seen(some));
        }
        assert!(all.is_partial() && shown(&all).len() == FIELDS_MAX, "{}", shown(&all).len());
        let at_once = seen(&events);
        assert!(at_once.is_partial() && shown(&at_once).len() < FIELDS_MAX);
        // What is known goes on, what is new is neither told nor kept.
        let mut after = all.clone();
        after.add(&seen(&[("type0", r#"{"f0_0": "text"}"#), ("late", r#"{"f": 1}"#)]));
        assert!(shown(&after).contains(&"type0 f0_0 number+text".to_owned()));
        assert_eq!(after.types().count(), all.types().count());
        // Every type with every name is more than all that is kept.
        let names: Vec<String> = (0..200).map(|field| format!("\"f{field}\":1")).collect();
        let data = format!("{{{}}}", names.join(","));
        let types: Vec<String> = (0..100).map(|n| format!("type{n}")).collect();
        let events: Vec<(&str, &str)> = types.iter().map(|name| (name.as_str(), data.as_str())).collect();
        let square = seen(&events);
        assert!(square.is_partial() && shown(&square).len() == FIELDS_MAX);
        assert_eq!(SeenFields::from_json(&square.to_json()), square);
    }
}
