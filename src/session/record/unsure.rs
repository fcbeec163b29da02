//! Idleness where several gateways serve a session: none of them can tell alone.

use super::{Mode, Session, State};
use crate::session::{EndReason, Moment, Verdict, deadline, judge};

/// What a gateway knows of a session that others serve too.
#[derive(Clone, Debug, Default)]
pub(super) struct Elsewhere {
    /// Until when all its activity is known.
    active_known: Moment,
    /// Since when it is held to terms by which it seemed over: it did not end by them before (R1).
    held_since: Moment,
}

impl Session {
    /// Other gateways serve the session too: an end by idleness has to wait until they were asked ([`Session::asked`]).
    pub fn share(&mut self) {
        self.elsewhere = Some(Box::default());
    }

    /// Everybody was asked at that moment when the session was last active, and this came out.
    pub fn asked(&mut self, last_active_at: Option<Moment>, at: Moment) {
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.active_known = elsewhere.active_known.max(at);
        }
        if let Some(active) = last_active_at.filter(|_| !self.is_over()) {
            self.times.last_active_at = self.times.last_active_at.max(active);
            self.deadline = deadline(&self.policy, &self.times);
        }
    }

    /// It is held to other terms: what was asked under those before did not have to bring all activity since.
    pub(super) fn ask_anew(&mut self) {
        if let Some(elsewhere) = &mut self.elsewhere {
            elsewhere.active_known = Moment::default();
        }
    }

    /// Whether it seems over by idleness, and nobody asked yet whether it was active elsewhere. It is not live then, and has
    /// not ended: it cannot be judged.
    #[must_use]
    pub fn is_unsure(&self, now: Moment) -> bool {
        let waits = self.mode == Mode::Enforce && self.state == State::Active && !self.forgotten;
        waits && self.verdict(now).is_none()
    }

    /// Its deadline beside `now`; `None` where only those who were not asked could say. A lifetime is the same everywhere.
    pub(super) fn verdict(&self, now: Moment) -> Option<Verdict> {
        match judge(self.deadline, now) {
            // What is only counted is counted by each gateway.
            verdict if self.mode == Mode::Observe => Some(verdict),
            Verdict::Over(EndReason::IdleTimeout, at)
                if self.elsewhere.as_ref().is_some_and(|known| at > known.active_known) =>
            {
                let lifetime = self.deadline.lifetime_at;
                (lifetime <= now).then_some(Verdict::Over(EndReason::ForceRelogin, lifetime))
            }
            verdict => Some(verdict),
        }
    }

    /// It has just taken on other terms; an end by them, once it can be judged, is no earlier.
    pub(super) fn hold_since(&mut self, now: Moment) {
        if self.is_unsure(now)
            && let Some(elsewhere) = &mut self.elsewhere
        {
            elsewhere.held_since = now;
        }
    }

    pub(super) fn held_since(&self) -> Moment {
        self.elsewhere.as_ref().map_or(Moment::default(), |elsewhere| elsewhere.held_since)
    }
}
