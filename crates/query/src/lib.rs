//! SQL over a View: the lake and the live rows as the one table `events`, by DataFusion, in PostgreSQL's dialect.
//!
//! # What it promises
//!
//! - A question sees exactly the View it was given: each event once.
//! - Only reading statements; no file, no network, no function that makes rows from nothing.
//! - Memory, disk, time, rows and the number of questions at once have limits, each with its own error.
//! - Questions run on threads of their own, at lower priority; one whose [`Answer`] is dropped stops.
//!
//! **Invariant:** only this crate names DataFusion.
//!
//! Reading order: [`Queries`] runs them, `statement` what may be asked, `path` how fields are written, `coerce` how texts meet numbers, `fields` and `columns` how fields are
//! answered from columns, `runs` groups by sensor, `nearest` the first rows of an order, `table` and `live` the View as
//! a table, `prune` and `ids` what of the files is read, `seen` which fields there are, [`encode()`] answers as JSON, NDJSON and CSV, `columnar` as Arrow and
//! Parquet.

mod coerce;
mod columnar;
mod columns;
mod encode;
mod error;
mod fields;
mod ids;
mod live;
mod metrics;
mod nearest;
mod path;
mod prune;
mod rejected;
mod relations;
mod run;
mod runs;
mod seen;
mod session;
mod statement;
mod table;
mod value;

pub use arrow::array::RecordBatch as Rows;
pub use columnar::{ROW_GROUP_BYTES, plain_rows};
pub use encode::{Format, encode, json_rows};
pub use error::{Place, QueryError};
pub use metrics::QueryMetrics;
pub use run::{Answer, Column, Options, Queries, Query, Turn, Waited};
pub use seen::{KnownField, KnownFields};
pub use value::BytesAs;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a thread that panicked has held is used on.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
