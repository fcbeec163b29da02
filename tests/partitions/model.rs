//! What must be so, whichever gateways and stores go on to live.

use std::collections::BTreeSet;

use tenure::session::{EndReason, Moment, SessionId};

/// Something that happened, as a place in [`Facts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fact(usize);

/// Who knows what: a fact counts for as long as a gateway that knows it lives, or the store has it.
#[derive(Default)]
pub(crate) struct Facts(Vec<Known>);

#[derive(Clone, Default)]
struct Known {
    by: BTreeSet<u32>,
    stored: bool,
    /// The store may have had it, and lost it: nobody is told when it has it again.
    lost: bool,
    /// Others hear of it from the store alone, and only when they ask.
    is_activity: bool,
}

/// What a store had at some moment.
pub(crate) struct Snapshot(Vec<bool>);

impl Facts {
    /// It happened at this gateway, and was not confirmed.
    pub(crate) fn happened(&mut self, at: u32) -> Fact {
        self.0.push(Known { by: BTreeSet::from([at]), ..Known::default() });
        Fact(self.0.len() - 1)
    }

    /// Somebody was active at this gateway.
    pub(crate) fn was_active(&mut self, at: u32) -> Fact {
        let fact = self.happened(at);
        self.0[fact.0].is_activity = true;
        fact
    }

    pub(crate) fn stored(&mut self, Fact(n): Fact) {
        self.0[n].stored = !self.0[n].lost;
    }

    pub(crate) fn is_stored(&self, Fact(n): Fact) -> bool {
        self.0[n].stored
    }

    /// Whether everybody must know it at last.
    pub(crate) fn counts(&self, Fact(n): Fact) -> bool {
        self.0[n].stored || !self.0[n].by.is_empty()
    }

    pub(crate) fn is_known_to(&self, Fact(n): Fact, gateway: u32) -> bool {
        self.0[n].by.contains(&gateway)
    }

    pub(crate) fn crashed(&mut self, gateway: u32) {
        self.0.iter_mut().for_each(|known| {
            known.by.remove(&gateway);
        });
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.0.iter().map(|known| known.stored).collect())
    }

    /// The store holds what it held then, or nothing.
    pub(crate) fn fell_back(&mut self, to: Option<&Snapshot>) {
        for (n, known) in self.0.iter_mut().enumerate() {
            known.stored &= to.is_some_and(|Snapshot(had)| had.get(n).copied().unwrap_or(false));
            known.lost |= !known.stored;
        }
    }

    /// All is quiet: the store has what counts, and everybody knows it, besides activity. Whoever still counts on what was lost is
    /// told so by [`Facts::counts`].
    pub(crate) fn spread(&mut self, all: &BTreeSet<u32>) {
        for known in self.0.iter_mut().filter(|known| known.stored || !known.by.is_empty()) {
            (known.stored, known.lost) = (true, false);
            if !known.is_activity {
                known.by.clone_from(all);
            }
        }
    }
}

/// What the model knows of one session.
#[derive(Clone, Debug)]
pub(crate) struct Naive {
    pub(crate) id: SessionId,
    pub(crate) user: Option<&'static str>,
    /// Nobody had signed in on it at first.
    pub(crate) was_visitor: bool,
    pub(crate) began: Moment,
    pub(crate) begun: Fact,
    /// The values it had, with what set each; the browser has the last.
    pub(crate) values: Vec<(u64, Fact)>,
    /// Activity that may count, and surely counts once it is stored.
    pub(crate) activity: Vec<(Moment, Fact)>,
    /// Ends that somebody asked for, and how often a gateway said that it ended it.
    pub(crate) ends: Vec<(EndReason, Fact)>,
    /// All agree that it is over.
    pub(crate) over: bool,
}

impl Naive {
    pub(crate) fn value(&self) -> u64 {
        self.values.last().map_or(0, |(n, _)| *n)
    }

    /// The last activity that everybody must know, or that anybody may.
    pub(crate) fn active(&self, known: impl Fn(Fact) -> bool) -> Moment {
        let known = self.activity.iter().filter(|(_, fact)| known(*fact)).map(|(at, _)| *at);
        known.max().unwrap_or_default()
    }

    pub(crate) fn must_be_over(&self, facts: &Facts) -> bool {
        self.over || self.ends.iter().any(|(_, fact)| facts.counts(*fact))
    }
}
