//! The sweeper's data: which session to look at when, and which ended ones to forget.
//!
//! The sweeper frees memory and makes ends happen for sessions that nobody asks about, so that live streams end in
//! time; it never decides anything that a request would not have decided itself (law 1).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cell::Cell;
use super::table::Table;
use crate::session::record::State;
use crate::session::{Moment, SessionId};

/// Width of a bucket in milliseconds: the sweeper's tick, well within the promised second (R21).
pub(super) const BUCKET_MS: u64 = 250;

/// Most ended sessions that are remembered, whatever `ended_kept` says (R30 bounds them by a count too).
const MAX_REMEMBERED: usize = 1_000_000;

/// Sessions by the bucket of their deadline. A touch does not move an entry: when its bucket comes up, the session
/// is looked at and filed anew.
#[derive(Default)]
pub(super) struct Wheel {
    buckets: BTreeMap<u64, Vec<Arc<Cell>>>,
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
    /// Files the session under its next deadline.
    pub(super) fn file(&self, cell: &Arc<Cell>) {
        let due = {
            let session = cell.session.lock();
            match session.state {
                State::Active => session.deadline.at(),
                State::Pending(until) => until,
                State::Ended(_) => return,
            }
        };
        if due == Moment::MAX {
            return;
        }
        let bucket = due.unix_ms() / BUCKET_MS + 1;
        // An entry in the same bucket is there already.
        if cell.filed.swap(bucket, Ordering::AcqRel) != bucket {
            self.wheel.lock().buckets.entry(bucket).or_default().push(Arc::clone(cell));
        }
    }

    /// Looks at every session whose deadline may have come, and forgets ended ones past their time. Returns how
    /// many were looked at. Call it at least every 250 ms.
    pub fn sweep(&self, now: Moment) -> usize {
        let due = self.due(now);
        for cell in &due {
            let over = self.with(cell, now, |session, _| session.ended().is_some());
            if !over {
                self.file_again(cell, now);
            }
        }
        let kept = self.bound.load().book.ended_kept;
        let forgotten = self.remembered.lock().due(now.minus(kept));
        for id in forgotten {
            if let Some(cell) = self.cell_by_id(id) {
                self.forget(&cell);
            }
        }
        due.len()
    }

    /// A session that is only observed may be past its deadline and go on: it is looked at again a minute later.
    fn file_again(&self, cell: &Arc<Cell>, now: Moment) {
        let overdue = {
            let session = cell.session.lock();
            session.state == State::Active && session.deadline.at() <= now
        };
        if overdue {
            let bucket = now.unix_ms() / BUCKET_MS + 60_000 / BUCKET_MS;
            cell.filed.store(bucket, Ordering::Release);
            self.wheel.lock().buckets.entry(bucket).or_default().push(Arc::clone(cell));
        } else {
            self.file(cell);
        }
    }

    fn due(&self, now: Moment) -> Vec<Arc<Cell>> {
        let present = now.unix_ms() / BUCKET_MS;
        let mut wheel = self.wheel.lock();
        let later = wheel.buckets.split_off(&(present + 1));
        let due = std::mem::replace(&mut wheel.buckets, later);
        drop(wheel);
        let mut cells = Vec::new();
        for (bucket, filed) in due {
            // An entry of another bucket is out of date: the session was filed anew meanwhile.
            let is_current = |cell: &Arc<Cell>| {
                cell.filed.compare_exchange(bucket, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            };
            cells.extend(filed.into_iter().filter(is_current));
        }
        cells
    }

    /// Removes a session from every map.
    pub(super) fn forget(&self, cell: &Arc<Cell>) {
        let (id, keys) = {
            let session = cell.session.lock();
            (session.id, session.keys().collect::<Vec<_>>())
        };
        self.unlink(cell, &keys);
        if self.by_id.remove(&id).is_some() {
            self.session_count.fetch_sub(1, Ordering::Relaxed);
        }
        self.leave_index(cell);
    }

    fn leave_index(&self, cell: &Arc<Cell>) {
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
