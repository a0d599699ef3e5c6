//! Bearer tokens (RFC 6750): the token of a request, and the challenge in an answer that refuses it.
//!
//! Who a token belongs to and what it may do is the service's own affair, as are the codes of its problems.
//!
//! ```
//! use http::{HeaderMap, StatusCode};
//! use nowwhat::Problem;
//! use nowwhat::bearer::{self, Refusal};
//!
//! fn is_baker(headers: &HeaderMap) -> Result<(), Problem> {
//!     let refused = |refusal| bearer::challenge(Problem::of_status(StatusCode::UNAUTHORIZED), "bakery", refusal);
//!     match bearer::token(headers) {
//!         Ok(Some("yeast")) => Ok(()),
//!         Ok(Some(_)) => Err(refused(Refusal::InvalidToken)),
//!         Ok(None) => Err(refused(Refusal::NoToken)),
//!         Err(several) => {
//!             let problem = Problem::of_status(StatusCode::BAD_REQUEST).detail(several.to_string());
//!             Err(bearer::challenge(problem, "bakery", Refusal::InvalidRequest))
//!         }
//!     }
//! }
//! ```

use crate::problem::Problem;
use http::{HeaderMap, HeaderValue, header};

/// Why a request is refused, as section 3.1 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It shows more than one token: for 400.
    InvalidRequest,
    /// It has no token: for 401.
    NoToken,
    /// Its token is not known or holds no more: for 401.
    InvalidToken,
    /// Its token may not do this: for 403.
    InsufficientScope,
    /// The same, and this is the scope it would need.
    ScopeNeeded(&'static str),
}

/// A request has more than one header `Authorization`: which one counts could be read in two ways, by this service and by a proxy before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header `Authorization` is there more than once: send it once")]
pub struct SeveralTokens;

/// The token in `Authorization: Bearer TOKEN`; the scheme is written in any case. It is empty when nothing follows the scheme, and none when
/// there is no such header, it has another scheme, or is no plain text.
///
/// # Errors
/// [`SeveralTokens`], also when both are the same.
pub fn token(headers: &HeaderMap) -> Result<Option<&str>, SeveralTokens> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (first, None) = (given.next(), given.next()) else { return Err(SeveralTokens) };
    let Some(text) = first.and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let (scheme, token) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()))
}

/// Whether a token that is configured can come in a request: visible ASCII without blanks. For the checks of settings.
pub fn can_be_sent(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())
}

/// The problem with its header `WWW-Authenticate`.
///
/// # Panics
/// When `realm` or the scope has signs that a header cannot hold.
pub fn challenge(problem: Problem, realm: &'static str, refusal: Refusal) -> Problem {
    let error = match refusal {
        // Who sent none is told no error: they may not have known.
        Refusal::NoToken => String::new(),
        Refusal::InvalidRequest => ", error=\"invalid_request\"".to_owned(),
        Refusal::InvalidToken => ", error=\"invalid_token\"".to_owned(),
        Refusal::InsufficientScope => ", error=\"insufficient_scope\"".to_owned(),
        Refusal::ScopeNeeded(scope) => format!(", error=\"insufficient_scope\", scope=\"{scope}\""),
    };
    let value = HeaderValue::try_from(format!("Bearer realm=\"{realm}\"{error}"));
    problem.header(header::WWW_AUTHENTICATE, value.expect("a realm and a scope are plain text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use http::StatusCode;

    #[test]
    fn a_token_is_read_whatever_the_case_of_the_scheme_and_nothing_else_is_one() {
        let of = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).expect("a value");
            token(&HeaderMap::from_iter([(header::AUTHORIZATION, value)])).expect("one").map(str::to_owned)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(token(&HeaderMap::new()), Ok(None));
        assert_eq!(
            [of(b"Bearer abc"), of(b"bEARER   a.b-c "), of(b"Bearer a b")],
            [some("abc"), some("a.b-c"), some("a b")]
        );
        assert!(can_be_sent("a.b-c") && !["", "a b", " a", "bröt"].iter().any(|token| can_be_sent(token)));
        assert_eq!([of(b"Bearer"), of(b"Bearer  ")], [some(""), some("")]);
        assert_eq!([of(b"Basic abc"), of(b"Bearerabc"), of(b"abc"), of(b"Bearer \xff"), of(b"")], [const { None }; 5]);
    }

    #[test]
    fn two_tokens_are_none() {
        let mut headers = HeaderMap::new();
        for value in ["Bearer abc", "Basic abc"] {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        assert_eq!(token(&headers), Err(SeveralTokens));
    }

    #[test]
    fn a_challenge_says_what_is_wrong_with_the_token() {
        let told = |refusal| {
            let answer = challenge(Problem::of_status(StatusCode::UNAUTHORIZED), "bakery", refusal).into_response();
            answer.headers()[header::WWW_AUTHENTICATE].to_str().expect("a text").to_owned()
        };
        assert_eq!(told(Refusal::NoToken), r#"Bearer realm="bakery""#);
        assert_eq!(told(Refusal::InvalidRequest), r#"Bearer realm="bakery", error="invalid_request""#);
        assert_eq!(told(Refusal::InvalidToken), r#"Bearer realm="bakery", error="invalid_token""#);
        assert_eq!(told(Refusal::InsufficientScope), r#"Bearer realm="bakery", error="insufficient_scope""#);
        let scope = r#"Bearer realm="bakery", error="insufficient_scope", scope="ovens""#;
        assert_eq!(told(Refusal::ScopeNeeded("ovens")), scope);
    }
}
