//! Files go out of the table and others come in, in one commit.

use crate::error::LakeError;
use crate::lake::{Lake, add, commit, now_millis, properties};
use crate::merge;
use crate::snapshot::{LakeFile, Snapshot};
use crate::table::{self, ERASED, EXPIRED, LOST, RECEIVED_DATE};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{Action, Add, Remove, Transaction};
use deltalake_core::protocol::DeltaOperation;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// What changes.
pub(crate) struct Replacing<'a> {
    pub(crate) gone: &'a [Arc<LakeFile>],
    pub(crate) made: &'a [LakeFile],
    /// Rows that are in no file any more afterwards. None: the rows are the same, and who follows the changes of the table sees none.
    pub(crate) expired_rows: u64,
    /// Of these, those that were erased.
    pub(crate) erased_rows: u64,
    /// Of these, those that were lost to damage.
    pub(crate) lost_rows: u64,
    pub(crate) operation: DeltaOperation,
}

/// What became of it, with the lake as it is afterwards.
pub(crate) enum Replaced {
    /// It is done.
    Done(Arc<Snapshot>),
    /// A file was not in the table any more, and nothing was done.
    NotThere(Arc<Snapshot>),
}

impl Lake {
    /// Changes the table when it still has all files that go. What was made for it is removed when it is surely not in the table; where that cannot
    /// be told, the next start does it.
    pub(crate) async fn replace(&self, replacing: Replacing<'_>) -> Result<Replaced, LakeError> {
        let (gone, made) = (replacing.gone, replacing.made);
        let mut table = self.shared.lane.lock().await;
        // What it has of a commit whose end was an error is for good before it counts.
        let is_there = self.update(&mut table).await.and_then(|()| Ok(active(&table, gone)? == gone.len()));
        if !matches!(is_there, Ok(true)) {
            merge::remove(&self.shared.dir, made);
            is_there?;
            return self.reload(&table).await.map(Replaced::NotThere);
        }
        let started = Instant::now();
        let expired_rows = table::transaction(&table, EXPIRED).await? + replacing.expired_rows;
        let erased_rows = table::transaction(&table, ERASED).await? + replacing.erased_rows;
        let lost_rows = table::transaction(&table, LOST).await? + replacing.lost_rows;
        if let Err(error) = commit_change(&mut table, &replacing, [expired_rows, erased_rows, lost_rows]).await {
            // As after a seal, only the table itself knows: all of it is in, or nothing.
            self.update(&mut table).await?;
            if active(&table, gone)? > 0 {
                merge::remove(&self.shared.dir, made);
                return Err(error);
            }
        }
        let metrics = &self.shared.metrics;
        metrics.commits.inc();
        metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        let paths: HashSet<&str> = gone.iter().map(|f| f.path.as_str()).collect();
        let next = |before: &Snapshot, version| {
            let mut files: Vec<_> = before.files.iter().filter(|f| !paths.contains(f.path.as_str())).cloned().collect();
            files.extend(made.iter().cloned().map(Arc::new));
            Snapshot { version, expired_rows, erased_rows, lost_rows, ..before.clone() }.with_files(files)
        };
        self.advance(&table, next).await.map(Replaced::Done)
    }
}

/// Commits it, with how many rows ever expired, were erased and were lost.
async fn commit_change(
    table: &mut DeltaTable,
    replacing: &Replacing<'_>,
    [expired_rows, erased_rows, lost_rows]: [u64; 3],
) -> Result<(), LakeError> {
    let is_changed = replacing.expired_rows > 0;
    let adds = replacing.made.iter().map(|file| Action::Add(Add { data_change: is_changed, ..add(file) }));
    let removes = replacing.gone.iter().map(|file| Action::Remove(Remove { data_change: is_changed, ..remove(file) }));
    let mut properties = properties();
    let totals = [
        (EXPIRED, expired_rows, is_changed),
        (ERASED, erased_rows, replacing.erased_rows > 0),
        (LOST, lost_rows, replacing.lost_rows > 0),
    ];
    for (name, total, _) in totals.into_iter().filter(|(_, _, has_changed)| *has_changed) {
        let total = Transaction::new_with_last_update(name, total as i64, Some(now_millis()));
        properties = properties.with_application_transaction(total);
    }
    commit(table, properties, removes.chain(adds).collect(), replacing.operation.clone()).await
}

fn remove(file: &LakeFile) -> Remove {
    Remove {
        path: file.path.clone(),
        data_change: false,
        deletion_timestamp: Some(now_millis()),
        extended_file_metadata: Some(true),
        partition_values: Some(HashMap::from([(RECEIVED_DATE.to_owned(), Some(file.day().to_owned()))])),
        size: Some(file.bytes as i64),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
    }
}

/// How many of these files the table has.
fn active(table: &DeltaTable, files: &[Arc<LakeFile>]) -> Result<usize, LakeError> {
    let active: HashSet<String> = table.snapshot()?.log_data().iter().map(|file| file.path().into_owned()).collect();
    Ok(files.iter().filter(|file| active.contains(&file.path)).count())
}
