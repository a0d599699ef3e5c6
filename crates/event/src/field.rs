//! Which fields of `data` have a column.
//!
//! It promises that a field's type is that of the first value that could be one, and never changes, and that a field that has no column may get one
//! later. Names are what every reader of the table can read: letters, digits, underscores, no two alike but for capital letters.

use crate::split::{Unknown, Walk};
use arrow::array::StringArray;
use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use std::collections::{HashMap, HashSet};

/// The column that tells of each row how far its text need not be read: a field's column has what the text has when the column's number, counted
/// from 0 in the order in which they came, is smaller.
pub const REST: &str = "data_rest";
/// In [`REST`]: no column need be looked up in the text, not even one that comes later.
pub const WHOLE: i32 = i32::MAX;
/// What the names of the columns begin with.
pub const FIELDS: &str = "data.";

/// Fields that the table has columns for anyhow.
const OWN: [&str; 2] = ["type", "time"];
/// A field that lies deeper has no column.
pub(crate) const DEPTH_MAX: usize = 8;
/// A field with a longer path has no column.
pub(crate) const PATH_BYTES_MAX: usize = 128;

/// The type of a field's column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Numbers that a double holds exactly.
    Double,
    /// True and false.
    Boolean,
    /// Texts.
    Text,
}

impl Kind {
    /// As SQL calls it.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Text => "text",
        }
    }

    /// As Arrow has it.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Double => DataType::Float64,
            Self::Boolean => DataType::Boolean,
            Self::Text => DataType::Utf8,
        }
    }
}

/// A field with a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The names on the way to it, letters, digits and underscores each.
    pub path: Vec<String>,
    /// Its type.
    pub kind: Kind,
}

impl Field {
    /// The field of a column; none when the column is of no field.
    pub fn of_column(name: &str, kind: Kind) -> Option<Self> {
        let path: Vec<String> = name.strip_prefix(FIELDS)?.split('.').map(str::to_owned).collect();
        is_path(&path).then_some(Self { path, kind })
    }

    /// The name of its column: `data.` and the names on the way to it, joined by points.
    pub fn column(&self) -> String {
        column_of(&self.path)
    }
}

/// The name of the column that a field has or would have.
pub fn column_of(path: &[impl AsRef<str>]) -> String {
    let steps: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    format!("{FIELDS}{}", steps.join("."))
}

/// Whether a field of this path can have a column.
pub(crate) fn is_path(path: &[impl AsRef<str>]) -> bool {
    let bytes: usize = path.iter().map(|step| step.as_ref().len() + 1).sum();
    (1..=DEPTH_MAX).contains(&path.len()) && bytes <= PATH_BYTES_MAX && path.iter().all(|step| is_name(step.as_ref()))
}

/// Whether a name can be on the way to a field with a column.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Which fields may get a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRules {
    /// Most columns.
    pub columns_max: usize,
    /// Only these, and what lies under them, `a.b` each; all when it is empty.
    pub allow: Vec<String>,
    /// Never these, nor what lies under them.
    pub deny: Vec<String>,
}

impl Default for FieldRules {
    fn default() -> Self {
        Self { columns_max: 256, allow: Vec::new(), deny: Vec::new() }
    }
}

impl FieldRules {
    fn allows(&self, path: &str) -> bool {
        let under =
            |rule: &String| path.strip_prefix(rule.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('.'));
        (self.allow.is_empty() || self.allow.iter().any(under)) && !self.deny.iter().any(under)
    }
}

/// The fields that have a column, in the order in which they got it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    fields: Vec<Field>,
    places: HashMap<String, usize>,
    /// Names of the columns without the difference of capital and small letters, which many readers do not make.
    folded: HashSet<String>,
    rules: FieldRules,
}

impl Fields {
    /// Those that are there already, whatever the rules say of them.
    pub fn new(fields: impl IntoIterator<Item = Field>, rules: FieldRules) -> Self {
        let mut all = Self { rules, ..Self::default() };
        for field in fields {
            all.push(field);
        }
        all
    }

    /// The fields, each at its number.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Field> {
        self.fields.iter()
    }

    /// The type of the column of this number.
    pub(crate) fn kind(&self, number: usize) -> Kind {
        self.fields[number].kind
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether no field has a column.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The number and the type of a field's column.
    pub fn get(&self, path: &[impl AsRef<str>]) -> Option<(usize, Kind)> {
        let place = *self.places.get(&column_of(path))?;
        // A name with a point in it is not the field below.
        let same = self.fields[place].path.iter().map(String::as_str).eq(path.iter().map(AsRef::as_ref));
        same.then(|| (place, self.fields[place].kind))
    }

    /// Whether there may be one more column.
    pub(crate) fn has_room(&self) -> bool {
        self.fields.len() < self.rules.columns_max
    }

    /// Whether a field that has none may get a column.
    pub fn may_get(&self, path: &[impl AsRef<str>]) -> bool {
        let name = column_of(path);
        self.has_room()
            && is_path(path)
            && !OWN.contains(&&name[FIELDS.len()..])
            && self.rules.allows(&name[FIELDS.len()..])
            && !self.folded.contains(&name.to_ascii_lowercase())
    }

    /// Gives columns to the fields of these texts that may get one, in the order of the texts, however they are cut.
    pub fn discover<'a>(&mut self, data: impl IntoIterator<Item = &'a StringArray>) {
        let mut walk = Walk::new(std::mem::take(self), Unknown::Column);
        for text in data.into_iter().flatten().flatten() {
            walk.row(text, &mut |_, _| {});
        }
        *self = walk.into_fields();
    }

    /// The columns that a table of these fields has beside its own: [`REST`], and one for each field.
    pub fn columns(&self) -> Vec<ArrowField> {
        let rest = ArrowField::new(REST, DataType::Int32, true);
        let of_field = |field: &Field| ArrowField::new(field.column(), field.kind.data_type(), true);
        std::iter::once(rest).chain(self.fields.iter().map(of_field)).collect()
    }

    /// A table's columns with those of the fields behind them.
    pub fn schema(&self, table: &Schema) -> Schema {
        let own = table.fields().iter().map(|field| field.as_ref().clone());
        Schema::new(own.chain(self.columns()).collect::<Vec<_>>())
    }

    pub(crate) fn push(&mut self, field: Field) {
        let name = field.column();
        self.folded.insert(name.to_ascii_lowercase());
        self.places.insert(name, self.fields.len());
        self.fields.push(field);
    }
}
