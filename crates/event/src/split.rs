//! Takes the texts of `data` apart into the columns of fields.
//!
//! # What it promises
//!
//! - A column never tells another value than the text: what does not fit its column's type exactly is null there, and its row says in the
//!   column [`REST`](crate::REST) that the text is to be read.
//! - Whatever the texts are, memory is bounded: so many columns, so many names, so many bytes of a text.

mod types;
mod value;

use crate::field::{DEPTH_MAX, Field, Fields, Kind, PATH_BYTES_MAX, WHOLE, is_name, is_path};
use crate::json::{Scanner, SyntaxError};
use crate::seen::{SeenFields, ValueKinds};
use arrow::array::{
    Array, ArrayBuilder, ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, StringArray, StringBuilder,
};
use std::collections::HashMap;
use std::sync::Arc;
use types::Types;
use value::{Value, fitting};

/// Readers of the text may end at an integer that has more digits: the one of questions reads nothing behind it.
const DIGITS_MAX: usize = 4300;
/// Most names that are known at once; a row with others is looked up in the text.
const NAMES_MAX: usize = 4096;

/// Takes texts apart into the columns of fields.
#[derive(Debug)]
pub struct Splitter {
    walk: Walk,
}

/// Texts, taken apart.
#[derive(Debug)]
pub struct Split {
    /// The columns, as [`Fields::columns`] names them.
    pub columns: Vec<ArrayRef>,
    /// The smallest value of [`REST`](crate::REST).
    pub whole: i32,
}

impl Splitter {
    /// For the columns of these fields.
    pub fn new(fields: Fields) -> Self {
        Self { walk: Walk::new(fields, Unknown::Seen) }
    }

    /// The fields.
    pub fn fields(&self) -> &Fields {
        &self.walk.fields
    }

    /// Whether a field was seen that has no column and may get one.
    pub fn saw_new(&self) -> bool {
        self.walk.saw_new
    }

    /// The fields of the texts so far.
    pub fn seen(&self) -> SeenFields {
        self.walk.seen()
    }

    /// Takes the texts of events of these types apart.
    pub fn split(&mut self, data: &StringArray, types: &StringArray) -> Split {
        let mut values: Vec<Values> = self.walk.fields.iter().map(|field| Values::new(field.kind)).collect();
        let mut rest = Int32Builder::with_capacity(data.len());
        let mut whole = WHOLE;
        for row in 0..data.len() {
            let mut row_whole = WHOLE;
            if !data.is_null(row) {
                self.walk.of_type(types.value(row));
                row_whole = self.walk.row(data.value(row), &mut |column, value| values[column].put(row, value));
            }
            whole = whole.min(row_whole);
            rest.append_value(row_whole);
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(rest.finish())];
        columns.extend(values.into_iter().map(|values| values.finish(data.len())));
        Split { columns, whole }
    }
}

/// The values of a column so far; rows between were null.
enum Values {
    Double(Float64Builder),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
}

impl Values {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Double => Self::Double(Float64Builder::with_capacity(0)),
            Kind::Boolean => Self::Boolean(BooleanBuilder::with_capacity(0)),
            Kind::Text => Self::Text(StringBuilder::with_capacity(0, 0)),
        }
    }

    fn put(&mut self, row: usize, value: Value<'_>) {
        self.fill(row);
        match (self, value) {
            (Self::Double(values), Value::Double(value)) => values.append_value(value),
            (Self::Boolean(values), Value::Boolean(value)) => values.append_value(value),
            (Self::Text(values), Value::Text(value)) => values.append_value(value),
            _ => {}
        }
    }

    /// Nulls up to a row.
    fn fill(&mut self, row: usize) {
        match self {
            Self::Double(values) if values.len() < row => values.append_nulls(row - values.len()),
            Self::Boolean(values) if values.len() < row => values.append_nulls(row - values.len()),
            Self::Text(values) if values.len() < row => values.append_nulls(row - values.len()),
            _ => {}
        }
    }

    fn finish(mut self, rows: usize) -> ArrayRef {
        self.fill(rows);
        match self {
            Self::Double(mut values) => Arc::new(values.finish()),
            Self::Boolean(mut values) => Arc::new(values.finish()),
            Self::Text(mut values) => Arc::new(values.finish()),
        }
    }
}

/// A name somewhere in the texts.
#[derive(Debug)]
struct Name {
    text: Box<str>,
    parent: usize,
    depth: usize,
    /// Its column.
    column: Option<usize>,
    /// A field of a column lies below it.
    leads: bool,
    /// The rules were asked: it may get a column as long as there is room.
    may_get: bool,
    /// It can have a column by its name.
    is_path: bool,
    by_name: HashMap<Box<str>, usize>,
    /// The first name in it, and the one behind it, when it came last; [`ROOT`] when there was none.
    first: usize,
    next: usize,
    /// The row in which it was seen last, counted from 1.
    seen: u64,
    /// The kinds of its values, by the number of the event's type.
    kinds: Vec<ValueKinds>,
}

impl Name {
    fn new(text: &str, parent: usize, depth: usize) -> Self {
        Self {
            text: text.into(),
            parent,
            depth,
            column: None,
            leads: false,
            may_get: false,
            is_path: false,
            by_name: HashMap::new(),
            first: ROOT,
            next: ROOT,
            seen: 0,
            kinds: Vec::new(),
        }
    }

    fn had(&mut self, event_type: usize, kind: ValueKinds) {
        if kind.is_none() {
            return;
        }
        if self.kinds.len() <= event_type {
            self.kinds.resize(event_type + 1, ValueKinds::default());
        }
        self.kinds[event_type].add(kind);
    }
}

/// A member of an object.
enum Member {
    /// Its name is known now.
    Known(usize),
    /// Its name came before in the same object, or can be on no way to a column.
    Passed,
    /// There are too many names to know its own.
    Stranger,
}

/// What becomes of a field that has no column and may get one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It gets one at once.
    Column,
    /// It is told that there is one.
    Seen,
}

/// Goes through texts, name by name. Texts of one shape have their names in the same order: the next one is guessed.
#[derive(Debug)]
pub(crate) struct Walk {
    fields: Fields,
    names: Vec<Name>,
    unknown: Unknown,
    saw_new: bool,
    types: Types,
    /// Fields were passed over that are not told.
    is_partial: bool,
    row: u64,
    whole: i32,
    scratch: String,
}

const ROOT: usize = 0;

impl Walk {
    pub(crate) fn new(fields: Fields, unknown: Unknown) -> Self {
        let mut walk = Self {
            names: Vec::new(),
            fields: Fields::default(),
            unknown,
            saw_new: false,
            types: Types::default(),
            is_partial: false,
            row: 0,
            whole: WHOLE,
            scratch: String::new(),
        };
        walk.names.push(Name { leads: true, ..Name::new("", ROOT, 0) });
        for (column, field) in fields.iter().enumerate() {
            let mut at = ROOT;
            for step in &field.path {
                at = match walk.names[at].by_name.get(step.as_str()) {
                    Some(known) => *known,
                    None => walk.add(at, step),
                };
            }
            walk.got(at, column);
        }
        walk.fields = fields;
        walk
    }

    /// Goes through the text of a row. How far it need not be looked up in the text; `put` gets what fits a column.
    pub(crate) fn row(&mut self, text: &str, put: &mut impl FnMut(usize, Value<'_>)) -> i32 {
        self.row += 1;
        self.whole = WHOLE;
        let mut scanner = Scanner::new(text.as_bytes(), usize::MAX);
        let read = match scanner.peek() {
            Some(b'{') => self.object(&mut scanner, text, ROOT, put),
            // No object has no fields.
            _ => Ok(()),
        };
        // A text that cannot be read was read when it came.
        if read.is_err() || has_digits(text, DIGITS_MAX + 1) {
            self.whole = 0;
        }
        self.whole
    }

    /// The rows that follow are of events of this type.
    pub(crate) fn of_type(&mut self, name: &str) {
        self.types.turn_to(name);
        self.is_partial |= self.types.current.is_none();
    }

    /// The fields of the rows whose type was told.
    pub(crate) fn seen(&self) -> SeenFields {
        let mut seen = SeenFields::default();
        let mut is_partial = self.is_partial;
        for (place, name) in self.names.iter().enumerate() {
            for (number, kinds) in name.kinds.iter().enumerate().filter(|(_, kinds)| !kinds.is_none()) {
                if name.is_path {
                    seen.put(&self.types.names[number], &self.path(place).join("."), *kinds);
                }
                is_partial |= !name.is_path;
            }
        }
        if is_partial {
            seen.not_all();
        }
        seen
    }

    /// The fields, with those that got a column on the way.
    pub(crate) fn into_fields(self) -> Fields {
        self.fields
    }

    /// An object whose brace is next.
    fn object<'t>(
        &mut self,
        scanner: &mut Scanner<'t>,
        text: &'t str,
        parent: usize,
        put: &mut impl FnMut(usize, Value<'_>),
    ) -> Result<(), SyntaxError> {
        scanner.at += 1;
        if scanner.eat(b'}') {
            return Ok(());
        }
        let mut before = None;
        loop {
            let escapes = scanner.escapes;
            let key = scanner.key()?;
            let name = &text[key.start + 1..key.end - 1];
            if scanner.escapes > escapes {
                // It may stand for any name.
                self.whole = 0;
            }
            let member = self.member(parent, name, &mut before);
            self.value(scanner, text, member, put)?;
            if scanner.eat(b'}') {
                return Ok(());
            }
            if !scanner.eat(b',') {
                return Err(scanner.expected("a comma or the end of the object"));
            }
        }
    }

    /// A member of `parent`, behind the one `before` it.
    fn member(&mut self, parent: usize, name: &str, before: &mut Option<usize>) -> Member {
        let guess = before.map_or(self.names[parent].first, |before| self.names[before].next);
        let child = if guess != ROOT && *self.names[guess].text == *name {
            guess
        } else {
            if !is_name(name) {
                return Member::Passed;
            }
            let child = match self.names[parent].by_name.get(name) {
                Some(child) => *child,
                None if self.names.len() < NAMES_MAX && name.len() <= PATH_BYTES_MAX => {
                    let child = self.add(parent, name);
                    self.names[child].may_get = self.fields.may_get(&self.path(child));
                    child
                }
                None => {
                    self.saw_new |= self.fields.has_room();
                    return Member::Stranger;
                }
            };
            match *before {
                None => self.names[parent].first = child,
                Some(before) => self.names[before].next = child,
            }
            child
        };
        *before = Some(child);
        if std::mem::replace(&mut self.names[child].seen, self.row) == self.row {
            // Of two values of one name readers take this one or that one.
            self.whole = 0;
            return Member::Passed;
        }
        Member::Known(child)
    }

    fn value<'t>(
        &mut self,
        scanner: &mut Scanner<'t>,
        text: &'t str,
        member: Member,
        put: &mut impl FnMut(usize, Value<'_>),
    ) -> Result<(), SyntaxError> {
        let first = scanner.peek();
        let start = scanner.at;
        let name = match member {
            Member::Known(name) => name,
            Member::Passed => return scanner.value(),
            Member::Stranger => {
                self.is_partial = true;
                self.whole = self.whole.min(self.fields.len() as i32);
                return scanner.value();
            }
        };
        if let (Some(event_type), Some(byte)) = (self.types.current, first) {
            self.names[name].had(event_type, ValueKinds::beginning(byte));
        }
        match first {
            Some(b'{') if self.names[name].depth < DEPTH_MAX => {
                self.object(scanner, text, name, put)?;
                self.unread(name);
            }
            Some(byte @ (b'{' | b'[')) => {
                // What is in an object so deep is not told.
                self.is_partial |= byte == b'{';
                scanner.value()?;
                self.unread(name);
            }
            Some(b'n') => scanner.value()?,
            _ => {
                scanner.value()?;
                self.scalar(&text[start..scanner.at], name, put);
            }
        }
        Ok(())
    }

    /// An object or a list, which is in no column: as a text it is the value of its field.
    fn unread(&mut self, name: usize) {
        let Name { column, leads, is_path, .. } = self.names[name];
        match column.map(|column| self.fields.kind(column)) {
            Some(Kind::Text) => self.whole = 0,
            // No number, nor true or false.
            Some(_) => {}
            // Below it lie columns, so it gets none.
            None if leads || !is_path => {}
            None => self.whole = self.whole.min(self.fields.len() as i32),
        }
    }

    fn scalar(&mut self, text: &str, name: usize, put: &mut impl FnMut(usize, Value<'_>)) {
        let Name { column, is_path, may_get, leads, .. } = self.names[name];
        if column.is_none() && (leads || !may_get) {
            if is_path {
                self.whole = self.whole.min(self.fields.len() as i32);
            }
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let value = fitting(text, &mut scratch);
        match (column, value) {
            (Some(column), Some(value)) if value.kind() == self.fields.kind(column) => put(column, value),
            (Some(_), _) => self.whole = 0,
            (None, None) => self.whole = self.whole.min(self.fields.len() as i32),
            (None, Some(value)) => self.unknown(name, value.kind()),
        }
        self.scratch = scratch;
    }

    /// A value of a field that has no column and may get one.
    fn unknown(&mut self, name: usize, kind: Kind) {
        let path = self.path(name);
        if !self.fields.may_get(&path) {
            // No room any more, or one of the same name but for capital letters was quicker.
            self.names[name].may_get = false;
        } else if self.unknown == Unknown::Column {
            self.fields.push(Field { path, kind });
            self.got(name, self.fields.len() - 1);
        } else {
            self.saw_new = true;
        }
        self.whole = self.whole.min(self.fields.len() as i32);
    }

    fn got(&mut self, name: usize, column: usize) {
        self.names[name].column = Some(column);
        let mut at = name;
        while at != ROOT {
            at = self.names[at].parent;
            self.names[at].leads = true;
        }
    }

    fn add(&mut self, parent: usize, name: &str) -> usize {
        let place = self.names.len();
        let depth = self.names[parent].depth + 1;
        self.names.push(Name::new(name, parent, depth));
        self.names[parent].by_name.insert(name.into(), place);
        self.names[place].is_path = is_path(&self.path(place));
        place
    }

    fn path(&self, name: usize) -> Vec<String> {
        let (mut at, mut path) = (name, Vec::new());
        while at != ROOT {
            path.push(self.names[at].text.to_string());
            at = self.names[at].parent;
        }
        path.reverse();
        path
    }
}

/// Whether so many digits stand in a row.
fn has_digits(text: &str, digits: usize) -> bool {
    text.len() >= digits && text.as_bytes().split(|b| !b.is_ascii_digit()).any(|run| run.len() >= digits)
}

#[cfg(test)]
mod tests;
