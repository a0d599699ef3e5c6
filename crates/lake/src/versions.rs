//! The versions of the table as they lie in its log: what is damaged or gone there is named before the library reads it, and moved aside where
//! the table can be read without it.
//!
//! A table is read from its last checkpoint and the commits after it. What is older is history that nothing needs; of what is needed nothing may be
//! passed over, as its events would be.

use crate::checked::{CheckedFile, damage};
use crate::error::LakeError;
use crate::history;
use crate::name::{level, sealed_by_any};
use crate::snapshot::Snapshot;
use crate::store::create_durable;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The folder of the table's log.
pub(crate) const LOG: &str = "_delta_log";
/// What names the last checkpoint.
const LAST: &str = "_last_checkpoint";
/// What is said of a log of which nothing is left beside data files.
const ALL_GONE: &str = "it is gone with all of the log, and nothing else tells which data files are in the table: bring `_delta_log` back, or that of \
                        a backup, and `catchment inspect repair` puts in what was sealed since; to go on without these events, move the lake's \
                        folder away and run `catchment inspect repair`";
/// So often it is looked again while somebody writes there.
const LOOKS: usize = 3;

/// A file of the log of the table that is not as it was written, or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// Whether the table cannot be read because of it.
    pub is_needed: bool,
}

/// A file of the log of the table that was moved aside.
#[derive(Clone, Debug)]
pub struct MovedAside {
    /// What was wrong with it.
    pub flaw: Flaw,
    /// Where it is kept.
    pub kept_at: PathBuf,
}

/// What is wrong with the log of the table in `dir`, by the names, sizes and checksums of its files. A collector may write there meanwhile.
///
/// # Errors
/// Whatever keeps it from being read, but that a file is gone.
pub fn flaws(dir: &Path) -> io::Result<Vec<Flaw>> {
    let mut versions = Versions::list(dir)?;
    for _ in 1..LOOKS {
        let flaws = versions.flaws()?;
        let again = Versions::list(dir)?;
        if flaws.is_empty() || again == versions {
            return Ok(flaws);
        }
        // A checkpoint came, and what was before it went.
        versions = again;
    }
    versions.flaws()
}

/// The data files of seals behind the last position of this table: of a seal that has not ended, or of a version that is gone. Each with its first and
/// last position.
///
/// # Errors
/// A folder cannot be read.
pub fn unnamed(snapshot: &Snapshot) -> io::Result<Vec<(PathBuf, u64, u64)>> {
    let highest = snapshot.files.iter().filter_map(|file| file.stats.position.max).max().unwrap_or(0);
    let highest = u64::try_from(highest).unwrap_or(0).max(snapshot.sealed);
    let mut unnamed = Vec::new();
    for day in days(&snapshot.root)? {
        for file in fs::read_dir(day)? {
            let path = file?.path();
            let range = path.file_name().and_then(|name| sealed_by_any(name.to_str()?));
            unnamed.extend(range.filter(|(first, _)| *first > highest).map(|(first, last)| (path, first, last)));
        }
    }
    unnamed.sort();
    Ok(unnamed)
}

/// Whether there is a table in `dir`, or something that is left of one.
///
/// # Errors
/// A folder cannot be read.
pub fn is_begun(dir: &Path) -> io::Result<bool> {
    let found = Versions::list(dir)?;
    let has_versions = !found.commits.is_empty() || !found.checkpoints.is_empty() || !found.foreign.is_empty();
    Ok(has_versions || found.has_last || found.has_data)
}

/// Makes sure that opening the table passes over nothing.
pub(crate) fn check(dir: &Path) -> Result<(), LakeError> {
    let failed = |source| LakeError::File { path: dir.join(LOG).display().to_string(), source };
    match flaws(dir).map_err(failed)?.into_iter().find(|flaw| flaw.is_needed) {
        None => Ok(()),
        Some(Flaw { path, what, .. }) => Err(LakeError::Log { path, what }),
    }
}

/// Moves what is damaged aside, into the folder `aside`, when the table can be read without it: what nothing needs, and a checkpoint when the one
/// before it and all commits since are there.
///
/// # Errors
/// [`LakeError::Log`]: what is needed is damaged or gone, and nothing has changed; else what was not moved, and it can be tried again.
pub fn mend_log(dir: &Path, aside: &Path) -> Result<Vec<MovedAside>, LakeError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| LakeError::File { path, source }
    };
    let log = dir.join(LOG);
    let mut left = Versions::list(dir).map_err(failed(&log))?;
    let mut flaws = left.flaws().map_err(failed(&log))?;
    flaws.iter().for_each(|flaw| left.leave_out(&flaw.path));
    // What named a checkpoint that goes; and without the checkpoint the one before it and the commits since are needed.
    let mut needed = left.flaws().map_err(failed(&log))?;
    let named: Vec<Flaw> = needed.extract_if(.., |flaw| flaw.path == log.join(LAST)).collect();
    if let Some(flaw) = needed.into_iter().find(|flaw| flaw.is_needed) {
        let Flaw { path, what, .. } = flaws.into_iter().find(|flaw| flaw.is_needed).unwrap_or(flaw);
        return Err(LakeError::Log { path, what });
    }
    flaws.extend(named);
    let mut moved = Vec::new();
    for flaw in flaws {
        let kept_at = move_aside(&flaw.path, aside).map_err(failed(&flaw.path))?;
        moved.extend(kept_at.map(|kept_at| MovedAside { flaw, kept_at }));
    }
    Ok(moved)
}

/// Moves a file into a folder, durably; none when it is gone.
fn move_aside(from: &Path, folder: &Path) -> io::Result<Option<PathBuf>> {
    let to = folder.join(from.file_name().ok_or(ErrorKind::InvalidInput)?);
    create_durable(folder)?;
    match fs::rename(from, &to) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        moved => moved?,
    }
    File::open(folder)?.sync_all()?;
    File::open(from.parent().ok_or(ErrorKind::InvalidInput)?)?.sync_all()?;
    Ok(Some(to))
}

/// The files of the log that make the table, by version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Versions {
    log: PathBuf,
    commits: BTreeMap<u64, PathBuf>,
    checkpoints: BTreeMap<u64, PathBuf>,
    /// Versions with a checkpoint in a form that another program wrote: the library reads it, or says why not.
    foreign: BTreeSet<u64>,
    has_last: bool,
    /// Whether there are data files.
    has_data: bool,
}

impl Versions {
    fn list(dir: &Path) -> io::Result<Self> {
        let log = dir.join(LOG);
        let (commits, checkpoints) = (BTreeMap::new(), BTreeMap::new());
        let (foreign, has_last, has_data) = (BTreeSet::new(), false, has_data(dir)?);
        let mut found = Self { log: log.clone(), commits, checkpoints, foreign, has_last, has_data };
        let entries = match fs::read_dir(&log) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let version = |text: &str| text.parse::<u64>().ok().filter(|_| text.len() == 20);
            match name.split_once('.') {
                None => found.has_last |= name == LAST,
                Some((of, "json")) => drop(version(of).map(|of| found.commits.insert(of, path.clone()))),
                Some((of, "checkpoint.parquet")) => {
                    drop(version(of).map(|of| found.checkpoints.insert(of, path.clone())));
                }
                Some((of, other)) if other.starts_with("checkpoint.") && !other.contains('#') => {
                    found.foreign.extend(version(of));
                }
                Some(_) => {}
            }
        }
        Ok(found)
    }

    /// As it is without this file.
    fn leave_out(&mut self, path: &Path) {
        self.commits.retain(|_, commit| commit != path);
        self.checkpoints.retain(|_, checkpoint| checkpoint != path);
        self.has_last &= path != self.log.join(LAST);
    }

    fn flaws(&self) -> io::Result<Vec<Flaw>> {
        let base = self.checkpoints.keys().max().max(self.foreign.last()).copied();
        let mut flaws = self.gone(base);
        for (version, path) in &self.checkpoints {
            let flaw = of_checkpoint(path)?;
            flaws.extend(flaw.map(|what| Flaw { path: path.clone(), what, is_needed: Some(*version) == base }));
        }
        for (version, path) in &self.commits {
            let flaw = of_commit(path, *version)?;
            let is_needed = base.is_none_or(|base| *version > base);
            flaws.extend(flaw.map(|what| Flaw { path: path.clone(), what, is_needed }));
        }
        if self.has_last {
            let path = self.log.join(LAST);
            let flaw = self.of_last(&path)?;
            flaws.extend(flaw.map(|what| Flaw { path, what, is_needed: true }));
        }
        Ok(flaws)
    }

    /// What has to be there and is not.
    fn gone(&self, base: Option<u64>) -> Vec<Flaw> {
        let gone = |version: u64| Flaw {
            path: self.log.join(format!("{version:020}.json")),
            what: "it is gone".to_owned(),
            is_needed: true,
        };
        let first = base.map_or(0, |base| base + 1);
        let Some(last) = self.commits.last_key_value().map(|(version, _)| *version) else {
            // A table that nobody has made yet has no data files either.
            let all = Flaw { what: ALL_GONE.to_owned(), ..gone(0) };
            return if base.is_none() && self.has_data { vec![all] } else { Vec::new() };
        };
        // One name stands for those of a range.
        let mut flaws: Vec<Flaw> = Vec::new();
        let mut before = None;
        for version in (first..=last).filter(|version| !self.commits.contains_key(version)) {
            if before.is_none_or(|before| before + 1 < version) {
                flaws.push(gone(version));
            } else if let Some(flaw) = flaws.last_mut() {
                flaw.what = format!("it is gone, and so are all up to version {version}");
            }
            before = Some(version);
        }
        flaws
    }

    fn of_last(&self, path: &Path) -> io::Result<Option<String>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let last: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        Ok(match last["version"].as_u64() {
            None => Some("it names no checkpoint".to_owned()),
            Some(version) if !self.checkpoints.contains_key(&version) && !self.foreign.contains(&version) => {
                Some(format!("it names the checkpoint of version {version}, which is not there"))
            }
            Some(_) => None,
        })
    }
}

/// Whether a folder of a lake has data files.
fn has_data(dir: &Path) -> io::Result<bool> {
    for day in days(dir)? {
        let mut files = fs::read_dir(day)?.filter_map(Result::ok);
        if files.any(|file| level(&file.path().to_string_lossy()).is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The folders of days of a lake.
fn days(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let days = entries.filter_map(Result::ok).map(|day| day.path());
    Ok(days.filter(|day| day.is_dir() && day.to_string_lossy().contains("/received_date=")).collect())
}

fn of_checkpoint(path: &Path) -> io::Result<Option<String>> {
    let checked = CheckedFile::open(path).and_then(|file| {
        let footer = parquet::file::metadata::ParquetMetaDataReader::new().parse_and_finish(&file);
        file.check().map(|_| footer.err())
    });
    match checked {
        Ok(error) => Ok(error.map(|_| "it is no Parquet".to_owned())),
        // One that went while it was looked at.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => damage(&error).map(Some).ok_or(error),
    }
}

fn of_commit(path: &Path, version: u64) -> io::Result<Option<String>> {
    let commit = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        commit => commit?,
    };
    if commit.is_empty() {
        return Ok(Some("it is empty, and a commit never is".to_owned()));
    }
    if let Err(error) = history::check(&commit) {
        return Ok(Some(error.to_string()));
    }
    // One of a program of before, or of another one, has no checksum.
    let lines = commit.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let mut actions = lines.map(serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>);
    let (mut is_whole, mut has_columns) = (true, false);
    for action in actions.by_ref() {
        is_whole &= action.is_ok();
        has_columns |= action.is_ok_and(|action| action.contains_key("metaData"));
    }
    Ok(match (is_whole, version == 0 && !has_columns) {
        (false, _) => {
            Some("it has a line that is no JSON: it was cut, or its bytes are not what was written".to_owned())
        }
        (true, true) => Some("it does not say which columns the table has".to_owned()),
        (true, false) => None,
    })
}
