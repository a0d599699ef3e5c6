//! Whom a request asks, as RFC 9112 (3.2) and RFC 9113 (8.3.1) have it: one header `Host` in HTTP/1.1, never two, and one
//! that can be a host with a port; over HTTP/2 the same host as `:authority`. Whoever stands before or behind could take
//! two for different ones.
//!
//! Whose host it is, is not looked at.

use crate::problem::Problem;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::future::{Either, Ready, ready};
use http::{HeaderValue, StatusCode, Version, header};
use std::convert::Infallible;
use std::net::Ipv6Addr;
use std::task::{Context, Poll};
use tower::Service;

/// The layer that answers 400 `invalid_host` to requests that do not say whom they ask, or say it twice. It goes inside of
/// [`Observe`](crate::request::Observe), so that these have an id and a line as every request has.
#[derive(Clone, Copy, Debug)]
pub struct HostRequired;

impl<S> tower::Layer<S> for HostRequired {
    type Service = HostChecked<S>;

    fn layer(&self, inner: S) -> HostChecked<S> {
        HostChecked { inner }
    }
}

/// A service whose requests say whom they ask.
#[derive(Clone, Debug)]
pub struct HostChecked<S> {
    inner: S,
}

impl<S: Service<Request, Response = Response, Error = Infallible>> Service<Request> for HostChecked<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match fault(&request) {
            None => Either::Left(self.inner.call(request)),
            Some(fault) => Either::Right(ready(Ok(refusal(fault, request.version())))),
        }
    }
}

/// What is wrong with it, if anything.
pub(crate) fn fault<B>(request: &http::Request<B>) -> Option<&'static str> {
    let (version, asked) = (request.version(), request.uri().authority());
    let mut hosts = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Some("a request has the header Host once"),
        (None, _) if version == Version::HTTP_11 => Some("a request of HTTP/1.1 has the header Host"),
        (Some(host), _) if !is_host(host) => Some("the header Host is a host, or a host with a port"),
        _ if asked.is_some_and(|asked| !is_host(asked.as_str().as_bytes())) => {
            Some("the address names a host, or a host with a port, and no user")
        }
        // Over HTTP/1 the address has the last word (RFC 9112, 3.2.2).
        (Some(host), _) if version == Version::HTTP_2 && asked.is_some_and(|asked| !is_same(asked.as_str(), host)) => {
            Some("the header Host says the same as :authority")
        }
        _ => None,
    }
}

fn is_same(asked: &str, host: &[u8]) -> bool {
    asked.as_bytes().eq_ignore_ascii_case(host)
}

/// A host with or without a port, by RFC 3986 (3.2.2, 3.2.3).
fn is_host(text: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(text) else { return false };
    let port = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => port,
            _ => return false,
        },
        None => text.trim_start_matches(may_stand_in_name),
    };
    port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn may_stand_in_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=".contains(character)
}

/// The answer; a connection of HTTP/1 ends with it.
pub(crate) fn refusal(fault: &'static str, version: Version) -> Response {
    tracing::debug!(error = fault, "request refused");
    let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_host", "The request does not say whom it asks");
    let problem = problem.detail(fault);
    match version {
        Version::HTTP_2 => problem.into_response(),
        _ => problem.header(header::CONNECTION, HeaderValue::from_static("close")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_fine(version: Version, address: &str, hosts: &[&str]) -> bool {
        let request = http::Request::get(address).version(version);
        let request = hosts.iter().fold(request, |request, host| request.header(header::HOST, *host));
        fault(&request.body(()).expect("a request")).is_none()
    }

    #[test]
    fn one_host_that_can_be_one_is_asked_of_http_1_1_and_at_most_one_of_the_others() {
        let (one, ten, two) = (Version::HTTP_11, Version::HTTP_10, Version::HTTP_2);
        for host in
            ["bakery.example:8000", "[2001:db8::1]:80", "[::1]", "127.0.0.1", "my_bakery", "b%C3%A4cker", "x:", ""]
        {
            assert!(is_fine(one, "/", &[host]), "{host}");
        }
        let not_hosts = [
            "a b",
            "a/b",
            "me@bakery",
            "a\"b",
            "a\\b",
            "<a>",
            "x:ab",
            "x:80:80",
            "::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[x]",
            "[]",
        ];
        for host in not_hosts {
            assert!(!is_fine(one, "/", &[host]), "{host}");
            assert!(!is_fine(two, "/", &[host]), "{host}");
        }
        assert!(!is_fine(one, "/", &[]) && is_fine(ten, "/", &[]) && is_fine(two, "/", &[]));
        assert!(!is_fine(one, "http://bakery/", &[]), "an address does not do instead");
        for version in [one, ten, two] {
            assert!(!is_fine(version, "/", &["a", "a"]));
        }
    }

    #[test]
    fn an_address_names_no_user_and_over_http_2_it_says_the_same_as_the_host() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for version in [one, two] {
            assert!(!is_fine(version, "http://me@bakery/", &["bakery"]));
            assert!(is_fine(version, "http://bakery:80/", &["Bakery:80"]));
        }
        assert!(is_fine(two, "http://bakery/", &[]));
        assert!(is_fine(one, "http://bakery/", &["mill"]) && !is_fine(two, "http://bakery/", &["mill"]));
    }
}
