//! Fields that are answered from their columns in the lake.
//!
//! It promises that an answer from a column is the one from the text. A file tells how far its texts need not be read
//! ([`FileStats::whole`](lake::FileStats)): where that reaches, a field is its column and nothing else; elsewhere its row decides.

use crate::fields::kind_of;
use crate::nearest::only_nearest;
use crate::runs::by_runs;
use crate::table;
use arrow::datatypes::Schema;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, CaseExpr, Column, Literal};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, conjunction, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;
use event::{Fields, REST, column_of};
use std::sync::Arc;

/// What a scan knows of a file, beside its statistics: [`FileStats::whole`](lake::FileStats).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole(pub(crate) i32);

/// The highest number of a column that the fields of a plan have; none when no field of it has one.
pub(crate) fn highest_asked(plan: &LogicalPlan, fields: &Fields) -> Result<Option<usize>> {
    let mut highest = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                highest = highest.max(number_of(expr, fields));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(highest)
}

/// The number of the column that can answer an expression.
fn number_of(expr: &Expr, fields: &Fields) -> Option<usize> {
    let Expr::ScalarFunction(call) = expr else {
        return None;
    };
    let kind = kind_of(&call.func)?;
    let (_, steps) = call.args.split_first()?;
    let step = |step: &Expr| match step {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        _ => None,
    };
    let path = steps.iter().map(step).collect::<Option<Vec<_>>>()?;
    fields.get(&path).filter(|(_, of_column)| *of_column == kind).map(|(number, _)| number)
}

/// The rules of the physical plan, with four of ours: fields go down to the files as soon as filters have, and there columns take their place
/// once projections have come down as well; then what groups by a text does so by its runs. Last, an order of which the first rows are asked for gets no more of a batch.
pub(crate) fn rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let place = |found: Option<usize>, rules: &[_]| found.map_or(rules.len(), |at| at + 1);
    let last = rules.iter().rposition(|rule| rule.name() == "ProjectionPushdown");
    let after = place(last, &rules);
    rules.insert(after, Arc::new(Rule { name: "fields_from_columns", change: from_columns }));
    rules.insert(after + 1, Arc::new(Rule { name: "groups_by_runs", change: by_runs }));
    let first = rules.iter().position(|rule| rule.name() == "FilterPushdown");
    rules.insert(place(first, &rules), Arc::new(Rule { name: "fields_to_files", change: to_files }));
    rules.push(Arc::new(Rule { name: "only_nearest", change: only_nearest }));
    rules
}

/// A node instead of another; none where it stays.
type Changed = Result<Option<Arc<dyn ExecutionPlan>>>;

/// Changes the nodes of a plan, each before what is below it.
#[derive(Debug)]
struct Rule {
    name: &'static str,
    change: fn(&Arc<dyn ExecutionPlan>) -> Changed,
}

impl PhysicalOptimizerRule for Rule {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_down(|node| match (self.change)(&node)? {
            Some(changed) => Ok(Transformed::yes(changed)),
            None => Ok(Transformed::no(node)),
        })
        .data()
    }

    fn name(&self) -> &str {
        self.name
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A projection with fields, a step further down; none when the node is none, or is down. DataFusion leaves it above live rows and lake unless
/// it makes rows narrower.
fn to_files(node: &Arc<dyn ExecutionPlan>) -> Changed {
    let Some(projection) = node.downcast_ref::<ProjectionExec>() else {
        return Ok(None);
    };
    let mut input = projection.input().clone();
    let mut exprs = projection.projection_expr().clone();
    if !exprs.iter().any(|projected| has_field(&projected.expr)) {
        return Ok(None);
    }
    // What is computed is computed once: only names and values go through.
    let is_plain = |expr: &Arc<dyn PhysicalExpr>| {
        expr.downcast_ref::<Column>().is_some() || expr.downcast_ref::<Literal>().is_some()
    };
    while let Some(inner) = input.downcast_ref::<ProjectionExec>() {
        if !inner.projection_expr().iter().all(|projected| is_plain(&projected.expr)) {
            return Ok(None);
        }
        exprs = inner.projection_expr().try_merge(&exprs)?;
        input = inner.input().clone();
    }
    let projected = |input: &Arc<dyn ExecutionPlan>| ProjectionExec::try_new(exprs.iter().cloned(), input.clone());
    if input.downcast_ref::<UnionExec>().is_some() {
        let of_child = |child: &Arc<dyn ExecutionPlan>| Ok(Arc::new(projected(child)?) as Arc<dyn ExecutionPlan>);
        return UnionExec::try_new(input.children().into_iter().map(of_child).collect::<Result<_>>()?).map(Some);
    }
    match input.downcast_ref::<DataSourceExec>() {
        Some(scan) => scan.try_swapping_with_projection(&projected(&input)?),
        None => Ok(None),
    }
}

/// Whether an expression asks for a field.
fn has_field(expr: &Arc<dyn PhysicalExpr>) -> bool {
    let is_field = |expr: &Arc<dyn PhysicalExpr>| {
        let call = expr.downcast_ref::<ScalarFunctionExpr>().filter(|call| kind_of(call.fun()).is_some());
        call.is_some_and(|call| call.args().first().is_some_and(|data| data.downcast_ref::<Column>().is_some()))
    };
    expr.exists(|expr| Ok(is_field(expr))).unwrap_or(false)
}

/// A scan of the lake with columns in the place of fields; none when it is none, or asks for none.
fn from_columns(node: &Arc<dyn ExecutionPlan>) -> Changed {
    let Some(scan) = node.downcast_ref::<DataSourceExec>() else {
        return Ok(None);
    };
    let Some((config, source)) = scan.downcast_to_file_source::<ParquetSource>() else {
        return Ok(None);
    };
    let (Some(columns), Some(reader)) = (Columns::of(config, source), source.parquet_file_reader_factory()) else {
        return Ok(None);
    };
    let mut changed = false;
    let mut replaced = |expr: &Arc<dyn PhysicalExpr>| -> Result<Arc<dyn PhysicalExpr>> {
        let after = columns.replaced(expr)?;
        changed |= after.transformed;
        Ok(after.data)
    };
    let once = source.filter().map(|filter| once_each(&filter));
    let doubled = once != source.filter();
    let predicate = once.as_ref().map(&mut replaced).transpose()?;
    let projection =
        source.projection().cloned().unwrap_or_else(|| ProjectionExprs::from_indices(&[], &columns.schema));
    let projection = projection.try_map_exprs(|expr| replaced(&expr))?;
    if !changed && !doubled {
        return Ok(None);
    }
    let options = source.table_parquet_options().clone();
    let after = table::source(source.table_schema().clone(), options, reader, predicate);
    let Some(after) = after.try_pushdown_projection(&projection)? else {
        return Ok(None);
    };
    let config = FileScanConfigBuilder::from(config.clone()).with_source(after).build();
    Ok(Some(DataSourceExec::from_data_source(config)))
}

/// A filter with each condition once: what prunes files and what filters their rows come to a scan one after the other, and are the same.
fn once_each(filter: &Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    let mut conditions: Vec<Arc<dyn PhysicalExpr>> = Vec::new();
    for condition in split_conjunction(filter) {
        if !conditions.contains(condition) {
            conditions.push(condition.clone());
        }
    }
    conjunction(conditions)
}

/// The columns of a scan.
struct Columns {
    schema: Arc<Schema>,
    /// Where [`REST`] is.
    rest: usize,
    /// Below this number columns need not be looked up in the text, in none of the files.
    whole: i32,
}

impl Columns {
    fn of(config: &FileScanConfig, source: &ParquetSource) -> Option<Self> {
        let schema = source.table_schema().table_schema().clone();
        let rest = schema.index_of(REST).ok()?;
        let files = config.file_groups.iter().flat_map(|group| group.iter());
        let whole = files.map(|file| file.extension::<Whole>().map_or(0, |whole| whole.0)).min()?;
        Some(Self { schema, rest, whole })
    }

    fn replaced(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Transformed<Arc<dyn PhysicalExpr>>> {
        expr.clone().transform_up(|expr| match self.column(&expr)? {
            Some(column) => Ok(Transformed::yes(column)),
            None => Ok(Transformed::no(expr)),
        })
    }

    /// What stands for a field; none when the expression is none, or has no column.
    fn column(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let Some((name, call)) = self.name(expr) else {
            return Ok(None);
        };
        let Ok(place) = self.schema.index_of(&name) else {
            return Ok(None);
        };
        let number = place - self.rest - 1;
        if Some(self.schema.field(place).data_type()) != kind_of(call.fun()).map(event::Kind::data_type).as_ref() {
            return Ok(None);
        }
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(&name, place));
        if (number as i64) < i64::from(self.whole) {
            return Ok(Some(column));
        }
        let rest = Arc::new(Column::new(REST, self.rest));
        let number = Arc::new(Literal::new((number as i32).into()));
        let is_whole: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(rest, Operator::Gt, number));
        Ok(Some(Arc::new(CaseExpr::try_new(None, vec![(is_whole, column)], Some(expr.clone()))?)))
    }

    /// The name of the column that a field would have, and its call.
    fn name<'a>(&self, expr: &'a Arc<dyn PhysicalExpr>) -> Option<(String, &'a ScalarFunctionExpr)> {
        let call = expr.downcast_ref::<ScalarFunctionExpr>()?;
        kind_of(call.fun())?;
        let (data, steps) = call.args().split_first()?;
        let data = data.downcast_ref::<Column>()?;
        if self.schema.field(data.index()).name() != "data" {
            return None;
        }
        let step = |step: &Arc<dyn PhysicalExpr>| {
            let text = step.downcast_ref::<Literal>()?.value().try_as_str().flatten()?.to_owned();
            // A name with a point is not the field below.
            (!text.contains('.')).then_some(text)
        };
        let steps = steps.iter().map(step).collect::<Option<Vec<_>>>()?;
        (!steps.is_empty()).then(|| (column_of(&steps), call))
    }
}
