//! The bounded class of anonymous sessions (R25).
//!
//! A crawler makes a session on each request (FIELD F12). Anonymous sessions are therefore bounded in all and per
//! address; room is made first among those whose cookie never came back, then at the busiest address, then among the
//! idlest. Signed-in sessions are never evicted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use crate::session::SessionId;

/// An address may hold this part of the class, and at least [`SHARE_FLOOR`]: people behind one proxy share one.
const SHARE: usize = 8;
const SHARE_FLOOR: usize = 1000;

/// Who is in the class. Every step costs the logarithm of its size at most.
#[derive(Default)]
pub(super) struct AnonymousClass {
    members: HashMap<SessionId, Member>,
    by_address: HashMap<IpAddr, BTreeMap<Turn, SessionId>>,
    /// The addresses by how many sessions they hold.
    by_size: BTreeSet<(usize, IpAddr)>,
    /// All whose cookie never came back.
    never_returned: BTreeMap<Turn, SessionId>,
    last: u64,
}

/// Who goes first at an address: those who never returned, then the idlest. The number grows with each activity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    returned: bool,
    number: u64,
}

struct Member {
    address: IpAddr,
    turn: Turn,
}

/// IPv6 users own a /64; IPv4-mapped addresses are IPv4.
pub(super) fn network(address: IpAddr) -> IpAddr {
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

    pub(super) fn contains(&self, id: SessionId) -> bool {
        self.members.contains_key(&id)
    }

    /// Adds a session and names those that must go for it.
    pub(super) fn add(&mut self, id: SessionId, address: IpAddr, bound: usize) -> Vec<SessionId> {
        let address = network(address);
        let share = (bound / SHARE).max(SHARE_FLOOR).min(bound);
        let mut gone = Vec::new();
        loop {
            let crowded = self.by_address.get(&address).map_or(0, BTreeMap::len) >= share;
            let victim = match crowded {
                true => self.first_at(address),
                false if self.members.len() >= bound.max(1) => self.next_victim(),
                false => None,
            };
            let Some(victim) = victim else { break };
            self.remove(victim);
            gone.push(victim);
        }
        self.insert(id, address, false);
        gone
    }

    /// The session's cookie came back (it is no crawler's), or its user did something after a while.
    pub(super) fn active(&mut self, id: SessionId) {
        if let Some(address) = self.remove(id) {
            self.insert(id, address, true);
        }
    }

    /// The session left the class: somebody signed in on it, or it ended. Returns its address.
    pub(super) fn remove(&mut self, id: SessionId) -> Option<IpAddr> {
        let Member { address, turn } = self.members.remove(&id)?;
        self.never_returned.remove(&turn);
        self.at(address, |queue| queue.remove(&turn));
        Some(address)
    }

    fn insert(&mut self, id: SessionId, address: IpAddr, returned: bool) {
        self.last += 1;
        let turn = Turn { returned, number: self.last };
        self.members.insert(id, Member { address, turn });
        self.at(address, |queue| queue.insert(turn, id));
        if !returned {
            self.never_returned.insert(turn, id);
        }
    }

    /// Changes the queue of `address`, and its place among the addresses with it.
    fn at<R>(&mut self, address: IpAddr, change: impl FnOnce(&mut BTreeMap<Turn, SessionId>) -> R) {
        let queue = self.by_address.entry(address).or_default();
        let before = queue.len();
        change(queue);
        let after = queue.len();
        self.by_size.remove(&(before, address));
        if after == 0 {
            self.by_address.remove(&address);
        } else {
            self.by_size.insert((after, address));
        }
    }

    fn first_at(&self, address: IpAddr) -> Option<SessionId> {
        self.by_address.get(&address)?.values().next().copied()
    }

    fn next_victim(&self) -> Option<SessionId> {
        let never_returned = self.never_returned.values().next().copied();
        never_returned.or_else(|| self.first_at(self.by_size.last()?.1))
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
        class.active(id(1));
        assert_eq!(class.add(id(4), ip(2), 3), [id(2)]);
        assert_eq!(class.len(), 3);
    }

    #[test]
    fn then_the_busiest_address_gives_way() {
        let mut class = AnonymousClass::default();
        for (n, address) in [(1, 1), (2, 2), (3, 2), (4, 2)] {
            class.add(id(n), ip(address), 4);
            class.active(id(n));
        }
        assert_eq!(class.add(id(5), ip(3), 4), [id(2)]);
    }

    #[test]
    fn of_one_address_the_idlest_goes_not_the_oldest() {
        let mut class = AnonymousClass::default();
        for n in 1..=3 {
            class.add(id(n), ip(1), 3);
            class.active(id(n));
        }
        class.active(id(1));
        assert_eq!(class.add(id(4), ip(1), 3), [id(2)]);
    }

    #[test]
    fn nothing_stays_of_those_who_left() {
        let mut class = AnonymousClass::default();
        for n in 0..1000 {
            class.add(id(n), ip(u8::try_from(n % 7).unwrap()), 50);
            if n % 3 == 0 {
                class.active(id(n));
            }
        }
        assert_eq!(class.len(), 50);
        for n in 0..1000 {
            class.remove(id(n));
        }
        let AnonymousClass { members, by_address, by_size, never_returned, .. } = class;
        assert!(members.is_empty() && by_address.is_empty() && by_size.is_empty());
        assert!(never_returned.is_empty());
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let a: IpAddr = "2001:db8::1".parse().unwrap();
        let b: IpAddr = "2001:db8::ffff".parse().unwrap();
        assert_eq!(network(a), network(b));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), ip(1));
    }
}
