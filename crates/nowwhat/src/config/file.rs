//! A configuration file: TOML, each value with its line.

use std::path::Path;
use toml_edit::{Document, Item, Table, Value};

/// One value of the file.
pub(super) struct Entry {
    /// `section.key`.
    pub(super) name: String,
    pub(super) text: String,
    /// From 1.
    pub(super) line: usize,
}

/// Reads a file.
///
/// # Errors
/// Sentences that name the file and, where there is one, the line.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| vec![format!("{}: {e}", path.display())])?;
    let document = Document::parse(text.as_str()).map_err(|e| {
        let line = e.span().map_or(1, |span| line_of(&text, span.start));
        vec![format!("{} line {line}: {}", path.display(), e.message())]
    })?;
    let mut entries = Vec::new();
    let mut flaws = Vec::new();
    let place = |item: &Item| item.span().map_or(1, |span| line_of(&text, span.start));
    for (section, item) in document.as_table() {
        match item.as_table() {
            Some(table) => values(section, table, &place, &mut entries, &mut flaws),
            None => {
                flaws.push(format!("line {}: {section} stands in no section: write [section] above it", place(item)))
            }
        }
    }
    if flaws.is_empty() {
        return Ok(entries);
    }
    Err(flaws.into_iter().map(|flaw| format!("{} {flaw}", path.display())).collect())
}

fn values(
    section: &str,
    table: &Table,
    place: &dyn Fn(&Item) -> usize,
    entries: &mut Vec<Entry>,
    flaws: &mut Vec<String>,
) {
    for (key, item) in table {
        let (name, line) = (format!("{section}.{key}"), place(item));
        let list = item.as_array().map(|list| list.iter().map(single).collect::<Option<Vec<_>>>());
        let text = match list {
            Some(values) => values.map(|values| values.join(",")),
            None => item.as_value().and_then(single),
        };
        let Some(text) = text else {
            flaws.push(format!(
                "line {line}: {name} is neither a text nor a number nor true or false nor a list of such"
            ));
            continue;
        };
        entries.push(Entry { name, text, line });
    }
}

/// A value that is no list and no table, as text.
fn single(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Float(number) => Some(number.value().to_string()),
        Value::Boolean(yes) => Some(yes.value().to_string()),
        _ => None,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}
