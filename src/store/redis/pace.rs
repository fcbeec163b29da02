//! How fast gateways find out what became of the store and of each other.

use std::time::Duration;

use crate::clock::Stopwatch;
use crate::session::Span;

/// The time between two beats of a gateway; everything else that has to do with its store is counted in it.
#[derive(Clone, Copy, Debug)]
pub struct Pace(Duration);

impl Default for Pace {
    /// What is used everywhere but in tests.
    fn default() -> Self {
        Self::of(Duration::from_millis(500))
    }
}

impl Pace {
    /// With that much time between two beats.
    #[must_use]
    pub const fn of(beat: Duration) -> Self {
        Self(beat)
    }

    /// Between two beats: each says that this gateway is there, and looks whether the store is what it was.
    pub(super) fn beat(self) -> Duration {
        self.0
    }

    /// After this long (0.75 s) every gateway has looked whether the store is what it was.
    pub(super) fn noticed(self) -> Duration {
        self.0 * 3 / 2
    }

    /// The longest that a call takes (0.5 s); a server answers within a millisecond, or something is wrong with it.
    pub(super) fn answer(self) -> Duration {
        self.0
    }

    /// The longest that connecting takes (1 s), all addresses together.
    pub(super) fn connecting(self) -> Duration {
        self.0 * 2
    }

    /// For how long calls fail at once after one has failed (0.25 s).
    pub(super) fn pause(self) -> Duration {
        self.0 / 2
    }

    /// After another server took the place of one it takes this long (3 s) until every gateway has met it, and has stored what
    /// it knows.
    pub(super) fn settling(self) -> Duration {
        self.0 * 6
    }

    /// The longest that a start waits for the store's epoch (5 s).
    pub(super) fn beginning(self) -> Duration {
        self.0 * 10
    }

    /// A gateway whose last beat is this old (10 s) is taken for gone where the store waits for all of them.
    pub(super) fn gone_after(self) -> Span {
        Span::from_ms(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX).saturating_mul(20))
    }
}

/// Whether it took that long.
pub(super) fn has_passed(since: Stopwatch, time: Duration) -> bool {
    u128::from(since.elapsed_us()) >= time.as_micros()
}
