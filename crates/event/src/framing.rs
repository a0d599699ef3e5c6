//! How a body is cut into events, by its content type.

/// How a body is cut into events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One JSON text: an object, or an array of objects. Several objects one after another are read as lines too.
    Json,
    /// One object a line (NDJSON, JSON Lines); blank lines do not count.
    Ndjson,
}

/// The content type is none that is understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the content type {0:?} is not understood: send application/json or application/x-ndjson")]
pub struct UnsupportedMediaType(pub String);

/// The framing of a content type; JSON when there is none. Parameters such as `charset=utf-8` are passed over.
///
/// # Errors
/// [`UnsupportedMediaType`], also for a charset that is not UTF-8.
pub fn framing_of(content_type: Option<&str>) -> Result<Framing, UnsupportedMediaType> {
    let Some(text) = content_type else {
        return Ok(Framing::Json);
    };
    let unsupported = || UnsupportedMediaType(text.to_owned());
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let charset =
        parameters.split(';').filter_map(|p| p.split_once('=')).find(|(n, _)| n.trim().eq_ignore_ascii_case("charset"));
    let utf8 =
        |v: &str| ["utf-8", "utf8", "us-ascii"].contains(&v.trim().trim_matches('"').to_ascii_lowercase().as_str());
    if charset.is_some_and(|(_, value)| !utf8(value)) {
        return Err(unsupported());
    }
    match essence.trim().to_ascii_lowercase().as_str() {
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines"
        | "application/jsonlines"
        | "application/json-lines"
        | "text/x-ndjson" => Ok(Framing::Ndjson),
        "" | "application/json" | "text/json" => Ok(Framing::Json),
        other if other.ends_with("+json") && !other.starts_with("application/cloudevents") => Ok(Framing::Json),
        _ => Err(unsupported()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_give_their_framing() {
        assert_eq!(framing_of(None), Ok(Framing::Json));
        assert_eq!(framing_of(Some("Application/JSON; charset=UTF-8")), Ok(Framing::Json));
        assert_eq!(framing_of(Some("application/vnd.api+json")), Ok(Framing::Json));
        assert_eq!(framing_of(Some("application/x-ndjson")), Ok(Framing::Ndjson));
        for refused in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"] {
            assert_eq!(framing_of(Some(refused)), Err(UnsupportedMediaType(refused.to_owned())));
        }
    }
}
