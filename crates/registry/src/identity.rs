//! Who a token belongs to, and as what.

use crate::quota::Quota;
use jiff::tz::TimeZone;
use std::sync::Arc;

/// What a token is for; who may do what is told by those who serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Send events, see itself.
    Sensor,
    /// Send events, nothing else: safe to publish in an app.
    SendOnly,
    /// Register sensors.
    Enrol,
    /// Query.
    Reader,
    /// See and change sensors.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 6] = [Self::Sensor, Self::SendOnly, Self::Enrol, Self::Reader, Self::Operator, Self::Admin];

    /// Its name, in the database and outside.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sensor => "sensor",
            Self::SendOnly => "send_only",
            Self::Enrol => "enrol",
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether its tokens belong to a sensor: whose events they send.
    pub fn sends(self) -> bool {
        matches!(self, Self::Sensor | Self::SendOnly)
    }
}

/// Who a token or a certificate belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The number of the token; none when it was a certificate.
    pub token_id: Option<i64>,
    /// What the token is called, or the name in the certificate.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The sensor, when it is of one.
    pub sensor: Option<Arc<str>>,
    /// The zone in which times of this sensor without one are read.
    pub time_zone: Option<TimeZone>,
    /// How much this sensor may send.
    pub quota: Quota,
    /// When it ends, in microseconds since the epoch: the token, or a session of it.
    pub expires_at: Option<i64>,
}
