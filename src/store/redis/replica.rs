//! What one gateway knows of the shared store: how far it has followed each home, and what it has to store there.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::facts::Facts;
use super::layout::{Home, Row, home_alone, home_of, record, term};
use super::versions::{Base, Versions};
use crate::session::record::{Image, Session};
use crate::session::{Moment, SessionId, TokenKey};
use crate::store::cell::Cell;
use crate::store::journal::{Changed, Journal, Ticket};
use crate::store::random_bytes;
use crate::store::seal::Sealer;
use crate::store::secrets::Secrets;
use crate::store::table::{Table, UserKey};

pub(super) struct Replica {
    pub(super) table: Arc<Table>,
    pub(super) sealer: Sealer,
    /// Tells this gateway's announcements from those of others.
    pub(super) name: [u8; 8],
    /// Proofs of the secrets that it knows tokens by.
    pub(super) accepts: Vec<u8>,
    pub(super) versions: Versions,
    /// Held while something is taken over, and while it is noted that something was stored.
    following: Mutex<()>,
    /// The store's epoch as this gateway knows it; 0 while it does not trust the store's word that something is unknown.
    epoch: AtomicU64,
    /// Whether no other gateway has beaten lately.
    is_alone: AtomicBool,
    journal: Arc<Journal>,
    /// Once this is safe, the store has everything that this gateway knew when it was last told to store it. `None` for
    /// nothing.
    marked: Mutex<Option<Ticket>>,
    pub(super) facts: Facts,
}

/// Sessions, and what of each has changed.
pub(super) type Changes = Vec<(Arc<Cell>, Changed)>;

/// What is to be stored of one home.
pub(super) struct Write {
    pub(super) home: Home,
    /// The version that it is based on.
    pub(super) base: Base,
    pub(super) puts: Vec<Put>,
    pub(super) pointers: Vec<Pointer>,
}

/// What became of something that was to be taken over.
pub(super) enum Taken {
    /// With the sessions that it concerned.
    Over(Vec<Arc<Cell>>),
    /// The home was followed further meanwhile, or forgotten.
    Late,
    /// Nothing of it: the store is behind what it was, and so is everything else that it may say.
    Lost,
}

pub(super) struct Put {
    pub(super) id: SessionId,
    /// `None` removes the session.
    pub(super) record: Option<Vec<u8>>,
    pub(super) jar: JarChange,
    pub(super) term: u64,
    pub(super) active_at: Moment,
    pub(super) signed_in: bool,
    pub(super) ended: bool,
}

pub(super) enum JarChange {
    Keep,
    Remove,
    Put(Vec<u8>),
}

impl JarChange {
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Keep => (b"keep", b""),
            Self::Remove => (b"remove", b""),
            Self::Put(jar) => (b"put", jar),
        }
    }
}

/// A token and whose it is.
pub(super) struct Pointer {
    pub(super) key: TokenKey,
    pub(super) id: SessionId,
    /// For how long, in milliseconds.
    pub(super) ttl: u64,
}

impl Replica {
    pub(super) fn new(table: Arc<Table>, journal: Arc<Journal>, secrets: &Secrets, facts: Facts) -> Self {
        let (sealer, accepts) = (Sealer::new(secrets), secrets.proofs());
        let (versions, epoch, marked) = (Versions::default(), AtomicU64::new(0), Mutex::default());
        let is_alone = AtomicBool::new(true);
        Self {
            table,
            sealer,
            name: random_bytes(),
            accepts,
            versions,
            following: Mutex::default(),
            epoch,
            is_alone,
            journal,
            marked,
            facts,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    pub(super) fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Relaxed)
    }

    pub(super) fn set_alone(&self, is_alone: bool) {
        self.is_alone.store(is_alone, Ordering::Relaxed);
    }

    /// Where the sessions of a user are kept.
    pub(super) fn home_of_user(&self, user: &UserKey) -> Home {
        let app = self.table.bound.load().name(user.app);
        home_of(&app, &user.tenant, &user.user)
    }

    pub(super) fn home(&self, cell: &Cell) -> Home {
        self.home_of(&cell.session.lock())
    }

    fn home_of(&self, session: &Session) -> Home {
        match session.identity.as_deref() {
            Some(identity) => self.home_of_user(&UserKey::of(session.app, identity)),
            None => home_alone(session.id),
        }
    }

    /// Whether the store keeps the session there; else it is what is left from before somebody signed in on it.
    fn is_at_home(home: Home, image: &Image) -> bool {
        match &image.identity {
            Some(identity) => home == home_of(&image.app, &identity.tenant, &identity.user),
            None => home == home_alone(image.id),
        }
    }

    /// Whether somebody has signed in on that session, as far as is known here.
    pub(super) fn is_identified(&self, id: SessionId) -> bool {
        self.table.cell_by_id(id).is_some_and(|cell| cell.session.lock().identity.is_some())
    }

    /// Keeps only what belongs to a session that is still known.
    pub(super) fn prune(&self) {
        let known: HashSet<Home> = self.table.cells().iter().map(|cell| self.home(cell)).collect();
        self.versions.retain(&known);
    }

    /// The store has what was written on this base. ORDER: before the cells arrive.
    pub(super) fn reached(&self, home: Home, base: Base, version: u64) {
        let _nothing_is_taken_over = self.following.lock();
        self.versions.reached(home, base, version);
    }

    /// Takes over what the store said of a home to who was at `base`: what this gateway stored is not undone by what was there
    /// before. What cannot be read, as a newer program may have written it, is left alone: it costs nobody else of the home
    /// anything.
    pub(super) fn take_over(
        &self,
        (home, base): (Home, Base),
        version: u64,
        rows: &[Row],
        now: Moment,
    ) -> Taken {
        let _one_at_a_time = self.following.lock();
        if self.versions.base(home) != base {
            return Taken::Late;
        }
        // One of which nothing is left may have been given up.
        if version != 0 && version < base.version {
            return Taken::Lost;
        }
        let read = |row: &Row| {
            let stored = row.open(&self.sealer);
            if let Err(why) = &stored {
                tracing::error!(
                    session = %row.id, %why,
                    "a stored session cannot be read here: its browser is answered 503 by this gateway, and nothing ends it here"
                );
            }
            stored.ok()
        };
        let mut stored: Vec<_> = rows.iter().filter_map(read).collect();
        stored.retain(|stored| Self::is_at_home(home, &stored.image));
        self.table.take_over(stored, now);
        // ORDER: after the sessions, so that whoever writes on the base of this version has them.
        self.versions.is_at(home, base, version);
        Taken::Over(rows.iter().filter_map(|row| self.table.cell_by_id(row.id)).collect())
    }

    /// The live sessions of the same user.
    pub(super) fn siblings(&self, cell: &Cell) -> Vec<Arc<Cell>> {
        let user = {
            let session = cell.session.lock();
            session.identity.as_deref().map(|identity| UserKey::of(session.app, identity))
        };
        user.and_then(|user| self.table.by_user.view(&user, |_, cells| cells.clone())).unwrap_or_default()
    }

    /// What is to be stored of these sessions of one home. Those that have moved to another one meanwhile, because somebody
    /// signed in on them, go from `cells` to the second of what is returned.
    pub(super) fn plan(&self, home: Home, cells: &mut Changes, now: Moment) -> (Write, Changes) {
        // ORDER: the base before the records, see `take_over`.
        let base = self.versions.base(home);
        let mut write = Write { home, base, puts: Vec::new(), pointers: Vec::new() };
        let has_moved = |(cell, changed): &mut _| !self.plan_one(&mut write, cell, *changed, now);
        let moved = cells.extract_if(.., has_moved).collect();
        (write, moved)
    }

    /// Returns whether it belongs there.
    fn plan_one(&self, write: &mut Write, cell: &Arc<Cell>, changed: Changed, now: Moment) -> bool {
        let bound = self.table.bound.load();
        // Of several sessions that hold a token the one says so in the store that it stands for here.
        let keys: Vec<TokenKey> = cell.session.lock().keys().collect();
        let owns =
            |key: &TokenKey| self.table.cell_by_token(*key).is_some_and(|owner| Arc::ptr_eq(&owner, cell));
        let owned: Vec<TokenKey> = keys.into_iter().filter(owns).collect();
        let session = cell.session.lock();
        if self.home_of(&session) != write.home {
            return false;
        }
        let app = bound.name(session.app);
        if changed.has(Changed::RECORD) || changed.has(Changed::JAR) {
            cell.revision.fetch_add(1, Ordering::Relaxed);
        }
        let gone = changed.has(Changed::GONE);
        let revision = cell.revision.load(Ordering::Relaxed);
        let record = if gone { None } else { record(&session, &app, revision) };
        let jar = match &session.jar {
            None if changed.has(Changed::JAR) => JarChange::Remove,
            Some(jar) if changed.has(Changed::JAR) || changed.has(Changed::AGAIN) => {
                self.sealer.seal(session.id, jar).map_or(JarChange::Remove, JarChange::Put)
            }
            Some(_) | None => JarChange::Keep,
        };
        let term = term(&session, bound.book.ended_kept);
        if record.is_some() {
            let ttl = term.saturating_sub(now.unix_ms()).max(1);
            let id = session.id;
            write.pointers.extend(owned.into_iter().map(|key| Pointer { key, id, ttl }));
        }
        write.puts.push(Put {
            id: session.id,
            record,
            jar,
            term,
            active_at: session.times.last_active_at,
            signed_in: session.identity.is_some(),
            ended: session.ended().is_some(),
        });
        true
    }

    /// Everything that this gateway knows is to be stored again: ends first.
    pub(super) fn mark_all(&self) {
        self.versions.forget();
        let (ended, live): (Vec<_>, Vec<_>) =
            self.table.cells().into_iter().partition(|cell| cell.session.lock().ended().is_some());
        for cell in ended.iter().chain(&live) {
            self.table.mark(cell, Changed::AGAIN);
        }
        let is_something = !(ended.is_empty() && live.is_empty());
        *self.marked.lock() = is_something.then(|| self.journal.ticket());
    }

    /// Whether the store has everything that [`Replica::mark_all`] marked.
    pub(super) fn is_merged(&self) -> bool {
        self.marked.lock().is_none_or(|ticket| self.journal.is_safe(ticket))
    }
}
