//! CloudEvents 1.0: an event with its attributes beside its data, in the JSON format or as the headers of a request.
//!
//! It promises that an event becomes a row only when the specification allows it, and that nothing of it is lost then: each attribute
//! has its column or stays in `attributes`, its value as it was sent. JSON data is kept as text byte for byte; other data as bytes.
//! What is wrong is named by its place: `/time`, or the header `ce-time`.

use crate::code::Code;
use crate::columns::{CloudRow, Row};
use crate::framing::{Headers, is_json, is_media_type, is_utf8};
use crate::header;
use crate::json::unescaped;
use crate::key::Key;
use crate::read::{Reader, Refusal, refusal};
use crate::time::{self, shortened};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::collections::HashSet;

/// More attributes than any event has; they are held side by side while an event is read.
const ATTRIBUTES_MAX: usize = 1000;
/// Attributes that have a column, or say how to read the others.
const WITH_COLUMN: [&str; 7] = ["specversion", "id", "source", "type", "subject", "time", "datacontenttype"];
/// Members of the JSON format that are no attributes.
const DATA: [&str; 2] = ["data", "data_base64"];

/// An attribute, or another member of the object.
struct Attribute<'a> {
    name: Cow<'a, str>,
    /// Its value as JSON text.
    value: Cow<'a, str>,
}

/// How an event came, which says what its attributes are called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Headers,
}

/// The attributes of an event as they were given.
struct Given<'a> {
    form: Form,
    attributes: Vec<Attribute<'a>>,
}

/// The data of an event, as it came.
enum Payload<'a> {
    None,
    /// A JSON value.
    Json(&'a str),
    /// A JSON string of Base64.
    Base64(&'a str),
    /// The body of a request.
    Body(&'a [u8]),
}

/// The data of an event, as it is kept.
enum Data<'a> {
    None,
    Json(&'a str),
    Bytes(Cow<'a, [u8]>),
}

impl Reader<'_> {
    /// Reads an event in the JSON format, which stands for itself.
    pub(crate) fn cloud_event(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let text = self.checked_text(bytes)?;
        let mut given = Given { form: Form::Json, attributes: Vec::new() };
        self.scan(text, |key, span| {
            if given.attributes.len() <= ATTRIBUTES_MAX {
                // The text was checked; a key is a part of it.
                let name = unescaped(std::str::from_utf8(key).unwrap_or("\"\""));
                given.attributes.push(Attribute { name, value: text[span].into() });
            }
        })?;
        let payload = match (given.member("data"), given.set("data_base64")) {
            (Some(_), Some(_)) => {
                let reason = "the event has `data` and `data_base64`: send one of them";
                return Err(refusal(Code::BothData, Some("/data_base64"), reason));
            }
            (Some(json), None) => Payload::Json(json),
            (None, Some(base64)) => Payload::Base64(base64),
            (None, None) => Payload::None,
        };
        self.keep_cloud(&given, &payload)
    }

    /// Reads an event whose attributes are headers and whose data is the body.
    pub(crate) fn cloud_headers(&mut self, headers: &Headers<'_>, body: &[u8]) -> Result<(), Refusal> {
        self.check_size(body)?;
        let mut given = Given { form: Form::Headers, attributes: Vec::with_capacity(headers.attributes.len() + 1) };
        for (name, value) in &headers.attributes {
            let value = header::decoded(value)
                .map_err(|error| refusal(Code::InvalidUtf8, Some(&Form::Headers.place(name)), error.to_string()))?;
            given.attributes.push(Attribute { name: (*name).into(), value: quoted(&value).into() });
        }
        if let Some(content_type) = headers.content_type {
            given.attributes.push(Attribute { name: "datacontenttype".into(), value: quoted(content_type).into() });
        }
        let payload = if body.is_empty() { Payload::None } else { Payload::Body(body) };
        self.keep_cloud(&given, &payload)
    }

    fn keep_cloud(&mut self, given: &Given<'_>, payload: &Payload<'_>) -> Result<(), Refusal> {
        let version = given.required("specversion", Code::InvalidSpecversion)?;
        if version != "1.0" {
            let reason = format!("the version of CloudEvents is {:?}: only \"1.0\" is read", shortened(&version));
            return Err(given.refused(Code::InvalidSpecversion, "specversion", reason));
        }
        given.check_names()?;
        let id = given.required("id", Code::InvalidId)?;
        let source = given.required("source", Code::InvalidSource)?;
        if iri_string::validate::iri_reference::<iri_string::spec::IriSpec>(&source).is_err() {
            let reason = "the source is no URI reference: percent-encode blanks and signs such as < > \" { } | \\ ^ `";
            return Err(given.refused(Code::InvalidSource, "source", reason));
        }
        let event_type = given.required("type", Code::InvalidType)?;
        let subject = given.text("subject", Code::InvalidSubject)?;
        let time = given.text("time", Code::InvalidTime)?.map(|text| time::read_rfc3339(&text)).transpose();
        let time = time.map_err(|error| given.refused(Code::InvalidTime, "time", error.to_string()))?;
        let content_type = given.text("datacontenttype", Code::InvalidContentType)?;
        if content_type.as_deref().is_some_and(|text| !is_media_type(text)) {
            let reason = "the content type of the data is no media type such as text/plain";
            return Err(given.refused(Code::InvalidContentType, "datacontenttype", reason));
        }
        let schema = given.text("dataschema", Code::InvalidDataschema)?;
        if schema.is_some_and(|uri| iri_string::validate::iri::<iri_string::spec::IriSpec>(&uri).is_err()) {
            let reason = "the schema is no absolute URI such as https://example.com/schema";
            return Err(given.refused(Code::InvalidDataschema, "dataschema", reason));
        }
        let mut members = given.extensions()?;
        let data = self.data(payload, content_type.as_deref())?;
        let (text, bytes) = match &data {
            Data::None => (None, None),
            Data::Json(text) => (Some(*text), None),
            Data::Bytes(bytes) => (None, Some(bytes.as_ref())),
        };
        let attributes = (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")));
        // The same attributes in another order are the same event.
        members.sort_unstable();
        let kind: &[u8] = if bytes.is_some() { b"bytes" } else { b"" };
        let [subject_text, content_type_text] =
            [&subject, &content_type].map(|t| t.as_deref().unwrap_or("").as_bytes());
        let json = text.unwrap_or("").as_bytes();
        let mut content =
            vec![event_type.as_bytes(), subject_text, json, kind, bytes.unwrap_or(b""), content_type_text];
        content.extend(members.iter().map(String::as_bytes));
        self.keys.push(Some(Key::of([self.options.sensor, &source, &id], &content, time)));
        let time = time.unwrap_or(self.options.received_at);
        let row = Row { id: Some(&id), event_type: &event_type, subject: subject.as_deref(), time, data: text };
        let (content_type, attributes) = (content_type.as_deref(), attributes.as_deref());
        self.columns.push_cloud(&row, &CloudRow { source: &source, content_type, attributes, data_binary: bytes });
        Ok(())
    }

    /// How data is kept: JSON as its text; a text of another type, Base64 and all else as bytes.
    fn data<'a>(&self, payload: &Payload<'a>, content_type: Option<&str>) -> Result<Data<'a>, Refusal> {
        Ok(match *payload {
            Payload::None => Data::None,
            Payload::Json(json) if json.starts_with('"') && content_type.is_some_and(|t| !is_json(t)) => {
                Data::Bytes(match unescaped(json) {
                    Cow::Borrowed(text) => text.as_bytes().into(),
                    Cow::Owned(text) => text.into_bytes().into(),
                })
            }
            Payload::Json(json) => Data::Json(json),
            Payload::Base64(json) => {
                let refused = |why: &str| {
                    refusal(
                        Code::InvalidBase64,
                        Some("/data_base64"),
                        format!("`data_base64` {why}: send Base64 by RFC 4648, padded"),
                    )
                };
                if !json.starts_with('"') {
                    return Err(refused("is not a string"));
                }
                Data::Bytes(
                    STANDARD.decode(&*unescaped(json)).map_err(|e| refused(&format!("does not decode ({e})")))?.into(),
                )
            }
            Payload::Body(body) => match content_type {
                Some(json) if is_json(json) && is_utf8(json) => Data::Json(self.json_text(body)?),
                None => self.json_text(body).map_or(Data::Bytes(body.into()), Data::Json),
                Some(_) => Data::Bytes(body.into()),
            },
        })
    }
}

impl Form {
    /// What a sender calls an attribute.
    fn place(self, name: &str) -> String {
        match self {
            Self::Json => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
            Self::Headers if name == "datacontenttype" => "content-type".to_owned(),
            Self::Headers => format!("ce-{name}"),
        }
    }
}

impl Given<'_> {
    fn refused(&self, code: Code, name: &str, reason: impl Into<String>) -> Refusal {
        refusal(code, Some(&self.form.place(name)), reason)
    }

    fn member(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|a| a.name == name).map(|a| &*a.value)
    }

    /// A value that is there and not null, which stands for one that is not there.
    fn set(&self, name: &str) -> Option<&str> {
        self.member(name).filter(|value| *value != "null")
    }

    /// A text that is not empty.
    fn text(&self, name: &str, code: Code) -> Result<Option<Cow<'_, str>>, Refusal> {
        let Some(json) = self.set(name) else {
            return Ok(None);
        };
        if !json.starts_with('"') {
            return Err(self.refused(code, name, format!("`{name}` is not a string")));
        }
        let text = unescaped(json);
        if text.is_empty() {
            return Err(self.refused(code, name, format!("`{name}` is empty")));
        }
        if has_disallowed(&text) {
            return Err(self.refused(
                code,
                name,
                format!("`{name}` has a control character or one that Unicode never assigns"),
            ));
        }
        Ok(Some(text))
    }

    fn required(&self, name: &str, code: Code) -> Result<Cow<'_, str>, Refusal> {
        self.text(name, code)?.ok_or_else(|| {
            let reason =
                format!("the attribute `{name}` is missing: a CloudEvent has specversion, id, source and type");
            self.refused(Code::MissingAttribute, name, reason)
        })
    }

    /// Names are lower-case letters and digits, and each is there once.
    fn check_names(&self) -> Result<(), Refusal> {
        if self.attributes.len() > ATTRIBUTES_MAX {
            return Err(refusal(
                Code::InvalidAttribute,
                None,
                format!("the event has more than {ATTRIBUTES_MAX} attributes"),
            ));
        }
        let mut names = HashSet::with_capacity(self.attributes.len());
        for Attribute { name, value } in &self.attributes {
            if !names.insert(name) {
                let reason = format!("`{}` is there twice", shortened(name));
                return Err(self.refused(Code::InvalidAttribute, name, reason));
            }
            let member = self.form == Form::Json && (DATA.contains(&&**name) || value == "null");
            let lower = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            if !member && (!lower || name == "data") {
                let reason =
                    format!("{:?} is no name of an attribute: use lower-case letters and digits", shortened(name));
                return Err(self.refused(Code::InvalidAttribute, name, reason));
            }
        }
        Ok(())
    }

    /// The attributes without a column, each as a member of a JSON object, in the order sent.
    fn extensions(&self) -> Result<Vec<String>, Refusal> {
        let without_column =
            |a: &&Attribute<'_>| !WITH_COLUMN.contains(&&*a.name) && !DATA.contains(&&*a.name) && a.value != "null";
        let member = |Attribute { name, value }: &Attribute<'_>| {
            let fault = match value.as_bytes()[0] {
                b'"' if has_disallowed(&unescaped(value)) => {
                    "has a control character or one that Unicode never assigns"
                }
                b'{' | b'[' => "is an object or an array: send a string, true, false or an integer",
                b'-' | b'0'..=b'9' if value.parse::<i32>().is_err() => "is no integer from -2147483648 to 2147483647",
                _ => return Ok(format!("\"{name}\":{value}")),
            };
            Err(self.refused(Code::InvalidAttribute, name, format!("`{}` {fault}", shortened(name))))
        };
        self.attributes.iter().filter(without_column).map(member).collect()
    }
}

/// Whether a text has characters that CloudEvents do not allow.
fn has_disallowed(text: &str) -> bool {
    let never_assigned = |c: char| matches!(u32::from(c), 0xfdd0..=0xfdef) || u32::from(c) & 0xfffe == 0xfffe;
    text.chars().any(|c| c.is_control() || never_assigned(c))
}

/// A text as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
