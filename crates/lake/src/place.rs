//! Where the lake was opened: whether its folders still have their names there. One that was removed or moved is never begun anew under way.

use crate::versions::LOG;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The folders, held open: no other one has their numbers meanwhile.
pub(crate) struct Place {
    held: [(PathBuf, File); 2],
}

impl Place {
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let held = |path: PathBuf| File::open(&path).map(|folder| (path, folder));
        Ok(Self { held: [held(dir.to_path_buf())?, held(dir.join(LOG))?] })
    }

    /// The first folder that is not where it was.
    pub(crate) fn gone(&self) -> Option<&Path> {
        let id = |found: io::Result<fs::Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
        let is_there = |path: &PathBuf, folder: &File| id(fs::metadata(path)) == id(folder.metadata());
        self.held.iter().find(|(path, folder)| !is_there(path, folder)).map(|(path, _)| path.as_path())
    }
}
