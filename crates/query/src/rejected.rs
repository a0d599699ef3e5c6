//! The table `rejected` as DataFusion asks for it: read a page at a time while the question runs, the columns that it asks for and, where its
//! conditions tell, the rows that it can use; where only their number is asked for, none.
//!
//! A question sees the rows that were there when it began to read, but for those that were pushed out meanwhile.

use ::rejected::{Column, Filter, Order, Rejected, RejectedError, Row};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::sync::{Arc, LazyLock};

/// Rows of a page, and the memory after which it has no more.
const PAGE_ROWS: usize = 1024;
const PAGE_BYTES: usize = 1 << 20;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("rejected_position", DataType::Int64, false),
        Field::new("received_at", micros, false),
        Field::new("sensor", DataType::Utf8, false),
        Field::new("request_id", DataType::Utf8, false),
        Field::new("index", DataType::Int64, false),
        Field::new("code", DataType::Utf8, false),
        Field::new("pointer", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("mode", DataType::Utf8, false),
        Field::new("parameters", DataType::Utf8, true),
        Field::new("content_type", DataType::Utf8, true),
        Field::new("headers", DataType::Utf8, true),
        Field::new("data", DataType::Utf8, true),
        Field::new("data_binary", DataType::Binary, true),
        Field::new("bytes", DataType::Int64, false),
        Field::new("cut", DataType::Boolean, false),
    ]))
});

/// What is read for a column.
fn read_for(name: &str) -> Column {
    match name {
        "rejected_position" => Column::Position,
        "received_at" => Column::ReceivedAt,
        "sensor" => Column::Sensor,
        "request_id" => Column::RequestId,
        "index" => Column::Index,
        "code" => Column::Code,
        "pointer" => Column::Pointer,
        "reason" => Column::Reason,
        "mode" => Column::Mode,
        "parameters" => Column::Parameters,
        "content_type" => Column::ContentType,
        "headers" => Column::Headers,
        "data" | "data_binary" => Column::Data,
        "bytes" => Column::Bytes,
        "cut" => Column::IsCut,
        other => unreachable!("the table has no column {other}"),
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct RejectedEvents(pub(crate) Rejected);

#[async_trait]
impl TableProvider for RejectedEvents {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // DataFusion looks at every row again: that fewer come is enough.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(SCHEMA.project(columns)?),
            None => SCHEMA.clone(),
        };
        let mut filter = Filter { order: Order::Oldest, ..Filter::default() };
        for condition in filters {
            narrow(&mut filter, condition);
        }
        let pages: Arc<dyn PartitionStream> =
            Arc::new(Pages { rejected: self.0.clone(), schema: schema.clone(), filter });
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![pages], None, [], false, limit)?))
    }
}

/// Takes a condition into the filter, as far as it fits: rows for which it is true stay in.
fn narrow(filter: &mut Filter, condition: &Expr) {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return };
    let (Expr::Column(column), Expr::Literal(value, _)) = (uncast(left), &**right) else { return };
    let (from, to) = match op {
        Operator::Eq => (true, true),
        Operator::Gt | Operator::GtEq => (true, false),
        Operator::Lt | Operator::LtEq => (false, true),
        _ => return,
    };
    match (column.name.as_str(), value) {
        ("rejected_position", ScalarValue::Int64(Some(position))) => {
            if from {
                filter.beyond = filter.beyond.max(Some(position.saturating_sub(1)));
            }
            if to {
                filter.last = Some(filter.last.map_or(*position, |last| last.min(*position)));
            }
        }
        ("received_at", value) => {
            let Some(micros) = micros_of(value) else { return };
            if from {
                filter.since = filter.since.max(Some(micros));
            }
            if to {
                let until = micros.saturating_add(1);
                filter.until = Some(filter.until.map_or(until, |other| other.min(until)));
            }
        }
        ("sensor", value) if from && to => filter.sensor = text_in(value),
        ("code", value) if from && to => filter.code = text_in(value),
        _ => {}
    }
}

/// The expression below a cast between times, which keeps the moment or rounds it down.
fn uncast(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Timestamp(..)) => &cast.expr,
        other => other,
    }
}

/// The last microsecond that is not after it.
fn micros_of(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampMicrosecond(micros, _) => *micros,
        ScalarValue::TimestampNanosecond(nanos, _) => nanos.map(|nanos| nanos.div_euclid(1000)),
        _ => None,
    }
}

fn text_in(value: &ScalarValue) -> Option<String> {
    value.try_as_str().flatten().map(str::to_owned)
}

#[derive(Debug)]
struct Pages {
    rejected: Rejected,
    /// The columns asked for.
    schema: SchemaRef,
    filter: Filter,
}

impl PartitionStream for Pages {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let Self { rejected, schema, filter } = self;
        let (rejected, filter) = (rejected.clone(), filter.clone());
        let rows = match schema.fields().is_empty() {
            true => counted(rejected, schema.clone(), filter).boxed(),
            false => read(rejected, schema.clone(), filter).boxed(),
        };
        Box::pin(RecordBatchStreamAdapter::new(schema.clone(), rows))
    }
}

/// Rows without columns, of which only the number is asked for.
fn counted(rejected: Rejected, schema: SchemaRef, filter: Filter) -> impl Stream<Item = Result<RecordBatch>> {
    let counted = async move {
        let rows = rejected.count(&filter).await.map_err(failed)? as usize;
        let page = move |at| {
            let options = RecordBatchOptions::new().with_row_count(Some(PAGE_ROWS.min(rows - at)));
            Ok(RecordBatch::try_new_with_options(schema.clone(), Vec::new(), &options)?)
        };
        Ok::<_, DataFusionError>(stream::iter((0..rows).step_by(PAGE_ROWS).map(page)))
    };
    stream::once(counted).try_flatten()
}

/// Rows with their columns, and no others.
fn read(rejected: Rejected, schema: SchemaRef, filter: Filter) -> impl Stream<Item = Result<RecordBatch>> {
    let mut columns: Vec<Column> = schema.fields().iter().map(|field| read_for(field.name())).collect();
    // Behind it the next page begins.
    columns.push(Column::Position);
    let begun = async move {
        let last = rejected.last_position().await.map_err(failed)?;
        let filter = Filter { last: Some(filter.last.map_or(last, |other| other.min(last))), ..filter };
        Ok::<_, DataFusionError>(stream::try_unfold((rejected, filter), move |(rejected, mut filter)| {
            let (columns, schema) = (columns.clone(), schema.clone());
            async move {
                let rows = rejected.read(&filter, &columns, PAGE_ROWS, PAGE_BYTES).await.map_err(failed)?;
                let Some(last) = rows.last() else { return Ok(None) };
                filter.beyond = Some(last.position);
                Ok(Some((batch(&rows, schema)?, (rejected, filter))))
            }
        }))
    };
    stream::once(begun).try_flatten()
}

fn failed(error: RejectedError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn batch(rows: &[Row], schema: SchemaRef) -> Result<RecordBatch> {
    let numbers = |of: fn(&Row) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef;
    let texts = |of: fn(&Row) -> Option<&str>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let column = |name: &str| -> ArrayRef {
        match name {
            "rejected_position" => numbers(|row| row.position),
            "received_at" => {
                let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.received_at));
                Arc::new(times.with_timezone("UTC"))
            }
            "sensor" => texts(|row| Some(&row.sensor)),
            "request_id" => texts(|row| Some(&row.request_id)),
            "index" => numbers(|row| row.index),
            "code" => texts(|row| Some(&row.code)),
            "pointer" => texts(|row| row.pointer.as_deref()),
            "reason" => texts(|row| Some(&row.reason)),
            "mode" => texts(|row| Some(&row.mode)),
            "parameters" => texts(|row| row.parameters.as_deref()),
            "content_type" => texts(|row| row.content_type.as_deref()),
            "headers" => texts(|row| row.headers.as_deref()),
            "data" => texts(text_of),
            "data_binary" => {
                let bytes = rows.iter().map(|row| text_of(row).is_none().then_some(&row.data[..]));
                Arc::new(bytes.collect::<BinaryArray>())
            }
            "bytes" => numbers(|row| row.bytes),
            "cut" => Arc::new(rows.iter().map(|row| Some(row.is_cut)).collect::<BooleanArray>()),
            other => unreachable!("the table has no column {other}"),
        }
    };
    let columns = schema.fields().iter().map(|field| column(field.name())).collect();
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn text_of(row: &Row) -> Option<&str> {
    std::str::from_utf8(&row.data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{cast, col, lit};

    fn narrowed(conditions: &[Expr]) -> Filter {
        let mut filter = Filter::default();
        conditions.iter().for_each(|condition| narrow(&mut filter, condition));
        filter
    }

    #[test]
    fn conditions_reach_the_table_as_far_as_they_fit_and_lose_no_row() {
        let filter = |filter: Filter| format!("{filter:?}");
        let position = || col("rejected_position");
        let of = |conditions: &[Expr]| filter(narrowed(conditions));
        let beyond = Filter { beyond: Some(6), ..Filter::default() };
        assert_eq!(of(&[position().gt_eq(lit(7_i64)), position().gt(lit(3_i64))]), filter(beyond));
        let between = Filter { beyond: Some(6), last: Some(9), ..Filter::default() };
        assert_eq!(
            of(&[position().gt(lit(7_i64)), position().lt_eq(lit(9_i64)), position().lt(lit(20_i64))]),
            filter(between)
        );
        let one = Filter { beyond: Some(6), last: Some(7), ..Filter::default() };
        assert_eq!(of(&[position().eq(lit(7_i64))]), filter(one));
        let texts =
            Filter { sensor: Some("roof".to_owned()), code: Some("invalid_time".to_owned()), ..Filter::default() };
        assert_eq!(of(&[col("sensor").eq(lit("roof")), col("code").eq(lit("invalid_time"))]), filter(texts));

        let micros = |at| lit(ScalarValue::TimestampMicrosecond(Some(at), Some("UTC".into())));
        let nanos = |at| lit(ScalarValue::TimestampNanosecond(Some(at), Some("UTC".into())));
        let as_nanos = cast(col("received_at"), DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())));
        let times = Filter { since: Some(5), until: Some(10), ..Filter::default() };
        assert_eq!(of(&[col("received_at").gt(micros(5)), col("received_at").lt_eq(micros(9))]), filter(times.clone()));
        assert_eq!(of(&[as_nanos.clone().gt(nanos(5_999)), as_nanos.lt_eq(nanos(9_001))]), filter(times));

        for other in [
            col("sensor").gt(lit("roof")),
            col("code").not_eq(lit("x")),
            col("sensor").eq(lit("a")).or(col("sensor").eq(lit("b"))),
            position().gt(col("index")),
            position().lt(lit(7.5)),
            col("index").eq(lit(7_i64)),
            cast(position(), DataType::Utf8).eq(lit("7")),
            col("received_at").gt(lit(ScalarValue::TimestampMicrosecond(None, Some("UTC".into())))),
        ] {
            assert_eq!(of(std::slice::from_ref(&other)), filter(Filter::default()), "{other}");
        }
    }
}
