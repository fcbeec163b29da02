//! `[listen]`: addresses, certificates, trusted proxies, workers.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;

use ipnet::IpNet;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::raw::{Mark, Section, Sink, Value};
use super::secret::read_bounded;
use super::{Certificate, Listen};

const MAX_WORKERS: u64 = 1024;

pub(super) fn read(mut section: Section<'_>) -> Listen {
    let http = section.value("http");
    let https = section.value("https");
    let certificates = section.value("certificates");
    if http.is_none() && https.is_none() {
        let hint = "write [listen] with http = \"127.0.0.1:8080\", or https with certificates";
        section.sink.missing(&section.at, "neither http nor https is given", hint);
    }
    match (&https, &certificates) {
        (Some(https), None) => section.sink.missing(
            &https.at,
            "https needs certificates",
            "add certificates = [{ cert = \"cert.pem\", key = \"key.pem\" }]",
        ),
        (None, Some(certificates)) if !certificates.is_empty_list() => section.sink.missing(
            &certificates.at,
            "certificates without https are of no use",
            "add https = \"0.0.0.0:8443\", or remove them",
        ),
        (Some(https), Some(list)) if list.is_empty_list() => {
            https.fault("https needs certificates", "name at least one certificate with its key");
        }
        _ => {}
    }
    let listen = Listen {
        http: http.and_then(|value| value.address()),
        https: https.and_then(|value| value.address()),
        certificates: certificates
            .iter()
            .flat_map(Value::list)
            .filter_map(|value| certificate(&value))
            .collect(),
        proxy_protocol: section.flag("proxy_protocol", false),
        trusted_proxies: section.list("trusted_proxies").iter().filter_map(network).collect(),
        workers: section
            .value("workers")
            .and_then(|value| value.whole(0..MAX_WORKERS + 1))
            .and_then(|workers| NonZeroUsize::new(usize::try_from(workers).ok()?)),
    };
    section.finish();
    listen
}

fn certificate(value: &Value<'_>) -> Option<Certificate> {
    let mut section = value.section()?;
    let hint = "write { cert = \"cert.pem\", key = \"key.pem\" }";
    let cert = section.required("cert", hint);
    let key = section.required("key", hint);
    section.finish();
    let (cert, key) = (cert?, key?);
    let certificate = Certificate { cert: cert.sink.path(cert.text()?), key: key.sink.path(key.text()?) };
    let chain = pem(&cert, &certificate.cert, "certificate", |text| {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        chain.ok().filter(|chain| !chain.is_empty())
    });
    let private = pem(&key, &certificate.key, "private key", |text| PrivateKeyDer::from_pem_slice(text).ok());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if let Err(error) = rustls::sign::CertifiedKey::from_der(chain?, private?, &provider) {
        key.fault(
            format!("the key does not fit the certificate: {error}"),
            "cert holds the server's own certificate first, and key the private key that belongs to it",
        );
    }
    Some(certificate)
}

/// Reads a PEM file; the fault never holds what the file holds.
fn pem<T>(value: &Value<'_>, path: &Path, what: &str, read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let text = match read_bounded(path) {
        Ok(text) => zeroize::Zeroizing::new(text),
        Err(error) => {
            let hint =
                "a relative path starts where the configuration is; the gateway must be able to read it";
            value.fault(format!("cannot read {}: {error}", path.display()), hint);
            return None;
        }
    };
    let found = read(&text);
    if found.is_none() {
        let message = format!("{} holds no {what} in PEM form", path.display());
        value.fault(message, "a PEM file starts with \"-----BEGIN\"");
    }
    found
}

fn network(value: &Value<'_>) -> Option<IpNet> {
    let parse =
        |text: &str| text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let hint = "write an address or a network: \"10.0.0.0/8\"";
    value.read(|text| match parse(text) {
        Some(network) => Ok(network.trunc()),
        None => Err((format!("{text:?} is neither an address nor a network"), hint.to_owned())),
    })
}

/// Reports every address that is listened at twice.
pub(super) fn refuse_shared(listeners: &[(Mark, SocketAddr)], sink: &Sink<'_>) {
    for (i, (mark, address)) in listeners.iter().enumerate() {
        let first = listeners[..i].iter().find(|(_, other)| other == address && address.port() != 0);
        if let Some((other, _)) = first {
            sink.fault(mark, format!("{address} is taken by {} already", other.key), "give it another port");
        }
    }
}
