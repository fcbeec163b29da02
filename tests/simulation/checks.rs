//! What must hold after every step.

use tenure::session::gate::Standing;
use tenure::session::profile::CookieKind;
use tenure::session::record::Mode;
use tenure::store::{EventKind, Filter, StateFilter};

use crate::model::Role;
use crate::store_support::key;
use crate::{USERS, World};

impl World {
    pub(crate) fn check_invariants(&self) {
        // A shared companion dies when the end of one of its sessions comes to light, by a request or the sweeper.
        for (session, _) in &self.sessions {
            self.table.inspect(session, self.now, |_| ());
        }
        for n in 0..self.issued.len() as u64 {
            self.check_value(n);
        }
        let max = self.policy.max_concurrent.map_or(usize::MAX, |max| max.get() as usize);
        for user in USERS {
            let filter = Filter {
                user: Some(vec![user.into()]),
                state: Some(StateFilter::Active),
                ..Filter::default()
            };
            let live = self.table.list(&filter, None, usize::MAX - 1, self.now).items.len();
            let expected = self.sessions.iter().filter(|(_, s)| s.user == Some(user) && s.is_live()).count();
            assert_eq!(live, expected, "{user}");
            let held = self.mode == Mode::Enforce && !self.policy.on_limit.holds_back();
            assert!(!held || live <= max, "{live} sessions of {user}, and the limit is {max}");
        }
        let counted = self.sessions.iter().map(|(_, s)| s.counted.len()).sum::<usize>();
        let told = self.recorder.kinds().iter().filter(|k| matches!(k, EventKind::WouldEnd(_))).count();
        assert_eq!(told, counted, "each is counted once (R17)");
    }

    fn check_value(&self, n: u64) {
        let standing = self.table.look_up(key(n), self.now).0;
        let naive = self.owner(n).map(|owner| &self.sessions[owner].1).filter(|naive| !naive.evicted);
        let value = naive.and_then(|naive| Some((naive, naive.value(n, self.judged_at(naive))?)));
        let agrees = match value {
            // A value that fell out of a session which had taken it over from one that ended: after a restart nobody knows of
            // the taking over, and it died with the first.
            None if self.restarted && matches!(standing, Standing::Ended { .. }) => true,
            None => matches!(standing, Standing::Unseen | Standing::Stale | Standing::Replaced),
            Some((naive, value)) => match (naive.ended, naive.pending_until) {
                // Of two sessions that shared a companion and ended at one moment, either may be named.
                (Some(reason), _) => {
                    let shared = value.kind == CookieKind::Companion;
                    // A sign-in has just replaced it in a session that had taken it over.
                    let replaced = self.restarted && standing == Standing::Replaced;
                    replaced || matches!(standing, Standing::Ended { reason: r, .. } if r == reason || shared)
                }
                (None, Some(_)) => matches!(standing, Standing::Pending { .. }),
                (None, None) => {
                    let by_alias = matches!(value.role, Role::Alias(_));
                    matches!(standing, Standing::Live { alias, .. } if alias == by_alias)
                }
            },
        };
        assert!(agrees, "{n}: {standing:?} but {naive:?} at {:?}", self.now);
    }
}
