//! The response side: draws the lesson of a response and carries it out in the table.

use std::sync::Arc;

use http::HeaderMap;
use http::header::SET_COOKIE;

use super::keep::{self, Keeping};
use super::set_cookies::{ResponseCookies, withhold};
use super::standpoint::Standpoint;
use super::visit::Visit;
use crate::session::gate::{Place, Standing};
use crate::session::identity::Identity;
use crate::session::lesson::{Cookies, Lesson, Taught, gives_other_roles, learn, outlives};
use crate::session::profile::CookieKind;
use crate::session::record::{CookieShape, NewToken, Session, Visitor};
use crate::session::{EndReason, Moment, TokenKey};
use crate::store::{Enrolled, Newcomer, SessionRef, Table};

/// What the sources said about a response.
#[derive(Default)]
pub(super) struct Named {
    /// Whom the first source that yields names.
    pub identity: Option<Identity>,
    /// The source that named the carried session's user was asked about this response and named nobody.
    pub source_silent: bool,
    /// A source could not answer; who signed in is unknown.
    pub failed: bool,
}

impl Named {
    fn is_silent(&self) -> bool {
        // A source that fell silent speaks about a new value alone: without one there is nothing to say it about.
        self.identity.is_none() && !self.failed
    }
}

/// How often a lesson is drawn anew because another answer was carried out first. Such answers come together in twos
/// and threes; one that meets more is withheld, which signs nobody in or out.
const MAX_LESSONS: usize = 3;

/// What became of the response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// It goes to the browser.
    Passes,
    /// It goes to the browser without what concerned sessions.
    Withheld,
    /// A sign-in whose user stays unknown is answered 503 (`require_user`).
    UserUnknown,
    /// The app sets more cookies than `limits.jar_bytes` allow; its answer is not passed on.
    JarFull,
    /// It goes to the browser once the store has what it changed (R22).
    PassesWhenSafe,
}

/// One response, as the lesson reads it.
struct Heard<'a> {
    table: &'a Table,
    visit: &'a Visit,
    cookies: &'a ResponseCookies,
    named: &'a Named,
    now: Moment,
}

/// A lesson that was carried out.
struct Done {
    learned: Learned,
    keeping: Keeping,
    over: Option<(SessionRef, Over)>,
}

/// How this very answer ended the session of its request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The app signed its user out.
    SignedOut,
    /// Somebody signed in on it; another one goes on in its place.
    SignedInAnew,
}

impl Over {
    const fn by(lesson: Lesson) -> Option<Self> {
        match lesson {
            Lesson::Logout | Lesson::LogoutAndStart => Some(Self::SignedOut),
            Lesson::Supersede | Lesson::Switch => Some(Self::SignedInAnew),
            Lesson::Nothing
            | Lesson::Withhold
            | Lesson::Start
            | Lesson::SignIn
            | Lesson::Identify
            | Lesson::Join
            | Lesson::Rotate => None,
        }
    }
}

impl Done {
    fn with(learned: Learned) -> Self {
        Self { learned, keeping: Keeping::default(), over: None }
    }
}

/// Draws the lesson and carries it out; edits the response's headers where something must not reach the browser. Says too how
/// the answer ended the session of its request, if it did.
pub(super) fn apply(
    table: &Table,
    visit: &mut Visit,
    cookies: &ResponseCookies,
    named: &Named,
    headers: &mut HeaderMap,
    now: Moment,
) -> (Learned, Option<Over>) {
    let sets = match &visit.app.vault {
        Some(_) => headers.contains_key(SET_COOKIE),
        None => !cookies.configured.is_empty(),
    };
    if visit.session.is_some() && visit.app.vault.is_none() {
        visit.app.metrics.habits.answered();
    }
    // Most responses say nothing: then `learn` draws no lesson, wherever the session stands.
    if named.is_silent() && !sets && visit.adopting.is_empty() {
        return (Learned::Passes, None);
    }
    let heard = Heard { table, visit, cookies, named, now };
    let done = (0..MAX_LESSONS).find_map(|_| heard.lesson(headers)).unwrap_or(Done::with(Learned::Withheld));
    let passes = matches!(done.learned, Learned::Passes | Learned::PassesWhenSafe);
    if !passes && sets {
        visit.app.metrics.withheld();
    }
    let signed_out = done.over.as_ref().filter(|(_, over)| *over == Over::SignedOut);
    match &visit.app.vault {
        Some(vault) => done.keeping.hand_out(vault, table, signed_out.map(|(ended, _)| ended), headers, now),
        None if !passes && sets => withhold(&visit.app, headers),
        None => {}
    }
    if let (Some(key), false) = (done.keeping.key(), visit.adopting.is_empty()) {
        keep::delete_adopted(visit, headers);
        visit.adopting = vec![(0, String::new(), key)];
    }
    (done.learned, done.over.map(|(_, over)| over))
}

impl Heard<'_> {
    /// Draws one lesson and carries it out. `None` when the session did not stand any more where the lesson was drawn:
    /// another answer was first, and the lesson is another one now.
    fn lesson(&self, headers: &HeaderMap) -> Option<Done> {
        let Self { table, visit, cookies, named, now } = *self;
        let tokens = tokens_of(table, visit, cookies);
        let (standpoint, change, kept) = match &visit.app.vault {
            None => {
                let (standpoint, change) = stand(table, visit, cookies, &tokens, now);
                (standpoint, change, None)
            }
            Some(vault) => {
                let (standpoint, kept) = keep::weigh(vault, table, visit, headers, now);
                let change = kept.change_for(standpoint.session.is_some());
                (standpoint, change, Some((vault, kept)))
            }
        };
        if kept.as_ref().is_some_and(|(_, kept)| kept.refused) {
            visit.app.metrics.set_cookie_unreadable(&visit.app.config.name);
        }
        if kept.as_ref().is_some_and(|(_, kept)| kept.full) {
            return Some(Done::with(Learned::JarFull));
        }
        if self.is_user_unknown(&standpoint, change) {
            return Some(Done::with(Learned::UserUnknown));
        }
        // Whom an app names while it sets a cookie that is no session's has not signed in.
        let is_sign_in =
            kept.as_ref().is_none_or(|(_, kept)| kept.is_of_session(standpoint.session.is_some()));
        let taught = Taught {
            carried: standpoint.carried(),
            cookies: change,
            identity: named.identity.as_ref().filter(|_| is_sign_in),
            source_silent: named.source_silent,
            place: visit.place,
            sign_in_known: !visit.app.config.sign_in.is_empty(),
            after_end: visit.after_end,
        };
        let lesson = learn(&taught);
        if lesson == Lesson::Withhold
            || kept
                .as_ref()
                .is_some_and(|(_, kept)| keep::is_out_of_place(table, visit, lesson, kept.cookies, now))
        {
            return Some(Done::with(Learned::Withheld));
        }
        let keeping = match kept {
            Some((vault, kept)) => Keeping::of(vault, table, visit, lesson, kept, headers, now),
            None => Keeping::tracked(tokens),
        };
        if !carry_out(table, visit, &standpoint, lesson, &keeping, named.identity.clone(), now) {
            return None;
        }
        self.notice(lesson);
        let minted = visit.app.vault.as_ref().and_then(|_| keeping.key());
        self.follow_up(&standpoint, lesson, &taught, minted, headers);
        // What the browser comes back with may reach another gateway (R23).
        let is_shared = table.is_shared() && (lesson != Lesson::Nothing || visit.app.vault.is_some());
        let signed_in = standpoint.record.as_ref().is_some_and(|record| record.times.signed_in_at.is_some());
        // A jar that goes on is written behind: no record has changed.
        let only_jar = visit.app.vault.is_some() && lesson == Lesson::Rotate;
        let learned = if is_shared || (outlives(lesson, change, signed_in) && !only_jar) {
            Learned::PassesWhenSafe
        } else {
            Learned::Passes
        };
        let over = standpoint.session.map(|(session, _)| session).zip(Over::by(lesson));
        Some(Done { learned, keeping, over })
    }

    /// Counts what an app may do all the time, and should not.
    fn notice(&self, lesson: Lesson) {
        let app = &self.visit.app;
        match lesson {
            Lesson::Rotate if app.vault.is_none() => app.metrics.habits.rotated(&app.config.name),
            Lesson::Start => {
                let is_anybody = || self.table.has_users(app.id);
                let sourced = !app.config.identity.is_empty();
                app.metrics.habits.began(&app.config.name, sourced, is_anybody);
            }
            Lesson::Nothing
            | Lesson::Withhold
            | Lesson::SignIn
            | Lesson::Identify
            | Lesson::Join
            | Lesson::Rotate
            | Lesson::Supersede
            | Lesson::Switch
            | Lesson::Logout
            | Lesson::LogoutAndStart => {}
        }
    }

    /// A sign-in without a user is withheld where one is required. The app signs in by the value that the browser has
    /// already where it sets none: that dies, or it would pass without a user.
    fn is_user_unknown(&self, standpoint: &Standpoint, change: Cookies) -> bool {
        let Self { table, visit, named, now, .. } = *self;
        let unknown = named.failed
            && visit.app.config.require_user
            && (change == Cookies::Fresh || standpoint.signs_in(visit));
        if let (true, Some((session, _)), Cookies::Untouched) = (unknown, &standpoint.session, change) {
            table.end(session, EndReason::Revoked, Some("require_user".into()), now);
        }
        unknown
    }

    /// What goes with a lesson on a session that goes on: deleted companions, the jar, other roles.
    fn follow_up(
        &self,
        standpoint: &Standpoint,
        lesson: Lesson,
        taught: &Taught<'_>,
        minted: Option<TokenKey>,
        headers: &HeaderMap,
    ) {
        let Self { table, visit, cookies, named, now } = *self;
        match &visit.app.vault {
            None => forget_deleted(table, visit, standpoint, cookies, lesson, now),
            Some(vault) if goes_on(lesson) && headers.contains_key(SET_COOKIE) => {
                if let Some((session, carried)) = &standpoint.session {
                    table.keep(session, minted.unwrap_or(*carried), now, |jar| {
                        vault.store(jar, headers, &visit.site(), now);
                    });
                }
            }
            Some(_) => {}
        }
        if let (true, Some((session, _)), Some(named)) =
            (gives_other_roles(taught), &standpoint.session, &named.identity)
        {
            table.change_roles(session, named, now);
        }
    }
}

fn goes_on(lesson: Lesson) -> bool {
    matches!(lesson, Lesson::Nothing | Lesson::Rotate | Lesson::Identify | Lesson::Join)
}

/// The response's tokens; where it sets none, those that are being adopted (R14).
fn tokens_of(table: &Table, visit: &Visit, cookies: &ResponseCookies) -> Vec<NewToken> {
    if visit.app.vault.is_some() {
        return Vec::new();
    }
    let tokens = cookies.tokens(table);
    if cookies.sets_session() || cookies.deletes_session(&[]) || visit.adopting.is_empty() {
        return tokens;
    }
    visit.adopted_tokens(table).into_iter().chain(tokens).collect()
}

/// Where the response's session stands, and what the response does to its cookies.
fn stand(
    table: &Table,
    visit: &Visit,
    cookies: &ResponseCookies,
    tokens: &[NewToken],
    now: Moment,
) -> (Standpoint, Cookies) {
    let mut standpoint = Standpoint::of_visit(table, visit, now);
    let held = held_shapes(&standpoint, visit);
    let mut change = if cookies.deletes_session(&held) { Cookies::Deleted } else { Cookies::Untouched };
    let session_tokens = tokens.iter().filter(|t| t.kind == CookieKind::Session);
    let alone = !cookies.sets_session() && standpoint.session.is_none();
    for token in session_tokens.chain(tokens.iter().filter(|t| alone && t.kind == CookieKind::Companion)) {
        if standpoint.record.as_ref().is_some_and(|record| record.holds(token.key)) {
            continue;
        }
        let (standing, owner) = table.look_up(token.key, now);
        match standing {
            Standing::Unseen | Standing::Stale | Standing::Replaced | Standing::Unavailable => {
                change = Cookies::Fresh;
            }
            Standing::Ended { .. } => return (standpoint, recycled(table, visit, owner.as_ref(), now)),
            // Another answer to this browser brought the value first: it speaks about that session.
            Standing::Live { .. } | Standing::Pending { .. }
                if standpoint.session.is_none() && standpoint.lost.is_none() =>
            {
                standpoint = Standpoint::of(table, owner.map(|owner| (owner, token.key)), visit.began, now);
            }
            Standing::Live { .. } | Standing::Pending { .. } => {}
        }
    }
    (standpoint, change)
}

/// The cookies that a deletion has to fit: those of the carried session. An answer of `logout` means what it deletes,
/// however it writes it.
fn held_shapes(standpoint: &Standpoint, visit: &Visit) -> Vec<Arc<CookieShape>> {
    let record = standpoint.record.as_ref().filter(|_| visit.place != Place::Logout);
    record.map(Session::shapes).unwrap_or_default()
}

/// A value of an ended session lives again only when the app, answering a request that came after the end and
/// carried no token, sets it itself (R12).
fn recycled(table: &Table, visit: &Visit, owner: Option<&SessionRef>, now: Moment) -> Cookies {
    let ended_at = owner.and_then(|owner| table.inspect(owner, now, |s| s.ended().map(|end| end.at)));
    let after_end = ended_at.is_none_or(|at| visit.began >= at);
    if after_end && visit.carried().is_none() && visit.adopting.is_empty() {
        Cookies::Recycled
    } else {
        Cookies::Dead
    }
}

/// Returns whether the response's cookies may reach the browser.
fn carry_out(
    table: &Table,
    visit: &Visit,
    standpoint: &Standpoint,
    lesson: Lesson,
    keeping: &Keeping,
    identity: Option<Identity>,
    now: Moment,
) -> bool {
    let carried = standpoint.session.as_ref();
    let tokens = &keeping.tokens;
    let newcomer = || newcomer(visit, keeping);
    match (lesson, carried, identity) {
        (Lesson::Withhold, ..) => false,
        // Companions, and the same value set again with other attributes.
        (Lesson::Nothing, Some((session, key)), _) => {
            tokens.is_empty() || table.rotate(session, tokens, *key, now)
        }
        (Lesson::Rotate, Some((session, key)), _) => table.rotate(session, tokens, *key, now),
        (Lesson::Start, ..) => {
            table.start(&newcomer(), now);
            true
        }
        (Lesson::SignIn, _, Some(identity)) => {
            let enrolled = enrolled(&table.sign_in(&newcomer(), identity, now));
            if enrolled {
                end_stopped(table, visit, now);
            }
            enrolled
        }
        (Lesson::Identify, Some((session, _)), Some(identity)) => {
            let identify = || table.identify(session, tokens, identity, now);
            enrolled(&seen_early_or_not(table, visit, session, identify))
        }
        (Lesson::Join, Some((session, _)), Some(_)) => table.join(session, tokens, now),
        (Lesson::Supersede, Some((session, _)), Some(identity)) => {
            enrolled(&table.succeed(session, EndReason::Superseded, newcomer(), identity, now))
        }
        (Lesson::Switch, Some((session, _)), Some(identity)) => {
            let switch = || table.succeed(session, EndReason::AccountSwitched, newcomer(), identity, now);
            enrolled(&seen_early_or_not(table, visit, session, switch))
        }
        (Lesson::Logout | Lesson::LogoutAndStart, Some((session, _)), _) => {
            table.end(session, EndReason::Logout, None, now);
            // The rest of a jar, or the anonymous cookie, lives on without the user.
            if lesson == Lesson::LogoutAndStart || !tokens.is_empty() && visit.app.vault.is_some() {
                table.start(&newcomer(), now);
            }
            true
        }
        (Lesson::Nothing, None, _) => true,
        // `learn` names these only with a session and an identity; without them nothing may reach the browser.
        (
            Lesson::Rotate
            | Lesson::SignIn
            | Lesson::Identify
            | Lesson::Join
            | Lesson::Supersede
            | Lesson::Switch
            | Lesson::Logout
            | Lesson::LogoutAndStart,
            ..,
        ) => false,
    }
}

/// Where the configuration says that people sign in elsewhere, the answer of the sign-in itself may still be on its way.
fn seen_early_or_not(
    table: &Table,
    visit: &Visit,
    carried: &SessionRef,
    enrol: impl FnOnce() -> Enrolled,
) -> Enrolled {
    match visit.place == Place::SignIn || visit.app.config.sign_in.is_empty() {
        true => enrol(),
        false => table.sign_in_early(carried, enrol),
    }
}

/// A browser that signs in again while it is held back has one session held back, not one for each try (R13). One
/// that has ended stays as it is.
fn end_stopped(table: &Table, visit: &Visit, now: Moment) {
    if let Some(stopped) = &visit.stopped {
        table.end(stopped, EndReason::Superseded, None, now);
    }
}

/// A companion that the app deletes dies alone; the session cookie's deletion is a lesson of its own.
fn forget_deleted(
    table: &Table,
    visit: &Visit,
    at: &Standpoint,
    cookies: &ResponseCookies,
    lesson: Lesson,
    now: Moment,
) {
    if !matches!(lesson, Lesson::Nothing | Lesson::Rotate | Lesson::Identify) {
        return;
    }
    if let Some((session, _)) = &at.session {
        for name in cookies.deleted_names(&held_shapes(at, visit)) {
            table.forget_cookie(session, name, now);
        }
    }
}

fn enrolled(enrolled: &Enrolled) -> bool {
    match enrolled {
        Enrolled::Active(_) | Enrolled::Pending(_) => true,
        Enrolled::Over => false,
    }
}

fn newcomer(visit: &Visit, keeping: &Keeping) -> Newcomer {
    let visitor = Visitor { ip: visit.client_ip, user_agent: visit.user_agent().into() };
    let alone = visit.carried().is_none() && visit.adopting.is_empty();
    Newcomer {
        app: visit.app.id,
        tokens: keeping.tokens.clone(),
        jar: keeping.jar.clone(),
        visitor,
        adopted: !visit.adopting.is_empty(),
        recycles: alone.then_some(visit.began),
    }
}
