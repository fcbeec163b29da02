//! Where sessions live.
//!
//! The [`Table`] in memory answers every request. Its methods take closures or values and return owned values: no
//! guard of a map or a lock ever leaves this module. Lock order, everywhere: the user's index entry or a shard of the
//! tokens, then one session's own lock, then the wheel; the maps of tokens and ids are never taken while a session is
//! locked. Policy stays in `session/`; this module only makes its decisions atomic.
//!
//! What happened is told to an [`Observer`] after all locks are released, by every path alike, so that no end can
//! go unaudited and no stream uncut.

mod anonymous;
mod audit;
mod book;
mod carry;
mod cell;
mod disk;
mod early;
mod enrol;
mod envelope;
mod foresee;
mod journal;
mod keys;
mod lasting;
mod limit;
mod link;
mod query;
mod redis;
mod restore;
mod seal;
mod secrets;
mod sharing;
mod sweep;
mod table;
mod trouble;

use std::sync::Arc;

pub use audit::{Act, AuditFilter, CannotRead, Day, DayKey, Entry, Found};
pub use book::{AppRules, Book, RoleRules};
pub use carry::{Carried, CarryFault};
pub use cell::{BusyGuard, LiveGuard, SessionRef};
pub use disk::{Disk, Opened, Opening, StoreFault, export, import};
pub use enrol::{Enrolled, Newcomer};
pub use journal::NotSafe;
pub use keys::{Hasher, derive_key, random_bytes};
pub use query::{Cursor, Filter, Page, RevokeOutcome, SessionView, StateFilter, UserView};
pub use redis::{OnFacts, Pace, Redis, RedisFault, RedisOpened, RedisOpening, export_shared, import_shared};
pub use secrets::{Keyring, Known, Secrets};
pub use table::{Counts, Table};
pub use trouble::Trouble;

use crate::session::identity::Identity;
use crate::session::jar::Jar;
use crate::session::{EndReason, Moment, SessionId};

/// What happened to a session; told once, after the fact, outside all locks.
#[derive(Clone, Debug)]
pub struct Event {
    /// The session.
    pub id: SessionId,
    /// The app's name.
    pub app: Arc<str>,
    /// Its user, where one is known.
    pub identity: Option<Arc<Identity>>,
    /// What happened.
    pub kind: EventKind,
    /// When: of an end, when the session was over; of all others, when it came to light.
    pub at: Moment,
    /// Exchanges of this session were in progress.
    pub busy: bool,
    /// With an end: what was kept of the app's cookies, which nobody keeps any longer.
    pub jar: Option<Arc<Jar>>,
}

/// The kinds of [`Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Somebody signed in.
    SignedIn,
    /// Somebody signed in beyond the limit and is held back.
    HeldBack,
    /// It ended.
    Ended {
        /// Why.
        reason: EndReason,
        /// By whom, where a person or an operator's token did it.
        by: Option<Arc<str>>,
    },
    /// It is over, and must be cut; who tells of its end, this gateway or another one that shares the store, is told with
    /// [`EventKind::Ended`] once the store has said so.
    Over(EndReason),
    /// It would have ended if the gateway enforced (R17).
    WouldEnd(EndReason),
    /// An anonymous session was forgotten for room (R25).
    Evicted,
    /// The app used a dead value again, and its next generation began (R12).
    Recycled,
}

/// Hears of every [`Event`].
pub trait Observer: Send + Sync {
    /// Called outside all locks, on the thread that caused the event; must not block.
    fn observe(&self, event: &Event);
}
