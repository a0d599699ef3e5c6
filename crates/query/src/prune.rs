//! Which files of the lake a question need not open, by their statistics.

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringViewArray, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use lake::{FileStats, LakeFile, Range};
use std::collections::HashSet;
use std::sync::Arc;

/// The files that may hold rows for which `predicate` is true.
pub(crate) fn kept(
    files: &[Arc<LakeFile>],
    predicate: Option<&Arc<dyn PhysicalExpr>>,
    schema: &SchemaRef,
) -> Vec<Arc<LakeFile>> {
    let Some(predicate) = predicate else {
        return files.to_vec();
    };
    // What cannot be decided by statistics is read.
    let Ok(pruning) = PruningPredicateBuilder::new().with_file_schema(schema.clone()).try_build(predicate.clone())
    else {
        return files.to_vec();
    };
    let Ok(kept) = pruning.prune(&Files(files)) else {
        return files.to_vec();
    };
    files.iter().zip(kept).filter(|(_, keep)| *keep).map(|(file, _)| file.clone()).collect()
}

struct Files<'a>(&'a [Arc<LakeFile>]);

#[derive(Clone, Copy)]
enum Bound {
    Min,
    Max,
}

impl Bound {
    fn of<T: Clone>(self, range: &Range<T>) -> Option<T> {
        match self {
            Self::Min => range.min.clone(),
            Self::Max => range.max.clone(),
        }
    }
}

impl Files<'_> {
    fn bounds(&self, column: &Column, bound: Bound) -> Option<ArrayRef> {
        let stats = self.0.iter().map(|f| &f.stats);
        let times = |of: fn(&FileStats) -> &Range<i64>| -> ArrayRef {
            let values: TimestampMicrosecondArray = self.0.iter().map(|f| bound.of(of(&f.stats))).collect();
            Arc::new(values.with_timezone("UTC"))
        };
        Some(match column.name() {
            "position" => Arc::new(stats.map(|s| bound.of(&s.position)).collect::<Int64Array>()),
            "time" => times(|s| &s.time),
            "received_at" => times(|s| &s.received_at),
            "sensor" => Arc::new(stats.map(|s| bound.of(&s.sensor)).collect::<StringViewArray>()),
            "type" => Arc::new(stats.map(|s| bound.of(&s.event_type)).collect::<StringViewArray>()),
            _ => return None,
        })
    }
}

impl PruningStatistics for Files<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, Bound::Min)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, Bound::Max)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let known = matches!(column.name(), "position" | "time" | "received_at" | "sensor" | "type");
        known.then(|| Arc::new(UInt64Array::from_value(0, self.0.len())) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.0.iter().map(|f| f.stats.rows))))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
