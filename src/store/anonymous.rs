//! The bounded class of anonymous sessions (R25).
//!
//! A crawler makes a session on each request (FIELD F12). Anonymous sessions are therefore bounded in all and per
//! address; room is made first among those whose cookie never came back, then at the busiest address, then among the
//! idlest. Signed-in sessions are never evicted.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use crate::session::SessionId;

/// An address may hold this part of the class, and at least [`SHARE_FLOOR`]: people behind one proxy share one.
const SHARE: usize = 8;
const SHARE_FLOOR: usize = 1000;

/// Who is in the class. Entries of sessions that left are skipped when they come up.
#[derive(Default)]
pub(super) struct AnonymousClass {
    members: HashMap<SessionId, Member>,
    by_address: HashMap<IpAddr, VecDeque<SessionId>>,
    never_returned: VecDeque<SessionId>,
}

struct Member {
    address: IpAddr,
    returned: bool,
}

/// IPv6 users own a /64; IPv4-mapped addresses are IPv4.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let prefix = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl AnonymousClass {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Adds a session and names those that must go for it.
    pub(super) fn add(&mut self, id: SessionId, address: IpAddr, bound: usize) -> Vec<SessionId> {
        let address = network(address);
        let share = (bound / SHARE).max(SHARE_FLOOR).min(bound);
        let mut gone = Vec::new();
        if self.by_address.get(&address).map_or(0, VecDeque::len) >= share {
            gone.extend(self.oldest_at(address));
        }
        while self.members.len() >= bound.max(1) {
            let Some(victim) = self.next_victim() else { break };
            gone.push(victim);
        }
        self.members.insert(id, Member { address, returned: false });
        self.by_address.entry(address).or_default().push_back(id);
        self.never_returned.push_back(id);
        self.compact();
        gone
    }

    /// The session's cookie came back: it is no crawler's.
    pub(super) fn returned(&mut self, id: SessionId) {
        if let Some(member) = self.members.get_mut(&id) {
            member.returned = true;
        }
    }

    /// The session left the class: somebody signed in on it, or it ended.
    pub(super) fn remove(&mut self, id: SessionId) {
        let Some(member) = self.members.remove(&id) else { return };
        if let Some(queue) = self.by_address.get_mut(&member.address) {
            queue.retain(|other| *other != id);
            if queue.is_empty() {
                self.by_address.remove(&member.address);
            }
        }
    }

    fn oldest_at(&mut self, address: IpAddr) -> Option<SessionId> {
        let queue = self.by_address.get(&address)?;
        let idle = queue.iter().find(|id| self.members.get(id).is_some_and(|m| !m.returned));
        let victim = *idle.or_else(|| queue.front())?;
        self.remove(victim);
        Some(victim)
    }

    fn next_victim(&mut self) -> Option<SessionId> {
        while let Some(id) = self.never_returned.pop_front() {
            if self.members.get(&id).is_some_and(|m| !m.returned) {
                self.remove(id);
                return Some(id);
            }
        }
        let busiest =
            self.by_address.iter().max_by_key(|(_, queue)| queue.len()).map(|(address, _)| *address)?;
        self.oldest_at(busiest)
    }

    /// Keeps the queue of those who never returned from outgrowing the class.
    fn compact(&mut self) {
        if self.never_returned.len() > 2 * self.members.len() + 64 {
            let members = &self.members;
            self.never_returned.retain(|id| members.get(id).is_some_and(|m| !m.returned));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> SessionId {
        SessionId::from_u128(n)
    }

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn those_who_never_returned_go_first() {
        let mut class = AnonymousClass::default();
        for n in 1..=3 {
            assert!(class.add(id(n), ip(1), 3).is_empty());
        }
        class.returned(id(1));
        assert_eq!(class.add(id(4), ip(2), 3), [id(2)]);
        assert_eq!(class.len(), 3);
    }

    #[test]
    fn then_the_busiest_address_gives_way() {
        let mut class = AnonymousClass::default();
        for (n, address) in [(1, 1), (2, 2), (3, 2), (4, 2)] {
            class.add(id(n), ip(address), 4);
            class.returned(id(n));
        }
        assert_eq!(class.add(id(5), ip(3), 4), [id(2)]);
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let b: IpAddr = "2001:db8::ffff".parse().unwrap();
        assert_eq!(network(a), network(b));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), ip(1));
    }
}
