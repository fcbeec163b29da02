//! The sweeper's data: which session to look at when, and which ended ones to forget.
//!
//! The sweeper frees memory and makes ends happen for sessions that nobody asks about, so that live streams end in
//! time; it never decides anything that a request would not have decided itself (law 1).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cell::Cell;
use super::journal::Changed;
use super::table::Table;
use crate::session::{Moment, SessionId, Span};

/// Width of a bucket in milliseconds: the sweeper's tick, well within the promised second (R21).
pub(super) const BUCKET_MS: u64 = 250;

/// Most ended sessions that are remembered, whatever `ended_kept` says (R30 bounds them by a count too).
const MAX_REMEMBERED: usize = 1_000_000;

/// A session that is only observed goes on past its deadline; it is looked at again this much later.
const OBSERVED_AGAIN: Span = Span::from_secs(60);

/// While only observing, a session is forgotten when its deadline and its last activity are both this long ago:
/// nothing else would ever free it.
const OBSERVED_KEPT: Span = Span::from_secs(24 * 3600);

/// Sessions by the bucket of their deadline, each at most once. A touch does not move an entry: when its bucket comes
/// up, the session is looked at and filed anew.
#[derive(Default)]
pub(super) struct Wheel {
    buckets: BTreeMap<u64, Vec<Arc<Cell>>>,
}

impl Wheel {
    fn file(&mut self, cell: &Arc<Cell>, at: Moment) {
        let bucket = at.unix_ms() / BUCKET_MS + 1;
        if cell.filed.load(Ordering::Relaxed) == bucket {
            return;
        }
        self.remove(cell);
        let cells = self.buckets.entry(bucket).or_default();
        cell.filed.store(bucket, Ordering::Relaxed);
        cell.place.store(cells.len(), Ordering::Relaxed);
        cells.push(Arc::clone(cell));
    }

    pub(super) fn remove(&mut self, cell: &Arc<Cell>) {
        let bucket = cell.filed.swap(0, Ordering::Relaxed);
        let Entry::Occupied(mut cells) = self.buckets.entry(bucket) else { return };
        let place = cell.place.load(Ordering::Relaxed);
        if place < cells.get().len() {
            cells.get_mut().swap_remove(place);
        }
        if let Some(moved) = cells.get().get(place) {
            moved.place.store(place, Ordering::Relaxed);
        }
        if cells.get().is_empty() {
            cells.remove();
        }
    }

    fn due(&mut self, now: Moment) -> Vec<Arc<Cell>> {
        let later = self.buckets.split_off(&(now.unix_ms() / BUCKET_MS + 1));
        let due = std::mem::replace(&mut self.buckets, later);
        let cells: Vec<Arc<Cell>> = due.into_values().flatten().collect();
        for cell in &cells {
            cell.filed.store(0, Ordering::Relaxed);
        }
        cells
    }

    fn len(&self) -> usize {
        self.buckets.values().map(Vec::len).sum()
    }
}

/// Ended sessions in the order they ended.
#[derive(Default)]
pub(super) struct Remembered {
    queue: VecDeque<(Moment, SessionId)>,
}

impl Remembered {
    pub(super) fn add(&mut self, id: SessionId, at: Moment) {
        self.queue.push_back((at, id));
    }

    /// Takes in what ended before this process began.
    pub(super) fn restore(&mut self, mut ended: Vec<(Moment, SessionId)>) {
        // Some ended just now, while they were taken in; they are among them.
        ended.sort_unstable();
        self.queue = ended.into();
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    fn due(&mut self, before: Moment) -> Vec<SessionId> {
        let mut due = Vec::new();
        while let Some((at, id)) = self.queue.front() {
            if *at > before && self.queue.len() <= MAX_REMEMBERED {
                break;
            }
            due.push(*id);
            self.queue.pop_front();
        }
        due
    }
}

impl Table {
    /// Files the session under its next deadline, and takes it out where nothing is to come.
    pub(super) fn file(&self, cell: &Arc<Cell>, now: Moment) {
        // ORDER: filed while the session is locked, so that the deadline filed last is the one that holds.
        let session = cell.session.lock();
        let mut wheel = self.wheel.lock();
        match session.next_look(OBSERVED_AGAIN, now) {
            Some(at) => wheel.file(cell, at),
            None => wheel.remove(cell),
        }
    }

    /// Looks at every session whose deadline may have come, and forgets ended ones past their time. Returns how
    /// many were looked at. Call it at least every 250 ms.
    pub fn sweep(&self, now: Moment) -> usize {
        let due = self.wheel.lock().due(now);
        for cell in &due {
            let abandoned =
                self.with(cell, now, |s| !cell.is_busy() && s.is_abandoned(OBSERVED_KEPT, now) && s.forget());
            if abandoned {
                self.forget(cell);
            } else {
                self.ask_if_unsure(cell, now);
                self.file(cell, now);
            }
        }
        let before = {
            let bound = self.bound.load();
            if now < bound.book.ended_kept_until {
                Moment::default()
            } else {
                now.minus(bound.book.ended_kept)
            }
        };
        let forgotten = self.remembered.lock().due(before);
        for id in forgotten {
            if let Some(cell) = self.cell_by_id(id) {
                self.forget(&cell);
            }
        }
        due.len()
    }

    /// How many sessions the sweeper waits for.
    #[must_use]
    pub fn filed(&self) -> usize {
        self.wheel.lock().len()
    }

    /// Removes a session that is over from everywhere.
    pub(super) fn forget(&self, cell: &Arc<Cell>) {
        self.unlink_all(cell);
        if self.by_id.remove(&cell.id).is_some() {
            self.session_count.fetch_sub(1, Ordering::Relaxed);
        }
        self.anonymous.lock().remove(cell.id);
        self.wheel.lock().remove(cell);
        self.leave_index(cell);
        self.mark(cell, Changed::GONE);
    }

    pub(super) fn leave_index(&self, cell: &Arc<Cell>) {
        let key = {
            let session = cell.session.lock();
            session.identity.as_deref().map(|identity| super::table::UserKey::of(session.app, identity))
        };
        let Some(key) = key else { return };
        self.by_user.remove_if_mut(&key, |_, cells| {
            cells.retain(|other| !Arc::ptr_eq(other, cell));
            cells.is_empty()
        });
    }
}
