//! What must be so: which sessions live, whose they are, why the others ended, and which values are dead.

use std::collections::{HashMap, HashSet};

use tenure::session::{Moment, SessionId, Span};

/// `POLICY` of the gateway's tests: idle time-out, forced re-login, limit.
const IDLE: Span = Span::from_secs(3600);
const LIFETIME: Span = Span::from_secs(8 * 3600);
const MOST: usize = 2;

/// A session that somebody has signed in on.
pub(crate) struct Live {
    pub(crate) user: &'static str,
    pub(crate) signed_in: Moment,
    pub(crate) active: Moment,
    /// The app's values that travelled for it, or that its browser holds.
    pub(crate) held: HashSet<String>,
}

/// A naive account of the gateway's signed-in sessions.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) live: HashMap<SessionId, Live>,
    pub(crate) ended: HashMap<SessionId, &'static str>,
    /// Values that may not reach the app any more.
    pub(crate) dead: HashSet<String>,
}

impl Model {
    /// The session is over; the values that stay `in_use` by another one are not.
    pub(crate) fn end(&mut self, id: SessionId, reason: &'static str, in_use: &HashSet<String>) {
        let live = self.live.remove(&id).expect("a session ends once");
        self.dead.extend(live.held.difference(in_use).cloned());
        self.ended.insert(id, reason);
    }

    /// Somebody signed in. Returns whose sessions ended for it.
    pub(crate) fn begin(&mut self, id: SessionId, live: Live) {
        let user = live.user;
        self.live.insert(id, live);
        while self.live.values().filter(|live| live.user == user).count() > MOST {
            let of_user = self.live.iter().filter(|(_, live)| live.user == user);
            let oldest = of_user.min_by_key(|(_, live)| live.signed_in).map(|(id, _)| *id);
            self.end(oldest.expect("there are more than none"), "max_concurrent", &HashSet::new());
        }
    }

    /// Ends what is over at `now`.
    pub(crate) fn settle(&mut self, now: Moment) {
        let over = |live: &Live| {
            let (idle, lifetime) = (live.active.plus(IDLE), live.signed_in.plus(LIFETIME));
            (now >= idle.min(lifetime)).then_some(if lifetime <= idle {
                "force_relogin"
            } else {
                "idle_timeout"
            })
        };
        let due: Vec<_> = self.live.iter().filter_map(|(id, live)| Some((*id, over(live)?))).collect();
        for (id, reason) in due {
            self.end(id, reason, &HashSet::new());
        }
    }
}

/// The fixture app's values in a text: runs of hexadecimal digits, longer than any word.
pub(crate) fn values(text: &[u8]) -> impl Iterator<Item = String> {
    let words = text.split(|byte| !byte.is_ascii_hexdigit()).filter(|word| word.len() >= 16);
    words.map(|word| String::from_utf8_lossy(word).into_owned())
}
