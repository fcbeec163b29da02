//! What several gateways over one store need of each other: how a table takes over what another one stored, and asks
//! before it judges what only others can know.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::anonymous::network;
use super::cell::{Cell, SIGNED_IN};
use super::journal::Changed;
use super::restore::Stored;
use super::table::{Table, UserKey};
use super::{Event, EventKind};
use crate::clock::Stopwatch;
use crate::session::gate::Standing;
use crate::session::identity::Identity;
use crate::session::profile::CookieKind;
use crate::session::record::{AppId, Merged};
use crate::session::{Moment, SessionId, TokenKey};

/// Most questions that wait for the store; more are answered at once, by "cannot say".
const MAX_INQUIRIES: usize = 10_000;

/// How long a request waits for the store at most: it answers within a millisecond or is away.
const PATIENCE: Duration = Duration::from_millis(1000);

/// How many tokens that nobody has seen one address may have looked up in a second: far more than its browsers bring after a
/// gateway began anew, far less than a server answers (R23).
const LOOK_UPS_A_SECOND: u32 = 200;

/// What the store is asked while a request waits.
pub(super) enum Question {
    /// Whose is this token?
    Token(TokenKey),
    /// When was this session last active?
    Activity(Arc<Cell>),
    /// Which sessions has this user?
    User(UserKey),
}

/// A question, with who waits for the answer.
pub(super) struct Inquiry {
    pub(super) question: Question,
    /// When it was asked: the answer holds for what was before.
    pub(super) at: Moment,
    /// Told true once the table knows what the store knows.
    pub(super) answer: oneshot::Sender<bool>,
}

/// The part of a table that is there only where other gateways share the store.
pub(super) struct Sharing {
    inquiries: mpsc::Sender<Inquiry>,
    /// Ends by time that this gateway found out: told once the store has them, unless another one was first.
    owed: Mutex<HashMap<SessionId, Event>>,
    budget: Mutex<Budget>,
    /// Held while stored sessions are taken over: two of one name must not become two.
    taking_over: Mutex<()>,
    /// Since when other policies than before have been in force here.
    other_policies: Mutex<Option<Stopwatch>>,
}

/// The look-ups of this second, by address. Bounded by what is asked in a second.
#[derive(Default)]
struct Budget {
    second: u64,
    spent: HashMap<IpAddr, u32>,
}

impl Budget {
    /// Whether the address may have one more.
    fn allows(&mut self, address: IpAddr, now: Moment) -> bool {
        let second = now.unix_ms() / 1000;
        if second != self.second {
            *self = Self { second, spent: HashMap::new() };
        }
        let spent = self.spent.entry(network(address)).or_default();
        *spent += 1;
        *spent <= LOOK_UPS_A_SECOND
    }
}

impl Sharing {
    /// With the end at which questions are answered.
    pub(super) fn new() -> (Self, mpsc::Receiver<Inquiry>) {
        let (inquiries, asked) = mpsc::channel(MAX_INQUIRIES);
        (
            Self {
                inquiries,
                owed: Mutex::default(),
                budget: Mutex::default(),
                taking_over: Mutex::default(),
                other_policies: Mutex::default(),
            },
            asked,
        )
    }

    pub(super) fn owe(&self, event: Event) {
        let EventKind::Over(reason) = event.kind else { return };
        // It is cut by now.
        let event = Event { kind: EventKind::Ended { reason, by: None }, busy: false, ..event };
        self.owed.lock().insert(event.id, event);
    }

    pub(super) fn owed(&self, id: SessionId) -> Option<Event> {
        self.owed.lock().remove(&id)
    }

    // CANCEL: the question is answered all the same; nobody hears it.
    async fn ask(&self, question: Question, at: Moment) -> bool {
        let (answer, answered) = oneshot::channel();
        if self.inquiries.try_send(Inquiry { question, at, answer }).is_err() {
            return false;
        }
        matches!(tokio::time::timeout(PATIENCE, answered).await, Ok(Ok(true)))
    }
}

impl Table {
    /// Whether other gateways share the store.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.sharing.is_some()
    }

    /// Whether the store has to be asked before a request with this token is judged.
    #[must_use]
    pub fn has_to_ask(&self, standing: Standing) -> bool {
        self.is_shared() && matches!(standing, Standing::Unseen | Standing::Unavailable)
    }

    /// Asks the store for what this table cannot say of these tokens, which `address` presents. Returns those of which the
    /// store cannot say it either, or which are too many of one address: they must not be taken for unseen.
    pub async fn ask(&self, keys: &[TokenKey], address: IpAddr, now: Moment) -> Vec<TokenKey> {
        let Some(sharing) = &self.sharing else { return Vec::new() };
        let mut unknown = Vec::new();
        for key in keys {
            let question = match self.look_up(*key, now) {
                (Standing::Unseen, _) if !sharing.budget.lock().allows(address, now) => {
                    unknown.push(*key);
                    continue;
                }
                (Standing::Unseen, _) => Question::Token(*key),
                (Standing::Unavailable, Some(session)) => Question::Activity(session.0),
                _ => continue,
            };
            if !sharing.ask(question, now).await {
                unknown.push(*key);
            }
        }
        unknown
    }

    /// Other policies are about to be in force here.
    pub(super) fn note_other_policies(&self) {
        if let Some(sharing) = &self.sharing {
            *sharing.other_policies.lock() = Some(Stopwatch::start());
        }
    }

    /// For how long from now others may not have heard of the policies that are in force here, where that takes `long`: with
    /// the new ones they store when their sessions were last active.
    pub(super) fn unheard_for(&self, long: Duration) -> Duration {
        let since = self.sharing.as_ref().and_then(|sharing| *sharing.other_policies.lock());
        since.map_or(Duration::ZERO, |since| long.saturating_sub(Duration::from_micros(since.elapsed_us())))
    }

    /// Learns from the store which sessions `identity` has elsewhere, before somebody signs in as it. A store that cannot
    /// say is no obstacle: what it knows is brought together when the sign-in is stored.
    pub async fn meet(&self, app: AppId, identity: &Identity, now: Moment) {
        if let Some(sharing) = &self.sharing {
            sharing.ask(Question::User(UserKey::of(app, identity)), now).await;
        }
    }

    /// The sessions of a user that cannot be judged before the store was asked.
    pub(super) fn unsure_of(&self, user: &UserKey, now: Moment) -> Vec<Arc<Cell>> {
        let mut cells = self.by_user.view(user, |_, cells| cells.clone()).unwrap_or_default();
        cells.retain(|cell| cell.session.lock().is_unsure(now));
        cells
    }

    /// Has the store asked for a session that cannot be judged, though no request waits for it.
    pub(super) fn ask_if_unsure(&self, cell: &Arc<Cell>, now: Moment) {
        if self.is_shared() && cell.session.lock().is_unsure(now) {
            self.mark(cell, Changed::ASK);
        }
    }

    /// The store was asked at `at` when the session was last active.
    pub(super) fn heard(&self, cell: &Arc<Cell>, last_active_at: Option<Moment>, at: Moment, now: Moment) {
        // Before it is settled: the answer may be that it lives.
        cell.session.lock().asked(last_active_at, at);
        self.with(cell, now, |_| ());
        self.file(cell, now);
    }

    /// Takes over what the store holds of some sessions, all of one user or one that is anonymous.
    pub(super) fn take_over(&self, sessions: Vec<Stored>, now: Moment) {
        let Some(sharing) = &self.sharing else { return };
        let mut users: Vec<UserKey> = Vec::new();
        let _one_at_a_time = sharing.taking_over.lock();
        for stored in sessions {
            let cell = match self.cell_by_id(stored.image.id) {
                Some(cell) => {
                    self.merge(&cell, stored, now);
                    cell
                }
                None => self.take_in_late(stored, now),
            };
            users.extend(self.user_of(&cell).filter(|user| !users.contains(user)));
        }
        for user in users {
            self.line_up(&user);
            self.hold_to_limit(&user, true, now);
        }
    }

    /// Sign-ins that nobody can have heard of yet come after all others, in their own order. Of one that somebody may have
    /// heard of the date stays: with a new one it would be a later sign-in there, and undo what the app has changed since.
    fn line_up(&self, user: &UserKey) {
        let cells = self.by_user.view(user, |_, cells| cells.clone()).unwrap_or_default();
        let signed_in_at = |cell: &Arc<Cell>| cell.session.lock().times.signed_in_at.unwrap_or_default();
        let (mut unheard, heard): (Vec<_>, Vec<_>) =
            cells.into_iter().partition(|cell| cell.is_surely_unheard());
        let Some(mut last) = heard.iter().map(signed_in_at).max() else { return };
        unheard.sort_by_key(|cell| (signed_in_at(cell), cell.id));
        for cell in unheard {
            if cell.session.lock().sign_in_behind(last) {
                self.mark(&cell, Changed::RECORD);
            }
            last = last.max(signed_in_at(&cell));
        }
    }

    fn user_of(&self, cell: &Arc<Cell>) -> Option<UserKey> {
        let session = cell.session.lock();
        session.identity.as_deref().map(|identity| UserKey::of(session.app, identity))
    }

    fn merge(&self, cell: &Arc<Cell>, stored: Stored, now: Moment) {
        let bound = self.bound.load_full();
        let merged = {
            let mut session = cell.session.lock();
            let ours = cell.revision.fetch_max(stored.revision, Ordering::Relaxed);
            if stored.revision < ours {
                // Who stored it had not heard of what was lost, and is about to.
                self.mark(cell, Changed::AGAIN);
            }
            let is_changed = cell.is_changed();
            let mut intern = |shape| self.intern(shape);
            let grace = bound.book.rotation_grace;
            let merged = session.merge(stored.image, is_changed, grace, now, &mut intern);
            if merged.identity {
                let policy = bound.policy(session.app, session.identity.as_deref());
                session.hold(policy);
            }
            let is_theirs = !cell.is_jar_changed() && (stored.revision > ours || !is_changed);
            if is_theirs && session.ended().is_none() {
                session.jar = stored.jar.map(Arc::new);
            }
            merged
        };
        if stored.has_old_seal {
            self.mark(cell, Changed::JAR);
        }
        cell.slot.fetch_max(stored.slot, Ordering::Relaxed);
        cell.slot.fetch_or(stored.slot & SIGNED_IN, Ordering::Relaxed);
        self.after_merge(cell, merged, now);
    }

    fn after_merge(&self, cell: &Arc<Cell>, merged: Merged, now: Moment) {
        self.relink(cell, merged.keys, &[], now);
        if merged.identity {
            self.anonymous.lock().remove(cell.id);
            if let Some(user) = self.user_of(cell).filter(|_| cell.session.lock().ended().is_none()) {
                self.join_index(&user, cell);
            }
        }
        if merged.ended {
            self.after_end_elsewhere(cell, now);
        }
        // Where it was stored before, an end was lost, or somebody did not know; activity was noted at the visitor's old home.
        if merged.ended_here || merged.rotated_here || (merged.identity && merged.active_here) {
            self.mark(cell, Changed::RECORD);
        }
        self.with(cell, now, |_| ());
        self.file(cell, now);
    }

    /// The store says that `key` is a token of `other`, and this gateway that it is one of `ours`. Returns whether it is ours
    /// after all. Two gateways began a session with one value at once where the other one lives: then ours, of which nobody
    /// has heard yet, was never there.
    pub(super) fn holds_after_all(
        &self,
        key: TokenKey,
        ours: SessionId,
        other: SessionId,
        now: Moment,
    ) -> bool {
        let (Some(ours), Some(other)) = (self.cell_by_id(ours), self.cell_by_id(other)) else { return true };
        match self.with(&other, now, |s| s.standing(key, now)) {
            Standing::Live { .. } | Standing::Pending { .. } | Standing::Unavailable => {
                let is_companion = ours.session.lock().kind_of(key) == Some(CookieKind::Companion);
                if !is_companion && ours.slot.load(Ordering::Relaxed) == 0 {
                    ours.session.lock().forget();
                    self.forget(&ours);
                    self.relink(&other, [key], &[], now);
                }
                !is_companion && ours.slot.load(Ordering::Relaxed) != 0
            }
            Standing::Ended { .. } => self.cell_by_token(key).is_some_and(|owner| Arc::ptr_eq(&owner, &ours)),
            Standing::Unseen | Standing::Stale | Standing::Replaced => true,
        }
    }

    fn take_in_late(&self, stored: Stored, now: Moment) -> Arc<Cell> {
        let cell = self.take_in(stored, now);
        let ended = cell.session.lock().ended().map(|end| end.at);
        match ended {
            Some(at) => self.remembered.lock().add(cell.id, at),
            None => {
                self.class_restored(std::iter::once(&cell));
                self.with(&cell, now, |_| ());
                self.file(&cell, now);
            }
        }
        cell
    }
}

/// What [`Cell::slot`] says of a record that was stored at `now`.
pub(super) fn stored_at(now: Moment, signed_in: bool) -> u32 {
    let seconds = u32::try_from(now.unix_ms() / 1000).unwrap_or(u32::MAX - 1);
    (seconds & !SIGNED_IN) | if signed_in { SIGNED_IN } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::identity::UserCase;
    use crate::session::layers::Layers;
    use crate::session::record::{Mode, Session, Terms, Visitor};
    use crate::session::{Policy, Span};
    use crate::store::audit::Audit;
    use crate::store::journal::Journal;
    use crate::store::lasting::Backing;
    use crate::store::{AppRules, Book, Observer};

    struct Nobody;

    impl Observer for Nobody {
        fn observe(&self, _: &Event) {}
    }

    fn at(ms: u64) -> Moment {
        Moment::from_unix_ms(ms)
    }

    fn table() -> Table {
        let app = AppRules { name: "app".to_owned(), mode: Mode::Enforce, case: UserCase::Fold };
        let book = Book {
            layers: Layers::default(),
            apps: vec![app],
            roles: std::collections::BTreeMap::default(),
            rotation_grace: Span::from_ms(10),
            anonymous_sessions: 10,
            ended_kept: Span::from_secs(1),
            ended_kept_until: Moment::default(),
        };
        let (journal, audit) = (Some(Journal::new()), Audit::in_memory());
        let backing = Backing { journal, audit, sharing: Some(Sharing::new().0), expected: 0 };
        Table::with_backing(book, Arc::new(Nobody), backing)
    }

    /// Alice's sign-in of that moment, as a store gives it back; `slot` 0 for one that it does not know.
    fn sign_in(id: u128, moment: u64, slot: u32) -> Stored {
        let visitor = Visitor { ip: IpAddr::from([127, 0, 0, 1]), user_agent: "x".into() };
        let terms = Terms { policy: Policy::default(), mode: Mode::Enforce, epoch: 0 };
        let mut session = Session::new(SessionId::from_u128(id), AppId(0), terms, visitor, at(moment));
        let alice = Identity { user: "alice".into(), tenant: "t".into(), roles: vec![], source: 0 };
        session.sign_in(Arc::new(alice), Policy::default(), at(moment));
        let image = session.image("app").unwrap();
        Stored { image, jar: None, has_old_seal: false, slot, revision: 1 }
    }

    #[test]
    fn the_date_of_a_sign_in_stays_once_somebody_may_have_heard_of_it() {
        for may_be_heard in [false, true] {
            let table = table();
            let ours = table.take_in(sign_in(1, 1000, 0), at(1000));
            ours.may_be_heard.store(may_be_heard, Ordering::Relaxed);
            table.take_over(vec![sign_in(2, 1500, stored_at(at(1500), true))], at(2000));
            let signed_in_at = ours.session.lock().times.signed_in_at;
            assert_eq!(signed_in_at, Some(at(if may_be_heard { 1000 } else { 1501 })));
        }
    }
}
