//! One line for every request, written when its guard is dropped: after the body has flowed, or been broken off.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, StatusCode};

use super::metrics::AppMetrics;
use crate::clock::Stopwatch;
use crate::session::SessionId;
use crate::session::identity::Identity;

/// The longest path in a line, in bytes.
const MAX_PATH_BYTES: usize = 512;

/// A request that is being handled. Recorded exactly once, by its drop; a request whose browser went away before an
/// answer was found counts as `client_gone`.
pub struct AccessGuard {
    began: Stopwatch,
    app: Arc<AppMetrics>,
    client: IpAddr,
    method: Method,
    path: String,
    status: Option<StatusCode>,
    outcome: &'static str,
    session: Option<SessionId>,
    identity: Option<Arc<Identity>>,
    received: u64,
    sent: u64,
}

impl AccessGuard {
    /// The record of a request that came when `began` was started, for `app`, from `client`.
    #[must_use]
    pub fn new(began: Stopwatch, app: &Arc<AppMetrics>, client: IpAddr, method: &Method) -> Self {
        Self {
            began,
            app: Arc::clone(app),
            client,
            method: method.clone(),
            path: String::new(),
            status: None,
            outcome: "client_gone",
            session: None,
            identity: None,
            received: 0,
            sent: 0,
        }
    }

    /// Notes where it goes. `path` comes without its query, which may hold secrets.
    #[must_use]
    pub fn to(mut self, path: &str) -> Self {
        if is_written() {
            self.path.extend(path.chars().filter(|c| !c.is_control()).take(MAX_PATH_BYTES));
        }
        self
    }

    /// For whose session it goes; asked only where it is written.
    pub fn session(&mut self, session: impl FnOnce() -> Option<(SessionId, Option<Arc<Identity>>)>) {
        if is_written()
            && let Some((id, identity)) = session()
        {
            self.session = Some(id);
            self.identity = identity;
        }
    }

    /// The answer's head, while its body still flows.
    pub fn status(&mut self, status: StatusCode, outcome: &'static str) {
        self.status = Some(status);
        self.outcome = outcome;
    }

    /// The answer, when it is one of our own.
    pub fn finish(&mut self, status: StatusCode, outcome: &'static str) {
        self.status(status, outcome);
    }

    /// Bytes of the request's body.
    pub fn received(&mut self, bytes: u64) {
        self.received = bytes;
    }

    /// More bytes of the answer's body.
    pub fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// The upstream broke off in the middle of the answer.
    pub fn broke_off(&mut self) {
        self.outcome = "broke_off";
    }
}

/// Whether access lines are written at all; otherwise nothing is gathered for them.
fn is_written() -> bool {
    tracing::enabled!(target: "access", tracing::Level::INFO)
}

impl Drop for AccessGuard {
    fn drop(&mut self) {
        let micros = self.began.elapsed_us();
        let status = self.status.map_or(0, |status| status.as_u16());
        self.app.request(status, self.outcome, micros);
        let identity = self.identity.as_deref();
        tracing::info!(
            target: "access",
            app = self.app.name(),
            client = %self.client,
            method = self.method.as_str(),
            path = self.path,
            status,
            outcome = self.outcome,
            session = self.session.map(tracing::field::display),
            user = identity.map(|i| i.user.as_str()),
            tenant = identity.map(|i| i.tenant.as_str()),
            bytes_in = self.received,
            bytes_out = self.sent,
            us = micros,
        );
    }
}
