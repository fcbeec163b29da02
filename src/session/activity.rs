//! Which requests count as the user's activity, and what kind of answer a request expects.

use super::fields::{Field, Fields};
use super::path::Pattern;
use super::{Moment, Span};

/// Bytes a second below which an upload is no activity: the lowest rate that Apache's mod_reqtimeout takes a body at by
/// default.
pub const MIN_UPLOAD_RATE: u64 = 500;

/// The least time over which the rate is taken, and so how often an upload renews the idle clock.
const RATE_WINDOW: Span = Span::from_secs(1);

/// Where browsers of all ages say that they only fetch in advance.
const PREFETCH_SAYS: [Field; 3] = [Field::SecPurpose, Field::Purpose, Field::XMoz];

/// A rule of `inactive`: requests that it matches are not the user's activity.
#[derive(Clone, Debug)]
pub enum InactiveRule {
    /// `"GET /notifications/**"`; without a method, any.
    Path {
        /// The method, upper case; `None` matches all.
        method: Option<String>,
        /// The pattern over the normalised path.
        path: Pattern,
    },
    /// `"header:X-Background"`: the request carries this header, whatever its value.
    Header(http::HeaderName),
}

/// What the gateway reads of a request to judge its kind. Built once per request.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a http::Method,
    /// The normalised path.
    pub path: &'a str,
    /// The fields as they came.
    pub fields: &'a Fields<'a>,
}

/// What a request wants, as far as answers differ by it (FIELD F13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A page load by the browser itself.
    Navigation,
    /// A WebSocket handshake.
    WebSocket,
    /// Everything else: fetch, XHR, EventSource, images, programs.
    Fetch,
}

impl Asked<'_> {
    /// What the request wants: `Sec-Fetch-Mode` decides; without it, a GET or HEAD that accepts HTML is a navigation.
    #[must_use]
    pub fn kind(&self) -> Kind {
        if self.is_websocket() {
            return Kind::WebSocket;
        }
        // What kind of request the browser makes (Fetch Metadata).
        let navigation = match self.fields.text(Field::SecFetchMode) {
            Some(mode) => mode == "navigate",
            None => {
                let reads = matches!(*self.method, http::Method::GET | http::Method::HEAD);
                reads && self.fields.text(Field::Accept).is_some_and(|accept| accept.contains("text/html"))
            }
        };
        // What is fetched in advance may never be looked at: nothing is told there that is told only once.
        if navigation && !self.is_prefetch() { Kind::Navigation } else { Kind::Fetch }
    }

    fn is_prefetch(&self) -> bool {
        let says = |field| self.fields.text(field).is_some_and(|value| value.contains("prefetch"));
        PREFETCH_SAYS.into_iter().any(says)
    }

    fn is_websocket(&self) -> bool {
        let upgrade = self.fields.text(Field::Upgrade);
        upgrade.is_some_and(|up| up.trim().eq_ignore_ascii_case("websocket"))
            && *self.method == http::Method::GET
    }

    /// Whether the request counts as its user's activity (DESIGN section 6). A client's mark can only make it count
    /// less: prefetches, preflights and requests that an `inactive` rule matches do not count.
    #[must_use]
    pub fn is_activity(&self, inactive: &[InactiveRule]) -> bool {
        let preflight =
            *self.method == http::Method::OPTIONS && self.fields.has(Field::AccessControlRequestMethod);
        !preflight && !self.is_prefetch() && !inactive.iter().any(|rule| self.is_matched_by(rule))
    }

    fn is_matched_by(&self, rule: &InactiveRule) -> bool {
        match rule {
            InactiveRule::Header(name) => self.fields.headers().contains_key(name),
            InactiveRule::Path { method, path } => {
                method.as_deref().is_none_or(|m| m == self.method.as_str()) && path.matches(self.path)
            }
        }
    }
}

/// An upload in progress, which holds the idle clock of its session: only at [`MIN_UPLOAD_RATE`], and for no more than
/// one further `idle_timeout` (R20).
#[derive(Clone, Copy, Debug)]
pub struct UploadHold {
    until: Moment,
    since: Moment,
    bytes: u64,
}

impl UploadHold {
    /// An upload whose head came, and renewed the idle clock, at `began`.
    #[must_use]
    pub const fn new(began: Moment, idle_timeout: Span) -> Self {
        Self { until: began.plus(idle_timeout), since: began, bytes: 0 }
    }

    /// More bytes have come; whether the idle clock is to be renewed.
    pub fn progressed(&mut self, bytes: u64, now: Moment) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let elapsed = now.since(self.since);
        if elapsed < RATE_WINDOW {
            return false;
        }
        let steady = self.bytes.saturating_mul(1000) / elapsed.as_ms() >= MIN_UPLOAD_RATE;
        (self.since, self.bytes) = (now, 0);
        steady && now <= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Moment = Moment::from_unix_ms(1_000_000);

    fn after(ms: u64) -> Moment {
        BEGAN.plus(Span::from_ms(ms))
    }

    #[test]
    fn only_a_steady_upload_holds_the_idle_clock() {
        let mut hold = UploadHold::new(BEGAN, Span::from_secs(60));
        assert!(!hold.progressed(1_000_000, after(999)), "not more often than once a second");
        assert!(hold.progressed(0, after(1_000)));
        assert!(!hold.progressed(499, after(2_000)), "too slow");
        assert!(hold.progressed(500, after(3_000)), "a pause does not count against what follows");
        assert!(!hold.progressed(500, after(3_000)), "time stands still");
    }

    #[test]
    fn no_upload_holds_for_longer_than_one_idle_timeout() {
        let mut hold = UploadHold::new(BEGAN, Span::from_secs(60));
        assert!(hold.progressed(1_000_000, after(60_000)));
        assert!(!hold.progressed(1_000_000, after(61_001)));
    }
}
