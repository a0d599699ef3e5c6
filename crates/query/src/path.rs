//! Paths into `data`, written as columns: `data.temperature`, `e.data.room.Temperature`.
//!
//! The names after `data` are those of the JSON, with their capital and small letters: SQL would make small ones of them.

use crate::error::QueryError;
use crate::fields::AS_TEXT;
use crate::statement::{STEPS_MAX, TypeOf, call};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, CastKind, DataType, Expr, Ident, ObjectName, OrderBy, OrderByKind, Query, SelectItem, SetExpr,
    Statement, TableFactor, Value, Visit, Visitor,
};
use event::Kind;
use std::ops::ControlFlow;

/// Reads paths into `data`.
pub(crate) struct PathsIntoData<'a> {
    type_of: TypeOf<'a>,
    /// A table is called `data`: what follows it is a column.
    is_table: bool,
}

impl<'a> PathsIntoData<'a> {
    /// For the paths of a statement.
    pub(crate) fn of(statement: &Statement, type_of: TypeOf<'a>) -> Self {
        Self { type_of, is_table: statement.visit(&mut CalledData).is_break() }
    }

    /// Gives items with a path the name that they are written with: `data.temperature`, `avg(data.temperature)`.
    pub(crate) fn name(&self, items: &mut [SelectItem]) {
        for item in items {
            let SelectItem::UnnamedExpr(expr) = item else {
                continue;
            };
            if expr.visit(&mut Paths(self)).is_break() {
                let name = match &*expr {
                    Expr::CompoundIdentifier(parts) => {
                        let names: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
                        names[self.data(parts).unwrap_or(0)..].join(".")
                    }
                    other => other.to_string(),
                };
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', name) };
            }
        }
    }

    /// What `SELECT DISTINCT` sorts by is one of its items: it is named, so that it is found again.
    pub(crate) fn sort_by_names(&self, query: &mut Query) {
        let (SetExpr::Select(select), Some(OrderBy { kind: OrderByKind::Expressions(sorts), .. })) =
            (&mut *query.body, &mut query.order_by)
        else {
            return;
        };
        if select.distinct.is_none() {
            return;
        }
        self.name(&mut select.projection);
        for sort in sorts {
            let name = select.projection.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if *expr == sort.expr => Some(alias.clone()),
                _ => None,
            });
            sort.expr = name.map_or_else(|| sort.expr.clone(), Expr::Identifier);
        }
    }

    /// Puts in the place of a path what it means.
    pub(crate) fn read(&self, expr: &mut Expr) -> Result<(), QueryError> {
        match expr {
            Expr::CompoundIdentifier(parts) => {
                if let Some(at) = self.data(parts) {
                    *expr = self.field(parts, at)?;
                }
                Ok(())
            }
            Expr::CompoundFieldAccess { root, access_chain } => match (&**root, access_chain.first()) {
                (Expr::Identifier(first), Some(AccessExpr::Dot(Expr::Identifier(list))))
                    if is_data(first) && !self.is_table =>
                {
                    Err(QueryError::Invalid(format!(
                        "data.{list}[...]: ask for an element of a list as data->'{list}'->0, counted from 0",
                        list = list.value
                    )))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Where `data` stands in a name, when it is a path into it.
    fn data(&self, parts: &[Ident]) -> Option<usize> {
        let first = usize::from(self.is_table);
        (first..parts.len().saturating_sub(1)).find(|at| is_data(&parts[*at]))
    }

    fn field(&self, parts: &[Ident], at: usize) -> Result<Expr, QueryError> {
        let path: Vec<String> = parts[at + 1..].iter().map(|part| part.value.clone()).collect();
        if path.len() > STEPS_MAX {
            return Err(QueryError::Invalid(format!("a path into data has at most {STEPS_MAX} steps")));
        }
        let data = match &parts[..=at] {
            [data] => Expr::Identifier(data.clone()),
            parts => Expr::CompoundIdentifier(parts.to_vec()),
        };
        let steps = path.iter().map(|step| Expr::value(Value::SingleQuotedString(step.clone())));
        let text = call(AS_TEXT, std::iter::once(data).chain(steps).collect());
        let data_type = match (self.type_of)(&path) {
            Some(Kind::Double) => DataType::DoublePrecision,
            Some(Kind::Boolean) => DataType::Boolean,
            Some(Kind::Text) | None => return Ok(text),
        };
        Ok(Expr::Cast { kind: CastKind::TryCast, expr: Box::new(text), data_type, array: false, format: None })
    }
}

fn is_data(part: &Ident) -> bool {
    match part.quote_style {
        None => part.value.eq_ignore_ascii_case("data"),
        Some(_) => part.value == "data",
    }
}

/// Breaks off at a path.
struct Paths<'a, 'b>(&'a PathsIntoData<'b>);

impl Visitor for Paths<'_, '_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::CompoundIdentifier(parts) if self.0.data(parts).is_some() => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Breaks off at a table that is called `data`.
struct CalledData;

impl Visitor for CalledData {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        found(relation.0.last().and_then(|part| part.as_ident()))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let alias = match factor {
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => alias.as_ref(),
            _ => None,
        };
        found(alias.map(|alias| &alias.name))
    }
}

fn found(name: Option<&Ident>) -> ControlFlow<()> {
    if name.is_some_and(is_data) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
