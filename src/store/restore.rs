//! The table as it was when another process left it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::cell::Cell;
use super::journal::Changed;
use super::seal::OpenedJar;
use super::table::{Table, UserKey};
use crate::session::gate::Standing;
use crate::session::jar::Jar;
use crate::session::record::{AppId, Image, Session};
use crate::session::{Moment, SessionId, TokenKey};

/// A session as a store gives it back.
pub(super) struct Stored {
    pub(super) image: Image,
    pub(super) jar: Option<Jar>,
    /// The jar is sealed under a secret from before.
    pub(super) has_old_seal: bool,
    /// Where the store keeps it.
    pub(super) slot: u32,
    /// See [`Cell::revision`].
    pub(super) revision: u32,
}

impl Stored {
    pub(super) fn new(image: Image, jar: Option<OpenedJar>, slot: u32) -> Self {
        let has_old_seal = jar.as_ref().is_some_and(|jar| jar.is_old);
        Self { image, jar: jar.map(|opened| opened.jar), has_old_seal, slot, revision: 0 }
    }
}

impl Table {
    /// Takes in what a store gives back, before anything is served. Each session is judged as of `now` by what it was held
    /// to before: one whose time has come ends for that, and only the others take on the present book (R1).
    ///
    /// `next` gives the stored rows portion by portion, and `read` makes sessions of a portion, on all cores at once.
    pub(super) fn restore<P: Send, E: Send>(
        &self,
        mut next: impl FnMut() -> Result<Option<P>, E>,
        read: impl Fn(P) -> Result<Vec<Stored>, E> + Sync,
        now: Moment,
    ) -> Result<(), E> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let (portions, waiting) = std::sync::mpsc::sync_channel::<P>(cores);
        let waiting = Mutex::new(waiting);
        let take = || waiting.lock().recv().ok();
        let shares: Vec<Vec<Arc<Cell>>> = std::thread::scope(|scope| {
            let link = || -> Result<Vec<Arc<Cell>>, E> {
                let mut share = Vec::new();
                while let Some(portion) = take() {
                    share.extend(read(portion)?.into_iter().map(|stored| self.take_in(stored, now)));
                }
                Ok(share)
            };
            let linking: Vec<_> = (0..cores).map(|_| scope.spawn(link)).collect();
            let fed = (|| {
                while let Some(portion) = next()? {
                    if portions.send(portion).is_err() {
                        break;
                    }
                }
                Ok(())
            })();
            drop(portions);
            let shares = linking.into_iter().map(joined).collect::<Result<_, E>>();
            fed.and(shares)
        })?;
        self.class_restored(shares.iter().flatten());
        std::thread::scope(|scope| {
            for share in &shares {
                scope.spawn(|| self.judge_restored(share, now));
            }
        });
        self.remembered.lock().restore(shares.iter().flatten().filter_map(end_of).collect());
        let users = self.users_indexed(|_| true);
        std::thread::scope(|scope| {
            for share in users.chunks(users.len().div_ceil(cores).max(1)) {
                scope.spawn(|| share.iter().for_each(|user| self.reckon(user, now)));
            }
        });
        Ok(())
    }

    /// Whoever ended before is left alone; others are judged, and filed under what is left of their time.
    fn judge_restored(&self, cells: &[Arc<Cell>], now: Moment) {
        for cell in cells.iter().filter(|cell| end_of(cell).is_none()) {
            self.with(cell, now, |_| ());
            self.file(cell, now);
        }
    }

    pub(super) fn take_in(&self, stored: Stored, now: Moment) -> Arc<Cell> {
        // Numbers wrap around, so there is always an older one.
        let epoch = self.bound.load().epoch.wrapping_sub(1);
        let has_old_seal = stored.has_old_seal;
        let cell = self.rebuild(stored, epoch);
        self.link_restored(&cell, now);
        if has_old_seal {
            self.mark(&cell, Changed::JAR);
        }
        cell
    }

    /// The number of the app, which may be none of the configuration any more: its sessions go on until they are over.
    fn app_number(&self, name: &str) -> AppId {
        self.app_id(name).unwrap_or_else(|| self.add_app(name))
    }

    fn rebuild(&self, stored: Stored, epoch: u32) -> Arc<Cell> {
        let app = self.app_number(&stored.image.app);
        let mut session = stored.image.restore(app, epoch, &mut |shape| self.intern(shape));
        session.jar = stored.jar.map(Arc::new);
        if self.is_shared() {
            session.share();
        }
        let cell = Cell::new(session);
        cell.slot.store(stored.slot, Ordering::Relaxed);
        cell.revision.store(stored.revision, Ordering::Relaxed);
        cell
    }

    /// Makes a session findable by everything that it can be found by.
    fn link_restored(&self, cell: &Arc<Cell>, now: Moment) {
        let (keys, user) = {
            let session = cell.session.lock();
            let user = session.identity.as_deref().map(|identity| UserKey::of(session.app, identity));
            // What has run out stands for nothing, and perhaps for a session that ended before.
            let keys = session.keys().filter(|key| session.standing(*key, now) != Standing::Stale);
            (keys.collect::<Vec<TokenKey>>(), user.filter(|_| !session.is_over()))
        };
        self.by_id.insert(cell.id, Arc::clone(cell));
        self.session_count.fetch_add(1, Ordering::Relaxed);
        keys.into_iter().for_each(|key| self.own_restored(cell, key, now));
        if let Some(user) = user {
            self.join_index(&user, cell);
        }
    }

    /// Anonymous sessions enter their class in the order of their activity, within a bound that may be another one now.
    pub(super) fn class_restored<'a>(&self, cells: impl Iterator<Item = &'a Arc<Cell>>) {
        let mut anonymous: Vec<_> = cells.filter_map(as_anonymous).collect();
        anonymous.sort_unstable_by_key(|(at, id, ..)| (*at, *id));
        let bound = self.bound.load().book.anonymous_sessions;
        for (_, id, ip, returned) in anonymous {
            let gone = {
                let mut class = self.anonymous.lock();
                let gone = class.add(id, ip, bound);
                if returned {
                    class.active(id);
                }
                gone
            };
            gone.into_iter().filter_map(|id| self.cell_by_id(id)).for_each(|cell| self.forget(&cell));
        }
    }

    /// Of several sessions that hold a key the one owns it that would own it had the process gone on (see `link`): it died
    /// with the one that ended last, unless a session began with it since.
    #[expect(clippy::disallowed_methods, reason = "the table's own module; the guard ends here")]
    fn own_restored(&self, cell: &Arc<Cell>, key: TokenKey, now: Moment) {
        let mut owner = self.by_token.entry(key).or_insert_with(|| Arc::clone(cell));
        let claim = |cell: &Cell| claim_of(&cell.session.lock(), key, now);
        if !Arc::ptr_eq(&owner, cell) && claim(cell) > claim(&owner) {
            *owner = Arc::clone(cell);
        }
    }
}

/// A panic of a thread goes on in the one that waits for it.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn end_of(cell: &Arc<Cell>) -> Option<(Moment, SessionId)> {
    cell.session.lock().ended().map(|end| (end.at, cell.id))
}

fn as_anonymous(cell: &Arc<Cell>) -> Option<(Moment, SessionId, IpAddr, bool)> {
    let session = cell.session.lock();
    let is_anonymous = session.identity.is_none() && !session.is_over();
    is_anonymous.then_some((session.times.last_active_at, session.id, session.visitor.ip, session.returned))
}

/// The later one counts: an end from its moment on, a life from its beginning on. An end and a beginning of one moment are
/// those of a session and its successor. A value from before a sign-in counts least. The id decides between equals, so that
/// every start finds the same.
pub(super) fn claim_of(session: &Session, key: TokenKey, now: Moment) -> Claim {
    let is_token = session.standing(key, now) != Standing::Replaced;
    match session.ended() {
        Some(end) => (is_token, end.at, false, session.id),
        None => (is_token, session.times.created_at, true, session.id),
    }
}

/// See [`claim_of`].
pub(super) type Claim = (bool, Moment, bool, SessionId);

impl Table {
    /// Every session as stores hold it; as it stands, whether or not its time has come.
    #[must_use]
    pub fn images(&self) -> Vec<Image> {
        let image = |cell: Arc<Cell>| {
            let session = cell.session.lock();
            session.image(&self.bound.load().name(session.app))
        };
        self.cells().into_iter().filter_map(image).collect()
    }
}
