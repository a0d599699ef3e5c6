//! Live rows: accepted events that are not in the lake yet, as Arrow chunks, and the [`View`] that queries take.
//!
//! It promises that a View never holds an event twice and never misses one: the commit loop only appends, the seal swaps the
//! lake's snapshot and the rows it covers in one step. Small groups are merged into chunks of at least
//! [`CHUNK_ROWS`] rows (or `CHUNK_BYTES`), so that a one-row group does not cost a chunk's overhead for long. Memory is counted
//! by the capacity of buffers.

use crate::metrics::EngineMetrics;
use arrow::array::{Array, Int64Array};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use lake::{LiveChunk, Newest, Snapshot, View};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::{Notify, watch};

/// Chunks grow to this many rows by merging; larger groups stay as they came.
pub(crate) const CHUNK_ROWS: usize = 8192;
/// Chunks of more bytes are not merged any more: an Arrow text column ends at 2 GiB, and copying costs.
const CHUNK_BYTES: usize = 64 << 20;

/// The rows of one group, with their positions.
pub(crate) struct Chunk {
    rows: Arc<RecordBatch>,
    first: u64,
    last: u64,
    bytes: usize,
}

impl Chunk {
    /// A chunk of `rows`, whose column `position` counts up without a gap.
    pub(crate) fn new(rows: RecordBatch) -> Self {
        let positions = rows.column(0).as_any().downcast_ref::<Int64Array>().expect("the first column is the position");
        let (first, last) = (positions.value(0) as u64, positions.value(positions.len() - 1) as u64);
        let bytes = rows.get_array_memory_size();
        Self { rows: Arc::new(rows), first, last, bytes }
    }

    /// As a View names it.
    fn named(&self) -> LiveChunk {
        LiveChunk { rows: Arc::downgrade(&self.rows), first: self.first, last: self.last }
    }
}

struct State {
    view: Arc<View>,
    chunks: Vec<Chunk>,
    bytes: usize,
    rows: usize,
    /// Chunks up to here belong to a seal under way and are not merged any more.
    sealing: u64,
    newest: Newest,
}

/// What one seal takes.
pub(crate) struct Taken {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) rows: Vec<Arc<RecordBatch>>,
}

/// The live rows and the View over them and the lake.
pub(crate) struct Live {
    state: Mutex<State>,
    metrics: EngineMetrics,
    /// Told when rows arrive past the seal's size.
    pub(crate) grown: Notify,
    /// Told when a seal made room.
    pub(crate) room: Notify,
    /// The last position that a View has.
    visible: watch::Sender<u64>,
    /// A group waits for room: the next seal is due whatever the size and age of the rows.
    room_wanted: AtomicBool,
}

impl Live {
    pub(crate) fn new(lake: Arc<Snapshot>, metrics: EngineMetrics) -> Arc<Self> {
        metrics.sealed_position.set(lake.sealed as i64);
        let sealing = lake.sealed;
        Arc::new_cyclic(|live: &Weak<Self>| {
            let live = live.clone();
            // When the live rows are gone, so is the engine: nothing is found any more. No lake is held for that, as it would keep its files.
            let nothing = Snapshot { sealed: 0, files: Vec::new(), ..lake.as_ref().clone() };
            let nothing = Arc::new(View::of_lake(Arc::new(nothing)));
            let newest = Newest(Arc::new(move || live.upgrade().map_or_else(|| nothing.clone(), |live| live.view())));
            let view = Arc::new(View { lake, live: Vec::new(), newest: newest.clone() });
            let state = State { view, chunks: Vec::new(), bytes: 0, rows: 0, sealing, newest };
            Self {
                state: Mutex::new(state),
                metrics,
                visible: watch::Sender::new(sealing),
                grown: Notify::new(),
                room: Notify::new(),
                room_wanted: AtomicBool::new(false),
            }
        })
    }

    /// What a query sees: taken after an answer, it holds the answered events.
    pub(crate) fn view(&self) -> Arc<View> {
        self.lock().view.clone()
    }

    /// The last position that a View has, and when it grows.
    pub(crate) fn visible(&self) -> watch::Receiver<u64> {
        self.visible.subscribe()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(crate) fn rows(&self) -> usize {
        self.lock().rows
    }

    /// Asks for a seal, to make room.
    pub(crate) fn want_room(&self) {
        self.room_wanted.store(true, Ordering::Release);
        self.grown.notify_one();
    }

    /// Whether a group waits for room.
    pub(crate) fn is_room_wanted(&self) -> bool {
        self.room_wanted.load(Ordering::Acquire)
    }

    /// Publishes the rows of one durable group.
    pub(crate) fn publish(&self, rows: RecordBatch) {
        let mut state = self.lock();
        state.push(Chunk::new(rows)).expect("chunks share one schema and stay far below 2 GiB");
        self.published(&mut state);
        drop(state);
        self.grown.notify_one();
    }

    /// Takes all rows there are for a seal; the same rows again when the seal before failed. They stay visible.
    pub(crate) fn take(&self) -> Option<Taken> {
        let mut state = self.lock();
        let sealed = state.view.lake.sealed;
        let redo = state.sealing > sealed;
        let last = if redo { state.sealing } else { state.chunks.last()?.last };
        state.sealing = last;
        let taken: Vec<&Chunk> = state.chunks.iter().take_while(|c| c.last <= last).collect();
        taken.first()?;
        // Also of positions that were lost before the first row: they count as sealed.
        Some(Taken { first: sealed + 1, last, rows: taken.iter().map(|c| c.rows.clone()).collect() })
    }

    /// Swaps the lake's snapshot and the rows it now covers, in one step. A seal and a merge that end together may tell of theirs in either
    /// order: the newer one has all that the older one has.
    pub(crate) fn sealed(&self, lake: Arc<Snapshot>) {
        let mut state = self.lock();
        if (lake.version, lake.sealed) <= (state.view.lake.version, state.view.lake.sealed) {
            return;
        }
        let sealed = lake.sealed;
        state.chunks.retain(|c| c.last > sealed);
        assert!(state.chunks.first().is_none_or(|c| c.first > sealed), "a seal covers whole chunks");
        state.bytes = state.chunks.iter().map(|c| c.bytes).sum();
        let rows = state.chunks.iter().map(|c| c.rows.num_rows()).sum();
        // Counted where they leave, whoever tells it: a seal whose commit ended with an error is told by the next commit that went well.
        self.metrics.seal_rows.inc_by((state.rows - rows) as u64);
        state.rows = rows;
        state.view = Arc::new(View { lake, live: Vec::new(), newest: state.newest.clone() });
        self.published(&mut state);
        drop(state);
        self.metrics.sealed_position.set(sealed as i64);
        self.room_wanted.store(false, Ordering::Release);
        self.room.notify_waiters();
    }

    /// The View of these rows.
    fn published(&self, state: &mut State) {
        let live = state.chunks.iter().map(Chunk::named).collect();
        state.view = Arc::new(View { lake: state.view.lake.clone(), live, newest: state.newest.clone() });
        self.metrics.live_rows.set(state.rows as i64);
        self.metrics.live_bytes.set(state.bytes as i64);
        if let Some(chunk) = state.chunks.last() {
            self.metrics.last_position.set(chunk.last as i64);
            self.visible.send_replace(chunk.last);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, chunk: Chunk) -> Result<(), ArrowError> {
        self.bytes += chunk.bytes;
        self.rows += chunk.rows.num_rows();
        self.chunks.push(chunk);
        while let [.., before, last] = self.chunks.as_slice() {
            let (left, right) = (before.rows.num_rows(), last.rows.num_rows());
            let small = left < CHUNK_ROWS && right < CHUNK_ROWS && before.bytes + last.bytes <= CHUNK_BYTES;
            // Between them positions may have been lost.
            let follows = before.last + 1 == last.first;
            let merges = before.first > self.sealing && small && follows && left < 2 * right;
            if !merges {
                break;
            }
            let merged = Chunk::new(concat_batches(&last.rows.schema(), [before.rows.as_ref(), last.rows.as_ref()])?);
            self.bytes = self.bytes + merged.bytes - before.bytes - last.bytes;
            self.chunks.truncate(self.chunks.len() - 2);
            self.chunks.push(merged);
        }
        Ok(())
    }
}
