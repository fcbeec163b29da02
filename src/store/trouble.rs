//! How the store fares: whether it writes, and since when it does not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::session::{Moment, Span};

/// Shared by the store, which tells, and by those who answer requests, metrics and probes by it.
#[derive(Debug, Default)]
pub struct Trouble {
    /// Milliseconds since the Unix epoch, 0 while all is well.
    since: AtomicU64,
    /// The same of a store that is elsewhere: since when it has been away.
    away: AtomicU64,
    /// Its clock is too far from this machine's (R23).
    is_off: AtomicBool,
    /// Not all that a store elsewhere holds has been read since the start.
    is_reading: AtomicBool,
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

    /// The shared store answers, and holds what it should.
    pub(super) fn is_back(&self) {
        if self.away.swap(0, Ordering::Relaxed) != 0 {
            tracing::info!("the store answers again");
        }
    }

    /// The shared store does not answer, or has lost what it held.
    pub(super) fn is_away(&self, why: &str, now: Moment) {
        let began = now.unix_ms().max(1);
        if self.away.compare_exchange(0, began, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::error!(%why, "the store is away; sessions go on by what this gateway knows");
        }
    }

    /// Whether what a store elsewhere holds is being read: begun at the start, and over once.
    pub(super) fn is_reading(&self, is_reading: bool) {
        if self.is_reading.swap(is_reading, Ordering::Relaxed) && !is_reading {
            tracing::info!("all sessions of the store are known here");
        }
    }

    /// Whether every session of a user that the store held at the start is known by now.
    #[must_use]
    pub fn has_read_all(&self) -> bool {
        !self.is_reading.load(Ordering::Relaxed)
    }

    /// How far the store's clock is ahead of this machine's, in milliseconds, and whether that is too much.
    pub(super) fn is_off(&self, is_off: bool, offset_ms: i64) {
        if self.is_off.swap(is_off, Ordering::Relaxed) != is_off {
            if is_off {
                tracing::error!(offset_ms, "this machine's clock and the store's differ too much: not ready");
            } else {
                tracing::info!(offset_ms, "this machine's clock and the store's agree again");
            }
        }
    }

    /// Whether this machine's clock agrees with the store's, where there is one elsewhere.
    #[must_use]
    pub fn clock_agrees(&self) -> bool {
        !self.is_off.load(Ordering::Relaxed)
    }

    /// For how long the store has been failing or away; `None` while all is well.
    #[must_use]
    pub fn lasts(&self, now: Moment) -> Option<Span> {
        let lasts = |since: &AtomicU64| match since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(now.since(Moment::from_unix_ms(since))),
        };
        lasts(&self.since).max(lasts(&self.away))
    }

    /// Writes that are safe, and writes that failed.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.writes.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }
}
