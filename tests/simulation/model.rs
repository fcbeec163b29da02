//! The naive model of one session.

use tenure::session::profile::CookieKind;
use tenure::session::record::{MAX_SIBLINGS, Mode};
use tenure::session::{EndReason, Moment, Policy, Span};

/// The book's `rotation_grace`.
const GRACE: Span = Span::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    Current,
    /// Crossing answers set it, and the browser has used none of their values yet.
    Unused,
    Alias(Moment),
    Sibling(Moment),
}

/// A value that a session holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    pub(crate) n: u64,
    pub(crate) kind: CookieKind,
    pub(crate) role: Role,
}

impl Value {
    pub(crate) fn is_over(&self, now: Moment) -> bool {
        matches!(self.role, Role::Alias(until) | Role::Sibling(until) if now >= until)
    }
}

/// What the model knows of one session.
#[derive(Clone, Debug)]
pub(crate) struct Naive {
    pub(crate) user: Option<&'static str>,
    pub(crate) created: Moment,
    pub(crate) signed_in: Option<Moment>,
    pub(crate) active: Moment,
    pub(crate) mode: Mode,
    /// As last computed (R1).
    pub(crate) deadline: Moment,
    pub(crate) reason: EndReason,
    pub(crate) pending_until: Option<Moment>,
    pub(crate) ended: Option<EndReason>,
    pub(crate) ended_at: Moment,
    pub(crate) evicted: bool,
    pub(crate) values: Vec<Value>,
    /// Its place in the order of eviction.
    pub(crate) turn: (bool, u64),
    /// What was only observed.
    pub(crate) counted: Vec<EndReason>,
}

impl Naive {
    pub(crate) fn compute(&mut self, policy: &Policy) {
        let idle = policy.idle_timeout.map_or(Moment::MAX, |s| self.active.plus(s));
        let start = self.signed_in.unwrap_or(self.created);
        let life = policy.force_relogin.map_or(Moment::MAX, |s| start.plus(s));
        self.deadline = idle.min(life);
        self.reason = if life <= idle { EndReason::ForceRelogin } else { EndReason::IdleTimeout };
    }

    /// Whether its time has come, and it must end for that.
    pub(crate) fn is_due(&mut self, now: Moment) -> Option<(EndReason, Moment)> {
        if self.is_over() {
            return None;
        }
        match self.pending_until {
            Some(until) => (now >= until).then_some((EndReason::MaxConcurrent, until)),
            None if now < self.deadline => None,
            None if self.mode == Mode::Enforce => Some((self.reason, self.deadline)),
            None => {
                self.count(self.reason);
                None
            }
        }
    }

    pub(crate) fn count(&mut self, reason: EndReason) {
        if !self.counted.contains(&reason) {
            self.counted.push(reason);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.evicted || self.ended.is_some()
    }

    pub(crate) fn is_live(&self) -> bool {
        !self.is_over() && self.pending_until.is_none()
    }

    pub(crate) fn is_rival(&self, user: &str) -> bool {
        let takes_place = self.mode == Mode::Enforce || !self.counted.contains(&EndReason::MaxConcurrent);
        self.user == Some(user) && self.is_live() && self.signed_in.is_some() && takes_place
    }

    pub(crate) fn value(&self, n: u64, at: Moment) -> Option<&Value> {
        self.values.iter().find(|value| value.n == n && !value.is_over(at))
    }

    /// The browser presents `n`: it has kept that one of crossing values.
    pub(crate) fn present(&mut self, n: u64, now: Moment) {
        let Some(value) = self.value(n, now).copied() else { return };
        if matches!(value.role, Role::Alias(_)) {
            return;
        }
        for other in self.values.iter_mut().filter(|v| v.n != n && v.kind == value.kind) {
            match (other.role, value.role) {
                (Role::Unused, _) | (Role::Current, Role::Unused) => {
                    other.role = Role::Sibling(now.plus(GRACE));
                }
                (Role::Current, Role::Sibling(until)) => other.role = Role::Sibling(until),
                _ => {}
            }
        }
        self.hold(n, value.kind);
    }

    pub(crate) fn hold(&mut self, n: u64, kind: CookieKind) {
        match self.values.iter_mut().find(|v| v.n == n) {
            Some(known) => known.role = Role::Current,
            None => self.values.push(Value { n, kind, role: Role::Current }),
        }
    }

    /// An answer to a request with `carried` sets `n`, and nobody signed in.
    pub(crate) fn rotate(&mut self, n: u64, kind: CookieKind, carried: u64, now: Moment) {
        let known = self.values.iter().find(|v| v.n == n).copied();
        let by_alias = self.values.iter().any(|v| v.n == carried && matches!(v.role, Role::Alias(_)));
        if known.is_none_or(|known| known.role != Role::Current) {
            let crossed = known.is_some() || by_alias;
            let role = if crossed { Role::Unused } else { Role::Alias(now.plus(GRACE)) };
            for old in self.values.iter_mut().filter(|v| v.kind == kind && v.role == Role::Current) {
                old.role = role;
            }
            self.hold(n, kind);
        }
        self.values.retain(|value| !value.is_over(now));
        while self.values.iter().filter(|v| v.role != Role::Current).count() > MAX_SIBLINGS {
            let oldest = self.values.iter().position(|v| v.role != Role::Current).unwrap();
            self.values.remove(oldest);
        }
    }

    /// A sign-in sets `n`: nothing of that cookie from before stays.
    pub(crate) fn replace(&mut self, n: u64, kind: CookieKind, now: Moment) {
        self.values.retain(|value| value.kind != kind && !value.is_over(now));
        self.hold(n, kind);
    }
}
