//! Files that the table does not have any more, and readers may.
//!
//! A merge takes files out of the table. Who reads an older version still opens them: a query until it ends, another engine for as long as
//! it takes. So they go an hour later, and not before the last snapshot that has them is gone. What may have rows that are erased does not stay for
//! other engines.

use crate::erase::Erasing;
use crate::snapshot::{LakeFile, Snapshot};
use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// So long a file stays for other engines.
const GRACE_MILLIS: i64 = 3_600_000;

/// A file that went.
#[derive(Debug)]
struct Dead {
    path: String,
    /// Since when, as far as that is known.
    since_millis: Option<i64>,
    /// The first version without it.
    version: u64,
    /// What it is known to hold.
    file: Option<Arc<LakeFile>>,
}

impl Dead {
    fn may_have(&self, erasing: &Erasing) -> bool {
        self.file.as_ref().is_none_or(|file| erasing.may_be_in(&file.stats))
    }
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
    pub(crate) fn published(&self, before: &Snapshot, snapshot: &Arc<Snapshot>) {
        let active = paths(snapshot);
        for file in before.files.iter().filter(|file| !active.contains(file.path.as_str())) {
            let (path, version) = (file.path.clone(), snapshot.version);
            self.lock().dead.push(Dead { path, since_millis: None, version, file: Some(file.clone()) });
        }
        let mut state = self.lock();
        state.snapshots.retain(|s| s.strong_count() > 0);
        state.snapshots.push(Arc::downgrade(snapshot));
    }

    /// A file that is not in `version` any more.
    pub(crate) fn add(&self, path: String, since_millis: i64, version: u64) {
        self.lock().dead.push(Dead { path, since_millis: Some(since_millis), version, file: None });
    }

    /// Number of files that wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().dead.len()
    }

    /// Removes the files whose time has come: an hour after a sweep found them first. A clock that was set back makes nobody wait for longer.
    /// Returns how many.
    ///
    /// # Errors
    /// The first that could not be removed; it is tried again with the next call.
    pub(crate) fn sweep(&self, root: &Path, now_millis: i64) -> io::Result<u64> {
        for dead in &mut self.lock().dead {
            dead.since_millis = Some(dead.since_millis.map_or(now_millis, |since| since.min(now_millis)));
        }
        self.remove(root, |dead| {
            dead.since_millis.is_some_and(|since| now_millis.saturating_sub(since) >= GRACE_MILLIS)
        })
    }

    /// Removes the files that may have rows that are erased, whatever their time. Returns how many.
    ///
    /// # Errors
    /// As of [`DeadFiles::sweep`].
    pub(crate) fn sweep_of(&self, root: &Path, erasing: &Erasing) -> io::Result<u64> {
        self.remove(root, |dead| dead.may_have(erasing))
    }

    /// Number of files that may have rows that are erased.
    pub(crate) fn count_of(&self, erasing: &Erasing) -> usize {
        self.lock().dead.iter().filter(|dead| dead.may_have(erasing)).count()
    }

    /// The paths of all files that wait.
    pub(crate) fn paths(&self) -> HashSet<String> {
        self.lock().dead.iter().map(|dead| dead.path.clone()).collect()
    }

    /// Removes the files that are due and that no snapshot has.
    fn remove(&self, root: &Path, is_due: impl Fn(&Dead) -> bool) -> io::Result<u64> {
        let due = {
            let mut state = self.lock();
            let held: Vec<_> = state.snapshots.iter().filter_map(Weak::upgrade).collect();
            let oldest = held.iter().map(|s| s.version).min().unwrap_or(u64::MAX);
            let active = held.last().map_or_else(HashSet::new, |newest| paths(newest));
            // What is in the table is never removed, whatever led here.
            state.dead.retain(|dead| !active.contains(dead.path.as_str()));
            state.dead.extract_if(.., |dead| is_due(dead) && oldest >= dead.version).collect::<Vec<_>>()
        };
        let removed = remove_durably(root, due.iter().map(|dead| dead.path.clone()));
        if removed.is_err() {
            // Those that are gone are found to be so the next time.
            self.lock().dead.extend(due);
        }
        removed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes files below `root` for good. Returns how many there were.
///
/// # Errors
/// The first that could not be removed, after the others.
pub(crate) fn remove_durably(root: &Path, files: impl IntoIterator<Item = String>) -> io::Result<u64> {
    let (mut removed, mut folders, mut failed) = (0, BTreeSet::new(), None);
    for path in files {
        match fs::remove_file(root.join(&path)) {
            Ok(()) => removed += 1,
            // One that went before may not be gone for good yet.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => {
                failed.get_or_insert(e);
                continue;
            }
        }
        folders.extend(path.rsplit_once('/').map(|(folder, _)| root.join(folder)));
    }
    for folder in folders {
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => drop(failed.get_or_insert(e)),
            _ => {}
        }
    }
    failed.map_or(Ok(removed), Err)
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
        dead.published(&before, &before);
        dead.published(&before, &after);
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
    fn a_clock_that_was_set_back_makes_no_file_stay_for_longer() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a");
        fs::write(&path, "x").expect("written");
        let dead = DeadFiles::default();
        dead.add("a".to_owned(), 365 * 24 * GRACE_MILLIS, 1);
        assert_eq!(dead.sweep(dir.path(), GRACE_MILLIS).expect("swept"), 0);
        assert_eq!(dead.sweep(dir.path(), 2 * GRACE_MILLIS - 1).expect("swept"), 0);
        assert_eq!(dead.sweep(dir.path(), 2 * GRACE_MILLIS).expect("swept"), 1);
        assert!(!path.exists());
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
