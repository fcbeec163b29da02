//! The table in memory that answers every request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::Mutex;

use super::anonymous::AnonymousClass;
use super::audit::Audit;
use super::book::{Book, Bound};
use super::cell::{Cell, SessionRef};
use super::early::Early;
use super::journal::{Changed, Journal};
use super::lasting::Backing;
use super::sharing::Sharing;
use super::sweep::{Remembered, Wheel};
use super::{Event, EventKind, Observer};
use crate::session::gate::Standing;
use crate::session::identity::Identity;
use crate::session::jar::Jar;
use crate::session::record::{AppId, CookieShape, Mode, Session, Settled, is_newer};
use crate::session::{BuildRandomHasher, EndReason, Moment, SessionId, TokenKey};

/// Shards of each map. Fixed, because a container with one core would otherwise get four.
const SHARDS: usize = 128;

/// Whose sessions an entry of the index holds: (app, tenant, user).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct UserKey {
    pub(super) app: AppId,
    pub(super) tenant: Box<str>,
    pub(super) user: Box<str>,
}

impl UserKey {
    pub(super) fn of(app: AppId, identity: &Identity) -> Self {
        Self { app, tenant: identity.tenant.as_str().into(), user: identity.user.as_str().into() }
    }
}

/// All sessions. Every method settles the sessions it meets first: whether one is live is always judged at read
/// (law 1), the sweeper only frees memory and wakes what waits.
pub struct Table {
    pub(super) by_token: DashMap<TokenKey, Arc<Cell>, BuildRandomHasher>,
    pub(super) by_id: DashMap<SessionId, Arc<Cell>, BuildRandomHasher>,
    pub(super) by_user: DashMap<UserKey, Vec<Arc<Cell>>>,
    pub(super) bound: ArcSwap<Bound>,
    /// The number of `bound`: most sessions have met it, and to look at a number costs far less.
    epoch: AtomicU32,
    /// Held while the book is replaced, so that no two books get one number.
    pub(super) changing: Mutex<()>,
    pub(super) anonymous: Mutex<AnonymousClass>,
    pub(super) early: Mutex<Early>,
    pub(super) wheel: Mutex<Wheel>,
    pub(super) remembered: Mutex<Remembered>,
    /// Shapes of cookies, shared by sessions (R30). Bounded: see `intern`.
    shapes: DashMap<Arc<CookieShape>, ()>,
    shape_count: AtomicUsize,
    pub(super) session_count: AtomicUsize,
    pub(super) crowded_out: AtomicUsize,
    observer: Arc<dyn Observer>,
    /// Where sessions outlive the process: what waits to be written there.
    pub(super) journal: Option<Arc<Journal>>,
    pub(super) audit: Audit,
    /// Where other gateways share the store.
    pub(super) sharing: Option<Sharing>,
}

/// More distinct shapes than this are not shared: an app that sets a new path with each cookie.
const MAX_SHAPES: usize = 10_000;

/// See [`stirs`].
const STIRS_EVERY_MS: u64 = 60_000;

/// How many sessions there are, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Signed in or held back, and not known to be over.
    pub signed_in: usize,
    /// Anonymous.
    pub anonymous: usize,
    /// Ended and remembered.
    pub ended: usize,
}

impl Table {
    /// An empty table under `book`, in memory alone.
    #[must_use]
    pub fn new(book: Book, observer: Arc<dyn Observer>) -> Self {
        let backing = Backing { journal: None, audit: Audit::in_memory(), sharing: None, expected: 0 };
        Self::with_backing(book, observer, backing)
    }

    /// An empty table under `book`, over a store.
    #[must_use]
    pub(super) fn with_backing(book: Book, observer: Arc<dyn Observer>, backing: Backing) -> Self {
        let bound = bind(book, &[], 0);
        let Backing { journal, audit, sharing, expected } = backing;
        Self {
            by_token: DashMap::with_capacity_and_hasher_and_shard_amount(
                expected,
                BuildRandomHasher::default(),
                SHARDS,
            ),
            by_id: DashMap::with_capacity_and_hasher_and_shard_amount(
                expected,
                BuildRandomHasher::default(),
                SHARDS,
            ),
            by_user: DashMap::with_capacity_and_shard_amount(expected / 2, SHARDS),
            epoch: AtomicU32::new(bound.epoch),
            bound: ArcSwap::from_pointee(bound),
            changing: Mutex::default(),
            anonymous: Mutex::default(),
            early: Mutex::default(),
            wheel: Mutex::default(),
            remembered: Mutex::default(),
            shapes: DashMap::new(),
            shape_count: AtomicUsize::new(0),
            session_count: AtomicUsize::new(0),
            crowded_out: AtomicUsize::new(0),
            observer,
            journal,
            audit,
            sharing,
        }
    }

    /// Replaces the book. Sessions past their old deadline end for their old reason first; all others are held to
    /// the new policies from the moment they are next looked at, which this call does for every one (R1). Then every
    /// user is held to the new limit: what is beyond it ends as if by a sign-in, except where the policy holds back
    /// who comes (`refuse`, `ask`), which ends nobody who is in.
    pub fn set_book(&self, book: Book, now: Moment) {
        {
            let _one_at_a_time = self.changing.lock();
            let old = self.bound.load_full();
            if book != old.book {
                self.note_other_policies();
            }
            self.hold_to(bind(book, &old.apps, old.epoch.wrapping_add(1)));
        }
        for cell in self.cells() {
            self.with(&cell, now, |_| ());
            self.ask_if_unsure(&cell, now);
            self.file(&cell, now);
        }
        for user in self.users_indexed(|_| true) {
            self.reckon(&user, now);
        }
    }

    /// From now on sessions are held to this.
    pub(super) fn hold_to(&self, bound: Bound) {
        let epoch = bound.epoch;
        self.bound.store(Arc::new(bound));
        // ORDER: whoever finds the number finds the book.
        self.epoch.store(epoch, Ordering::Release);
    }

    /// What the table knows of `key`, with its session.
    #[must_use]
    pub fn look_up(&self, key: TokenKey, now: Moment) -> (Standing, Option<SessionRef>) {
        let Some(cell) = self.cell_by_token(key) else { return (Standing::Unseen, None) };
        let standing = self.with(&cell, now, |session| session.standing(key, now));
        (standing, Some(SessionRef(cell)))
    }

    /// Notes a request that presents `key`, and renews the idle clock when `touch`. Returns whether the session is
    /// live and `key` still one of its tokens; nothing is noted otherwise (law 3).
    pub fn note_request(&self, session: &SessionRef, key: TokenKey, touch: bool, now: Moment) -> bool {
        let (live, stirs, spent) = self.with(&session.0, now, |s| {
            if !s.is_live_by(key, now) {
                return (false, false, Vec::new());
            }
            let (first_return, before) = (!s.returned, s.times.last_active_at);
            let spent = s.presented(key, now);
            s.requests = s.requests.saturating_add(1);
            if touch {
                s.touch(now);
            }
            let stirs = first_return || stirs(before, s.times.last_active_at);
            (true, stirs && s.identity.is_none(), spent)
        });
        self.relink(&session.0, spent, &[], now);
        if live && touch {
            self.mark(&session.0, Changed::ACTIVITY);
        }
        if stirs {
            self.anonymous.lock().active(session.0.id);
        }
        live
    }

    /// The secret of the hashes is another one: the token that is known by `from` gets the key `to`, and is found by both for
    /// as long as it is one. Written behind.
    pub fn rekey(&self, session: &SessionRef, from: TokenKey, to: TokenKey, now: Moment) {
        if let Some(keys) = self.with(&session.0, now, |s| s.rekey(from, to)) {
            self.relink(&session.0, keys, &[], now);
            self.mark(&session.0, Changed::RECORD);
        }
    }

    /// Whether the session ended so lately that requests may be under way which its browser sent before it knew.
    #[must_use]
    pub fn is_fresh_end(&self, session: &SessionRef, now: Moment) -> bool {
        let grace = self.bound.load().book.rotation_grace;
        self.inspect(session, now, |s| s.ended().is_some_and(|end| now.since(end.at) < grace))
    }

    /// Renews the idle clock of a live session outside a request (upload in progress, WebSocket data).
    pub fn touch(&self, session: &SessionRef, now: Moment) -> bool {
        let live = self.with(&session.0, now, |s| s.touch(now));
        if live {
            self.mark(&session.0, Changed::ACTIVITY);
        }
        live
    }

    /// The request of `noted`, which renewed the idle clock, turns out to be no activity: the clock stands again where it
    /// stood `before`, unless something else renewed it since.
    pub fn take_back(&self, session: &SessionRef, before: Moment, noted: Moment, now: Moment) {
        self.with(&session.0, now, |s| s.take_back(before, noted));
        self.mark(&session.0, Changed::ACTIVITY);
        self.file(&session.0, now);
    }

    /// Changes the jar of a session that goes on, or is held back, for an answer that speaks about it by `key`. Returns
    /// whether it does: once a sign-in has replaced that value, the jar is the sign-in's.
    pub fn keep(&self, session: &SessionRef, key: TokenKey, now: Moment, f: impl FnOnce(&mut Jar)) -> bool {
        self.with(&session.0, now, |s| {
            let keeps = !s.is_over() && s.holds(key);
            if keeps {
                // ORDER: before anybody else can look, so that what another gateway stored before does not undo it.
                self.mark(&session.0, Changed::JAR);
                f(Arc::make_mut(s.jar.get_or_insert_default()));
            }
            keeps
        })
    }

    /// Whether a request that carries `key` may reach the app now: the session is live, and `key` is one of its
    /// tokens still, not a value that a sign-in has replaced meanwhile.
    #[must_use]
    pub fn is_live(&self, session: &SessionRef, key: TokenKey, now: Moment) -> bool {
        self.with(&session.0, now, |s| s.is_live_by(key, now))
    }

    /// A copy of the session's record as it stands now.
    #[must_use]
    pub fn read(&self, session: &SessionRef, now: Moment) -> Session {
        self.with(&session.0, now, |s| s.clone())
    }

    /// Runs `f` on the settled record; for reading single members without a copy of all.
    pub fn inspect<R>(&self, session: &SessionRef, now: Moment, f: impl FnOnce(&Session) -> R) -> R {
        self.with(&session.0, now, |s| f(s))
    }

    /// The session with this id.
    #[must_use]
    pub fn by_id(&self, id: SessionId) -> Option<SessionRef> {
        self.cell_by_id(id).map(SessionRef)
    }

    /// Remembers that the end of this session was told on a navigation (R15).
    pub fn mark_told(&self, session: &SessionRef, now: Moment) {
        self.with(&session.0, now, |s| {
            if let crate::session::record::State::Ended(end) = &mut s.state {
                end.told = true;
            }
        });
        self.mark(&session.0, Changed::RECORD);
    }

    /// Notes that the app's own logout is called for the end of this session. Returns whether that is the first time.
    pub fn mark_farewelled(&self, session: &SessionRef, now: Moment) -> bool {
        let first = self.with(&session.0, now, |s| match &mut s.state {
            crate::session::record::State::Ended(end) => !std::mem::replace(&mut end.farewelled, true),
            _ => false,
        });
        if first {
            self.mark(&session.0, Changed::RECORD);
        }
        first
    }

    /// Ends the session unless it has ended before.
    pub fn end(&self, session: &SessionRef, reason: EndReason, by: Option<Arc<str>>, now: Moment) -> bool {
        let ended = self.with(&session.0, now, |s| {
            let ended = s.end(reason, by.clone(), now);
            if ended {
                // ORDER: before anybody can see the end, so that who finds it and then waits for the store waits for it too.
                self.mark(&session.0, Changed::RECORD);
            }
            ended
        });
        if ended {
            self.after_end(&session.0, EventKind::Ended { reason, by }, now);
        }
        ended
    }

    /// How many sessions there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let anonymous = self.anonymous.lock().len();
        let ended = self.remembered.lock().len();
        let all = self.session_count.load(Ordering::Relaxed);
        Counts { signed_in: all.saturating_sub(anonymous + ended), anonymous, ended }
    }

    /// A shape that equal shapes share.
    #[must_use]
    pub fn intern(&self, shape: CookieShape) -> Arc<CookieShape> {
        if let Some(known) = self.known_shape(&shape) {
            return known;
        }
        let shape = Arc::new(shape);
        if self.shape_count.fetch_add(1, Ordering::Relaxed) < MAX_SHAPES {
            self.shapes.insert(Arc::clone(&shape), ());
        }
        shape
    }

    #[expect(clippy::disallowed_methods, reason = "the table's own module; the guard ends here")]
    fn known_shape(&self, shape: &CookieShape) -> Option<Arc<CookieShape>> {
        self.shapes.get(shape).map(|entry| Arc::clone(entry.key()))
    }

    pub(super) fn cell_by_token(&self, key: TokenKey) -> Option<Arc<Cell>> {
        self.by_token.view(&key, |_, cell| Arc::clone(cell))
    }

    pub(super) fn cell_by_id(&self, id: SessionId) -> Option<Arc<Cell>> {
        self.by_id.view(&id, |_, cell| Arc::clone(cell))
    }

    /// The users in the index that are meant.
    #[expect(
        clippy::disallowed_methods,
        reason = "the table's own module; shard locks are held only to copy names"
    )]
    pub(super) fn users_indexed(&self, wanted: impl Fn(&UserKey) -> bool) -> Vec<UserKey> {
        self.by_user.iter().filter(|entry| wanted(entry.key())).map(|entry| entry.key().clone()).collect()
    }

    /// Whether somebody is signed in to this app, or was a moment ago.
    #[expect(
        clippy::disallowed_methods,
        reason = "the table's own module; nothing is done with what is looked at"
    )]
    #[must_use]
    pub fn has_users(&self, app: AppId) -> bool {
        self.by_user.iter().any(|entry| entry.key().app == app)
    }

    /// Every session, without holding a lock while they are looked at.
    #[expect(
        clippy::disallowed_methods,
        reason = "the table's own module; shard locks are held only to copy pointers"
    )]
    pub(super) fn cells(&self) -> Vec<Arc<Cell>> {
        self.by_id.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// Locks the session, settles it, brings its policy up to date, runs `f`, and tells what happened afterwards.
    pub(super) fn with<R>(&self, cell: &Arc<Cell>, now: Moment, f: impl FnOnce(&mut Session) -> R) -> R {
        let (settled, result, adopted) = {
            let mut session = cell.session.lock();
            let settled = match session.epoch == self.epoch.load(Ordering::Acquire) {
                true => session.settle(now),
                false => settle(&mut session, &self.bound.load(), now),
            };
            (settled, f(&mut session), session.take_adopted())
        };
        if adopted {
            self.mark(cell, Changed::RECORD);
        }
        self.after_settling(cell, settled, now);
        result
    }

    pub(super) fn after_settling(&self, cell: &Arc<Cell>, settled: Settled, now: Moment) {
        let Some(kind) = self.settled_kind(settled) else { return };
        if matches!(settled, Settled::WouldEnd(_)) {
            self.mark(cell, Changed::RECORD);
            self.tell(cell, kind, now);
        } else {
            self.after_end(cell, kind, now);
        }
    }

    /// What follows every end, once: its companions die, it leaves every class and index of those that live, is
    /// remembered, and is told.
    pub(super) fn after_end(&self, cell: &Arc<Cell>, kind: EventKind, now: Moment) {
        self.bury_companions(cell, false, now);
        self.take_leave(cell, kind, now);
    }

    /// What follows an end besides the death of companions.
    pub(super) fn take_leave(&self, cell: &Arc<Cell>, kind: EventKind, now: Moment) {
        let jar = self.leave(cell, now);
        self.mark(cell, Changed::RECORD);
        self.mark(cell, Changed::JAR);
        let event = self.event(cell, kind, jar, now);
        self.note_event(&event);
        self.observer.observe(&event);
        if let (Some(sharing), EventKind::Over(_)) = (&self.sharing, &event.kind) {
            sharing.owe(event);
        }
    }

    /// An ended session leaves every class and index of those that live, and is remembered. Returns its jar.
    fn leave(&self, cell: &Arc<Cell>, now: Moment) -> Option<Arc<Jar>> {
        self.anonymous.lock().remove(cell.id);
        self.wheel.lock().remove(cell);
        self.leave_index(cell);
        let (at, jar) = {
            let mut session = cell.session.lock();
            // No request reads it any more, and it is the largest part of a record.
            (session.ended().map_or(now, |end| end.at), session.jar.take())
        };
        self.remembered.lock().add(cell.id, at);
        jar
    }

    /// What follows an end that another gateway caused: that one tells of it.
    pub(super) fn after_end_elsewhere(&self, cell: &Arc<Cell>, now: Moment) {
        self.bury_companions(cell, false, now);
        let jar = self.leave(cell, now);
        let reason = cell.session.lock().ended().map(|end| end.reason);
        if let Some(reason) = reason {
            self.observer.observe(&self.event(cell, EventKind::Over(reason), jar, now));
        }
    }

    /// The store has an end of the session: now this gateway's is told, if it `is_first`.
    pub(super) fn is_told(&self, id: SessionId, is_first: bool) {
        let owed = self.sharing.as_ref().and_then(|sharing| sharing.owed(id));
        if let Some(event) = owed.filter(|_| is_first) {
            self.note_event(&event);
            self.observer.observe(&event);
        }
    }

    /// Tells the observer; no lock is held.
    pub(super) fn tell(&self, cell: &Arc<Cell>, kind: EventKind, now: Moment) {
        let event = self.event(cell, kind, None, now);
        self.note_event(&event);
        self.observer.observe(&event);
    }

    fn event(&self, cell: &Arc<Cell>, kind: EventKind, jar: Option<Arc<Jar>>, now: Moment) -> Event {
        let session = cell.session.lock();
        let at = session.ended().map_or(now, |end| end.at);
        let app = self.bound.load().name(session.app);
        let (id, identity, busy) = (session.id, session.identity.clone(), cell.is_busy());
        Event { id, app, identity, kind, at, busy, jar }
    }

    /// How many tokens in use had to go because an app sets more cookies than a session may have.
    #[must_use]
    pub fn crowded_out(&self) -> usize {
        self.crowded_out.load(Ordering::Relaxed)
    }
}

/// Whether activity puts an anonymous session behind others in its class. Once in a while is enough, and spares each
/// request the lock of the class.
fn stirs(before: Moment, after: Moment) -> bool {
    before.unix_ms() / STIRS_EVERY_MS != after.unix_ms() / STIRS_EVERY_MS
}

/// Ends what is over under the old terms, then holds the rest to the present ones (R1).
pub(super) fn settle(session: &mut Session, bound: &Bound, now: Moment) -> Settled {
    let settled = session.settle(now);
    if !is_newer(bound.epoch, session.epoch) {
        return settled;
    }
    let terms = bound.terms(session.app, session.identity.as_deref());
    match session.adopt(terms, now) {
        Settled::AsBefore => settled,
        by_change => by_change,
    }
}

/// Apps keep their numbers for ever, whatever the new book names.
pub(super) fn bind(book: Book, known: &[(Arc<str>, Mode)], epoch: u32) -> Bound {
    let mut apps: Vec<(Arc<str>, Mode)> =
        known.iter().map(|(name, _)| (Arc::clone(name), Mode::Enforce)).collect();
    for rules in &book.apps {
        match apps.iter_mut().find(|(name, _)| **name == *rules.name) {
            Some(entry) => entry.1 = rules.mode,
            None => apps.push((rules.name.as_str().into(), rules.mode)),
        }
    }
    Bound { epoch, book, apps }
}
