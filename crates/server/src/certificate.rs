//! Sensors that show a certificate (mutual TLS): whom it names, and whether a token that comes with it is of the same sensor.
//!
//! A certificate names a sensor by its one DNS name, or where it has none by the common name of its subject. What counts is the certificate that
//! the handshake of this connection verified; no header says anything about it.

use crate::app::App;
use crate::code::{self, Code};
use nowwhat::Problem;
use nowwhat::serve::PeerCertificate;
use registry::{Identity, Named};
use std::sync::Arc;

/// The certificate of the connection on which the request came, still valid; none when the client showed none.
///
/// # Errors
/// 403 when it has expired since the connection was opened.
pub(crate) fn shown() -> Result<Option<PeerCertificate>, Problem> {
    let Some(certificate) = PeerCertificate::of_current() else { return Ok(None) };
    nowwhat::bind("certificate", name_of(&certificate).unwrap_or_default());
    if certificate.has_ended() {
        return Err(refused(
            "the certificate has expired since this connection was opened: open another with a new one",
        ));
    }
    Ok(Some(certificate))
}

/// The sensor that the certificate stands for.
///
/// # Errors
/// 403 when it names none that may come in.
pub(crate) async fn sensor(app: &App, certificate: &PeerCertificate) -> Result<Arc<Identity>, Problem> {
    let name = name_of(certificate).ok_or_else(|| {
        refused("the certificate names no sensor: it has one DNS name, or none and one common name, the id of a sensor")
    })?;
    match nowwhat::db(app.shared.registry.sensor_named(name)).await.map_err(unavailable)? {
        Named::Sensor(identity) => Ok(identity),
        Named::Disabled => Err(refused(&format!("the sensor {name:?}, which the certificate names, is disabled"))),
        Named::Unknown => Err(refused(&format!(
            "there is no sensor {name:?}, which the certificate names: register it, or send a token"
        ))),
    }
}

/// Checks that a token which came with a certificate is of the sensor that the certificate names, or of a person where it names none.
///
/// # Errors
/// 403 when it is not.
pub(crate) async fn agrees(app: &App, certificate: &PeerCertificate, token: &Identity) -> Result<(), Problem> {
    let name = name_of(certificate).unwrap_or_default();
    let named = match nowwhat::db(app.shared.registry.sensor_named(name)).await.map_err(unavailable)? {
        Named::Sensor(_) | Named::Disabled => Some(name),
        Named::Unknown => None,
    };
    let of_token = token.sensor.as_deref();
    if named == of_token {
        return Ok(());
    }
    let of = |sensor: Option<&str>| sensor.map_or_else(|| "no sensor".to_owned(), |id| format!("the sensor {id:?}"));
    Err(Code::CertificateMismatch.problem(format!(
        "the certificate names {}, the token is of {}: send both of one, or no token",
        of(named),
        of(of_token)
    )))
}

/// The one name that can be the id of a sensor.
fn name_of(certificate: &PeerCertificate) -> Option<&str> {
    match certificate.dns_names() {
        [] => certificate.common_name(),
        [name] => Some(name),
        _ => None,
    }
}

fn refused(detail: &str) -> Problem {
    Code::CertificateRefused.problem(detail)
}

fn unavailable(error: registry::RegistryError) -> Problem {
    code::not_answered("the certificate could not be checked", error)
}
