//! The header `Host` of a request over HTTP/1, as RFC 9112 (3.2) has it: one in HTTP/1.1, never two, and one that can be
//! a host with a port. Whoever stands before or behind could take two for different ones.
//!
//! HTTP/2 has `:authority` instead. Whose host it is, is not looked at.

use crate::problem::Problem;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Version, header};

/// What is wrong with it, if anything.
pub(super) fn fault(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    if version == Version::HTTP_2 {
        return None;
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => Some("a request of HTTP/1.1 has the header Host"),
        (_, Some(_)) => Some("a request has the header Host once"),
        (Some(host), None) if !host.as_bytes().iter().all(may_stand_in_host) => {
            Some("the header Host is a host, or a host with a port")
        }
        _ => None,
    }
}

/// The bytes of RFC 3986 (3.2.2, 3.2.3).
fn may_stand_in_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte)
}

/// The answer; the connection ends with it.
pub(super) fn refusal(fault: &str) -> Response {
    let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_host", "The request does not say whom it asks");
    problem.detail(fault).header(header::CONNECTION, HeaderValue::from_static("close")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_that_can_be_one_is_asked_of_http_1_1_and_at_most_one_of_the_older_version() {
        let is_fine = |version, hosts: &[&'static str]| {
            let hosts = hosts.iter().map(|host| (header::HOST, HeaderValue::from_static(host)));
            fault(version, &hosts.collect()).is_none()
        };
        for host in ["bakery.example:8000", "[2001:db8::1]:80", "127.0.0.1", "my_bakery", "b%C3%A4cker", ""] {
            assert!(is_fine(Version::HTTP_11, &[host]), "{host}");
        }
        for host in ["a b", "a/b", "me@bakery", "a\"b", "a\\b", "<a>"] {
            assert!(!is_fine(Version::HTTP_11, &[host]), "{host}");
        }
        assert!(!is_fine(Version::HTTP_11, &[]) && is_fine(Version::HTTP_10, &[]) && is_fine(Version::HTTP_2, &[]));
        assert!(!is_fine(Version::HTTP_11, &["a", "a"]) && !is_fine(Version::HTTP_10, &["a", "b"]));
    }
}
