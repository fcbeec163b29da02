//! How the store fares: whether it writes, and since when it does not.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::session::{Moment, Span};

/// Shared by the store, which tells, and by those who answer requests, metrics and probes by it.
#[derive(Debug, Default)]
pub struct Trouble {
    /// Milliseconds since the Unix epoch, 0 while all is well.
    since: AtomicU64,
    failures: AtomicU64,
    writes: AtomicU64,
}

impl Trouble {
    /// What became of a write: `None` when it is safe, else why not. Said in the log when it begins and when it is over.
    pub(super) fn told(&self, fault: Option<String>, now: Moment) {
        match fault {
            None => {
                self.writes.fetch_add(1, Ordering::Relaxed);
                if self.since.swap(0, Ordering::Relaxed) != 0 {
                    tracing::info!("the store can be written again; nothing was lost");
                }
            }
            Some(why) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                let began = now.unix_ms().max(1);
                if self.since.compare_exchange(0, began, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    tracing::error!(%why, "the store cannot be written; sessions go on in memory, and it is tried again");
                }
            }
        }
    }

    /// For how long the store has been failing; `None` while all is well.
    #[must_use]
    pub fn lasts(&self, now: Moment) -> Option<Span> {
        match self.since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(now.since(Moment::from_unix_ms(since))),
        }
    }

    /// Writes that are safe, and writes that failed.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.writes.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }
}
