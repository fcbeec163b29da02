//! How sessions begin and gain users: the critical sections.
//!
//! The entry of the index user -> sessions is the critical section of `admit` (law 5): while it is held, the user's
//! sessions are judged, those above the limit end, and the new one joins, in one step for everybody.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::book::Bound;
use super::cell::{Cell, SessionRef};
use super::keys::random_bytes;
use super::table::{Table, UserKey, settle};
use super::{Event, EventKind};
use crate::session::identity::Identity;
use crate::session::policy::{Admission, Rival, admit};
use crate::session::record::{AppId, Mode, NewToken, PENDING_FOR, Session, Settled, State, Visitor};
use crate::session::{EndReason, Moment, SessionId, TokenKey};

/// A session that is about to begin.
#[derive(Clone, Debug)]
pub struct Newcomer {
    /// Whose.
    pub app: AppId,
    /// The cookies that the response sets.
    pub tokens: Vec<NewToken>,
    /// Where the browser is.
    pub visitor: Visitor,
    /// Its cookie was there before the gateway (R14, R17).
    pub adopted: bool,
}

/// What came of a sign-in.
#[derive(Clone)]
pub enum Enrolled {
    /// The session is active.
    Active(SessionRef),
    /// It is held back.
    Pending(SessionRef),
    /// It had ended meanwhile, and nothing brings it back.
    Over,
}

/// What a critical section leaves to be told after its locks are released.
type Aftermath = Vec<(Arc<Cell>, EventKind)>;

impl Table {
    /// Begins an anonymous session.
    pub fn start(&self, newcomer: &Newcomer, now: Moment) -> SessionRef {
        let cell = self.make(newcomer, now);
        let (id, ip) = (cell.session.lock().id, newcomer.visitor.ip);
        self.publish(&cell, &newcomer.tokens);
        let bound = self.bound.load().book.anonymous_sessions;
        let gone = self.anonymous.lock().add(id, ip, bound);
        for id in gone {
            self.evict(id);
        }
        SessionRef(cell)
    }

    /// Begins a signed-in session; it passes `admit`.
    pub fn sign_in(&self, newcomer: &Newcomer, identity: Identity, now: Moment) -> Enrolled {
        let cell = self.make(newcomer, now);
        let enrolled = self.enrol(&cell, identity, &[], now);
        // ORDER: published only after `admit`, so that nobody meets it half made; its token has not left yet.
        self.publish(&cell, &newcomer.tokens);
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
        let id = self.with(&session.0, now, |s, _| s.id);
        self.anonymous.lock().remove(id);
        let enrolled = self.enrol(&session.0, identity, tokens, now);
        self.link(&session.0, tokens);
        enrolled
    }

    /// The carried session ends for `reason` and a new one begins, on the response's values or, where it sets
    /// none, on the old ones.
    pub fn succeed(
        &self,
        old: &SessionRef,
        reason: EndReason,
        mut newcomer: Newcomer,
        identity: Identity,
        now: Moment,
    ) -> Enrolled {
        for token in self.with(&old.0, now, |s, _| s.current_tokens()) {
            if newcomer.tokens.iter().all(|new| new.shape.name != token.shape.name) {
                newcomer.tokens.push(token);
            }
        }
        self.end(old, reason, None, now);
        self.sign_in(&newcomer, identity, now)
    }

    /// Takes the values that a response set without a sign-in into the session (R10).
    pub fn rotate(&self, session: &SessionRef, tokens: &[NewToken], carried: TokenKey, now: Moment) -> bool {
        let grace = self.bound.load().book.rotation_grace;
        let gone = self.with(&session.0, now, |s, mode| {
            s.is_live(mode, now).then(|| s.rotate(tokens, carried, grace, now))
        });
        let Some(gone) = gone else { return false };
        self.link(&session.0, tokens);
        self.unlink(&session.0, &gone);
        true
    }

    /// The app deleted a cookie that is not the session's last session cookie.
    pub fn forget_cookie(&self, session: &SessionRef, name: &str, now: Moment) -> bool {
        self.with(&session.0, now, |s, _| s.forget(name))
    }

    /// Judges a held-back session anew: there may be room by now.
    pub fn admit_pending(&self, session: &SessionRef, now: Moment) -> Enrolled {
        let identity = self.with(&session.0, now, |s, _| match &s.state {
            State::Pending(_) => s.identity.as_deref().cloned(),
            State::Active | State::Ended(_) => None,
        });
        match identity {
            Some(identity) => self.enrol(&session.0, identity, &[], now),
            None if self.is_live(session, now) => Enrolled::Active(session.clone()),
            None => Enrolled::Over,
        }
    }

    /// The live sessions of the same app, tenant and user, for the page that lets one be ended.
    #[must_use]
    pub fn rivals_of(&self, session: &SessionRef, now: Moment) -> Vec<Session> {
        let key = self.with(&session.0, now, |s, _| s.identity.as_deref().map(|i| UserKey::of(s.app, i)));
        let cells = key.and_then(|key| self.by_user.view(&key, |_, cells| cells.clone())).unwrap_or_default();
        cells
            .iter()
            .filter_map(|cell| {
                self.with(cell, now, |s, mode| s.as_rival(mode, now).is_some().then(|| s.clone()))
            })
            .collect()
    }

    /// The critical section: judges the user's sessions, ends those above the limit, and lets `cell` join.
    fn enrol(&self, cell: &Arc<Cell>, identity: Identity, tokens: &[NewToken], now: Moment) -> Enrolled {
        let bound = self.bound.load_full();
        let app = cell.session.lock().app;
        let key = UserKey::of(app, &identity);
        let identity = Arc::new(identity);
        let mut aftermath = Aftermath::new();
        let mut gone = Vec::new();
        let enrolled = self.in_section(key, |cells| {
            let rivals = rivals(cells, cell, &bound, now, &mut aftermath);
            let mut session = cell.session.lock();
            if let settled @ Settled::JustEnded(_) = settle(&mut session, &bound, bound.mode(app), now) {
                drop(session);
                aftermath.push((Arc::clone(cell), settled_kind(settled)));
                return Enrolled::Over;
            }
            if session.ended().is_some() {
                return Enrolled::Over;
            }
            gone = session.replace(tokens, now);
            let was_pending = matches!(session.state, State::Pending(_));
            let admission = join(&mut session, &identity, &rivals, &bound, now);
            drop(session);
            if cells.iter().all(|other| !Arc::ptr_eq(other, cell)) {
                cells.push(Arc::clone(cell));
            }
            let enrolled = carry_out(admission, cell, cells, &bound, now, &mut aftermath);
            if matches!(enrolled, Enrolled::Pending(_)) && !was_pending {
                aftermath.push((Arc::clone(cell), EventKind::HeldBack));
            }
            enrolled
        });
        self.unlink(cell, &gone);
        self.after_section(aftermath);
        self.file(cell);
        enrolled
    }

    #[expect(clippy::disallowed_methods, reason = "the table's own module; the guard ends with the closure")]
    fn in_section<R>(&self, key: UserKey, f: impl FnOnce(&mut Vec<Arc<Cell>>) -> R) -> R {
        f(self.by_user.entry(key).or_default().value_mut())
    }

    pub(super) fn after_section(&self, aftermath: Aftermath) {
        for (cell, kind) in aftermath {
            match kind {
                EventKind::Ended { .. } => self.after_end(&cell, kind),
                EventKind::SignedIn
                | EventKind::HeldBack
                | EventKind::WouldEnd(_)
                | EventKind::Evicted
                | EventKind::Recycled => self.tell(&cell, kind),
            }
        }
    }

    fn make(&self, newcomer: &Newcomer, now: Moment) -> Arc<Cell> {
        let bound = self.bound.load();
        let policy = bound.policy(newcomer.app, None);
        let id = SessionId::from_u128(u128::from_le_bytes(random_bytes()));
        let mut session = Session::new(id, newcomer.app, policy, bound.epoch, newcomer.visitor.clone(), now);
        session.adopted = newcomer.adopted;
        session.generation = self.next_generation(&newcomer.tokens);
        session.replace(&newcomer.tokens, now);
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
    fn publish(&self, cell: &Arc<Cell>, tokens: &[NewToken]) {
        let (id, generation) = {
            let session = cell.session.lock();
            (session.id, session.generation)
        };
        self.by_id.insert(id, Arc::clone(cell));
        self.session_count.fetch_add(1, Ordering::Relaxed);
        self.link(cell, tokens);
        self.file(cell);
        if generation > 0 {
            self.tell(cell, EventKind::Recycled);
        }
    }

    fn link(&self, cell: &Arc<Cell>, tokens: &[NewToken]) {
        for token in tokens {
            self.by_token.insert(token.key, Arc::clone(cell));
        }
    }

    /// Forgets keys that `cell` no longer holds, unless another session has taken them over.
    pub(super) fn unlink(&self, cell: &Arc<Cell>, keys: &[TokenKey]) {
        for key in keys {
            self.by_token.remove_if(key, |_, owner| Arc::ptr_eq(owner, cell));
        }
    }

    fn evict(&self, id: SessionId) {
        let Some(cell) = self.cell_by_id(id) else { return };
        let event = EventKind::Evicted;
        self.tell(&cell, event);
        self.forget(&cell);
    }
}

/// The user's other live sessions; those that are over leave the index.
fn rivals(
    cells: &mut Vec<Arc<Cell>>,
    newcomer: &Arc<Cell>,
    bound: &Bound,
    now: Moment,
    aftermath: &mut Aftermath,
) -> Vec<Rival> {
    let mut rivals = Vec::new();
    cells.retain(|cell| {
        if Arc::ptr_eq(cell, newcomer) {
            return true;
        }
        let mut session = cell.session.lock();
        let mode = bound.mode(session.app);
        match settle(&mut session, bound, mode, now) {
            Settled::AsBefore => {}
            settled @ (Settled::JustEnded(_) | Settled::WouldEnd(_)) => {
                aftermath.push((Arc::clone(cell), settled_kind(settled)));
            }
        }
        rivals.extend(session.as_rival(mode, now));
        session.ended().is_none()
    });
    rivals
}

fn settled_kind(settled: Settled) -> EventKind {
    match settled {
        Settled::WouldEnd(reason) => EventKind::WouldEnd(reason),
        Settled::JustEnded(reason) => EventKind::Ended { reason, by: None },
        Settled::AsBefore => EventKind::SignedIn,
    }
}

/// Lets the session join under its effective policy. While only observing, the limit ends nobody (R17).
fn join(
    session: &mut Session,
    identity: &Arc<Identity>,
    rivals: &[Rival],
    bound: &Bound,
    now: Moment,
) -> Admission {
    let policy = bound.policy(session.app, Some(identity));
    let admission = admit(&policy, rivals);
    let was_pending = matches!(session.state, State::Pending(_));
    match (&admission, bound.mode(session.app)) {
        (Admission::Pending, Mode::Enforce) => {
            if !was_pending {
                session.sign_in(Arc::clone(identity), policy, now);
                session.state = State::Pending(now.plus(PENDING_FOR));
            }
        }
        (Admission::Active { .. }, _) | (Admission::Pending, Mode::Observe) => {
            session.sign_in(Arc::clone(identity), policy, now);
            session.state = State::Active;
        }
    }
    admission
}

fn carry_out(
    admission: Admission,
    cell: &Arc<Cell>,
    cells: &[Arc<Cell>],
    bound: &Bound,
    now: Moment,
    aftermath: &mut Aftermath,
) -> Enrolled {
    let observing = bound.mode(cell.session.lock().app) == Mode::Observe;
    match admission {
        Admission::Pending if observing => {
            aftermath.push((Arc::clone(cell), EventKind::WouldEnd(EndReason::MaxConcurrent)));
        }
        Admission::Pending => return Enrolled::Pending(SessionRef(Arc::clone(cell))),
        Admission::Active { end } => {
            for other in cells {
                let mut session = other.session.lock();
                if !end.contains(&session.id) {
                    continue;
                }
                let reason = EndReason::MaxConcurrent;
                if observing {
                    aftermath.push((Arc::clone(other), EventKind::WouldEnd(reason)));
                } else if session.end(reason, None, now) {
                    aftermath.push((Arc::clone(other), EventKind::Ended { reason, by: None }));
                }
            }
        }
    }
    aftermath.push((Arc::clone(cell), EventKind::SignedIn));
    Enrolled::Active(SessionRef(Arc::clone(cell)))
}

impl Event {
    /// Whether somebody had signed in on the session.
    #[must_use]
    pub fn is_signed_in(&self) -> bool {
        self.identity.is_some()
    }
}
