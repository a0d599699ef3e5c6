//! `GET /api/v1/audit`: who changed what, newest first, a page at a time.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::code::Code;
use crate::handlers::page::{List, limit_of};
use crate::handlers::sensors::unavailable;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use nowwhat::Problem;
use registry::AuditEntry;
use serde::Deserialize;
use serde_json::{Value, json};

const ENTRIES: List = List { name: "entries", key: "id", next: "next_before" };

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    limit: Option<u64>,
    before: Option<i64>,
}

/// A page of the audit.
pub(crate) async fn get_audit(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ReadAudit).await?;
    let asked: Parameters = serde_urlencoded::from_str(query.as_deref().unwrap_or_default())
        .map_err(|e| Code::InvalidParameter.problem(format!("{e}; known are limit and before")))?;
    let limit = limit_of(asked.limit)?;
    let entries = nowwhat::db(app.shared.registry.audit(limit + 1, asked.before)).await.map_err(unavailable)?;
    Ok(nowwhat::extract::Json(ENTRIES.page(entries.iter().map(shown).collect(), limit)).into_response())
}

fn shown(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.id,
        "at": event::format_time(entry.at),
        "token_id": entry.token_id,
        "token_name": entry.token_name,
        "role": entry.role.map(registry::Role::name),
        "client": entry.client,
        "act": entry.act,
        "target": entry.target,
        "detail": entry.detail,
        "request_id": entry.request_id,
    })
}
