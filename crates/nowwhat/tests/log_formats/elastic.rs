//! An index of Elasticsearch as far as its template goes: which line it takes, under `coerce: false` and nothing ignored.
//!
//! Stricter than the real one in three ways: a keyword must be a text, be short enough to be searched for, and a field must have one
//! type of JSON on all lines. What the template says and this does not know is refused, so that nothing in it stays unchecked.

use jiff::Timestamp;
use regex::Regex;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The fields of a line in order, a name that is there twice also twice.
#[derive(Debug)]
pub(crate) struct Fields(pub(crate) Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// The type of JSON, by the names that `match_mapping_type` has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    String,
    Long,
    Double,
    Boolean,
    Other,
}

impl Kind {
    fn of(value: &Value) -> Self {
        match value {
            Value::String(_) => Self::String,
            Value::Number(number) if number.is_f64() => Self::Double,
            Value::Number(_) => Self::Long,
            Value::Bool(_) => Self::Boolean,
            Value::Null | Value::Array(_) | Value::Object(_) => Self::Other,
        }
    }

    fn named(name: &str) -> Result<Self, String> {
        match name {
            "string" => Ok(Self::String),
            "long" => Ok(Self::Long),
            "double" => Ok(Self::Double),
            "boolean" => Ok(Self::Boolean),
            _ => Err(format!("match_mapping_type {name} is not known")),
        }
    }
}

/// The type of a field in the index.
#[derive(Clone, Debug, PartialEq)]
enum Mapping {
    Date,
    Keyword { ignore_above: usize },
    Text { keyword: Option<usize> },
    Short,
    Long,
    Double,
    Boolean,
    Ip,
}

fn only(object: &Map<String, Value>, known: &[&str], place: &str) -> Result<(), String> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("{place}: {key} is not known")),
        None => Ok(()),
    }
}

fn object<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{place} is no object"))
}

impl Mapping {
    fn read(mapping: &Value, place: &str) -> Result<Self, String> {
        let mapping = object(mapping, place)?;
        let ignore_above = || {
            let chars = mapping.get("ignore_above").and_then(Value::as_u64);
            // A term has at most 32,766 bytes, a character up to four.
            let chars = chars.filter(|chars| (1..=8191).contains(chars));
            chars.map(|chars| chars as usize).ok_or_else(|| format!("{place}: ignore_above from 1 to 8191 is missing"))
        };
        let kind = mapping.get("type").and_then(Value::as_str).unwrap_or_default();
        let (known, read): (&[&str], Self) = match kind {
            "date_nanos" if mapping.get("format") == Some(&"strict_date_optional_time_nanos".into()) => {
                (&["type", "format", "ignore_malformed"], Self::Date)
            }
            "keyword" => (&["type", "ignore_above"], Self::Keyword { ignore_above: ignore_above()? }),
            "text" => {
                let keyword = match mapping.get("fields").map(|fields| &fields["keyword"]) {
                    None => None,
                    Some(inner) => match Self::read(inner, place)? {
                        Self::Keyword { ignore_above } => Some(ignore_above),
                        _ => return Err(format!("{place}: the field keyword of a text is a keyword")),
                    },
                };
                (&["type", "fields"], Self::Text { keyword })
            }
            "short" => (&["type"], Self::Short),
            "long" => (&["type"], Self::Long),
            "double" => (&["type"], Self::Double),
            "boolean" => (&["type"], Self::Boolean),
            "ip" => (&["type"], Self::Ip),
            _ => return Err(format!("{place}: type {kind:?} is not known")),
        };
        only(mapping, known, place)?;
        Ok(read)
    }

    /// Why the index would not take this value.
    fn flaw(&self, value: &Value) -> Option<String> {
        let text = value.as_str();
        let short_enough = |chars: usize| text.is_some_and(|text| text.chars().count() <= chars);
        let taken = match self {
            Self::Date => text.is_some_and(is_date),
            Self::Keyword { ignore_above } => short_enough(*ignore_above),
            Self::Text { keyword } => text.is_some() && keyword.is_none_or(short_enough),
            Self::Short => value.as_i64().is_some_and(|number| i16::try_from(number).is_ok()),
            Self::Long => value.as_i64().is_some(),
            Self::Double => value.as_f64().is_some_and(f64::is_finite),
            Self::Boolean => value.is_boolean(),
            Self::Ip => text.is_some_and(|text| text.parse::<IpAddr>().is_ok()),
        };
        (!taken).then(|| format!("{self:?} does not take {value:.80}"))
    }
}

/// `strict_date_optional_time_nanos` with everything that it leaves optional.
fn is_date(text: &str) -> bool {
    let form = Regex::new(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{1,9}(Z|[+-]\d{2}:\d{2})$").expect("a pattern");
    form.is_match(text) && text.parse::<Timestamp>().is_ok()
}

struct Dynamic {
    name: Option<Regex>,
    kind: Kind,
    mapping: Mapping,
}

impl Dynamic {
    fn read(entry: &Value) -> Result<Self, String> {
        let entry = object(entry, "dynamic_templates")?;
        let (place, rule) = entry.iter().next().ok_or("an empty dynamic template")?;
        let rule = object(rule, place)?;
        only(rule, &["match", "match_mapping_type", "mapping"], place)?;
        let name = rule.get("match").and_then(Value::as_str).map(|name| regex::escape(name).replace(r"\*", ".*"));
        let name = name.map(|name| Regex::new(&format!("^{name}$")).expect("an escaped pattern"));
        let kind = Kind::named(rule.get("match_mapping_type").and_then(Value::as_str).unwrap_or_default())?;
        Ok(Self { name, kind, mapping: Mapping::read(&rule["mapping"], place)? })
    }
}

/// An index that lines are put into.
pub(crate) struct Index {
    mappings: BTreeMap<String, Mapping>,
    dynamic: Vec<Dynamic>,
    /// The type of JSON that each field had at first.
    kinds: BTreeMap<String, Kind>,
}

impl Index {
    /// A new index of a data stream under this template.
    ///
    /// # Errors
    /// What is wrong with the template.
    pub(crate) fn new(template: &str, data_stream: &str) -> Result<Self, String> {
        let template: Value = serde_json::from_str(template).map_err(|error| error.to_string())?;
        let top = object(&template, "the template")?;
        only(top, &["index_patterns", "data_stream", "priority", "_meta", "template"], "the template")?;
        let pattern = template["index_patterns"][0].as_str().and_then(|pattern| pattern.strip_suffix('*'));
        if !pattern.is_some_and(|pattern| data_stream.starts_with(pattern)) || !template["data_stream"].is_object() {
            return Err(format!("the template is none of the data stream {data_stream}"));
        }
        // Elasticsearch's own template of logs-*-* has 100.
        if template["priority"].as_u64().is_none_or(|priority| priority <= 100) {
            return Err("the priority is not above that of the built-in template".to_owned());
        }
        only(object(&template["template"], "template")?, &["settings", "mappings"], "template")?;
        let known_settings = ["index.mapping.coerce", "index.mapping.ignore_malformed"];
        only(object(&template["template"]["settings"], "settings")?, &known_settings, "settings")?;
        let mappings = object(&template["template"]["mappings"], "mappings")?;
        only(mappings, &["date_detection", "numeric_detection", "dynamic_templates", "properties"], "mappings")?;
        for detection in ["date_detection", "numeric_detection"] {
            if mappings.get(detection) != Some(&false.into()) {
                return Err(format!("{detection} would let the first text of a field decide its type"));
            }
        }
        let dynamic = mappings["dynamic_templates"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        let dynamic = dynamic.iter().map(Dynamic::read).collect::<Result<_, _>>()?;
        let properties = object(&mappings["properties"], "properties")?;
        let mapping = |(name, mapping): (&String, &Value)| Ok((name.clone(), Mapping::read(mapping, name)?));
        let index = Self {
            mappings: properties.iter().map(mapping).collect::<Result<_, String>>()?,
            dynamic,
            kinds: BTreeMap::new(),
        };
        // A data stream is refused otherwise.
        if index.mappings.get("@timestamp") != Some(&Mapping::Date)
            || properties["@timestamp"]["ignore_malformed"] != false
        {
            return Err("@timestamp is not a date of which every line has one".to_owned());
        }
        Ok(index)
    }

    /// Puts a line in.
    ///
    /// # Errors
    /// Every reason not to take it.
    pub(crate) fn take(&mut self, line: &str) -> Result<(), Vec<String>> {
        let Fields(fields) = serde_json::from_str(line).map_err(|error| vec![error.to_string()])?;
        let mut flaws = Vec::new();
        for (n, (name, value)) in fields.iter().enumerate() {
            if fields[..n].iter().any(|(known, _)| known == name) {
                flaws.push(format!("{name} is there twice"));
            }
            flaws.extend(self.flaw(name, value).map(|flaw| format!("{name}: {flaw}")));
        }
        if !fields.iter().any(|(name, _)| name == "@timestamp") {
            flaws.push("@timestamp is missing".to_owned());
        }
        if flaws.is_empty() { Ok(()) } else { Err(flaws) }
    }

    fn flaw(&mut self, name: &str, value: &Value) -> Option<String> {
        let kind = Kind::of(value);
        let first = *self.kinds.entry(name.to_owned()).or_insert(kind);
        if first != kind {
            return Some(format!("it was a {first:?} before and is a {kind:?} now: {value:.80}"));
        }
        if !self.mappings.contains_key(name) {
            // A point makes an object of what stands before it, which a field of that name cannot be.
            if name.is_empty() || name.contains('.') {
                return Some("this is no name of a field".to_owned());
            }
            let fits = |rule: &&Dynamic| rule.kind == kind && rule.name.as_ref().is_none_or(|n| n.is_match(name));
            let Some(rule) = self.dynamic.iter().find(fits) else {
                return Some(format!("no mapping covers a {kind:?}"));
            };
            self.mappings.insert(name.to_owned(), rule.mapping.clone());
        }
        self.mappings[name].flaw(value)
    }

    /// The fields of all lines so far.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }
}
