//! The live rows of a View as the leaf of a plan.
//!
//! A View names its live rows and does not hold them. They are looked up when their turn comes: still live, merged into a larger
//! chunk, or sealed, and then read from the lake; however slow the question, nothing that was sealed stays in memory for it.
//! Rows are handed on in small copies, and their texts become views copy by copy.

use arrow::array::{Array, ArrayRef, Int64Array, MutableArrayData, RecordBatch, RecordBatchOptions, make_array};
use arrow::compute::kernels::cmp::{gt_eq, lt_eq};
use arrow::compute::{and, cast};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, DataFusionError, Result, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, StatisticsArgs};
use lake::{CheckedFile, LakeFile, LiveChunk, Newest, Snapshot, View};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Scans live rows.
#[derive(Debug)]
pub(crate) struct LiveExec {
    partitions: Vec<Vec<LiveChunk>>,
    rows: Rows,
    properties: Arc<PlanProperties>,
}

impl LiveExec {
    /// The columns `columns` of the live rows of `view`, newest first, with the types of `table`, in at most `partitions` parts.
    pub(crate) fn try_new(view: &View, table: &Schema, columns: &[usize], partitions: usize) -> Result<Self> {
        let count = partitions.min(view.live.len()).max(1);
        let mut parts = vec![Vec::new(); count];
        for (n, chunk) in view.live.iter().rev().enumerate() {
            parts[n % count].push(chunk.clone());
        }
        let schema = Arc::new(table.project(columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(count),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let rows = Rows { schema, newest: view.newest.clone() };
        Ok(Self { partitions: parts, rows, properties: Arc::new(properties) })
    }
}

/// Finds rows where they are now.
#[derive(Clone, Debug)]
struct Rows {
    schema: SchemaRef,
    newest: Newest,
}

/// Where the rows of a chunk are.
enum Found {
    /// In this chunk, from this row on.
    Live(Arc<RecordBatch>, usize),
    /// In the lake.
    Lake(Arc<Snapshot>),
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

impl Rows {
    /// The rows of a chunk from the position `from` on.
    fn find(&self, chunk: &LiveChunk, from: u64) -> Result<Found> {
        if let Some(rows) = chunk.rows.upgrade() {
            return Ok(Found::Live(rows, (from - chunk.first) as usize));
        }
        loop {
            let view = self.newest.view();
            if chunk.last <= view.lake.sealed {
                return Ok(Found::Lake(view.lake.clone()));
            }
            let holds = |other: &&LiveChunk| other.first <= from && chunk.last <= other.last;
            let other =
                view.live.iter().find(holds).ok_or_else(|| {
                    DataFusionError::Internal(format!("the rows from position {from} on are nowhere"))
                })?;
            // Gone in this very moment: the next View knows where to.
            if let Some(rows) = other.rows.upgrade() {
                return Ok(Found::Live(rows, (from - other.first) as usize));
            }
        }
    }

    /// The rows of the positions `first..=last`, `most` at a time.
    fn lake(&self, lake: &Snapshot, (first, last): (u64, u64), most: usize) -> Result<Batches> {
        let range = (first as i64, last as i64);
        let overlaps = |file: &&Arc<LakeFile>| {
            let position = &file.stats.position;
            position.min.is_none_or(|min| min <= range.1) && position.max.is_none_or(|max| max >= range.0)
        };
        let mut readers = Vec::new();
        for file in lake.files.iter().filter(overlaps) {
            readers.push(self.file(&lake.root.join(&file.path), range, most)?);
        }
        Ok(Box::new(readers.into_iter().flatten()))
    }

    /// The rows of one file whose positions are in `range`.
    fn file(&self, path: &Path, range: (i64, i64), most: usize) -> Result<Batches> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(CheckedFile::open(path)?)?;
        let parquet = builder.parquet_schema();
        let names = self.schema.fields().iter().map(|field| field.name().as_str());
        let wanted = ProjectionMask::columns(parquet, names);
        let inside = move |batch: RecordBatch| {
            let (first, last) = (Int64Array::new_scalar(range.0), Int64Array::new_scalar(range.1));
            and(&gt_eq(batch.column(0), &first)?, &lt_eq(batch.column(0), &last)?)
        };
        let inside = ArrowPredicateFn::new(ProjectionMask::columns(parquet, ["position"]), inside);
        let filter = RowFilter::new(vec![Box::new(inside)]);
        let reader = builder.with_projection(wanted).with_row_filter(filter).with_batch_size(most).build()?;
        let these = self.clone();
        Ok(Box::new(reader.map(move |batch| these.shown(&batch?, |column| Ok(column.clone())))))
    }

    /// A batch as the plan sees it: its columns, with the types of the table.
    fn shown(&self, batch: &RecordBatch, own: impl Fn(&ArrayRef) -> Result<ArrayRef>) -> Result<RecordBatch> {
        let column = |field: &Arc<arrow::datatypes::Field>| -> Result<_> {
            let at = batch.schema_ref().index_of(field.name())?;
            Ok(cast(&own(batch.column(at))?, field.data_type())?)
        };
        let arrays = self.schema.fields().iter().map(column).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}

/// A copy of an array: what leaves here must not keep the chunk that it was cut from.
fn copied(array: &ArrayRef) -> Result<ArrayRef> {
    let data = array.to_data();
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len())?;
    Ok(make_array(copy.freeze()))
}

/// The rows of one chunk, `most` at a time. Between two batches it holds nothing of the chunk.
struct Walk {
    rows: Rows,
    chunk: LiveChunk,
    /// The next position.
    at: u64,
    most: usize,
    /// What is left of the chunk, once it was found in the lake.
    lake: Option<Batches>,
}

impl Walk {
    fn new(rows: Rows, chunk: LiveChunk, most: usize) -> Self {
        let at = chunk.first;
        Self { rows, chunk, at, most, lake: None }
    }

    fn step(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batches) = &mut self.lake {
                return batches.next().transpose();
            }
            if self.at > self.chunk.last {
                return Ok(None);
            }
            match self.rows.find(&self.chunk, self.at)? {
                Found::Live(rows, from) => {
                    let count = self.most.min((self.chunk.last - self.at) as usize + 1);
                    self.at += count as u64;
                    return self.rows.shown(&rows.slice(from, count), copied).map(Some);
                }
                Found::Lake(lake) => {
                    self.lake = Some(self.rows.lake(&lake, (self.at, self.chunk.last), self.most)?);
                }
            }
        }
    }
}

impl Iterator for Walk {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if matches!(step, Some(Err(_))) {
            // An error is the last that comes.
            self.lake = Some(Box::new(std::iter::empty()));
        }
        step
    }
}

impl DisplayAs for LiveExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: usize = self.partitions.iter().flatten().map(LiveChunk::count).sum();
        write!(f, "LiveExec: rows={rows}, partitions={}", self.partitions.len())
    }
}

impl ExecutionPlan for LiveExec {
    fn name(&self) -> &'static str {
        "LiveExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (chunks, rows, most) =
            (self.partitions[partition].clone(), self.rows.clone(), context.session_config().batch_size());
        let batches = chunks.into_iter().flat_map(move |chunk| Walk::new(rows.clone(), chunk, most));
        let stream = RecordBatchStreamAdapter::new(self.rows.schema.clone(), futures::stream::iter(batches));
        Ok(make_cooperative(Box::pin(stream)))
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let rows_of = |chunks: &Vec<LiveChunk>| chunks.iter().map(LiveChunk::count).sum::<usize>();
        let rows = match args.partition() {
            Some(partition) => self.partitions.get(partition).map_or(0, rows_of),
            None => self.partitions.iter().map(rows_of).sum(),
        };
        let column = |nullable: bool| ColumnStatistics {
            null_count: if nullable { Precision::Absent } else { Precision::Exact(0) },
            ..ColumnStatistics::new_unknown()
        };
        let mut known = Statistics::new_unknown(&self.rows.schema).with_num_rows(Precision::Exact(rows));
        known.column_statistics = self.rows.schema.fields().iter().map(|field| column(field.is_nullable())).collect();
        Ok(Arc::new(known))
    }
}

#[cfg(test)]
mod tests;
