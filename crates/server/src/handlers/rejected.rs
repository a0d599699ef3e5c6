//! The table `rejected`: keeping what a batch brought in vain, and `GET /api/v1/rejected`.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::code::Code;
use crate::handlers::page::limit_of;
use crate::handlers::sensors::known;
use crate::pages::Page;
use crate::parameters::parameters;
use ::rejected::{Column, Extent, Filter, NewRow, Order, Origin, RejectedError, Row};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use event::Batch;
use http::request::Parts;
use http::{HeaderMap, header};
use nowwhat::Problem;
use nowwhat::request::REQUEST_ID;
use registry::Role;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::ops::ControlFlow;
use utoipa::{IntoParams, ToSchema};

/// What is kept of a parameter, a content type or a header.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// How a batch was sent.
pub(crate) struct Sent<'a> {
    pub(crate) sensor: &'a str,
    pub(crate) mode: &'static str,
    pub(crate) received_at: i64,
}

/// The rejected events of a batch.
pub(crate) struct Rejections {
    origin: Origin,
    rows: Vec<NewRow>,
    /// Those of which only the number is known.
    left_out: u64,
    /// Bytes of the body that they are parts of.
    pub(crate) body_bytes: u64,
}

impl Rejections {
    /// Those of a batch that was read from `body`; none when it has none.
    pub(crate) fn of(parts: &Parts, sent: Sent<'_>, batch: &Batch, body: &Bytes) -> Option<Self> {
        if batch.rejected_total == 0 {
            return None;
        }
        let origin = origin(parts, sent);
        let row = |r: &event::Rejection| NewRow {
            index: r.index,
            code: r.code.name(),
            pointer: r.pointer.clone(),
            reason: r.reason.clone(),
            data: body.slice(r.text.clone()),
        };
        let rows: Vec<NewRow> = batch.rejected.iter().map(row).collect();
        let left_out = batch.rejected_total - rows.len() as u64;
        Some(Self { origin, rows, left_out, body_bytes: body.len() as u64 })
    }

    /// Keeps them: they can be read again before their batch is answered.
    ///
    /// # Errors
    /// 503 when they cannot be kept; then none of them is, so that the batch can come again whole.
    pub(crate) async fn keep(self, app: &App) -> Result<(), Problem> {
        nowwhat::db(app.shared.rejected.keep(self.origin, self.rows)).await.map_err(|error| {
            let detail = "some events of the batch are rejected and cannot be kept to be read again: nothing of the batch was stored";
            Code::RejectedUnavailable.problem(detail).cause(error)
        })?;
        app.shared.rejected.left_out(self.left_out);
        Ok(())
    }
}

/// What is kept of a request: all that makes its events what they are.
fn origin(parts: &Parts, sent: Sent<'_>) -> Origin {
    let Sent { sensor, mode, received_at } = sent;
    let is_binary = mode == "binary";
    let mut is_cut = false;
    let mut kept = |text: &[u8], matters: Matters| {
        let shown = String::from_utf8_lossy(text);
        let short = &shown[..shown.floor_char_boundary(TEXT_BYTES_MAX)];
        is_cut |= matters == Matters::Yes && short.as_bytes() != text;
        short.to_owned()
    };
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let matters = if is_binary { Matters::Yes } else { Matters::No };
    let content_type = content_type.map(|value| kept(value.as_bytes(), matters));
    let query = parts.uri.query().filter(|query| !query.is_empty());
    let parameters = query.map(|query| kept(query.as_bytes(), Matters::Yes));
    let mut attributes: Map<String, Value> = Map::new();
    for (name, value) in parts.headers.iter().filter(|(name, _)| is_binary && name.as_str().starts_with("ce-")) {
        let value = Value::from(kept(value.as_bytes(), Matters::Yes));
        match attributes.get_mut(name.as_str()) {
            None => drop(attributes.insert(name.as_str().to_owned(), value)),
            Some(Value::Array(values)) => values.push(value),
            // What is there twice is shown twice: it may be why the event is rejected.
            Some(first) => *first = Value::from(vec![first.take(), value]),
        }
    }
    let request_id = parts.headers.get(&REQUEST_ID).map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    Origin {
        sensor: sensor.to_owned(),
        request_id: request_id.unwrap_or_default(),
        received_at,
        mode,
        parameters,
        content_type,
        headers: is_binary.then(|| Value::from(attributes).to_string()),
        is_cut,
    }
}

/// Whether an event is another one without the end of a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Matters {
    Yes,
    No,
}

/// The parameters of the address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Only those of this sensor; a sensor sees its own alone.
    sensor: Option<String>,
    /// Only those rejected for this reason.
    #[param(schema_with = crate::openapi::rejection_code)]
    code: Option<String>,
    /// Only those received not before this time.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only those received before this time.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Most of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// Where to go on: the `next_cursor` of the page before.
    #[param(pattern = "^[0-9]{1,18}$")]
    cursor: Option<String>,
    /// Which come first.
    #[serde(default)]
    #[param(inline)]
    order: Wanted,
}

/// Which come first.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    #[default]
    Newest,
    Oldest,
}

/// A page of rejected events, and where the next one begins: what [`Page`] writes.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes")]
pub(crate) struct RejectedEvents {
    rejected: Vec<Shown>,
    /// The `cursor` of the next page; null after the last one.
    #[schema(required = true)]
    next_cursor: Option<String>,
    /// How many are kept, of all sensors.
    #[schema(minimum = 0)]
    kept_total: i64,
    /// The last `rejected_position`, of any sensor; this many came, and all but `kept_total` were pushed out or have expired.
    #[schema(minimum = 0)]
    last_position: i64,
}

/// A rejected event, with its bytes as they came.
#[derive(Serialize, ToSchema)]
#[schema(as = RejectedEvent)]
pub(crate) struct Shown {
    /// Its place in the order of rejection.
    rejected_position: i64,
    /// When its request came.
    #[schema(format = DateTime)]
    received_at: String,
    /// Who sent it.
    sensor: String,
    /// The id of its request.
    request_id: String,
    /// Its index in the batch, from 0.
    index: i64,
    #[schema(schema_with = crate::openapi::rejection_code)]
    code: String,
    /// The field at fault, as a JSON pointer, or the name of a header at fault.
    #[schema(required = true)]
    pointer: Option<String>,
    /// Why, and what to do.
    reason: String,
    /// How its request was sent.
    mode: String,
    /// The parameters of its request.
    #[schema(required = true)]
    parameters: Option<String>,
    /// The content type of its request.
    #[schema(required = true)]
    content_type: Option<String>,
    /// The headers `ce-…` of a CloudEvent in binary mode.
    #[schema(schema_with = crate::openapi::headers_or_null, required = true)]
    headers: Option<Value>,
    /// Its bytes as text; null when they are no UTF-8.
    #[schema(required = true)]
    data: Option<String>,
    /// Its bytes in Base64, when they are no UTF-8.
    #[schema(required = true, content_encoding = "base64")]
    data_base64: Option<String>,
    /// How many bytes came.
    bytes: i64,
    /// Whether fewer are kept.
    cut: bool,
}

impl From<Row> for Shown {
    fn from(row: Row) -> Self {
        let (data, data_base64) = match String::from_utf8(row.data) {
            Ok(text) => (Some(text), None),
            Err(bytes) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
        };
        Self {
            rejected_position: row.position,
            received_at: event::format_time(row.received_at),
            sensor: row.sensor,
            request_id: row.request_id,
            index: row.index,
            code: row.code,
            pointer: row.pointer,
            reason: row.reason,
            mode: row.mode,
            parameters: row.parameters,
            content_type: row.content_type,
            headers: row.headers.and_then(|headers| serde_json::from_str(&headers).ok()),
            data,
            data_base64,
            bytes: row.bytes,
            cut: row.is_cut,
        }
    }
}

/// A page of what was rejected: its own for a sensor, else of all.
pub(crate) async fn get_rejected(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let identity = auth::permit(&app, &headers, Act::ReadRejected).await?;
    let names = "sensor, code, since, until, limit, cursor and order (newest or oldest)";
    let parameters: Parameters = parameters(query.as_deref(), names)?;
    let limit = limit_of(parameters.limit)?;
    let mut filter = filter(parameters)?;
    match (&identity.sensor, &filter.sensor) {
        (Some(me), Some(other)) if **me != **other => {
            return Err(auth::scope("a sensor's token reads what was rejected of its own events only"));
        }
        (Some(me), _) => filter.sensor = Some(me.to_string()),
        (None, _) if identity.role == Role::Sensor => return Err(auth::scope("this token belongs to no sensor")),
        (None, Some(id)) => drop(known(&app, id).await?),
        (None, None) => {}
    }
    let mut page = Page::begin(&app, "rejected", u64::from(limit))?;
    let mut added = Ok(ControlFlow::Continue(()));
    let read = app.shared.rejected.each(&filter, &Column::ALL, limit as usize + 1, |row| {
        let cursor = row.position.to_string();
        added = page.add(&Shown::from(row), Some(cursor));
        if let Ok(ControlFlow::Continue(())) = added { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    nowwhat::db(read).await.map_err(unavailable)?;
    added.map(|_| ())?;
    // Asked after the rows were read: those that were gone by then are counted.
    let Extent { rows, last_position } = nowwhat::db(app.shared.rejected.extent()).await.map_err(unavailable)?;
    page.end_with([("kept_total", rows), ("last_position", last_position)])
}

fn filter(parameters: Parameters) -> Result<Filter, Problem> {
    let time = |name: &str, value: Option<String>| {
        let read = value.map(|value| event::parse_time(&value)).transpose();
        read.map_err(|e| Code::InvalidParameter.problem(format!("{name}: {e}")))
    };
    let position = |cursor: String| {
        cursor.parse().map_err(|_| {
            Code::InvalidParameter.problem(format!("cursor {cursor:?} is not one that an answer gave as `next_cursor`"))
        })
    };
    let known = |code: &str| event::Code::ALL.iter().any(|known| known.name() == code);
    if let Some(code) = parameters.code.as_deref().filter(|code| !known(code)) {
        return Err(Code::InvalidParameter.problem(format!("code {code:?} is none for which events are rejected")));
    }
    Ok(Filter {
        sensor: parameters.sensor,
        code: parameters.code,
        since: time("since", parameters.since)?,
        until: time("until", parameters.until)?,
        beyond: parameters.cursor.map(position).transpose()?,
        last: None,
        order: match parameters.order {
            Wanted::Newest => Order::Newest,
            Wanted::Oldest => Order::Oldest,
        },
    })
}

fn unavailable(error: RejectedError) -> Problem {
    Code::RejectedUnavailable.problem("the rejected events cannot be read now").cause(error)
}
