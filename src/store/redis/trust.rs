//! Whether a connection failed for lack of trust: that does not change by waiting, and wants other words than an outage.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, Error as TlsError};

/// What to do about it, where one side does not trust the other's certificate.
pub(super) fn advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match tls_error(error)? {
        TlsError::InvalidCertificate(_) => Some(
            "the certificate of the server has to be for the host that [store.redis] urls names, and of an authority that \
             [store.redis] ca names, or that the system knows",
        ),
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnknownCA,
        ) => Some(
            "the server does not take the certificate of the gateway, or asks for one: see [store.redis] cert and key",
        ),
        _ => None,
    }
}

/// Errors of the network hold their cause within, besides the chain of sources; the library shares it.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let shared = error.downcast_ref::<Arc<dyn Error + Send + Sync>>().map(|shared| &**shared);
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = shared.or(within).map(|found| found as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}
