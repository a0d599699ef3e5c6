//! The handlers, one module a resource.

pub(crate) mod events;
pub(crate) mod ingest;
pub(crate) mod query;
pub(crate) mod sensors;
pub(crate) mod webhook;
