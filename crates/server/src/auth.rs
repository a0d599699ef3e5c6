//! Who is asking, and whether they may (RFC 6750 bearer tokens).

use crate::app::App;
use crate::code::Code;
use http::HeaderMap;
use nowwhat::Problem;
use nowwhat::bearer::{self, Refusal};
use registry::{AuthError, Identity, Role};
use std::sync::Arc;

/// The identity behind the request's token.
///
/// # Errors
/// 401 with `WWW-Authenticate` when there is no valid token.
pub(crate) async fn identify(app: &App, headers: &HeaderMap) -> Result<Arc<Identity>, Problem> {
    let token = bearer::token(headers).filter(|token| !token.is_empty()).ok_or_else(|| {
        let detail = "send the header `Authorization: Bearer TOKEN`";
        challenge(Code::MissingToken.problem(detail), Refusal::NoToken)
    })?;
    nowwhat::db(app.shared.registry.authenticate(token)).await.map_err(|error| match error {
        AuthError::Unavailable(cause) => Code::RegistryBusy.problem("the token could not be checked").cause(cause),
        refused => challenge(Code::InvalidToken.problem(format!("{refused}")), Refusal::InvalidToken),
    })
}

/// The identity, when it has the role of an admin.
pub(crate) async fn admin(app: &App, headers: &HeaderMap) -> Result<Arc<Identity>, Problem> {
    let identity = identify(app, headers).await?;
    match identity.role {
        Role::Admin => Ok(identity),
        Role::Sensor => {
            Err(scope("this needs an admin token; a sensor's token may send events and read its own sensor"))
        }
    }
}

/// The sensor behind the token.
pub(crate) async fn sensor(app: &App, headers: &HeaderMap) -> Result<Arc<str>, Problem> {
    let identity = identify(app, headers).await?;
    identity.sensor.clone().ok_or_else(|| {
        scope("this needs a sensor's token, so that the events have a sender: register one with `catchment sensor add NAME`")
    })
}

/// 403 by RFC 6750.
pub(crate) fn scope(detail: &str) -> Problem {
    challenge(Code::InsufficientScope.problem(detail), Refusal::InsufficientScope)
}

fn challenge(problem: Problem, refusal: Refusal) -> Problem {
    bearer::challenge(problem, "catchment", refusal)
}
