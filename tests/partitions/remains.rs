//! What is left in the store once every session is over and forgotten.

use crate::checks::eventually;
use crate::store_support::secs;
use crate::world::World;

/// What there is once, for as long as there is a store.
const FIXED: [&str; 6] = ["epoch", "keyed-by", "facts", "gateways", "audit", "log"];

/// The parts of a home.
const PARTS: [&str; 5] = ["r", "v", "x", "a", "j"];

impl World {
    pub(crate) fn end_all(&mut self) {
        self.tell("everybody is idle".to_owned());
        self.advance(secs(3600));
        self.come_to_rest();
        assert!(self.sessions.iter().all(|session| session.over), "somebody lives beyond every time-out");
        self.tell("all is forgotten".to_owned());
        self.advance(secs(32 * 24 * 3600));
        eventually("they are forgotten", || {
            self.sweep();
            let counts = self.replicas().map(|replica| replica.table.counts());
            counts.into_iter().all(|counts| counts.signed_in + counts.anonymous + counts.ended == 0)
        });
        for replica in self.replicas() {
            self.runtime.block_on(async { while replica.table.safe().await.is_err() {} });
        }
        self.check_keys();
    }

    fn check_keys(&mut self) {
        // Where one gateway stores a visitor's session while somebody signs in on it at another, the first home is left over.
        let has_moved = self.sessions.iter().any(|naive| naive.was_visitor && naive.user.is_some());
        let may_leave = self.was_lossy || has_moved;
        for (name, left_ms) in self.database.keys() {
            let last = name.rsplit(':').next().unwrap_or_default();
            if FIXED.contains(&last) {
                continue;
            }
            // What only a gateway knew that crashed goes with its term.
            assert!(left_ms != -1 || (last == "homes" && self.was_lossy), "{name} stays for ever");
            assert!(may_leave || !PARTS.contains(&last), "{name} is of no session");
        }
    }
}
