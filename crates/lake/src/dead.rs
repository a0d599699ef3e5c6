//! Files that the table does not have any more, and readers may.
//!
//! A merge takes files out of the table. Who reads an older version still opens them: a query until it ends, another engine for as long as
//! it takes. So they go an hour later, and not before the last snapshot that has them is gone.

use crate::snapshot::Snapshot;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// So long a file stays for other engines.
const GRACE_MILLIS: i64 = 3_600_000;

/// A file that went.
#[derive(Debug)]
struct Dead {
    path: String,
    since_millis: i64,
    /// The first version without it.
    version: u64,
}

/// The files that went, and who may have them.
#[derive(Debug, Default)]
pub(crate) struct DeadFiles(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    dead: Vec<Dead>,
    snapshots: Vec<Weak<Snapshot>>,
}

impl DeadFiles {
    /// A snapshot that readers get from now on, instead of the one before. What it has no more is dead.
    pub(crate) fn published(&self, before: &Snapshot, snapshot: &Arc<Snapshot>, now_millis: i64) {
        let active = paths(snapshot);
        for file in before.files.iter().filter(|file| !active.contains(file.path.as_str())) {
            self.add(file.path.clone(), now_millis, snapshot.version);
        }
        let mut state = self.lock();
        state.snapshots.retain(|s| s.strong_count() > 0);
        state.snapshots.push(Arc::downgrade(snapshot));
    }

    /// A file that is not in `version` any more.
    pub(crate) fn add(&self, path: String, since_millis: i64, version: u64) {
        self.lock().dead.push(Dead { path, since_millis, version });
    }

    /// Number of files that wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().dead.len()
    }

    /// Removes the files whose time has come. Returns how many.
    ///
    /// # Errors
    /// The first that could not be removed; it is tried again with the next call.
    pub(crate) fn sweep(&self, root: &Path, now_millis: i64) -> io::Result<u64> {
        let due = {
            let mut state = self.lock();
            let held: Vec<_> = state.snapshots.iter().filter_map(Weak::upgrade).collect();
            let oldest = held.iter().map(|s| s.version).min().unwrap_or(u64::MAX);
            let active = held.last().map_or_else(HashSet::new, |newest| paths(newest));
            // What is in the table is never removed, whatever led here.
            state.dead.retain(|dead| !active.contains(dead.path.as_str()));
            let is_due = |dead: &mut Dead| now_millis - dead.since_millis >= GRACE_MILLIS && oldest >= dead.version;
            state.dead.extract_if(.., is_due).collect::<Vec<_>>()
        };
        let mut removed = 0;
        let mut failed = None;
        for dead in due {
            match fs::remove_file(root.join(&dead.path)) {
                Ok(()) => removed += 1,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    failed.get_or_insert(e);
                    self.lock().dead.push(dead);
                }
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn paths(snapshot: &Snapshot) -> HashSet<&str> {
    snapshot.files.iter().map(|file| file.path.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(root: &Path, version: u64) -> Arc<Snapshot> {
        Arc::new(Snapshot::new(version, 0, root.to_path_buf(), Vec::new()))
    }

    #[test]
    fn a_file_goes_after_an_hour_and_not_while_a_snapshot_has_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a");
        fs::write(&path, "x").expect("written");
        let dead = DeadFiles::default();
        let (before, after) = (snapshot(dir.path(), 6), snapshot(dir.path(), 7));
        dead.published(&before, &before, 0);
        dead.published(&before, &after, 0);
        dead.add("a".to_owned(), 0, 7);
        dead.add("gone already".to_owned(), 0, 5);
        assert_eq!(dead.sweep(dir.path(), GRACE_MILLIS - 1).expect("swept"), 0);
        assert_eq!(dead.sweep(dir.path(), GRACE_MILLIS).expect("swept"), 0);
        assert!(path.exists() && dead.len() == 1, "a query still has the version before");
        drop(before);
        assert_eq!(dead.sweep(dir.path(), GRACE_MILLIS).expect("swept"), 1);
        assert!(!path.exists() && dead.len() == 0);
    }

    #[test]
    fn a_file_that_cannot_be_removed_is_tried_again() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("a")).expect("a folder in its place");
        let dead = DeadFiles::default();
        dead.add("a".to_owned(), 0, 1);
        dead.sweep(dir.path(), GRACE_MILLIS).expect_err("a folder is no file");
        assert_eq!(dead.len(), 1);
    }
}
