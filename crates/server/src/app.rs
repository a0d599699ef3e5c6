//! What every handler is given.

use crate::backups::Backups;
use crate::erasures::Erasures;
use crate::handlers::overview::FOLLOWERS_MAX;
use crate::handlers::tail::TAILS_MAX;
use crate::metrics::ServerMetrics;
use crate::overview::Overview;
use crate::pages::PAGES_BYTES_MAX;
use crate::quota::Quotas;
use engine::{Admission, Engine};
use nowwhat::health::Health;
use query::Queries;
use registry::Registry;
use rejected::Rejected;
use std::sync::Arc;
use tokio::sync::{Mutex, Semaphore};

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub(crate) shared: Arc<Parts>,
    /// What answers take that are put together in memory.
    pub(crate) pages: Admission,
    /// Held while events of an export are looked up and stored.
    pub(crate) importing: Arc<Mutex<()>>,
    /// How many may still follow events.
    pub(crate) tails: Arc<Semaphore>,
    /// How many may still follow the overview.
    pub(crate) followers: Arc<Semaphore>,
}

/// What it is put together from.
pub struct Parts {
    /// Where events go.
    pub engine: Engine,
    /// Who answers SQL.
    pub queries: Queries,
    /// Who may come in.
    pub registry: Registry,
    /// What was not taken.
    pub rejected: Rejected,
    /// Whose events are erased.
    pub erasures: Erasures,
    /// What is held to be copied.
    pub backups: Backups,
    /// How much a sensor may send.
    pub quotas: Quotas,
    /// Whether the service goes on.
    pub health: Health,
    /// How it is, and how it was.
    pub overview: Overview,
    /// What is counted here.
    pub metrics: ServerMetrics,
    /// The bounds.
    pub limits: Limits,
}

/// The bounds that the handlers keep; `docs/LIMITS.md` lists them with their keys.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest body, also after decompression.
    pub body_bytes_max: u64,
    /// Limits of a batch and of its events.
    pub event: event::Limits,
    /// Longest request body of a query.
    pub query_bytes_max: u64,
    /// How long ago an event may have been received that is kept; none for ever.
    pub kept_seconds: Option<u64>,
}

impl App {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let [tails, followers] = [TAILS_MAX, FOLLOWERS_MAX].map(|max| Arc::new(Semaphore::new(max)));
        let (shared, pages) = (Arc::new(parts), Admission::new(PAGES_BYTES_MAX));
        Self { shared, pages, importing: Arc::default(), tails, followers }
    }
}
