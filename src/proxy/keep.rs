//! The response side where an app's cookies are kept from the browser: what a response leaves in the session's jar, and
//! which value of our own cookie the browser gets for it.

use std::sync::Arc;

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};

use super::standpoint::Standpoint;
use super::visit::Visit;
use crate::session::cookie::{RequestCookies, deletion};
use crate::session::gate::{Place, Standing};
use crate::session::jar::{Jar, Site};
use crate::session::lesson::{Cookies, Lesson};
use crate::session::profile::CookieKind;
use crate::session::record::{NewToken, State};
use crate::session::{Moment, TokenKey};
use crate::store::{SessionRef, Table};
use crate::vault::{Kept, Minted, Vault};

/// Where a response's session stands, and what the response does to its jar.
pub(super) fn weigh(
    vault: &Vault,
    table: &Table,
    visit: &Visit,
    headers: &HeaderMap,
    now: Moment,
) -> (Standpoint, Kept) {
    let standpoint = Standpoint::of_visit(table, visit, now);
    if let Some(kept) = adopted(vault, visit, headers, now) {
        return (standpoint, kept);
    }
    let before = standpoint.record.as_ref().and_then(|record| record.jar.clone());
    let logs_out = visit.place == Place::Logout;
    let kept = vault.keep(before.as_deref(), headers, logs_out, &visit.site(), now);
    (standpoint, kept)
}

/// The jar of a browser from before the roll-out, if the app took its cookies: it neither set a new session cookie nor
/// deleted the one it got (R14).
fn adopted(vault: &Vault, visit: &Visit, headers: &HeaderMap, now: Moment) -> Option<Kept> {
    let cookie = visit.cookie().filter(|_| !visit.adopting.is_empty())?;
    let brought = vault.adopt(cookie, &visit.site(), now)?;
    let kept = vault.keep(Some(&brought), headers, visit.place == Place::Logout, &visit.site(), now);
    (kept.cookies == Cookies::Untouched).then_some(Kept { cookies: Cookies::Fresh, ..kept })
}

/// Whether a vault must begin no session for this answer.
pub(super) fn is_out_of_place(
    table: &Table,
    visit: &Visit,
    lesson: Lesson,
    cookies: Cookies,
    now: Moment,
) -> bool {
    let begins = matches!(lesson, Lesson::Start | Lesson::SignIn);
    (begins && was_adopted(table, visit, now))
        || (lesson == Lesson::Start && must_not_begin(table, visit, cookies, now))
}

/// Whether another answer has adopted what this request brought.
fn was_adopted(table: &Table, visit: &Visit, now: Moment) -> bool {
    visit.adopting.iter().any(|(_, _, key)| table.look_up(*key, now).0 != Standing::Unseen)
}

/// Whether the answer must not give the browser another value of ours than it has: where it could not send it (a form from
/// another site), unless that is how an identity provider sends back who signs in; and, for a cookie that is no session's,
/// where it has one whose end nobody has told it of yet, or that is held back.
fn must_not_begin(table: &Table, visit: &Visit, cookies: Cookies, now: Moment) -> bool {
    if visit.is_foreign_write && visit.place != Place::SignIn {
        return true;
    }
    let waits = |session: &SessionRef| {
        table.inspect(session, now, |s| match &s.state {
            State::Pending(_) => true,
            State::Ended(end) => end.reason.is_told() && !end.told && s.times.signed_in_at.is_some(),
            State::Active => false,
        })
    };
    let of_no_session = visit.place == Place::Public && cookies != Cookies::Fresh;
    of_no_session && visit.stopped.as_ref().is_some_and(waits)
}

/// Whether the response gives the session a new value of the app's session cookie.
pub(super) fn brings_new_value(
    vault: &Vault,
    table: &Table,
    visit: &Visit,
    headers: &HeaderMap,
    now: Moment,
) -> bool {
    weigh(vault, table, visit, headers, now).1.cookies == Cookies::Fresh
}

/// The cookies for a request of our own to `path`, as a browser would send them after this response. SECURITY: secret.
pub(super) fn cookie_after(
    vault: &Vault,
    table: &Table,
    visit: &Visit,
    headers: &HeaderMap,
    path: &str,
    now: Moment,
) -> Vec<u8> {
    let (_, kept) = weigh(vault, table, visit, headers, now);
    let path = path.split('?').next().unwrap_or(path);
    let cookies = RequestCookies::parse(visit.cookie().into_iter(), &[]);
    vault.header(&cookies, Some(&kept.jar), &Site { path, ..visit.site() }, now).unwrap_or_default()
}

/// What a lesson does to jar and cookie.
#[derive(Default)]
pub(super) struct Keeping {
    /// For the session that begins, or that gains a user: its token.
    pub tokens: Vec<NewToken>,
    /// For the session that begins.
    pub jar: Option<Arc<Jar>>,
    minted: Option<Minted>,
}

impl Keeping {
    /// Of an app whose cookies the browser holds: `tokens` are the response's.
    pub(super) fn tracked(tokens: Vec<NewToken>) -> Self {
        Self { tokens, ..Self::default() }
    }

    /// Prepares `lesson`: whoever signs in gets a new value of our cookie, or it could have been planted before (session
    /// fixation). Without a sign-in the value stays, whatever the app does to its own cookies.
    pub(super) fn of(
        vault: &Vault,
        table: &Table,
        visit: &Visit,
        lesson: Lesson,
        kept: Kept,
        headers: &HeaderMap,
        now: Moment,
    ) -> Self {
        let mut jar = kept.jar;
        match lesson {
            Lesson::Nothing | Lesson::Withhold | Lesson::Rotate => return Self::default(),
            Lesson::Start
            | Lesson::SignIn
            | Lesson::Identify
            | Lesson::Join
            | Lesson::Supersede
            | Lesson::Switch => {}
            Lesson::Logout | Lesson::LogoutAndStart => {
                vault.forget_sign_in(&mut jar);
                vault.store(&mut jar, headers, &visit.site(), now);
                if jar.is_empty() {
                    return Self::default();
                }
            }
        }
        let minted = vault.mint(visit.https);
        let token = NewToken {
            key: visit.app.keys.key(minted.shape.name.as_bytes(), minted.value.as_bytes()),
            kind: CookieKind::Session,
            shape: table.intern(minted.shape.clone()),
        };
        // What was adopted is known from now on: it is adopted once, and dead with its session (R14).
        let tokens = std::iter::once(token).chain(visit.adopted_tokens(table)).collect();
        Self { tokens, jar: Some(Arc::new(jar)), minted: Some(minted) }
    }

    /// The key of the new value.
    pub(super) fn key(&self) -> Option<TokenKey> {
        self.tokens.first().map(|token| token.key)
    }

    /// Replaces the app's cookies in the answer by ours: the new value, or, after a log-out that left nothing behind,
    /// the deletion of the old one.
    pub(super) fn hand_out(
        &self,
        vault: &Vault,
        table: &Table,
        ended: Option<&SessionRef>,
        headers: &mut HeaderMap,
        now: Moment,
    ) {
        vault.take_out(headers);
        if let Some(minted) = &self.minted {
            let max_age = self.jar.as_deref().and_then(|jar| vault.max_age(jar));
            headers.extend(minted.field(max_age).map(|field| (SET_COOKIE, field)));
            return;
        }
        for shape in ended.map(|session| table.inspect(session, now, |s| s.shapes())).unwrap_or_default() {
            let field = HeaderValue::from_str(&deletion(&shape.name, &shape.attributes)).ok();
            headers.extend(field.map(|field| (SET_COOKIE, field)));
        }
    }
}

/// Deletes in the browser what it brought from before the roll-out; nobody saw how it was set, so as most apps do.
pub(super) fn delete_adopted(visit: &Visit, headers: &mut HeaderMap) {
    let cookie = visit.cookie().unwrap_or_default();
    let shape = crate::session::cookie::Attributes { path: "/".to_owned(), ..Default::default() };
    for pair in cookie.split(|b| *b == b';').map(<[u8]>::trim_ascii) {
        let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
        if visit.app.vault.as_ref().is_some_and(|vault| vault.passes(name)) {
            continue;
        }
        let field = std::str::from_utf8(name).ok().map(|name| deletion(name, &shape));
        let field = field.and_then(|field| HeaderValue::from_str(&field).ok());
        headers.extend(field.map(|field| (SET_COOKIE, field)));
    }
}
