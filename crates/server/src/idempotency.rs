//! The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): the same key with the same request gets the same answer
//! again.
//!
//! The engine keeps keys and answers; here is what a key may look like, and what makes a request the same: its parameters, its content
//! type, its headers of a CloudEvent, and its body once it is decompressed. Keys are those of one sensor.

use crate::app::App;
use crate::code::Code;
use engine::{Claimed, RequestKey};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use nowwhat::Problem;
use sfv::{BareItem, Item, Parser};

static KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that the answer was given before.
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long answers are remembered now, in seconds.
static WINDOW: HeaderName = HeaderName::from_static("catchment-idempotency-window");

const KEY_CHARS_MAX: usize = 255;

/// Whether an answer is the first one to its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    Now,
    Before,
}

/// Claims the key of a request, when it has one.
///
/// # Errors
/// 400 when it cannot be a key; 409 while a request with this key runs.
pub(crate) fn claimed(app: &App, sensor: &str, headers: &HeaderMap) -> Result<Option<Claimed>, Problem> {
    let Some(key) = key(headers).map_err(|e| Code::InvalidIdempotencyKey.problem(e))? else {
        return Ok(None);
    };
    let claimed = app.shared.engine.claim(RequestKey::new(sensor, &key)).map_err(|_| {
        Code::IdempotencyKeyInUse
            .problem("the first request with this key has no answer yet: its own is given once it has")
    })?;
    Ok(Some(claimed))
}

/// What makes a request this one.
pub(crate) fn content(parts: &Parts, body: &[u8]) -> u128 {
    // Parameters were read before: here nothing is wrong with them.
    let query = parts.uri.query().unwrap_or_default();
    let mut parameters: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
    parameters.sort();
    let mut headers: Vec<(&str, &[u8])> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .filter(|(name, _)| *name == header::CONTENT_TYPE || name.starts_with("ce-"))
        .collect();
    headers.sort_unstable();
    let parameters: Vec<&[u8]> = parameters.iter().flat_map(|(k, v)| [k.as_bytes(), v.as_bytes()]).collect();
    let headers: Vec<&[u8]> = headers.iter().flat_map(|(k, v)| [k.as_bytes(), v]).collect();
    let [parameters, headers] = [parameters, headers].map(|parts| event::content_hash(&parts).to_le_bytes());
    event::content_hash(&[&parameters, &headers, body])
}

/// 422: the key is known, the request is another.
pub(crate) fn reused() -> Problem {
    Code::IdempotencyKeyReused
        .problem("a request with this key was answered, and its body, parameters or content type were others: nothing of this one was stored")
}

/// The headers of an answer to a request with a key.
pub(crate) fn mark(app: &App, given: Given, headers: &mut HeaderMap) {
    headers.insert(WINDOW.clone(), HeaderValue::from(app.shared.engine.answers_seconds()));
    if given == Given::Before {
        headers.insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    }
}

/// The key: a string as structured fields have them (RFC 9651), or the bare text that many clients send.
fn key(headers: &HeaderMap) -> Result<Option<String>, String> {
    let mut given = headers.get_all(&KEY).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err("the header `idempotency-key` is there twice".to_owned());
    }
    let bytes = value.as_bytes().trim_ascii();
    let key = if bytes.first() == Some(&b'"') {
        let item = Parser::new(bytes)
            .parse::<Item>()
            .map_err(|e| format!("a key that begins with a quote is a string by RFC 9651: {e}"))?;
        match item.bare_item {
            BareItem::String(text) => text.as_str().to_owned(),
            _ => return Err("the key is no string".to_owned()),
        }
    } else {
        String::from_utf8_lossy(bytes).into_owned()
    };
    let visible = key.bytes().all(|b| b.is_ascii_graphic());
    match key.len() {
        1..=KEY_CHARS_MAX if visible => Ok(Some(key)),
        1..=KEY_CHARS_MAX => Err("a key has visible ASCII characters only, no blanks".to_owned()),
        0 => Err("the key is empty".to_owned()),
        chars => Err(format!("the key has {chars} characters, at most {KEY_CHARS_MAX} are allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn key_of(values: &[&[u8]]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(KEY.clone(), HeaderValue::from_bytes(value).expect("a value"));
        }
        key(&headers)
    }

    #[test]
    fn a_key_is_a_quoted_string_or_bare_text_and_both_are_the_same_key() {
        assert_eq!(key_of(&[]), Ok(None));
        for value in [&b"8e03978e-40d5"[..], b"\"8e03978e-40d5\"", b" \"8e03978e-40d5\" ", b"\"8e03978e-40d5\";a=1"] {
            assert_eq!(key_of(&[value]), Ok(Some("8e03978e-40d5".to_owned())), "{value:?}");
        }
        assert_eq!(key_of(&[b"\"a\\\"b\\\\\""]), Ok(Some("a\"b\\".to_owned())), "escapes are taken away");
        assert_eq!(key_of(&[&[b'k'; 255]]), Ok(Some("k".repeat(255))));
    }

    #[test]
    fn what_is_no_key_is_refused_by_what_is_wrong_with_it() {
        for (values, why) in [
            (vec![&b""[..]], "empty"),
            (vec![b"\"\""], "empty"),
            (vec![b"\"open"], "RFC 9651"),
            (vec![b"\"a\" b"], "RFC 9651"),
            (vec![b"a b"], "visible"),
            (vec![b"\"a b\""], "visible"),
            (vec!["\u{e9}".as_bytes()], "visible"),
            (vec![&[b'k'; 256]], "256"),
            (vec![b"a", b"a"], "twice"),
        ] {
            let refused = key_of(&values).expect_err("no key");
            assert!(refused.contains(why), "{values:?}: {refused}");
        }
    }

    #[test]
    fn a_request_is_the_same_by_parameters_content_type_cloudevent_headers_and_body() {
        let of = |uri: &str, headers: &[(&str, &str)], body: &[u8]| {
            let request = headers.iter().fold(Request::builder().uri(uri), |r, (name, value)| r.header(*name, *value));
            content(&request.body(()).expect("a request").into_parts().0, body)
        };
        let json = ("content-type", "application/json");
        let first = of("/e?a=1&b=2", &[json, ("ce-id", "1"), ("ce-source", "/a")], b"{}");
        let reordered = of("/e?b=2&a=1", &[("ce-source", "/a"), ("user-agent", "x"), ("ce-id", "1"), json], b"{}");
        assert_eq!(first, reordered);
        for other in [
            of("/e?a=1&b=3", &[json, ("ce-id", "1"), ("ce-source", "/a")], b"{}"),
            of("/e?a=1&b=2", &[("content-type", "text/plain"), ("ce-id", "1"), ("ce-source", "/a")], b"{}"),
            of("/e?a=1&b=2", &[json, ("ce-id", "2"), ("ce-source", "/a")], b"{}"),
            of("/e?a=1&b=2", &[json, ("ce-id", "1"), ("ce-source", "/a")], b"{} "),
        ] {
            assert_ne!(first, other);
        }
    }
}
