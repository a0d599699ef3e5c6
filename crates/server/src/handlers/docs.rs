//! `/openapi.json` and `/docs`: the description of the API, and a page to try it.
//!
//! The page is Swagger UI, whose files are in the program; it asks nothing of another address, and its content security policy says so to
//! the browser.

use crate::code::Code;
use crate::openapi::openapi;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use nowwhat::Problem;
use nowwhat::extract::Path;
use std::io::Read;
use std::sync::LazyLock;

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Only from here: scripts, styles, requests. The styles of Swagger UI hold pictures.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file that never changes while the program runs. All answers share its bytes: readers that do not read cost nothing.
struct File {
    content_type: &'static str,
    plain: LazyLock<Bytes, Box<dyn FnOnce() -> Bytes + Send>>,
    /// Compressed with gzip.
    packed: Option<Bytes>,
    etag: HeaderValue,
}

static DESCRIPTION: LazyLock<File> = LazyLock::new(|| File::text(JSON, openapi()));
static PAGE: LazyLock<File> = LazyLock::new(|| File::text(HTML, include_str!("../docs/page.html")));
static START: LazyLock<File> = LazyLock::new(|| File::text(JAVASCRIPT, include_str!("../docs/start.js")));
static STYLE: LazyLock<File> =
    LazyLock::new(|| File::packed(CSS, include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"))));
static SCRIPT: LazyLock<File> =
    LazyLock::new(|| File::packed(JAVASCRIPT, include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz"))));

/// The description of the API.
pub(crate) async fn get_description(headers: HeaderMap) -> Response {
    DESCRIPTION.answer(&headers)
}

/// The page to try it.
pub(crate) async fn get_page(headers: HeaderMap) -> Response {
    PAGE.answer(&headers)
}

/// A file of the page.
pub(crate) async fn get_file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let file = match name.as_str() {
        "start.js" => &START,
        "swagger-ui.css" => &STYLE,
        "swagger-ui-bundle.js" => &SCRIPT,
        _ => return Err(Code::NotFound.problem(format!("the page at /docs has no file {name:?}"))),
    };
    Ok(file.answer(&headers))
}

impl File {
    fn text(content_type: &'static str, text: &'static str) -> Self {
        let bytes = Bytes::from_static(text.as_bytes());
        Self { content_type, etag: etag(&bytes), plain: LazyLock::new(Box::new(|| bytes)), packed: None }
    }

    fn packed(content_type: &'static str, gzip: &'static [u8]) -> Self {
        let plain = LazyLock::new(Box::new(|| unpacked(gzip)) as Box<dyn FnOnce() -> Bytes + Send>);
        Self { content_type, plain, packed: Some(Bytes::from_static(gzip)), etag: etag(gzip) }
    }

    /// The file, or 304 when the client has it already.
    fn answer(&self, asked: &HeaderMap) -> Response {
        let known = asked.get(header::IF_NONE_MATCH).is_some_and(|known| names(known, &self.etag));
        let mut answer = match known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.whole(asked),
        };
        answer.headers_mut().extend([
            (header::ETAG, self.etag.clone()),
            // Kept, and asked for again at each use: another version of the program has other files.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
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
