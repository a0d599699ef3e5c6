//! Running questions: threads, limits, the stream of an answer.

use crate::columns::highest_asked;
use crate::error::QueryError;
use crate::fields::FieldTypes;
use crate::metrics::{End, EndLabel, QueryMetrics};
use crate::rejected::RejectedEvents;
use crate::seen::{KnownFields, Limit, SeenInFiles};
use crate::session::{base_state, environment, footers_bytes_max};
use crate::statement;
use crate::table::{BATCH_ROWS, Events};
use crate::value::type_name;
use ::rejected::Rejected;
use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList};
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SQLOptions;
use futures::StreamExt;
use lake::{Newest, View};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Stack of a query's thread: enough for the deepest statement that is allowed, which is planned by recursion. Only what is used of
/// it takes memory.
const STACK_BYTES: usize = 256 << 20;
/// Limits of questions.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the lake.
    pub lake_dir: PathBuf,
    /// Folder for what does not fit in memory.
    pub spill_dir: PathBuf,
    /// Threads, at lower priority.
    pub threads: usize,
    /// Memory of all running questions, with remembered footers of files.
    pub memory_bytes_max: u64,
    /// Disk of all running questions.
    pub spill_bytes_max: u64,
    /// Questions at once.
    pub concurrent_max: usize,
    /// How long a further one waits for its turn.
    pub wait_seconds: u64,
    /// Time of a question that names none.
    pub timeout_seconds: u64,
    /// The most time that one may name.
    pub timeout_seconds_max: u64,
    /// Most rows of an answer.
    pub rows_max: u64,
}

/// One question.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The statement.
    pub sql: String,
    /// Values of `$1`, `$2` and so on: texts, numbers, true, false, null.
    pub params: Vec<serde_json::Value>,
    /// Most rows wanted.
    pub limit: Option<u64>,
    /// Time it may take.
    pub timeout_seconds: Option<u64>,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as `docs/API.md` lists them.
    pub kind: String,
    pub(crate) field: FieldRef,
}

/// An answer whose rows are still coming. Dropping it stops the question.
#[derive(Debug)]
pub struct Answer {
    /// Its columns.
    pub columns: Vec<Column>,
    batches: mpsc::Receiver<Result<RecordBatch, QueryError>>,
    rows_left: u64,
    rows_max: u64,
    /// Whether the bound is the server's, not the asker's.
    bound: Bound,
    truncated: bool,
    waited: Waited,
}

/// How long an answer was waited for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Waited {
    nanos: Arc<AtomicU64>,
}

impl Waited {
    fn add(&self, time: Duration) {
        self.nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// The time since the last call.
    pub fn take(&self) -> Duration {
        Duration::from_nanos(self.nanos.swap(0, Ordering::Relaxed))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Asked,
    Server,
}

/// The right to ask one question now; it ends with the question.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
    began: Instant,
}

/// Runs questions. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    shared: Arc<Shared>,
}

struct Shared {
    /// Taken when it is dropped: a runtime may not be dropped inside another.
    runtime: Option<Runtime>,
    base: SessionState,
    permits: Arc<Semaphore>,
    rejected: Rejected,
    seen: SeenInFiles,
    options: Options,
    metrics: QueryMetrics,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Queries {
    /// Starts the threads. What an earlier run left in the spill folder is removed.
    ///
    /// # Errors
    /// The operating system's, for threads and folders.
    pub fn new(options: Options, rejected: Rejected, metrics: QueryMetrics) -> io::Result<Self> {
        if options.spill_dir.exists() {
            std::fs::remove_dir_all(&options.spill_dir)?;
        }
        std::fs::create_dir_all(&options.spill_dir)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads)
            .max_blocking_threads(options.threads * 4)
            .thread_name("query")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(|| {
                // On Linux this is the priority of the calling thread alone. Refused only in a sandbox; then all are equal.
                let _ = rustix::process::setpriority_process(None, 10);
            })
            .enable_all()
            .build()?;
        let footers_bytes = footers_bytes_max(options.memory_bytes_max);
        let pool: Arc<dyn MemoryPool> =
            Arc::new(FairSpillPool::new((options.memory_bytes_max - footers_bytes) as usize));
        metrics.memory.is_of(pool.clone());
        let environment = environment(&options, pool).map_err(io::Error::other)?;
        let base = base_state(&options, environment).map_err(io::Error::other)?;
        let permits = Arc::new(Semaphore::new(options.concurrent_max));
        let seen = SeenInFiles::default();
        let shared = Shared { runtime: Some(runtime), base, permits, rejected, seen, options, metrics };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Waits for a turn. The View is to be taken afterwards, so that it is as new as the question.
    ///
    /// # Errors
    /// [`QueryError::TooMany`] when none came in time.
    pub async fn turn(&self) -> Result<Turn, QueryError> {
        let began = Instant::now();
        let (concurrent_max, wait_seconds) = (self.shared.options.concurrent_max, self.shared.options.wait_seconds);
        let permit = self.shared.permits.clone().acquire_owned();
        match tokio::time::timeout(Duration::from_secs(wait_seconds), permit).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit, began }),
            _ => {
                let error = QueryError::TooMany { concurrent_max, wait_seconds };
                self.shared.count(End::of(&error), began);
                Err(error)
            }
        }
    }

    /// Asks a question of a View. Returns when the columns are known; the rows come with [`Answer::next`].
    ///
    /// # Errors
    /// [`QueryError`], before the first row.
    pub async fn run(&self, turn: Turn, view: Arc<View>, query: Query) -> Result<Answer, QueryError> {
        let began = turn.began;
        let result = self.start(turn, view, query).await;
        if let Err(error) = &result {
            self.shared.count(End::of(error), began);
        }
        result
    }

    /// The fields of `data` that there are, in time like a question.
    ///
    /// # Errors
    /// [`QueryError::Timeout`]; the next try goes on where this one ended.
    pub async fn fields(&self, turn: Turn, newest: Newest) -> Result<KnownFields, QueryError> {
        let (shared, seconds) = (self.shared.clone(), self.shared.options.timeout_seconds);
        let limit = Limit { end: turn.began + Duration::from_secs(seconds), seconds };
        let runtime = self.shared.runtime.as_ref().expect("taken only when dropped");
        let looked = runtime.spawn_blocking(move || {
            let found = shared.seen.now(&newest, &limit);
            let end = found.as_ref().err().map_or(End::OK, End::of);
            shared.count(end, turn.began);
            // Only now another one may look, also when nobody waits for the answer any more.
            drop(turn);
            found
        });
        looked.await.map_err(|_| QueryError::Failed("the look at the fields ended".to_owned()))?
    }

    async fn start(&self, turn: Turn, view: Arc<View>, query: Query) -> Result<Answer, QueryError> {
        let options = &self.shared.options;
        let timeout_seconds_max = options.timeout_seconds_max;
        if query.timeout_seconds == Some(0) {
            let range = format!("timeout_seconds is 0: it goes from 1 to {timeout_seconds_max}");
            return Err(QueryError::Parameter(range));
        }
        let timeout_seconds = query.timeout_seconds.unwrap_or(options.timeout_seconds).min(timeout_seconds_max);
        let (rows_max, bound) = match query.limit {
            Some(limit) if limit <= options.rows_max => (limit, Bound::Asked),
            _ => (options.rows_max, Bound::Server),
        };
        let (batches, receiver) = mpsc::channel(2);
        let (columns, known) = oneshot::channel();
        let task = Task { shared: self.shared.clone(), view, query, timeout_seconds, rows_max, turn };
        let runtime = self.shared.runtime.as_ref().expect("taken only when dropped");
        runtime.spawn(task.run(columns, batches));
        match known.await {
            Ok(Ok(columns)) => {
                let waited = Waited::default();
                Ok(Answer {
                    columns,
                    batches: receiver,
                    rows_left: rows_max,
                    rows_max,
                    bound,
                    truncated: false,
                    waited,
                })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(QueryError::Failed("the query's task ended".to_owned())),
        }
    }
}

impl Answer {
    /// The next rows; none at the end. An error is the last thing that comes.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        if self.truncated {
            return None;
        }
        let began = Instant::now();
        let batch = self.batches.recv().await;
        self.waited.add(began.elapsed());
        let batch = match batch? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        let rows = batch.num_rows() as u64;
        if rows <= self.rows_left {
            self.rows_left -= rows;
            return Some(Ok(batch));
        }
        self.truncated = true;
        self.batches.close();
        let left = std::mem::take(&mut self.rows_left);
        Some(Ok(batch.slice(0, left as usize)))
    }

    /// How long its rows were waited for, to be read while they come.
    pub fn waited(&self) -> Waited {
        self.waited.clone()
    }

    /// Whether there were more rows than wanted or allowed; known when the last row came.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// The server's bound, when it cut the answer.
    pub(crate) fn beyond_bound(&self) -> Option<u64> {
        (self.truncated && self.bound == Bound::Server).then_some(self.rows_max)
    }
}

impl Shared {
    fn count(&self, result: End, began: Instant) {
        self.metrics.queries.get_or_create(&EndLabel { result }).inc();
        self.metrics.seconds.observe(began.elapsed().as_secs_f64());
    }
}

/// A question on its own threads.
struct Task {
    shared: Arc<Shared>,
    view: Arc<View>,
    query: Query,
    timeout_seconds: u64,
    rows_max: u64,
    turn: Turn,
}

type Columns = oneshot::Sender<Result<Vec<Column>, QueryError>>;
type Batches = mpsc::Sender<Result<RecordBatch, QueryError>>;

impl Task {
    async fn run(self, columns: Columns, batches: Batches) {
        self.shared.metrics.running.inc();
        let limit = Duration::from_secs(self.timeout_seconds);
        let mut columns = Some(columns);
        let gone = batches.clone();
        let ended = tokio::select! {
            biased;
            () = gone.closed() => Err(None),
            ended = tokio::time::timeout(limit, self.stream(&mut columns, &batches)) => match ended {
                Ok(ended) => ended.map_err(Some),
                Err(_) => Err(Some(QueryError::Timeout { timeout_seconds: self.timeout_seconds })),
            },
        };
        self.shared.metrics.running.dec();
        match (ended, columns) {
            (Ok(()), _) => self.shared.count(End::OK, self.turn.began),
            (Err(None), _) => self.shared.count(End::DROPPED, self.turn.began),
            // Who waits for the columns counts the error.
            (Err(Some(error)), Some(columns)) => drop(columns.send(Err(error))),
            (Err(Some(error)), None) => {
                self.shared.count(End::of(&error), self.turn.began);
                // A client that does not read keeps nobody from asking.
                drop(self.turn);
                drop(self.view);
                drop(batches.send(Err(error)).await);
            }
        }
    }

    async fn stream(&self, columns: &mut Option<Columns>, batches: &Batches) -> Result<(), QueryError> {
        let mut stream = self.plan().await?;
        let known = stream
            .schema()
            .fields()
            .iter()
            .map(|f| Column { name: f.name().clone(), kind: type_name(f.data_type()), field: f.clone() })
            .collect();
        let mut first = stream.next().await.transpose().map_err(|e| QueryError::of(&e))?;
        if let Some(columns) = columns.take() {
            drop(columns.send(Ok(known)));
        }
        let mut rows = 0;
        loop {
            let batch = match first.take() {
                Some(batch) => batch,
                None => match stream.next().await {
                    Some(batch) => batch.map_err(|e| QueryError::of(&e))?,
                    None => return Ok(()),
                },
            };
            rows += batch.num_rows() as u64;
            self.shared.metrics.rows.inc_by(batch.num_rows() as u64);
            if batches.send(Ok(batch)).await.is_err() || rows > self.rows_max {
                return Ok(());
            }
        }
    }

    async fn plan(&self) -> Result<SendableRecordBatchStream, QueryError> {
        let statement = {
            let types = FieldTypes::new(&self.view);
            statement::parse(&self.query.sql, &|path| types.of(path))?
        };
        let failed = |e: DataFusionError| QueryError::of(&e);
        let events = Arc::new(Events::new(self.view.clone(), self.shared.metrics.clone()));
        let mut state = self.state(events.clone()).map_err(failed)?;
        let plan = state.statement_to_plan(statement).await.map_err(failed)?;
        let allowed = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        allowed.verify_plan(&plan).map_err(|e| QueryError::NotAllowed(e.strip_backtrace()))?;
        let params = self.query.params.iter().map(scalar).collect::<Result<Vec<_>, _>>()?;
        let plan = plan.with_param_values(ParamValues::from(params)).map_err(failed)?;
        let mut physical = match self.physical(&state, &plan, &events).await {
            Ok(physical) => physical,
            // DataFusion 55 loses a field in the condition of a join when it takes it down to the files.
            Err(error) if error.to_string().contains("__datafusion_extracted") => {
                state.config_mut().options_mut().optimizer.enable_leaf_expression_pushdown = false;
                self.physical(&state, &plan, &events).await.map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let batch_rows = events.batch_rows.load(Ordering::Relaxed);
        if batch_rows < BATCH_ROWS {
            // Now it is known that large events are read: every operator is to hold few of them.
            *state.config_mut() = state.config().clone().with_batch_size(batch_rows);
            physical = self.physical(&state, &plan, &events).await.map_err(failed)?;
        }
        let plan = yielding(physical).map_err(failed)?;
        execute_stream(plan, state.task_ctx()).map_err(failed)
    }

    async fn physical(
        &self,
        state: &SessionState,
        plan: &LogicalPlan,
        events: &Events,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let plan = state.optimize(plan)?;
        let highest = highest_asked(&plan, &self.view.lake.fields)?;
        events.asked.store(highest.map_or(0, |number| number + 1), Ordering::Relaxed);
        state.query_planner().create_physical_plan(&plan, state).await
    }

    /// The base with its tables: the View, and what was rejected.
    fn state(&self, events: Arc<Events>) -> Result<SessionState, DataFusionError> {
        let schema = MemorySchemaProvider::new();
        schema.register_table("events".into(), events)?;
        schema.register_table("rejected".into(), Arc::new(RejectedEvents(self.shared.rejected.clone())))?;
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema("public", Arc::new(schema))?;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog("catchment".into(), Arc::new(catalog));
        let mut state = self.shared.base.clone();
        state.register_catalog_list(Arc::new(catalogs));
        state.mark_start_execution();
        Ok(state)
    }
}

/// Makes every operator that multiplies rows give way now and then. DataFusion does so where rows are read; a join of a few rows
/// with themselves would otherwise keep its thread from all other questions, and from its own end.
fn yielding(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let multiplies = |name: &str| ["Join", "Unnest", "RecursiveQuery"].iter().any(|part| name.contains(part));
    let wrapped = plan.transform_up(|node| {
        Ok(match multiplies(node.name()) {
            true => Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>),
            false => Transformed::no(node),
        })
    });
    wrapped.map(|plan| plan.data)
}

fn scalar(param: &serde_json::Value) -> Result<ScalarValue, QueryError> {
    use serde_json::Value;
    match param {
        Value::Null => Ok(ScalarValue::Null),
        Value::Bool(yes) => Ok(ScalarValue::from(*yes)),
        Value::String(text) => Ok(ScalarValue::from(text.as_str())),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(ScalarValue::from(whole)),
            (None, Some(double)) => Ok(ScalarValue::from(double)),
            (None, None) => Err(QueryError::Parameter(format!("the parameter {number} is beyond a double"))),
        },
        Value::Array(_) | Value::Object(_) => {
            Err(QueryError::Parameter("a parameter is a text, a number, true, false or null".to_owned()))
        }
    }
}
