//! `/openapi.json` and `/docs`: the description of the API, and a page to try it.
//!
//! The page is Swagger UI, whose files are in the program; it asks nothing of another address, and its content security policy says so to
//! the browser.

use crate::code::Code;
use crate::file::{ASK_AGAIN, CSS, File, HTML, JAVASCRIPT, JSON};
use crate::openapi::openapi;
use axum::response::Response;
use http::HeaderMap;
use nowwhat::Problem;
use nowwhat::extract::Path;
use std::sync::LazyLock;

static DESCRIPTION: LazyLock<File> = LazyLock::new(|| File::text(JSON, openapi()));
static PAGE: LazyLock<File> = LazyLock::new(|| File::text(HTML, include_str!("../docs/page.html")));
static START: LazyLock<File> = LazyLock::new(|| File::text(JAVASCRIPT, include_str!("../docs/start.js")));
static STYLE: LazyLock<File> =
    LazyLock::new(|| File::packed(CSS, include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"))));
static SCRIPT: LazyLock<File> =
    LazyLock::new(|| File::packed(JAVASCRIPT, include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz"))));

/// The description of the API.
pub(crate) async fn get_description(headers: HeaderMap) -> Response {
    DESCRIPTION.answer(&headers, ASK_AGAIN)
}

/// The page to try it.
pub(crate) async fn get_page(headers: HeaderMap) -> Response {
    PAGE.answer(&headers, ASK_AGAIN)
}

/// A file of the page.
pub(crate) async fn get_file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let file = match name.as_str() {
        "start.js" => &START,
        "swagger-ui.css" => &STYLE,
        "swagger-ui-bundle.js" => &SCRIPT,
        _ => return Err(Code::NotFound.problem(format!("the page at /docs has no file {name:?}"))),
    };
    Ok(file.answer(&headers, ASK_AGAIN))
}
