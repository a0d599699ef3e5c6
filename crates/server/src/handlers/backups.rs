//! `/api/v1/backups`: a copy of all that is there, held for who copies it from the collector's own machine.

use crate::app::App;
use crate::auth;
use crate::authorisation::Act;
use crate::backups::{HELD_SECONDS, Said, TakeError};
use crate::body::{self, Coming};
use crate::code::{self, Code};
use crate::openapi::of;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use nowwhat::Problem;
use nowwhat::extract::Path;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::Type;
use utoipa::openapi::schema::Object;

/// The folder of what is held, below the data folder.
const FOLDER: &str = "snapshot";

/// What is held to be copied.
#[derive(Serialize, ToSchema)]
pub(crate) struct Backup {
    /// Its number, in the path of what is said of it.
    id: u64,
    /// Where it lies, below the data folder.
    #[schema(examples("snapshot"))]
    folder: &'static str,
    /// The identity of the wal.
    wal_id: String,
    /// All events up to this position are in it.
    last_position: u64,
    /// Those up to here are in its lake, the others in its wal.
    sealed_position: u64,
    /// Version of its lake.
    lake_version: u64,
    /// How many events it has.
    events: u64,
    /// The files of its wal: of each only so many bytes belong to it.
    wal: Vec<WalFile>,
    /// It is let go when nothing is said of it for so long.
    held_seconds: u64,
}

/// A file of the wal.
#[derive(Serialize, ToSchema)]
pub(crate) struct WalFile {
    /// Its name.
    name: String,
    /// How many of its bytes.
    bytes: u64,
}

/// What is said of the copying.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    #[schema(schema_with = states)]
    state: String,
    /// With `copying`: how many bytes are copied so far.
    #[serde(default, deserialize_with = "body::whole")]
    #[schema(format = "uint64")]
    bytes: Option<u64>,
}

/// What was heard.
#[derive(Serialize, ToSchema)]
pub(crate) struct Heard {
    /// The number of the backup.
    id: u64,
    #[schema(schema_with = states)]
    state: &'static str,
}

/// What is said with so many bytes copied.
type Saying = fn(u64) -> Said;

const STATES: [(&str, Saying); 3] =
    [("copying", Said::Copying), ("done", |_| Said::Done), ("failed", |_| Said::Failed)];

fn states() -> Object {
    let text = "`copying`: it is held on, while more is copied; `done` and `failed`: it is let go.";
    of(Type::String).enum_values(Some(STATES.map(|(name, _)| name))).description(Some(text)).build()
}

/// Makes a copy of all that was answered before, and holds it: 201.
pub(crate) async fn post_backup(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let identity = auth::permit(&app, &headers, Act::MakeBackup).await?;
    let taken = app.shared.backups.take().await.map_err(not_made)?;
    let (id, linked) = (taken.id, taken.linked);
    let by = auth::actor(&identity);
    let noted = nowwhat::db(app.shared.registry.note_backup(&by, id, linked.last_position)).await;
    if let Err(error) = noted {
        app.shared.backups.hear(id, Said::Failed).await;
        return Err(code::not_answered("the backup could not be noted in the audit", error));
    }
    tracing::info!(backup_id = id, last_position = linked.last_position, "a backup is being copied");
    let backup = Backup {
        id,
        folder: FOLDER,
        wal_id: linked.wal_id,
        last_position: linked.last_position,
        sealed_position: linked.sealed_position,
        lake_version: linked.lake_version,
        events: linked.events,
        wal: linked.wal.into_iter().map(|(name, bytes)| WalFile { name, bytes }).collect(),
        held_seconds: HELD_SECONDS,
    };
    let mut response = (StatusCode::CREATED, nowwhat::extract::Json(backup)).into_response();
    let location = HeaderValue::try_from(format!("/api/v1/backups/{id}")).expect("a number is plain ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn not_made(error: TakeError) -> Problem {
    match error {
        TakeError::Busy => Code::BackupBusy.problem(error.to_string()),
        // An admin may know which file it is.
        error => Code::BackupFailed.problem(error.to_string()).cause(error),
    }
}

/// Hears how far the copying of a backup is.
pub(crate) async fn patch_backup(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, mut body) = Coming::of(request);
    let answered = hear(&app, &id, &parts, &mut body).await;
    body::done(&app, body, answered).await
}

async fn hear(app: &App, id: &str, parts: &Parts, body: &mut Coming) -> Result<Response, Problem> {
    auth::permit(app, &parts.headers, Act::FollowBackup).await?;
    let progress: Progress = body::json(app, parts, body, "{\"state\": \"copying\"}, or done or failed").await?;
    let state = STATES.into_iter().find(|(name, _)| *name == progress.state);
    let (state, said) =
        state.ok_or_else(|| Code::InvalidField.problem("`state` is \"copying\", \"done\" or \"failed\""))?;
    let known = match id.parse::<u64>() {
        Ok(id) => app.shared.backups.hear(id, said(progress.bytes.unwrap_or(0))).await.then_some(id),
        Err(_) => None,
    };
    let id = known.ok_or_else(|| {
        let id: String = id.chars().take(32).collect();
        Code::NotFound.problem(format!("no backup {id:?} is held: it was let go"))
    })?;
    Ok(nowwhat::extract::Json(Heard { id, state }).into_response())
}
