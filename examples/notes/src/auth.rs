//! Who may do what: two roles, each with a bearer token (RFC 6750). A handler says in its signature which role it asks for.

use crate::App;
use crate::settings::Auth;
use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use nowwhat::Problem;
use nowwhat::config::Secret;
use sha2::{Digest, Sha256};

/// May read.
pub(crate) struct Reader;

/// May read and write.
pub(crate) struct Editor;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Reader,
    Editor,
}

/// The tokens, as digests: how long comparing two of them takes tells nothing about a token.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    reader: Option<[u8; 32]>,
    editor: Option<[u8; 32]>,
}

impl Tokens {
    pub(crate) fn new(auth: &Auth) -> Self {
        let digested = |token: &Option<Secret>| token.as_ref().map(|token| digest(token.reveal().as_bytes()));
        Self { reader: digested(&auth.reader_token), editor: digested(&auth.editor_token) }
    }

    fn role(&self, parts: &Parts) -> Result<Role, Problem> {
        let given = parts.headers.get(header::AUTHORIZATION).ok_or_else(|| {
            refused(StatusCode::UNAUTHORIZED, "Bearer realm=\"notes\"")
                .detail("send the header Authorization: Bearer TOKEN")
        })?;
        // The name of the scheme is written in any case (RFC 9110, 11.1).
        let scheme_and_token = given.as_bytes().split_first_chunk::<7>();
        let token =
            scheme_and_token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer ")).map(|(_, token)| token);
        let digest = token.map(|token| digest(token.trim_ascii()));
        let role = match digest {
            Some(digest) if self.editor == Some(digest) => Some(Role::Editor),
            Some(digest) if self.reader == Some(digest) => Some(Role::Reader),
            _ => None,
        };
        role.ok_or_else(|| {
            refused(StatusCode::UNAUTHORIZED, "Bearer realm=\"notes\", error=\"invalid_token\"")
                .detail("the token is none of this service")
        })
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn refused(status: StatusCode, challenge: &'static str) -> Problem {
    Problem::of_status(status).header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// The role of who asks, which the request's log line tells too.
fn role(parts: &Parts, app: &App) -> Result<Role, Problem> {
    let role = app.tokens.role(parts)?;
    nowwhat::bind("role", if role == Role::Editor { "editor" } else { "reader" });
    Ok(role)
}

impl FromRequestParts<App> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        role(parts, app).map(|_| Self)
    }
}

impl FromRequestParts<App> for Editor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        match role(parts, app)? {
            Role::Editor => Ok(Self),
            Role::Reader => Err(refused(
                StatusCode::FORBIDDEN,
                "Bearer realm=\"notes\", error=\"insufficient_scope\", scope=\"editor\"",
            )
            .detail("this takes the token of an editor")),
        }
    }
}
