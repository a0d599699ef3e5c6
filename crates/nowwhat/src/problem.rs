//! Errors as RFC 9457 problem details.
//!
//! A [`Problem`] keeps what the client may know apart from what the log must know. [`Uniform`] makes problems also of the failures
//! that a handler did not make itself: no such route, wrong method, a body that is too large, an answer that takes too long, and what
//! axum's own extractors reject.

mod status;
mod uniform;

pub use uniform::{Bounded, Limits, Rest, Uniform, body_limit};

pub(crate) use uniform::{Asked, BodyLimit, Bounds};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use std::error::Error;
use std::sync::Arc;

/// An error as it is answered, with its cause for the log. It travels in the response's extensions to the request layer, which
/// logs it once and adds the request id; nothing happens when it is made.
#[derive(Clone, Debug)]
pub struct Problem {
    inner: Box<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: Option<String>,
    headers: HeaderMap,
    extensions: Map<String, Value>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A problem with a stable code. Its `type` is `/problems/<code>`.
    pub fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        let (detail, headers, extensions, cause) = (None, HeaderMap::new(), Map::new(), None);
        Self { inner: Box::new(Inner { status, code, title, detail, headers, extensions, cause }) }
    }

    /// The problem that a status alone tells, with the code of the module's table. A status without a line there is told as the
    /// first of its class, as RFC 9110 (15) has it, and kept.
    pub fn of_status(status: StatusCode) -> Self {
        let (code, title) = status::told(status);
        Self::new(status, code, title)
    }

    /// What happened in this one case, for the client.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.inner.detail = Some(detail.into());
        self
    }

    /// When to try again.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// A header of the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.inner.headers.insert(name, value);
        self
    }

    /// A further member of the answer.
    pub fn extension(mut self, name: &str, value: Value) -> Self {
        self.inner.extensions.insert(name.to_owned(), value);
        self
    }

    /// The `type` that a standard has for it, in place of `/problems/<code>`.
    pub fn standard_type(self, uri: &'static str) -> Self {
        self.extension("type", uri.into())
    }

    /// What the log must know and the client must not.
    pub fn cause(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.inner.cause = Some(Arc::from(cause.into()));
        self
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.inner.code
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.inner.status
    }

    /// The cause with its own causes, for the log.
    pub fn causes(&self) -> Option<String> {
        self.inner.cause.as_ref().map(|cause| error_chain(cause.as_ref()))
    }

    /// The body; `request_id` and `causes` when the caller wants them in.
    pub(crate) fn body(&self, request_id: Option<&str>, causes: Option<String>) -> Vec<u8> {
        let mut body = Map::new();
        body.insert("type".into(), format!("/problems/{}", self.inner.code).into());
        body.insert("title".into(), self.inner.title.into());
        body.insert("status".into(), self.inner.status.as_u16().into());
        body.insert("code".into(), self.inner.code.into());
        body.extend(self.inner.detail.as_ref().map(|d| ("detail".to_owned(), Value::from(d.as_str()))));
        body.extend(request_id.map(|id| ("request_id".to_owned(), Value::from(id))));
        body.extend(causes.map(|causes| ("causes".to_owned(), Value::from(causes))));
        body.extend(self.inner.extensions.clone());
        serde_json::to_vec(&body).expect("plain data always serializes")
    }
}

/// An error with its causes, each told once: one that the text before tells already is left out.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        next = cause.source();
    }
    text
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body(None, None)));
        *response.status_mut() = self.inner.status;
        *response.headers_mut() = self.inner.headers.clone();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response.extensions_mut().insert(self);
        response
    }
}
