//! `/api/v1/query`: SQL over everything answered before.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::body::{self, Coming};
use crate::code::Code;
use crate::pages;
use crate::parameters::parameters;
use crate::request_log::Asked;
use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, header};
use nowwhat::Problem;
use nowwhat::accept::Ranges;
use nowwhat::request::note;
use query::{Answer, Format, Place, Query, QueryError, Waited};
use serde::Deserialize;
use serde_json::json;
use std::time::Instant;
use utoipa::{IntoParams, ToSchema};

/// An answer of less than this is known to be whole before its head is sent.
const HEAD_BYTES: usize = 256 << 10;

/// A name of NDJSON that is not registered, and used.
const NDJSON: &str = "application/ndjson";

/// What a question looks like.
const EXAMPLE: &str =
    r#"{"sql": "SELECT ...", "params": [], "limit": 1000, "timeout_seconds": 30}, all but sql may be left out"#;

/// A question in SQL.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// One statement that only reads, over the tables `events` and `rejected`.
    sql: String,
    /// Values of `$1`, `$2` and so on.
    #[serde(default)]
    #[schema(schema_with = crate::openapi::values)]
    params: Vec<serde_json::Value>,
    /// Most rows of the answer, at most `query.rows_max`, which stands when it is left out.
    #[serde(default, deserialize_with = "body::whole")]
    #[schema(format = "uint64")]
    limit: Option<u64>,
    /// Time it may take, at most `query.timeout_seconds_max`; by default `query.timeout_seconds`.
    #[serde(default, deserialize_with = "body::whole")]
    #[schema(format = "uint64", minimum = 1)]
    timeout_seconds: Option<u64>,
}

/// The same question in an address, for whatever fetches a file: browsers, spreadsheets, `curl -G`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// One statement that only reads, over the tables `events` and `rejected`.
    sql: String,
    /// Values of `$1`, `$2` and so on, as a JSON array.
    #[param(pattern = r"^\[.*\]$", example = "[\"roof\"]")]
    params: Option<String>,
    /// Most rows of the answer, at most `query.rows_max`, which stands when it is left out.
    limit: Option<u64>,
    /// Time it may take, at most `query.timeout_seconds_max`; by default `query.timeout_seconds`.
    #[param(minimum = 1)]
    timeout_seconds: Option<u64>,
    /// The format, whatever `Accept` says. `spreadsheet` is CSV in which no text is a formula.
    #[param(schema_with = crate::openapi::query_format)]
    format: Option<String>,
}

/// The formats by their names in an address.
pub(crate) const FORMATS: [(&str, Format); 6] = [
    ("json", Format::Json),
    ("ndjson", Format::Ndjson),
    ("csv", Format::Csv),
    ("spreadsheet", Format::Spreadsheet),
    ("arrow", Format::Arrow),
    ("parquet", Format::Parquet),
];

/// Answers a question in the format the client accepts. An error after the first row ends the body abnormally.
pub(crate) async fn post_query(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, mut body) = Coming::of(request);
    let asked = permitted(&app, &parts.headers, &mut body).await;
    let question = body::done(&app, body, asked).await?;
    answer(&app, question, || format_of(&parts.headers)).await
}

/// Answers a question that stands in the address.
pub(crate) async fn get_query(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::QueryByAddress).await?;
    let max = app.shared.limits.query_bytes_max;
    if query.as_ref().is_some_and(|query| query.len() as u64 > max) {
        return Err(Code::QueryTooLarge.problem(format!("a query may have {max} bytes")));
    }
    let asked: Parameters = parameters(query.as_deref(), "sql, params, limit, timeout_seconds and format")?;
    let invalid = |detail: String| Code::InvalidParameter.problem(detail);
    let params = asked.params.as_deref().map_or(Ok(Vec::new()), serde_json::from_str);
    let params =
        params.map_err(|error| invalid(format!("params: it is an array of JSON, such as [\"a\",1]: {error}")))?;
    let format = match asked.format.as_deref() {
        None => None,
        Some(name) => {
            Some(FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| *format).ok_or_else(|| {
                let names = FORMATS.map(|(name, _)| name).join(", ");
                invalid(format!("format: known are {names}"))
            })?)
        }
    };
    let question = Question { sql: asked.sql, params, limit: asked.limit, timeout_seconds: asked.timeout_seconds };
    answer(&app, question, || format.map_or_else(|| format_of(&headers), Ok)).await
}

async fn answer(
    app: &App,
    question: Question,
    format: impl FnOnce() -> Result<Format, Problem>,
) -> Result<Response, Problem> {
    note(|| Asked::of(&question.sql));
    let format = format()?;
    let query = Query {
        sql: question.sql,
        params: question.params,
        limit: question.limit,
        timeout_seconds: question.timeout_seconds,
    };
    // The rows of a group are held until it is full.
    let room = if format == Format::Parquet { query::ROW_GROUP_BYTES } else { 0 };
    let room = pages::room(app, room)?;
    let answer = ask(app, query).await?;
    let waited = answer.waited();
    let parts = timed(Box::pin(query::encode(answer, format)), waited).fuse();
    let parts = parts.inspect(move |_| {
        let _held = &room;
    });
    let mut response = Body::from_stream(begun(Box::pin(parts)).await?).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    Ok(response)
}

/// An answer whose head waits for its first rows, so that an error among them is still answered as a problem. One that comes later
/// ends the body abnormally and is logged.
async fn begun<S>(mut parts: S) -> Result<impl Stream<Item = Result<Bytes, QueryError>>, Problem>
where
    S: Stream<Item = Result<Bytes, QueryError>> + Unpin,
{
    let (mut first, mut bytes) = (Vec::new(), 0);
    while bytes < HEAD_BYTES
        && let Some(part) = parts.next().await
    {
        let part = part.map_err(problem_of)?;
        bytes += part.len();
        first.push(Ok(part));
    }
    let span = tracing::Span::current();
    let rest = parts.inspect(move |part| {
        if let Err(error) = part {
            let cause = nowwhat::error_chain(error);
            span.in_scope(|| tracing::warn!(code = error.code(), cause, "answer broken off after its first rows"));
        }
    });
    Ok(futures::stream::iter(first).chain(rest))
}

/// An answer whose time is told to the request's log line: waiting for rows is `db`, encoding them is `view`.
fn timed<S>(parts: S, waited: Waited) -> impl Stream<Item = Result<Bytes, QueryError>>
where
    S: Stream<Item = Result<Bytes, QueryError>> + Unpin,
{
    let times = nowwhat::stopwatch();
    futures::stream::unfold((parts, waited, times), async |(mut parts, waited, times)| {
        let began = Instant::now();
        let part = parts.next().await;
        let (all, db) = (began.elapsed(), waited.take());
        times.add_db(db);
        times.add_view(all.saturating_sub(db));
        Some((part?, (parts, waited, times)))
    })
}

/// Asks everything that was answered before: a turn first, then the View, so that it is as new as the question.
pub(crate) async fn ask(app: &App, query: Query) -> Result<Answer, Problem> {
    let run = async {
        let turn = app.shared.queries.turn().await?;
        app.shared.queries.run(turn, app.shared.engine.view(), query).await
    };
    nowwhat::db(run).await.map_err(problem_of)
}

async fn permitted(app: &App, headers: &HeaderMap, body: &mut Coming) -> Result<Question, Problem> {
    let identity = auth::permit(app, headers, Act::Query).await?;
    body.sent_by(format!("token {}", identity.name).into());
    question(app, headers, body).await
}

async fn question(app: &App, headers: &HeaderMap, body: &mut Coming) -> Result<Question, Problem> {
    let max = app.shared.limits.query_bytes_max;
    let read = body::read(app, headers, body, max).await.map_err(|problem| match problem.code() {
        code if code == Code::BodyTooLarge.name() => {
            Code::QueryTooLarge.problem(format!("a query may have {max} bytes"))
        }
        _ => problem,
    })?;
    body::parsed(&read, EXAMPLE)
}

/// The format that `Accept` wants most; JSON when it says nothing, or wants another no more.
///
/// # Errors
/// 406 when it takes none of them.
fn format_of(headers: &HeaderMap) -> Result<Format, Problem> {
    let ranges = Ranges::of(headers);
    if ranges.is_empty() {
        return Ok(Format::Json);
    }
    let wanted = |format: Format| match format {
        // Also known by the name without the x, to those who use it.
        Format::Ndjson if ranges.wanted(NDJSON).is_named() => ranges.wanted(NDJSON),
        format => ranges.wanted(format.content_type()),
    };
    // The last one of those that are wanted most.
    let formats = [Format::Parquet, Format::Arrow, Format::Ndjson, Format::Csv, Format::Json];
    let format = formats.into_iter().max_by_key(|format| wanted(*format));
    format.filter(|format| wanted(*format).quality > 0).ok_or_else(|| {
        Code::NotAcceptable.problem(
            "`Accept` takes none of application/json, application/x-ndjson, text/csv, application/vnd.apache.arrow.stream and \
             application/vnd.apache.parquet",
        )
    })
}

/// The answer to a query that failed before its first row.
pub(crate) fn problem_of(error: QueryError) -> Problem {
    let code = match error.code() {
        "statement_not_allowed" => Code::StatementNotAllowed,
        "too_many_queries" => Code::TooManyQueries,
        "query_timeout" => Code::QueryTimeout,
        "query_too_large" => Code::QueryTooLarge,
        "too_many_rows" => Code::TooManyRows,
        "invalid_parameter" => Code::InvalidParameter,
        "damaged_file" => Code::DamagedFile,
        "internal" => Code::Internal,
        _ => Code::InvalidSql,
    };
    // What fails in itself is told by the log alone.
    let detail = if matches!(error, QueryError::Failed(_)) { "the query failed".to_owned() } else { error.to_string() };
    let problem = code.problem(detail);
    let problem = match error.place() {
        Some(Place { line, column }) => problem.extension("place", json!({ "line": line, "column": column })),
        None => problem,
    };
    problem.cause(error)
}
