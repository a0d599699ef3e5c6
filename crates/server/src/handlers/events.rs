//! `GET /api/v1/events`: the events themselves, newest position first, a page at a time; and one event by id.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::code::Code;
use crate::handlers::page::limit_of;
use crate::handlers::query::{ask, problem_of};
use crate::openapi::{of, or_null};
use crate::pages::{self, Page};
use crate::parameters::parameters;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::HeaderMap;
use nowwhat::Problem;
use nowwhat::extract::Path;
use query::{BytesAs, Query};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::fmt;
use std::ops::ControlFlow;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaType};
use utoipa::openapi::{RefOr, SchemaFormat, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

pub(super) const COLUMNS: &str =
    "position, id, sensor, source, type, subject, time, received_at, content_type, attributes, data, data_binary";

/// A parameter in microseconds as a time: a text would be read in nanoseconds, which end in 2262.
const MICROS: &str = "arrow_cast(?, 'Timestamp(Microsecond, Some(\"UTC\"))')";

/// The parameters of the address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// Only events of this sensor.
    sensor: Option<String>,
    /// Only events of this type.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// Only events whose time is not before this one.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only events whose time is before this one.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Most events of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// Where to go on: the `next_cursor` of the page before.
    #[param(pattern = "^[0-9]{1,18}$")]
    cursor: Option<String>,
}

/// A page of events.
pub(crate) async fn get_events(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ListEvents).await?;
    let filter: Filter = parameters(query.as_deref(), "sensor, type, since, until, limit and cursor")?;
    let limit = u64::from(limit_of(filter.limit)?);
    match page(&app, &filter, limit).await {
        Err(problem) if problem.code() == Code::QueryTooLarge.name() => large(&app, &filter, limit).await?.end(),
        done => done?.end(),
    }
}

/// One event by its id; the newest when several senders used the id.
pub(crate) async fn get_event(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ReadEvent).await?;
    let sql = format!("SELECT {COLUMNS} FROM events WHERE id = $1 ORDER BY position DESC LIMIT 1");
    let query = Query { sql, params: vec![Value::from(id.as_str())], limit: Some(1), timeout_seconds: None };
    let mut found = None;
    each(&app, query, |event| {
        found = Some(event);
        Ok(ControlFlow::Break(()))
    })
    .await?;
    match found {
        Some(event) => pages::whole(&app, &event),
        None => Err(Code::NotFound.problem(format!("there is no event with the id {id:?}"))),
    }
}

/// The events of a page.
async fn page(app: &App, filter: &Filter, limit: u64) -> Result<Page, Problem> {
    let mut page = Page::begin(app, "events", limit)?;
    let is_cut = each(app, page_query(filter, COLUMNS, limit)?, |event| page.add(&event, event.position())).await?;
    if is_cut {
        page.goes_on();
    }
    Ok(page)
}

/// The same for events that do not fit into a query's memory all at once: their positions first, then few of them at a time.
async fn large(app: &App, filter: &Filter, limit: u64) -> Result<Page, Problem> {
    let mut positions = Vec::new();
    let is_cut = each(app, page_query(filter, "position", limit)?, |event| {
        positions.extend(event.position());
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    let mut page = Page::begin(app, "events", limit)?;
    if is_cut {
        page.goes_on();
    }
    let (mut read, mut largest, mut step) = (0, 1, 1);
    // A query that is not read to its end may hold its memory for a while: none is asked in vain.
    while read < positions.len() && page.takes_one_more() {
        let these = &positions[read..(read + step).min(positions.len())];
        let list = these.join(", ");
        let sql = format!("SELECT {COLUMNS} FROM events WHERE position IN ({list}) ORDER BY position DESC");
        let query = Query { sql, limit: Some(these.len() as u64), ..Query::default() };
        let before = read;
        each(app, query, |event| {
            let bytes = page.bytes();
            let goes_on = page.add(&event, event.position())?;
            (read, largest) = (read + 1, largest.max(page.bytes() - bytes));
            Ok(goes_on)
        })
        .await?;
        if read == before {
            break;
        }
        step = (page.bytes_left() / largest).clamp(1, step * 2);
    }
    Ok(page)
}

fn page_query(filter: &Filter, columns: &str, limit: u64) -> Result<Query, Problem> {
    let Filter { sensor, event_type, since, until, limit: _, cursor } = filter;
    let mut conditions = Conditions::of([sensor, event_type, since, until])?;
    if let Some(cursor) = cursor {
        let position: i64 = cursor.parse().map_err(|_| {
            Code::InvalidParameter.problem(format!("cursor {cursor:?} is not one that an answer gave as `next_cursor`"))
        })?;
        conditions.add("position < ?", Value::from(position));
    }
    let sql = format!("SELECT {columns} FROM events{conditions} ORDER BY position DESC LIMIT {}", limit + 1);
    Ok(Query { sql, params: conditions.params, limit: Some(limit + 1), timeout_seconds: None })
}

/// What events are asked for, in SQL.
#[derive(Clone)]
pub(super) struct Conditions {
    terms: Vec<String>,
    pub(super) params: Vec<Value>,
}

impl Conditions {
    /// Those of the parameters `sensor`, `type`, `since` and `until`.
    pub(super) fn of([sensor, event_type, since, until]: [&Option<String>; 4]) -> Result<Self, Problem> {
        let mut conditions = Self { terms: Vec::new(), params: Vec::new() };
        for (column, value) in [("sensor = ?", sensor), ("type = ?", event_type)] {
            if let Some(value) = value {
                conditions.add(column, Value::from(value.as_str()));
            }
        }
        for (name, value, operator) in [("since", since, ">="), ("until", until, "<")] {
            if let Some(value) = value {
                let micros =
                    event::parse_time(value).map_err(|e| Code::InvalidParameter.problem(format!("{name}: {e}")))?;
                conditions.add(&format!("time {operator} {MICROS}"), Value::from(micros));
            }
        }
        Ok(conditions)
    }

    /// One more, with `?` in the place of the value.
    pub(super) fn add(&mut self, condition: &str, value: Value) {
        self.params.push(value);
        self.terms.push(condition.replace('?', &format!("${}", self.params.len())));
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() { Ok(()) } else { write!(f, " WHERE {}", self.terms.join(" AND ")) }
    }
}

/// One event as it is answered: its columns in order.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Event(#[serde(serialize_with = "as_object")] Vec<(String, Cell)>);

/// A page of events, newest position first, and where the next one begins: what [`Page`] writes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) struct Events {
    events: Vec<Event>,
    /// The `cursor` of the next page; null after the last one.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

impl Event {
    /// Its position, as cursors hold it.
    pub(super) fn position(&self) -> Option<String> {
        self.0.iter().find_map(|(name, cell)| match cell {
            Cell::Value(position) if name == "position" => Some(position.to_string()),
            _ => None,
        })
    }
}

/// A column of an event. `data` and `attributes` are the JSON they hold, byte for byte: numbers keep their digits.
#[derive(Serialize)]
#[serde(untagged)]
enum Cell {
    Json(Box<RawValue>),
    Value(Value),
}

impl ToSchema for Event {}

impl PartialSchema for Event {
    fn schema() -> RefOr<Schema> {
        let text = |about: &str| of(Type::String).description(Some(about));
        let text_or_null = |about: &str| or_null(Type::String).description(Some(about));
        let any = |about: &str| ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(about));
        let time = || Some(SchemaFormat::KnownFormat(KnownFormat::DateTime));
        let columns = [
            ("position", of(Type::Integer).minimum(Some(1)).description(Some("Its place in the order of acceptance."))),
            ("id", text("Its id: as it was given, else a UUIDv7.")),
            ("sensor", text("Who sent it.")),
            ("source", text("The `source` of a CloudEvent, else empty.")),
            ("type", text("Its type, `event` when none was given.")),
            ("subject", text_or_null("Its subject.")),
            ("time", text("Its time, by default that of receipt.").format(time())),
            ("received_at", text("When it was received.").format(time())),
            ("content_type", text_or_null("The content type of its data, when it was given.")),
            ("attributes", or_null(Type::Object).description(Some("The extensions of a CloudEvent."))),
            ("data", any("Its data, the JSON as it was sent; null when it is no JSON, or none.")),
            ("data_base64", text_or_null("Its data in Base64, when it is no JSON.").content_encoding("base64")),
        ];
        let object = of(Type::Object).description(Some("An event that was accepted."));
        let object = columns.into_iter().fold(object, |o, (name, column)| o.property(name, column).required(name));
        Schema::from(object.build()).into()
    }
}

/// An event as the description shows it.
pub(crate) fn example() -> Value {
    json!({
        "position": 42, "id": "0199cafe-7d2a-7c33-9a51-6f1c8f8d2b10", "sensor": "roof", "source": "", "type": "reading", "subject": null,
        "time": "2026-01-31T12:00:00Z", "received_at": "2026-01-31T12:00:00.123456Z", "content_type": null, "attributes": null,
        "data": { "type": "reading", "time": "2026-01-31T12:00:00Z", "temperature": 21.5 }, "data_base64": null,
    })
}

fn as_object<S: Serializer>(cells: &[(String, Cell)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(cells.iter().map(|(name, cell)| (name, cell)))
}

/// Asks, and gives each event to `take` until it wants no more; whether there are more than `query.rows_max` lets out.
pub(super) async fn each(
    app: &App,
    query: Query,
    mut take: impl FnMut(Event) -> Result<ControlFlow<()>, Problem>,
) -> Result<bool, Problem> {
    let mut answer = ask(app, query).await?;
    // Bytes are answered as the JSON format of CloudEvents has them.
    let name = |column: &str| if column == "data_binary" { "data_base64".to_owned() } else { column.to_owned() };
    let names: Vec<String> = answer.columns.iter().map(|c| name(&c.name)).collect();
    while let Some(batch) = nowwhat::db(answer.next()).await {
        let batch = batch.map_err(problem_of)?;
        for row in 0..batch.num_rows() {
            for row in query::json_rows(&batch.slice(row, 1), BytesAs::Base64).map_err(problem_of)? {
                if take(Event(names.iter().cloned().zip(row).map(cell).collect()))?.is_break() {
                    return Ok(false);
                }
            }
        }
    }
    Ok(answer.truncated())
}

fn cell((name, value): (String, Value)) -> (String, Cell) {
    let cell = match (name.as_str(), value) {
        ("data" | "attributes", Value::String(text)) => {
            serde_json::from_str(&text).map_or(Cell::Value(Value::String(text)), Cell::Json)
        }
        (_, value) => Cell::Value(value),
    };
    (name, cell)
}
