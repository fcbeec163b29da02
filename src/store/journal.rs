//! What has to be written where it outlives the process, and who waits for that.
//!
//! Not changes are queued but sessions: whoever writes takes each as it stands by then, so that many changes of one session
//! cost one write, nothing is written twice, and the queue is never longer than the table. Beside them stand *facts*, which
//! are few and replaced whole, and *entries* of the audit. What is taken together is one *batch*; whoever must not answer
//! before a change is safe waits for the batch that holds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::audit::Entry;
use super::cell::Cell;

/// How long an answer waits for the store at most: longer than a slow disk takes, shorter than people wait.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most entries of the audit that wait to be written: hours of sign-ins, in some tens of megabytes.
const MAX_ENTRIES: usize = 100_000;

/// What of a session has changed; a set of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Changed(u16);

impl Changed {
    /// Its record.
    pub(super) const RECORD: Self = Self(1);
    /// Its jar.
    pub(super) const JAR: Self = Self(1 << 1);
    /// Its last activity, and how many requests it made: may be written later than the rest.
    pub(super) const ACTIVITY: Self = Self(1 << 2);
    /// It was forgotten.
    pub(super) const GONE: Self = Self(1 << 3);
    /// It seems idle, and the store is to be asked whether it was active elsewhere.
    pub(super) const ASK: Self = Self(1 << 4);
    /// Its record is on its way to the store, which has not confirmed it.
    const ON_ITS_WAY: u16 = 1 << 5;
    /// Whoever writes knows already that its activity is to be written later.
    const SCHEDULED: u16 = 1 << 6;
    /// What is none of the writer's to take.
    const KEPT: u16 = Self::SCHEDULED | Self::ON_ITS_WAY | Self::JAR_ON_ITS_WAY;
    /// It stands in the queue.
    const QUEUED: u16 = 1 << 7;
    /// Nothing has: a shared store is to be given all of it again, its jar too.
    pub(super) const AGAIN: Self = Self(1 << 8);
    /// Its jar is on its way, too.
    const JAR_ON_ITS_WAY: u16 = 1 << 9;

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The rest, if there is any.
    pub(super) fn without(self, other: Self) -> Option<Self> {
        let rest = self.0 & !other.0 & !Self::KEPT;
        (rest != 0).then_some(Self(rest))
    }
}

/// The sessions that wait to be written. See the module.
pub(super) struct Journal {
    queue: Mutex<Queue>,
    filled: Condvar,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Queue {
    cells: Vec<Arc<Cell>>,
    facts: Facts,
    entries: Vec<Entry>,
    /// How many entries there was no room for.
    crowded_out: u64,
    /// The number of the batch that is being gathered.
    batch: u64,
    /// Somebody waits for it.
    urgent: bool,
    closing: bool,
}

/// How far writing has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// The latest batch that is safe, plus one.
    safe: u64,
    /// The latest batch that could not be written, plus one; what was in it stands in a later batch again.
    failed: u64,
}

/// A moment in the journal: everything that was changed before it. See [`Journal::safe`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket(u64);

/// The store could not make a change safe in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store did not confirm the change in time")]
pub struct NotSafe;

/// Values by their names.
pub(super) type Facts = BTreeMap<&'static str, Vec<u8>>;

/// One batch, as its writer takes it.
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) cells: Vec<Arc<Cell>>,
    pub(super) facts: Facts,
    pub(super) entries: Vec<Entry>,
    /// Nothing comes after it.
    pub(super) last: bool,
}

impl Journal {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), filled: Condvar::new(), progress: watch::Sender::default() })
    }

    /// Notes that `what` of a session has changed; after the change, or while the session is locked.
    pub(super) fn mark(&self, cell: &Arc<Cell>, what: Changed) {
        // Most requests touch a session whose activity is to be written already.
        let known = Changed::ACTIVITY.0 | Changed::SCHEDULED;
        if what == Changed::ACTIVITY && cell.changed.load(Ordering::Acquire) & known != 0 {
            return;
        }
        // ORDER: pairs with the swap in `take_changes`: who finds the bit set is before that, and before the writer's look at
        // the session, which is locked then.
        let before = cell.changed.fetch_or(what.0 | Changed::QUEUED, Ordering::AcqRel);
        if before & Changed::QUEUED == 0 {
            self.queue.lock().cells.push(Arc::clone(cell));
        }
    }

    /// Notes a fact in the place of what it was before.
    pub(super) fn note_fact(&self, name: &'static str, value: Vec<u8>) {
        self.queue.lock().facts.insert(name, value);
    }

    /// Notes an entry of the audit. While the store fails for long there is no room at last; each has its line in the log.
    pub(super) fn note_entry(&self, entry: Entry) {
        let mut queue = self.queue.lock();
        if queue.entries.len() < MAX_ENTRIES {
            queue.entries.push(entry);
        } else {
            queue.crowded_out += 1;
        }
    }

    /// How many sessions wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().cells.len()
    }

    /// Whether everything up to `ticket` is safe by now.
    pub(super) fn is_safe(&self, Ticket(batch): Ticket) -> bool {
        self.progress.borrow().safe > batch
    }

    /// How many entries of the audit there was no room for.
    pub(super) fn crowded_out(&self) -> u64 {
        self.queue.lock().crowded_out
    }

    /// What could not be written is to be tried again; a fact, unless a newer one is there by now.
    pub(super) fn put_back(&self, facts: Facts, mut entries: Vec<Entry>) {
        let mut queue = self.queue.lock();
        for (name, value) in facts {
            queue.facts.entry(name).or_insert(value);
        }
        entries.append(&mut queue.entries);
        queue.entries = entries;
    }

    /// Everything that was changed until now. The writer hurries: somebody is about to wait.
    pub(super) fn ticket(&self) -> Ticket {
        let mut queue = self.queue.lock();
        queue.urgent = true;
        self.filled.notify_one();
        Ticket(queue.batch)
    }

    /// Waits until everything up to `ticket` would survive the process and the machine.
    ///
    /// # Errors
    /// [`NotSafe`] when the store fails, or takes too long. It goes on trying.
    // CANCEL: nothing is held; what was changed is written all the same.
    pub(super) async fn safe(&self, Ticket(batch): Ticket) -> Result<(), NotSafe> {
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|p| p.safe > batch || p.failed > batch);
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(Ok(progress)) if progress.safe > batch => Ok(()),
            Ok(Ok(_) | Err(_)) | Err(_) => Err(NotSafe),
        }
    }

    /// The next batch: at once when somebody waits for it, else what has gathered in `rest`.
    pub(super) fn take(&self, rest: Duration) -> Batch {
        let mut queue = self.queue.lock();
        if !queue.urgent && !queue.closing {
            self.filled.wait_for(&mut queue, rest);
        }
        let batch = Batch {
            number: queue.batch,
            cells: std::mem::take(&mut queue.cells),
            facts: std::mem::take(&mut queue.facts),
            entries: std::mem::take(&mut queue.entries),
            last: queue.closing,
        };
        queue.batch += 1;
        queue.urgent = false;
        batch
    }

    /// Tells those who wait what became of a batch.
    pub(super) fn done(&self, number: u64, is_safe: bool) {
        self.progress.send_modify(|progress| match is_safe {
            true => progress.safe = number + 1,
            false => progress.failed = number + 1,
        });
    }

    /// No batch comes after the next one.
    pub(super) fn close(&self) {
        self.queue.lock().closing = true;
        self.filled.notify_one();
    }
}

impl Cell {
    /// Takes the cell out of the queue, with what has changed. Look at the session afterwards, not before.
    pub(super) fn take_changes(&self) -> Changed {
        self.take_all_but(Changed::KEPT)
    }

    fn take_all_but(&self, kept: u16) -> Changed {
        Changed(self.changed.fetch_and(kept, Ordering::AcqRel) & !Changed::QUEUED)
    }

    /// The same where it is about to be read and sent. With `early` the cell stays in the queue for another time: it must not
    /// stand there twice, or the second would be taken for one that has arrived.
    pub(super) fn set_out(&self, early: bool) -> Changed {
        // ORDER: said before the changes are taken, so that it seems changed all the time.
        self.changed.fetch_or(Changed::ON_ITS_WAY | Changed::JAR_ON_ITS_WAY, Ordering::AcqRel);
        let queued = if early { Changed::QUEUED } else { 0 };
        let changed = self.take_all_but(Changed::KEPT | queued);
        if !changed.has(Changed::JAR) {
            self.changed.fetch_and(!Changed::JAR_ON_ITS_WAY, Ordering::AcqRel);
        }
        changed
    }

    /// The store has what was sent, or it will be sent again.
    pub(super) fn arrived(&self) {
        self.changed.fetch_and(!(Changed::ON_ITS_WAY | Changed::JAR_ON_ITS_WAY), Ordering::AcqRel);
    }

    /// Whether its jar has changed and the store has not confirmed that.
    pub(super) fn is_jar_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire) & (Changed::JAR.0 | Changed::JAR_ON_ITS_WAY) != 0
    }

    /// Whether its record has changed and the store has not confirmed that.
    pub(super) fn is_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire) & (Changed::RECORD.0 | Changed::AGAIN.0 | Changed::ON_ITS_WAY)
            != 0
    }

    /// Its activity will be written later. Returns whether that is news.
    pub(super) fn schedule(&self) -> bool {
        self.changed.fetch_or(Changed::SCHEDULED, Ordering::AcqRel) & Changed::SCHEDULED == 0
    }

    /// Its activity is being written.
    pub(super) fn unschedule(&self) {
        self.changed.fetch_and(!Changed::SCHEDULED, Ordering::AcqRel);
    }
}
