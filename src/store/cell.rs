//! One session behind its lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::session::SessionId;
use crate::session::record::Session;

/// See [`Cell::slot`].
pub(super) const NOWHERE: u32 = u32::MAX;

/// In a shared store a slot is no place but the second of the Unix epoch when the record was last stored whole; this bit, that
/// somebody had signed in by then.
pub(super) const SIGNED_IN: u32 = 1;

/// A session and what changes beside it without its lock.
pub(super) struct Cell {
    /// As in the session; it never changes.
    pub(super) id: SessionId,
    pub(super) session: Mutex<Session>,
    /// Exchanges in progress; an end needs to reach the workers only when there are some.
    exchanges: AtomicU32,
    /// WebSockets and event streams among them.
    live_connections: AtomicU32,
    /// The sweeper's bucket in which the session is filed, 0 for none, and its place there. Both belong to the wheel
    /// and are read and written under its lock alone.
    pub(super) filed: AtomicU64,
    pub(super) place: AtomicUsize,
    /// What of it waits to be written; see [`super::journal::Changed`].
    pub(super) changed: AtomicU16,
    /// Where the store keeps it, 0 for nowhere yet, [`NOWHERE`] for nowhere any more. Belongs to whoever writes; in a shared
    /// store whoever follows adds what others stored.
    pub(super) slot: AtomicU32,
    /// In a shared store: its sign-in was sent there, and nobody knows what became of it. Others may have followed what the
    /// store itself has lost since.
    pub(super) may_be_heard: AtomicBool,
    /// In a shared store: rises whenever a change of its record or its jar is about to be stored, by whichever gateway. Of two
    /// records the one of the lower revision is the earlier one. Written while the session is locked.
    pub(super) revision: AtomicU32,
}

impl Cell {
    pub(super) fn new(session: Session) -> Arc<Self> {
        Arc::new(Self {
            id: session.id,
            session: Mutex::new(session),
            exchanges: AtomicU32::new(0),
            live_connections: AtomicU32::new(0),
            filed: AtomicU64::new(0),
            place: AtomicUsize::new(0),
            changed: AtomicU16::new(0),
            slot: AtomicU32::new(0),
            may_be_heard: AtomicBool::new(false),
            revision: AtomicU32::new(0),
        })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.exchanges.load(Ordering::Acquire) > 0
    }

    /// In a shared store: whether its sign-in is not known to be stored.
    pub(super) fn is_unheard(&self) -> bool {
        self.slot.load(Ordering::Relaxed) & SIGNED_IN == 0
    }

    /// In a shared store: whether surely no other gateway has heard of its sign-in.
    pub(super) fn is_surely_unheard(&self) -> bool {
        self.is_unheard() && !self.may_be_heard.load(Ordering::Relaxed)
    }

    pub(super) fn live_connections(&self) -> u32 {
        self.live_connections.load(Ordering::Relaxed)
    }
}

/// A session that the table found. Opaque: everything is done through the [`super::Table`].
#[derive(Clone)]
pub struct SessionRef(pub(super) Arc<Cell>);

impl SessionRef {
    /// Its public name.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.0.id
    }

    /// Counts one exchange in progress until the guard is dropped.
    #[must_use]
    pub fn busy(&self) -> BusyGuard {
        // ORDER: the count rises before the worker judges again, so that an end either is seen there or sees it here.
        self.0.exchanges.fetch_add(1, Ordering::AcqRel);
        BusyGuard(Arc::clone(&self.0))
    }

    /// Counts one live connection (WebSocket, event stream) until the guard is dropped.
    #[must_use]
    pub fn live_connection(&self) -> LiveGuard {
        self.0.live_connections.fetch_add(1, Ordering::Relaxed);
        LiveGuard(Arc::clone(&self.0))
    }

    /// Whether both are the same session.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// See [`SessionRef::busy`].
pub struct BusyGuard(Arc<Cell>);

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.exchanges.fetch_sub(1, Ordering::AcqRel);
    }
}

/// See [`SessionRef::live_connection`].
pub struct LiveGuard(Arc<Cell>);

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.0.live_connections.fetch_sub(1, Ordering::Relaxed);
    }
}
