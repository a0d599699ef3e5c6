//! What may be asked, and how the operators of JSON are understood.
//!
//! `data.value` is the field as it is: a number, true or false, a text. `data->>'value'` is the text as it was sent. A cast of it gives null where the value does not fit, instead of failing the whole
//! question because of one event. What it is where it meets a number, `coerce` decides.

use crate::error::QueryError;
use crate::fields::AS_TEXT;
use crate::path::PathsIntoData;
use crate::relations;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, Ident, OrderBy, OrderByExpr, OrderByKind, Query, Select, SelectItem,
    SetExpr, Spanned, Statement as Sql, TableFactor, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use event::Kind;
use std::ops::ControlFlow;

/// Most words and signs of a statement. A chain of operators nests once for each, and is planned by recursion.
const WORDS_MAX: usize = 5_000;
/// Most operators of a chain `a + b + c`: each is planned with all before it, so that the time grows with their square.
const OPERATORS_MAX: usize = 1_000;
/// Most steps of a chain `data->'a'->'b'`: as deep as an event may be nested by default.
pub(crate) const STEPS_MAX: usize = 128;
/// Most characters that `lpad` and `rpad` fill up to.
const PAD_CHARS_MAX: u64 = 1000;

/// Tells the type of a field; none for one that is a text.
pub(crate) type TypeOf<'a> = &'a dyn Fn(&[String]) -> Option<Kind>;

/// Parses the one statement of a question, checks that it only reads, and prepares its fields and JSON operators.
pub(crate) fn parse(sql: &str, type_of: TypeOf<'_>) -> Result<Statement, QueryError> {
    let words = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize()
        .map_or(0, |tokens| tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).count());
    if words > WORDS_MAX {
        return Err(QueryError::invalid(format!(
            "the statement has {words} words and signs, at most {WORDS_MAX} are allowed: compare with a list, x IN (1, 2, 3), or ask in parts"
        )));
    }
    let mut statements =
        DFParser::parse_sql_with_dialect(sql, &PostgreSqlDialect {}).map_err(|e| QueryError::of_text(&e, sql))?;
    let statement = match (statements.pop_front(), statements.pop_front()) {
        (Some(statement), None) => statement,
        (None, _) => {
            return Err(QueryError::invalid("the query is empty: ask with SELECT ... FROM events"));
        }
        (Some(_), Some(_)) => {
            return Err(QueryError::NotAllowed("there are several statements".to_owned()));
        }
    };
    checked(statement, type_of)
}

fn checked(statement: Statement, type_of: TypeOf<'_>) -> Result<Statement, QueryError> {
    match statement {
        Statement::Statement(mut sql) => {
            if !reads(&sql) {
                let name = sql.to_string().split_whitespace().next().unwrap_or_default().to_uppercase();
                return Err(QueryError::NotAllowed(format!("{name} is not allowed here")));
            }
            relations::check(&sql)?;
            match sql.visit(&mut Rewrite(PathsIntoData::new(type_of))) {
                ControlFlow::Continue(()) => Ok(Statement::Statement(sql)),
                ControlFlow::Break(error) => Err(error),
            }
        }
        Statement::Explain(mut explain) => {
            explain.statement = Box::new(checked(*explain.statement, type_of)?);
            Ok(Statement::Explain(explain))
        }
        Statement::CreateExternalTable(_) => Err(QueryError::NotAllowed("CREATE is not allowed here".to_owned())),
        Statement::CopyTo(_) => Err(QueryError::NotAllowed("COPY is not allowed here".to_owned())),
        Statement::Reset(_) => Err(QueryError::NotAllowed("RESET is not allowed here".to_owned())),
    }
}

fn reads(sql: &Sql) -> bool {
    match sql {
        Sql::Query(_)
        | Sql::ShowTables { .. }
        | Sql::ShowColumns { .. }
        | Sql::ShowVariable { .. }
        | Sql::ExplainTable { .. } => true,
        Sql::Explain { statement, .. } => reads(statement),
        _ => false,
    }
}

struct Rewrite<'a>(PathsIntoData<'a>);

impl VisitorMut for Rewrite<'_> {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<QueryError> {
        let writes =
            matches!(*query.body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_));
        if writes || !query.locks.is_empty() {
            return refused("a query that writes or locks is not allowed here");
        }
        self.0.sort_by_names(query);
        if let Some(OrderBy { kind: OrderByKind::Expressions(sorts), .. }) = &mut query.order_by {
            each_once(sorts);
        }
        // What it sorts by is asked of the same tables.
        match &*query.body {
            SetExpr::Select(select) => self.0.enter(&select.from),
            _ => self.0.enter(&[]),
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<QueryError> {
        self.0.leave();
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &mut Select) -> ControlFlow<QueryError> {
        self.0.leave();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<QueryError> {
        self.0.enter(&select.from);
        tell_apart(&mut select.projection);
        self.0.name(&mut select.projection);
        if select.into.is_some() { refused("SELECT INTO is not allowed here") } else { ControlFlow::Continue(()) }
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<QueryError> {
        let function = match factor {
            TableFactor::Table { sample: Some(_), .. } => return refused("TABLESAMPLE is not allowed here"),
            TableFactor::Table { args, .. } => args.is_some(),
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } | TableFactor::UNNEST { .. } => false,
            _ => true,
        };
        if function {
            return refused("a function in the place of a table is not allowed here");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        if steps(expr) > STEPS_MAX {
            let error = QueryError::invalid(format!("a path into data has at most {STEPS_MAX} steps"));
            return ControlFlow::Break(error.at(expr.span()));
        }
        if operators(expr) > OPERATORS_MAX {
            return ControlFlow::Break(QueryError::invalid(format!(
                "a chain of operators has at most {OPERATORS_MAX}: compare with a list, x IN (1, 2, 3), or ask in parts"
            )));
        }
        if let Expr::BinaryOp { op: BinaryOperator::HashArrow | BinaryOperator::HashLongArrow, .. } = expr {
            let advice = "#> and #>> are not known here: ask step by step, data->'a'->>'b'";
            return ControlFlow::Break(QueryError::invalid(advice).at(expr.span()));
        }
        if let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = expr {
            for clause in &mut list.clauses {
                if let FunctionArgumentClause::OrderBy(sorts) = clause {
                    each_once(sorts);
                }
            }
        }
        if let Expr::Function(function) = expr {
            return pads_little(function);
        }
        match self.0.read(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<QueryError> {
        flatten(expr);
        if let Expr::Cast { kind, expr, .. } = expr
            && is_field(expr)
        {
            *kind = CastKind::TryCast;
        }
        ControlFlow::Continue(())
    }
}

/// Number of steps of a path `data->'a'->'b'`.
fn steps(expr: &Expr) -> usize {
    let (mut expr, mut steps) = (expr, 0);
    while let Expr::BinaryOp { left, op: BinaryOperator::Arrow | BinaryOperator::LongArrow, .. } = expr {
        (expr, steps) = (left, steps + 1);
    }
    steps
}

/// Number of operators of a chain, which nests to the left.
fn operators(expr: &Expr) -> usize {
    let (mut expr, mut operators) = (expr, 0);
    while let Expr::BinaryOp { left, .. } = expr {
        (expr, operators) = (left, operators + 1);
    }
    operators
}

/// `lpad` and `rpad` make long texts of short ones: the length is written out, and small.
fn pads_little(function: &Function) -> ControlFlow<QueryError> {
    let last = function.name.0.last().and_then(|part| part.as_ident());
    let name = last.map(|ident| ident.value.to_lowercase()).unwrap_or_default();
    if !["lpad", "rpad"].contains(&name.as_str()) {
        return ControlFlow::Continue(());
    }
    let FunctionArguments::List(list) = &function.args else {
        return ControlFlow::Continue(());
    };
    let length = match list.args.get(1) {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))) => value.to_string().parse::<u64>().ok(),
        _ => None,
    };
    match length {
        Some(0..=PAD_CHARS_MAX) => ControlFlow::Continue(()),
        _ => {
            let advice = format!("the length that {name} fills up to is a number written out, at most {PAD_CHARS_MAX}");
            ControlFlow::Break(QueryError::invalid(advice).at(function.span()))
        }
    }
}

/// The function that follows a path in one call, as JSON.
const AS_JSON: &str = "json_get";

/// What is sorted by a second time changes nothing, and some functions of DataFusion cannot have it.
fn each_once(sorts: &mut Vec<OrderByExpr>) {
    let mut before: Vec<Expr> = Vec::new();
    sorts.retain(|sort| {
        let is_new = !before.contains(&sort.expr);
        before.push(sort.expr.clone());
        is_new
    });
}

/// `data->'a'->'b'` becomes one call with the whole path. Planned step by step, the time doubles with each.
fn flatten(expr: &mut Expr) {
    let Expr::BinaryOp { left, op, right } = expr else {
        return;
    };
    let name = match op {
        BinaryOperator::Arrow => AS_JSON,
        BinaryOperator::LongArrow => AS_TEXT,
        _ => return,
    };
    let mut args = match &mut **left {
        Expr::BinaryOp { left: base, op: BinaryOperator::Arrow, right: step } => {
            vec![(**base).clone(), (**step).clone()]
        }
        Expr::Function(function) if function.name.to_string() == AS_JSON => match arguments(function) {
            Some(args) => args,
            None => return,
        },
        _ => return,
    };
    args.push((**right).clone());
    *expr = call(name, args);
}

pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let unnamed = |arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg));
    let args = args.into_iter().map(unnamed).collect();
    Expr::Function(Function {
        name: vec![Ident::new(name)].into(),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else {
        return None;
    };
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

/// Whether an expression is a field: `data->>'a'`, `data->'a'->>'b'`, `data.a`, with or without parentheses.
fn is_field(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) | Expr::Cast { kind: CastKind::TryCast, expr: inner, .. } => is_field(inner),
        Expr::BinaryOp { op: BinaryOperator::LongArrow, .. } => true,
        Expr::Function(function) => function.name.to_string() == AS_TEXT,
        _ => false,
    }
}

/// Gives a name to expressions that would have the same one: a cast is named like what it casts. `SELECT data->>'t',
/// (data->>'t')::double` is what people ask.
fn tell_apart(items: &mut [SelectItem]) {
    let mut seen: Vec<String> = Vec::new();
    for item in items {
        let SelectItem::UnnamedExpr(expr) = item else {
            continue;
        };
        let name = bare(expr).to_string();
        if !seen.contains(&name) {
            seen.push(name);
            continue;
        }
        let same = expr.to_string();
        let mut own = same.clone();
        let mut n = 2;
        while seen.contains(&own) {
            own = format!("{same} ({n})");
            n += 1;
        }
        seen.push(own.clone());
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', own) };
    }
}

/// An expression without the casts, zones and parentheses around it.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => bare(inner),
        Expr::Cast { expr, .. } => bare(expr),
        Expr::AtTimeZone { timestamp, .. } => bare(timestamp),
        other => other,
    }
}

fn refused(why: &str) -> ControlFlow<QueryError> {
    ControlFlow::Break(QueryError::NotAllowed(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(sql: &str) -> Result<Statement, QueryError> {
        parse(sql, &|_| None)
    }

    fn shown(sql: &str) -> String {
        match plain(sql).expect(sql) {
            Statement::Statement(sql) => sql.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_one_reading_statement_is_allowed() {
        for sql in [
            "INSERT INTO events VALUES (1)",
            "CREATE TABLE t (a int)",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "COPY events TO '/tmp/x.parquet'",
            "DROP TABLE events",
            "SET datafusion.execution.batch_size = 1",
            "SELECT 1; SELECT 2",
            "SELECT * INTO t FROM events",
            "WITH a AS (DELETE FROM events RETURNING 1) SELECT * FROM a",
            "SELECT * FROM range(1, 100000000000)",
            "SELECT * FROM generate_series(1, 100000000000)",
            "EXPLAIN INSERT INTO events VALUES (1)",
            "PREPARE a AS SELECT 1",
            "SELECT * FROM events TABLESAMPLE (10)",
        ] {
            let error = plain(sql).expect_err(sql);
            assert!(matches!(error, QueryError::NotAllowed(_) | QueryError::Invalid { .. }), "{sql}: {error}");
        }
        for sql in
            ["SELECT 1", "EXPLAIN SELECT 1", "SHOW TABLES", "DESCRIBE events", "WITH a AS (SELECT 1) SELECT * FROM a;"]
        {
            plain(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
    }

    #[test]
    fn expressions_of_the_same_name_are_told_apart() {
        let names = "SELECT data->>'t', (data->>'t')::double, time, time AT TIME ZONE 'UTC', 1, 1 FROM events";
        let shown = shown(names);
        for alias in [r#"AS "(data ->> 't')::DOUBLE""#, r#"AS "time AT TIME ZONE 'UTC'""#, r#"1 AS "1 (2)""#] {
            assert!(shown.contains(alias), "{shown}");
        }
    }

    #[test]
    fn statements_that_grow_without_bound_are_refused() {
        let chain = |n: usize, term: &str| format!("SELECT {} FROM events", vec![term; n].join("+"));
        plain(&chain(1000, "1")).expect("a long chain is understood");
        for sql in [
            chain(1002, "1"),
            chain(10_000, "1"),
            format!("SELECT data{} FROM events", "->'a'".repeat(200)),
            "SELECT lpad('x', 1000000000)".to_owned(),
            "SELECT rpad('x', position) FROM events".to_owned(),
            r#"SELECT "lpad"('x', 1000000000)"#.to_owned(),
        ] {
            let error = plain(&sql).expect_err("too much");
            assert!(matches!(error, QueryError::Invalid { .. }), "{error}");
        }
        plain("SELECT lpad('x', 10, '0')").expect("a usual length");
    }

    #[test]
    fn a_field_written_as_a_column_is_read_as_its_type() {
        let shown = |sql: &str| match parse(sql, &|path| (path.join(".") == "room.Temperature").then_some(Kind::Double))
        {
            Ok(Statement::Statement(sql)) => sql.to_string(),
            other => panic!("{other:?}"),
        };
        let number = "TRY_CAST(json_as_text(data, 'room', 'Temperature') AS DOUBLE PRECISION)";
        assert_eq!(
            shown("SELECT data.room.Temperature FROM events WHERE data.room.Temperature > 5"),
            format!(r#"SELECT {number} AS "data.room.Temperature" FROM events WHERE {number} > 5"#)
        );
        assert_eq!(
            shown("SELECT avg(e.data.other) FROM events e ORDER BY events.\"data\".\"a b\""),
            "SELECT avg(json_as_text(e.data, 'other')) AS \"avg(e.data.other)\" FROM events e ORDER BY json_as_text(events.\"data\", 'a b')"
        );
        for columns in ["SELECT data.time FROM events data", "SELECT data.time FROM events AS \"data\""] {
            assert_eq!(shown(columns), columns);
        }
        assert_eq!(
            shown("SELECT data.data.x FROM events data"),
            "SELECT json_as_text(data.data, 'x') AS \"data.x\" FROM events data"
        );
        assert_eq!(
            shown("WITH data AS (SELECT data.x AS n FROM events) SELECT data.n FROM data ORDER BY data.n"),
            "WITH data AS (SELECT json_as_text(data, 'x') AS n FROM events) SELECT data.n FROM data ORDER BY data.n"
        );
        assert_eq!(
            shown("SELECT data.x, e.data.x, f.data.x FROM events e, events f"),
            "SELECT json_as_text(data, 'x') AS \"data.x\", json_as_text(e.data, 'x') AS \"e.data.x\", json_as_text(f.data, 'x') AS \"f.data.x\" FROM events e, events f"
        );
        assert_eq!(
            shown("SELECT data.x FROM events UNION SELECT data.y FROM events ORDER BY data.x"),
            "SELECT json_as_text(data, 'x') AS \"data.x\" FROM events UNION SELECT json_as_text(data, 'y') AS \"data.y\" FROM events ORDER BY \"data.x\""
        );
        let error = plain("SELECT data.list[1] FROM events").expect_err("no list");
        assert!(error.to_string().contains("data->'list'->0"), "{error}");
    }
}
