//! How a body is cut into events, by its content type and the headers that came with it.
//!
//! The rules for CloudEvents are those of their HTTP binding: a content type of theirs names an event format, and JSON is the one that
//! is taken; without one, a header with an attribute that every event has, such as `ce-specversion`, says that the headers are an event and
//! the body is its data, whatever its type.

use crate::time::shortened;

/// How a body is cut into events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing<'a> {
    /// One JSON text: an object, or an array of objects. Several objects one after another are read as lines too.
    Json,
    /// One object a line (NDJSON, JSON Lines); blank lines do not count.
    Ndjson,
    /// One CloudEvent in their JSON format ("structured").
    CloudEvent,
    /// An array of CloudEvents in their JSON format ("batched").
    CloudEvents,
    /// The data of the CloudEvent that the headers are ("binary").
    Binary(Headers<'a>),
}

/// A CloudEvent that came as headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    /// The header `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The headers `ce-…`: their names in lower case without `ce-`, their values as they came.
    pub attributes: Vec<(&'a str, &'a [u8])>,
}

/// Attributes that every CloudEvent has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

impl Framing<'_> {
    /// How events come: in one of the modes of the HTTP binding of CloudEvents, or plain.
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Json | Self::Ndjson => "plain",
            Self::CloudEvent => "structured",
            Self::CloudEvents => "batched",
            Self::Binary(_) => "binary",
        }
    }
}

impl Headers<'_> {
    /// The most bytes that the attributes take once they are read: a backslash is written as two.
    pub(crate) fn bytes_max(&self) -> usize {
        let of_attributes: usize = self.attributes.iter().map(|(name, value)| name.len() + value.len() * 2 + 6).sum();
        of_attributes + self.content_type.map_or(0, str::len)
    }
}

/// The content type is none that is understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the content type {0:?} is not understood: send application/json, application/x-ndjson, application/cloudevents+json or \
     application/cloudevents-batch+json, all in UTF-8; other types only as the data of a CloudEvent with the header ce-specversion"
)]
pub struct UnsupportedMediaType(pub String);

/// The framing of a content type and the headers beside it, their names in lower case; JSON when there are none. Parameters such as
/// `charset=utf-8` are passed over.
///
/// # Errors
/// [`UnsupportedMediaType`], also for a charset that is not UTF-8.
pub fn framing_of<'a>(
    content_type: Option<&'a str>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<Framing<'a>, UnsupportedMediaType> {
    let text = content_type.unwrap_or_default();
    let essence = essence(text);
    if !essence.starts_with("application/cloudevents") {
        let attributes: Vec<_> = headers.filter_map(|(name, value)| Some((name.strip_prefix("ce-")?, value))).collect();
        // One without a version is rejected by what it lacks; read as plain JSON its attributes would be lost without a word.
        if attributes.iter().any(|(name, _)| REQUIRED.contains(name)) {
            let content_type = content_type.filter(|text| !text.trim().is_empty());
            return Ok(Framing::Binary(Headers { content_type, attributes }));
        }
    }
    let framing = match essence.as_str() {
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines"
        | "application/jsonlines"
        | "application/json-lines"
        | "text/x-ndjson" => Framing::Ndjson,
        "" | "application/json" | "text/json" => Framing::Json,
        "application/cloudevents+json" => Framing::CloudEvent,
        "application/cloudevents-batch+json" => Framing::CloudEvents,
        other if other.ends_with("+json") && !other.starts_with("application/cloudevents") => Framing::Json,
        _ => return Err(UnsupportedMediaType(shortened(text))),
    };
    if is_utf8(text) { Ok(framing) } else { Err(UnsupportedMediaType(shortened(text))) }
}

/// Whether a media type declares JSON as CloudEvents see it: `*/json` or `*/*+json`.
pub(crate) fn is_json(media_type: &str) -> bool {
    let essence = essence(media_type);
    essence.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

/// Whether a media type names no charset that is not UTF-8.
pub(crate) fn is_utf8(media_type: &str) -> bool {
    let parameters = media_type.split(';').skip(1).filter_map(|p| p.split_once('='));
    let charset = parameters.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let known =
        |v: &str| ["utf-8", "utf8", "us-ascii"].contains(&v.trim().trim_matches('"').to_ascii_lowercase().as_str());
    charset.is_none_or(|(_, value)| known(value))
}

/// Whether a text begins as a media type does: `type/subtype`.
pub(crate) fn is_media_type(text: &str) -> bool {
    let token =
        |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    let essence = essence(text);
    essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

/// A media type without its parameters, in lower case.
fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing<'a>(
        content_type: &'a str,
        headers: &'a [(&'a str, &'a str)],
    ) -> Result<Framing<'a>, UnsupportedMediaType> {
        framing_of(Some(content_type), headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    #[test]
    fn every_framing_is_of_a_mode_and_headers_have_a_bound() {
        let attributes: Vec<(&str, &[u8])> = vec![("id", b"1"), ("subject", b"roof")];
        let headers = Headers { content_type: Some("text/plain"), attributes };
        assert_eq!(headers.bytes_max(), (2 + 2 + 6) + (7 + 8 + 6) + 10);
        let all = [Framing::Json, Framing::Ndjson, Framing::CloudEvent, Framing::CloudEvents, Framing::Binary(headers)];
        assert_eq!(all.map(|framing| framing.mode()), ["plain", "plain", "structured", "batched", "binary"]);
    }

    #[test]
    fn content_types_give_their_framing() {
        assert_eq!(framing_of(None, std::iter::empty()), Ok(Framing::Json));
        for (content_type, expected) in [
            ("Application/JSON; charset=UTF-8", Framing::Json),
            ("application/vnd.api+json", Framing::Json),
            ("application/x-ndjson", Framing::Ndjson),
            ("application/CloudEvents+JSON; charset=\"utf-8\"", Framing::CloudEvent),
            ("application/cloudevents-batch+json;charset=utf-8", Framing::CloudEvents),
        ] {
            assert_eq!(framing(content_type, &[]), Ok(expected), "{content_type}");
        }
        for refused in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=latin1",
            "application/cloudevents+json; charset=utf-16",
            "application/cloudevents-batch+json; charset=utf-16",
            "application/cloudevents",
            "application/cloudevents+xml",
            "application/cloudevents+avro",
            "application/cloudevents-batch+xml",
        ] {
            assert_eq!(framing(refused, &[]), Err(UnsupportedMediaType(refused.to_owned())));
        }
    }

    #[test]
    fn headers_make_an_event_unless_the_content_type_is_one_of_cloudevents() {
        let headers = [("host", "x"), ("ce-id", "1"), ("ce-specversion", "1.0")];
        let attributes: Vec<(&str, &[u8])> = vec![("id", b"1"), ("specversion", b"1.0")];
        for content_type in ["text/plain", "application/json; charset=latin1", "multipart/form-data; boundary=x"] {
            let expected = Headers { content_type: Some(content_type), attributes: attributes.clone() };
            assert_eq!(framing(content_type, &headers), Ok(Framing::Binary(expected)));
        }
        assert_eq!(framing(" ", &headers), Ok(Framing::Binary(Headers { content_type: None, attributes })));
        assert_eq!(framing("application/cloudevents+json", &headers), Ok(Framing::CloudEvent));
        assert!(framing("APPLICATION/CLOUDEVENTS+XML", &headers).is_err(), "the format is not known");
        let id = Headers { content_type: Some("application/json"), attributes: vec![("id", b"1")] };
        assert_eq!(
            framing("application/json", &headers[..2]),
            Ok(Framing::Binary(id)),
            "an event that lacks its version"
        );
        assert_eq!(framing("application/json", &[("ce-roof", "1")]), Ok(Framing::Json), "nothing that makes an event");
    }

    #[test]
    fn media_types_are_told_from_other_texts() {
        for json in ["application/json", "Text/JSON;charset=utf-8", "application/geo+json", "x/json"] {
            assert!(is_json(json) && is_media_type(json), "{json}");
        }
        for other in ["application/xml", "application/jsonl", "json", "application/json-seq"] {
            assert!(!is_json(other), "{other}");
        }
        for none in ["", "xyz", "/", "a/", "/b", "a b/c", "a/b c", "text/pl\u{e4}in", "a/b/c"] {
            assert!(!is_media_type(none), "{none}");
        }
    }
}
