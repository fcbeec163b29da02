//! How sessions begin and gain users: the critical sections.
//!
//! The entry of the index user -> sessions is the critical section of `admit` (law 5): while it is held, the user's
//! sessions are judged, those above the limit end, and the new one joins, in one step for everybody.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cell::{Cell, SessionRef};
use super::journal::Changed;
use super::keys::random_bytes;
use super::link::Revives;
use super::table::{Table, UserKey, settle};
use super::{Event, EventKind};
use crate::session::identity::Identity;
use crate::session::jar::Jar;
use crate::session::policy::{Admission, Policy, admit};
use crate::session::record::{
    AppId, FellOut, Mode, NewToken, PENDING_FOR, Session, Settled, State, Visitor, is_newer,
};
use crate::session::{EndReason, Moment, SessionId, Span, TokenKey};

/// A session that is about to begin.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// Whose.
    pub app: AppId,
    /// The cookies that the response sets.
    pub tokens: Vec<NewToken>,
    /// The app's cookies, where they are kept from the browser.
    pub jar: Option<Arc<Jar>>,
    /// Where the browser is.
    pub visitor: Visitor,
    /// Its cookie was there before the gateway (R14, R17).
    pub adopted: bool,
    /// Values of sessions that had ended by then may begin their next generation with it: the response answers a
    /// request of that moment, which carried no token (R12).
    pub recycles: Option<Moment>,
}

/// What came of a sign-in.
#[derive(Clone)]
pub enum Enrolled {
    /// The session is active.
    Active(SessionRef),
    /// It is held back.
    Pending(SessionRef),
    /// The session does not stand where the lesson was drawn any more: it ended, and nothing brings it back, or
    /// another answer was first.
    Over,
}

/// What the session must be for an identity to be enrolled on it; asked again in the critical section, because the
/// lesson was drawn outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// New, and nobody knows it yet.
    New,
    /// Live, and nobody has signed in on it.
    Anonymous,
    /// Held back.
    HeldBack,
}

impl Entry {
    fn is_open(self, session: &Session, now: Moment) -> bool {
        match self {
            Self::New => !session.is_over(),
            Self::Anonymous => session.is_live(now) && session.times.signed_in_at.is_none(),
            Self::HeldBack => !session.is_over() && matches!(session.state, State::Pending(_)),
        }
    }
}

/// What a critical section leaves to be told after its locks are released.
pub(super) type Aftermath = Vec<(Arc<Cell>, EventKind)>;

impl Table {
    /// Begins an anonymous session. Where another answer has begun one on the very same value, it is that one.
    pub fn start(&self, newcomer: &Newcomer, now: Moment) -> SessionRef {
        let admissible = self.admissible(None, &newcomer.tokens, newcomer.revives(), now);
        if let (true, Some(owner)) = (admissible.tokens.is_empty(), self.owner_of_first(&newcomer.tokens)) {
            return SessionRef(owner);
        }
        let cell = self.make(newcomer, &admissible.tokens, now);
        let bound = self.bound.load().book.anonymous_sessions;
        // ORDER: in its class before anybody can meet it, so that a sign-in or an end takes it out of there.
        let gone = self.anonymous.lock().add(cell.id, newcomer.visitor.ip, bound);
        self.publish(&cell, &admissible.revived, now);
        for id in gone {
            self.evict(id, now);
        }
        // Its place may have been given away before it could be found.
        if !self.anonymous.lock().contains(cell.id) {
            self.evict(cell.id, now);
        }
        SessionRef(cell)
    }

    /// Begins a signed-in session; it passes `admit`.
    pub fn sign_in(&self, newcomer: &Newcomer, identity: Identity, now: Moment) -> Enrolled {
        self.begin_signed_in(newcomer, newcomer.revives(), identity, now)
    }

    fn begin_signed_in(
        &self,
        newcomer: &Newcomer,
        revives: Revives<'_>,
        identity: Identity,
        now: Moment,
    ) -> Enrolled {
        let admissible = self.admissible(None, &newcomer.tokens, revives, now);
        if admissible.tokens.is_empty() && !newcomer.tokens.is_empty() {
            return Enrolled::Over;
        }
        let cell = self.make(newcomer, &admissible.tokens, now);
        let enrolled = self.enrol(&cell, Entry::New, identity, &[], now);
        // ORDER: published only after `admit`, so that nobody meets it half made; its token has not left yet.
        self.publish(&cell, &admissible.revived, now);
        enrolled
    }

    /// Somebody signs in on the carried anonymous session: it keeps its id and its age, its cookie may change.
    pub fn identify(
        &self,
        session: &SessionRef,
        tokens: &[NewToken],
        identity: Identity,
        now: Moment,
    ) -> Enrolled {
        let tokens = self.admissible(Some(&session.0), tokens, Revives::Nothing, now).tokens;
        let enrolled = self.enrol(&session.0, Entry::Anonymous, identity, &tokens, now);
        if !matches!(enrolled, Enrolled::Over) {
            self.anonymous.lock().remove(session.0.id);
        }
        enrolled
    }

    /// The carried session ends for `reason` and a new one begins, on the response's values or, where it sets
    /// none, on the old ones. Nothing begins on a session that is over already (law 2).
    pub fn succeed(
        &self,
        old: &SessionRef,
        reason: EndReason,
        mut newcomer: Newcomer,
        identity: Identity,
        now: Moment,
    ) -> Enrolled {
        let tokens = self.with(&old.0, now, |s| {
            let tokens = s.current_tokens();
            s.end(reason, None, now).then_some(tokens)
        });
        let Some(tokens) = tokens else { return Enrolled::Over };
        self.bury_companions(&old.0, true, now);
        self.take_leave(&old.0, EventKind::Ended { reason, by: None }, now);
        for token in tokens {
            if newcomer.tokens.iter().all(|new| new.shape.name != token.shape.name) {
                newcomer.tokens.push(token);
            }
        }
        self.begin_signed_in(&newcomer, Revives::Of(&old.0), identity, now)
    }

    /// Takes the values that a response set without a sign-in into the session (R10). Refuses when the session is
    /// over, or when `carried` is none of its tokens any more: a sign-in was first, and this answer is not its.
    pub fn rotate(&self, session: &SessionRef, tokens: &[NewToken], carried: TokenKey, now: Moment) -> bool {
        let grace = self.bound.load().book.rotation_grace;
        let tokens = self.admissible(Some(&session.0), tokens, Revives::Nothing, now).tokens;
        let fell_out = self.with(&session.0, now, |s| {
            let goes_on = s.is_live(now) && s.holds(carried);
            goes_on.then(|| {
                // ORDER: before anybody else can look, so that what another gateway stored before does not undo it.
                if !tokens.is_empty() {
                    self.mark(&session.0, Changed::RECORD);
                }
                s.rotate(&tokens, carried, grace, now)
            })
        });
        let Some(fell_out) = fell_out else { return false };
        // Where the app's cookies are kept in the gateway the value of ours stays, with every answer.
        if !tokens.is_empty() || !fell_out.keys.is_empty() {
            self.relink_changed(&session.0, &tokens, fell_out, now);
        }
        true
    }

    /// The app deleted a cookie that is not the session's last session cookie.
    pub fn forget_cookie(&self, session: &SessionRef, name: &str, now: Moment) {
        let gone = self.with(&session.0, now, |s| {
            // ORDER: see `rotate`.
            self.mark(&session.0, Changed::RECORD);
            s.forget_cookie(name)
        });
        self.relink(&session.0, gone, &[], now);
    }

    /// A source gave the session's user other roles: they hold from now on (R1). Returns whether they were other ones.
    pub fn change_roles(&self, session: &SessionRef, named: &Identity, now: Moment) -> bool {
        let (changed, settled) = self.with(&session.0, now, |s| {
            let is_news = |known: &Arc<Identity>| known.user == named.user && known.roles != named.roles;
            let Some(known) = s.identity.clone().filter(|known| s.is_live(now) && is_news(known)) else {
                return (None, Settled::AsBefore);
            };
            let identity = Identity { roles: named.roles.clone(), ..Identity::clone(&known) };
            // ORDER: see `rotate`.
            self.mark(&session.0, Changed::RECORD);
            let policy = self.bound.load().policy(s.app, Some(&identity));
            let key = UserKey::of(s.app, &identity);
            (Some(key), s.change_roles(Arc::new(identity), policy, now))
        });
        let Some(key) = changed else { return false };
        self.after_settling(&session.0, settled, now);
        self.file(&session.0, now);
        self.reckon(&key, now);
        true
    }

    /// Judges a held-back session anew: there may be room by now.
    pub fn admit_pending(&self, session: &SessionRef, now: Moment) -> Enrolled {
        let (identity, live) = self.with(&session.0, now, |s| (s.identity.clone(), s.is_live(now)));
        match identity {
            _ if live => Enrolled::Active(session.clone()),
            Some(identity) => self.enrol(&session.0, Entry::HeldBack, Identity::clone(&identity), &[], now),
            None => Enrolled::Over,
        }
    }

    /// The live sessions of the same app, tenant and user, for the page that lets one be ended.
    #[must_use]
    pub fn rivals_of(&self, session: &SessionRef, now: Moment) -> Vec<Session> {
        let key = self.with(&session.0, now, |s| s.identity.as_deref().map(|i| UserKey::of(s.app, i)));
        let cells = key.and_then(|key| self.by_user.view(&key, |_, cells| cells.clone())).unwrap_or_default();
        cells
            .iter()
            .filter_map(|cell| self.with(cell, now, |s| s.as_rival(now).is_some().then(|| s.clone())))
            .collect()
    }

    /// The critical section: judges the user's sessions, ends those above the limit, and lets `cell` join.
    fn enrol(
        &self,
        cell: &Arc<Cell>,
        entry: Entry,
        identity: Identity,
        tokens: &[NewToken],
        now: Moment,
    ) -> Enrolled {
        let app = cell.session.lock().app;
        let key = UserKey::of(app, &identity);
        let identity = Arc::new(identity);
        let mut aftermath = Aftermath::new();
        let mut fell_out = FellOut::default();
        let enrolled = self.in_section(&key, |cells| {
            // ORDER: the book is read in the section, so that a change of it either is seen here or finds the newcomer.
            let bound = self.bound.load_full();
            let policy = bound.policy(app, Some(&identity));
            let rivals = match policy.max_concurrent {
                Some(_) => self.present(cells, Some(cell), &bound, now, &mut aftermath).rivals,
                None => Vec::new(),
            };
            let latest = self.latest_of(cells, cell);
            let mut session = cell.session.lock();
            if let settled @ Settled::JustEnded(_) = settle(&mut session, &bound, now) {
                aftermath.extend(self.settled_kind(settled).map(|kind| (Arc::clone(cell), kind)));
            }
            if !entry.is_open(&session, now) {
                return Enrolled::Over;
            }
            // ORDER: see `rotate`.
            self.mark(cell, Changed::RECORD);
            fell_out = session.replace(tokens, bound.book.rotation_grace, now);
            let admission = admit(&policy, &rivals);
            // A later book has reached the session already: the limit is judged by it after this section.
            let policy = match is_newer(session.epoch, bound.epoch) {
                true => self.bound.load().policy(app, Some(&identity)),
                false => policy,
            };
            join(&mut session, entry, &admission, &identity, policy, now);
            if let Some(latest) = latest.filter(|_| entry != Entry::HeldBack) {
                session.sign_in_behind(latest);
            }
            let mode = session.mode;
            drop(session);
            if cells.iter().all(|other| !Arc::ptr_eq(other, cell)) {
                cells.push(Arc::clone(cell));
            }
            self.carry_out(admission, (cell, entry, mode), cells, now, &mut aftermath)
        });
        self.relink_changed(cell, tokens, fell_out, now);
        self.after_section(aftermath, now);
        self.file(cell, now);
        enrolled
    }

    /// Where several gateways share the store, a sign-in comes after all that are known: so it keeps its place when sessions
    /// are brought together, whatever the gateways' clocks say.
    fn latest_of(&self, cells: &[Arc<Cell>], newcomer: &Arc<Cell>) -> Option<Moment> {
        let others = cells.iter().filter(|cell| self.is_shared() && !Arc::ptr_eq(cell, newcomer));
        others.filter_map(|cell| cell.session.lock().times.signed_in_at).max()
    }

    fn carry_out(
        &self,
        admission: Admission,
        (cell, entry, mode): (&Arc<Cell>, Entry, Mode),
        cells: &[Arc<Cell>],
        now: Moment,
        aftermath: &mut Aftermath,
    ) -> Enrolled {
        match admission {
            Admission::Pending if mode == Mode::Enforce => {
                if entry != Entry::HeldBack {
                    aftermath.push((Arc::clone(cell), EventKind::HeldBack));
                }
                return Enrolled::Pending(SessionRef(Arc::clone(cell)));
            }
            Admission::Pending => self.end_all(&[cell.id], mode, cells, now, aftermath),
            Admission::Active { end } => self.end_all(&end, mode, cells, now, aftermath),
        }
        aftermath.push((Arc::clone(cell), EventKind::SignedIn));
        Enrolled::Active(SessionRef(Arc::clone(cell)))
    }

    #[expect(clippy::disallowed_methods, reason = "the table's own module; the guard ends with the closure")]
    pub(super) fn in_section<R>(&self, key: &UserKey, f: impl FnOnce(&mut Vec<Arc<Cell>>) -> R) -> R {
        let result = f(self.by_user.entry(key.clone()).or_default().value_mut());
        self.by_user.remove_if(key, |_, cells| cells.is_empty());
        result
    }

    /// Enters a session that was there before this process, or that somebody signed in on elsewhere.
    pub(super) fn join_index(&self, key: &UserKey, cell: &Arc<Cell>) {
        self.in_section(key, |cells| {
            if !self.is_shared() || cells.iter().all(|other| !Arc::ptr_eq(other, cell)) {
                cells.push(Arc::clone(cell));
            }
        });
    }

    pub(super) fn after_section(&self, aftermath: Aftermath, now: Moment) {
        for (cell, kind) in aftermath {
            match kind {
                EventKind::Ended { .. } | EventKind::Over(_) => self.after_end(&cell, kind, now),
                EventKind::SignedIn
                | EventKind::HeldBack
                | EventKind::WouldEnd(_)
                | EventKind::Evicted
                | EventKind::Recycled => self.tell(&cell, kind, now),
            }
        }
    }

    fn make(&self, newcomer: &Newcomer, tokens: &[NewToken], now: Moment) -> Arc<Cell> {
        let terms = self.bound.load().terms(newcomer.app, None);
        let id = SessionId::from_u128(u128::from_le_bytes(random_bytes()));
        let mut session = Session::new(id, newcomer.app, terms, newcomer.visitor.clone(), now);
        if self.is_shared() {
            session.share();
        }
        session.adopted = newcomer.adopted;
        session.jar.clone_from(&newcomer.jar);
        session.generation = self.next_generation(tokens);
        let fell_out = session.replace(tokens, Span::ZERO, now);
        self.crowded_out.fetch_add(fell_out.crowded, Ordering::Relaxed);
        Cell::new(session)
    }

    /// A value that an ended session held begins its next generation (R12).
    fn next_generation(&self, tokens: &[NewToken]) -> u32 {
        let generations = tokens.iter().filter_map(|token| {
            let cell = self.cell_by_token(token.key)?;
            let session = cell.session.lock();
            session.ended().is_some().then(|| session.generation.saturating_add(1))
        });
        generations.max().unwrap_or(0)
    }

    /// Makes a new session findable.
    fn publish(&self, cell: &Arc<Cell>, revived: &[(TokenKey, Arc<Cell>)], now: Moment) {
        let (keys, generation) = {
            let session = cell.session.lock();
            (session.keys().collect::<Vec<_>>(), session.generation)
        };
        self.by_id.insert(cell.id, Arc::clone(cell));
        self.session_count.fetch_add(1, Ordering::Relaxed);
        self.relink(cell, keys, revived, now);
        // ORDER: a book that came while nobody could find the session is taken on before it is filed.
        self.with(cell, now, |_| ());
        self.file(cell, now);
        self.mark(cell, Changed::RECORD);
        self.mark(cell, Changed::JAR);
        if generation > 0 {
            self.tell(cell, EventKind::Recycled, now);
        }
    }

    pub(super) fn relink_changed(
        &self,
        cell: &Arc<Cell>,
        tokens: &[NewToken],
        fell_out: FellOut,
        now: Moment,
    ) {
        self.mark(cell, Changed::RECORD);
        self.crowded_out.fetch_add(fell_out.crowded, Ordering::Relaxed);
        let keys = tokens.iter().map(|token| token.key).chain(fell_out.keys);
        self.relink(cell, keys, &[], now);
    }

    fn owner_of_first(&self, tokens: &[NewToken]) -> Option<Arc<Cell>> {
        self.cell_by_token(tokens.first()?.key)
    }

    /// Forgets an anonymous session for room. One that somebody has signed in on meanwhile stays (R25).
    fn evict(&self, id: SessionId, now: Moment) {
        let Some(cell) = self.cell_by_id(id) else { return };
        let goes = {
            let mut session = cell.session.lock();
            session.identity.is_none() && session.forget()
        };
        if goes {
            self.tell(&cell, EventKind::Evicted, now);
            self.forget(&cell);
        }
    }
}

impl Newcomer {
    fn revives(&self) -> Revives<'static> {
        self.recycles.map_or(Revives::Nothing, Revives::EndedBy)
    }
}

/// Lets the session join under its effective policy. While only observing, the limit holds nobody back (R17).
fn join(
    session: &mut Session,
    entry: Entry,
    admission: &Admission,
    identity: &Arc<Identity>,
    policy: Policy,
    now: Moment,
) {
    let held_back = *admission == Admission::Pending && session.mode == Mode::Enforce;
    match (entry, held_back) {
        (Entry::HeldBack, true) => {}
        (Entry::HeldBack, false) => session.admit(policy, now),
        (Entry::New | Entry::Anonymous, _) => {
            session.sign_in(Arc::clone(identity), policy, now);
            if held_back {
                session.state = State::Pending(now.plus(PENDING_FOR));
            }
        }
    }
}

impl Event {
    /// Whether somebody had signed in on the session.
    #[must_use]
    pub fn is_signed_in(&self) -> bool {
        self.identity.is_some()
    }
}
