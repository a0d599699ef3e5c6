//! The description of the API (OpenAPI 3.1), made from the code: paths, methods, roles and summaries from the table of `authorisation.rs`,
//! errors from [`Code`], bodies and parameters from the types that are read and answered.
//!
//! `operations.rs` says the rest of every act, and does not compile while one is missing. `docs/openapi.json` is compared in a test.

mod batch;
mod files;
mod operation;
mod operations;
mod overview;
mod parts;

pub(crate) use parts::{
    code, headers_or_null, health_report, labels, of, or_null, query_format, rejection_code, role, role_or_null, rows,
    sensor_id, token, values,
};

use crate::authorisation::Act;
use crate::code::Code;
use operation::Described;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::path::PathItemBuilder;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::{Tag, TagBuilder};
use utoipa::openapi::{ComponentsBuilder, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, PathsBuilder};

/// The names of the security schemes.
const TOKEN: &str = "token";
const CERTIFICATE: &str = "certificate";
const SESSION: &str = "session";

/// The description as JSON, on lines.
pub fn openapi() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| document().to_pretty_json().expect("plain data always serializes") + "\n");
    &TEXT
}

fn document() -> OpenApi {
    let mut schemas = BTreeMap::from([("Problem".to_owned(), parts::problem())]);
    let mut refusals = BTreeMap::new();
    let mut paths: BTreeMap<&str, PathItemBuilder> = BTreeMap::new();
    let mut add = |path, method, described: Described| {
        let done = described.done();
        schemas.extend(done.schemas);
        refusals.extend(done.refusals);
        let item = paths.remove(path).unwrap_or_default();
        paths.insert(path, item.operation(method, done.operation));
    };
    for act in Act::ALL.iter().copied() {
        add(act.path(), method(act), operations::described(act));
    }
    for (path, described) in operations::probes() {
        add(path, HttpMethod::Get, described);
    }
    let paths = paths.into_iter().fold(PathsBuilder::new(), |all, (path, item)| all.path(path, item.build()));
    let license = LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Catchment")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(license))
        .build();
    let mut document = OpenApi::new(info, paths.build());
    document.components = Some(components().schemas_from_iter(schemas).responses_from_iter(refusals).build());
    document.tags = Some(tags());
    document
}

const DESCRIPTION: &str = "Collects events from sensors, devices and apps, keeps every event it has accepted, and answers SQL about them at once. Every answer has the header `X-Request-Id`: the client's own, when it sent one of up to 128 printable ASCII characters \
without blanks, quotes and backslashes, else a UUIDv7. Errors are problem details (RFC 9457) with a stable `code`; where the same request can \
succeed later, they have `Retry-After`. `GET` routes answer `HEAD` too. A parameter or a field that is not known is refused.";

fn method(act: Act) -> HttpMethod {
    match act.method_name() {
        "GET" => HttpMethod::Get,
        "POST" => HttpMethod::Post,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        "OPTIONS" => HttpMethod::Options,
        other => unreachable!("the table has no {other}"),
    }
}

fn components() -> ComponentsBuilder {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token (RFC 6750), such as `cat_…`; its role says what it may do."))
        .build();
    let certificate = SecurityScheme::MutualTls {
        description: Some(
            "The certificate of a sensor, where `http.tls_client_ca` is set: it stands for a token.".to_owned(),
        ),
        deprecated: None,
        extensions: None,
    };
    let cookie = ApiKeyValue::with_description(
        "catchment_session",
        "The cookie of a session, as `POST /api/v1/session` sets it for a browser; where the address has a port, its name ends with that, as in \
         `catchment_session_4711`. It counts only without a token. A request with it that is no `GET` or `HEAD` comes from a page of this origin, as \
         `Sec-Fetch-Site` or `Origin` says, else it is 403 `cross_site`.",
    );
    let components = ComponentsBuilder::new()
        .security_scheme(TOKEN, SecurityScheme::Http(scheme))
        .security_scheme(CERTIFICATE, certificate)
        .security_scheme(SESSION, SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    let components = parts::headers().into_iter().fold(components, |all, (name, header)| all.header(name, header));
    let example = |code: &Code| {
        let value = json!({
            "type": format!("/problems/{}", code.name()), "title": code.title(), "status": code.status().as_u16(),
            "code": code.name(), "detail": code.advice(), "request_id": "0199cafe-7d2a-7c33-9a51-6f1c8f8d2b10",
        });
        ExampleBuilder::new().summary(code.title()).description(code.advice()).value(Some(value)).build()
    };
    Code::ALL.iter().fold(components, |all, code| all.example(code.name(), example(code)))
}

/// What the first part of a path after the version is about.
fn tags() -> Vec<Tag> {
    let tag = |(name, about)| TagBuilder::new().name(name).description(Some(about)).build();
    operation::TAGS.into_iter().map(tag).collect()
}

/// The id of an operation: the name of its act.
fn operation_id(act: Act) -> String {
    let mut id = String::new();
    for c in act.name().chars() {
        if c.is_ascii_uppercase() && !id.is_empty() {
            id.push('_');
        }
        id.push(c.to_ascii_lowercase());
    }
    id
}

#[cfg(test)]
mod tests;
