//! The places of one worker's pool of connections: a bound, and who waits for a place.
//!
//! Of one thread alone, unlike the semaphores of the runtime: every request takes a place and gives it back, and neither costs an
//! atomic operation.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// See the module.
pub(super) struct Places {
    free: Cell<usize>,
    waiting: Cell<usize>,
    /// Wakes one of those who wait, in their order.
    freed: Notify,
}

/// A place that is taken; it is free again when this is dropped.
pub(super) struct Place(Rc<Places>);

impl Places {
    /// As many places, all of them free.
    pub(super) fn new(count: usize) -> Rc<Self> {
        Rc::new(Self { free: Cell::new(count), waiting: Cell::new(0), freed: Notify::new() })
    }

    /// A place, unless somebody has to wait for one: whoever waits was there before.
    pub(super) fn at_hand(self: &Rc<Self>) -> Option<Place> {
        if self.waiting.get() == 0 { self.free_one() } else { None }
    }

    /// Waits for a place.
    // CANCEL: it is the next one's turn, as if this one had never waited.
    pub(super) async fn wait(self: &Rc<Self>) -> Place {
        if let Some(place) = self.at_hand() {
            return place;
        }
        let _waiting = Waiting::new(&self.waiting);
        loop {
            self.freed.notified().await;
            if let Some(place) = self.free_one() {
                return place;
            }
        }
    }

    fn free_one(self: &Rc<Self>) -> Option<Place> {
        self.free.set(self.free.get().checked_sub(1)?);
        Some(Place(Rc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        if self.0.waiting.get() > 0 {
            self.0.freed.notify_one();
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
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn places_go_to_those_who_wait_in_their_order() {
        let cx = &mut Context::from_waker(Waker::noop());
        let places = Places::new(1);
        let taken = places.at_hand().unwrap();
        assert!(places.at_hand().is_none());
        let (mut first, mut second) = (pin!(places.wait()), pin!(places.wait()));
        assert!(first.as_mut().poll(cx).is_pending() && second.as_mut().poll(cx).is_pending());
        drop(taken);
        assert!(places.at_hand().is_none(), "others were there before");
        let mut third = pin!(places.wait());
        assert!(third.as_mut().poll(cx).is_pending(), "these too");
        let Poll::Ready(taken) = first.as_mut().poll(cx) else { panic!("it is the first one's turn") };
        assert!(second.as_mut().poll(cx).is_pending());
        drop(taken);
        let Poll::Ready(taken) = second.as_mut().poll(cx) else { panic!("it is the second one's turn") };
        drop(taken);
    }

    #[test]
    fn who_gives_up_waiting_costs_nobody_a_place() {
        let cx = &mut Context::from_waker(Waker::noop());
        let places = Places::new(1);
        let taken = places.at_hand().unwrap();
        let mut second = pin!(places.wait());
        {
            let mut first = pin!(places.wait());
            assert!(first.as_mut().poll(cx).is_pending() && second.as_mut().poll(cx).is_pending());
            drop(taken);
        }
        let Poll::Ready(taken) = second.as_mut().poll(cx) else { panic!("the first one's turn passed") };
        drop(taken);
    }

    #[test]
    fn a_place_is_at_hand_again_once_nobody_waits() {
        let cx = &mut Context::from_waker(Waker::noop());
        let places = Places::new(2);
        let (one, two) = (places.at_hand().unwrap(), places.at_hand().unwrap());
        {
            let mut waiting = pin!(places.wait());
            assert!(waiting.as_mut().poll(cx).is_pending());
        }
        drop((one, two));
        let again = (places.at_hand(), places.at_hand(), places.at_hand());
        assert!(again.0.is_some() && again.1.is_some() && again.2.is_none());
    }
}
