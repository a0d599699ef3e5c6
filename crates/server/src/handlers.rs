//! The handlers, one module a resource.

pub(crate) mod audit;
pub(crate) mod backups;
pub(crate) mod docs;
pub(crate) mod erasures;
pub(crate) mod events;
pub(crate) mod fields;
pub(crate) mod import;
pub(crate) mod ingest;
pub(crate) mod overview;
pub(crate) mod page;
pub(crate) mod query;
pub(crate) mod rejected;
pub(crate) mod sensors;
pub(crate) mod sessions;
pub(crate) mod tail;
pub(crate) mod tokens;
pub(crate) mod web;
pub(crate) mod webhook;
