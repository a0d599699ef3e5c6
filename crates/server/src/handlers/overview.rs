//! `/api/v1/overview`: how the collector is, as it changes, and how it was.

use crate::app::App;
use crate::auth::{self, Listener};
use crate::authorisation::Act;
use crate::code::Code;
use crate::handlers::tail::sent_events;
use crate::overview::History;
use crate::pages;
use crate::parameters::parameters;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, header};
use nowwhat::Problem;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;

/// So many follow it at once.
pub(crate) const FOLLOWERS_MAX: usize = 64;
/// So far back it goes: 30 days.
const SECONDS_MAX: u64 = 30 * 86_400;

/// The parameters of the address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// How far back.
    #[param(minimum = 1, maximum = 2_592_000, default = 3600)]
    seconds: Option<u64>,
}

/// How the collector is.
pub(crate) async fn get_overview(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ReadOverview).await?;
    let mut told = app.shared.overview.told();
    // At the start the first look is at most a second away.
    let told = told.wait_for(|told| !told.is_empty()).await.map(|told| told.clone());
    let told = told.map_err(|_| Code::Stopping.problem("the server is stopping").retry_after(1))?;
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from(told)).into_response())
}

/// How it was.
pub(crate) async fn get_history(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::ReadHistory).await?;
    let Parameters { seconds } = parameters(query.as_deref(), "seconds")?;
    let history: History = match seconds.unwrap_or(3600) {
        seconds @ 1..=SECONDS_MAX => app.shared.overview.history(seconds),
        other => {
            return Err(Code::InvalidParameter.problem(format!("seconds is {other}; it goes from 1 to {SECONDS_MAX}")));
        }
    };
    pages::whole(&app, &history)
}

/// The parameters of an address that takes none.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

/// How it is, each second.
pub(crate) async fn get_live(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::permit(&app, &headers, Act::FollowOverview).await?;
    let NoParameters {} = parameters(query.as_deref(), "none")?;
    let seat =
        app.followers.clone().try_acquire_owned().map_err(|_| {
            Code::TooManyQueries.problem(format!("{FOLLOWERS_MAX} follow the overview: end one of them"))
        })?;
    let mut told = app.shared.overview.told();
    if !told.borrow().is_empty() {
        // The first one is told at once.
        told.mark_changed();
    }
    let follower = Follower { listener: Listener::new(app, headers, Act::FollowOverview), told, _seat: seat };
    Ok(sent_events(futures::stream::unfold(follower, async |mut follower| {
        Some((Ok(follower.next().await?), follower))
    })))
}

/// Somebody who follows it.
struct Follower {
    listener: Listener,
    told: watch::Receiver<Bytes>,
    _seat: OwnedSemaphorePermit,
}

impl Follower {
    async fn next(&mut self) -> Option<Bytes> {
        let stopping = self.listener.app.shared.health.until_stopping();
        let changed = async {
            self.told.changed().await.ok()?;
            self.listener.may_go_on().await.then(|| self.told.borrow_and_update().clone())
        };
        let told = tokio::select! {
            told = changed => told?,
            () = stopping => return None,
        };
        Some([b"data: ", &told[..], b"\n\n"].concat().into())
    }
}
