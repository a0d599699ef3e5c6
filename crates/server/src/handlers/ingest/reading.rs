//! How the body of a batch is read: by the parameters of the address, the content type and the headers of a CloudEvent.

use crate::app::Limits;
use crate::body::{self, Read};
use crate::code::Code;
use event::{Batch, FieldNames, Framing, ReadError, ReadOptions};
use http::{HeaderMap, header};
use nowwhat::Problem;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// The parameters of the address.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Where plain JSON has the type, as a JSON pointer or a key; empty for nowhere.
    #[param(pattern = "^([^/].*|(/([^/~]|~[01])*)*)$", default = "/type")]
    type_field: Option<String>,
    /// Where plain JSON has the time, as a JSON pointer or a key; empty for nowhere.
    #[param(pattern = "^([^/].*|(/([^/~]|~[01])*)*)$", default = "/time")]
    time_field: Option<String>,
    /// Where plain JSON has the id, as a JSON pointer or a key; by default nowhere.
    #[param(pattern = "^([^/].*|(/([^/~]|~[01])*)*)$", default = "")]
    id_field: Option<String>,
    /// Where plain JSON has the subject, as a JSON pointer or a key; by default nowhere.
    #[param(pattern = "^([^/].*|(/([^/~]|~[01])*)*)$", default = "")]
    subject_field: Option<String>,
    /// The zone in which times without one are read, an IANA name such as `Europe/Berlin`.
    time_zone: Option<String>,
    /// Whether one rejected event rejects the batch.
    #[serde(default)]
    #[param(inline)]
    pub(super) atomic: Atomic,
}

/// Whether one rejected event rejects the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
pub(crate) enum Atomic {
    #[default]
    #[serde(rename = "false")]
    No,
    #[serde(rename = "true")]
    Yes,
}

impl Parameters {
    /// Reads the query of the address.
    pub(super) fn of(query: Option<&str>) -> Result<Self, Problem> {
        let known = "type_field, time_field, id_field, subject_field, time_zone and atomic (true or false)";
        crate::parameters::parameters(query, known)
    }

    fn fields(&self) -> FieldNames {
        let mut fields = FieldNames::default();
        let given = [
            (&self.type_field, &mut fields.type_field),
            (&self.time_field, &mut fields.time_field),
            (&self.id_field, &mut fields.id_field),
            (&self.subject_field, &mut fields.subject_field),
        ];
        for (value, field) in given {
            if let Some(value) = value {
                *field = value.clone();
            }
        }
        fields
    }

    fn time_zone(&self) -> Result<Option<event::TimeZone>, Problem> {
        let Some(name) = &self.time_zone else {
            return Ok(None);
        };
        event::time_zone(name).map(Some).map_err(|e| Code::InvalidParameter.problem(format!("time_zone: {e}")))
    }
}

/// What reading a body needs to know.
pub(super) struct Reading<'a> {
    pub(super) sensor: &'a Arc<str>,
    pub(super) received_at: i64,
    /// The zone set for the sensor.
    pub(super) zone: Option<event::TimeZone>,
    pub(super) framing: Framing<'a>,
    pub(super) parameters: Parameters,
    pub(super) limits: &'a Limits,
}

impl Reading<'_> {
    pub(super) fn batch(self, read: Read) -> Result<(Batch, engine::Reservation), Problem> {
        let options = ReadOptions {
            sensor: self.sensor,
            received_at: self.received_at,
            fields: self.parameters.fields(),
            time_zone: self.parameters.time_zone()?.or(self.zone),
            limits: self.limits.event.clone(),
        };
        let batch = event::read(&read.bytes, self.framing, &options).map_err(|error| {
            let code = match error {
                ReadError::TooManyEvents { .. } => Code::TooManyEvents,
                ReadError::Pointer(_) => Code::InvalidParameter,
                ReadError::Syntax { .. } => Code::InvalidBody,
            };
            code.problem(error.to_string())
        })?;
        Ok((batch, read.reservation))
    }
}

/// How the body is cut into events, by the content type and the headers of a CloudEvent.
pub(crate) fn framing(headers: &HeaderMap) -> Result<Framing<'_>, Problem> {
    let unsupported = |detail: String| Code::UnsupportedMediaType.problem(detail);
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    if let (Some(first), Some(second)) = (given.next(), given.next())
        && first != second
    {
        return Err(unsupported(format!("the header `content-type` is there twice, as {first:?} and {second:?}")));
    }
    let content_type = body::header_text(headers, &header::CONTENT_TYPE)?;
    let all = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    event::framing_of(content_type, all).map_err(|e| unsupported(e.to_string()))
}
