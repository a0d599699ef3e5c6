//! `/api/v1/tokens`: tokens of people and programs, for admins. A token is shown once, when it is made.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::body::{self, Coming};
use crate::clock::now_micros;
use crate::code::{self, Code};
use crate::handlers::page::{cut, limit_of};
use crate::handlers::sensors::{made, unavailable};
use crate::pages;
use crate::parameters::parameters;
use axum::extract::{RawQuery, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use nowwhat::Problem;
use nowwhat::extract::Path;
use registry::{NewToken, Role, TokenError, TokenInfo};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Longest life that can be asked for in seconds: 100 years.
const LIFE_SECONDS_MAX: u64 = 3_155_760_000;

/// A token that is to be made. It ends at `expires_at` or after `expires_in_seconds`, or never.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewToken)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    #[schema(schema_with = crate::openapi::role)]
    role: String,
    /// What it is called.
    #[schema(max_length = 256, pattern = "\\S")]
    name: String,
    /// The id of the sensor whose events it sends: for the roles `sensor` and `send_only`, and only for them.
    sensor: Option<String>,
    /// When it ends, RFC 3339; not beside `expires_in_seconds`.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// How long it lives.
    #[serde(default, deserialize_with = "body::whole")]
    #[schema(minimum = 1, maximum = 3_155_760_000_u64)]
    expires_in_seconds: Option<u64>,
    /// How many sensors it may register: for the role `enrol`, and only for it.
    #[serde(default, deserialize_with = "body::whole")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    uses: Option<u64>,
}

/// The parameters of the address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Only the tokens of this sensor.
    sensor: Option<String>,
    /// Most tokens of a page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// Only tokens before this number: the `next_before` of the page before.
    before: Option<i64>,
}

/// What is known of a token; never the token itself.
#[derive(Serialize, ToSchema)]
pub(crate) struct Token {
    /// Its number.
    id: i64,
    #[schema(schema_with = crate::openapi::role)]
    role: &'static str,
    /// What it is called.
    name: String,
    /// The sensor whose events it sends.
    #[schema(required = true)]
    sensor: Option<String>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it ends.
    #[schema(required = true, format = DateTime)]
    expires_at: Option<String>,
    /// How many sensors it may still register.
    #[schema(required = true)]
    uses_left: Option<i64>,
    /// When it was last used.
    #[schema(required = true, format = DateTime)]
    last_used_at: Option<String>,
    /// When it was revoked.
    #[schema(required = true, format = DateTime)]
    revoked_at: Option<String>,
}

/// A token that was made. It is shown only here; the registry keeps its SHA-256.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeToken<'a> {
    #[serde(flatten)]
    about: Token,
    #[schema(schema_with = crate::openapi::token)]
    token: &'a str,
}

/// A page of tokens, newest first, and where the next one begins.
#[derive(Serialize, ToSchema)]
#[schema(as = Tokens)]
pub(crate) struct Page {
    tokens: Vec<Token>,
    /// The `before` of the next page; null after the last one.
    #[schema(required = true)]
    next_before: Option<i64>,
}

/// Makes a token: 201, shown only here.
pub(crate) async fn post_token(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, mut body) = Coming::of(request);
    let answered = add(&app, &parts, &mut body).await;
    body::done(&app, body, answered).await
}

async fn add(app: &App, parts: &Parts, body: &mut Coming) -> Result<Response, Problem> {
    let identity = auth::permit(app, &parts.headers, Act::AddToken).await?;
    let example = "{\"role\": \"reader\", \"name\": \"...\"}, with sensor, expires_at or expires_in_seconds, and uses where they are needed";
    let wanted: Wanted = body::json(app, parts, body, example).await?;
    let new = NewToken {
        role: role(&wanted.role)?,
        expires_at: expiry(&wanted)?,
        name: wanted.name,
        sensor: wanted.sensor,
        uses: wanted.uses.map(|uses| u32::try_from(uses).unwrap_or(u32::MAX)),
    };
    let added = nowwhat::db(app.shared.registry.add_token(&auth::actor(&identity), &new)).await;
    let (info, token) = added.map_err(refused)?;
    let location = format!("/api/v1/tokens/{}", info.id);
    Ok(made(&location, MadeToken { about: info.into(), token: token.reveal() }))
}

/// A page of the tokens, newest first.
pub(crate) async fn get_tokens(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ListTokens).await?;
    let asked: Parameters = parameters(query.as_deref(), "sensor, limit and before")?;
    let limit = limit_of(asked.limit)?;
    let asked = app.shared.registry.tokens(asked.sensor.as_deref(), limit + 1, asked.before);
    let mut found = nowwhat::db(asked).await.map_err(unavailable)?;
    let next_before = cut(&mut found, limit, |token| token.id);
    let tokens = found.into_iter().map(Token::from).collect();
    pages::whole(&app, &Page { tokens, next_before })
}

/// What is known of one token.
pub(crate) async fn get_token(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ReadToken).await?;
    let id = number(&id)?;
    match nowwhat::db(app.shared.registry.token(id)).await.map_err(unavailable)? {
        Some(token) => Ok(nowwhat::extract::Json(Token::from(token)).into_response()),
        None => Err(refused(TokenError::Unknown(id))),
    }
}

/// Revokes a token: 204. The next request with it is refused.
pub(crate) async fn delete_token(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let identity = auth::permit(&app, &headers, Act::RevokeToken).await?;
    let id = number(&id)?;
    nowwhat::db(app.shared.registry.revoke(&auth::actor(&identity), id)).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn role(name: &str) -> Result<Role, Problem> {
    Role::of_name(name).ok_or_else(|| {
        let names = Role::ALL.map(Role::name).join(", ");
        Code::InvalidField.problem(format!("role: known are {names}"))
    })
}

/// When the token ends, in microseconds since the epoch.
fn expiry(wanted: &Wanted) -> Result<Option<i64>, Problem> {
    let invalid = |detail: String| Code::InvalidField.problem(detail);
    match (&wanted.expires_at, wanted.expires_in_seconds) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(invalid("expires_at: send it or expires_in_seconds, not both".to_owned())),
        (Some(at), None) => event::parse_time(at).map(Some).map_err(|e| invalid(format!("expires_at: {e}"))),
        (None, Some(seconds @ 1..=LIFE_SECONDS_MAX)) => Ok(Some(now_micros() + seconds as i64 * 1_000_000)),
        (None, Some(_)) => Err(invalid(format!("expires_in_seconds: it goes from 1 to {LIFE_SECONDS_MAX}"))),
    }
}

fn number(id: &str) -> Result<i64, Problem> {
    id.parse().map_err(|_| Code::NotFound.problem(format!("there is no token {id:?}: the id of a token is a number")))
}

impl From<TokenInfo> for Token {
    fn from(token: TokenInfo) -> Self {
        let time = |micros: Option<i64>| micros.map(event::format_time);
        Self {
            id: token.id,
            role: token.role.name(),
            name: token.name,
            sensor: token.sensor,
            created_at: event::format_time(token.created_at),
            expires_at: time(token.expires_at),
            uses_left: token.uses_left,
            last_used_at: time(token.last_used_at),
            revoked_at: time(token.revoked_at),
        }
    }
}

fn refused(error: TokenError) -> Problem {
    let code = match error {
        TokenError::Unknown(_) => Code::NotFound,
        TokenError::Configured(_) => Code::TokenConfigured,
        TokenError::Unavailable(cause) => {
            return code::not_answered("the token was not changed", cause);
        }
        _ => Code::InvalidField,
    };
    code.problem(error.to_string())
}
