//! Points and lengths of time, as whole milliseconds with saturating arithmetic.
//!
//! Nothing here reads a clock: `now` is always a parameter (see `clock.rs`, the only file that does).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch on the gateway's steady clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(u64);

/// A length of time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(u64);

impl Moment {
    /// Later than every deadline; stands for "never" in comparisons.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment `ms` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// This moment moved later by `span`; stays at [`Moment::MAX`] instead of overflowing.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// This moment moved earlier by `span`; stops at the epoch.
    #[must_use]
    pub const fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// How long after `earlier` this moment is; zero when it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Moment {
    /// RFC 3339 in UTC with milliseconds; `None` for [`Moment::MAX`] and what no calendar holds.
    #[must_use]
    pub fn to_rfc3339(self) -> Option<String> {
        let ms = i64::try_from(self.0).ok()?;
        jiff::Timestamp::from_millisecond(ms).ok().map(|at| format!("{at:.3}"))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// `ms` milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// `secs` seconds; saturates.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// The length in milliseconds.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// The length for APIs of the standard library and tokio.
    #[must_use]
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}ms", self.0)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// Prints the form that the configuration reads: `"90s"`, `"30m"`, `"12h"`, `"1d"`, with mixed units as `"1h30m"`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")] {
            let count = rest / unit_ms;
            rest %= unit_ms;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_print_as_the_configuration_writes_them() {
        for (ms, text) in
            [(0, "0s"), (90_000, "1m30s"), (86_400_000, "1d"), (5_400_000, "1h30m"), (1_500, "1s500ms")]
        {
            assert_eq!(Span::from_ms(ms).to_string(), text);
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Moment::MAX.plus(Span::from_secs(1)), Moment::MAX);
        assert_eq!(Moment::from_unix_ms(5).since(Moment::from_unix_ms(9)), Span::ZERO);
        assert_eq!(Moment::from_unix_ms(5).minus(Span::from_ms(9)), Moment::from_unix_ms(0));
    }
}
