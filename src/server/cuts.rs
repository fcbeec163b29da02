//! How an end reaches the workers: one bounded queue each, a cut for every busy session that ends, and a barrier.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::session::{EndReason, SessionId};

/// Cuts that may wait for one worker. Beyond it the worker judges all its exchanges anew, so none is lost.
const QUEUE: usize = 4096;

/// How long a worker may take to pass the barrier; it only has to finish what it is computing.
const BARRIER: Duration = Duration::from_secs(2);

/// A message to a worker.
pub(super) enum Cut {
    /// The session has ended: cut its exchanges.
    Session(SessionId, EndReason),
    /// All cuts before this one are done.
    Barrier(oneshot::Sender<()>),
}

/// The sending side, for all workers.
#[derive(Clone, Default)]
pub(super) struct Cuts {
    workers: Vec<(mpsc::Sender<Cut>, Arc<AtomicBool>)>,
}

/// One worker's receiving side.
pub(super) struct CutQueue {
    /// What to do.
    pub queue: mpsc::Receiver<Cut>,
    overflowed: Arc<AtomicBool>,
}

impl CutQueue {
    /// Whether cuts were lost to a full queue since this was last asked: then every exchange must be judged anew.
    #[must_use]
    pub(super) fn take_overflow(&self) -> bool {
        self.overflowed.swap(false, Ordering::AcqRel)
    }
}

impl Cuts {
    /// Queues for `workers` workers.
    #[must_use]
    pub(super) fn new(workers: usize) -> (Self, Vec<CutQueue>) {
        let mut cuts = Self::default();
        let queues = (0..workers).map(|_| {
            let (sender, queue) = mpsc::channel(QUEUE);
            let overflowed = Arc::new(AtomicBool::new(false));
            cuts.workers.push((sender, Arc::clone(&overflowed)));
            CutQueue { queue, overflowed }
        });
        let queues = queues.collect();
        (cuts, queues)
    }

    /// Tells every worker that the session has ended. Never blocks.
    pub(super) fn session(&self, id: SessionId, reason: EndReason) {
        for (sender, overflowed) in &self.workers {
            if sender.try_send(Cut::Session(id, reason)).is_err() {
                overflowed.store(true, Ordering::Release);
            }
        }
    }

    /// Waits until every worker has done all cuts sent before. Returns false when one did not answer in time.
    // CANCEL: the workers pass the barrier all the same; only nobody waits for it.
    pub(super) async fn barrier(&self) -> bool {
        let mut passed = Vec::new();
        for (sender, _) in &self.workers {
            let (done, wait) = oneshot::channel();
            match tokio::time::timeout(BARRIER, sender.send(Cut::Barrier(done))).await {
                Ok(Ok(())) => passed.push(wait),
                // A worker that has left serves nobody any more.
                Ok(Err(_)) => {}
                Err(_) => return false,
            }
        }
        for wait in passed {
            if tokio::time::timeout(BARRIER, wait).await.is_err() {
                return false;
            }
        }
        true
    }
}
