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
    format!("{table}\n{}", counted(rows.len(), answer))
}

/// The same with a line for each column, for rows that are wider than the terminal.
pub(crate) fn expanded(answer: &Value) -> String {
    let none = Vec::new();
    let columns = answer["columns"].as_array().unwrap_or(&none);
    let names: Vec<String> = columns.iter().map(|c| on_one_line(c["name"].as_str().unwrap_or_default())).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let rows = answer["rows"].as_array().unwrap_or(&none);
    let mut text = String::new();
    for (n, row) in rows.iter().enumerate() {
        text += &format!("──[ {} ]──\n", n + 1);
        for (name, value) in names.iter().zip(row.as_array().unwrap_or(&none)) {
            text += format!("{name:width$} │ {}", on_one_line(&cell(value))).trim_end();
            text += "\n";
        }
    }
    text + &counted(rows.len(), answer)
}

fn counted(rows: usize, answer: &Value) -> String {
    let truncated = if answer["truncated"] == true { ", more were left out" } else { "" };
    format!("{rows} {}{truncated}", if rows == 1 { "row" } else { "rows" })
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
        let shown = expanded(&answer);
        assert_eq!((shown.matches("\\u{1b}]0;title\\u{7}ü").count(), shown.contains('\u{1b}')), (2, false), "{shown}");
    }

    #[test]
    fn an_answer_is_also_shown_with_a_line_for_each_column() {
        let answer = serde_json::json!({
            "columns": [{ "name": "a", "type": "bigint" }, { "name": "long", "type": "text" }],
            "rows": [[1, "x\ny"], [2, null]],
            "truncated": true
        });
        let shown = "──[ 1 ]──\na    │ 1\nlong │ x\\ny\n──[ 2 ]──\na    │ 2\nlong │\n2 rows, more were left out";
        assert_eq!(expanded(&answer), shown);
    }
}
