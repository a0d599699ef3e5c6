//! Small files become larger ones: see [`plan`] for which. One who writes rows anew does so at a time.

use crate::error::LakeError;
use crate::lake::Lake;
use crate::merge;
use crate::plan::{self, Merge};
use crate::replace::{Replaced, Replacing};
use crate::snapshot::{LakeFile, Snapshot};
use deltalake_core::protocol::DeltaOperation;
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::oneshot;

/// What a merge leaves free on the disk.
pub(crate) const ROOM_BYTES: u64 = 256 << 20;

impl Lake {
    /// Merges the small files that are due at this time, once. Returns the lake afterwards; none when nothing is due.
    ///
    /// Files are read and written on a thread of their own, at the lowest priority, while seals go on.
    ///
    /// # Errors
    /// [`LakeError`]; nothing has changed, and it can be tried again. A file that cannot be merged is left as it is from then on.
    pub async fn compact(&self, now_micros: i64) -> Result<Option<Arc<Snapshot>>, LakeError> {
        let _turn = self.shared.rewriting.lock().await;
        let before = self.snapshot();
        let next = plan::next(&before.files, now_micros, &self.left());
        let Some(merge) = next else {
            return Ok(None);
        };
        let (started, merge) = (Instant::now(), Arc::new(merge));
        let merged = self.merge(merge.clone()).await;
        let Err(error) = merged else {
            self.shared.metrics.compaction_seconds.observe(started.elapsed().as_secs_f64());
            return merged.map(Some);
        };
        self.shared.metrics.compaction_failures.inc();
        match &error {
            LakeError::Unmerged { path, .. } => drop(self.left().insert(path.clone())),
            // It would fail again, and those that come after it would never have their turn.
            LakeError::Encode(_) | LakeError::Arrow(_) | LakeError::Rows { .. } => {
                self.left().extend(merge.files.iter().map(|file| file.path.clone()));
            }
            _ => {}
        }
        Err(error)
    }

    /// Writes the files of a merge, and puts them in the place of what they were made of.
    pub(crate) async fn merge(&self, merge: Arc<Merge>) -> Result<Arc<Snapshot>, LakeError> {
        let made = self.write_merged(merge.clone()).await?;
        let target_size = made.iter().map(|f| f.bytes as i64).max().unwrap_or(0);
        let operation = DeltaOperation::Optimize { predicate: None, target_size };
        let gone = &merge.files;
        let replacing = Replacing { gone, made: &made, expired_rows: 0, erased_rows: 0, lost_rows: 0, operation };
        let replaced = self.replace(replacing).await?;
        Ok(match replaced {
            Replaced::Done(snapshot) => {
                let metrics = &self.shared.metrics;
                metrics.compactions.inc();
                metrics.compacted_files.inc_by(merge.files.len() as u64);
                metrics.written_bytes.inc_by(made.iter().map(|f| f.bytes).sum());
                snapshot
            }
            Replaced::NotThere(snapshot) => snapshot,
        })
    }

    async fn write_merged(&self, merge: Arc<Merge>) -> Result<Vec<LakeFile>, LakeError> {
        let needed_bytes = ROOM_BYTES + 2 * merge.files.iter().map(|f| f.bytes).sum::<u64>();
        let (dir, schema) = (self.shared.dir.clone(), self.shared.schema.clone());
        let fields = self.snapshot().fields.clone();
        let work = move || room(&dir, needed_bytes).and_then(|()| merge::merge(&dir, &schema, &fields, &merge));
        at_lowest_priority("compact", work).await
    }

    pub(crate) fn left(&self) -> MutexGuard<'_, HashSet<String>> {
        self.shared.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what takes seconds on a thread of its own, at the lowest priority.
pub(crate) async fn at_lowest_priority<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, LakeError> + Send + 'static,
) -> Result<T, LakeError> {
    let (sender, done) = oneshot::channel();
    let run = move || {
        // Under full load this lags, and what comes in does not. On Linux it is the priority of the calling thread alone. Refused only in a
        // sandbox; then all are equal.
        let _ = rustix::process::setpriority_process(None, 19);
        drop(sender.send(work()));
    };
    let failed = |source| LakeError::File { path: format!("the thread {name}"), source };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(failed)?;
    done.await.map_err(|_| LakeError::Interrupted)?
}

/// How many bytes are free on the disk of a folder, for this user.
///
/// # Errors
/// As the operating system says.
pub fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether the disk has so much room.
pub(crate) fn room(dir: &Path, needed_bytes: u64) -> Result<(), LakeError> {
    let failed = |source: std::io::Error| LakeError::File { path: dir.display().to_string(), source };
    let free_bytes = free_bytes(dir).map_err(failed)?;
    if free_bytes < needed_bytes { Err(LakeError::NoRoom { needed_bytes, free_bytes }) } else { Ok(()) }
}
