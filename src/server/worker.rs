//! One worker: a thread with a current-thread runtime, its share of the listeners, and its queue of cuts.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
use tokio::sync::watch;

use super::accept::Acceptor;
use super::cuts::{Cut, CutQueue};
use super::gateway::Alive;
use crate::proxy::{Proxy, Shared};
use crate::session::EndReason;

/// What a worker is made of.
pub(super) struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Its sockets with how to accept on them.
    pub listeners: Vec<(std::net::TcpListener, Acceptor)>,
    /// Ends that reach it.
    pub cuts: CutQueue,
    /// True once the gateway leaves.
    pub leaving: watch::Receiver<bool>,
    /// True once what is left in progress is broken off.
    pub stop: watch::Receiver<bool>,
    /// Tells when the thread fails.
    pub alive: Alive,
}

impl Worker {
    /// Starts the worker's thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn spawn(self, number: usize) -> io::Result<JoinHandle<()>> {
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            // A runtime that never leaves its thread: a set of local tasks on top of another would schedule twice.
            match builder.enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    let _ = started.send(Ok(()));
                    runtime.block_on(self.run());
                }
                Err(error) => drop(started.send(Err(error))),
            }
        })?;
        outcome.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())).map(|()| thread)
    }

    async fn run(self) {
        let proxy = Rc::new(Proxy::new(Arc::clone(&self.shared), self.leaving.clone()));
        let _alive = self.alive;
        let mut cutting =
            tokio::task::spawn_local(cut(self.cuts, Rc::clone(&proxy), Arc::clone(&self.shared)));
        let mut serving = tokio::task::JoinSet::new();
        for (socket, acceptor) in self.listeners {
            match TcpListener::from_std(socket) {
                Ok(listener) => drop(serving.spawn_local(acceptor.run(listener, Rc::clone(&proxy)))),
                Err(error) => tracing::error!(%error, "a listener could not be taken over"),
            }
        }
        let mut stop = self.stop;
        let all = async { while serving.join_next().await.is_some() {} };
        tokio::select! {
            () = all => {}
            // Without it no end would reach this worker's exchanges any more.
            Err(failed) = &mut cutting => {
                if let Ok(panic) = failed.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
            _ = stop.wait_for(|stop| *stop) => {}
        }
        cutting.abort();
    }
}

/// Cuts exchanges as their sessions end.
async fn cut(mut cuts: CutQueue, proxy: Rc<Proxy>, shared: Arc<Shared>) {
    while let Some(cut) = cuts.queue.recv().await {
        // ORDER: before a barrier is passed, what a full queue lost is made up for.
        if cuts.take_overflow() {
            judge_all(&proxy, &shared);
        }
        match cut {
            Cut::Session(id, reason) => proxy.exchanges.cut(id, reason),
            Cut::Barrier(done) => {
                // ORDER: whoever was woken by a cut runs before the barrier is passed, so that a head that was queued
                // for the upstream and not yet written is withdrawn first.
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                let _ = done.send(());
            }
        }
    }
}

/// Cuts were lost to a full queue: every exchange's session is judged anew.
fn judge_all(proxy: &Proxy, shared: &Shared) {
    let now = shared.clock.now();
    for id in proxy.exchanges.sessions() {
        let reason = match shared.table.by_id(id) {
            Some(session) => shared.table.inspect(&session, now, |s| s.ended().map(|end| end.reason)),
            None => Some(EndReason::Revoked),
        };
        if let Some(reason) = reason {
            proxy.exchanges.cut(id, reason);
        }
    }
}
