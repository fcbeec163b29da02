//! Idleness where several gateways serve a session: none of them can tell alone.

use super::{Mode, Session, State};
use crate::session::{EndReason, Moment, Verdict, deadline, judge};

impl Session {
    /// Other gateways serve the session too: an end by idleness has to wait until they were asked ([`Session::asked`]).
    pub fn share(&mut self) {
        self.active_known = Moment::default();
    }

    /// Everybody was asked at that moment when the session was last active, and this came out.
    pub fn asked(&mut self, last_active_at: Option<Moment>, at: Moment) {
        self.active_known = self.active_known.max(at);
        if let Some(active) = last_active_at.filter(|_| !self.is_over()) {
            self.times.last_active_at = self.times.last_active_at.max(active);
            self.deadline = deadline(&self.policy, &self.times);
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
            Verdict::Over(EndReason::IdleTimeout, at) if at > self.active_known => {
                let lifetime = self.deadline.lifetime_at;
                (lifetime <= now).then_some(Verdict::Over(EndReason::ForceRelogin, lifetime))
            }
            verdict => Some(verdict),
        }
    }
}
