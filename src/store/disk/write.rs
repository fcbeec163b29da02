//! The one thread that writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::database::{ACTIVITY, Database, JARS, SESSIONS};
use super::load::{activity_row, record_row};
use crate::clock::Clock;
use crate::session::{Moment, Span};
use crate::store::Trouble;
use crate::store::audit::Entry;
use crate::store::cell::{Cell, NOWHERE};
use crate::store::journal::{Batch, Changed, Facts, Journal};
use crate::store::seal::Sealer;
use crate::store::table::Table;

/// What nobody waits for is written this often: well within the second that is promised (R22).
const REST: Duration = Duration::from_millis(250);

/// A session's activity is written once in this part of its idle time-out: after a crash it may seem idle for that much
/// longer than it was (R20).
const PARTS_OF_IDLE: u64 = 10;
const SELDOMEST: Span = Span::from_secs(60);
const OFTENEST: Span = Span::from_secs(1);

/// Between two looks for what can be removed and given back.
const CLEANED_EVERY: Span = Span::from_secs(10);

/// The numbers under which sessions are kept; small, because given-up ones are used again.
pub(super) struct Slots {
    free: Vec<u32>,
    next: u32,
}

impl Default for Slots {
    fn default() -> Self {
        Self { free: Vec::new(), next: 1 }
    }
}

impl Slots {
    /// A session has this slot already; told in ascending order.
    pub(super) fn is_used(&mut self, slot: u32) {
        self.free.extend(self.next..slot);
        self.next = self.next.max(slot.saturating_add(1));
    }

    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

pub(super) struct Writer {
    database: Database,
    table: Arc<Table>,
    sealer: Sealer,
    slots: Slots,
    clock: Clock,
    trouble: Arc<Trouble>,
    /// Sessions whose activity is to be written, by the moment.
    due: BTreeMap<Moment, Vec<Arc<Cell>>>,
    /// When to clean next.
    clean_at: Moment,
}

impl Writer {
    pub(super) fn new(
        database: Database,
        table: &Arc<Table>,
        sealer: Sealer,
        slots: Slots,
        clock: Clock,
        trouble: Arc<Trouble>,
    ) -> Self {
        let table = Arc::clone(table);
        Self {
            database,
            table,
            sealer,
            slots,
            clock,
            trouble,
            due: BTreeMap::new(),
            clean_at: Moment::default(),
        }
    }

    /// Writes until the journal is closed.
    pub(super) fn run(mut self, journal: &Journal) {
        loop {
            let batch = journal.take(REST);
            let last = batch.last;
            self.write(journal, batch);
            self.clean();
            if last {
                return;
            }
        }
    }

    fn write(&mut self, journal: &Journal, batch: Batch) {
        let now = self.clock.now();
        let mut changes: Vec<(Arc<Cell>, Changed)> =
            batch.cells.into_iter().map(|cell| (Arc::clone(&cell), cell.take_changes())).collect();
        changes.retain(|(cell, changed)| !is_forgotten_unwritten(cell, *changed));
        let mut fresh = Vec::new();
        for (cell, changed) in &changes {
            self.prepare(cell, *changed, &mut fresh, now);
        }
        let active = self.take_due(if batch.last { Moment::MAX } else { now });
        let nothing = batch.facts.is_empty() && batch.entries.is_empty();
        if nothing && changes.is_empty() && active.is_empty() {
            return journal.done(batch.number, true);
        }
        let outcome = self.commit(&changes, &active, &batch.facts, &batch.entries, now);
        self.trouble.told(outcome.as_ref().err().map(ToString::to_string), now);
        match &outcome {
            Ok(()) => self.release(&changes),
            Err(_) => {
                journal.put_back(batch.facts, batch.entries);
                self.put_back(journal, changes, &fresh, active, now);
            }
        }
        if let (Err(why), true) = (&outcome, batch.last) {
            tracing::error!(%why, "the store could not be written at the end: what happened last is lost with this process");
        }
        journal.done(batch.number, outcome.is_ok());
        if outcome.is_err() && !batch.last {
            // A full disk is not less full at once.
            std::thread::sleep(REST);
        }
    }

    /// Gives the session its slot, and its activity the moment at which it is written.
    fn prepare(&mut self, cell: &Arc<Cell>, changed: Changed, fresh: &mut Vec<Arc<Cell>>, now: Moment) {
        if cell.slot.load(Ordering::Relaxed) == 0 && changed.has(Changed::RECORD) {
            cell.slot.store(self.slots.take(), Ordering::Relaxed);
            fresh.push(Arc::clone(cell));
        }
        // A record that is written tells the activity too.
        if changed.has(Changed::ACTIVITY) && !changed.has(Changed::RECORD) && cell.schedule() {
            let idle = cell.session.lock().policy.idle_timeout;
            let part = idle.map_or(SELDOMEST, |idle| Span::from_ms(idle.as_ms() / PARTS_OF_IDLE));
            self.due.entry(now.plus(part.clamp(OFTENEST, SELDOMEST))).or_default().push(Arc::clone(cell));
        }
    }

    fn take_due(&mut self, now: Moment) -> Vec<Arc<Cell>> {
        let later = match now {
            Moment::MAX => BTreeMap::new(),
            now => self.due.split_off(&now.plus(Span::from_ms(1))),
        };
        let mut due: Vec<_> = std::mem::replace(&mut self.due, later).into_values().flatten().collect();
        // ORDER: taken off the schedule before it is read, so that an activity from now on is a new one.
        due.retain(|cell| {
            cell.unschedule();
            cell.slot.load(Ordering::Relaxed) != NOWHERE
        });
        // Neighbours share pages.
        due.sort_unstable_by_key(|cell| cell.slot.load(Ordering::Relaxed));
        due
    }

    fn commit(
        &mut self,
        changes: &[(Arc<Cell>, Changed)],
        active: &[Arc<Cell>],
        facts: &Facts,
        entries: &[Entry],
        now: Moment,
    ) -> rusqlite::Result<()> {
        let (table, sealer) = (&self.table, &self.sealer);
        self.database.change(now, |database| {
            // ORDER: first, or what is forgotten in this very batch would leave a row to whoever gets its slot.
            active.iter().try_for_each(|cell| write_activity(database, cell))?;
            for (cell, changed) in changes {
                write_changes(database, table, sealer, cell, *changed)?;
            }
            entries.iter().try_for_each(|entry| database.put_entry(entry))?;
            facts.iter().try_for_each(|(name, value)| database.set_fact(name, value))
        })
    }

    /// What was forgotten gives its slot up.
    fn release(&mut self, changes: &[(Arc<Cell>, Changed)]) {
        for (cell, _) in changes.iter().filter(|(_, changed)| changed.has(Changed::GONE)) {
            let slot = cell.slot.swap(NOWHERE, Ordering::Relaxed);
            if slot != 0 && slot != NOWHERE {
                self.slots.free.push(slot);
            }
        }
    }

    fn put_back(
        &mut self,
        journal: &Journal,
        changes: Vec<(Arc<Cell>, Changed)>,
        fresh: &[Arc<Cell>],
        active: Vec<Arc<Cell>>,
        now: Moment,
    ) {
        // Who is forgotten before it was ever written leaves the queue: a flood of visitors must not fill it (law 12).
        self.slots.free.extend(fresh.iter().map(|cell| cell.slot.swap(0, Ordering::Relaxed)));
        for (cell, changed) in changes {
            if let Some(left) = changed.without(Changed::ACTIVITY) {
                journal.mark(&cell, left);
            }
        }
        for cell in active {
            if cell.schedule() {
                self.due.entry(now.plus(OFTENEST)).or_default().push(cell);
            }
        }
    }

    /// Removes what is too old and gives room back, a little at a time; more with the next batch where there is more.
    fn clean(&mut self) {
        let now = self.clock.now();
        if now < self.clean_at {
            return;
        }
        let kept = self.table.bound.load().book.ended_kept;
        match self.database.give_back(now.minus(kept)) {
            Ok(true) => {}
            // What is wrong shows at the next write.
            Ok(false) | Err(_) => self.clean_at = now.plus(CLEANED_EVERY),
        }
    }
}

/// Nothing of it is in the store, and nothing is to be. It gets no slot any more.
fn is_forgotten_unwritten(cell: &Cell, changed: Changed) -> bool {
    let unwritten = || cell.slot.compare_exchange(0, NOWHERE, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    changed.has(Changed::GONE) && unwritten()
}

fn write_changes(
    database: &Database,
    table: &Table,
    sealer: &Sealer,
    cell: &Cell,
    changed: Changed,
) -> rusqlite::Result<()> {
    let slot = cell.slot.load(Ordering::Relaxed);
    if slot == 0 || slot == NOWHERE {
        return Ok(());
    }
    if changed.has(Changed::GONE) {
        return [SESSIONS, JARS, ACTIVITY].iter().try_for_each(|rows| database.remove(rows, slot));
    }
    if changed.has(Changed::RECORD) {
        let row = {
            let session = cell.session.lock();
            record_row(slot, &session, &table.bound.load().name(session.app))
        };
        if let Some(row) = row {
            database.put(&SESSIONS, slot, &row)?;
        }
    }
    if changed.has(Changed::JAR) {
        let jar = cell.session.lock().jar.clone();
        match jar.and_then(|jar| sealer.seal(cell.id, &jar)) {
            Some(sealed) => database.put(&JARS, slot, &sealed)?,
            None => database.remove(&JARS, slot)?,
        }
    }
    Ok(())
}

fn write_activity(database: &Database, cell: &Cell) -> rusqlite::Result<()> {
    let (at, requests) = {
        let session = cell.session.lock();
        (session.times.last_active_at, session.requests)
    };
    let slot = cell.slot.load(Ordering::Relaxed);
    activity_row(slot, at, requests).map_or(Ok(()), |row| database.put(&ACTIVITY, slot, &row))
}
