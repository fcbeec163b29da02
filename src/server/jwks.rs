//! Fetches the keys of identity providers (JWKS, RFC 7517), over HTTPS or from this machine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;

use super::outbound::{AskError, ask};
use crate::proxy::jwt::SharedKeys;
use crate::session::keys::{KeyFault, KeySet};
use crate::telemetry::Metrics;

/// How long a fetch may take, from the look-up of the name to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest document that is read.
const MAX_BYTES: usize = 256 * 1024;

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the URL cannot be used")]
    Url,
    #[error(transparent)]
    Ask(#[from] AskError),
    // The status alone: a redirection is not followed, since nobody configured where it leads.
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer is of no use: {0}")]
    Keys(#[from] KeyFault),
    #[error("it took longer than {} s", PATIENCE.as_secs())]
    Slow,
}

/// Fetches key sets, counts the results and warns.
pub(super) struct Fetcher {
    /// How providers are verified.
    pub tls: Arc<rustls::ClientConfig>,
    /// Where results are counted.
    pub metrics: Arc<Metrics>,
}

impl Fetcher {
    /// Replaces `keys` by those at `url`. When they cannot be had now, the log tells, and `false` is returned.
    pub(super) async fn refresh(&self, url: &str, keys: &SharedKeys) -> bool {
        let fetched = match tokio::time::timeout(PATIENCE, self.get(url)).await {
            Ok(Ok(body)) => KeySet::from_jwks(&body).map_err(FetchError::Keys),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(FetchError::Slow),
        };
        let host = host_of(url);
        let succeeded = fetched.is_ok();
        match fetched {
            Ok(set) => {
                if set.is_empty() {
                    tracing::warn!(host, "a JWKS holds no key that can be used");
                }
                keys.replace(set);
            }
            Err(error) => {
                tracing::warn!(host, %error, "a JWKS could not be fetched; the keys known stay in use")
            }
        }
        // ORDER: counted last, so that who sees the count finds the keys.
        self.metrics.keys_fetched(succeeded);
        succeeded
    }

    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Url)?;
        let authority = uri.authority().ok_or(FetchError::Url)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let secure = uri.scheme_str() == Some("https");
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let address = authority
            .port_u16()
            .map_or_else(|| authority.host().to_owned(), |port| format!("{}:{port}", authority.host()));
        let request = Request::get(uri.path_and_query().map_or("/", |target| target.as_str()))
            .header(HOST, address)
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::new())
            .map_err(|_| FetchError::Url)?;
        let (status, body) = ask(host, port, secure.then_some(&self.tls), request, MAX_BYTES).await?;
        if status == StatusCode::OK { Ok(body) } else { Err(FetchError::Status(status)) }
    }
}

/// The host alone: the rest of a URL may hold credentials.
fn host_of(url: &str) -> String {
    url.parse().ok().and_then(|uri: Uri| uri.host().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"keys\":[]}";

    fn config(trusted: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(trusted.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// Serves one connection over TLS with `own` certificate; the head of the request that came.
    async fn serve(listener: TcpListener, own: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Option<String> {
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let tls = builder.with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(tls)).accept(stream).await.ok()?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        stream.write_all(ANSWER).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(head).ok()
    }

    #[tokio::test]
    async fn a_provider_is_verified_before_its_keys_are_taken() {
        let [ours, theirs] =
            [(); 2].map(|()| rcgen::generate_simple_self_signed(["localhost".into()]).unwrap());
        for (trusted, good) in [(&ours, true), (&theirs, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let fetcher = Fetcher { tls: config(trusted), metrics: Metrics::new() };
            let url = format!("https://localhost:{port}/keys?v=1");
            let keys = SharedKeys::default();
            let (fetched, asked) = tokio::join!(fetcher.refresh(&url, &keys), serve(listener, &ours));
            assert_eq!((fetched, asked.is_some()), (good, good));
            if let Some(head) = asked {
                assert!(head.starts_with("GET /keys?v=1 HTTP/1.1\r\n"), "{head}");
                assert!(head.contains(&format!("host: localhost:{port}\r\n")), "{head}");
            }
        }
    }

    #[test]
    fn what_is_logged_of_a_url_is_its_host_alone() {
        assert_eq!(host_of("https://user:secret@idp.example.com:8443/keys?key=secret"), "idp.example.com");
    }
}
