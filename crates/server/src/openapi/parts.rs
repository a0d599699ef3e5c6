//! Schemas, headers and parameters that several operations share, and those that no type of the code says.

use crate::code::Code;
use crate::handlers::query::FORMATS;
use registry::Role;
use serde_json::{Value, json};
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, Object, ObjectBuilder, Schema, SchemaType};
use utoipa::openapi::{Ref, RefOr, Required, Type};

/// A value of one type.
pub(crate) fn of(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

/// A value of one type, or null.
pub(crate) fn or_null(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([kind, Type::Null]))
}

fn names(names: impl IntoIterator<Item = &'static str>) -> Option<impl Iterator<Item = Value>> {
    Some(names.into_iter().map(Value::from).collect::<Vec<_>>().into_iter())
}

/// A role by name.
pub(crate) fn role() -> Object {
    of(Type::String).enum_values(names(Role::ALL.map(Role::name))).description(Some("What a token is for.")).build()
}

/// A role by name, or null.
pub(crate) fn role_or_null() -> Object {
    let all = Role::ALL.map(|role| Value::from(role.name())).into_iter().chain([Value::Null]);
    or_null(Type::String).enum_values(Some(all)).build()
}

/// Why an event was rejected.
pub(crate) fn rejection_code() -> Object {
    let all = event::Code::ALL.iter();
    let lines: Vec<String> =
        all.clone().map(|code| format!("- `{}`: {}. {}", code.name(), code.meaning(), code.advice())).collect();
    let text = format!("Why it was rejected.\n\n{}", lines.join("\n"));
    of(Type::String).enum_values(names(all.map(|code| code.name()))).description(Some(text)).build()
}

/// The id of a sensor.
pub(crate) fn sensor_id() -> Object {
    let id = of(Type::String)
        .description(Some("Readable, unique, and never changed."))
        .pattern(Some("^[a-z0-9._-]{1,128}$"));
    id.examples(["roof-1"]).build()
}

/// A token, where it is shown.
pub(crate) fn token() -> Object {
    let token = of(Type::String)
        .description(Some("The token: whoever has it may use it."))
        .pattern(Some("^cat_[A-Za-z0-9_-]{43}$"));
    token.examples(["cat_wm0vRlTS8i7Xv1rYb7cQ1uH0aZ3y5k2n4p6q8s9t0w1"]).build()
}

/// A code for a link, where it is shown.
pub(crate) fn code() -> Object {
    let code = of(Type::String)
        .description(Some("What stands behind `#/sign-in?code=` in a link: good once."))
        .pattern(Some("^cat_[A-Za-z0-9_-]{43}$"));
    code.examples(["cat_Yk3nD0pQ7sW2xZ9vB4mH6tL1cR8fJ5gA_eU0iO3qK7w"]).build()
}

/// What an operator knows a sensor by.
pub(crate) fn labels() -> Object {
    let key = of(Type::String).min_length(Some(1)).max_length(Some(64)).build();
    let value = of(Type::String).max_length(Some(256)).build();
    of(Type::Object)
        .description(Some("What an operator knows it by: names of at most 64 bytes, values of at most 256."))
        .property_names(Some(key))
        .additional_properties(Some(AdditionalProperties::from(RefOr::from(Schema::from(value)))))
        .max_properties(Some(32))
        .examples([json!({ "site": "a" })])
        .build()
}

/// Values of a statement.
pub(crate) fn values() -> utoipa::openapi::schema::Array {
    let kinds = SchemaType::from_iter([Type::String, Type::Number, Type::Boolean, Type::Null]);
    let values = ArrayBuilder::new().items(ObjectBuilder::new().schema_type(kinds));
    values.description(Some("Values of `$1`, `$2` and so on.")).build()
}

/// The name of a format in an address.
pub(crate) fn query_format() -> Object {
    of(Type::String).enum_values(names(FORMATS.map(|(name, _)| name))).build()
}

/// Rows of values.
pub(crate) fn rows() -> utoipa::openapi::schema::Array {
    ArrayBuilder::new().items(ArrayBuilder::new().items(ObjectBuilder::new().schema_type(SchemaType::AnyValue))).build()
}

/// What the checks say.
pub(crate) fn health_report() -> Object {
    let list = |about: &str| ArrayBuilder::new().items(of(Type::Object)).description(Some(about)).build();
    of(Type::Object)
        .property("ready", of(Type::Boolean))
        .required("ready")
        .property("reasons", list("Why it is not ready, and what is only to be known: `check`, `reason`, `ready`."))
        .required("reasons")
        .property("checks", list("Each check: `check`, `status` (`pass`, `warn`, `fail`), `seconds`."))
        .required("checks")
        .build()
}

/// Headers by name, or null.
pub(crate) fn headers_or_null() -> Object {
    let value = Schema::from(of(Type::String).build());
    or_null(Type::Object)
        .description(Some("The headers `ce-…` of a CloudEvent in binary mode."))
        .additional_properties(Some(AdditionalProperties::from(RefOr::from(value))))
        .build()
}

/// An error.
pub(super) fn problem() -> RefOr<Schema> {
    let codes = names(Code::ALL.iter().map(|code| code.name()));
    let text = |about: &str| of(Type::String).description(Some(about)).build();
    let rejected = ArrayBuilder::new().items(Ref::from_schema_name("Rejection"));
    let problem = of(Type::Object)
        .description(Some("An error as RFC 9457 has it. Some have further members."))
        .property(
            "type",
            of(Type::String).description(Some("`/problems/` and the code.")).format(Some(format("uri-reference"))),
        )
        .required("type")
        .property("title", text("What it means, in a few words."))
        .required("title")
        .property("status", of(Type::Integer).minimum(Some(400)).maximum(Some(599)))
        .required("status")
        .property("code", of(Type::String).description(Some("A name that never changes.")).enum_values(codes))
        .required("code")
        .property("detail", text("What happened in this one case."))
        .property("request_id", text("The id of the request, as in `X-Request-Id` and in the log."))
        .required("request_id")
        .property(
            "rejected",
            rejected.description(Some("With `all_rejected` and `atomic_rejected`: the first 1,000 rejections.")),
        )
        .property(
            "rejected_total",
            of(Type::Integer).minimum(Some(0)).description(Some("With these: how many were rejected.")),
        )
        .property("place", place())
        .property("causes", text("In development: what the log knows."));
    Schema::from(problem.build()).into()
}

/// A place in a statement.
fn place() -> Object {
    let number = || of(Type::Integer).minimum(Some(1));
    of(Type::Object)
        .description(Some("With `invalid_sql`, when it is known: where in the text of the statement."))
        .property("line", number())
        .required("line")
        .property("column", number().description(Some("In characters.")))
        .required("column")
        .build()
}

fn format(name: &str) -> utoipa::openapi::SchemaFormat {
    utoipa::openapi::SchemaFormat::Custom(name.to_owned())
}

/// Headers of answers.
pub(super) fn headers() -> Vec<(&'static str, Header)> {
    let header =
        |schema: ObjectBuilder, about: &str| HeaderBuilder::new().schema(Some(schema)).description(Some(about)).build();
    let number = || of(Type::Integer).minimum(Some(0));
    let text = || of(Type::String);
    vec![
        ("X-Request-Id", header(text().min_length(Some(1)).max_length(Some(128)), "The id of the request.")),
        (
            "Retry-After",
            header(number(), "Seconds after which the same request can succeed; with codes that are worth a retry."),
        ),
        ("WWW-Authenticate", header(text().pattern(Some("^Bearer ")), "What is wrong with the token (RFC 6750).")),
        ("Location", header(text().format(Some(format("uri-reference"))), "Where it is.")),
        ("Cache-Control", header(text(), "`no-store` where a token is shown, or who is signed in.")),
        ("Set-Cookie", header(text(), "The cookie of the session: `HttpOnly`, `SameSite=Strict`, over TLS `Secure`.")),
        ("Allow", header(text(), "The methods that are answered there.")),
        ("ETag", header(text(), "Names this version of the description.")),
        ("Catchment-Rejected", header(number().minimum(Some(1)), "How many events were rejected, when some were.")),
        ("Catchment-Duplicate-Window", header(number(), "How many seconds the ids of events are remembered now.")),
        (
            "Catchment-Idempotency-Window",
            header(number(), "With `Idempotency-Key`: how many seconds answers are known now."),
        ),
        (
            "Idempotency-Replayed",
            header(text().enum_values(names(["true"])), "With `Idempotency-Key`: the answer was given before."),
        ),
        (
            "RateLimit-Policy",
            header(text(), "The sensor's quota, when it has one (draft-ietf-httpapi-ratelimit-headers-10)."),
        ),
        ("RateLimit", header(text(), "How much of it is left.")),
        ("WebHook-Allowed-Origin", header(text(), "The origin that asked.")),
        (
            "WebHook-Allowed-Rate",
            header(text().pattern(Some(r"^(\*|[1-9][0-9]*)$")), "Requests a minute, `*` for any number."),
        ),
    ]
}

/// A part of the path.
pub(super) fn path(name: &str, about: &str, schema: ObjectBuilder) -> Parameter {
    parameter(ParameterIn::Path, name, about).required(Required::True).schema(Some(schema)).build()
}

/// A header of the request that may be left out.
pub(super) fn header(name: &str, about: &str, schema: ObjectBuilder) -> Parameter {
    parameter(ParameterIn::Header, name, about).required(Required::False).schema(Some(schema)).build()
}

/// A header of the request that must be there.
pub(super) fn required_header(name: &str, about: &str, schema: ObjectBuilder) -> Parameter {
    parameter(ParameterIn::Header, name, about).required(Required::True).schema(Some(schema)).build()
}

fn parameter(place: ParameterIn, name: &str, about: &str) -> ParameterBuilder {
    ParameterBuilder::new().name(name).parameter_in(place).description(Some(about))
}

/// How the body is compressed.
pub(super) fn content_encoding() -> Parameter {
    let coding = "(gzip|deflate|zstd|identity)";
    let list = of(Type::String).pattern(Some(format!("^({coding}( ?, ?{coding}){{0,2}})?$"))).examples(["identity"]);
    header(
        "Content-Encoding",
        "How the body is compressed: `gzip`, `deflate` or `zstd`, at most three of them in the order they were applied.",
        list,
    )
}

/// An answer to a question, as `query` writes it.
pub(super) fn query_answer() -> Object {
    let text = || of(Type::String);
    let column = of(Type::Object).property("name", text()).required("name").property("type", text()).required("type");
    let row = ArrayBuilder::new().items(ObjectBuilder::new().schema_type(SchemaType::AnyValue));
    let kinds = "The columns in order. Types are `bigint`, `double`, `decimal`, `boolean`, `text`, `bytes` (in hexadecimal), `timestamptz`, \
                 `timestamp`, `date`, `time`, `interval`, `array`, `object`, `json` and `null`.";
    of(Type::Object)
        .description(Some("The rows that a question found."))
        .property("columns", ArrayBuilder::new().items(column).description(Some(kinds)))
        .required("columns")
        .property("rows", ArrayBuilder::new().items(row).description(Some("Each row has a value for each column.")))
        .required("rows")
        .property("truncated", of(Type::Boolean).description(Some("Whether more rows than the limit were there.")))
        .required("truncated")
        .build()
}
