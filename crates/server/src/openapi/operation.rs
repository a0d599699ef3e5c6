//! One operation of the description: what all have in common is said here once.

use super::{CERTIFICATE, SESSION, TOKEN, operation_id, parts};
use crate::authorisation::Act;
use crate::code::Code;
use registry::Role;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::example::Example;
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Schema, SchemaType};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Ref, RefOr, Required};
use utoipa::{IntoParams, ToSchema};

/// The groups of operations, in the order of the page.
pub(super) const TAGS: [(&str, &str); 11] = [
    ("events", "Sending events and reading them"),
    ("import", "Events of an export, stored again"),
    ("query", "SQL over everything that was answered before"),
    ("rejected", "What was rejected, with its bytes"),
    ("sensors", "Whoever sends events"),
    ("tokens", "Tokens of people and programs"),
    ("sessions", "Signing in and out, for people with a browser"),
    ("backups", "Copies of all that is there"),
    ("audit", "Who changed what"),
    ("overview", "How the collector is, and how it was"),
    ("service", "This description, and probes for load balancers"),
];

/// Errors of every route.
const ALWAYS: [Code; 3] = [Code::InvalidHost, Code::Internal, Code::TimedOut];
/// Errors of every route that needs a token.
const WITH_TOKEN: [Code; 10] = [
    Code::SeveralTokens,
    Code::MissingToken,
    Code::InvalidToken,
    Code::InvalidSession,
    Code::InsufficientScope,
    Code::CertificateRefused,
    Code::CertificateMismatch,
    Code::TooManyFailures,
    Code::RegistryBusy,
    Code::RegistryDamaged,
];
/// Errors that are answered before it is known whose token it is, or by those who gave up waiting for who knows it.
const WITHOUT_SENSOR: [Code; 13] = [
    Code::InvalidHost,
    Code::InvalidPath,
    Code::MethodNotAllowed,
    Code::RequestTimeout,
    Code::TimedOut,
    Code::SeveralTokens,
    Code::MissingToken,
    Code::InvalidToken,
    Code::InvalidSession,
    Code::CrossSite,
    Code::CertificateRefused,
    Code::CertificateMismatch,
    Code::TooManyFailures,
];
/// What a sensor with a quota is told of it.
const QUOTA: [&str; 2] = ["RateLimit-Policy", "RateLimit"];
/// How a body in JSON may come.
const JSON_BODY: &str = "Plain or with `Content-Encoding: gzip`, `deflate` or `zstd`.";
/// Errors of every route that reads a body.
const WITH_BODY: [Code; 6] = [
    Code::InvalidBody,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::BodyTimeout,
    Code::RequestTimeout,
    Code::InFlightFull,
];

/// An operation that is being described, and the schemas that it names.
pub(super) struct Described {
    operation: OperationBuilder,
    /// The errors that are answered to sensors, of those that are answered when it is known who asks.
    to_sensors: ToSensors,
    answers: BTreeMap<u16, ResponseBuilder>,
    codes: Vec<Code>,
    schemas: Vec<(String, RefOr<Schema>)>,
}

/// What the sensor that asks is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ToSensors {
    /// All that is answered.
    All,
    /// That its role may not do this.
    Scope,
    /// Nobody looks who asks.
    Nothing,
}

/// An operation, and the parts of the document that it names.
pub(super) struct Done {
    pub(super) operation: Operation,
    pub(super) schemas: Vec<(String, RefOr<Schema>)>,
    /// Answers of errors, which operations share.
    pub(super) refusals: Vec<(String, Response)>,
}

impl Described {
    /// What the table says of an act, and `text` in addition.
    pub(super) fn of(act: Act, text: &str) -> Self {
        let (needs, codes) = match act.roles() {
            None => ("Needs no token.".to_owned(), ALWAYS.to_vec()),
            Some(_) => {
                let of_sessions = [Code::CrossSite].into_iter().filter(|_| act.changes() && !act.needs_token_itself());
                let codes = ALWAYS.into_iter().chain(WITH_TOKEN).chain(of_sessions);
                (format!("Needs a token of the role {}.", act.roles_in_words()), codes.collect())
            }
        };
        let operation = OperationBuilder::new()
            .tag(tag(act.path()))
            .operation_id(Some(operation_id(act)))
            .summary(Some(act.summary().trim_end_matches('.')))
            .description(Some(format!("{text} {needs}").trim()));
        // One of the roles is enough: each is a requirement of its own.
        let roles = act.roles().unwrap_or_default();
        let by_token = roles.iter().map(|role| SecurityRequirement::new(TOKEN, [role.name()]));
        let of_sensors =
            roles.contains(&Role::Sensor).then(|| SecurityRequirement::new(CERTIFICATE, [Role::Sensor.name()]));
        let people = roles.iter().filter(|role| act.takes_session_of(**role));
        let by_session = people.map(|role| SecurityRequirement::new(SESSION, [role.name()]));
        let operation = operation.securities(Some(by_token.chain(of_sensors).chain(by_session)));
        let to_sensors = match act.roles() {
            Some(roles) if roles.contains(&Role::Sensor) || roles.contains(&Role::SendOnly) => ToSensors::All,
            Some(_) => ToSensors::Scope,
            None => ToSensors::Nothing,
        };
        Self { operation, to_sensors, answers: BTreeMap::new(), codes, schemas: Vec::new() }
    }

    /// A probe of nowwhat's, which is in no table.
    pub(super) fn probe(id: &str, summary: &str) -> Self {
        let operation = OperationBuilder::new().tag("service").operation_id(Some(id)).summary(Some(summary));
        let operation = operation.securities(Some([]));
        let (to_sensors, codes) = (ToSensors::Nothing, vec![Code::InvalidHost]);
        Self { operation, to_sensors, answers: BTreeMap::new(), codes, schemas: Vec::new() }
    }

    /// The parameters of the address that a handler reads.
    pub(super) fn query<P: IntoParams>(mut self) -> Self {
        let parameters = P::into_params(|| Some(ParameterIn::Query));
        self.operation = parameters.into_iter().fold(self.operation, OperationBuilder::parameter);
        self.error(Code::InvalidParameter)
    }

    /// A parameter that is no part of the address's query.
    pub(super) fn parameter(mut self, parameter: Parameter) -> Self {
        if matches!(parameter.parameter_in, ParameterIn::Path) {
            self.codes.push(Code::InvalidPath);
        }
        self.operation = self.operation.parameter(parameter);
        self
    }

    /// A body in JSON; with an example.
    pub(super) fn json_body<T: ToSchema>(mut self, example: Value) -> Self {
        let content = self.content::<T>(example);
        self.body(JSON_BODY, [("application/json", content)])
    }

    /// The same; without one the defaults hold.
    pub(super) fn json_body_or_none<T: ToSchema>(mut self, example: Value) -> Self {
        let content = self.content::<T>(example);
        self.wanted(JSON_BODY, [("application/json", content)], Required::False)
    }

    fn content<T: ToSchema>(&mut self, example: Value) -> Content {
        ContentBuilder::new().schema(Some(self.schema::<T>())).example(Some(example)).build()
    }

    /// A body in one of several types.
    pub(super) fn body<'a>(self, text: &str, contents: impl IntoIterator<Item = (&'a str, Content)>) -> Self {
        self.wanted(text, contents, Required::True)
    }

    fn wanted<'a>(
        mut self,
        text: &str,
        contents: impl IntoIterator<Item = (&'a str, Content)>,
        required: Required,
    ) -> Self {
        let body = RequestBodyBuilder::new().description(Some(text)).required(Some(required));
        let body = contents.into_iter().fold(body, |body, (kind, content)| body.content(kind, content));
        self.operation = self.operation.request_body(Some(body.build()));
        self = self.parameter(parts::content_encoding());
        self.errors(&WITH_BODY)
    }

    /// An answer in JSON, with an example.
    pub(super) fn json_answer<T: ToSchema>(mut self, status: u16, text: &str, example: Value) -> Self {
        let content = self.content::<T>(example);
        self.answer(status, text, [("application/json", content)])
    }

    /// An answer in one of several types, or without a body.
    pub(super) fn answer<'a>(
        mut self,
        status: u16,
        text: &str,
        contents: impl IntoIterator<Item = (&'a str, Content)>,
    ) -> Self {
        let answer = ResponseBuilder::new().description(text).header_ref("X-Request-Id", header_ref("X-Request-Id"));
        let answer = contents.into_iter().fold(answer, |answer, (kind, content)| answer.content(kind, content));
        self.answers.insert(status, answer);
        match self.to_sensors {
            ToSensors::All => self.headers(status, &QUOTA),
            ToSensors::Scope | ToSensors::Nothing => self,
        }
    }

    /// Headers of the answer with this status, which was described before.
    pub(super) fn headers(mut self, status: u16, names: &[&str]) -> Self {
        let answer = self.answers.remove(&status).expect("it was described before");
        let answer = names.iter().fold(answer, |answer, name| answer.header_ref(*name, header_ref(name)));
        self.answers.insert(status, answer);
        self
    }

    /// An error that it may answer.
    pub(super) fn error(self, code: Code) -> Self {
        self.errors(&[code])
    }

    /// Errors that it may answer.
    pub(super) fn errors(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }

    /// The reference to a schema, which becomes part of the document.
    pub(super) fn schema<T: ToSchema>(&mut self) -> RefOr<Schema> {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        Ref::from_schema_name(T::name()).into()
    }

    /// A schema that is made by hand.
    pub(super) fn named_schema(&mut self, name: &str, schema: impl Into<RefOr<Schema>>) -> RefOr<Schema> {
        self.schemas.push((name.to_owned(), schema.into()));
        Ref::from_schema_name(name).into()
    }

    /// The operation, and what it names.
    pub(super) fn done(mut self) -> Done {
        let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in Code::ALL.iter().filter(|code| self.codes.contains(code)) {
            by_status.entry(code.status().as_u16()).or_default().push(*code);
        }
        let mut refusals = Vec::new();
        for (status, codes) in by_status {
            let mut names: Vec<&str> = codes.iter().map(|code| code.name()).collect();
            let told = match self.to_sensors {
                ToSensors::All if codes.iter().any(|code| !WITHOUT_SENSOR.contains(code)) => &QUOTA[..],
                ToSensors::Scope if codes.contains(&Code::InsufficientScope) => &QUOTA[..],
                _ => &[],
            };
            // The same errors without these headers are another answer.
            names.extend(told.first().map(|_| "RateLimit"));
            let name = names.join(".");
            self.operation = self.operation.response(status.to_string(), Ref::from_response_name(&name));
            refusals.push((name, refusal(&codes, told)));
        }
        for (status, answer) in self.answers {
            self.operation = self.operation.response(status.to_string(), answer.build());
        }
        Done { operation: self.operation.build(), schemas: self.schemas, refusals }
    }
}

/// The answer with one status, for one of these reasons, with the headers `told`.
fn refusal(codes: &[Code], told: &[&str]) -> Response {
    let lines: Vec<String> =
        codes.iter().map(|code| format!("- `{}`: {}. {}", code.name(), code.title(), code.advice())).collect();
    let names = codes.iter().map(|code| Value::from(code.name()));
    let these = ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .property("code", ObjectBuilder::new().schema_type(SchemaType::AnyValue).enum_values(Some(names)));
    let schema = AllOfBuilder::new().item(Ref::from_schema_name("Problem")).item(these).build();
    let examples = codes.iter().map(|code| (code.name(), example_ref(code)));
    let content = ContentBuilder::new().schema(Some(Schema::AllOf(schema))).examples_from_iter(examples).build();
    let mut answer = ResponseBuilder::new().description(lines.join("\n")).content("application/problem+json", content);
    let has = |all: &[Code]| codes.iter().any(|code| all.contains(code));
    let headers = [
        ("X-Request-Id", true),
        ("Retry-After", codes.iter().any(|code| code.is_retryable())),
        (
            "WWW-Authenticate",
            has(&[Code::SeveralTokens, Code::MissingToken, Code::InvalidToken, Code::InvalidSession])
                || has(&[Code::InvalidCode, Code::InsufficientScope]),
        ),
        ("Catchment-Rejected", has(&[Code::AllRejected])),
        ("Allow", has(&[Code::MethodNotAllowed])),
    ];
    let headers = headers.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name);
    for name in headers.chain(told.iter().copied()) {
        answer = answer.header_ref(name, header_ref(name));
    }
    answer.build()
}

fn example_ref(code: &Code) -> RefOr<Example> {
    RefOr::Ref(Ref::new(format!("#/components/examples/{}", code.name())))
}

fn header_ref(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

/// The group of a path.
fn tag(path: &str) -> &'static str {
    let resource = path.strip_prefix("/api/v1/").and_then(|rest| rest.split('/').next());
    let is_of = |tag: &str| resource.is_some_and(|resource| tag == resource || tag.strip_suffix('s') == Some(resource));
    TAGS.iter().map(|(tag, _)| *tag).find(|tag| is_of(tag)).unwrap_or("service")
}

/// A content without a schema of its own.
pub(super) fn text(example: &str) -> Content {
    let schema = ObjectBuilder::new().schema_type(utoipa::openapi::Type::String).build();
    ContentBuilder::new().schema(Some(schema)).example(Some(json!(example))).build()
}
