//! Answers as tables for people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use nowwhat::cli::printable;
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

/// A table of texts, which may come from anyone.
pub(crate) fn of_rows(names: Vec<String>, rows: &[Vec<String>]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(names.iter().map(|name| printable(name)));
    for row in rows {
        table.add_row(row.iter().map(|text| printable(text)));
    }
    table
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A [printable] text on one line.
pub(crate) fn on_one_line(text: &str) -> String {
    printable(text).replace('\n', "\\n").replace('\t', "\\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_an_event_cannot_command_the_terminal() {
        let odd = "\u{1b}]0;title\u{7}ü";
        let answer = serde_json::json!({ "columns": [{ "name": odd, "type": "text" }], "rows": [[odd]] });
        let shown = of_answer(&answer);
        assert_eq!((shown.matches("\\u{1b}]0;title\\u{7}ü").count(), shown.contains('\u{1b}')), (2, false), "{shown}");
        assert_eq!(on_one_line("a\u{1b}\nb"), "a\\u{1b}\\nb");
    }
}
