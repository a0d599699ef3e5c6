//! Texts that meet numbers: they are read as doubles, and as null where they are none.
//!
//! Fields of events are texts, and one of a thousand may be `"n/a"`. DataFusion would cast such a text to the type of the number
//! and fail the whole question, because of one event, on the day when it comes.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ExprSchema, Result};
use datafusion::logical_expr::expr::{Between, InList, InSubquery};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::sqlparser::ast::BinaryOperator;
use datafusion::logical_expr::{Expr, ExprSchemable, try_cast};

/// Functions whose arguments are compared with each other.
const COMPARING: [&str; 4] = ["coalesce", "nullif", "greatest", "least"];

/// Reads texts as doubles where they meet numbers.
#[derive(Debug)]
pub(crate) struct TextAsNumber;

impl ExprPlanner for TextAsNumber {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if takes_numbers(&expr.op) {
            if is_text(&expr.left, schema) && is_number(&expr.right, schema) {
                expr.left = as_double(expr.left);
            } else if is_text(&expr.right, schema) && is_number(&expr.left, schema) {
                expr.right = as_double(expr.right);
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}

impl FunctionRewrite for TextAsNumber {
    fn name(&self) -> &'static str {
        "text_as_number"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::InList(InList { expr, list, negated })
                if is_text(&expr, schema) && !list.is_empty() && list.iter().all(|e| is_number(e, schema)) =>
            {
                Transformed::yes(Expr::InList(InList { expr: Box::new(as_double(*expr)), list, negated }))
            }
            Expr::Between(Between { expr, negated, low, high })
                if is_text(&expr, schema) && is_number(&low, schema) && is_number(&high, schema) =>
            {
                Transformed::yes(Expr::Between(Between { expr: Box::new(as_double(*expr)), negated, low, high }))
            }
            Expr::InSubquery(InSubquery { expr, subquery, negated })
                if is_text(&expr, schema)
                    && subquery.subquery.schema().fields().first().is_some_and(|f| f.data_type().is_numeric()) =>
            {
                Transformed::yes(Expr::InSubquery(InSubquery { expr: Box::new(as_double(*expr)), subquery, negated }))
            }
            Expr::ScalarFunction(mut function)
                if COMPARING.contains(&function.func.name())
                    && function.args.iter().any(|e| is_text(e, schema))
                    && function.args.iter().any(|e| is_number(e, schema)) =>
            {
                let args = function.args.into_iter();
                function.args = args.map(|e| if is_text(&e, schema) { as_double(e) } else { e }).collect();
                Transformed::yes(Expr::ScalarFunction(function))
            }
            other => Transformed::no(other),
        })
    }
}

fn takes_numbers(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | Plus | Minus | Multiply | Divide | Modulo)
}

/// Whether an expression is a text that is not written out in the statement: such a one is read as the number's own type.
fn is_text(expr: &Expr, schema: &dyn ExprSchema) -> bool {
    let text = |kind| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    !matches!(expr, Expr::Literal(..)) && expr.get_type(schema).is_ok_and(text)
}

fn is_number(expr: &Expr, schema: &dyn ExprSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind.is_numeric())
}

fn as_double(expr: Expr) -> Expr {
    try_cast(expr, DataType::Float64)
}
