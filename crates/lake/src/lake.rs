//! The lake's operations: open, seal, maintain.

use crate::encode::{Encoded, encode};
use crate::error::{LakeError, OpenError};
use crate::metrics::LakeMetrics;
use crate::name::sealed_range;
use crate::snapshot::{LakeFile, Snapshot};
use crate::store::create_durable;
use crate::table::{self, RECEIVED_DATE};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::logstore::ObjectStoreRef;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use object_store::{ObjectStoreExt, PutPayload, path::Path as StorePath};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;
use uuid::Uuid;

/// A checkpoint of the Delta log is written after this many commits, so that opening reads few files.
const CHECKPOINT_COMMITS: u64 = 32;

/// What a seal puts in: all events of the positions `first..=last`.
#[derive(Debug)]
pub struct Sealing {
    /// First position.
    pub first: u64,
    /// Last position.
    pub last: u64,
    /// The events, in order of position.
    pub batches: Vec<RecordBatch>,
}

/// The lake. Cheap to clone; all clones share one lane.
#[derive(Clone)]
pub struct Lake {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    wal: Uuid,
    /// The lane: who holds it may commit.
    lane: Mutex<DeltaTable>,
    store: ObjectStoreRef,
    snapshot: RwLock<Arc<Snapshot>>,
    metrics: LakeMetrics,
    /// Keeps other processes out of the folder.
    _lock: File,
}

impl Lake {
    /// Opens the lake in `dir`, or makes it; removes what an unfinished seal of `wal` left behind.
    ///
    /// # Errors
    /// [`OpenError`]: the folder is in use or cannot be used, or holds another table.
    pub async fn open(dir: &Path, schema: &SchemaRef, wal: Uuid, metrics: LakeMetrics) -> Result<Self, OpenError> {
        let failed = |action| move |source| OpenError::Folder { action, path: dir.to_path_buf(), source };
        create_durable(dir).map_err(failed("create"))?;
        let dir = &fs::canonicalize(dir).map_err(failed("find"))?;
        let lock = File::open(dir).map_err(failed("open"))?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(OpenError::InUse(dir.clone()));
        }
        let table = table::open_or_create(dir, schema).await?;
        let snapshot = table::snapshot(&table, dir, wal).await?;
        let orphans = remove_orphans(&snapshot, wal).map_err(failed("clean"))?;
        metrics.orphans.inc_by(orphans);
        let shared = Shared {
            dir: dir.clone(),
            wal,
            store: table.log_store().object_store(None),
            lane: Mutex::new(table),
            snapshot: RwLock::new(Arc::new(snapshot)),
            metrics,
            _lock: lock,
        };
        let lake = Self { shared: Arc::new(shared) };
        lake.measure();
        Ok(lake)
    }

    /// The lake as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The highest position in any file, of whatever wal.
    pub fn highest_position(&self) -> u64 {
        let snapshot = self.snapshot();
        let highest = snapshot.files.iter().filter_map(|f| f.stats.position.max).max();
        highest.and_then(|p| u64::try_from(p).ok()).unwrap_or(0).max(snapshot.sealed)
    }

    /// Puts events in, once: a range that is in already changes nothing. Returns the lake that holds them, all of it durable.
    ///
    /// # Errors
    /// [`LakeError`]; the range is not in the lake, or the next call finds that it is.
    pub async fn seal(&self, sealing: Sealing) -> Result<Arc<Snapshot>, LakeError> {
        let Sealing { first, last, batches } = sealing;
        let files = self.write(batches, (first, last)).await?;
        let mut table = self.shared.lane.lock().await;
        table.update_state().await?;
        let sealed = table::sealed_position(&table, self.shared.wal).await?;
        if sealed >= last {
            return self.reload(&table).await;
        }
        if sealed >= first {
            return Err(LakeError::Overlap { first, last, sealed });
        }
        let started = Instant::now();
        let committed = self.commit(&mut table, &files, last).await;
        if let Err(error) = committed {
            // An error can come after the commit is in: only the table itself knows.
            table.update_state().await?;
            if table::sealed_position(&table, self.shared.wal).await? != last {
                return Err(error);
            }
            return self.reload(&table).await;
        }
        self.shared.metrics.commits.inc();
        self.shared.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        let before = self.snapshot();
        let version = table.version().unwrap_or(before.version);
        let mut all = before.files.clone();
        all.extend(files.into_iter().map(|(_, file)| Arc::new(file)));
        let root = before.root.clone();
        Ok(self.swap(Snapshot { version, sealed: last, root, files: all }))
    }

    /// Writes a checkpoint when it is time; to be called when there is time.
    ///
    /// # Errors
    /// [`LakeError`]; it can be tried again later.
    pub async fn maintain(&self) -> Result<(), LakeError> {
        let table = self.shared.lane.lock().await;
        if !table.version().is_some_and(|v| v > 0 && v % CHECKPOINT_COMMITS == 0) {
            return Ok(());
        }
        deltalake_core::checkpoints::create_checkpoint(&table, None).await?;
        deltalake_core::checkpoints::cleanup_metadata(&table, None).await?;
        self.shared.metrics.checkpoints.inc();
        Ok(())
    }

    /// Encodes and stores the files of a seal; nobody sees them yet.
    async fn write(&self, batches: Vec<RecordBatch>, range: (u64, u64)) -> Result<Vec<(String, LakeFile)>, LakeError> {
        let started = Instant::now();
        let wal = self.shared.wal;
        let encoded = tokio::task::spawn_blocking(move || encode(batches, wal, range)).await;
        let mut files = Vec::new();
        for Encoded { day, path, bytes, stats } in encoded.map_err(|_| LakeError::Interrupted)?? {
            let size = bytes.len() as u64;
            self.shared.store.put(&StorePath::from(path.as_str()), PutPayload::from(bytes)).await?;
            self.shared.metrics.written_bytes.inc_by(size);
            files.push((
                day,
                LakeFile { path, bytes: size, modified_millis: now_millis(), stats, data_bytes: OnceLock::new() },
            ));
        }
        self.shared.metrics.encode_seconds.observe(started.elapsed().as_secs_f64());
        Ok(files)
    }

    async fn commit(&self, table: &mut DeltaTable, files: &[(String, LakeFile)], last: u64) -> Result<(), LakeError> {
        let adds = files.iter().map(|(day, file)| Action::Add(add(day, file))).collect();
        let transaction = Transaction::new_with_last_update(self.shared.wal, last as i64, Some(now_millis()));
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false))
            .with_application_transaction(transaction);
        let partition_by = Some(vec![RECEIVED_DATE.to_owned()]);
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by, predicate: None };
        let committed = {
            let snapshot = table.snapshot()?;
            CommitBuilder::from(properties)
                .with_actions(adds)
                .build(Some(snapshot), table.log_store(), operation)
                .await?
        };
        table.state = Some(committed.snapshot());
        Ok(())
    }

    async fn reload(&self, table: &DeltaTable) -> Result<Arc<Snapshot>, LakeError> {
        let snapshot = table::snapshot(table, &self.shared.dir, self.shared.wal).await?;
        Ok(self.swap(snapshot))
    }

    fn swap(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        let snapshot = Arc::new(snapshot);
        *self.shared.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot.clone();
        self.measure();
        snapshot
    }

    fn measure(&self) {
        let (snapshot, metrics) = (self.snapshot(), &self.shared.metrics);
        metrics.version.set(snapshot.version as i64);
        metrics.files.set(snapshot.files.len() as i64);
        metrics.rows.set(snapshot.files.iter().map(|f| f.stats.rows as i64).sum());
        metrics.bytes.set(snapshot.files.iter().map(|f| f.bytes as i64).sum());
    }
}

fn add(day: &str, file: &LakeFile) -> Add {
    Add {
        path: file.path.clone(),
        partition_values: HashMap::from([(RECEIVED_DATE.to_owned(), Some(day.to_owned()))]),
        size: file.bytes as i64,
        modification_time: file.modified_millis,
        data_change: true,
        stats: Some(file.stats.to_json()),
        ..Add::default()
    }
}

fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Removes files that no commit names: those of this wal's seals that are after the sealed position, and staged ones.
fn remove_orphans(snapshot: &Snapshot, wal: Uuid) -> std::io::Result<u64> {
    let active: HashSet<&str> = snapshot.files.iter().map(|f| f.path.as_str()).collect();
    let mut removed = 0;
    for folder in fs::read_dir(&snapshot.root)?.flatten().filter(|e| e.path().is_dir()) {
        for file in fs::read_dir(folder.path())?.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let path = format!("{}/{name}", folder.file_name().to_string_lossy());
            let staged =
                name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            let unfinished = sealed_range(&name, wal).is_some_and(|(first, _)| first > snapshot.sealed);
            if staged || (unfinished && !active.contains(path.as_str())) {
                fs::remove_file(file.path())?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
