//! The exchanges of one worker, by session: what an end has to reach (R2).
//!
//! Registering is local to the worker's thread; a cut marks every exchange of the session and wakes whoever waits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use smallvec::SmallVec;

use crate::clock::Stopwatch;
use crate::session::{BuildRandomHasher, EndReason, SessionId};

/// All exchanges in progress on this worker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Exchanges(Rc<RefCell<BySession>>);

type BySession = HashMap<SessionId, SmallVec<[Rc<Shared>; 1]>, BuildRandomHasher>;

#[derive(Default)]
struct Shared {
    cut: Cell<Option<(EndReason, Stopwatch)>>,
    wakers: RefCell<SmallVec<[Waker; 1]>>,
}

impl Exchanges {
    /// Registers an exchange of `session` until the guard is dropped.
    #[must_use]
    pub fn register(&self, session: SessionId) -> Exchange {
        let shared = Rc::new(Shared::default());
        self.0.borrow_mut().entry(session).or_default().push(Rc::clone(&shared));
        Exchange { session, shared, all: self.clone() }
    }

    /// Marks and wakes every exchange of `session`.
    pub fn cut(&self, session: SessionId, reason: EndReason) {
        let shared: SmallVec<[Rc<Shared>; 4]> =
            self.0.borrow().get(&session).map(|list| list.iter().cloned().collect()).unwrap_or_default();
        for exchange in shared {
            exchange.cut.set(Some((reason, Stopwatch::start())));
            for waker in exchange.wakers.take() {
                waker.wake();
            }
        }
    }

    /// The sessions with exchanges in progress.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionId> {
        self.0.borrow().keys().copied().collect()
    }
}

/// One exchange in progress.
pub struct Exchange {
    session: SessionId,
    shared: Rc<Shared>,
    all: Exchanges,
}

impl Exchange {
    /// Why the exchange was cut, if it was.
    #[must_use]
    pub fn cut(&self) -> Option<EndReason> {
        self.shared.cut.get().map(|(reason, _)| reason)
    }

    /// The time since the exchange was cut; none while it is not.
    #[must_use]
    pub fn since_cut(&self) -> Duration {
        let cut = self.shared.cut.get();
        cut.map_or(Duration::ZERO, |(_, at)| Duration::from_micros(at.elapsed_us()))
    }

    /// Ready once the exchange is cut.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<EndReason> {
        if let Some(reason) = self.cut() {
            return Poll::Ready(reason);
        }
        let mut wakers = self.shared.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            // The tasks that wait change rarely (a service's, a body's, a tunnel's); old ones are dropped.
            if wakers.len() >= 4 {
                wakers.remove(0);
            }
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until the exchange is cut.
    // CANCEL: a waker stays behind; it is dropped with the exchange.
    pub async fn ended(&self) -> EndReason {
        poll_fn(|cx| self.poll_cut(cx)).await
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut all = self.all.0.borrow_mut();
        if let Some(list) = all.get_mut(&self.session) {
            if let Some(at) = list.iter().position(|other| Rc::ptr_eq(other, &self.shared)) {
                list.swap_remove(at);
            }
            if list.is_empty() {
                all.remove(&self.session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cut_reaches_every_exchange_of_its_session_and_no_other() {
        let all = Exchanges::default();
        let (a, b) = (SessionId::from_u128(1), SessionId::from_u128(2));
        let (first, second, other) = (all.register(a), all.register(a), all.register(b));
        all.cut(a, EndReason::Revoked);
        assert_eq!(first.ended().await, EndReason::Revoked);
        assert_eq!((second.cut(), other.cut()), (Some(EndReason::Revoked), None));
        drop((first, second, other));
        assert!(all.sessions().is_empty());
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let all = Exchanges::default();
        let exchange = all.register(SessionId::from_u128(1));
        let cut = async { all.cut(SessionId::from_u128(1), EndReason::IdleTimeout) };
        let (reason, ()) = tokio::join!(exchange.ended(), cut);
        assert_eq!(reason, EndReason::IdleTimeout);
    }
}
