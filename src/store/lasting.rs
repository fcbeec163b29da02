//! What of the table's doings outlives it: what is to be written, and the audit.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::audit::{Act, Audit, AuditFilter, CannotRead, Day, DayKey, Entry, Found};
use super::cell::Cell;
use super::journal::{Changed, Journal, NotSafe};
use super::sharing::Sharing;
use super::table::Table;
use super::{Event, EventKind};

/// What a table stands over.
pub(super) struct Backing {
    /// Where sessions outlive the process: what happens is noted there.
    pub(super) journal: Option<Arc<Journal>>,
    pub(super) audit: Audit,
    /// Where other gateways share the store.
    pub(super) sharing: Option<Sharing>,
    /// About how many sessions it is to take in at once: it does not have to grow for them.
    pub(super) expected: usize,
}

impl Table {
    /// Notes that `what` of the session has to be written, where anything is.
    pub(super) fn mark(&self, cell: &Arc<Cell>, what: Changed) {
        if let Some(journal) = &self.journal {
            journal.mark(cell, what);
        }
    }

    /// Keeps a value under a name, for the next process to find ([`super::Opened::facts`]); in memory alone it is forgotten.
    /// Written behind; [`Table::safe`] waits for it.
    pub fn keep_fact(&self, name: &'static str, value: Vec<u8>) {
        if let Some(journal) = &self.journal {
            journal.note_fact(name, value);
        }
    }

    /// Waits until everything that has happened until now would survive the process and the machine. At once where nothing
    /// outlives the process.
    ///
    /// # Errors
    /// [`NotSafe`] when the store fails, or takes too long. It goes on trying.
    pub async fn safe(&self) -> Result<(), NotSafe> {
        match &self.journal {
            Some(journal) => journal.safe(journal.ticket()).await,
            None => Ok(()),
        }
    }

    /// Notes what an operator did.
    pub fn note(&self, entry: Entry) {
        self.audit.note(entry);
    }

    /// The newest entries of the audit that fit, newest first. Reads the disk: not for a thread that serves requests.
    ///
    /// # Errors
    /// [`CannotRead`].
    pub fn audit(&self, filter: &AuditFilter, limit: usize) -> Result<Vec<Found>, CannotRead> {
        self.audit.page(filter, limit)
    }

    /// What happened on each day, of what fits. Reads the disk: not for a thread that serves requests.
    ///
    /// # Errors
    /// [`CannotRead`].
    pub fn days(&self, filter: &AuditFilter) -> Result<BTreeMap<DayKey, Day>, CannotRead> {
        self.audit.days(filter)
    }

    /// How many sessions wait to be written.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.journal.as_ref().map_or(0, |journal| journal.waiting())
    }

    /// How many entries of the audit there was no room for while the store failed.
    #[must_use]
    pub fn audit_crowded_out(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.crowded_out())
    }

    /// Notes an event in the audit, where it belongs there.
    pub(super) fn note_event(&self, event: &Event) {
        if let Some(entry) = entry_of(event) {
            self.audit.note(entry);
        }
    }
}

/// What the audit says of an event: nothing of sessions that nobody has signed in on, and nothing of what was only counted.
fn entry_of(event: &Event) -> Option<Entry> {
    let identity = event.identity.as_deref()?;
    let (act, by) = match &event.kind {
        EventKind::SignedIn => (Act::SignedIn, None),
        EventKind::HeldBack => (Act::HeldBack, None),
        EventKind::Ended { reason, by } => (Act::Ended(*reason), by.clone()),
        EventKind::Over(_) | EventKind::WouldEnd(_) | EventKind::Evicted | EventKind::Recycled => {
            return None;
        }
    };
    Some(Entry {
        at: event.at,
        act,
        session: Some(event.id),
        app: Some(Arc::clone(&event.app)),
        tenant: Some(identity.tenant.clone()),
        user: Some(identity.user.clone()),
        by,
        detail: None,
    })
}
