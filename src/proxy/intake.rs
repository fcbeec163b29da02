//! The request side: from the tokens that a request presents to an action.

use http::HeaderMap;
use smallvec::SmallVec;

use super::site::AppSite;
use crate::session::activity::{Asked, Kind};
use crate::session::cookie::RequestCookies;
use crate::session::gate::{Action, Evidence, Facts, Kept, Place, Standing, Weighed, decide, weigh};
use crate::session::profile::CookieKind;
use crate::session::{Moment, SessionId, TokenKey};
use crate::store::{SessionRef, Table};

/// What a request presents and what is to be done with it.
pub(super) struct Intake {
    /// The action.
    pub action: Action,
    /// What answer the request expects.
    pub kind: Kind,
    /// Where it goes.
    pub place: Place,
    /// The session that the action speaks of.
    pub session: Option<SessionRef>,
    /// The token by which the session was presented.
    pub key: Option<TokenKey>,
    /// The live session was presented only by the value from before a rotation.
    pub by_alias: bool,
    /// A dead token of somebody's ended session was presented.
    pub after_end: bool,
    /// The `Cookie` header to forward: `None` leaves the header as it is, `Some(None)` removes it.
    pub cookie: Option<Option<Vec<u8>>>,
    /// Unseen tokens that travel on to be adopted: rule index, name and key.
    pub adopting: Vec<(usize, String, TokenKey)>,
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

struct Found {
    key: TokenKey,
    standing: Standing,
    session: Option<SessionRef>,
}

impl Intake {
    /// Reads the request, looks its tokens up and decides. A live session is noted (and touched) in the same step,
    /// unless the request is for the gateway itself: looking at one's session is no activity of it (law 3).
    pub(super) fn read(
        app: &AppSite,
        table: &Table,
        asked: &Asked<'_>,
        to: Destination,
        now: Moment,
    ) -> Self {
        let fields = asked.headers.get_all(http::header::COOKIE).iter().map(http::HeaderValue::as_bytes);
        let cookies = RequestCookies::parse(fields, &app.config.cookies);
        let found = look_up(app, table, &cookies, now);
        let (evidence, kept) = weigh(&weighed(&cookies, &found), cookies.dropped);
        let facts = facts(app, asked, to.place());
        let action = match to {
            Destination::App(_) => note(table, &app.rules, &facts, evidence, &found, now),
            Destination::Gateway => decide(&app.rules, &facts, evidence),
        };
        count(app, &cookies, evidence);
        let session_id = id_of(evidence);
        let chosen = session_id.and_then(|id| found.iter().find(|f| names(f.standing, id)));
        let adopting = if action == Action::Adopt { adopting(&cookies, &found) } else { Vec::new() };
        Self {
            action,
            kind: facts.kind,
            place: facts.place,
            session: chosen.and_then(|f| f.session.clone()),
            key: chosen.map(|f| f.key),
            by_alias: matches!(evidence, Evidence::Live { alias: true, .. }),
            after_end: found.iter().any(|f| matches!(f.standing, Standing::Ended { signed_in: true, .. })),
            cookie: cookies.needs_rewrite().then(|| forwarded(&cookies, &found, &kept, action)),
            adopting,
        }
    }
}

fn look_up(app: &AppSite, table: &Table, cookies: &RequestCookies<'_>, now: Moment) -> SmallVec<[Found; 2]> {
    let find = |token: &crate::session::cookie::Presented<'_>| {
        let key = app.hasher.key(token.name, &token.id);
        let (standing, session) = table.look_up(key, now);
        Found { key, standing, session }
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
        credentials: has_credentials(asked.headers),
    }
}

fn has_credentials(headers: &HeaderMap) -> bool {
    let scheme = |value: &http::HeaderValue| {
        let text = value.as_bytes().trim_ascii_start();
        [b"basic ".as_slice(), b"bearer "]
            .iter()
            .any(|s| text.get(..s.len()).is_some_and(|head| head.eq_ignore_ascii_case(s)))
    };
    headers.get_all(http::header::AUTHORIZATION).iter().any(scheme)
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
        return action;
    }
    let (standing, _) = table.look_up(f.key, now);
    match standing {
        Standing::Ended { session, reason, signed_in, told } => {
            decide(rules, facts, Evidence::Ended { session, reason, signed_in, told })
        }
        Standing::Unseen
        | Standing::Stale
        | Standing::Live { .. }
        | Standing::Pending { .. }
        | Standing::Unavailable => Action::ForwardWithout,
    }
}

fn names(standing: Standing, id: SessionId) -> bool {
    match standing {
        Standing::Live { session, .. } | Standing::Pending { session } | Standing::Ended { session, .. } => {
            session == id
        }
        Standing::Unseen | Standing::Stale | Standing::Unavailable => false,
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

fn count(app: &AppSite, cookies: &RequestCookies<'_>, evidence: Evidence) {
    if cookies.dropped > 0 {
        app.metrics.cookies_dropped(cookies.dropped as u64);
    }
    if evidence == Evidence::Unseen {
        app.metrics.unseen();
    }
}

fn adopting(cookies: &RequestCookies<'_>, found: &[Found]) -> Vec<(usize, String, TokenKey)> {
    let pairs = cookies.tokens.iter().zip(found);
    pairs
        .enumerate()
        .filter(|(index, _)| is_adoptable(cookies, found, *index))
        .map(|(_, (token, f))| (token.rule, String::from_utf8_lossy(token.name).into_owned(), f.key))
        .collect()
}

/// Of duplicates of one cookie the first alone may be adopted, or the app could count another than we do (law 7).
fn is_adoptable(cookies: &RequestCookies<'_>, found: &[Found], index: usize) -> bool {
    let unseen = |i: usize| found.get(i).is_some_and(|f| f.standing == Standing::Unseen);
    let named = |i: usize| cookies.tokens.get(i).map(|token| token.name);
    unseen(index) && !(0..index).any(|before| unseen(before) && named(before) == named(index))
}

/// SECURITY: the only place that says which tokens reach the app (law 6).
fn forwarded(cookies: &RequestCookies<'_>, found: &[Found], kept: &Kept, action: Action) -> Option<Vec<u8>> {
    cookies.forwarded(|index, token| match action {
        Action::Forward { .. } => kept.get(index).copied().unwrap_or(false),
        // A companion that nobody saw being issued travels with the cookie that is adopted, never alone.
        Action::Adopt => {
            is_adoptable(cookies, found, index)
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
