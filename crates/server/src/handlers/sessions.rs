//! `/api/v1/session`: signing in with a token or the code of a link, who is signed in, and signing out.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::body::{self, Coming};
use crate::clock::now_micros;
use crate::code::{self, Code};
use crate::request_log::Asker;
use crate::session;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use nowwhat::Problem;
use nowwhat::request::note;
use registry::{AuthError, Begun, Identity, RegistryError, SessionError, SignedInBy};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// What somebody signs in with: one of them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    /// A token of the role `reader`, `operator` or `admin`.
    token: Option<String>,
    /// The code of a link, as `catchment login` shows it.
    code: Option<String>,
}

/// Who is signed in, or whose token it is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Session {
    #[schema(schema_with = crate::openapi::role)]
    role: &'static str,
    /// What the token is called.
    name: String,
    /// When the session ends, or the token.
    #[schema(required = true, format = DateTime)]
    expires_at: Option<String>,
}

/// A code that was made. It is shown only here, and good for one session.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignInCode<'a> {
    #[schema(schema_with = crate::openapi::code)]
    code: &'a str,
    /// When it ends.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Begins a session: 200 with its cookie.
pub(crate) async fn post_session(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, mut body) = Coming::of(request);
    let answered = sign_in(&app, &parts, &mut body).await;
    body::done(&app, body, answered).await
}

async fn sign_in(app: &App, parts: &Parts, body: &mut Coming) -> Result<Response, Problem> {
    session::comes_from_nowhere_else(&parts.headers)?;
    let given: SignIn = body::json(app, parts, body, "{\"token\": \"...\"}, or {\"code\": \"...\"}").await?;
    let (identity, begun) = match given {
        SignIn { token: Some(token), code: None } => {
            let identity = auth::known(app, token.trim()).await?;
            note(|| Asker(identity.clone()));
            may_sign_in(&identity)?;
            let begun = begin(app, &identity, SignedInBy::Token).await.map_err(auth::not_known)?;
            (identity, begun)
        }
        SignIn { token: None, code: Some(code) } => by_code(app, code.trim()).await?,
        _ => return Err(Code::InvalidField.problem("token: send it or code, one of them")),
    };
    end_the_one_before(app, &parts.headers).await;
    let seconds = (begun.expires_at.saturating_sub(now_micros()).max(0) as u64).div_ceil(1_000_000);
    let cookie = session::cookie(&parts.headers, begun.secret.reveal(), seconds);
    let mut response = told(&identity, Some(begun.expires_at));
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Ends the session that the browser had: its cookie goes with the new one.
async fn end_the_one_before(app: &App, headers: &HeaderMap) {
    let Ok(Some(secret)) = session::shown(headers) else { return };
    // One that stays ends by itself; who signs in is signed in all the same.
    if let Ok(Some(identity)) = whose(app, &secret).await {
        drop(end(app, &identity, &secret).await);
    }
}

/// Whose session it is; nobody's when it has ended.
async fn whose(app: &App, secret: &str) -> Result<Option<Arc<Identity>>, Problem> {
    match nowwhat::db(app.shared.registry.session(secret)).await {
        Ok(identity) => Ok(Some(identity)),
        Err(SessionError::Ended) => Ok(None),
        Err(SessionError::Unavailable(cause)) => Err(not_ended(cause)),
    }
}

async fn end(app: &App, identity: &Identity, secret: &str) -> Result<(), Problem> {
    nowwhat::db(app.shared.registry.end_session(&auth::actor(identity), secret)).await.map_err(not_ended)
}

fn not_ended(cause: RegistryError) -> Problem {
    code::not_answered("the session was not ended", cause)
}

/// A session of the token that made a code, which nobody can use again.
async fn by_code(app: &App, code: &str) -> Result<(Arc<Identity>, Begun), Problem> {
    let registry = &app.shared.registry;
    let refused =
        || {
            auth::no_session(Code::InvalidCode.problem(
                "the code is not known, was used, or is older than 5 minutes: `catchment login` makes another",
            ))
        };
    let taken = registry.take_code(code).ok_or_else(refused)?;
    let identity = taken.identity().clone();
    note(|| Asker(identity.clone()));
    match begin(app, &identity, SignedInBy::Code).await {
        Ok(begun) => Ok((identity, begun)),
        Err(AuthError::Unavailable(cause)) => {
            registry.put_code_back(taken);
            Err(auth::not_known(AuthError::Unavailable(cause)))
        }
        Err(error) => Err(auth::not_known(error)),
    }
}

async fn begin(app: &App, identity: &Identity, with: SignedInBy) -> Result<Begun, AuthError> {
    nowwhat::db(app.shared.registry.begin_session(&auth::actor(identity), with)).await
}

/// Whoever may have a link to sign in may sign in: people.
fn may_sign_in(identity: &Identity) -> Result<(), Problem> {
    if Act::MakeSignInCode.is_allowed(identity.role) {
        return Ok(());
    }
    let (needed, role) = (Act::MakeSignInCode.roles_in_words(), identity.role.name());
    Err(auth::scope(&format!("people sign in, with a token of the role {needed}: this one has the role {role}")))
}

/// Who is signed in, or whose token came.
pub(crate) async fn get_session(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let identity = auth::permit(&app, &headers, Act::ReadSession).await?;
    Ok(told(&identity, identity.expires_at))
}

/// Ends the session of the cookie: 204, also when there is none.
pub(crate) async fn delete_session(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let Some(secret) = session::shown(&headers)? else {
        session::comes_from_nowhere_else(&headers)?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    session::comes_from_here(&headers)?;
    if let Some(identity) = whose(&app, &secret).await? {
        note(|| Asker(identity.clone()));
        end(&app, &identity, &secret).await?;
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, session::no_cookie(&headers))]).into_response())
}

/// Makes a code for a link to sign in: 201, shown only here.
pub(crate) async fn post_code(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let identity = auth::permit(&app, &headers, Act::MakeSignInCode).await?;
    let made = app.shared.registry.make_code(identity);
    let (code, ends) = made.map_err(|cause| code::not_answered("no code was made", cause))?;
    let answer = SignInCode { code: code.reveal(), expires_at: event::format_time(ends) };
    let mut response = (StatusCode::CREATED, nowwhat::extract::Json(answer)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn told(identity: &Identity, expires_at: Option<i64>) -> Response {
    let session = Session {
        role: identity.role.name(),
        name: identity.name.clone(),
        expires_at: expires_at.map(event::format_time),
    };
    let mut response = nowwhat::extract::Json(session).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
