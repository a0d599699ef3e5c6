//! Who is asking, and whether they may: by a bearer token (RFC 6750), by the certificate of a sensor, or by both.

use crate::app::App;
use crate::authorisation::Act;
use crate::certificate;
use crate::code::{self, Code};
use crate::quota;
use crate::request_log::Asker;
use event::TimeZone;
use http::HeaderMap;
use nowwhat::Problem;
use nowwhat::bearer::{self, Refusal, SeveralTokens};
use nowwhat::request::{ClientAddress, current_id, note};
use registry::{Actor, AuthError, Identity, Quota};
use std::sync::Arc;

/// The identity behind the request's token or its client's certificate, when its role may do this.
///
/// # Errors
/// 400 when there are several tokens, 401 with `WWW-Authenticate` when there is no valid one, 403 when its role may not or the certificate is of
/// no sensor, 429 after too many unknown tokens.
pub(crate) async fn permit(app: &App, headers: &HeaderMap, act: Act) -> Result<Arc<Identity>, Problem> {
    let identity = identity(app, headers).await?;
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

async fn identity(app: &App, headers: &HeaderMap) -> Result<Arc<Identity>, Problem> {
    let certificate = certificate::shown()?;
    let token = bearer::token(headers).map_err(several)?.filter(|token| !token.is_empty());
    match (token, certificate) {
        (Some(token), None) => known(app, token).await,
        (None, Some(certificate)) => certificate::sensor(app, &certificate).await,
        (Some(token), Some(certificate)) => {
            let identity = known(app, token).await?;
            certificate::agrees(app, &certificate, &identity).await?;
            Ok(identity)
        }
        (None, None) => {
            let detail = "send the header `Authorization: Bearer TOKEN`";
            Err(challenge(Code::MissingToken.problem(detail), Refusal::NoToken))
        }
    }
}

/// Who a token belongs to.
async fn known(app: &App, token: &str) -> Result<Arc<Identity>, Problem> {
    let ClientAddress(from) = ClientAddress::of_current();
    let asked = nowwhat::db(app.shared.registry.authenticate(token, from)).await;
    asked.map_err(|error| match error {
        AuthError::Unavailable(cause) => code::not_answered("the token could not be checked", cause),
        AuthError::TooManyFailures { wait_seconds } => {
            Code::TooManyFailures.problem(error.to_string()).retry_after(wait_seconds)
        }
        AuthError::Refused => refused(&error.to_string()),
    })
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
