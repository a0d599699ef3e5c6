//! The lake's operations: open, seal, write checkpoints, sweep.

use crate::dead::{DeadFiles, remove_durably};
use crate::encode::{Encoded, encode};
use crate::error::{LakeError, OpenError};
use crate::metrics::LakeMetrics;
use crate::name::{Level, level, sealed_range};
use crate::place::Place;
use crate::plan;
use crate::snapshot::{LakeFile, Snapshot};
use crate::store::create_durable;
use crate::table::{self, EXPIRED, LOST, RECEIVED_DATE};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::logstore::ObjectStoreRef;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use event::{FieldRules, Fields, data_of};
use object_store::{ObjectStoreExt, PutPayload, path::Path as StorePath};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;
use uuid::Uuid;

/// A checkpoint of the Delta log is written after this many commits, so that opening reads few files.
const CHECKPOINT_COMMITS: u64 = 32;

/// What a seal puts in: all events of the positions `first..=last`. Those of which there is none were lost.
#[derive(Debug)]
pub struct Sealing {
    /// First position.
    pub first: u64,
    /// Last position.
    pub last: u64,
    /// The events, in order of position.
    pub batches: Vec<RecordBatch>,
    /// How quickly it has to be done.
    pub pace: Pace,
}

/// How much of the processors a seal takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It has time: one thread, and what comes in has the others.
    Calm,
    /// Somebody waits for it: two threads.
    Pressed,
}

/// The lake. Cheap to clone; all clones share one lane.
#[derive(Clone)]
pub struct Lake {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) schema: SchemaRef,
    pub(crate) wal: Uuid,
    /// Which fields of `data` may get a column.
    rules: FieldRules,
    /// No further field gets a column until the next start: a commit that gave one failed.
    has_all_fields: AtomicBool,
    /// The lane: who holds it may commit.
    pub(crate) lane: Mutex<DeltaTable>,
    store: ObjectStoreRef,
    pub(crate) snapshot: RwLock<Arc<Snapshot>>,
    pub(crate) dead: DeadFiles,
    /// Who holds it may write rows of the table anew, or remove files: one at a time.
    pub(crate) rewriting: Arc<Mutex<()>>,
    /// Files that could not be merged, until the next start.
    pub(crate) left: StdMutex<HashSet<String>>,
    /// Files of seals of this wal that no version named when it was opened.
    pub(crate) unnamed: StdMutex<Vec<String>>,
    /// The version that the last checkpoint is of.
    pub(crate) checkpoint: AtomicU64,
    pub(crate) metrics: LakeMetrics,
    place: Place,
    /// Keeps other processes out of the folder.
    _lock: File,
}

impl Lake {
    /// Opens the lake in `dir`, or makes it. What an unfinished seal of `wal` left behind stays until [`Lake::remove_unnamed`].
    ///
    /// # Errors
    /// [`OpenError`]: the folder is in use or cannot be used, or holds another table.
    pub async fn open(
        dir: &Path,
        schema: &SchemaRef,
        wal: Uuid,
        rules: FieldRules,
        metrics: LakeMetrics,
    ) -> Result<Self, OpenError> {
        let failed = |action| move |source| OpenError::Folder { action, path: dir.to_path_buf(), source };
        create_durable(dir).map_err(failed("create"))?;
        let dir = &fs::canonicalize(dir).map_err(failed("find"))?;
        let lock = File::open(dir).map_err(failed("open"))?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(OpenError::InUse(dir.clone()));
        }
        let table = table::open_or_create(dir, schema).await?;
        // A commit that is seen may have been one whose end failed: what is believed has to outlive a power cut.
        table::write_again(dir, table.version().unwrap_or(0)).map_err(failed("sync"))?;
        let snapshot = table::snapshot(&table, dir, wal, &rules).await?;
        let tombstones = table::tombstones(&table).await?;
        let dead = DeadFiles::default();
        let unnamed = clean(&snapshot, wal, &tombstones, &dead).map_err(failed("clean"))?;
        let snapshot = Arc::new(snapshot);
        let shared = Shared {
            dir: dir.clone(),
            schema: schema.clone(),
            wal,
            rules,
            has_all_fields: AtomicBool::new(false),
            store: table.log_store().object_store(None),
            lane: Mutex::new(table),
            snapshot: RwLock::new(snapshot.clone()),
            dead,
            rewriting: Arc::default(),
            left: StdMutex::default(),
            unnamed: StdMutex::new(unnamed),
            checkpoint: AtomicU64::new(table::checkpoint(dir)),
            metrics,
            place: Place::of(dir).map_err(failed("open"))?,
            _lock: lock,
        };
        let lake = Self { shared: Arc::new(shared) };
        lake.swap(snapshot);
        Ok(lake)
    }

    /// The lake as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why nothing goes into the lake any more, if its folder or that of its log was removed or moved since it was opened.
    pub fn gone(&self) -> Option<String> {
        self.there().err().map(|error| error.to_string())
    }

    fn there(&self) -> Result<(), LakeError> {
        self.shared.place.gone().map_or(Ok(()), |path| Err(LakeError::Gone { path: path.to_path_buf() }))
    }

    /// The highest position in any file, of whatever wal.
    pub fn highest_position(&self) -> u64 {
        let snapshot = self.snapshot();
        let highest = snapshot.files.iter().filter_map(|f| f.stats.position.max).max();
        highest.and_then(|p| u64::try_from(p).ok()).unwrap_or(0).max(snapshot.sealed)
    }

    /// Removes the files of seals that no version named when the lake was opened: to be called when it is sure that the wal has their events, and
    /// while nothing is being sealed. What is in the table meanwhile stays.
    ///
    /// # Errors
    /// [`LakeError`]; the next start tries again.
    pub async fn remove_unnamed(&self) -> Result<(), LakeError> {
        let mut unnamed = std::mem::take(&mut *self.shared.unnamed.lock().unwrap_or_else(PoisonError::into_inner));
        let (dir, snapshot) = (self.shared.dir.clone(), self.snapshot());
        // A seal since then writes over a file of its name, and it is in the table.
        unnamed.retain(|path| !snapshot.files.iter().any(|file| file.path == *path));
        let removed = self.blocking(move || remove_durably(&dir, unnamed)).await?;
        self.shared.metrics.orphans.inc_by(removed);
        Ok(())
    }

    /// Puts events in, once: a range that is in already changes nothing. Returns the lake that holds them, all of it durable.
    ///
    /// # Errors
    /// [`LakeError`]; the range is not in the lake, or the next call finds that it is.
    pub async fn seal(&self, sealing: Sealing) -> Result<Arc<Snapshot>, LakeError> {
        let Sealing { first, last, batches, pace } = sealing;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let lost = (last + 1 - first).saturating_sub(rows as u64);
        self.there()?;
        let (files, fields) = self.write(batches, (first, last), pace).await?;
        let mut table = self.shared.lane.lock().await;
        self.there()?;
        self.update(&mut table).await?;
        let sealed = table::sealed_position(&table, self.shared.wal).await?;
        if sealed >= last {
            return self.reload(&table).await;
        }
        if sealed >= first {
            return Err(LakeError::Overlap { first, last, sealed });
        }
        let started = Instant::now();
        let committed = self.commit_seal(&mut table, &files, (last, lost), &fields).await;
        if let Err(error) = committed {
            // An error can come after the commit is in: only the table itself knows.
            self.update(&mut table).await?;
            if table::sealed_position(&table, self.shared.wal).await? != last {
                if error.is_of_schema() {
                    // The next try has the columns that are there.
                    self.shared.has_all_fields.store(true, Ordering::Relaxed);
                    tracing::warn!(%error, "no further field of data gets a column until the next start");
                }
                return Err(error);
            }
            return self.reload(&table).await;
        }
        self.shared.metrics.commits.inc();
        self.shared.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        let next = |before: &Snapshot, version| {
            let mut all = before.files.clone();
            all.extend(files.into_iter().map(Arc::new));
            let (expired_rows, lost_rows) = (before.expired_rows + lost, before.lost_rows + lost);
            Snapshot { version, sealed: last, expired_rows, lost_rows, fields, ..before.clone() }.with_files(all)
        };
        self.advance(&table, next).await
    }

    /// Writes a checkpoint when it is time; to be called when there is time. Commits wait meanwhile.
    ///
    /// # Errors
    /// [`LakeError`]; it can be tried again later.
    pub async fn checkpoint(&self) -> Result<(), LakeError> {
        let table = self.shared.lane.lock().await;
        let (version, before) = (table.version().unwrap_or(0), self.shared.checkpoint.load(Ordering::Relaxed));
        if version < before + CHECKPOINT_COMMITS {
            return Ok(());
        }
        deltalake_core::checkpoints::create_checkpoint(&table, None).await?;
        self.shared.checkpoint.store(version, Ordering::Relaxed);
        self.shared.metrics.checkpoints.inc();
        deltalake_core::checkpoints::cleanup_metadata(&table, None).await?;
        Ok(())
    }

    /// Removes the files of which an hour ago was first told that they went from the table, and that nobody reads any more.
    ///
    /// # Errors
    /// [`LakeError`]; what could not be removed is tried again.
    pub async fn sweep(&self, now_micros: i64) -> Result<(), LakeError> {
        let _turn = self.shared.rewriting.lock().await;
        self.removing(move |shared| shared.dead.sweep(&shared.dir, now_micros / 1000)).await
    }

    /// Removes files, and counts them.
    pub(crate) async fn removing(
        &self,
        work: impl FnOnce(&Shared) -> std::io::Result<u64> + Send + 'static,
    ) -> Result<(), LakeError> {
        let shared = self.shared.clone();
        let removed = self.blocking(move || work(&shared)).await;
        self.shared.metrics.dead_files.set(self.shared.dead.len() as i64);
        self.shared.metrics.removed_files.inc_by(removed?);
        Ok(())
    }

    /// Work on the files of the lake, away from the threads that others wait for.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, LakeError> {
        let failed = |source| LakeError::File { path: self.shared.dir.display().to_string(), source };
        away(work).await?.map_err(failed)
    }

    /// The lake after the commit that `table` has made: what `next` makes of the lake before, when there was no other commit between.
    pub(crate) async fn advance(
        &self,
        table: &DeltaTable,
        next: impl FnOnce(&Snapshot, u64) -> Snapshot,
    ) -> Result<Arc<Snapshot>, LakeError> {
        let (before, version) = (self.snapshot(), table.version());
        match version {
            Some(version) if version == before.version + 1 => Ok(self.swap(Arc::new(next(&before, version)))),
            // A commit before it ended with an error, and was in.
            _ => self.reload(table).await,
        }
    }

    /// Encodes and stores the files of a seal; nobody sees them yet.
    async fn write(
        &self,
        batches: Vec<RecordBatch>,
        range: (u64, u64),
        pace: Pace,
    ) -> Result<(Vec<LakeFile>, Arc<Fields>), LakeError> {
        let started = Instant::now();
        let (wal, fields) = (self.shared.wal, self.snapshot().fields.clone());
        let may_grow = !self.shared.has_all_fields.load(Ordering::Relaxed);
        let work = move || encode_with_new(&batches, (wal, range), pace, (fields, may_grow));
        let (encoded, fields) = away(work).await??;
        let mut files = Vec::new();
        for Encoded { path, bytes, stats } in encoded {
            let size = bytes.len() as u64;
            self.shared.store.put(&StorePath::from(path.as_str()), PutPayload::from(bytes)).await?;
            self.shared.metrics.written_bytes.inc_by(size);
            files.push(LakeFile { path, bytes: size, modified_millis: now_millis(), stats, known: OnceLock::new() });
        }
        self.shared.metrics.encode_seconds.observe(started.elapsed().as_secs_f64());
        Ok((files, fields))
    }

    pub(crate) async fn commit_seal(
        &self,
        table: &mut DeltaTable,
        files: &[LakeFile],
        (last, lost): (u64, u64),
        fields: &Fields,
    ) -> Result<(), LakeError> {
        let columns = table::with_fields(table, fields)?;
        let actions = columns.into_iter().chain(files.iter().map(|file| Action::Add(add(file)))).collect();
        let transaction = Transaction::new_with_last_update(self.shared.wal, last as i64, Some(now_millis()));
        let partition_by = Some(vec![RECEIVED_DATE.to_owned()]);
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by, predicate: None };
        let mut properties = properties().with_application_transaction(transaction);
        for name in [EXPIRED, LOST].into_iter().filter(|_| lost > 0) {
            let total = (table::transaction(table, name).await? + lost) as i64;
            let total = Transaction::new_with_last_update(name, total, Some(now_millis()));
            properties = properties.with_application_transaction(total);
        }
        commit(table, properties, actions, operation).await
    }

    /// Reads commits that `table` does not know, and makes them durable: one may be in whose end failed, and what is believed has to outlive a
    /// power cut.
    pub(crate) async fn update(&self, table: &mut DeltaTable) -> Result<(), LakeError> {
        table.update_state().await?;
        if table.version() == Some(self.snapshot().version) {
            return Ok(());
        }
        let path = || format!("{}/_delta_log", self.shared.dir.display());
        table::write_again(&self.shared.dir, table.version().unwrap_or(0))
            .map_err(|source| LakeError::File { path: path(), source })
    }

    /// The lake as the table has it: a commit may be in whose end was an error.
    pub(crate) async fn refresh(&self) -> Result<Arc<Snapshot>, LakeError> {
        let mut table = self.shared.lane.lock().await;
        self.update(&mut table).await?;
        let known = self.snapshot();
        if table.version() == Some(known.version) { Ok(known) } else { self.reload(&table).await }
    }

    pub(crate) async fn reload(&self, table: &DeltaTable) -> Result<Arc<Snapshot>, LakeError> {
        let shared = &self.shared;
        let snapshot = table::snapshot(table, &shared.dir, shared.wal, &shared.rules).await?;
        Ok(self.swap(Arc::new(snapshot)))
    }

    fn swap(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let before = {
            let mut current = self.shared.snapshot.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, snapshot.clone())
        };
        self.shared.dead.published(&before, &snapshot);
        self.measure();
        snapshot
    }

    fn measure(&self) {
        let (snapshot, metrics) = (self.snapshot(), &self.shared.metrics);
        metrics.version.set(snapshot.version as i64);
        metrics.files.set(snapshot.files.len() as i64);
        metrics.dead_files.set(self.shared.dead.len() as i64);
        let due = plan::due(&snapshot.files, now_millis().saturating_mul(1000), &self.left());
        metrics.compaction_due_files.set(due as i64);
        metrics.erased_rows.set(snapshot.erased_rows as i64);
        metrics.expired_rows.set(snapshot.expired_rows as i64);
        metrics.lost_rows.set(snapshot.lost_rows as i64);
        metrics.field_columns.set(snapshot.fields.len() as i64);
        metrics.rows.set(snapshot.files.iter().map(|f| f.stats.rows as i64).sum());
        metrics.bytes.set(snapshot.files.iter().map(|f| f.bytes as i64).sum());
    }
}

/// Encodes the batches of a seal, once more when there are fields that get a column.
fn encode_with_new(
    batches: &[RecordBatch],
    (wal, range): (Uuid, (u64, u64)),
    pace: Pace,
    (fields, may_grow): (Arc<Fields>, bool),
) -> Result<(Vec<Encoded>, Arc<Fields>), LakeError> {
    let (encoded, saw_new) = encode(batches, (wal, range), pace, &fields)?;
    if !(saw_new && may_grow) {
        return Ok((encoded, fields));
    }
    // In the order of the positions, in which queries find them as well.
    let mut more = fields.as_ref().clone();
    more.discover(batches.iter().map(data_of));
    if more.len() == fields.len() {
        return Ok((encoded, fields));
    }
    drop(encoded);
    let (encoded, _) = encode(batches, (wal, range), pace, &more)?;
    Ok((encoded, Arc::new(more)))
}

pub(crate) fn add(file: &LakeFile) -> Add {
    Add {
        path: file.path.clone(),
        partition_values: HashMap::from([(RECEIVED_DATE.to_owned(), Some(file.day().to_owned()))]),
        size: file.bytes as i64,
        modification_time: file.modified_millis,
        data_change: true,
        stats: Some(file.stats.to_json()),
        ..Add::default()
    }
}

/// Every commit is tried once, and leaves checkpoints and old commits to [`Lake::checkpoint`].
pub(crate) fn properties() -> CommitProperties {
    CommitProperties::default().with_max_retries(0).with_create_checkpoint(false).with_cleanup_expired_logs(Some(false))
}

pub(crate) async fn commit(
    table: &mut DeltaTable,
    properties: CommitProperties,
    actions: Vec<Action>,
    operation: DeltaOperation,
) -> Result<(), LakeError> {
    let committed = {
        let snapshot = table.snapshot()?;
        let built = CommitBuilder::from(properties).with_actions(actions);
        built.build(Some(snapshot), table.log_store(), operation).await?
    };
    table.state = Some(committed.snapshot());
    Ok(())
}

/// Away from the threads that others wait for.
pub(crate) async fn away<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LakeError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| LakeError::Interrupted)
}

pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Removes staged files. Files that are in the table no more become `dead`, and so do those of merges that never were, and those that the table has
/// long forgotten: they go after a start that went well. Returns what an unfinished seal left: files of this wal after the sealed position.
fn clean(
    snapshot: &Snapshot,
    wal: Uuid,
    tombstones: &HashMap<String, i64>,
    dead: &DeadFiles,
) -> std::io::Result<Vec<String>> {
    let active: HashSet<&str> = snapshot.files.iter().map(|f| f.path.as_str()).collect();
    let mut unnamed = Vec::new();
    for folder in fs::read_dir(&snapshot.root)?.flatten().filter(|e| e.path().is_dir()) {
        for file in fs::read_dir(folder.path())?.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let path = format!("{}/{name}", folder.file_name().to_string_lossy());
            let staged =
                name.rsplit_once('#').is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            let range = sealed_range(&name, wal);
            if active.contains(path.as_str()) {
                continue;
            }
            if staged {
                fs::remove_file(file.path())?;
            } else if range.is_some_and(|(first, _)| first > snapshot.sealed) {
                unnamed.push(path);
            } else if let Some(since) = tombstones.get(&path) {
                dead.add(path, *since, 0);
            } else if range.is_some() || level(&path).is_some_and(|level| level > Level::Sealed) {
                let written = file.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                dead.add(path, written.as_millis() as i64, 0);
            }
        }
    }
    Ok(unnamed)
}
