//! The only file that reads the time.
//!
//! A [`Clock`] is steady: it is anchored to the wall clock once, at start, and from then on advances with the
//! kernel's boot-time clock, which neither steps when somebody corrects the wall clock nor stops in suspend
//! (Linux's plain monotonic clock does stop there). Sessions are judged by it alone, so that a step of the wall
//! clock ends nobody's session and brings none back. In tests the clock is manual and moves by [`Clock::advance`].

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use crate::session::{Moment, Span};

/// A sleeper looks at the clock again at least this often: tokio's timers stop in suspend, ours must not.
const LONGEST_NAP: Duration = Duration::from_secs(1);

/// A source of [`Moment`]s; cheap to clone, all clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    System { anchor_unix_ms: u64, anchor_boot_ms: u64 },
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    unix_ms: AtomicU64,
    moved: Notify,
}

impl Clock {
    /// The machine's clock, anchored to its wall time now.
    #[must_use]
    pub fn system() -> Self {
        Self(Kind::System { anchor_unix_ms: wall_ms(), anchor_boot_ms: boot_ms() })
    }

    /// A clock that starts at `start` and moves only by [`Clock::advance`].
    #[must_use]
    pub fn manual(start: Moment) -> Self {
        Self(Kind::Manual(Arc::new(Manual {
            unix_ms: AtomicU64::new(start.unix_ms()),
            moved: Notify::new(),
        })))
    }

    /// This clock, but no earlier than `moment`: what has been seen by then stays in the past, even when somebody set the
    /// machine's clock back meanwhile. A manual clock is moved itself.
    #[must_use]
    pub fn not_before(&self, moment: Moment) -> Self {
        let behind = moment.since(self.now());
        match &self.0 {
            Kind::System { anchor_unix_ms, anchor_boot_ms } => Self(Kind::System {
                anchor_unix_ms: anchor_unix_ms.saturating_add(behind.as_ms()),
                anchor_boot_ms: *anchor_boot_ms,
            }),
            Kind::Manual(_) => {
                self.advance(behind);
                self.clone()
            }
        }
    }

    /// Whether this clock moves by [`Clock::advance`] alone.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        matches!(self.0, Kind::Manual(_))
    }

    /// This clock, `offset_ms` milliseconds later (or earlier): set by a clock that several machines go by. A manual clock
    /// stays as it is.
    #[must_use]
    pub fn shifted(&self, offset_ms: i64) -> Self {
        match &self.0 {
            Kind::System { anchor_unix_ms, anchor_boot_ms } => Self(Kind::System {
                anchor_unix_ms: anchor_unix_ms.saturating_add_signed(offset_ms),
                anchor_boot_ms: *anchor_boot_ms,
            }),
            Kind::Manual(_) => self.clone(),
        }
    }

    /// The present moment. Never earlier than what it returned before.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Kind::System { anchor_unix_ms, anchor_boot_ms } => {
                let elapsed = boot_ms().saturating_sub(*anchor_boot_ms);
                Moment::from_unix_ms(anchor_unix_ms.saturating_add(elapsed))
            }
            Kind::Manual(manual) => Moment::from_unix_ms(manual.unix_ms.load(Ordering::Acquire)),
        }
    }

    /// Moves a manual clock by `span` and wakes its sleepers. Does nothing on the machine's clock.
    pub fn advance(&self, span: Span) {
        if let Kind::Manual(manual) = &self.0 {
            manual.unix_ms.fetch_add(span.as_ms(), Ordering::AcqRel);
            manual.moved.notify_waiters();
        }
    }

    /// Sleeps until this clock has reached `moment`.
    // CANCEL: nothing is held; dropping the future forgets the sleep.
    pub async fn sleep_until(&self, moment: Moment) {
        match &self.0 {
            Kind::System { .. } => {
                while self.now() < moment {
                    tokio::time::sleep(moment.since(self.now()).to_std().min(LONGEST_NAP)).await;
                }
            }
            Kind::Manual(manual) => loop {
                // ORDER: enlist before looking, or an advance between the two would be missed.
                let mut moved = pin!(manual.moved.notified());
                moved.as_mut().enable();
                if self.now() >= moment {
                    return;
                }
                moved.await;
            },
        }
    }

    /// Sleeps for `span` of this clock's time.
    pub async fn sleep(&self, span: Span) {
        self.sleep_until(self.now().plus(span)).await;
    }
}

/// Time spent on the machine itself (durations in access lines and benchmarks); never used to judge a session.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(u64);

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    pub fn start() -> Self {
        Self(micros(ClockId::Monotonic))
    }

    /// Starts measuring what takes seconds: it reads the kernel's last tick alone, which is far cheaper, and up to 10 ms behind.
    /// May be mixed with [`Stopwatch::start`].
    #[must_use]
    pub fn roughly() -> Self {
        Self(micros(ClockId::MonotonicCoarse))
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn elapsed_us(self) -> u64 {
        Self::start().since_us(self)
    }

    /// Microseconds from `earlier` to this start.
    #[must_use]
    pub const fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Since when something goes on that may be looked at from elsewhere, or that nothing does. As cheap as [`Stopwatch::roughly`].
#[derive(Debug, Default)]
pub struct Since(AtomicU64);

impl Since {
    /// It begins now.
    pub fn begin(&self) {
        self.0.store(Stopwatch::roughly().0.max(1), Ordering::Relaxed);
    }

    /// It is over.
    pub fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// For how long it has been going on, give or take 10 ms; zero while nothing does.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => Duration::from_micros(Stopwatch::roughly().since_us(Stopwatch(began))),
        }
    }
}

/// The longest that the kernel's last tick lies back, where the machine does not stall.
const TICK: Duration = Duration::from_millis(10);

/// Tokio's clock for time-outs of seconds, as cheap as [`Stopwatch::roughly`]: not behind, and ahead by a few ticks at most.
#[derive(Clone, Copy)]
struct RoughClock {
    base: Instant,
    at: Stopwatch,
}

impl RoughClock {
    #[expect(clippy::disallowed_methods, reason = "this is clock.rs")]
    fn new() -> Self {
        // ORDER: the tick first, or the clock would be behind.
        let at = Stopwatch::roughly();
        Self { base: Instant::now(), at }
    }

    fn now(&self) -> Instant {
        self.base + Duration::from_micros(Stopwatch::roughly().since_us(self.at)) + TICK
    }
}

/// A time-out for one thing after the other. It is put into tokio's wheel only when an earlier one has come up, while each new
/// timer, and each that is moved, would be put there and taken out again.
pub struct Patience {
    alarm: Pin<Box<tokio::time::Sleep>>,
    clock: RoughClock,
}

impl Default for Patience {
    fn default() -> Self {
        Self { alarm: Box::pin(tokio::time::sleep(Duration::ZERO)), clock: RoughClock::new() }
    }
}

impl Patience {
    /// What `future` yields within `limit`; `None` when it takes longer, some hundredths of a second after it.
    // CANCEL: the future is dropped; nothing is kept.
    pub fn within<'a, F: Future + Unpin + 'a>(
        &'a mut self,
        limit: Duration,
        mut future: F,
    ) -> impl Future<Output = Option<F::Output>> + 'a {
        let deadline = (self.clock.now() + limit).into();
        std::future::poll_fn(move |cx| {
            if let Poll::Ready(output) = Pin::new(&mut future).poll(cx) {
                return Poll::Ready(Some(output));
            }
            poll_alarm(self.alarm.as_mut(), deadline, cx).map(|()| None)
        })
    }
}

/// Ready once `deadline` has come, by an alarm that may have been set for another moment.
fn poll_alarm(
    mut alarm: Pin<&mut tokio::time::Sleep>,
    deadline: tokio::time::Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if deadline < alarm.deadline() {
        alarm.as_mut().reset(deadline);
    }
    while alarm.as_mut().poll(cx).is_ready() {
        if alarm.deadline() >= deadline {
            return Poll::Ready(());
        }
        alarm.as_mut().reset(deadline);
    }
    Poll::Pending
}

/// The wall clock, in milliseconds since the Unix epoch; for the time stamps of log lines.
#[must_use]
pub fn wall_ms() -> u64 {
    let t = clock_gettime(ClockId::Realtime);
    to_ms(t.tv_sec, t.tv_nsec)
}

fn boot_ms() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    to_ms(t.tv_sec, t.tv_nsec)
}

fn micros(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    u64::try_from(t.tv_sec).unwrap_or(0).saturating_mul(1_000_000)
        + u64::try_from(t.tv_nsec).unwrap_or(0) / 1000
}

fn to_ms(secs: i64, nanos: i64) -> u64 {
    u64::try_from(secs).unwrap_or(0).saturating_mul(1000) + u64::try_from(nanos).unwrap_or(0) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_its_sleepers_when_it_is_advanced() {
        let clock = Clock::manual(Moment::from_unix_ms(1000));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep(Span::from_secs(5)).await;
                clock.now()
            }
        });
        tokio::task::yield_now().await;
        clock.advance(Span::from_secs(4));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Span::from_secs(1));
        assert_eq!(sleeper.await.unwrap(), Moment::from_unix_ms(6000));
    }

    #[tokio::test]
    async fn patience_ends_at_its_limit_and_no_earlier() {
        let mut patience = Patience::default();
        for ms in [30, 5, 60] {
            let began = Stopwatch::start();
            let limit = Duration::from_millis(ms);
            assert_eq!(patience.within(limit, std::future::pending::<()>()).await, None);
            assert!(began.elapsed_us() >= ms * 1000);
        }
        let long = Duration::from_secs(3600);
        assert_eq!(patience.within(long, std::future::ready(7)).await, Some(7));
        let short = patience.within(Duration::from_millis(5), std::future::pending::<()>());
        assert_eq!(short.await, None, "to an earlier moment too");
    }

    #[test]
    fn the_system_clock_does_not_run_backwards() {
        let clock = Clock::system();
        let earlier = clock.now();
        assert!(clock.now() >= earlier);
    }
}
