//! The timers of the HTTP library: one for each connection, set anew with every request.

use std::pin::Pin;
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

use crate::clock::LazyTimer;

/// Makes timers that cost next to nothing to set to a later moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct LazyTimers;

impl Sleep for LazyTimer {}

impl Timer for LazyTimers {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(LazyTimer::new(deadline))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<LazyTimer>() {
            Some(timer) => timer.get_mut().set(new_deadline),
            None => *sleep = self.sleep_until(new_deadline),
        }
    }
}
