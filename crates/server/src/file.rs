//! Files that the program brings along, for a browser: with what it may do with them, and only sent when it has not got them.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use std::io::Read;
use std::sync::LazyLock;

pub(crate) const JSON: &str = "application/json";
pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const CSS: &str = "text/css; charset=utf-8";
pub(crate) const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
pub(crate) const SVG: &str = "image/svg+xml";

/// Only from here: scripts, styles, requests. The styles of Swagger UI hold pictures.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Kept, and asked for again at each use: another version of the program has other files.
pub(crate) const ASK_AGAIN: &str = "no-cache";
/// Kept for a year: the address has the version in it.
pub(crate) const KEEP: &str = "public, max-age=31536000, immutable";

/// A file that never changes while the program runs. All answers share its bytes: readers that do not read cost nothing.
pub(crate) struct File {
    content_type: &'static str,
    plain: LazyLock<Bytes, Box<dyn FnOnce() -> Bytes + Send>>,
    /// Compressed with gzip.
    packed: Option<Bytes>,
    etag: HeaderValue,
}

impl File {
    pub(crate) fn text(content_type: &'static str, text: impl Into<String>) -> Self {
        let bytes = Bytes::from(text.into());
        Self { content_type, etag: etag(&bytes), plain: LazyLock::new(Box::new(|| bytes)), packed: None }
    }

    pub(crate) fn packed(content_type: &'static str, gzip: &'static [u8]) -> Self {
        let plain = LazyLock::new(Box::new(|| unpacked(gzip)) as Box<dyn FnOnce() -> Bytes + Send>);
        Self { content_type, plain, packed: Some(Bytes::from_static(gzip)), etag: etag(gzip) }
    }

    /// The file, or 304 when the client has it already. `kept` says how long it may be kept without asking.
    pub(crate) fn answer(&self, asked: &HeaderMap, kept: &'static str) -> Response {
        let known = asked.get(header::IF_NONE_MATCH).is_some_and(|known| names(known, &self.etag));
        let mut answer = match known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.whole(asked),
        };
        answer.headers_mut().extend([
            (header::ETAG, self.etag.clone()),
            (header::CACHE_CONTROL, HeaderValue::from_static(kept)),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ]);
        answer
    }

    fn whole(&self, asked: &HeaderMap) -> Response {
        let kind = (header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let vary = (header::VARY, HeaderValue::from_name(HeaderName::from_static("accept-encoding")));
        match &self.packed {
            None => ([kind], Body::from(self.plain.clone())).into_response(),
            Some(packed) if takes_gzip(asked) => {
                let encoding = (header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                ([kind, vary, encoding], Body::from(packed.clone())).into_response()
            }
            Some(_) => ([kind, vary], Body::from(self.plain.clone())).into_response(),
        }
    }
}

fn etag(bytes: &[u8]) -> HeaderValue {
    let hash = event::content_hash(&[bytes]);
    HeaderValue::try_from(format!("\"{hash:032x}\"")).expect("digits are ASCII")
}

fn unpacked(bytes: &[u8]) -> Bytes {
    let mut text = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut text).expect("it was packed by the build");
    text.into()
}

/// Whether `If-None-Match` names this version (RFC 9110, 13.1.2).
fn names(known: &HeaderValue, etag: &HeaderValue) -> bool {
    let known = known.to_str().unwrap_or_default().split(',').map(|tag| tag.trim().trim_start_matches("W/"));
    known.into_iter().any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
}

fn takes_gzip(asked: &HeaderMap) -> bool {
    let lists = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    let mut coded = lists.flat_map(|list| list.split(',')).map(str::trim);
    coded.any(|coding| matches!(coding.split_once(';').unwrap_or((coding, "")), ("gzip" | "*", quality) if quality.trim() != "q=0"))
}
