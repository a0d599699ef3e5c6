//! Who may do what: two roles, each with a bearer token (RFC 6750). A handler says in its signature which role it asks for.

use crate::App;
use crate::settings::Auth;
use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use nowwhat::Problem;
use nowwhat::bearer::{self, Refusal};
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

    fn role(&self, headers: &HeaderMap) -> Result<Role, Problem> {
        let given = bearer::token(headers)
            .map_err(|several| refused(StatusCode::BAD_REQUEST, Refusal::InvalidRequest).detail(several.to_string()))?;
        let token = given.ok_or_else(|| {
            refused(StatusCode::UNAUTHORIZED, Refusal::NoToken).detail("send the header Authorization: Bearer TOKEN")
        })?;
        match Some(digest(token.as_bytes())) {
            given if given == self.editor => Ok(Role::Editor),
            given if given == self.reader => Ok(Role::Reader),
            _ => {
                let problem = refused(StatusCode::UNAUTHORIZED, Refusal::InvalidToken);
                Err(problem.detail("the token is none of this service"))
            }
        }
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn refused(status: StatusCode, refusal: Refusal) -> Problem {
    bearer::challenge(Problem::of_status(status), "notes", refusal)
}

/// The role of who asks, which the request's log line tells too.
fn role(parts: &Parts, app: &App) -> Result<Role, Problem> {
    let role = app.tokens.borrow().role(&parts.headers)?;
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
            Role::Reader => {
                let problem = refused(StatusCode::FORBIDDEN, Refusal::ScopeNeeded("editor"));
                Err(problem.detail("this takes the token of an editor"))
            }
        }
    }
}
