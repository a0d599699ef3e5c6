//! What every handler is given.

use engine::Engine;
use query::Queries;
use registry::Registry;
use rejected::Rejected;
use std::sync::Arc;

/// What handlers work with. Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) queries: Queries,
    pub(crate) registry: Registry,
    pub(crate) rejected: Rejected,
    pub(crate) limits: Limits,
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
}

impl App {
    /// Puts the parts together.
    pub fn new(engine: Engine, queries: Queries, registry: Registry, rejected: Rejected, limits: Limits) -> Self {
        Self { shared: Arc::new(Shared { engine, queries, registry, rejected, limits }) }
    }
}
