//! The first rows of an order that the files have the other way round, as in "the latest 100 of a sensor".
//!
//! A file has the rows of a sensor oldest first. DataFusion's operator for the first rows takes each of them for a while, as each is later than all
//! before. Here a batch that is in order, or in the opposite one, hands on only its first or last rows: of the others none can be among the first.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Below the operator for the first rows of an order; none when a node is none, or orders by something else than numbers and times.
pub(crate) fn only_nearest(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(sort) = node.downcast_ref::<SortExec>() else {
        return Ok(None);
    };
    let input = sort.input();
    let (Some(most), None) = (sort.fetch(), input.downcast_ref::<NearestExec>()) else {
        return Ok(None);
    };
    let schema = input.schema();
    let key = |expr: &Arc<dyn PhysicalExpr>, options: SortOptions| {
        let place = expr.downcast_ref::<Column>()?.index();
        is_number(schema.field(place).data_type()).then_some((place, options))
    };
    let keys = sort.expr().iter().map(|key_of| key(&key_of.expr, key_of.options)).collect::<Option<Vec<_>>>();
    let Some(keys) = keys else {
        return Ok(None);
    };
    let nearest = NearestExec { input: input.clone(), order: Order(keys.into()), most };
    let same = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
    node.clone().replace_children(vec![Arc::new(nearest)], same).map(Some)
}

fn is_number(kind: &DataType) -> bool {
    matches!(kind, DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, _))
}

/// Columns that are ordered by.
#[derive(Clone, Debug)]
struct Order(Arc<[(usize, SortOptions)]>);

impl Order {
    /// Of a batch that is in order or in the opposite one, the first rows; of another all.
    fn nearest(&self, batch: RecordBatch, most: usize) -> RecordBatch {
        let rows = batch.num_rows();
        if rows <= most {
            return batch;
        }
        let Some(keys) =
            self.0.iter().map(|(place, options)| key(&batch, *place, *options)).collect::<Option<Vec<_>>>()
        else {
            return batch;
        };
        let compared = |row: usize| {
            let of_key = |(values, descending): &(&[i64], bool)| {
                let order = values[row].cmp(&values[row + 1]);
                if *descending { order.reverse() } else { order }
            };
            keys.iter().map(of_key).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        };
        let (mut forward, mut backward) = (true, true);
        for row in 0..rows - 1 {
            match compared(row) {
                Ordering::Less => backward = false,
                Ordering::Greater => forward = false,
                Ordering::Equal => {}
            }
            if !forward && !backward {
                return batch;
            }
        }
        batch.slice(if forward { 0 } else { rows - most }, most)
    }
}

/// The values of a column, and whether the greatest comes first; none when there are nulls.
fn key(batch: &RecordBatch, place: usize, options: SortOptions) -> Option<(&[i64], bool)> {
    let column = batch.column(place);
    if column.null_count() > 0 {
        return None;
    }
    let values = match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().values(),
        _ => column.as_primitive_opt::<TimestampMicrosecondType>()?.values(),
    };
    Some((values, options.descending))
}

/// Hands on what of each batch can be among the first rows.
#[derive(Debug)]
struct NearestExec {
    input: Arc<dyn ExecutionPlan>,
    order: Order,
    most: usize,
}

impl DisplayAs for NearestExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NearestExec: fetch={}", self.most)
    }
}

impl ExecutionPlan for NearestExec {
    fn name(&self) -> &'static str {
        "NearestExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.swap_remove(0);
        Ok(Arc::new(Self { input, order: self.order.clone(), most: self.most }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (order, most) = (self.order.clone(), self.most);
        let rows = self.input.execute(partition, context)?.map_ok(move |batch| order.nearest(batch, most));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), rows)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
    use proptest::prelude::*;

    fn batch(rows: &[(i64, i64)]) -> RecordBatch {
        let time = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.0));
        let position: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_from_iter([("time", Arc::new(time) as ArrayRef), ("position", position)]).expect("a batch")
    }

    fn rows(batch: &RecordBatch) -> Vec<(i64, i64)> {
        let time = batch.column(0).as_primitive::<TimestampMicrosecondType>().values();
        let position = batch.column(1).as_primitive::<Int64Type>().values();
        time.iter().copied().zip(position.iter().copied()).collect()
    }

    /// Whether the greatest comes first, of time and of position.
    fn order(descending: [bool; 2]) -> Order {
        let options = |descending| SortOptions { descending, nulls_first: false };
        Order(Arc::new([(0, options(descending[0])), (1, options(descending[1]))]))
    }

    fn sorted(mut rows: Vec<(i64, i64)>, [time, position]: [bool; 2]) -> Vec<(i64, i64)> {
        let turned = |order: Ordering, descending: bool| if descending { order.reverse() } else { order };
        rows.sort_by(|a, b| turned(a.0.cmp(&b.0), time).then(turned(a.1.cmp(&b.1), position)));
        rows
    }

    proptest! {
        #[test]
        fn the_first_rows_of_all_are_among_those_that_are_handed_on(
            given in prop::collection::vec((0i64..4, 0i64..50), 0..40), most in 1usize..9,
            kind in prop::array::uniform2(any::<bool>()), lies in prop::option::of(prop::array::uniform2(any::<bool>())),
        ) {
            let given = match lies {
                Some(lies) => sorted(given, lies),
                None => given,
            };
            let found = rows(&order(kind).nearest(batch(&given), most));
            let first = |rows: Vec<(i64, i64)>| sorted(rows, kind).into_iter().take(most).collect::<Vec<_>>();
            prop_assert_eq!(first(found.clone()), first(given.clone()));
            if lies.is_some_and(|lies| lies == kind || lies.map(|lies| !lies) == kind) {
                prop_assert_eq!(found.len(), most.min(given.len()));
            }
        }
    }

    #[test]
    fn a_batch_with_nulls_is_handed_on_as_it_is() {
        let times: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(1), Some(2)]));
        let batch = RecordBatch::try_from_iter([("time", times)]).expect("a batch");
        let order = Order(Arc::new([(0, SortOptions { descending: true, nulls_first: true })]));
        assert_eq!(order.nearest(batch, 1).num_rows(), 3);
    }
}
