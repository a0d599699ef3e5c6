//! Files go out of the table and others come in, in one commit.

use crate::error::LakeError;
use crate::lake::{Lake, add, commit, now_millis, properties};
use crate::snapshot::{LakeFile, Snapshot};
use crate::table::{self, EXPIRED, RECEIVED_DATE};
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
    /// Changes the table when it still has all files that go.
    pub(crate) async fn replace(&self, replacing: Replacing<'_>) -> Result<Replaced, LakeError> {
        let Replacing { gone, made, expired_rows, operation } = replacing;
        let mut table = self.shared.lane.lock().await;
        table.update_state().await?;
        if active(&table, gone)? < gone.len() {
            return self.reload(&table).await.map(Replaced::NotThere);
        }
        let started = Instant::now();
        let is_changed = expired_rows > 0;
        let adds = made.iter().map(|file| Action::Add(Add { data_change: is_changed, ..add(file) }));
        let removes = gone.iter().map(|file| Action::Remove(Remove { data_change: is_changed, ..remove(file) }));
        let expired_rows = table::transaction(&table, EXPIRED).await? + expired_rows;
        let mut properties = properties();
        if is_changed {
            let total = Transaction::new_with_last_update(EXPIRED, expired_rows as i64, Some(now_millis()));
            properties = properties.with_application_transaction(total);
        }
        if let Err(error) = commit(&mut table, properties, removes.chain(adds).collect(), operation).await {
            // As after a seal, only the table itself knows: all of it is in, or nothing.
            table.update_state().await?;
            if active(&table, gone)? > 0 {
                return Err(error);
            }
        }
        let metrics = &self.shared.metrics;
        metrics.commits.inc();
        metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        let before = self.snapshot();
        let version = table.version().unwrap_or(before.version);
        let paths: HashSet<&str> = gone.iter().map(|f| f.path.as_str()).collect();
        let mut files: Vec<_> = before.files.iter().filter(|f| !paths.contains(f.path.as_str())).cloned().collect();
        files.extend(made.iter().cloned().map(Arc::new));
        let after = Snapshot::new(version, before.sealed, before.root.clone(), files);
        let after = self.swap(Arc::new(Snapshot { expired_rows, ..after }));
        for path in paths {
            self.shared.dead.add(path.to_owned(), now_millis(), version);
        }
        metrics.dead_files.set(self.shared.dead.len() as i64);
        Ok(Replaced::Done(after))
    }
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
