//! The permits of one worker's pool of connections: a bound, and who waits.
//!
//! Of one thread alone, unlike the semaphores of the runtime: every request takes a permit and gives it back, and neither costs
//! an atomic operation.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// See the module.
pub(super) struct Permits {
    free: Cell<usize>,
    /// Each has one of the free permits set aside for it.
    waiting: Cell<usize>,
    /// Wakes one of those who wait, in their order.
    freed: Notify,
}

/// A permit that is taken; it is free again when this is dropped.
pub(super) struct Permit(Rc<Permits>);

impl Permits {
    /// As many permits, all of them free.
    pub(super) fn new(count: usize) -> Rc<Self> {
        Rc::new(Self { free: Cell::new(count), waiting: Cell::new(0), freed: Notify::new() })
    }

    /// A permit that nobody has to wait for: whoever waits was there before.
    pub(super) fn at_hand(self: &Rc<Self>) -> Option<Permit> {
        if self.free.get() > self.waiting.get() { self.free_one() } else { None }
    }

    /// Waits for a permit.
    // CANCEL: it is the next one's turn, as if this one had never waited.
    pub(super) async fn wait(self: &Rc<Self>) -> Permit {
        if let Some(permit) = self.at_hand() {
            return permit;
        }
        let _waiting = Waiting::new(&self.waiting);
        loop {
            self.freed.notified().await;
            if let Some(permit) = self.free_one() {
                return permit;
            }
        }
    }

    fn free_one(self: &Rc<Self>) -> Option<Permit> {
        self.free.set(self.free.get().checked_sub(1)?);
        Some(Permit(Rc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Permits { free, waiting, freed } = &*self.0;
        free.set(free.get() + 1);
        // One for each who waits: of more, all but one would be lost.
        if free.get() <= waiting.get() {
            freed.notify_one();
        }
    }
}

/// One who waits, until this is dropped.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll(waiting: Pin<&mut impl Future<Output = Permit>>) -> Option<Permit> {
        match waiting.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn permits_go_to_those_who_wait_in_their_order() {
        let permits = Permits::new(1);
        let taken = permits.at_hand();
        assert!(taken.is_some() && permits.at_hand().is_none());
        let (mut first, mut second, mut third) =
            (pin!(permits.wait()), pin!(permits.wait()), pin!(permits.wait()));
        assert!(poll(first.as_mut()).is_none() && poll(second.as_mut()).is_none());
        drop(taken);
        assert!(permits.at_hand().is_none() && poll(third.as_mut()).is_none(), "others were there before");
        let taken = poll(first.as_mut());
        assert!(taken.is_some() && poll(second.as_mut()).is_none());
        drop(taken);
        let taken = poll(second.as_mut());
        assert!(taken.is_some() && poll(third.as_mut()).is_none());
    }

    #[test]
    fn who_gives_up_waiting_costs_nobody_a_permit() {
        let permits = Permits::new(1);
        let taken = permits.at_hand();
        let mut second = pin!(permits.wait());
        {
            let mut first = pin!(permits.wait());
            assert!(poll(first.as_mut()).is_none() && poll(second.as_mut()).is_none());
            drop(taken);
        }
        let taken = poll(second.as_mut());
        assert!(taken.is_some(), "it was the first one's turn");
        drop(taken);
        assert!(permits.at_hand().is_some());
    }

    #[test]
    fn permits_that_come_free_at_once_are_all_to_be_had() {
        let permits = Permits::new(3);
        let taken = [permits.at_hand(), permits.at_hand(), permits.at_hand()];
        let mut first = pin!(permits.wait());
        assert!(poll(first.as_mut()).is_none());
        drop(taken);
        let others = [permits.at_hand(), permits.at_hand(), permits.at_hand()];
        assert_eq!(others.iter().flatten().count(), 2, "one is the first one's");
        let mut last = pin!(permits.wait());
        assert!(poll(last.as_mut()).is_none() && poll(first.as_mut()).is_some());
        assert!(poll(last.as_mut()).is_some(), "the first gave it back");
        drop(others);
    }
}
