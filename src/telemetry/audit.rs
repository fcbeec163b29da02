//! One line for every sign-in, end and administrative act (target `audit`).

use std::net::IpAddr;

use crate::session::{EndReason, Moment, SessionId};

/// Which session an audit line is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its public id.
    pub session: SessionId,
    /// The app's name.
    pub app: &'a str,
    /// Its user.
    pub user: Option<&'a str>,
    /// Its tenant.
    pub tenant: Option<&'a str>,
    /// When it happened.
    pub at: Moment,
}

macro_rules! line {
    ($subject:expr, $act:literal $(, $name:ident = $value:expr)*) => {
        tracing::info!(
            target: "audit",
            act = $act,
            session = %$subject.session,
            app = $subject.app,
            user = $subject.user,
            tenant = $subject.tenant,
            at_ms = $subject.at.unix_ms(),
            $($name = $value,)*
        )
    };
}

/// Somebody signed in.
pub fn signed_in(subject: &Subject<'_>) {
    line!(subject, "signed_in");
}

/// Somebody signed in beyond the limit and is held back.
pub fn held_back(subject: &Subject<'_>) {
    line!(subject, "held_back");
}

/// A session ended.
pub fn ended(subject: &Subject<'_>, reason: EndReason, by: Option<&str>) {
    line!(subject, "ended", reason = reason.as_str(), by = by);
}

/// An operator did something. `what` names the act, `detail` its object (a filter, a count), never a secret.
pub fn administered(who: &str, what: &str, detail: &str) {
    tracing::info!(target: "audit", act = what, by = who, detail);
}

/// A call of the admin API had no token, or a wrong one.
pub fn admin_refused(peer: Option<IpAddr>, path: &str) {
    let ip = peer.map(tracing::field::display);
    tracing::warn!(target: "audit", act = "admin_refused", ip, path);
}
