//! What Tab makes of the beginning of a word.

use super::names::{Known, Names};
use super::shell::COMMANDS;
use super::statements::{Within, end, is_of_name};
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

/// Words of SQL that questions have.
const KEYWORDS: [&str; 66] = [
    "ALL",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "CASE",
    "CAST",
    "CROSS",
    "DATE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DOUBLE",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FILTER",
    "FIRST",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LAST",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "RIGHT",
    "SELECT",
    "SHOW",
    "TABLES",
    "TEXT",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "WITHIN",
];

/// What is known while a line is typed.
pub(super) struct Typing {
    pub(super) names: Names,
    /// The lines of the statement before this one.
    pub(super) before: String,
}

impl Completer for Typing {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.names.with(|known| candidates(known, &self.before, &line[..at])))
    }
}

impl Hinter for Typing {
    type Hint = String;
}

impl Highlighter for Typing {}

impl Validator for Typing {}

impl Helper for Typing {}

/// Where the word begins at the end of the line, and what it can become.
fn candidates(known: &Known, before: &str, line: &str) -> (usize, Vec<String>) {
    let text = format!("{before}{line}");
    let nothing = (line.len(), Vec::new());
    if end(before) == Within::Statement && line.trim_start().starts_with('\\') {
        return of_command(known, line).unwrap_or(nothing);
    }
    if end(&text) == Within::Quoted {
        return nothing;
    }
    let word = line.rsplit(|c| !is_of_name(c) && c != '.').next().unwrap_or_default();
    let begin = line.len() - word.len();
    let last = text[..text.len() - word.len()].split_whitespace().next_back().unwrap_or_default();
    let mut found = if ["FROM", "JOIN", "DESCRIBE"].contains(&&*last.to_uppercase()) {
        beginning(&known.tables, word).collect()
    } else if let Some((table, rest)) = word.split_once('.').filter(|(table, _)| *table != "data") {
        let of_table = beginning(&known.columns, rest).chain(steps(&known.fields, rest));
        of_table.map(|name| format!("{table}.{name}")).collect()
    } else {
        of_word(known, word)
    };
    found.sort_unstable();
    found.dedup();
    (begin, found)
}

fn of_command(known: &Known, line: &str) -> Option<(usize, Vec<String>)> {
    let command = line.trim_start();
    let Some((name, argument)) = command.split_once(char::is_whitespace) else {
        let commands = COMMANDS.iter().map(|(name, ..)| (*name).to_owned());
        return Some((line.len() - command.len(), commands.filter(|name| name.starts_with(command)).collect()));
    };
    let argument = argument.trim_start();
    let names: Vec<&str> = match name {
        "\\d" => known.tables.iter().map(String::as_str).collect(),
        "\\format" => vec!["csv", "json", "ndjson", "table"],
        "\\x" | "\\timing" => vec!["off", "on"],
        _ => return None,
    };
    let names = names.into_iter().filter(|name| name.starts_with(argument)).map(str::to_owned);
    Some((line.len() - argument.len(), names.collect()))
}

fn of_word(known: &Known, word: &str) -> Vec<String> {
    let mut found: Vec<String> = beginning(&known.columns, word).chain(steps(&known.fields, word)).collect();
    if word.is_empty() || word.contains('.') {
        return found;
    }
    found.extend(beginning(&known.tables, word));
    found.extend(beginning(&known.functions, &word.to_lowercase()).map(|name| format!("{name}(")));
    let upper = word.to_uppercase();
    let keywords = KEYWORDS.iter().filter(|keyword| keyword.starts_with(&upper));
    let is_small = word == word.to_lowercase();
    found.extend(keywords.map(|keyword| if is_small { keyword.to_lowercase() } else { (*keyword).to_owned() }));
    found
}

fn beginning<'a>(names: &'a [String], word: &'a str) -> impl Iterator<Item = String> + 'a {
    names.iter().filter(move |name| name.starts_with(word)).cloned()
}

/// The fields that begin so, each up to the next point where several go on behind it.
fn steps(fields: &[String], word: &str) -> Vec<String> {
    let matching: Vec<&str> = fields.iter().map(String::as_str).filter(|field| field.starts_with(word)).collect();
    let step = |field: &'_ str| field[word.len()..].find('.').map_or(field.len(), |at| word.len() + at + 1);
    // They are in order: those of one step lie together.
    let alike = |a: &&str, b: &&str| a[..step(a)] == b[..step(b)];
    let together = matching.chunk_by(alike);
    together
        .map(|some| if let [one] = some { (*one).to_owned() } else { some[0][..step(some[0])].to_owned() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(before: &str, line: &str) -> Vec<String> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let known = Known {
            tables: names(&["events", "rejected"]),
            columns: names(&["data", "data_binary", "time", "type"]),
            functions: names(&["avg", "date_bin", "to_date"]),
            fields: names(&["data.room.door", "data.room.light.on", "data.temperature", "data.tilt.x"]),
            ..Known::default()
        };
        let (begin, found) = candidates(&known, before, line);
        found.into_iter().map(|found| format!("{}{found}", &line[..begin])).collect()
    }

    #[test]
    fn a_word_becomes_what_there_is() {
        assert_eq!(of("", "SELECT data.te"), ["SELECT data.temperature"]);
        assert_eq!(
            of("", "SELECT avg(data."),
            ["SELECT avg(data.room.", "SELECT avg(data.temperature", "SELECT avg(data.tilt.x"]
        );
        assert_eq!(of("", "data.room."), ["data.room.door", "data.room.light.on"]);
        assert_eq!(of("", "x = e.data.ro"), ["x = e.data.room."]);
        assert_eq!(of("", "e.ti"), ["e.time"]);
        assert_eq!(of("", "dat"), ["data", "data.", "data_binary", "date", "date_bin("]);
        assert_eq!(of("", "SEL"), ["SELECT"]);
        assert_eq!(of("", "sel"), ["select"]);
        assert_eq!(of("", "SELECT 1 FROM "), ["SELECT 1 FROM events", "SELECT 1 FROM rejected"]);
        assert_eq!(of("SELECT *\nfrom\n", "ev"), ["events"]);
        assert_eq!(of("", "é-ty"), ["é-type"]);
        assert_eq!(of("", "漢"), [""; 0]);
        assert_eq!(of("", "(→tim"), ["(→time", "(→timestamp"]);
    }

    #[test]
    fn within_quotation_marks_nothing_is_known_and_commands_stand_at_the_beginning() {
        assert_eq!(of("", "SELECT 'dat"), [""; 0]);
        assert_eq!(of("SELECT '\n", "\\"), [""; 0]);
        assert_eq!(of("", "\\t"), ["\\timing"]);
        assert_eq!(of("", " \\d ev"), [" \\d events"]);
        assert_eq!(of("", "\\format j"), ["\\format json"]);
        assert_eq!(of("", "\\q x"), [""; 0]);
        assert_eq!(of("SELECT 1\n", "\\?"), ["\\?"]);
    }
}
