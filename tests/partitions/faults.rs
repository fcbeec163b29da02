//! What breaks, and how it is mended.

use std::sync::atomic::Ordering;

use crate::link::Flow;
use crate::model::Snapshot;
use crate::server::Held;
use crate::world::World;

/// What is to break in a round, by the step at which it does.
#[derive(Default)]
pub(crate) struct Plan {
    steps: usize,
    faults: Vec<(usize, Fault)>,
    /// It lives through the round, so that what it knows is never lost.
    survivor: usize,
    /// What the store held, to fall back to.
    earlier: Option<(Held, Snapshot)>,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Link(usize, Flow),
    AllLinks(Flow),
    News(usize, Flow),
    Mended(usize),
    AllMended,
    Crash(usize),
    Start(usize),
    LoseAll,
    TakeSnapshot,
    FallBack,
    /// No connection breaks with it.
    FallBackQuietly,
    Noticed(usize),
}

impl World {
    pub(crate) fn plan_faults(&mut self) {
        let (sites, steps) = (self.sites.len(), crate::STEPS);
        self.plan = Plan { survivor: self.random.below(sites), ..Plan::default() };
        for _ in 0..1 + self.random.below(4) {
            let (at, step) = (self.random.below(sites), self.random.below(steps));
            let later = step + 1 + self.random.below(10);
            let flow = self.random.pick(&[Flow::Held, Flow::Deaf, Flow::Cut]);
            let kind = self.random.below(if self.holds_back { 6 } else { 12 });
            // Not by chance, which would make all seeds other ones.
            let quietly = later.is_multiple_of(2);
            let mut plan = |step: usize, fault| self.plan.faults.push((step, fault));
            match kind {
                0..=2 => {
                    plan(step, Fault::Link(at, flow));
                    plan(step, Fault::Noticed(at));
                    plan(later, Fault::Mended(at));
                }
                3 => {
                    plan(step, Fault::AllLinks(flow));
                    plan(later, Fault::AllMended);
                }
                4 | 5 => {
                    plan(step, Fault::News(at, flow));
                    plan(later, Fault::Mended(at));
                }
                6 | 7 => {
                    plan(step, Fault::Crash(at));
                    plan(later, Fault::Start(at));
                }
                8 => plan(step, Fault::LoseAll),
                9 => {
                    plan(step, Fault::LoseAll);
                    plan(later.min(step + 2), Fault::LoseAll);
                }
                _ => {
                    plan(step, Fault::TakeSnapshot);
                    plan(later, if quietly { Fault::FallBackQuietly } else { Fault::FallBack });
                }
            }
        }
        self.plan.faults.sort_by_key(|(step, _)| *step);
    }

    /// What is due breaks.
    pub(crate) fn act_on_plan(&mut self) {
        self.plan.steps += 1;
        while self.plan.faults.first().is_some_and(|(step, _)| *step < self.plan.steps) {
            let (_, fault) = self.plan.faults.remove(0);
            self.tell(format!("{fault:?}"));
            self.suffer(fault);
        }
    }

    fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::Link(at, flow) => self.break_link(at, flow),
            Fault::AllLinks(flow) => (0..self.sites.len()).for_each(|at| self.break_link(at, flow)),
            Fault::News(at, flow) => {
                self.sites[at].link.set_news(flow);
                if flow == Flow::Cut {
                    self.sever(at, true);
                }
            }
            Fault::Mended(at) => self.mend(at),
            Fault::AllMended => (0..self.sites.len()).for_each(|at| self.mend(at)),
            Fault::Crash(at) => self.crash(at),
            Fault::Start(at) => self.start(at),
            Fault::LoseAll => self.lose_all(),
            Fault::TakeSnapshot => self.plan.earlier = Some((self.database.held(), self.facts.snapshot())),
            Fault::FallBack => self.fall_back(),
            Fault::FallBackQuietly => self.fall_back_quietly(),
            Fault::Noticed(at) => self.is_noticed(at),
        }
    }

    fn break_link(&mut self, at: usize, flow: Flow) {
        self.sites[at].link.set(flow);
        if flow == Flow::Cut {
            self.sever(at, false);
        }
    }

    fn sever(&mut self, at: usize, news_alone: bool) {
        let severed = self.sites[at].link.sever(news_alone);
        self.database.hang_up(severed.names());
    }

    /// What was held back passes late, or is lost with its connection.
    pub(crate) fn mend(&mut self, at: usize) {
        if !self.sites[at].link.passes() && self.random.one_in(2) {
            self.sever(at, false);
        }
        self.sites[at].link.set(Flow::Passes);
    }

    /// The gateway is gone, and what it had not written with it.
    fn crash(&mut self, at: usize) {
        if at == self.plan.survivor {
            return;
        }
        let Some(replica) = self.sites[at].replica.take() else { return };
        self.break_link(at, Flow::Cut);
        self.facts.crashed(replica.number);
        self.was_lossy = true;
        drop(replica);
    }

    pub(crate) fn start(&mut self, at: usize) {
        if self.sites[at].replica.is_none() {
            self.mend(at);
            self.open(at);
        }
    }

    fn sever_all(&mut self) -> Vec<Flow> {
        let flows: Vec<Flow> = self.sites.iter().map(|site| site.link.flow()).collect();
        for at in 0..self.sites.len() {
            self.break_link(at, Flow::Cut);
        }
        flows
    }

    fn lose_all(&mut self) {
        let flows = self.sever_all();
        self.database.lose_all();
        self.lost(None);
        self.restore(&flows);
    }

    fn fall_back(&mut self) {
        let Some((held, had)) = self.plan.earlier.take() else { return };
        let flows = self.sever_all();
        self.database.fall_back(&held);
        self.lost(Some(&had));
        self.restore(&flows);
    }

    /// As where a primary of a cluster is replaced: gateways notice it by themselves, with their next beats.
    fn fall_back_quietly(&mut self) {
        let Some((held, had)) = self.plan.earlier.take() else { return };
        let flows: Vec<Flow> = self.sites.iter().map(|site| site.link.flow()).collect();
        self.sites.iter().for_each(|site| site.link.set(Flow::Held));
        self.database.fall_back(&held);
        self.lost(Some(&had));
        self.restore(&flows);
        std::thread::sleep(crate::replica::NOTICED);
    }

    fn lost(&mut self, had: Option<&Snapshot>) {
        self.losses.fetch_add(1, Ordering::AcqRel);
        self.facts.fell_back(had);
        self.was_lossy = true;
    }

    fn restore(&mut self, flows: &[Flow]) {
        for (site, flow) in self.sites.iter().zip(flows) {
            site.link.set(*flow);
        }
    }

    /// Whoever is cut off finds out.
    fn is_noticed(&mut self, at: usize) {
        let Some(replica) = &self.sites[at].replica else { return };
        if !self.sites[at].link.passes() {
            crate::checks::eventually("it is noticed", || replica.is_troubled());
        }
    }
}
