//! Answers as tables for people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;

/// The answer of a query as a table; numbers stand to the right.
pub(crate) fn of_answer(answer: &Value) -> String {
    let none = Vec::new();
    let columns = answer["columns"].as_array().unwrap_or(&none);
    let names = columns.iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect();
    let rows = answer["rows"].as_array().unwrap_or(&none).iter();
    let rows: Vec<Vec<String>> = rows.map(|row| row.as_array().unwrap_or(&none).iter().map(cell).collect()).collect();
    let mut table = of_rows(names, &rows);
    for (n, column) in columns.iter().enumerate() {
        if matches!(column["type"].as_str(), Some("bigint" | "double" | "decimal"))
            && let Some(column) = table.column_mut(n)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let truncated = if answer["truncated"] == true { ", more were left out" } else { "" };
    format!("{table}\n{} {}{truncated}", rows.len(), if rows.len() == 1 { "row" } else { "rows" })
}

/// A table of texts.
pub(crate) fn of_rows(names: Vec<String>, rows: &[Vec<String>]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(names);
    for row in rows {
        table.add_row(row);
    }
    table
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// A text without characters that could command the terminal: events come from anyone.
pub(crate) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_an_event_cannot_command_the_terminal() {
        assert_eq!(cell(&Value::from("\u{1b}]0;title\u{7}ü\n")), "\\u{1b}]0;title\\u{7}ü\n");
    }
}
