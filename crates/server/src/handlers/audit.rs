//! `GET /api/v1/audit`: who changed what, newest first, a page at a time.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::handlers::page::{cut, limit_of};
use crate::handlers::sensors::unavailable;
use crate::openapi::role_or_null;
use crate::pages;
use crate::parameters::parameters;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::HeaderMap;
use nowwhat::Problem;
use registry::{AuditEntry, Role};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// The parameters of the address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Most entries of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// Only entries before this one: the `next_before` of the page before.
    before: Option<i64>,
    /// Only entries of the request with this id.
    request_id: Option<String>,
}

/// A page of the audit, newest first, and where the next one begins.
#[derive(Serialize, ToSchema)]
#[schema(as = Audit)]
pub(crate) struct Page {
    entries: Vec<Entry>,
    /// The `before` of the next page; null after the last one.
    #[schema(required = true)]
    next_before: Option<i64>,
}

/// Who changed what. It has no token in it.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(crate) struct Entry {
    /// Its number; it only grows.
    id: i64,
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// The number of the token that did it; null when it was the configuration.
    #[schema(required = true)]
    token_id: Option<i64>,
    /// What that token was called.
    #[schema(required = true)]
    token_name: Option<String>,
    /// Its role.
    #[schema(schema_with = role_or_null, required = true)]
    role: Option<&'static str>,
    /// The address of the client.
    #[schema(required = true)]
    client: Option<String>,
    /// What was done.
    #[schema(examples("sensor.register", "token.revoke"))]
    act: String,
    /// To what.
    #[schema(examples("sensor/roof", "token/7"))]
    target: String,
    /// What it was set to.
    detail: Value,
    /// The id of the request.
    #[schema(required = true)]
    request_id: Option<String>,
}

/// A page of the audit.
pub(crate) async fn get_audit(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ReadAudit).await?;
    let asked: Parameters = parameters(query.as_deref(), "limit, before and request_id")?;
    let limit = limit_of(asked.limit)?;
    let found = app.shared.registry.audit(limit + 1, asked.before, asked.request_id.as_deref());
    let mut found = nowwhat::db(found).await.map_err(unavailable)?;
    let next_before = cut(&mut found, limit, |entry| entry.id);
    let entries = found.into_iter().map(Entry::from).collect();
    pages::whole(&app, &Page { entries, next_before })
}

impl From<AuditEntry> for Entry {
    fn from(entry: AuditEntry) -> Self {
        Self {
            id: entry.id,
            at: event::format_time(entry.at),
            token_id: entry.token_id,
            token_name: entry.token_name,
            role: entry.role.map(Role::name),
            client: entry.client,
            act: entry.act,
            target: entry.target,
            detail: entry.detail,
            request_id: entry.request_id,
        }
    }
}
