//! Calls the app's own logout after ends (`app_logout`), a few at a time.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderValue, Method, Request};
use http_body_util::Empty;
use tokio::sync::{Semaphore, mpsc};

use super::outbound::ask;
use crate::proxy::{AppSite, Farewell, Shared};
use crate::telemetry::Farewelled;

/// Calls at once.
const AT_ONCE: usize = 8;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The answer goes nowhere; what is longer is not read.
const MAX_BYTES: usize = 64 * 1024;

/// Makes the calls that are due, for ever.
// CANCEL: calls in progress end by themselves within PATIENCE.
pub(super) async fn make_calls(
    mut due: mpsc::Receiver<Farewell>,
    shared: Arc<Shared>,
    tls: Arc<rustls::ClientConfig>,
) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    while let Some(farewell) = due.recv().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let site = shared.site.load_full();
        let wants =
            |app: &&Arc<AppSite>| *app.config.name == *farewell.app && app.config.app_logout.is_some();
        let Some(app) = site.apps.iter().find(wants).cloned() else { continue };
        let tls = Arc::clone(&tls);
        // The task ends within PATIENCE.
        tokio::spawn(async move {
            let called = tokio::time::timeout(PATIENCE, call(&app, &farewell, &tls)).await.unwrap_or(false);
            app.metrics.farewelled(if called { Farewelled::Called } else { Farewelled::Failed });
            drop(permit);
        });
    }
}

/// Returns whether the app took the call.
async fn call(app: &AppSite, farewell: &Farewell, tls: &Arc<rustls::ClientConfig>) -> bool {
    let Some(request) = request(app, farewell) else { return false };
    let Some(upstream) = app.config.upstream.first() else { return false };
    let tls = upstream.tls.then_some(tls);
    match ask(&upstream.host, upstream.port, tls, request, MAX_BYTES).await {
        Ok((status, _)) => status.is_success() || status.is_redirection(),
        Err(error) => {
            tracing::debug!(app = %app.config.name, %error, "the app's logout could not be called");
            false
        }
    }
}

fn request(app: &AppSite, farewell: &Farewell) -> Option<Request<Empty<bytes::Bytes>>> {
    let logout = app.config.app_logout.as_ref()?;
    let upstream = app.config.upstream.first()?;
    let named = app.config.hosts.iter().find(|host| !host.starts_with('*')).cloned();
    let (host, https) = match &farewell.origin {
        Some((host, https)) => (host.to_string(), *https),
        None => (named.unwrap_or_else(|| format!("{}:{}", upstream.host, upstream.port)), false),
    };
    let mut cookie = HeaderValue::from_bytes(&farewell.cookie).ok()?;
    cookie.set_sensitive(true);
    let mut request = Request::builder()
        .method(logout.method.clone())
        .uri(logout.path.as_str())
        .header("x-forwarded-host", &host)
        .header("x-forwarded-proto", if https { "https" } else { "http" })
        .header(HOST, host)
        .header(COOKIE, cookie);
    if logout.method != Method::GET {
        request = request.header(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    request.body(Empty::new()).ok()
}
