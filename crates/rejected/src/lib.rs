//! The table `rejected`: events that were not taken, with their bytes as they came, so that they can be read again, mended and sent
//! again.
//!
//! It promises that what [`Rejected::keep`] took is on stable storage when it returns, all of a request or nothing, that the table stays inside
//! its bounds of bytes and age also while a request is written, and that nobody loses rows who holds no more than an equal share of the bytes: when
//! the table is full, the oldest of the sensor that holds most go. What a request said is kept once for its rows, and requests with little to keep
//! do not wait for all of those with much.
//!
//! It is a SQLite database beside the lake: its rows are deleted one by one, which a table of files does badly
//! (`docs/decisions/0006-rejected-in-sqlite.md`).
//!
//! **Invariant:** it knows nothing of HTTP, SQL as users ask it, or why events are rejected.

mod damage;
mod erase;
mod metrics;
mod row;
mod table;
mod writer;

pub use erase::Erased;
pub use metrics::RejectedMetrics;
pub use row::{Column, Filter, NewRow, Order, Origin, Row};
pub use table::{OpenError, Options, Rejected, RejectedError};
pub use writer::Extent;
