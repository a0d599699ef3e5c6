//! Extractors whose rejections are [`Problem`]s, so that a handler's signature is all it says about bad input.
//!
//! They are axum's own with another way to fail. [`Json`] reads `application/json` and `application/*+json`; a `charset` changes
//! nothing, JSON is UTF-8 (RFC 8259). It is also an answer. What the plain extractors (`Bytes`, `String`) reject becomes a problem in
//! [`Uniform`](crate::problem::Uniform).

use crate::problem::{BodyLimit, Problem};
use axum::body::Body;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use http_body::Body as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;

/// What is read as JSON.
const ACCEPTED: [&str; 2] = ["application/json", "application/*+json"];

/// A body in JSON, read or answered.
///
/// Rejections: 415 `unsupported_media_type` with the accepted types, 400 `malformed_json` with `line` and `column`, 422
/// `invalid_body` with the place and what was expected there, 413 `body_too_large` with `body_bytes_max`, 400 `body_incomplete`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let limit = request.extensions().get::<BodyLimit>().copied();
        // Told by what the body announces, before the client is asked to go on with it.
        if let Some(limit) = limit.filter(|limit| request.body().size_hint().lower() > limit.0 as u64) {
            return Err(limit.problem());
        }
        let read = axum::Json::<T>::from_request(request, state).await;
        read.map(|axum::Json(value)| Self(value)).map_err(|rejection| of_json(rejection, limit))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match crate::view(|| serde_json::to_vec(&self.0)) {
            Ok(text) => {
                let kind = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, kind)], Body::from(text)).into_response()
            }
            Err(error) => Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).cause(error).into_response(),
        }
    }
}

/// The query of the address. Rejection: 400 `invalid_query`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Query(value)| Self(value)).map_err(|rejection: QueryRejection| {
            let problem = Problem::new(rejection.status(), "invalid_query", "The query does not fit");
            problem.detail(reason(&rejection))
        })
    }
}

/// The variable parts of the path. Rejection: 400 `invalid_path`; 500 when the type cannot fit the route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(value)| Self(value)).map_err(|rejection: PathRejection| {
            match rejection.status() {
                StatusCode::BAD_REQUEST => {
                    let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_path", "The path does not fit");
                    problem.detail(not_text(&rejection).unwrap_or_else(|| reason(&rejection)))
                }
                // The route and the handler's type contradict each other.
                _ => Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR).cause(rejection),
            }
        })
    }
}

/// A part of the path that is no UTF-8, in words that need no knowledge of the language this is written in.
fn not_text(rejection: &PathRejection) -> Option<String> {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else { return None };
    let ErrorKind::InvalidUtf8InPathParam { key } = failed.kind() else { return None };
    Some(format!("the part {key:?} of the path is no UTF-8 once its percent signs are decoded"))
}

fn of_json(rejection: JsonRejection, limit: Option<BodyLimit>) -> Problem {
    match rejection {
        JsonRejection::MissingJsonContentType(_) => Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .detail(format!("the header Content-Type must name one of {}", ACCEPTED.join(", ")))
            // RFC 9110 (15.5.16): how a 415 says what it would have taken.
            .header(header::ACCEPT, HeaderValue::from_static(ACCEPTED[0]))
            .extension("accepted", ACCEPTED.as_slice().into()),
        JsonRejection::JsonSyntaxError(error) => {
            let text = reason(&error);
            let problem = Problem::new(StatusCode::BAD_REQUEST, "malformed_json", "The body is no JSON");
            let problem = match place(&text) {
                Some((line, column)) => problem.extension("line", line.into()).extension("column", column.into()),
                None => problem,
            };
            problem.detail(text)
        }
        JsonRejection::JsonDataError(error) => {
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", "The body does not fit");
            problem.detail(reason(&error))
        }
        JsonRejection::BytesRejection(error) => of_bytes(error, limit),
        other => Problem::of_status(other.status()).detail(other.body_text()),
    }
}

fn of_bytes(rejection: BytesRejection, limit: Option<BodyLimit>) -> Problem {
    match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(error)) => match limit {
            Some(limit) => limit.problem(),
            None => Problem::of_status(error.status()),
        },
        other => Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", "The body did not arrive whole").cause(other),
    }
}

/// What went wrong, without axum's sentence before it.
fn reason(rejection: &(dyn Error + 'static)) -> String {
    // Composite rejections lead through a second enum to the same sentence; the first text that is not part of the one above is it.
    let mut text = rejection.to_string();
    let mut next = rejection.source();
    while let Some(error) = next {
        let more = error.to_string();
        if more.len() < text.len() && text.ends_with(&more) {
            return more;
        }
        text = more;
        next = error.source();
    }
    text
}

/// Line and column, both from 1, from the end of what serde_json says; its own type is not reachable through axum's.
fn place(text: &str) -> Option<(u64, u64)> {
    let (line, column) = text.rsplit_once(" at line ")?.1.split_once(" column ")?;
    Some((line.parse().ok()?, column.parse().ok()?))
}

#[cfg(test)]
mod tests;
