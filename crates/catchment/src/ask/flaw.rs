//! What is wrong with a statement, at its place.

use crate::client::Refused;
use nowwhat::cli::printable;
use unicode_width::UnicodeWidthStr;

/// Of a long line, so much before and behind the place is shown.
const CHARS_AROUND: usize = 40;

/// The line of a statement that an error tells of, with a mark under the place.
pub(super) fn marked(error: &anyhow::Error, sql: &str) -> Option<String> {
    let (line, column) = error.downcast_ref::<Refused>()?.place()?;
    mark(sql, line, column)
}

fn mark(sql: &str, line: usize, column: usize) -> Option<String> {
    let text: Vec<char> = sql.split('\n').nth(line - 1)?.trim_end().chars().collect();
    let at = (column - 1).min(text.len());
    let from = at.saturating_sub(CHARS_AROUND);
    let until = (at + CHARS_AROUND).min(text.len());
    let shown = |chars: &[char]| printable(&chars.iter().collect::<String>()).replace('\t', " ");
    let before = format!("LINE {line}: {}{}", if from > 0 { "…" } else { "" }, shown(&text[from..at]));
    let after = if until < text.len() { "…" } else { "" };
    let rest = shown(&text[at..until]);
    Some(format!("{before}{rest}{after}\n{}^", " ".repeat(before.width())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_under_the_place() {
        let at = |sql: &str, line, column| mark(sql, line, column).expect("a place");
        assert_eq!(at("SELEC 1", 1, 1), "LINE 1: SELEC 1\n        ^");
        assert_eq!(at("SELECT\n\t'漢', x\nFROM y", 2, 7), "LINE 2:  '漢', x\n               ^");
        assert_eq!(at("SELECT", 1, 7), "LINE 1: SELECT\n              ^");
        assert_eq!(at("SELECT", 1, 70), "LINE 1: SELECT\n              ^");
        assert_eq!(at("'\u{1b}', x", 1, 6), "LINE 1: '\\u{1b}', x\n                  ^");
        let long = format!("SELECT {} nothing {}", "a,".repeat(100), "b ".repeat(100));
        let shown = at(&long, 1, 209);
        let (line, below) = shown.split_once('\n').expect("two lines");
        assert!(line.starts_with("LINE 1: …,a") && line.ends_with('…'), "{shown}");
        let under: String = line.chars().skip(below.chars().count() - 1).take(7).collect();
        assert_eq!(under, "nothing");
        assert_eq!(mark("SELECT", 2, 1), None);
    }
}
