//! How many tables a question reads, once every name of a common table expression is replaced by what it stands for: that is how it
//! is planned, so a few lines of `WITH` can become more than any memory holds.

use crate::error::QueryError;
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Statement, Visit, Visitor};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Most tables of a question.
const RELATIONS_MAX: u64 = 256;

/// Refuses a question that reads more tables than that.
pub(crate) fn check(sql: &Statement) -> Result<(), QueryError> {
    match sql.visit(&mut Count::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(QueryError::invalid(format!(
            "the statement reads more than {RELATIONS_MAX} tables, each name of WITH counted as the query it stands for: use fewer, or ask in parts"
        ))),
    }
}

#[derive(Default)]
struct Count {
    /// The queries around, the outermost first.
    open: Vec<Open>,
    /// Queries with a name that come next, each with the place of its owner in `open`.
    named: Vec<(*const Query, usize, String)>,
}

#[derive(Default)]
struct Open {
    relations: u64,
    /// What the names of its `WITH` stand for, in relations.
    known: HashMap<String, u64>,
}

impl Count {
    fn add(&mut self, relations: u64) -> ControlFlow<()> {
        let Some(innermost) = self.open.last_mut() else {
            return ControlFlow::Continue(());
        };
        innermost.relations += relations;
        if innermost.relations > RELATIONS_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Visitor for Count {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let owner = self.open.len();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.named.push((&raw const *cte.query, owner, cte.alias.name.value.to_lowercase()));
        }
        self.open.push(Open::default());
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let relations = self.open.pop().map_or(0, |done| done.relations);
        let Some(at) = self.named.iter().position(|(named, ..)| std::ptr::eq(*named, query)) else {
            return self.add(relations);
        };
        let (_, owner, name) = self.named.swap_remove(at);
        self.open[owner].known.insert(name, relations.max(1));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = match relation.0.as_slice() {
            [part] => part.as_ident().map(|ident| ident.value.to_lowercase()),
            _ => None,
        };
        let known = name.and_then(|name| self.open.iter().rev().find_map(|open| open.known.get(&name).copied()));
        self.add(known.unwrap_or(1))
    }
}

#[cfg(test)]
mod tests {
    fn parse(sql: &str) -> Result<datafusion::sql::parser::Statement, crate::QueryError> {
        crate::statement::parse(sql, &|_| None)
    }

    /// Each name stands for two of the one before.
    fn doubling(times: usize) -> String {
        let step = |n: usize| format!(", a{n} AS (SELECT l.x + r.x x FROM a{} l, A{} r)", n - 1, n - 1);
        let steps: String = (1..=times).map(step).collect();
        format!("WITH a0 AS (SELECT 1 x){steps} SELECT * FROM a{times}")
    }

    #[test]
    fn names_that_stand_for_more_and_more_are_refused() {
        parse(&doubling(8)).expect("256 tables");
        let outer = |inner: &str| format!("SELECT * FROM events WHERE position IN ({inner})");
        let named = |inner: &str| format!("WITH b AS ({inner}) SELECT * FROM b, b c");
        for sql in [doubling(9), doubling(22), outer(&doubling(22)), named(&doubling(8)), named(&named(&doubling(7)))] {
            let error = parse(&sql).expect_err("too many");
            assert!(error.to_string().contains("256 tables"), "{error}");
        }
        parse(&format!("SELECT * FROM events WHERE {}", vec!["EXISTS (SELECT 1 FROM events)"; 100].join(" OR ")))
            .expect("many tables, none doubled");
    }

    #[test]
    fn a_name_stands_for_the_innermost_query_that_gives_it() {
        let inner = "WITH a AS (SELECT 1 x) SELECT * FROM a";
        let joins = (0..200).map(|n| format!(", ({inner}) t{n}")).collect::<String>();
        parse(&format!("WITH a AS (SELECT * FROM events l, events r) SELECT 1 FROM events{joins}"))
            .expect("201 tables");
    }
}
