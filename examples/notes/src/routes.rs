//! The routes of notes. What each takes and answers is told to the API page beside it.

use crate::App;
use crate::api::ProblemBody;
use crate::auth::{Editor, Reader};
use crate::cache::Kept;
use crate::note::{Draft, Note, Page, Window};
use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use http::{StatusCode, header};
use nowwhat::extract::{Json, Path, Query};
use nowwhat::routing::get;
use nowwhat::{Problem, named};

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/notes", get(list).post(named(create)))
        .route("/notes/{id}", get(find).put(named(replace)).delete(named(remove)))
}

/// Some notes, in the order of their numbers.
#[utoipa::path(get, path = "/notes", params(Window), security(("token" = ["reader"])), responses(
    (status = 200, body = Page),
    (status = "4XX", description = "What is wrong with the request", body = ProblemBody),
    (status = 503, description = "Postgres does not answer; see Retry-After", body = ProblemBody)
))]
pub(crate) async fn list(
    _: Reader,
    State(app): State<App>,
    Query(window): Query<Window>,
) -> Result<Json<Page>, Problem> {
    Ok(Json(app.store.list(&window).await?))
}

/// A new note.
#[utoipa::path(post, path = "/notes", request_body = Draft, security(("token" = ["editor"])), responses(
    (status = 201, body = Note, headers(("location" = String, description = "Its path"))),
    (status = "4XX", description = "What is wrong with the request", body = ProblemBody),
    (status = 503, description = "Postgres does not answer; the note may be there all the same", body = ProblemBody)
))]
pub(crate) async fn create(
    _: Editor,
    State(app): State<App>,
    Json(draft): Json<Draft>,
) -> Result<impl IntoResponse, Problem> {
    let note = app.store.create(&draft).await?;
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/notes/{}", note.id))], Json(note)))
}

/// A note.
#[utoipa::path(get, path = "/notes/{id}", params(("id" = i64, Path)), security(("token" = ["reader"])), responses(
    (status = 200, body = Note),
    (status = "4XX", description = "404 when there is no such note", body = ProblemBody),
    (status = 503, description = "Postgres does not answer; see Retry-After", body = ProblemBody)
))]
pub(crate) async fn find(_: Reader, State(app): State<App>, Path(id): Path<i64>) -> Result<Json<Note>, Problem> {
    let kept = match &app.cache {
        Some(cache) => cache.find(id).await,
        None => Kept::Away,
    };
    if let Kept::Note(note) = kept {
        return Ok(Json(note));
    }
    let note = app.store.find(id).await?.ok_or_else(none_such)?;
    if let (Kept::Nothing, Some(cache)) = (kept, &app.cache) {
        cache.keep(&note).await;
    }
    Ok(Json(note))
}

/// A note, written again.
#[utoipa::path(put, path = "/notes/{id}", params(("id" = i64, Path)), request_body = Draft, security(("token" = ["editor"])),
    responses(
        (status = 200, body = Note),
        (status = "4XX", description = "404 when there is no such note", body = ProblemBody),
        (status = 503, description = "Postgres does not answer; see Retry-After", body = ProblemBody)
    )
)]
pub(crate) async fn replace(
    _: Editor,
    State(app): State<App>,
    Path(id): Path<i64>,
    Json(draft): Json<Draft>,
) -> Result<Json<Note>, Problem> {
    let replaced = app.store.replace(id, &draft).await;
    forget(&app, id).await;
    Ok(Json(replaced?.ok_or_else(none_such)?))
}

/// No note any more.
#[utoipa::path(delete, path = "/notes/{id}", params(("id" = i64, Path)), security(("token" = ["editor"])), responses(
    (status = 204),
    (status = "4XX", description = "404 when there is no such note", body = ProblemBody),
    (status = 503, description = "Postgres does not answer; see Retry-After", body = ProblemBody)
))]
pub(crate) async fn remove(_: Editor, State(app): State<App>, Path(id): Path<i64>) -> Result<StatusCode, Problem> {
    let removed = app.store.remove(id).await;
    forget(&app, id).await;
    if removed? { Ok(StatusCode::NO_CONTENT) } else { Err(none_such()) }
}

/// Also after a write that was given up: it may have been done.
async fn forget(app: &App, id: i64) {
    if let Some(cache) = &app.cache {
        cache.forget(id).await;
    }
}

fn none_such() -> Problem {
    Problem::of_status(StatusCode::NOT_FOUND).detail("there is no such note")
}
