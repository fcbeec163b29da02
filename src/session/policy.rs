//! What a policy says and when a session must end by it.
//!
//! [`deadline`] is the one function from which every part of the gateway learns when a session ends (law 1);
//! [`judge`] compares it with `now`; [`admit`] decides who makes room for a new sign-in (law 5).

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{EndReason, Moment, SessionId, Span};

/// What holds for one session. `None` means *off*: no bound of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Ends a session this long after its user's last activity.
    pub idle_timeout: Option<Span>,
    /// Ends a session this long after its sign-in (or its creation, while nobody has signed in), however active.
    pub force_relogin: Option<Span>,
    /// How many signed-in sessions a user may have at once, per (app, tenant, user).
    pub max_concurrent: Option<NonZeroU32>,
    /// What happens at a sign-in beyond `max_concurrent`.
    pub on_limit: OnLimit,
}

/// What happens at a sign-in beyond the limit, from the mildest to the strictest (R19 orders roles by it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnLimit {
    /// The user's oldest sign-ins end.
    EndOldest,
    /// The user's longest idle sessions end.
    EndIdlest,
    /// The new session is held back until its user has chosen one to end.
    Ask,
    /// The new session is held back until there is room.
    Refuse,
}

impl OnLimit {
    /// The configuration's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EndOldest => "end-oldest",
            Self::EndIdlest => "end-idlest",
            Self::Ask => "ask",
            Self::Refuse => "refuse",
        }
    }

    /// Whether a session beyond the limit waits as pending instead of ending others.
    #[must_use]
    pub const fn holds_back(self) -> bool {
        matches!(self, Self::Ask | Self::Refuse)
    }
}

impl Default for Policy {
    /// The contract's defaults: 24 hours idle, everything else off.
    fn default() -> Self {
        Self {
            idle_timeout: Some(Span::from_secs(24 * 3600)),
            force_relogin: None,
            max_concurrent: None,
            on_limit: OnLimit::EndOldest,
        }
    }
}

/// The times of a session that deadlines are computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// When the session was made; never moves (law 4).
    pub created_at: Moment,
    /// When its user signed in; never moves (law 4).
    pub signed_in_at: Option<Moment>,
    /// The user's last activity.
    pub last_active_at: Moment,
}

/// When a session ends, as last computed; carried by the session (R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// End by idleness; [`Moment::MAX`] when off.
    pub idle_at: Moment,
    /// End by forced re-login; [`Moment::MAX`] when off.
    pub lifetime_at: Moment,
}

impl Deadline {
    /// A session without any bound.
    pub const NEVER: Self = Self { idle_at: Moment::MAX, lifetime_at: Moment::MAX };

    /// The earlier of the two.
    #[must_use]
    pub fn at(self) -> Moment {
        self.idle_at.min(self.lifetime_at)
    }

    /// Why a session past this deadline ended: by what came first; by its lifetime when both fell together.
    #[must_use]
    pub fn reason(self) -> EndReason {
        if self.lifetime_at <= self.idle_at { EndReason::ForceRelogin } else { EndReason::IdleTimeout }
    }
}

/// The one function that says when a session must end (law 1).
#[must_use]
pub fn deadline(policy: &Policy, times: &Times) -> Deadline {
    let start = times.signed_in_at.unwrap_or(times.created_at);
    Deadline {
        idle_at: policy.idle_timeout.map_or(Moment::MAX, |span| times.last_active_at.plus(span)),
        lifetime_at: policy.force_relogin.map_or(Moment::MAX, |span| start.plus(span)),
    }
}

/// What [`judge`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `now` is before the deadline.
    Live,
    /// The deadline has come, for this reason, at that moment.
    Over(EndReason, Moment),
}

/// A session is live if and only if `now < deadline` (law 1).
#[must_use]
pub fn judge(deadline: Deadline, now: Moment) -> Verdict {
    if now < deadline.at() { Verdict::Live } else { Verdict::Over(deadline.reason(), deadline.at()) }
}

/// A live signed-in session of the user who signs in, as [`admit`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Which session.
    pub id: SessionId,
    /// When its user signed in.
    pub signed_in_at: Moment,
    /// Its user's last activity.
    pub last_active_at: Moment,
}

/// What [`admit`] decides for a new sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The new session becomes active, and these others end as `max_concurrent`, in this order.
    Active {
        /// Those who make room.
        end: SmallVec<[SessionId; 2]>,
    },
    /// The new session is held back as pending; nobody ends.
    Pending,
}

/// Decides who makes room when a session joins `rivals`, the user's other *live* sign-ins (law 5).
///
/// All above the limit end at once, not one per sign-in (FIELD F16), and never the new one. Equal times are
/// ordered by id, so that every replica picks the same session.
#[must_use]
pub fn admit(policy: &Policy, rivals: &[Rival]) -> Admission {
    let Some(max) = policy.max_concurrent else { return Admission::Active { end: SmallVec::new() } };
    let keep = max.get() as usize - 1;
    if rivals.len() <= keep {
        return Admission::Active { end: SmallVec::new() };
    }
    if policy.on_limit.holds_back() {
        return Admission::Pending;
    }
    Admission::Active { end: first_to_end(policy.on_limit, rivals, rivals.len() - keep) }
}

/// Decides who ends when the limit changes while `present`, the user's live sign-ins, go on: what is beyond it, in the
/// order in which a sign-in would end them. With `refuse` and `ask` nobody does: these hold back who comes, and end
/// nobody who is in (R13); the surplus leaves by itself, and nobody is admitted before it has.
#[must_use]
pub fn surplus(policy: &Policy, present: &[Rival]) -> SmallVec<[SessionId; 2]> {
    let Some(max) = policy.max_concurrent else { return SmallVec::new() };
    let beyond = present.len().saturating_sub(max.get() as usize);
    if policy.on_limit.holds_back() {
        return SmallVec::new();
    }
    first_to_end(policy.on_limit, present, beyond)
}

fn first_to_end(on_limit: OnLimit, rivals: &[Rival], count: usize) -> SmallVec<[SessionId; 2]> {
    let mut order: SmallVec<[Rival; 8]> = rivals.iter().copied().collect();
    match on_limit {
        OnLimit::EndIdlest => order.sort_unstable_by_key(|r| (r.last_active_at, r.signed_in_at, r.id)),
        OnLimit::EndOldest | OnLimit::Ask | OnLimit::Refuse => {
            order.sort_unstable_by_key(|r| (r.signed_in_at, r.id));
        }
    }
    order.iter().take(count).map(|r| r.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_unix_ms(ms)
    }

    fn policy(max: u32, on_limit: OnLimit) -> Policy {
        Policy { max_concurrent: NonZeroU32::new(max), on_limit, ..Policy::default() }
    }

    fn rival(id: u128, signed_in: u64, active: u64) -> Rival {
        Rival { id: SessionId::from_u128(id), signed_in_at: at(signed_in), last_active_at: at(active) }
    }

    #[test]
    fn a_session_is_live_strictly_before_its_deadline() {
        let line = Deadline { idle_at: at(100), lifetime_at: at(200) };
        assert_eq!(judge(line, at(99)), Verdict::Live);
        assert_eq!(judge(line, at(100)), Verdict::Over(EndReason::IdleTimeout, at(100)));
        assert_eq!(judge(Deadline::NEVER, at(1 << 60)), Verdict::Live);
    }

    #[test]
    fn lifetime_counts_from_the_sign_in_and_from_creation_before_one() {
        let policy =
            Policy { force_relogin: Some(Span::from_ms(50)), idle_timeout: None, ..Policy::default() };
        let mut times = Times { created_at: at(10), signed_in_at: None, last_active_at: at(40) };
        assert_eq!(deadline(&policy, &times).at(), at(60));
        times.signed_in_at = Some(at(30));
        assert_eq!(deadline(&policy, &times).at(), at(80));
    }

    #[test]
    fn all_above_the_limit_end_and_never_the_new_one() {
        let rivals = [rival(1, 10, 90), rival(2, 20, 50), rival(3, 30, 70)];
        let end = |on_limit| match admit(&policy(2, on_limit), &rivals) {
            Admission::Active { end } => end.iter().map(|id| id.as_u128()).collect::<Vec<_>>(),
            Admission::Pending => vec![],
        };
        assert_eq!(end(OnLimit::EndOldest), [1, 2]);
        assert_eq!(end(OnLimit::EndIdlest), [2, 3]);
    }

    #[test]
    fn refuse_and_ask_hold_the_new_session_back_only_when_full() {
        let rivals = [rival(1, 10, 90), rival(2, 20, 50)];
        for on_limit in [OnLimit::Refuse, OnLimit::Ask] {
            assert_eq!(admit(&policy(2, on_limit), &rivals), Admission::Pending);
            assert!(matches!(admit(&policy(3, on_limit), &rivals), Admission::Active { .. }));
        }
    }

    #[test]
    fn a_lowered_limit_ends_what_a_sign_in_would_have_ended() {
        let present = [rival(1, 10, 90), rival(2, 20, 50), rival(3, 30, 70)];
        let ends = |max, on_limit| {
            surplus(&policy(max, on_limit), &present).iter().map(|id| id.as_u128()).collect::<Vec<_>>()
        };
        assert_eq!(ends(3, OnLimit::EndOldest), [0; 0]);
        assert_eq!(ends(2, OnLimit::EndOldest), [1]);
        assert_eq!(ends(1, OnLimit::EndIdlest), [2, 3]);
        assert_eq!(ends(1, OnLimit::Refuse), [0; 0]);
        assert_eq!(ends(1, OnLimit::Ask), [0; 0]);
    }
}
