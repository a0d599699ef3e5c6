//! Who is asking, and whether they may: by a bearer token (RFC 6750) or the session of somebody who signed in, by the certificate of a sensor, or
//! by both.

use crate::app::App;
use crate::authorisation::Act;
use crate::certificate;
use crate::code::{self, Code};
use crate::quota;
use crate::request_log::Asker;
use crate::session;
use event::TimeZone;
use http::HeaderMap;
use nowwhat::Problem;
use nowwhat::bearer::{self, Refusal, SeveralTokens};
use nowwhat::request::{ClientAddress, current_id, note};
use registry::{Actor, AuthError, Identity, Quota, SessionError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The identity behind the request's token, its session or its client's certificate, when its role may do this.
///
/// # Errors
/// 400 when there are several tokens, 401 with `WWW-Authenticate` when there is no valid one, 403 when its role may not, the certificate is of
/// no sensor, or a session is to change something and the request does not come from a page of this origin, 429 after too many unknown tokens.
pub(crate) async fn permit(app: &App, headers: &HeaderMap, act: Act) -> Result<Arc<Identity>, Problem> {
    let identity = identity(app, headers, act).await?;
    note(|| Asker(identity.clone()));
    quota::tell_of(app, &identity);
    if act.is_allowed(identity.role) {
        return Ok(identity);
    }
    let (needed, role) = (act.roles_in_words(), identity.role.name());
    Err(match act {
        Act::SendEvents => scope(&format!(
            "this needs a token of the role {needed}, so that the events have a sender, not one of the role {role}: register a \
             sensor with `catchment sensor add NAME`"
        )),
        _ => scope(&format!("this needs a token of the role {needed}, not one of the role {role}")),
    })
}

async fn identity(app: &App, headers: &HeaderMap, act: Act) -> Result<Arc<Identity>, Problem> {
    let certificate = certificate::shown()?;
    let identity = match shown(headers, act)? {
        Shown::Token(token) => Some(known(app, token).await?),
        Shown::Session(secret) => Some(signed_in(app, &secret).await?),
        Shown::Nothing => None,
    };
    match (identity, certificate) {
        (Some(identity), None) => Ok(identity),
        (None, Some(certificate)) => certificate::sensor(app, &certificate).await,
        (Some(identity), Some(certificate)) => {
            certificate::agrees(app, &certificate, &identity).await?;
            Ok(identity)
        }
        (None, None) => {
            let detail = "send the header `Authorization: Bearer TOKEN`";
            Err(challenge(Code::MissingToken.problem(detail), Refusal::NoToken))
        }
    }
}

/// What a request shows beside a certificate.
enum Shown<'a> {
    Token(&'a str),
    /// The secret of a session.
    Session(String),
    Nothing,
}

/// The token of a request; only without one its session.
fn shown(headers: &HeaderMap, act: Act) -> Result<Shown<'_>, Problem> {
    match bearer::token(headers).map_err(several)? {
        Some("") => return Ok(Shown::Nothing),
        Some(token) => return Ok(Shown::Token(token)),
        None if act.needs_token_itself() => return Ok(Shown::Nothing),
        None => {}
    }
    let Some(secret) = session::shown(headers)? else { return Ok(Shown::Nothing) };
    if act.changes() {
        session::comes_from_here(headers)?;
    } else {
        session::is_read_from_here(headers)?;
    }
    Ok(Shown::Session(secret))
}

/// Who a token belongs to.
///
/// # Errors
/// As [`permit`] has them of tokens.
pub(crate) async fn known(app: &App, token: &str) -> Result<Arc<Identity>, Problem> {
    let ClientAddress(from) = ClientAddress::of_current();
    nowwhat::db(app.shared.registry.authenticate(token, from)).await.map_err(not_known)
}

/// Why a token is not taken.
pub(crate) fn not_known(error: AuthError) -> Problem {
    match error {
        AuthError::Unavailable(cause) => code::not_answered("the token could not be checked", cause),
        AuthError::TooManyFailures { wait_seconds } => {
            Code::TooManyFailures.problem(error.to_string()).retry_after(wait_seconds)
        }
        AuthError::Refused => refused(&error.to_string()),
    }
}

/// Who signed in.
async fn signed_in(app: &App, secret: &str) -> Result<Arc<Identity>, Problem> {
    nowwhat::db(app.shared.registry.session(secret)).await.map_err(|error| match error {
        SessionError::Ended => session::ended(&error.to_string()),
        SessionError::Unavailable(cause) => code::not_answered("the session could not be checked", cause),
    })
}

/// How often it is looked at again whether somebody may still be told what goes on.
pub(crate) const TRUST: Duration = Duration::from_secs(5);

/// Somebody who is told something without an end, as long as they may be.
pub(crate) struct Listener {
    pub(crate) app: App,
    headers: HeaderMap,
    act: Act,
    looked: Instant,
}

impl Listener {
    /// Somebody who was just permitted to.
    pub(crate) fn new(app: App, headers: HeaderMap, act: Act) -> Self {
        Self { app, headers, act, looked: Instant::now() }
    }

    /// Whether they still may: a token that was revoked is told no more, at most 5 seconds later.
    pub(crate) async fn may_go_on(&mut self) -> bool {
        if self.looked.elapsed() <= TRUST {
            return true;
        }
        let permitted = permit(&self.app, &self.headers, self.act).await.is_ok();
        self.looked = Instant::now();
        permitted
    }
}

/// Who sends events.
pub(crate) struct Sender {
    pub(crate) sensor: Arc<str>,
    /// The zone of its times.
    pub(crate) zone: Option<TimeZone>,
    /// The quota that is set for it.
    pub(crate) quota: Quota,
}

/// The sensor behind the token or the certificate.
pub(crate) async fn sender(app: &App, headers: &HeaderMap) -> Result<Sender, Problem> {
    let identity = permit(app, headers, Act::SendEvents).await?;
    let sensor = identity.sensor.clone().ok_or_else(|| scope("this token belongs to no sensor"))?;
    Ok(Sender { sensor, zone: identity.time_zone.clone(), quota: identity.quota })
}

/// Who changes something, as the audit tells it.
pub(crate) fn actor(identity: &Identity) -> Actor<'_> {
    Actor { identity, client: ClientAddress::of_current().0, request_id: current_id() }
}

/// 401 by RFC 6750.
pub(crate) fn refused(detail: &str) -> Problem {
    challenge(Code::InvalidToken.problem(detail), Refusal::InvalidToken)
}

/// 401 for what stands for a token and is not taken.
pub(crate) fn no_session(problem: Problem) -> Problem {
    challenge(problem, Refusal::InvalidToken)
}

/// 403 by RFC 6750.
pub(crate) fn scope(detail: &str) -> Problem {
    challenge(Code::InsufficientScope.problem(detail), Refusal::InsufficientScope)
}

/// 400 by RFC 6750.
fn several(tokens: SeveralTokens) -> Problem {
    challenge(Code::SeveralTokens.problem(tokens.to_string()), Refusal::InvalidRequest)
}

fn challenge(problem: Problem, refusal: Refusal) -> Problem {
    bearer::challenge(problem, "catchment", refusal)
}
