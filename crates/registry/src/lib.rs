//! The registry: who may come in. Sensors, tokens and roles in a small database.
//!
//! # What it promises
//!
//! - A token is 256 random bits, shown once; the database holds only its SHA-256.
//! - A verified token is checked again from memory, without a lock held across a wait; a change through this registry shows at
//!   once: a token revoked before an answer is refused after it.
//! - A sensor that a certificate names comes in as with a token of its own; that the certificate is valid is its caller's promise.
//! - A session of somebody who signed in is the identity of their token, and ends with it; the database holds its SHA-256, copies of it none.
//! - The audit and tokens that ended are bounded; whoever floods the audit pushes out their own entries.
//! - A sensor's id is made from its name, unique, and never changes.
//! - What an actor changes stands in the table `audit`, in the same transaction as the change, without tokens.
//!
//! # What it does not do
//!
//! It does not count events, knows no HTTP, and does not say which role may do what. The database is SQLite today, named by a URL.
//!
//! Reading order: [`Registry`], [`Role`], [`Token`], `sensors`, `erasures`, `imports`, `tokens`, `sessions`, `codes` and `audit` what can be changed, `schema` the tables.

mod activity;
mod audit;
mod certificates;
mod codes;
mod copy;
mod erasures;
mod error;
mod failures;
mod identity;
mod imports;
mod metrics;
mod name;
mod quota;
mod registry;
mod remembered;
mod schema;
mod sensors;
mod sessions;
mod token;
mod tokens;
mod trim;

pub use audit::{Actor, AuditEntry};
pub use certificates::Named;
pub use codes::{CODE_AGE_MAX, CODES_MAX, CODES_OF_TOKEN_MAX, TakenCode};
pub use erasures::{Erasure, Until};
pub use error::{AuthError, OpenError, RegisterError, RegistryError, SensorError, SessionError, TokenError};
pub use identity::{Identity, Role};
pub use metrics::RegistryMetrics;
pub use name::{BadName, OWN_IDS, sensor_id_from};
pub use quota::{BURST_SECONDS_MAX, PER_SECOND_MAX, Quota, QuotaChange};
pub use registry::{ADMIN_TOKEN_CHARS_MIN, Options, REGISTRY_BYTES_MAX, Registry};
pub use sensors::{Labels, OVERLAP_SECONDS_MAX, Registered, Rotated, SensorChange, SensorInfo};
pub use sessions::{Begun, SESSION_AGE_MAX, SESSIONS_OF_TOKEN_MAX, SignedInBy};
pub use token::Token;
pub use tokens::{NewToken, TokenInfo, USES_MAX};
pub use trim::{AuditBounds, ENDED_TOKEN_AGE_MAX, ENDED_TOKENS_MAX};
