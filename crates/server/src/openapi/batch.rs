//! The bodies of `POST /api/v1/events`: how each content type holds events.

use super::operation::{Described, text};
use super::parts::of;
use serde_json::json;
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaType,
};
use utoipa::openapi::{RefOr, SchemaFormat, Type};

/// What a body may be.
pub(super) const ABOUT: &str = "By `Content-Type`; without one it is JSON. With the header `ce-specversion` the body, of whatever type, is the data of \
one CloudEvent in binary mode. Plain or with `Content-Encoding`. `application/*+json`, `text/json` and the other names of NDJSON \
(`application/ndjson`, `application/jsonl`, …) are read as well.";

/// The body in each content type.
pub(super) fn contents(described: &mut Described) -> Vec<(&'static str, Content)> {
    let event = described.named_schema("PlainEvent", plain_event());
    let cloud_event = described.named_schema("CloudEvent", cloud_event());
    let one_or_many = AnyOfBuilder::new().item(event.clone()).item(ArrayBuilder::new().items(event)).build();
    let cloud_events = ArrayBuilder::new().items(cloud_event.clone()).build();
    let reading = json!({ "type": "reading", "time": "2026-01-31T12:00:00Z", "temperature": 21.5 });
    let in_cloud = json!({
        "specversion": "1.0", "id": "1", "source": "/roof", "type": "reading", "time": "2026-01-31T12:00:00Z", "site": "a",
        "data": { "temperature": 21.5 },
    });
    let photo = json!({
        "specversion": "1.0", "id": "2", "source": "/roof", "type": "photo", "datacontenttype": "image/png", "data_base64": "iVBORw==",
    });
    let envelope = json!({ "id": "a-1", "type": "reading", "time": 1_769_860_800, "subject": "roof/north", "data": { "temperature": 21.5 } });
    let many = json!([{ "temperature": 20.9 }, { "temperature": 19.4 }]);
    let examples = [
        ("plain", example("Plain JSON: the object becomes `data`, byte for byte", reading)),
        ("envelope", example("An envelope: `data` alone is kept as data", envelope)),
        ("array", example("A batch: each event is kept or rejected alone", many)),
    ];
    vec![
        (
            "application/json",
            ContentBuilder::new().schema(Some(Schema::AnyOf(one_or_many))).examples_from_iter(examples).build(),
        ),
        ("application/x-ndjson", text("{\"temperature\": 20.9}\n{\"temperature\": 19.4}\n")),
        (
            "application/cloudevents+json",
            ContentBuilder::new().schema(Some(cloud_event)).example(Some(in_cloud.clone())).build(),
        ),
        (
            "application/cloudevents-batch+json",
            ContentBuilder::new().schema(Some(cloud_events)).example(Some(json!([in_cloud, photo]))).build(),
        ),
        ("text/plain", text("a storm is coming")),
    ]
}

fn example(summary: &str, value: serde_json::Value) -> Example {
    ExampleBuilder::new().summary(summary).value(Some(value)).build()
}

/// The headers of one CloudEvent in binary mode; extensions are headers of their own.
///
/// Without `ce-specversion` they are passed over, whatever they are: so their schemas say nothing.
pub(super) fn cloudevent_headers() -> [(&'static str, &'static str); 7] {
    [
        (
            "ce-specversion",
            "`1.0`: the request is one CloudEvent in binary mode. Without it, or with a content type of CloudEvents, headers `ce-…` are passed over.",
        ),
        (
            "ce-id",
            "In binary mode: its id. Values are percent-encoded. Every `ce-…` that is not among these is an extension.",
        ),
        ("ce-source", "In binary mode: its source, a URI reference such as `/roof`."),
        ("ce-type", "In binary mode: its type."),
        ("ce-subject", "In binary mode: its subject."),
        ("ce-time", "In binary mode: its time, RFC 3339."),
        ("ce-dataschema", "In binary mode: the schema of its data, a URI."),
    ]
}

/// An event in plain JSON or in an envelope.
fn plain_event() -> Object {
    of(Type::Object)
        .description(Some(
            "Plain JSON: the object becomes `data`, byte for byte; a string `type` and a `time` are read as well. An envelope, an object whose keys are all \
             among `id`, `type`, `time`, `subject` and `data`, with a string `type` and a `data`: these are the event, `data` alone is kept as data.",
        ))
        .property("time", time())
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)))
        .build()
}

fn time() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Number, Type::Null]))
        .description(Some(
            "RFC 3339, or an epoch number: below 1e11 seconds, 1e14 milli-, 1e17 micro-, else nanoseconds.",
        ))
        .examples([json!("2026-01-31T12:00:00Z"), json!(1_769_860_800)])
}

/// An event in the JSON format of CloudEvents 1.0.
fn cloud_event() -> Object {
    let text = || of(Type::String).min_length(Some(1));
    let attribute = ObjectBuilder::new().schema_type(SchemaType::from_iter([
        Type::String,
        Type::Boolean,
        Type::Integer,
        Type::Null,
    ]));
    let attribute = attribute.description(Some("An extension."));
    let anything = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    of(Type::Object)
        .description(Some("An event in the JSON format of CloudEvents 1.0; whatever else it has are extensions, kept in `attributes`."))
        .property("specversion", of(Type::String).enum_values(Some(["1.0"])))
        .required("specversion")
        .property("id", text())
        .required("id")
        .property("source", text().format(Some(SchemaFormat::Custom("uri-reference".to_owned()))))
        .required("source")
        .property("type", text())
        .required("type")
        .property("subject", text())
        .property("time", of(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))))
        .property("datacontenttype", text().examples(["application/json"]))
        .property("dataschema", text().format(Some(SchemaFormat::Custom("uri".to_owned()))))
        .property("data", anything.description(Some("Its data; not beside `data_base64`.")))
        .property("data_base64", of(Type::String).content_encoding("base64").description(Some("Its data in Base64.")))
        .additional_properties(Some(AdditionalProperties::from(RefOr::from(Schema::from(attribute.build())))))
        .build()
}
