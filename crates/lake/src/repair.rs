//! Data files that are damaged go out of the table, and what can be read of them comes in again.
//!
//! File by file, each in one commit. What goes stays aside, whole. Of a file whose footer cannot be trusted nothing can be read; else its row groups
//! that have their checksums stay.

use crate::checked::CheckedFile;
use crate::compact::at_lowest_priority;
use crate::error::LakeError;
use crate::lake::Lake;
use crate::merge::{self, Output};
use crate::name::{Level, sealed_range};
use crate::replace::{Replaced, Replacing};
use crate::snapshot::LakeFile;
use crate::stats::FileStats;
use crate::store::create_durable;
use arrow::datatypes::SchemaRef;
use deltalake_core::protocol::DeltaOperation;
use event::Fields;
use parquet::file::metadata::RowGroupMetaData;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError};

/// Bytes that are read at once to be checked.
const READ_BYTES: u64 = 1 << 20;

/// What became of a damaged data file.
#[derive(Clone, Debug)]
pub struct Mended {
    /// Where it was.
    pub path: PathBuf,
    /// Where it is kept; none when it was gone.
    pub kept_at: Option<PathBuf>,
    /// What was wrong with it.
    pub damage: String,
    /// Its events that stay.
    pub kept_rows: u64,
    /// Its events that are lost.
    pub lost_rows: u64,
    /// The first and last position of these, or positions that include them.
    pub lost: (i64, i64),
}

/// Events of a seal whose version is gone, that are in the table again.
#[derive(Clone, Debug)]
pub struct TakenIn {
    /// Its data files.
    pub paths: Vec<PathBuf>,
    /// The first and last position.
    pub positions: (u64, u64),
}

/// What of a file can be read.
struct Salvaged {
    made: Vec<LakeFile>,
    lost: (i64, i64),
}

impl Lake {
    /// Takes the damaged data files out of the table and puts in what can be read of them; they are kept in the folder `aside`.
    ///
    /// # Errors
    /// [`LakeError`]: some may still be there; it can be tried again.
    pub async fn repair(&self, aside: &Path) -> Result<Vec<Mended>, LakeError> {
        let mut mended = Vec::new();
        for file in self.snapshot().files.clone() {
            let (dir, of) = (self.shared.dir.clone(), file.clone());
            if let Some(damage) = self.blocking(move || of.damage(&dir)).await? {
                mended.push(self.mend(&file, damage, aside).await?);
            }
        }
        Ok(mended)
    }

    /// Puts the events of data files in that no version names, seal by seal behind the last sealed position, as long as all of a seal's can be read:
    /// the versions that named them are gone.
    ///
    /// # Errors
    /// [`LakeError`]; it can be tried again.
    pub async fn take_in(&self) -> Result<Vec<TakenIn>, LakeError> {
        let mut taken = Vec::new();
        loop {
            let first = self.snapshot().sealed + 1;
            let Some((last, paths)) = self.unnamed_from(first) else {
                return Ok(taken);
            };
            let (dir, schema, fields) =
                (self.shared.dir.clone(), self.shared.schema.clone(), self.snapshot().fields.clone());
            let of = paths.clone();
            let work = move || of.iter().map(|path| salvage(&dir, &of_path(path), &schema, &fields)).collect();
            let salvaged: Vec<Salvaged> = at_lowest_priority("repair", work).await?;
            let made: Vec<LakeFile> = salvaged.into_iter().flat_map(|salvaged| salvaged.made).collect();
            if merge::rows(&made) != last + 1 - first {
                merge::remove(&self.shared.dir, &made);
                return Ok(taken);
            }
            let mut table = self.shared.lane.lock().await;
            let fields = self.snapshot().fields.clone();
            self.commit_seal(&mut table, &made, (last, 0), &fields).await?;
            self.reload(&table).await?;
            let paths = paths.iter().map(|path| self.shared.dir.join(path)).collect();
            taken.push(TakenIn { paths, positions: (first, last) });
        }
    }

    /// The files of the longest seal that begins at this position, with its last one.
    fn unnamed_from(&self, first: u64) -> Option<(u64, Vec<String>)> {
        let unnamed = self.shared.unnamed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of =
            |path: &String| sealed_range(path.rsplit('/').next()?, self.shared.wal).filter(|(from, _)| *from == first);
        let last = unnamed.iter().filter_map(&of).map(|(_, last)| last).max()?;
        Some((last, unnamed.into_iter().filter(|path| of(path) == Some((first, last))).collect()))
    }

    async fn mend(&self, file: &Arc<LakeFile>, damage: String, aside: &Path) -> Result<Mended, LakeError> {
        let (dir, schema, fields) =
            (self.shared.dir.clone(), self.shared.schema.clone(), self.snapshot().fields.clone());
        let path = dir.join(&file.path);
        let (of, from, to) = (file.clone(), path.clone(), aside.join(&file.path));
        let kept_at = self.blocking(move || keep(&from, to)).await?;
        let work = move || salvage(&dir, &of, &schema, &fields);
        let Salvaged { made, lost } = at_lowest_priority("repair", work).await?;
        let kept_rows = merge::rows(&made);
        let lost_rows = file.stats.rows.saturating_sub(kept_rows);
        let operation = DeltaOperation::Delete { predicate: None };
        let gone = [file.clone()];
        let (expired_rows, erased_rows) = (lost_rows, 0);
        let replacing = Replacing { gone: &gone, made: &made, expired_rows, erased_rows, lost_rows, operation };
        match self.replace(replacing).await? {
            Replaced::Done(_) => Ok(Mended { path, kept_at, damage, kept_rows, lost_rows, lost }),
            Replaced::NotThere(_) => Err(LakeError::Interrupted),
        }
    }
}

/// A file of which the path alone is known.
fn of_path(path: &str) -> LakeFile {
    LakeFile {
        path: path.to_owned(),
        bytes: 0,
        modified_millis: 0,
        stats: FileStats::default(),
        known: OnceLock::new(),
    }
}

/// Keeps a file aside, durably; none when it is gone.
fn keep(from: &Path, to: PathBuf) -> io::Result<Option<PathBuf>> {
    let folder = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
    create_durable(folder)?;
    match fs::hard_link(from, &to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Another file system, or one without links.
        Err(_) => {
            fs::copy(from, &to)?;
            File::open(&to)?.sync_all()?;
        }
        Ok(()) => {}
    }
    File::open(folder)?.sync_all()?;
    Ok(Some(to))
}

/// Writes anew what can be read of a file; nobody sees it yet.
fn salvage(root: &Path, file: &LakeFile, schema: &SchemaRef, fields: &Fields) -> Result<Salvaged, LakeError> {
    let all = (file.stats.position.min.unwrap_or(0), file.stats.position.max.unwrap_or(0));
    let nothing = || Salvaged { made: Vec::new(), lost: all };
    let Ok(checked) = CheckedFile::open(&root.join(&file.path)) else {
        return Ok(nothing());
    };
    // Without checksums nobody can tell which rows are as they were.
    if checked.has_no_sums() {
        return Ok(nothing());
    }
    let Ok(groups) = merge::groups(root, file, schema) else {
        return Ok(nothing());
    };
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut output = Output::new(root, folder, (schema, fields), Level::Merged);
    let mut lost: Option<(i64, i64)> = None;
    for (group, rows) in groups {
        if is_whole(&checked, &group) {
            for rows in rows {
                output.write(&rows?)?;
            }
            continue;
        }
        let (first, last) = merge::positions(&group).unwrap_or(all);
        lost = Some(lost.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
    }
    Ok(Salvaged { made: output.finish()?.into_iter().collect(), lost: lost.unwrap_or(all) })
}

/// Whether all columns of a row group are as they were written.
fn is_whole(file: &CheckedFile, group: &RowGroupMetaData) -> bool {
    group.columns().iter().all(|column| {
        let (start, bytes) = column.byte_range();
        let end = start.saturating_add(bytes).min(file.bytes());
        let mut at = start;
        while at < end {
            let until = (at + READ_BYTES).min(end);
            if file.read(at..until).is_err() {
                return false;
            }
            at = until;
        }
        true
    })
}
