//! CORS: pages of other origins that send events with a token of the role `send_only` (Fetch standard, section 3.3).
//!
//! **Which route:** `POST /api/v1/events`, and no other: it is all that a token may do which is safe to publish in a page. Whoever reads
//! or administers does so from a server, or from a page of the collector's own origin.
//!
//! **Two places:** the preflight is answered inside, as every request with an id and a line. The headers that let a page read an answer are
//! set outside of everything, so that they are on every answer, also when it is about time or a panic. A page without them sees no status.

use crate::authorisation::Act;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::MethodRouter;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, header};
use nowwhat::config::Value;
use std::time::Duration;
use tower::{Layer, Service};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// How long a browser may remember the answer to a preflight; Chromium takes no more than 2 hours.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// What a page may read of an answer beyond its body.
const EXPOSED: [&str; 9] = [
    "catchment-rejected",
    "catchment-duplicate-window",
    "catchment-idempotency-window",
    "idempotency-replayed",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "www-authenticate",
    "x-request-id",
];

/// An origin as browsers write it: scheme, host, and the port where it is not the scheme's own; or `*`, any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

/// Known schemes of which no page comes that could send. Others are those of browsers' extensions and apps.
const SCHEMES_WITHOUT_PAGES: [&str; 4] = ["file", "ftp", "ws", "wss"];

impl Value for Origin {
    const EXPECTED: &'static str = "an origin as browsers send it, such as https://app.example.com or http://localhost:3000: scheme, host in small \
                                    letters and a port that is not the scheme's own, nothing after it; or * for any";
    fn parse(text: &str) -> Option<Self> {
        let of_host = |(scheme, place): (&str, &str)| {
            let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
                && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
            let authority: Authority = place.parse().ok()?;
            let is_own_port = matches!((scheme, authority.port_u16()), ("http", Some(80)) | ("https", Some(443)));
            let has_port = authority.as_str().len() != authority.host().len();
            let is_whole = !authority.host().is_empty() && has_port == authority.port_u16().is_some();
            let is_plain =
                place.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b));
            let has_pages = !SCHEMES_WITHOUT_PAGES.contains(&scheme);
            (is_scheme && has_pages && is_whole && is_plain && !is_own_port).then_some(())
        };
        (text == "*" || text.split_once("://").and_then(of_host).is_some()).then(|| Self(text.to_owned()))
    }
}

/// What pages of other origins may do.
#[derive(Clone, Debug)]
pub struct Cors(CorsLayer);

impl Cors {
    /// For pages of these origins; none when there are none.
    pub fn of(origins: &[Origin]) -> Option<Self> {
        let values = origins.iter().map(|Origin(text)| HeaderValue::try_from(text).expect("an origin is plain ASCII"));
        let allowed = match origins {
            [] => return None,
            origins if origins.iter().any(|Origin(text)| text == "*") => AllowOrigin::any(),
            _ => AllowOrigin::list(values),
        };
        let layer = CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::POST])
            // Attributes of a CloudEvent are headers of any name.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(EXPOSED.map(HeaderName::from_static))
            .max_age(REMEMBERED);
        Some(Self(layer))
    }

    /// Lets a page read the answers to the batches it sends: goes around all that answers.
    pub fn around(self, router: Router) -> Router {
        router.layer(from_fn_with_state(self, readable))
    }

    /// Answers preflights, and leaves every other request to `route`.
    pub(crate) fn preflights<S: Clone + Send + Sync + 'static>(self, route: MethodRouter<S>) -> MethodRouter<S> {
        route.layer(from_fn_with_state(self, preflight))
    }
}

async fn readable(State(cors): State<Cors>, request: Request, next: Next) -> Response {
    // Reading on the same path is not for pages: a browser asks no preflight about GET and HEAD that could forbid it (Fetch, 2.2.1).
    let is_other = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let is_batch = request.uri().path() == Act::SendEvents.path() && !is_other;
    if is_batch { through(&cors, request, next).await } else { next.run(request).await }
}

async fn preflight(State(cors): State<Cors>, request: Request, next: Next) -> Response {
    // Without this header it is the question of a sender of webhooks.
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if is_preflight { through(&cors, request, next).await } else { next.run(request).await }
}

async fn through(Cors(layer): &Cors, request: Request, next: Next) -> Response {
    let Ok(response) = layer.layer(next).call(request).await;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends_and_nothing_that_could_never_match() {
        for text in [
            "https://app.example.com",
            "http://localhost:3000",
            "https://app.example.com:8443",
            "http://[::1]:3000",
            "http://127.0.0.1",
            "capacitor://localhost",
            "*",
        ] {
            assert_eq!(Origin::parse(text), Some(Origin(text.to_owned())), "{text}");
        }
        for text in [
            "",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://app.example.com?x",
            "https://app.example.com#x",
            "https://App.example.com",
            "HTTPS://app.example.com",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://app.example.com:",
            "https://app.example.com:99999",
            "https://me@app.example.com",
            "https://*.example.com",
            "https://a b",
            "null",
            "//app.example.com",
            "ftp://app.example.com",
            "wss://app.example.com",
            "**",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }
}
