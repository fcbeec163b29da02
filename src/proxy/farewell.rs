//! The app's own session ends too (`app_logout`): after an end the app's logout is called with the dead cookie, by the
//! gateway itself and apart from any request. This is the one way on which a dead token goes to the app, asked for by name,
//! and its answer reaches nobody.
//!
//! Where the gateway keeps the cookies, it can do so at the end; where the browser holds them, the value is known only when
//! the browser next brings it.

use std::sync::Arc;

use http::header::COOKIE;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::visit::Visit;
use crate::session::cookie::RequestCookies;
use crate::session::jar::Jar;
use crate::session::{EndReason, Moment};
use crate::store::{SessionRef, Table};
use crate::telemetry::{AppMetrics, Farewelled};

/// Most calls that wait; more are dropped and counted: they are a courtesy to the app, and its time-out remains.
const QUEUE: usize = 1024;

/// One call that is due.
pub struct Farewell {
    /// The app's name.
    pub app: Arc<str>,
    /// The `Cookie` header. SECURITY: secret.
    pub cookie: Zeroizing<Vec<u8>>,
    /// The host at which the browser has the cookie, and whether it came over https; `None` where that is not known.
    pub origin: Option<(Box<str>, bool)>,
}

/// Where ends leave the calls that are due. Cheap to clone.
#[derive(Clone)]
pub struct Farewells(mpsc::Sender<Farewell>);

impl Farewells {
    /// The queue and its other end.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Farewell>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// A session of an app whose cookies are kept here has ended, and this was its jar.
    pub fn of_jar(&self, app: &Arc<str>, jar: &Jar, reason: EndReason, metrics: &AppMetrics, now: Moment) {
        if is_called_for(reason) {
            let pairs: Vec<Vec<u8>> =
                jar.iter(now).map(|(name, value)| [name, b"=".as_slice(), value].concat()).collect();
            let origin = jar.origin().map(|(host, https)| (host.into(), https));
            let cookie = pairs.join(b"; ".as_slice()).into();
            self.leave(Farewell { app: Arc::clone(app), cookie, origin }, metrics);
        }
    }

    /// A request brings the dead cookie of `session`: the call is made once.
    pub(super) fn of_request(&self, visit: &Visit, table: &Table, session: &SessionRef, now: Moment) {
        let app = &visit.app;
        let dies = |s: &crate::session::record::Session| {
            s.times.signed_in_at.is_some() && s.ended().is_some_and(|end| is_called_for(end.reason))
        };
        if !table.inspect(session, now, dies) || !table.mark_farewelled(session, now) {
            return;
        }
        let fields = visit.head.headers.get_all(COOKIE).iter().map(http::HeaderValue::as_bytes);
        let cookies = RequestCookies::parse(fields, &app.config.cookies);
        let dead = |_: usize, token: &crate::session::cookie::Presented<'_>| {
            let key = app.keys.find(table, token.name, &token.id, now).key;
            table.inspect(session, now, |s| s.holds(key))
        };
        if let Some(cookie) = cookies.tokens_alone(dead) {
            let origin = Some((visit.host.name.as_str().into(), visit.https));
            let farewell = Farewell { app: app.config.name.as_str().into(), cookie: cookie.into(), origin };
            self.leave(farewell, &app.metrics);
        }
    }

    fn leave(&self, farewell: Farewell, metrics: &AppMetrics) {
        if self.0.try_send(farewell).is_err() {
            metrics.farewelled(Farewelled::Dropped);
        }
    }
}

/// At a log-out the app has ended its session itself. At a sign-in on top of a session it may have kept the cookie's value:
/// the logout would sign out who has just signed in.
const fn is_called_for(reason: EndReason) -> bool {
    !(matches!(reason, EndReason::Logout) || reason.is_by_sign_in())
}
