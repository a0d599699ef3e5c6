//! What was typed before, in a file of the user's own.

use nowwhat::Environment;
use nowwhat::cli::complain;
use rustyline::Editor;
use rustyline::Helper;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Most entries; the oldest go.
pub(super) const ENTRIES_MAX: usize = 1000;

/// The file, and whether it can be written.
pub(super) struct History {
    path: Option<PathBuf>,
}

impl History {
    /// Reads what is there. Without a folder for it nothing is kept.
    pub(super) fn open<H: Helper>(editor: &mut Editor<H, FileHistory>, environment: &Environment) -> Self {
        let mut history = Self { path: path(|name| environment.get(name)) };
        if let Some(path) = &history.path {
            let opened = folder(path).map_err(ReadlineError::from).and_then(|()| editor.load_history(path));
            match opened {
                Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::NotFound => {}
                opened => history.check(opened),
            }
        }
        history
    }

    /// Keeps an entry, at once.
    pub(super) fn add<H: Helper>(&mut self, editor: &mut Editor<H, FileHistory>, entry: &str) {
        let added = editor.add_history_entry(entry);
        if let Some(path) = &self.path {
            let kept = added.and_then(|_| editor.append_history(path));
            self.check(kept);
        }
    }

    /// Says once that nothing is kept.
    fn check(&mut self, done: Result<(), ReadlineError>) {
        if let (Err(error), Some(path)) = (done, &self.path) {
            complain(&format!("what is typed is not kept in {}: {error}", path.display()));
            self.path = None;
        }
    }
}

/// In the folder for what programs remember of what was done, as the XDG Base Directory Specification has it.
fn path<'a>(variable: impl Fn(&str) -> Option<&'a str>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("catchment/history"))
}

fn folder(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| DirBuilder::new().recursive(true).mode(0o700).create(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_lies_where_the_user_keeps_such_things() {
        let of = |state: Option<&'static str>, home: Option<&'static str>| {
            path(|name| if name == "HOME" { home } else { state }).map(|path| path.display().to_string())
        };
        assert_eq!(of(Some("/s"), Some("/home/a")).as_deref(), Some("/s/catchment/history"));
        assert_eq!(of(None, Some("/home/a")).as_deref(), Some("/home/a/.local/state/catchment/history"));
        assert_eq!(of(Some("relative"), Some("/h")).as_deref(), Some("/h/.local/state/catchment/history"));
        assert_eq!(of(Some(""), None), None);
    }
}
