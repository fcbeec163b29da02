//! The request side: from the tokens that a request presents to an action.

use std::sync::Arc;

use smallvec::SmallVec;

use super::site::AppSite;
use crate::session::activity::{Asked, Kind};
use crate::session::cookie::RequestCookies;
use crate::session::fields::{Field, Fields};
use crate::session::gate::{Action, Evidence, Facts, Kept, Place, Standing, Unseen, Weighed, decide, weigh};
use crate::session::jar;
use crate::session::profile::CookieKind;
use crate::session::{Moment, SessionId, TokenKey};
use crate::store::{Known, SessionRef, Table};
use crate::vault::Vault;

/// What a request presents and what is to be done with it.
pub(super) struct Intake {
    /// The store has to be asked for these tokens first; until then the action is that of a store that cannot say.
    pub asks: Vec<TokenKey>,
    /// The action.
    pub action: Action,
    /// What answer the request expects.
    pub kind: Kind,
    /// Where it goes.
    pub place: Place,
    /// The session that the action speaks of; taken over by [`Visit::carry`](super::visit::Visit::carry).
    pub session: Option<SessionRef>,
    /// The token by which the session was presented.
    pub key: Option<TokenKey>,
    /// The live session was presented only by the value from before a rotation.
    pub by_alias: bool,
    /// A dead token of somebody's ended session was presented.
    pub after_end: bool,
    /// A value was presented that a sign-in has just replaced.
    pub overtaken: bool,
    /// The session's last activity before this request, where the app may say that it was none.
    pub active_before: Option<Moment>,
    /// The `Cookie` header to forward.
    pub cookie: Cookie,
    /// Unseen tokens that travel on to be adopted: rule index, name and key.
    pub adopting: Vec<(usize, String, TokenKey)>,
    /// Names of the chunks of configured cookies, whether they belong to one or not.
    pub chunks: Vec<String>,
}

/// A `Cookie` header on its way to the app. SECURITY: secret.
pub(super) enum Cookie {
    /// The browser's own, byte for byte.
    AsItCame,
    /// Written anew, or left out.
    Written(Option<Vec<u8>>),
}

impl Default for Cookie {
    /// SECURITY: none, where nobody has judged.
    fn default() -> Self {
        Self::Written(None)
    }
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// The app, at this place.
    App(Place),
    /// The gateway itself, under its reserved prefix.
    Gateway,
}

impl Destination {
    const fn place(self) -> Place {
        match self {
            Self::App(place) => place,
            Self::Gateway => Place::Other,
        }
    }
}

/// What is known of a store that gateways share.
#[derive(Clone, Copy)]
pub(super) enum Inquired<'a> {
    /// It was not asked.
    NotYet,
    /// It was asked, and cannot say what these tokens are worth.
    Silent(&'a [TokenKey]),
    /// It has been away for so long that nobody can say whether a session lives (`outage_max`).
    CutOff,
}

struct Found {
    key: TokenKey,
    /// Other keys under which a shared store may know it, where this gateway does not; see [`Known`].
    others: SmallVec<[TokenKey; 1]>,
    /// The key that it is to have.
    rekeyed: Option<TokenKey>,
    standing: Standing,
    session: Option<SessionRef>,
    /// A cookie of the gateway's own.
    ours: bool,
}

impl Intake {
    /// Reads the request, looks its tokens up and decides. A live session is noted (and touched) in the same step,
    /// unless the request is for the gateway itself: looking at one's session is no activity of it (law 3).
    pub(super) fn read(
        app: &AppSite,
        table: &Table,
        asked: &Asked<'_>,
        (browser, https): (&jar::Site<'_>, bool),
        to: Destination,
        inquired: Inquired<'_>,
        now: Moment,
    ) -> Self {
        let fields = asked.fields.all(Field::Cookie).map(http::HeaderValue::as_bytes);
        let cookies = RequestCookies::parse(fields, app.presented(https));
        let mut found = look_up(app, table, &cookies, now);
        let asks = settle_unknown(app, table, &mut found, inquired, now);
        let (evidence, kept) = weigh(&weighed(&cookies, &found), cookies.dropped);
        let (facts, rules) = (facts(app, asked, to.place()), app.rules_at(now));
        let active_before = active_before(app, table, &found, evidence, now);
        let action = match to {
            Destination::App(_) => note(table, &rules, &facts, evidence, &found, now),
            Destination::Gateway => decide(&rules, &facts, evidence),
        };
        if asks.is_empty() {
            count(app, &cookies, evidence, &found, &facts);
        }
        let session_id = id_of(evidence);
        let after_end = found.iter().any(|f| matches!(f.standing, Standing::Ended { signed_in: true, .. }));
        let overtaken = found.iter().any(|f| is_overtaken(table, f, now));
        let adopting = if action == Action::Adopt { adopting(app, &cookies, &found) } else { Vec::new() };
        let chosen = session_id.and_then(|id| found.iter_mut().find(|f| names(f.standing, id)));
        let (key, session) = chosen.map_or((None, None), |f| (Some(f.key), f.session.take()));
        let cookie = match &app.vault {
            Some(vault) if adopting.is_empty() => {
                let jar = travels(action).then(|| jar_of(table, session.as_ref(), now)).flatten();
                Cookie::Written(vault.header(&cookies, jar.as_deref(), browser, now))
            }
            Some(_) | None if cookies.needs_rewrite() => {
                Cookie::Written(forwarded(app, &cookies, &found, &kept, action))
            }
            Some(_) | None => Cookie::AsItCame,
        };
        Self {
            asks,
            action,
            kind: facts.kind,
            place: facts.place,
            session,
            key,
            by_alias: matches!(evidence, Evidence::Live { alias: true, .. }),
            after_end,
            overtaken,
            active_before,
            cookie,
            adopting,
            chunks: cookies.chunks.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
        }
    }
}

/// Where gateways share a store, a token that nobody has seen here may be known there: returns those that the store is to be
/// asked for. What it cannot speak of is not unseen (R23).
fn settle_unknown(
    app: &AppSite,
    table: &Table,
    found: &mut [Found],
    inquired: Inquired<'_>,
    now: Moment,
) -> Vec<TokenKey> {
    if !table.is_shared() {
        return Vec::new();
    }
    let mut asks = Vec::new();
    // Other cookies of an app whose cookies are kept here stand for no session, but may have been adopted elsewhere.
    let adopts = app.rules_at(now).unseen == Unseen::Adopt;
    for f in found.iter_mut().filter(|f| app.vault.is_none() || f.ours || adopts) {
        let cannot_say = match inquired {
            Inquired::NotYet => table.has_to_ask(f.standing),
            Inquired::Silent(keys) => {
                let is_silent = |key: &TokenKey| keys.contains(key);
                f.standing == Standing::Unseen && (is_silent(&f.key) || f.others.iter().any(is_silent))
            }
            Inquired::CutOff => !matches!(f.standing, Standing::Ended { .. }),
        };
        if cannot_say {
            f.standing = Standing::Unavailable;
        }
        if cannot_say && matches!(inquired, Inquired::NotYet) {
            asks.push(f.key);
            asks.extend(&f.others);
        }
    }
    asks
}

/// Whether a sign-in has just taken the place of the value that was found: on the same session, or by a new one.
fn is_overtaken(table: &Table, found: &Found, now: Moment) -> bool {
    match (found.standing, &found.session) {
        (Standing::Replaced, _) => true,
        (Standing::Ended { reason, .. }, Some(session)) if reason.is_by_sign_in() => {
            table.is_fresh_end(session, now)
        }
        (
            Standing::Unseen
            | Standing::Stale
            | Standing::Live { .. }
            | Standing::Pending { .. }
            | Standing::Ended { .. }
            | Standing::Unavailable,
            _,
        ) => false,
    }
}

fn look_up(app: &AppSite, table: &Table, cookies: &RequestCookies<'_>, now: Moment) -> SmallVec<[Found; 2]> {
    let find = |token: &crate::session::cookie::Presented<'_>| {
        let Known { key, others, rekeyed } = app.keys.find(table, token.name, &token.id, now);
        let (standing, session) = table.look_up(key, now);
        let found = Found { key, others, rekeyed, standing, session, ours: false };
        // What a browser holds of an app whose cookies are kept here is from before; it never stands for a session. One that
        // was adopted is not adopted again, and is dead with its session (R14).
        if app.vault.is_some() && !Vault::is_ours(token.rule) {
            return match standing {
                Standing::Unseen | Standing::Ended { .. } => found,
                _ => Found { standing: Standing::Stale, session: None, ..found },
            };
        }
        Found { ours: app.vault.is_some(), ..found }
    };
    cookies.tokens.iter().map(find).collect()
}

fn weighed<'a>(cookies: &RequestCookies<'a>, found: &[Found]) -> SmallVec<[Weighed<'a>; 2]> {
    let pairs = cookies.tokens.iter().zip(found);
    pairs.map(|(token, f)| Weighed { name: token.name, kind: token.kind, standing: f.standing }).collect()
}

fn facts(app: &AppSite, asked: &Asked<'_>, place: Place) -> Facts {
    Facts {
        kind: asked.kind(),
        place,
        activity: asked.is_activity(&app.config.inactive),
        credentials: has_credentials(asked.fields),
    }
}

fn has_credentials(fields: &Fields<'_>) -> bool {
    let scheme = |value: &http::HeaderValue| {
        let text = value.as_bytes().trim_ascii_start();
        [b"basic ".as_slice(), b"bearer "]
            .iter()
            .any(|s| text.get(..s.len()).is_some_and(|head| head.eq_ignore_ascii_case(s)))
    };
    fields.all(Field::Authorization).any(scheme)
}

/// Decides, and notes the request on its live session. Should the session have ended between look-up and note, the
/// evidence is taken anew: a touch follows from a live verdict only (law 3).
fn note(
    table: &Table,
    rules: &crate::session::gate::Rules,
    facts: &Facts,
    evidence: Evidence,
    found: &[Found],
    now: Moment,
) -> Action {
    let action = decide(rules, facts, evidence);
    let Action::Forward { session: id, touch } = action else { return action };
    let chosen = found.iter().find(|f| names(f.standing, id));
    let Some((f, session)) = chosen.and_then(|f| Some((f, f.session.as_ref()?))) else { return action };
    if table.note_request(session, f.key, touch, now) {
        if let Some(to) = f.rekeyed {
            table.rekey(session, f.key, to, now);
        }
        return action;
    }
    let (standing, _) = table.look_up(f.key, now);
    match standing {
        Standing::Ended { session, reason, signed_in, told } => {
            decide(rules, facts, Evidence::Ended { session, reason, signed_in, told })
        }
        Standing::Unavailable => Action::Unavailable,
        Standing::Unseen
        | Standing::Stale
        | Standing::Replaced
        | Standing::Live { .. }
        | Standing::Pending { .. } => Action::ForwardWithout,
    }
}

fn names(standing: Standing, id: SessionId) -> bool {
    match standing {
        Standing::Live { session, .. } | Standing::Pending { session } | Standing::Ended { session, .. } => {
            session == id
        }
        Standing::Unseen | Standing::Stale | Standing::Replaced | Standing::Unavailable => false,
    }
}

fn id_of(evidence: Evidence) -> Option<SessionId> {
    match evidence {
        Evidence::Live { session, .. } | Evidence::Pending { session } | Evidence::Ended { session, .. } => {
            Some(session)
        }
        Evidence::NoToken | Evidence::Malformed | Evidence::Unseen | Evidence::Unavailable => None,
    }
}

fn count(app: &AppSite, cookies: &RequestCookies<'_>, evidence: Evidence, found: &[Found], facts: &Facts) {
    if cookies.dropped > 0 {
        app.metrics.cookies_dropped(cookies.dropped as u64);
    }
    // What was issued and is dead (a companion, an alias past its grace) is evidence of nothing either, and no advice is due.
    if evidence == Evidence::Unseen && found.iter().any(|f| f.standing == Standing::Unseen) {
        app.metrics.unseen();
    }
    if facts.credentials && evidence == Evidence::NoToken && !app.reads_credentials {
        app.metrics.habits.unidentified(&app.config.name);
    }
}

fn adopting(app: &AppSite, cookies: &RequestCookies<'_>, found: &[Found]) -> Vec<(usize, String, TokenKey)> {
    let pairs = cookies.tokens.iter().zip(found);
    pairs
        .enumerate()
        .filter(|(index, _)| is_adoptable(app, cookies, found, *index))
        .map(|(_, (token, f))| (token.rule, String::from_utf8_lossy(token.name).into_owned(), f.key))
        .collect()
}

/// Of duplicates of one cookie the first alone may be adopted, or the app could count another than we do (law 7). A made-up
/// value of our own cookie stands for nothing that could be adopted.
fn is_adoptable(app: &AppSite, cookies: &RequestCookies<'_>, found: &[Found], index: usize) -> bool {
    if app.vault.is_some() && cookies.tokens.get(index).is_some_and(|token| Vault::is_ours(token.rule)) {
        return false;
    }
    let unseen = |i: usize| found.get(i).is_some_and(|f| f.standing == Standing::Unseen);
    let named = |i: usize| cookies.tokens.get(i).map(|token| token.name);
    unseen(index) && !(0..index).any(|before| unseen(before) && named(before) == named(index))
}

fn active_before(
    app: &AppSite,
    table: &Table,
    found: &[Found],
    evidence: Evidence,
    now: Moment,
) -> Option<Moment> {
    let id = id_of(evidence).filter(|_| app.config.app_commands)?;
    let session = found.iter().find(|f| names(f.standing, id))?.session.as_ref()?;
    Some(table.inspect(session, now, |s| s.times.last_active_at))
}

fn travels(action: Action) -> bool {
    matches!(action, Action::Forward { .. })
}

fn jar_of(table: &Table, session: Option<&SessionRef>, now: Moment) -> Option<Arc<jar::Jar>> {
    table.inspect(session?, now, |s| s.jar.clone())
}

/// SECURITY: the only place that says which tokens reach the app (law 6), besides [`Vault::header`].
fn forwarded(
    app: &AppSite,
    cookies: &RequestCookies<'_>,
    found: &[Found],
    kept: &Kept,
    action: Action,
) -> Option<Vec<u8>> {
    cookies.forwarded(|index, token| match action {
        Action::Forward { .. } => kept.get(index).copied().unwrap_or(false),
        // A companion that nobody saw being issued travels with the cookie that is adopted, never alone.
        Action::Adopt => {
            is_adoptable(app, cookies, found, index)
                && (token.kind == CookieKind::Session
                    || cookies.tokens.iter().any(|other| other.kind == CookieKind::Session))
        }
        Action::ForwardWithout
        | Action::Tell { .. }
        | Action::TellByPassing { .. }
        | Action::HoldBack { .. }
        | Action::RefuseUnidentified
        | Action::Unavailable => false,
    })
}
