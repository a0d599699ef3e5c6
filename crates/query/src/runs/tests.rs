//! Answers are those of DataFusion's own operator, whatever the batches are: sums of fractions but for their last digits.

use super::*;
use crate::columns;
use arrow::array::{Float64Array, Int64Array, StringViewArray, StringViewBuilder, TimestampMicrosecondArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::collection::vec;
use proptest::prelude::*;

/// What the texts of a batch are like.
#[derive(Clone, Copy, Debug)]
enum Texts {
    /// The same many times in a row, some of them longer than a view holds.
    Runs,
    /// Few, mixed.
    Few,
    /// Each its own.
    Many,
    /// Longer than a view holds, mixed.
    Long,
    /// Some are none.
    Missing,
}

impl Texts {
    fn of(self, row: usize) -> Option<String> {
        match self {
            Self::Runs if (row / 200).is_multiple_of(2) => Some(format!("t{}", row / 100 % 7)),
            Self::Runs => Some(format!("a text of many words {}", row / 100 % 5)),
            Self::Few => Some(format!("t{}", row % 7)),
            Self::Many => Some(format!("n{row}")),
            Self::Long => Some(format!("a text of many words {}", row % 5)),
            Self::Missing => (!row.is_multiple_of(3)).then(|| format!("t{}", row % 7)),
        }
    }
}

/// Values are missing here and there, and for whole runs. Sums of whole numbers are the same in any order.
fn batch((texts, rows): (Texts, usize)) -> RecordBatch {
    // Equal texts are one text, as they are in a dictionary of Parquet.
    let mut built = StringViewBuilder::new().with_deduplicate_strings();
    (0..rows).for_each(|row| built.append_option(texts.of(row)));
    let numbers = || 0..rows as i64;
    let at = TimestampMicrosecondArray::from_iter_values(numbers().map(|n| n / 50 * 60_000_000 - 120_000_000));
    let value = |n: i64| (n % 4 > 0 && n / 200 % 3 > 0).then_some((n % 10) as f64);
    RecordBatch::try_from_iter([
        ("k", Arc::new(built.finish()) as ArrayRef),
        ("other", Arc::new(StringViewArray::from_iter_values(numbers().map(|n| format!("o{}", n % 2))))),
        ("at", Arc::new(at.with_timezone("UTC"))),
        ("n", Arc::new(Int64Array::from_iter_values(numbers().map(|n| n % 3 - 1)))),
        ("v", Arc::new(Float64Array::from_iter(numbers().map(value)))),
    ])
    .map(|batch| {
        let fields =
            batch.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
        RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), batch.columns().to_vec())
            .expect("a batch")
    })
    .expect("a batch")
}

type Rules = Vec<Arc<dyn datafusion::physical_optimizer::PhysicalOptimizerRule + Send + Sync>>;

const QUESTIONS: [&str; 5] = [
    "SELECT k, count(*), count(v), sum(v), avg(v), min(v), max(v), min(at), max(n) FROM t GROUP BY k",
    "SELECT k, date_trunc('minute', at), count(*), sum(n) FROM t GROUP BY 1, 2",
    "SELECT k, other, at, n, count(k), avg(v) FROM t GROUP BY 1, 2, 3, 4",
    "SELECT n, count(*), max(v) FROM t WHERE v > 2 GROUP BY n",
    "SELECT k FROM t GROUP BY k",
];

/// The rows of an answer, and how many came in runs.
async fn answer(sql: &str, batches: &[RecordBatch], rules: Rules) -> (Vec<String>, usize) {
    let pool = GreedyMemoryPool::new(64 << 20);
    answer_within(Arc::new(pool), sql, batches, rules).await
}

async fn answer_within(
    pool: Arc<dyn MemoryPool>,
    sql: &str,
    batches: &[RecordBatch],
    rules: Rules,
) -> (Vec<String>, usize) {
    let environment = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().expect("an environment");
    let state = SessionStateBuilder::new()
        .with_config(SessionConfig::new().with_target_partitions(2))
        .with_runtime_env(environment)
        .with_default_features()
        .with_physical_optimizer_rules(rules)
        .build();
    let context = SessionContext::new_with_state(state);
    let (left, right) = batches.split_at(batches.len() / 2);
    let table = MemTable::try_new(batches[0].schema(), vec![left.to_vec(), right.to_vec()]).expect("a table");
    context.register_table("t", Arc::new(table)).expect("registered");
    let plan = context.sql(sql).await.expect("a plan").create_physical_plan().await.expect("a plan");
    let found = collect(plan.clone(), context.task_ctx()).await.expect("an answer");
    let options = FormatOptions::default().with_null("null");
    let mut rows = Vec::new();
    for batch in found {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).expect("shown"));
        let columns: Vec<_> = columns.collect();
        rows.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    rows.sort();
    (rows, in_runs(&plan))
}

fn in_runs(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let here = plan.downcast_ref::<RunsExec>().and_then(|runs| runs.metrics()?.sum_by_name("rows_in_runs"));
    here.map_or(0, |value| value.as_usize()) + plan.children().into_iter().map(in_runs).sum::<usize>()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn answers_are_those_of_datafusion(
        batches in vec((prop_oneof![Just(Texts::Runs), Just(Texts::Few), Just(Texts::Many), Just(Texts::Long), Just(Texts::Missing)], 0usize..9000), 1..6),
    ) {
        let batches: Vec<RecordBatch> = batches.into_iter().map(batch).collect();
        for sql in QUESTIONS {
            let (ours, _) = wait(answer(sql, &batches, columns::rules()));
            let (theirs, _) = wait(answer(sql, &batches, PhysicalOptimizer::new().rules));
            prop_assert_eq!(ours, theirs, "{}", sql);
        }
    }
}

#[test]
fn batches_with_runs_of_one_text_are_taken_and_others_left() {
    let taken = |texts, sql| wait(answer(sql, &[batch((texts, 1000)), batch((Texts::Few, 1000))], columns::rules())).1;
    assert_eq!(taken(Texts::Runs, QUESTIONS[0]), 1000);
    assert_eq!(taken(Texts::Missing, QUESTIONS[0]), 0);
    assert_eq!(taken(Texts::Runs, QUESTIONS[4]), 1000);
    // Two keys, and a number.
    assert_eq!(taken(Texts::Runs, QUESTIONS[1]), 0);
    assert_eq!(taken(Texts::Runs, QUESTIONS[3]), 0);
}

#[test]
fn a_run_without_values_has_no_average() {
    let (rows, in_runs) =
        wait(answer("SELECT k, avg(v) FROM t GROUP BY k", &[batch((Texts::Runs, 128))], columns::rules()));
    assert_eq!((rows, in_runs), (vec!["t0|null".to_owned(), "t1|null".to_owned()], 128));
}

#[test]
fn short_batches_and_groups_without_room_are_left() {
    let short: Vec<RecordBatch> = (0..40).map(|_| batch((Texts::Runs, RUN_ROWS - 1))).collect();
    let (rows, in_runs) = wait(answer(QUESTIONS[4], &short, columns::rules()));
    assert_eq!((rows.len(), in_runs), (1, 0));

    let batches = [batch((Texts::Runs, 9000)), batch((Texts::Runs, 9000))];
    let sql = "SELECT k, count(*) FROM t GROUP BY k";
    let narrow = Arc::new(Narrow::default());
    let (rows, in_runs) = wait(answer_within(narrow.clone(), sql, &batches, columns::rules()));
    assert_eq!(rows, wait(answer(sql, &batches, columns::rules())).0);
    assert_eq!(in_runs, 0);
    assert!(narrow.refused.load(std::sync::atomic::Ordering::Relaxed) > 0);
}

/// Has room for everything but groups of runs.
#[derive(Debug, Default)]
struct Narrow {
    refused: std::sync::atomic::AtomicUsize,
}

impl fmt::Display for Narrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "narrow")
    }
}

impl MemoryPool for Narrow {
    fn name(&self) -> &'static str {
        "narrow"
    }

    fn grow(&self, _: &MemoryReservation, _: usize) {}

    fn shrink(&self, _: &MemoryReservation, _: usize) {}

    fn try_grow(&self, reservation: &MemoryReservation, _: usize) -> Result<()> {
        if reservation.consumer().name() == "groups of runs" {
            self.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return Err(datafusion::common::DataFusionError::ResourcesExhausted("no room".to_owned()));
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        0
    }
}
