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
//!         Some("yeast") => Ok(()),
//!         Some(_) => Err(refused(Refusal::InvalidToken)),
//!         None => Err(refused(Refusal::NoToken)),
//!     }
//! }
//! ```

use crate::problem::Problem;
use http::{HeaderMap, HeaderValue, header};

/// Why a request is refused, as section 3.1 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no token: for 401.
    NoToken,
    /// Its token is not known or holds no more: for 401.
    InvalidToken,
    /// Its token may not do this: for 403.
    InsufficientScope,
    /// The same, and this is the scope it would need.
    ScopeNeeded(&'static str),
}

/// The token in `Authorization: Bearer TOKEN`; the scheme is written in any case. It is empty when nothing follows the scheme, and none when
/// there is no such header, it has another scheme, or is no plain text.
pub fn token(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
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
            token(&HeaderMap::from_iter([(header::AUTHORIZATION, value)])).map(str::to_owned)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(token(&HeaderMap::new()), None);
        assert_eq!(
            [of(b"Bearer abc"), of(b"bEARER   a.b-c "), of(b"Bearer a b")],
            [some("abc"), some("a.b-c"), some("a b")]
        );
        assert!(can_be_sent("a.b-c") && !["", "a b", " a", "bröt"].iter().any(|token| can_be_sent(token)));
        assert_eq!([of(b"Bearer"), of(b"Bearer  ")], [some(""), some("")]);
        assert_eq!([of(b"Basic abc"), of(b"Bearerabc"), of(b"abc"), of(b"Bearer \xff"), of(b"")], [const { None }; 5]);
    }

    #[test]
    fn a_challenge_says_what_is_wrong_with_the_token() {
        let told = |refusal| {
            let answer = challenge(Problem::of_status(StatusCode::UNAUTHORIZED), "bakery", refusal).into_response();
            answer.headers()[header::WWW_AUTHENTICATE].to_str().expect("a text").to_owned()
        };
        assert_eq!(told(Refusal::NoToken), r#"Bearer realm="bakery""#);
        assert_eq!(told(Refusal::InvalidToken), r#"Bearer realm="bakery", error="invalid_token""#);
        assert_eq!(told(Refusal::InsufficientScope), r#"Bearer realm="bakery", error="insufficient_scope""#);
        let scope = r#"Bearer realm="bakery", error="insufficient_scope", scope="ovens""#;
        assert_eq!(told(Refusal::ScopeNeeded("ovens")), scope);
    }
}
