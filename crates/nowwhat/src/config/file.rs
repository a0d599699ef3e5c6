//! A configuration file: TOML, each value with its line.

use crate::small_file::{Readable, read_text};
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

/// What a file says, and what is wrong with it: sentences that name the file and, where there is one, the line.
#[derive(Default)]
pub(super) struct Said {
    pub(super) entries: Vec<Entry>,
    pub(super) flaws: Vec<String>,
}

/// Reads a file.
pub(super) fn read(path: &Path, readable: Readable) -> Said {
    let flawed = |flaw: String| Said { flaws: vec![format!("{}{flaw}", path.display())], ..Said::default() };
    let text = match read_text(path, readable) {
        Ok(text) => text,
        Err(error) => return flawed(format!(": {error}")),
    };
    let lines = Lines::of(&text);
    let document = match Document::parse(text.as_str()) {
        Ok(document) => document,
        Err(error) => {
            let line = error.span().map_or(1, |span| lines.at(span.start));
            return flawed(format!(" line {line}: {}", error.message()));
        }
    };
    let mut said = Said::default();
    for (section, item) in document.as_table() {
        match item.as_table() {
            Some(table) => said.section(section, table, &lines),
            None => {
                let line = lines.of_item(item);
                said.flaws.push(format!("line {line}: {section} stands in no section: write [section] above it"));
            }
        }
    }
    for flaw in &mut said.flaws {
        *flaw = format!("{} {flaw}", path.display());
    }
    said
}

impl Said {
    fn section(&mut self, section: &str, table: &Table, lines: &Lines) {
        for (key, item) in table {
            let (name, line) = (format!("{section}.{key}"), lines.of_item(item));
            let text = match (item.as_array(), item.as_value()) {
                (Some(list), _) => list.iter().enumerate().map(|(n, value)| element(n + 1, value)).collect(),
                (None, value) => value.and_then(single).map(|text| vec![text]).ok_or_else(String::new),
            };
            match text {
                Ok(values) => self.entries.push(Entry { name, text: values.join(","), line }),
                Err(which) => self.flaws.push(format!(
                    "line {line}: {name} is neither a text nor a number nor true or false nor a list of such{which}"
                )),
            }
        }
    }
}

/// The text of a list's element, counted from 1, or what is wrong with it.
fn element(n: usize, value: &Value) -> Result<String, String> {
    match single(value) {
        Some(text) if text.contains(',') => Err(format!(": its element {n} has a comma, which ends an element")),
        Some(text) if text.trim().is_empty() => Err(format!(": its element {n} is empty, leave it out")),
        Some(text) => Ok(text),
        None => Err(format!(": see its element {n}")),
    }
}

/// A value that is no list and no table, as text.
fn single(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        // As `3.0` and not as `3`, which would be a whole number.
        Value::Float(number) => Some(format!("{:?}", number.value())),
        Value::Boolean(yes) => Some(yes.value().to_string()),
        _ => None,
    }
}

/// Where each line of a text begins.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line of a byte, from 1.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|begin| *begin <= offset)
    }

    fn of_item(&self, item: &Item) -> usize {
        item.span().map_or(1, |span| self.at(span.start))
    }
}
