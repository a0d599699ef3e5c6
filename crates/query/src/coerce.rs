//! Fields that meet numbers and each other.
//!
//! Fields of events are texts, and one of a thousand may be `"n/a"`. DataFusion would cast such a text to the type of the number
//! and fail the whole question, because of one event, on the day when it comes: here a text that meets a number is read as a double,
//! and as null where it is none. `data->'v'`, which is JSON of any kind, is compared by its text.

use crate::fields::{field_as, kind_of};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ExprSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, Case, InList, InSubquery, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr};
use datafusion::logical_expr::sqlparser::ast::BinaryOperator;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, binary_expr, cast, in_list, try_cast, when};
use datafusion_functions_json::udfs::json_as_text_udf;
use event::Kind;

/// Functions whose arguments are compared with each other.
const COMPARING: [&str; 4] = ["coalesce", "nullif", "greatest", "least"];
/// Aggregates that take numbers only.
const OF_NUMBERS: [&str; 18] = [
    "avg",
    "sum",
    "mean",
    "median",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "corr",
    "covar_samp",
    "covar_pop",
    "approx_median",
    "approx_percentile_cont",
    "percentile_cont",
    "regr_slope",
    "regr_intercept",
    "regr_r2",
    "regr_avgx",
];
/// Functions of times that count in nanoseconds.
const IN_NANOSECONDS: [&str; 4] = ["date_trunc", "date_bin", "to_char", "to_unixtime"];
/// The times that nanoseconds reach, in microseconds, less a year for what is rounded down.
const NANOSECOND_TIMES: (i64, i64) = (i64::MIN / 1000 + 31_622_400_000_000, i64::MAX / 1000 - 31_622_400_000_000);

/// Reads fields as what they meet.
#[derive(Debug)]
pub(crate) struct Fields;

impl ExprPlanner for Fields {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus};
        if matches!(expr.op, Eq | NotEq | Lt | LtEq | Gt | GtEq | Plus | Minus | Multiply | Divide | Modulo) {
            (expr.left, expr.right) = met(expr.left, expr.right, schema);
        }
        Ok(PlannerResult::Original(expr))
    }

    fn plan_aggregate(&self, mut expr: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        if OF_NUMBERS.contains(&expr.func.name()) {
            let as_number = |e: Expr| if is_field(&e) { as_double(as_text(e)) } else { e };
            expr.args = expr.args.into_iter().map(as_number).collect();
        }
        Ok(PlannerResult::Original(expr))
    }
}

impl FunctionRewrite for Fields {
    fn name(&self) -> &'static str {
        "fields"
    }

    /// The same once more when parameters and subqueries have types, and for what has no operator.
    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if takes_numbers(op) => {
                let (mut left, mut right) = met(*left, *right, schema);
                if op == Operator::Minus && is_time(&left, schema) && is_time(&right, schema) {
                    // An interval counts in nanoseconds.
                    (left, right) = (within_if_column(left, schema)?, within_if_column(right, schema)?);
                }
                Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
            }
            Expr::InList(list) => Transformed::yes(listed(list, schema)?),
            Expr::Between(Between { expr, negated, low, high }) => {
                let [expr, low, high] = all_met([*expr, *low, *high], schema).map(Box::new);
                Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated }) => {
                let expr = as_text(*expr);
                let numbers = subquery.subquery.schema().fields().first().is_some_and(|f| f.data_type().is_numeric());
                let expr = if numbers && is_text(&expr, schema) { as_double(expr) } else { expr };
                Transformed::yes(Expr::InSubquery(InSubquery { expr: Box::new(expr), subquery, negated }))
            }
            Expr::Case(Case { expr: Some(subject), when_then_expr, else_expr }) => {
                let equal = |(value, then): (Box<Expr>, Box<Expr>)| {
                    let (left, right) = met((*subject).clone(), *value, schema);
                    (Box::new(binary_expr(left, Operator::Eq, right)), then)
                };
                let cases = when_then_expr.into_iter().map(equal).collect();
                Transformed::yes(Expr::Case(Case { expr: None, when_then_expr: cases, else_expr }))
            }
            Expr::ScalarFunction(function) => called(function, schema)?,
            Expr::TryCast(TryCast { expr, field }) => match field_as(&expr, field.data_type()) {
                Some(field) => Transformed::yes(field),
                None => Transformed::no(Expr::TryCast(TryCast { expr, field })),
            },
            other => Transformed::no(other),
        })
    }
}

fn takes_numbers(op: Operator) -> bool {
    use Operator::{Divide, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom};
    use Operator::{Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus};
    matches!(
        op,
        Eq | NotEq
            | Lt
            | LtEq
            | Gt
            | GtEq
            | Plus
            | Minus
            | Multiply
            | Divide
            | Modulo
            | IsDistinctFrom
            | IsNotDistinctFrom
    )
}

/// Both sides of an operator.
fn met(left: Expr, right: Expr, schema: &dyn ExprSchema) -> (Expr, Expr) {
    let [left, right] = all_met([left, right], schema);
    (left, right)
}

/// Expressions that are compared with each other: JSON becomes its text, and texts become doubles where one is a number.
fn all_met<const N: usize>(exprs: [Expr; N], schema: &dyn ExprSchema) -> [Expr; N] {
    let exprs = exprs.map(as_text);
    let exprs = if exprs.iter().any(is_word) { exprs.map(typed_as_text) } else { exprs };
    let numbers = exprs.iter().any(|e| is_number(e, schema));
    exprs.map(|e| if numbers && is_text(&e, schema) { as_double(e) } else { e })
}

/// `v IN (5, 'n/a')` asks for the number and for the text.
fn listed(list: InList, schema: &dyn ExprSchema) -> Result<Expr> {
    let InList { expr, list, negated } = list;
    let (mut expr, list): (Expr, Vec<Expr>) = (as_text(*expr), list.into_iter().map(as_text).collect());
    if list.iter().any(is_word) {
        expr = typed_as_text(expr);
    }
    if is_number(&expr, schema) {
        let list = list.into_iter().map(|e| if is_text(&e, schema) { as_double(e) } else { e }).collect();
        return Ok(in_list(expr, list, negated));
    }
    let (numbers, texts): (Vec<Expr>, Vec<Expr>) = list.into_iter().partition(|e| is_number(e, schema));
    if numbers.is_empty() || !is_text(&expr, schema) {
        return Ok(in_list(expr, numbers.into_iter().chain(texts).collect(), negated));
    }
    let found = in_list(as_double(expr.clone()), numbers, false);
    if texts.is_empty() {
        return Ok(if negated { !found } else { found });
    }
    let found = found.is_true().or(in_list(expr, texts, false));
    Ok(if negated { !found } else { found })
}

fn called(mut function: ScalarFunction, schema: &dyn ExprSchema) -> Result<Transformed<Expr>> {
    let func = function.func.clone();
    let name = func.name();
    if name == "now" {
        // In nanoseconds it could not be compared with every time that an event can have.
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        return Ok(Transformed::yes(cast(Expr::ScalarFunction(function), micros)));
    }
    if IN_NANOSECONDS.contains(&name) {
        let args = function.args.into_iter();
        function.args = args.map(|e| within_if_column(e, schema)).collect::<Result<_>>()?;
        return Ok(Transformed::yes(Expr::ScalarFunction(function)));
    }
    if COMPARING.contains(&name) && function.args.iter().any(is_word) {
        function.args = function.args.into_iter().map(typed_as_text).collect();
    }
    if !COMPARING.contains(&name) || !function.args.iter().any(is_field) {
        return Ok(Transformed::no(Expr::ScalarFunction(function)));
    }
    let args: Vec<Expr> = function.args.into_iter().map(as_text).collect();
    // `coalesce(data->>'v', 0)` asks for numbers; beside a column of numbers, which is there for every event, the field's texts
    // are kept.
    let asked = |e: &Expr| is_number(e, schema) && (name != "coalesce" || matches!(e, Expr::Literal(..)));
    let numbers = args.iter().any(asked);
    let one_type = |e: Expr| match (is_text(&e, schema), is_number(&e, schema)) {
        (true, _) if numbers => as_double(e),
        (_, true) if !numbers => cast(e, DataType::Utf8View),
        _ => e,
    };
    function.args = args.into_iter().map(one_type).collect();
    Ok(Transformed::yes(Expr::ScalarFunction(function)))
}

/// A column of times, with null where nanoseconds do not reach.
fn within_if_column(time: Expr, schema: &dyn ExprSchema) -> Result<Expr> {
    if !is_micros(&time, schema) {
        return Ok(time);
    }
    let micros = |at| Expr::Literal(ScalarValue::TimestampMicrosecond(Some(at), Some("UTC".into())), None);
    let reached = time.clone().gt_eq(micros(NANOSECOND_TIMES.0)).and(time.clone().lt_eq(micros(NANOSECOND_TIMES.1)));
    when(reached, time).end()
}

/// `data->'v'` as `data->>'v'`.
fn as_text(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(alias) if calls(&alias.expr, &["json_get"]) => as_text(*alias.expr),
        Expr::ScalarFunction(mut function) if function.func.name() == "json_get" => {
            function.func = json_as_text_udf();
            Expr::ScalarFunction(function)
        }
        other => other,
    }
}

/// Whether an expression is a field, as text or as JSON.
fn is_field(expr: &Expr) -> bool {
    calls(expr, &["json_get", "json_as_text"])
}

/// Whether an expression calls one of some functions.
fn calls(expr: &Expr, names: &[&str]) -> bool {
    match expr {
        Expr::Alias(alias) => calls(&alias.expr, names),
        Expr::ScalarFunction(function) => names.contains(&function.func.name()),
        _ => false,
    }
}

/// Whether an expression is a text that is not written out in the statement: such a one is read as the number's own type.
fn is_text(expr: &Expr, schema: &dyn ExprSchema) -> bool {
    let text = |kind| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    !matches!(expr, Expr::Literal(..)) && expr.get_type(schema).is_ok_and(text)
}

fn is_number(expr: &Expr, schema: &dyn ExprSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind.is_numeric())
}

fn is_time(expr: &Expr, schema: &dyn ExprSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| matches!(kind, DataType::Timestamp(..)))
}

/// Whether an expression is a column of times.
fn is_micros(expr: &Expr, schema: &dyn ExprSchema) -> bool {
    let micros = |kind| matches!(kind, DataType::Timestamp(TimeUnit::Microsecond, _));
    matches!(expr, Expr::Column(_)) && expr.get_type(schema).is_ok_and(micros)
}

/// Whether an expression is a text that is written out and no number that a field can be.
fn is_word(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => {
            value.try_as_str().flatten().is_some_and(|text| !text.trim().parse::<f64>().is_ok_and(f64::is_finite))
        }
        _ => false,
    }
}

/// A field that is read as a number, as its text: beside a word it is compared with that.
fn typed_as_text(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(alias) if is_double(&alias.expr) => typed_as_text(*alias.expr),
        Expr::ScalarFunction(mut call) if kind_of(&call.func) == Some(Kind::Double) => {
            call.func = json_as_text_udf();
            Expr::ScalarFunction(call)
        }
        Expr::TryCast(TryCast { expr, field }) if *field.data_type() == DataType::Float64 && is_field(&expr) => *expr,
        other => other,
    }
}

fn is_double(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if kind_of(&call.func) == Some(Kind::Double))
}

fn as_double(expr: Expr) -> Expr {
    field_as(&expr, &DataType::Float64).unwrap_or_else(|| try_cast(expr, DataType::Float64))
}
