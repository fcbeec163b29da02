//! TLS for browsers: certificates from PEM files, chosen by SNI, ALPN `h2` and `http/1.1`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::Certificate;

/// A certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read as PEM.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The key does not fit the certificate, or is of a kind that is not supported.
    #[error("the certificate {cert} and the key {key} cannot be used together: {source}")]
    Pair {
        /// The certificate's file.
        cert: String,
        /// The key's file.
        key: String,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// Nothing to choose from.
    #[error("no certificate is configured")]
    None,
    /// The library refuses the settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}

/// Certificates by the names they are for; the first serves browsers that name none, or another.
#[derive(Debug)]
struct BySni {
    exact: HashMap<String, Arc<CertifiedKey>>,
    wild: HashMap<String, Arc<CertifiedKey>>,
    first: Arc<CertifiedKey>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = hello.server_name().map(str::to_ascii_lowercase) else {
            return Some(Arc::clone(&self.first));
        };
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let found = self.exact.get(&name).or_else(|| self.wild.get(parent?));
        Some(Arc::clone(found.unwrap_or(&self.first)))
    }
}

/// The server's side of TLS with `certificates`.
///
/// # Errors
/// A file cannot be read, or a key does not fit its certificate.
pub(super) fn server_config(certificates: &[Certificate]) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver(certificates, &provider)?));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Tickets resume without a cache that a reload would empty; each process has keys of its own.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
    Ok(Arc::new(config))
}

fn resolver(
    certificates: &[Certificate],
    provider: &rustls::crypto::CryptoProvider,
) -> Result<BySni, TlsError> {
    let (mut exact, mut wild, mut first) = (HashMap::new(), HashMap::new(), None);
    for certificate in certificates {
        let key = Arc::new(certified_key(certificate, provider)?);
        first.get_or_insert_with(|| Arc::clone(&key));
        for name in names(&key) {
            match name.strip_prefix("*.") {
                Some(parent) => wild.entry(parent.to_owned()).or_insert_with(|| Arc::clone(&key)),
                None => exact.entry(name).or_insert_with(|| Arc::clone(&key)),
            };
        }
    }
    Ok(BySni { exact, wild, first: first.ok_or(TlsError::None)? })
}

fn certified_key(
    pair: &Certificate,
    provider: &rustls::crypto::CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let read = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::Read { path, source }
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&pair.cert).and_then(Iterator::collect).map_err(read(&pair.cert))?;
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(read(&pair.key))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Pair {
        cert: pair.cert.display().to_string(),
        key: pair.key.display().to_string(),
        source,
    })
}

/// The DNS names of a certificate, found in its subjectAltName extension (RFC 5280 section 4.2.1.6).
fn names(key: &CertifiedKey) -> Vec<String> {
    let Some(leaf) = key.cert.first() else { return Vec::new() };
    let Ok(parsed) = webpki::EndEntityCert::try_from(leaf) else { return Vec::new() };
    parsed.valid_dns_names().map(str::to_ascii_lowercase).collect()
}

/// The client's side of TLS, for upstreams, with the system's roots.
///
/// # Errors
/// The library refuses the settings. Roots that cannot be read are left out with a warning.
pub(super) fn client_config() -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::warn!(%error, "a root certificate of the system cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
