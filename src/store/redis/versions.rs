//! How far this gateway has followed each home of the store.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use super::layout::Home;

/// How far a home was followed, in a reckoning that ends when all is forgotten: a server that took another one's place may
/// have given the same versions to something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    reckoning: u64,
    /// 0 for not at all.
    pub(super) version: u64,
}

impl Base {
    /// For who forgets nothing.
    pub(super) const fn of(version: u64) -> Self {
        Self { reckoning: 0, version }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Versions(Mutex<Known>);

#[derive(Default)]
struct Known {
    reckoning: u64,
    homes: HashMap<Home, u64>,
}

impl Versions {
    pub(super) fn base(&self, home: Home) -> Base {
        let known = self.0.lock();
        Base { reckoning: known.reckoning, version: known.homes.get(&home).copied().unwrap_or(0) }
    }

    pub(super) fn follows(&self, home: Home) -> bool {
        self.0.lock().homes.contains_key(&home)
    }

    /// Every home that was followed.
    pub(super) fn homes(&self) -> Vec<Home> {
        self.0.lock().homes.keys().copied().collect()
    }

    /// Keeps only these.
    pub(super) fn retain(&self, homes: &HashSet<Home>) {
        self.0.lock().homes.retain(|home, _| homes.contains(home));
    }

    /// Nothing of the store is known any more.
    pub(super) fn forget(&self) {
        let mut known = self.0.lock();
        known.reckoning += 1;
        known.homes.clear();
    }

    /// The home has reached this version, with everything up to it taken over or written by this gateway; unless what that
    /// was based on was forgotten meanwhile.
    pub(super) fn reached(&self, home: Home, base: Base, version: u64) {
        let mut known = self.0.lock();
        if known.reckoning == base.reckoning {
            let reached = known.homes.entry(home).or_default();
            *reached = (*reached).max(version);
        }
    }

    /// The home is at this version, unless it was followed further than `base` meanwhile. It may be an earlier one than that:
    /// a server that took another's place did not have everything.
    pub(super) fn is_at(&self, home: Home, base: Base, version: u64) {
        let mut known = self.0.lock();
        let reached = known.homes.get(&home).copied().unwrap_or(0);
        if (known.reckoning, reached) == (base.reckoning, base.version) {
            known.homes.insert(home, version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Home = Home([1; 16]);

    #[test]
    fn what_was_based_on_something_forgotten_counts_no_more() {
        let versions = Versions::default();
        versions.is_at(HOME, versions.base(HOME), 5);
        let base = versions.base(HOME);
        assert_eq!(base.version, 5);
        versions.forget();
        versions.reached(HOME, base, 6);
        versions.is_at(HOME, base, 6);
        assert_eq!(versions.base(HOME).version, 0);
        assert!(versions.base(HOME) != base && !versions.follows(HOME));
    }
}
