//! The names that statements are made of, as the collector tells them. They are asked for beside the typing.

use crate::client::Client;
use serde_json::{Value, json};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After so long they are asked for again.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Who wants the first ones waits at most this long.
const WAIT: Duration = Duration::from_secs(1);

/// The names. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Names(Arc<Shared>);

#[derive(Default)]
struct Shared {
    known: Mutex<Known>,
    came: Condvar,
}

/// What is known.
#[derive(Default)]
pub(super) struct Known {
    pub(super) tables: Vec<String>,
    pub(super) columns: Vec<String>,
    pub(super) functions: Vec<String>,
    /// As they are asked: `data.room.temperature`.
    pub(super) fields: Vec<String>,
    pub(super) asked: Option<Instant>,
    pub(super) came: bool,
}

impl Names {
    /// Asks for them when they are old.
    pub(super) fn refresh(&self, client: &Arc<Client>) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.asked.is_some_and(|asked| asked.elapsed() < AGE_MAX) {
            return;
        }
        known.asked = Some(Instant::now());
        let (names, client, functions) = (self.clone(), client.clone(), known.functions.clone());
        std::thread::spawn(move || names.ask(&client, functions));
    }

    /// What cannot be had now stays as it was: whoever asks a question is told why.
    fn ask(&self, client: &Client, functions: Vec<String>) {
        let asked = asked(client, functions);
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(names) = asked {
            *known = Known { asked: known.asked, ..names };
        }
        known.came = true;
        self.0.came.notify_all();
    }

    /// What is known now; the first time it is waited for.
    pub(super) fn with<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.came.wait_timeout_while(known, WAIT, |known| !known.came);
        let (known, _) = waited.unwrap_or_else(PoisonError::into_inner);
        look(&known)
    }
}

/// The functions are asked for once. One failure is enough: a collector counts tokens that it does not know.
fn asked(client: &Client, functions: Vec<String>) -> anyhow::Result<Known> {
    let ask = |sql: &str| client.post_json("/api/v1/query", &json!({ "sql": sql }));
    let columns = ask("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'")?;
    let functions = match functions.is_empty() {
        true => of_rows(&ask("SELECT DISTINCT routine_name FROM information_schema.routines")?, 0),
        false => functions,
    };
    let types = client.get("/api/v1/fields")?;
    let types = types["types"].as_array().into_iter().flatten();
    let fields = types.flat_map(|one| one["fields"].as_array().into_iter().flatten());
    let fields = sorted(fields.map(|field| &field["name"]));
    Ok(Known { tables: of_rows(&columns, 0), columns: of_rows(&columns, 1), functions, fields, ..Known::default() })
}

fn of_rows(answer: &Value, column: usize) -> Vec<String> {
    sorted(answer["rows"].as_array().into_iter().flatten().map(|row| &row[column]))
}

/// Each once, without those that would have to be quoted, or could command the terminal.
fn sorted<'a>(names: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let is_plain = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    let mut names: Vec<String> = names.filter_map(Value::as_str).filter(is_plain).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_command_the_terminal_is_not_offered() {
        let answer = json!({ "rows": [["b"], ["a.c_1"], ["b"], ["\u{1b}[2J"], ["a b"], ["\u{202e}x"], [null], [1]] });
        assert_eq!(of_rows(&answer, 0), ["a.c_1", "b"]);
    }
}
