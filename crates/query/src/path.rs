//! Paths into `data`, written as columns: `data.temperature`, `e.data.room.Temperature`.
//!
//! The names after `data` are those of the JSON, with their capital and small letters: SQL would make small ones of them.

use crate::error::QueryError;
use crate::fields::AS_TEXT;
use crate::statement::{STEPS_MAX, TypeOf, call};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, CastKind, DataType, Expr, Ident, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor,
    TableWithJoins, Value, Visit, Visitor,
};
use event::Kind;
use std::ops::ControlFlow;

/// Reads paths into `data`.
pub(crate) struct PathsIntoData<'a> {
    type_of: TypeOf<'a>,
    /// Of each query around: whether a table of it is called `data`, and what follows that is a column.
    tables: Vec<bool>,
}

impl<'a> PathsIntoData<'a> {
    /// For the paths of a statement.
    pub(crate) fn new(type_of: TypeOf<'a>) -> Self {
        Self { type_of, tables: Vec::new() }
    }

    /// What follows is asked of these tables; without any, of those around.
    pub(crate) fn enter(&mut self, from: &[TableWithJoins]) {
        self.tables.push(if from.is_empty() { self.has_table() } else { from.iter().any(one_is_data) });
    }

    /// What follows is asked of the tables before.
    pub(crate) fn leave(&mut self) {
        self.tables.pop();
    }

    fn has_table(&self) -> bool {
        self.tables.last().copied().unwrap_or(false)
    }

    /// Gives items with a path the name that they are written with: `data.temperature`, `avg(data.temperature)`. The same field of a second
    /// table is `f.data.temperature`.
    pub(crate) fn name(&self, items: &mut [SelectItem]) {
        let mut names: Vec<String> = Vec::new();
        for item in items {
            let SelectItem::UnnamedExpr(expr) = item else {
                continue;
            };
            if expr.visit(&mut Paths(self)).is_break() {
                let mut name = match &*expr {
                    Expr::CompoundIdentifier(parts) => joined(&parts[self.data(parts).unwrap_or(0)..]),
                    other => other.to_string(),
                };
                if let (Expr::CompoundIdentifier(parts), true) = (&*expr, names.contains(&name)) {
                    name = joined(parts);
                }
                names.push(name.clone());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', name) };
            }
        }
    }

    /// What `SELECT DISTINCT` and `UNION` sort by is one of their items: it is named, so that it is found again.
    pub(crate) fn sort_by_names(&mut self, query: &mut Query) {
        let Some(OrderBy { kind: OrderByKind::Expressions(sorts), .. }) = &mut query.order_by else {
            return;
        };
        let is_set = matches!(*query.body, SetExpr::SetOperation { .. });
        let Some(select) = first_select(&mut query.body).filter(|select| is_set || select.distinct.is_some()) else {
            return;
        };
        self.enter(&select.from);
        self.name(&mut select.projection);
        self.leave();
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
                    if is_data(first) && !self.has_table() =>
                {
                    Err(QueryError::invalid(format!(
                        "data.{list}[...]: ask for an element of a list as data->'{list}'->0, counted from 0",
                        list = list.value
                    ))
                    .at(first.span))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Where `data` stands in a name, when it is a path into it.
    fn data(&self, parts: &[Ident]) -> Option<usize> {
        let first = usize::from(self.has_table());
        (first..parts.len().saturating_sub(1)).find(|at| is_data(&parts[*at]))
    }

    fn field(&self, parts: &[Ident], at: usize) -> Result<Expr, QueryError> {
        let path: Vec<String> = parts[at + 1..].iter().map(|part| part.value.clone()).collect();
        if path.len() > STEPS_MAX {
            return Err(
                QueryError::invalid(format!("a path into data has at most {STEPS_MAX} steps")).at(parts[at].span)
            );
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

/// The names of a path, as its column is called.
fn joined(parts: &[Ident]) -> String {
    let names: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
    names.join(".")
}

/// The SELECT whose names a query's columns have.
fn first_select(body: &mut SetExpr) -> Option<&mut Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::SetOperation { left, .. } => first_select(left),
        _ => None,
    }
}

/// Whether a table is called `data`.
fn one_is_data(tables: &TableWithJoins) -> bool {
    let joined = tables.joins.iter().map(|join| &join.relation);
    std::iter::once(&tables.relation).chain(joined).any(|factor| match factor {
        TableFactor::Table { name, alias: None, .. } => {
            name.0.last().and_then(|part| part.as_ident()).is_some_and(is_data)
        }
        TableFactor::NestedJoin { table_with_joins, alias: None } => one_is_data(table_with_joins),
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::UNNEST { alias, .. }
        | TableFactor::NestedJoin { alias, .. } => alias.as_ref().is_some_and(|alias| is_data(&alias.name)),
        _ => false,
    })
}
