//! Groups by a text whose equal values stand together, as the sensors do in the files of the lake.
//!
//! DataFusion looks up the group of each row, and tells each function row by row. Here a run of rows with one value is one look and one call of
//! each function; batches without runs go to DataFusion's own operator. Both give partial answers of one question, which it puts together.

use crate::locked;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties};
use futures::{StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex};

/// Functions that keep a few numbers for a group.
const FUNCTIONS: [&str; 5] = ["count", "sum", "avg", "min", "max"];

/// A batch has runs when they are of at least so many rows on the average.
const RUN_ROWS: usize = 64;
/// What one number of a group takes while the partial answer is put together.
const STATE_BYTES: usize = size_of::<ScalarValue>();

/// Stands for a partial aggregation; none when a node is none, or when it groups by something else than one text.
pub(crate) fn by_runs(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(partial) = node.downcast_ref::<AggregateExec>() else {
        return Ok(None);
    };
    let input = partial.input_schema();
    let [(key, _)] = partial.group_expr().expr() else {
        return Ok(None);
    };
    let fits = *partial.mode() == AggregateMode::Partial
        && partial.group_expr().is_single()
        // A text that is computed is another one in each row, if it is long.
        && key.downcast_ref::<Column>().is_some()
        && key.data_type(&input)? == DataType::Utf8View
        && *partial.input_order_mode() == InputOrderMode::Linear
        && partial.limit_options().is_none()
        && partial.filter_expr().iter().all(Option::is_none)
        && partial.aggr_expr().iter().all(|function| is_small(function, &input));
    Ok(fits.then(|| Arc::new(RunsExec::new(partial.clone())) as Arc<dyn ExecutionPlan>))
}

/// Whether what a function keeps for a group is a few numbers, whatever it is told.
fn is_small(function: &AggregateFunctionExpr, input: &SchemaRef) -> bool {
    let is_counted = function.fun().name() == "count";
    let fixed = |expr: &Arc<dyn PhysicalExpr>| is_counted || expr.data_type(input).is_ok_and(|of| of.is_primitive());
    FUNCTIONS.contains(&function.fun().name())
        && !function.is_distinct()
        && function.order_bys().is_empty()
        && function.expressions().iter().all(fixed)
}

/// A partial aggregation.
#[derive(Debug)]
struct RunsExec {
    /// As DataFusion planned it, with one key.
    partial: AggregateExec,
    metrics: ExecutionPlanMetricsSet,
}

impl RunsExec {
    fn new(partial: AggregateExec) -> Self {
        Self { partial, metrics: ExecutionPlanMetricsSet::new() }
    }
}

/// The same aggregation of other rows.
fn with_input(partial: &AggregateExec, input: Arc<dyn ExecutionPlan>) -> Result<AggregateExec> {
    AggregateExec::try_new(
        *partial.mode(),
        partial.group_expr().clone(),
        partial.aggr_expr().to_vec(),
        partial.filter_expr().to_vec(),
        input,
        partial.input_schema(),
    )
}

impl DisplayAs for RunsExec {
    fn fmt_as(&self, how: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(how, DisplayFormatType::TreeRender) {
            write!(f, "RunsExec: ")?;
        }
        self.partial.fmt_as(how, f)
    }
}

impl ExecutionPlan for RunsExec {
    fn name(&self) -> &'static str {
        "RunsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.partial.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.partial.input()]
    }

    fn apply_expressions(
        &self,
        apply: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.partial.apply_expressions(apply)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(with_input(&self.partial, children.swap_remove(0))?)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        parents: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        self.partial.gather_filters_for_pushdown(phase, parents, config)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let groups = Groups {
            key: self.partial.group_expr().expr()[0].0.clone(),
            functions: self.partial.aggr_expr().to_vec(),
            kept: HashMap::new(),
            group_bytes: group_bytes(&self.partial)?,
            memory: MemoryConsumer::new("groups of runs").register(context.memory_pool()),
            rows: MetricBuilder::new(&self.metrics).counter("rows_in_runs", partition),
        };
        let groups = Arc::new(Mutex::new(groups));
        let rest = Rest { input: self.partial.input().clone(), groups: groups.clone() };
        let rest = with_input(&self.partial, Arc::new(rest))?.execute(partition, context.clone())?;
        let schema = self.schema();
        let last = {
            let (schema, most) = (schema.clone(), context.session_config().batch_size());
            // What comes in was read to its end when this is asked for. The memory is held until the last of it is taken.
            let next = move || locked(&groups).finish(&schema, most).transpose();
            futures::stream::iter(std::iter::from_fn(next))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rest.chain(last))))
    }
}

/// What is left of what comes in.
#[derive(Debug)]
struct Rest {
    input: Arc<dyn ExecutionPlan>,
    groups: Arc<Mutex<Groups>>,
}

impl DisplayAs for Rest {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rest")
    }
}

impl ExecutionPlan for Rest {
    fn name(&self) -> &'static str {
        "Rest"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
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
        let groups = self.groups.clone();
        let rows = self.input.execute(partition, context)?.try_filter_map(move |batch| {
            let taken = locked(&groups).take(&batch);
            std::future::ready(taken.map(|taken| (!taken).then_some(batch)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), rows)))
    }
}

/// What a group takes, apart from its key, also while the partial answer is put together.
fn group_bytes(partial: &AggregateExec) -> Result<usize> {
    let mut bytes = 2 * size_of::<(String, Kept)>();
    for function in partial.aggr_expr() {
        let kept = function.create_accumulator()?.size() + size_of::<Box<dyn Accumulator>>();
        bytes += kept + STATE_BYTES * function.state_fields()?.len();
    }
    Ok(bytes)
}

/// What each function keeps for a group.
type Kept = Vec<Box<dyn Accumulator>>;

/// The groups so far of one part of the rows.
#[derive(Debug)]
struct Groups {
    key: Arc<dyn PhysicalExpr>,
    functions: Vec<Arc<AggregateFunctionExpr>>,
    kept: HashMap<String, Kept>,
    group_bytes: usize,
    memory: MemoryReservation,
    rows: Count,
}

impl Groups {
    /// Takes a batch when its key has runs, and there is memory for its groups.
    fn take(&mut self, batch: &RecordBatch) -> Result<bool> {
        let of = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(batch.num_rows());
        let key = of(&self.key)?;
        let key = key.as_string_view();
        let Some(ends) = ends(key) else {
            return Ok(false);
        };
        let starts = || std::iter::once(0).chain(ends.iter().copied());
        let new = starts().take(ends.len()).map(|start| key.value(start)).filter(|key| !self.kept.contains_key(*key));
        let bytes: usize = new.map(|key| 2 * key.len() + self.group_bytes).sum();
        if self.memory.try_grow(bytes).is_err() {
            // DataFusion's operator needs none: it hands on what it has.
            return Ok(false);
        }
        let values = |function: &Arc<AggregateFunctionExpr>| function.expressions().iter().map(of).collect();
        let values = self.functions.iter().map(values).collect::<Result<Vec<Vec<ArrayRef>>>>()?;
        for (start, end) in starts().zip(&ends) {
            for (kept, values) in self.group(key.value(start))?.iter_mut().zip(&values) {
                let run: Vec<ArrayRef> = values.iter().map(|values| values.slice(start, end - start)).collect();
                kept.update_batch(&run)?;
            }
        }
        self.rows.add(batch.num_rows());
        Ok(true)
    }

    /// What is kept for one value.
    fn group(&mut self, key: &str) -> Result<&mut Kept> {
        match self.kept.entry(key.to_owned()) {
            Entry::Occupied(group) => Ok(group.into_mut()),
            Entry::Vacant(free) => {
                let group = self.functions.iter().map(|function| function.create_accumulator());
                Ok(free.insert(group.collect::<Result<Kept>>()?))
            }
        }
    }

    /// What is known of the next groups, at most `most`, as a partial aggregation tells it; none when there are no more.
    fn finish(&mut self, schema: &SchemaRef, most: usize) -> Result<Option<RecordBatch>> {
        let keys: Vec<String> = self.kept.keys().take(most).cloned().collect();
        if keys.is_empty() {
            return Ok(None);
        }
        let mut states: Vec<Vec<ScalarValue>> = vec![Vec::with_capacity(keys.len()); schema.fields().len() - 1];
        for group in keys.iter().filter_map(|key| self.kept.remove(key)) {
            let mut columns = states.iter_mut();
            for (function, mut kept) in self.functions.iter().zip(group) {
                for (state, column) in as_merged(function, kept.state()?)?.into_iter().zip(&mut columns) {
                    column.push(state);
                }
            }
        }
        let mut columns: Vec<ArrayRef> = vec![Arc::new(StringViewArray::from_iter_values(keys))];
        for states in states {
            columns.push(ScalarValue::iter_to_array(states)?);
        }
        Ok(Some(RecordBatch::try_new(schema.clone(), columns)?))
    }
}

/// What is known of a group, as it is merged: an average of no values has no count either, or it would be 0 / 0.
fn as_merged(function: &AggregateFunctionExpr, state: Vec<ScalarValue>) -> Result<Vec<ScalarValue>> {
    if function.fun().name() == "avg" && state.iter().any(ScalarValue::is_null) {
        return state.iter().map(|value| ScalarValue::try_new_null(&value.data_type())).collect();
    }
    Ok(state)
}

/// Where the runs of one value end; none when they are short. Two runs may have the same value, one that a file has twice.
fn ends(keys: &StringViewArray) -> Option<Vec<usize>> {
    let views = keys.views();
    let most = views.len() / RUN_ROWS;
    if most == 0 || keys.null_count() > 0 {
        return None;
    }
    let (mut ends, mut at) = (Vec::new(), 0);
    while at < views.len() {
        if ends.len() == most {
            return None;
        }
        let view = views[at];
        at += views[at..].iter().position(|other| *other != view).unwrap_or(views.len() - at);
        ends.push(at);
    }
    Some(ends)
}

#[cfg(test)]
mod tests;
