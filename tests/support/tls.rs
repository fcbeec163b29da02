//! Certificates for tests, made on the spot.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate that signs itself, in every form a test may need.
pub struct Certificate {
    /// What a browser is to trust, and what a server shows.
    pub root: CertificateDer<'static>,
    /// The same as a file's content.
    pub cert_pem: String,
    /// Its key as a file's content.
    pub key_pem: String,
    key_der: Vec<u8>,
}

impl Certificate {
    /// A certificate for one host.
    pub fn of(host: &str) -> Self {
        let made =
            rcgen::generate_simple_self_signed([host.to_owned()]).expect("a host name makes a certificate");
        Self {
            root: made.cert.der().clone(),
            cert_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
            key_der: made.signing_key.serialize_der(),
        }
    }

    /// A server's settings with this certificate, offering these protocols.
    pub fn server(&self, protocols: &[&str]) -> rustls::ServerConfig {
        let key = PrivateKeyDer::try_from(self.key_der.clone()).expect("rcgen makes readable keys");
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("the provider knows TLS 1.2 and 1.3").with_no_client_auth();
        let mut config =
            config.with_single_cert(vec![self.root.clone()], key).expect("key and certificate fit");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}
