//! The registry: who may come in. Sensors, tokens and roles in a small database.
//!
//! # What it promises
//!
//! - A token is 256 random bits, shown once; the database holds only its SHA-256.
//! - A verified token is checked again from memory, without a lock held across a wait; a change through this registry shows at
//!   once.
//! - A sensor's id is made from its name, unique, and never changes.
//!
//! # What it does not do
//!
//! It does not count events and knows no HTTP. The database is SQLite today, named by a URL.
//!
//! Reading order: [`Registry`], [`Token`], [`sensor_id_from`], `schema` the tables.

mod metrics;
mod name;
mod registry;
mod schema;
mod token;

pub use metrics::RegistryMetrics;
pub use name::{BadName, sensor_id_from};
pub use registry::{
    ADMIN_TOKEN_CHARS_MIN, AuthError, Identity, OpenError, RegisterError, Registered, Registry, RegistryError, Role,
    SensorInfo,
};
pub use token::Token;
