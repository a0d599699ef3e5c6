//! `/`: the web page, which asks the public API like any other client.
//!
//! Its files are those of `src/page`, compressed by the build. Their address has a version in it that is made of all of them, so a browser keeps
//! them, and never mixes those of two programs.

use crate::code::Code;
use crate::file::{ASK_AGAIN, CSS, File, HTML, JAVASCRIPT, KEEP, SVG};
use crate::session;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use nowwhat::Problem;
use nowwhat::extract::Path;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Each file with its name, compressed with gzip.
static PACKED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/page.rs"));

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let parts: Vec<&[u8]> =
        PACKED.iter().flat_map(|(name, bytes)| [name.as_bytes(), bytes]).chain([PAGE.as_bytes()]).collect();
    format!("{:016x}", event::content_hash(&parts) as u64)
});

const PAGE: &str = include_str!("../page/index.html");

/// The page for a browser that shows a session or may have one, and for one that has none and need not ask whose it is.
static WITH_COOKIE: LazyLock<File> = LazyLock::new(|| index("yes"));
static WITHOUT_COOKIE: LazyLock<File> = LazyLock::new(|| index("no"));

fn index(cookie: &str) -> File {
    File::text(HTML, PAGE.replace("VERSION", &VERSION).replace("COOKIE", cookie))
}

static FILES: LazyLock<HashMap<&str, File>> =
    LazyLock::new(|| PACKED.iter().map(|(name, bytes)| (*name, File::packed(content_type(name), bytes))).collect());

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("js") => JAVASCRIPT,
        Some("css") => CSS,
        _ => SVG,
    }
}

/// The page.
pub(crate) async fn get_page(headers: HeaderMap) -> Response {
    // Who follows a link on a page of elsewhere does not show the cookie, and has it.
    let has_none = matches!(session::shown(&headers), Ok(None)) && session::shows_its_cookie(&headers).unwrap_or(false);
    let page = if has_none { &WITHOUT_COOKIE } else { &WITH_COOKIE };
    let mut answer = page.answer(&headers, ASK_AGAIN);
    answer.headers_mut().append(header::VARY, HeaderValue::from_static("cookie, sec-fetch-site"));
    answer
}

/// A file of the page. One that is asked for by another version is the present one, and not kept.
pub(crate) async fn get_file(
    Path((version, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = FILES.get(name.as_str());
    let file = file.ok_or_else(|| Code::NotFound.problem(format!("the page has no file {name:?}")))?;
    Ok(file.answer(&headers, if version == *VERSION { KEEP } else { ASK_AGAIN }))
}
