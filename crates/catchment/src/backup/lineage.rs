//! `restores.json` in a data folder: from which backups its events came, in order. `docs/FORMAT.md` describes it.
//!
//! A restore keeps the identity of the wal, so two collectors can have the same one and other events: the one that was backed up, and the one that was
//! restored. By this list they are known apart, and neither takes the place of the other in a folder of backups.

use super::manifest::sync_folder;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Its name.
const NAME: &str = "restores.json";

/// A restore that made a data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restored {
    /// Which no other restore has.
    pub(crate) id: String,
    /// When the backup was made.
    pub(crate) taken_at: String,
    /// The last position in it: those behind were given anew.
    pub(crate) last_position: u64,
}

/// The restores that made the events of a data folder, the first one first.
pub(crate) fn read(data: &Path) -> anyhow::Result<Vec<Restored>> {
    let path = data.join(NAME);
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        Ok(text) => serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is damaged: bring it back from `backup.json` of the backup that was restored here",
                path.display()
            )
        }),
    }
}

/// Notes them in a data folder, durably.
pub(crate) fn write(data: &Path, restores: &[Restored]) -> io::Result<()> {
    let mut file = File::create(data.join(NAME))?;
    file.write_all(&serde_json::to_vec(restores)?)?;
    file.sync_all()?;
    sync_folder(data)
}

/// Whether what has `now` has all events up to `last_position` of what had `before`.
pub(crate) fn goes_on(before: &[Restored], last_position: u64, now: &[Restored]) -> bool {
    now.starts_with(before) && now.get(before.len()).is_none_or(|next| last_position <= next.last_position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_has_all_of_before_and_what_was_restored_from_less_has_not() {
        let one = |id: &str, last_position| Restored { id: id.to_owned(), taken_at: "then".to_owned(), last_position };
        let (first, second, other) = (one("a", 100), one("b", 200), one("c", 100));
        for (before, last, now, expected) in [
            (vec![], 150, vec![], true),
            (vec![], 100, vec![first.clone()], true),
            (vec![], 101, vec![first.clone()], false),
            (vec![first.clone()], 150, vec![], false),
            (vec![first.clone()], 150, vec![other], false),
            (vec![first.clone()], 200, vec![first.clone(), second.clone()], true),
            (vec![first.clone()], 201, vec![first.clone(), second.clone()], false),
            (vec![first.clone(), second.clone()], 999, vec![first, second], true),
        ] {
            assert_eq!(goes_on(&before, last, &now), expected, "{before:?} {last} {now:?}");
        }
    }

    #[test]
    fn what_is_noted_is_read_and_a_folder_without_it_has_none() {
        let data = tempfile::tempdir().expect("a folder");
        assert_eq!(read(data.path()).expect("none"), []);
        let restores = [Restored { id: "a".to_owned(), taken_at: "then".to_owned(), last_position: 7 }];
        write(data.path(), &restores).expect("written");
        assert_eq!(read(data.path()).expect("read"), restores);
        fs::write(data.path().join(NAME), "[").expect("cut");
        assert!(read(data.path()).expect_err("damaged").to_string().contains("restores.json is damaged"));
    }
}
