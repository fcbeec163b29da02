//! The running gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::accept::Acceptor;
use super::admin_port::{self, AdminPort};
use super::cuts::{CutQueue, Cuts};
use super::hub::Hub;
use super::jwks::Fetcher;
use super::keeping::{Keeper, Keeping};
use super::listener::{self, BindError};
use super::settings::{book, needs_restart};
use super::tls::{self, TlsError};
use super::worker::Worker;
use super::{control, farewells, verifiers};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::proxy::{Farewell, Farewells, MadeWith, Shared, Site};
use crate::session::chosen::Chosen;
use crate::store::{Entry, RedisFault, Secrets, StoreFault, Table};
use crate::telemetry::{Metrics, SessionCounts, audit};

/// The gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A socket file cannot be made.
    #[error("cannot listen on {path}: {source}")]
    Socket {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The shared store cannot be used.
    #[error(transparent)]
    Shared(#[from] RedisFault),
    /// The policies in the store cannot be used.
    #[error(transparent)]
    Policies(#[from] config::ChosenFault),
    /// The system gives no thread or socket.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// What a reload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose change needs a restart; everything else is in force.
    pub needs_restart: Vec<&'static str>,
}

/// A running gateway. Dropped, it stops at once; [`Gateway::drain`] is the orderly way.
pub struct Gateway {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
    /// Dropped last: what the workers left is written then.
    _keeper: Keeper,
    /// Where plain HTTP is served.
    pub http: Option<SocketAddr>,
    /// Where HTTPS is served.
    pub https: Option<SocketAddr>,
    /// Where the admin API is served, when over TCP.
    pub admin: Option<SocketAddr>,
    /// Where probes and metrics alone are served.
    pub probes: Option<SocketAddr>,
}

/// What the admin API, signals and tests act on.
pub struct Inner {
    shared: Arc<Shared>,
    config: ArcSwap<Config>,
    /// The configuration that the process began with: what a reload cannot change still follows it.
    began_with: Arc<Config>,
    /// What the HTTPS listener presents; replaced when the files are other ones.
    tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>,
    /// The file that a reload reads.
    file: watch::Sender<Option<Watched>>,
    secrets: Secrets,
    made_with: MadeWith,
    cuts: Cuts,
    keys: verifiers::Keys,
    leaving: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    ready: watch::Sender<bool>,
    /// What was set above the file's policies.
    pub(super) chosen: ArcSwap<Chosen>,
    /// One reload, or other change of policy, at a time.
    pub(super) reloading: Mutex<()>,
    /// Calls of apps' own logouts that are due; taken by the control thread.
    farewells_due: Mutex<Option<mpsc::Receiver<Farewell>>>,
    /// A thread has ended by a panic.
    broken: AtomicBool,
}

/// What a gateway is made of before its threads.
struct Made {
    inner: Arc<Inner>,
    /// One for each worker.
    queues: Vec<CutQueue>,
    keeper: Keeper,
}

/// Held by each thread of the gateway: one that panics ends the process, which a supervisor starts again. Half a gateway
/// (no sweeper, no API, a worker less) would be worse than none.
pub(super) struct Alive(Arc<Inner>);

impl Alive {
    pub(super) fn new(inner: &Arc<Inner>) -> Self {
        Self(Arc::clone(inner))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a thread has failed: the gateway leaves");
            self.0.broken.store(true, Ordering::Release);
            self.0.ready.send_replace(false);
            self.0.leaving.send_replace(true);
            self.0.stop.send_replace(true);
        }
    }
}

/// The configuration's file, and what it and the certificates held when this was last looked at.
#[derive(Clone)]
struct Watched {
    path: PathBuf,
    seen: Option<blake3::Hash>,
}

impl Gateway {
    /// Binds every listener and starts workers and the control thread.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        let workers = config.listen.workers.map_or_else(cores, std::num::NonZeroUsize::get);
        let (http, plain) = bind(config.listen.http, workers)?;
        let (https, secure) = bind(config.listen.https, workers)?;
        let port = AdminPort::bind(&config.admin)?;
        let (admin, probes) = (port.admin_address(), port.probes_address());
        let Made { inner, queues, keeper } = Inner::make(config, clock, workers)?;
        let mut threads = vec![admin_port::spawn(port, Arc::clone(&inner))?];
        let (mut plain, mut secure) = (plain.into_iter(), secure.into_iter());
        for (number, cuts) in queues.into_iter().enumerate() {
            let mut listeners = Vec::new();
            listeners.extend(plain.next().map(|socket| (socket, inner.acceptor(None))));
            listeners.extend(secure.next().map(|socket| (socket, inner.acceptor(inner.tls.clone()))));
            let (leaving, stop) = (inner.leaving.subscribe(), inner.stop.subscribe());
            let alive = Alive::new(&inner);
            let worker = Worker { shared: Arc::clone(&inner.shared), listeners, cuts, leaving, stop, alive };
            threads.push(worker.spawn(number)?);
        }
        if let Keeper::Redis(redis) = &keeper {
            let inner = Arc::downgrade(&inner);
            redis.on_facts(Box::new(move |facts| {
                if let Some(inner) = inner.upgrade() {
                    inner.hear_facts(&facts);
                }
            }));
        }
        Ok(Self { inner, threads, _keeper: keeper, http, https, admin, probes })
    }

    /// What acts on the gateway; cheap to clone.
    #[must_use]
    pub fn handle(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }

    /// The sessions.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.inner.shared.table
    }

    /// Leaves in order: readiness off, a pause, then no new connections, and what is in progress may finish.
    pub async fn drain(mut self) {
        self.inner.leave().await;
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|t| drop(t.join())));
        let _ = joined.await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.inner.leaving.send_replace(true);
        self.inner.stop.send_replace(true);
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

fn bind(
    address: Option<SocketAddr>,
    workers: usize,
) -> Result<(Option<SocketAddr>, Vec<std::net::TcpListener>), BindError> {
    match address {
        Some(address) => listener::bind(address, workers).map(|(local, sockets)| (Some(local), sockets)),
        None => Ok((None, Vec::new())),
    }
}

impl Inner {
    fn make(config: Config, clock: Clock, workers: usize) -> Result<Made, StartError> {
        let tls = config.listen.https.map(|_| tls::server_config(&config.listen.certificates)).transpose()?;
        let metrics = Metrics::new();
        let (cuts, queues) = Cuts::new(workers);
        let (farewells, due) = Farewells::new();
        let hub = Arc::new(Hub::new(Arc::clone(&metrics), cuts.clone(), farewells.clone()));
        let Keeping { table, keeper, secrets, clock, trouble, chosen } = Keeping::open(&config, clock, hub)?;
        let made_with = MadeWith { workers, upstream_tls: tls::client_config()? };
        let fetcher = Fetcher { tls: Arc::clone(&made_with.upstream_tls), metrics: Arc::clone(&metrics) };
        let keys = verifiers::Keys::new(fetcher);
        let site =
            Site::new(&config, &table, &secrets, &metrics, &made_with, &mut |kind| keys.verifier(kind));
        let shared = Shared {
            site: Arc::new(ArcSwap::from_pointee(site)),
            table,
            clock,
            trouble,
            metrics,
            farewells,
            asked: Default::default(),
        };
        let inner = Arc::new(Self {
            shared: Arc::new(shared),
            began_with: Arc::new(config.clone()),
            config: ArcSwap::from_pointee(config),
            tls: tls.map(|tls| Arc::new(ArcSwap::new(tls))),
            file: watch::channel(None).0,
            secrets,
            made_with,
            cuts,
            keys,
            leaving: watch::channel(false).0,
            stop: watch::channel(false).0,
            ready: watch::channel(true).0,
            chosen: ArcSwap::new(chosen),
            reloading: Mutex::new(()),
            farewells_due: Mutex::new(Some(due)),
            broken: AtomicBool::new(false),
        });
        Ok(Made { inner, queues, keeper })
    }

    fn acceptor(&self, tls: Option<Arc<ArcSwap<rustls::ServerConfig>>>) -> Acceptor {
        let config = self.config.load();
        Acceptor {
            tls,
            proxy_protocol: config.listen.proxy_protocol,
            header_bytes: config.limits.header_bytes,
            leaving: self.leaving.subscribe(),
            metrics: Arc::clone(&self.shared.metrics),
        }
    }

    /// What the workers share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// From now on the file at `path` is what a reload reads, and it is read whenever its content changes.
    pub fn reload_from(&self, path: PathBuf) {
        let seen = control::fingerprint(&self.files(&path));
        self.file.send_replace(Some(Watched { path, seen }));
    }

    /// Reads the file again. Faults change nothing; no connection is cut but those of sessions that end by it.
    ///
    /// # Errors
    /// The faults of the file.
    pub fn reload(&self) -> Result<Reloaded, config::Faults> {
        let _one_at_a_time = self.reloading.lock();
        let Some(file) = self.file.borrow().clone() else {
            return Ok(Reloaded { needs_restart: Vec::new() });
        };
        let loaded = config::load(&file.path);
        self.shared.metrics.reloaded(loaded.is_ok());
        match loaded {
            Ok(config) => Ok(self.apply(config)),
            Err(faults) => {
                tracing::error!("the configuration was not reloaded; the old one stays in force:\n{faults}");
                Err(faults)
            }
        }
    }

    /// Puts a checked configuration in force.
    pub fn apply(&self, config: Config) -> Reloaded {
        let needs_restart = needs_restart(&self.began_with, &config);
        self.renew_certificates(&config);
        let Shared { site, table, clock, metrics, .. } = &*self.shared;
        // ORDER: the table first, so that a request that sees the new site finds its apps there.
        table.set_book(book(&config, &self.chosen.load()), clock.now());
        let keys = &self.keys;
        let new = Site::new(&config, table, &self.secrets, metrics, &self.made_with, &mut |kind| {
            keys.verifier(kind)
        });
        site.store(Arc::new(new));
        self.keys.keep(&config);
        self.config.store(Arc::new(config));
        for key in &needs_restart {
            tracing::warn!(key, "this change needs a restart");
        }
        audit::administered("config", "reloaded", "");
        table.note(Entry::of_operator(clock.now(), "reloaded", "config", None, ""));
        Reloaded { needs_restart }
    }

    /// The files whose content is watched.
    fn files(&self, path: &PathBuf) -> Vec<PathBuf> {
        let config = self.config();
        let pairs = config.listen.certificates.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        std::iter::once(path).chain(pairs).cloned().collect()
    }

    /// Handshakes from now on see the certificates as the files have them now.
    fn renew_certificates(&self, config: &Config) {
        let Some(tls) = &self.tls else { return };
        match tls::server_config(&config.listen.certificates) {
            Ok(renewed) => tls.store(renewed),
            Err(error) => {
                tracing::error!(%error, "the certificates were not renewed; the old ones stay in use")
            }
        }
    }

    /// Whether traffic should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let Shared { trouble, site, clock, .. } = &*self.shared;
        let tolerable = |lasts| lasts < site.load().outage_max;
        *self.ready.borrow()
            && trouble.clock_agrees()
            && trouble.has_read_all()
            && trouble.lasts(clock.now()).is_none_or(tolerable)
    }

    /// Whether all sessions of users are known here: right after the start a shared store may not be read yet.
    #[must_use]
    pub fn knows_all(&self) -> bool {
        self.shared.trouble.has_read_all()
    }

    /// Waits until every end that was caused before is in force on all workers.
    pub async fn in_force(&self) -> bool {
        self.cuts.barrier().await
    }

    /// Waits until every end that was caused before would survive the process and the machine.
    pub async fn is_safe(&self) -> bool {
        self.shared.table.safe().await.is_ok()
    }

    /// Readiness off, a pause for balancers to notice, then no new connections; what is left after `drain.timeout`
    /// is broken off.
    pub async fn leave(&self) {
        let drain = self.config.load().drain;
        if !self.ready.send_replace(false) {
            return self.left().await;
        }
        tracing::info!(delay = %drain.delay, timeout = %drain.timeout, "draining");
        tokio::time::sleep(drain.delay.to_std()).await;
        self.leaving.send_replace(true);
        let patience: Duration = drain.timeout.to_std();
        let _ = tokio::time::timeout(patience, self.idle()).await;
        self.stop.send_replace(true);
    }

    /// Begins to leave, without waiting for the end of it.
    pub fn begin_to_leave(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        // The task ends by itself after `drain.delay` and `drain.timeout`.
        tokio::spawn(async move { inner.leave().await });
    }

    /// Whether a thread of the gateway has failed.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Waits until the gateway has left.
    pub async fn left(&self) {
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    async fn idle(&self) {
        while self.shared.metrics.open_connections() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether what is set now outlives the process.
    #[must_use]
    pub fn keeps(&self) -> bool {
        !matches!(self.began_with.store.kind, config::StoreKind::Memory)
    }

    /// Everything for Prometheus.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let counts = self.shared.table.counts();
        let crate::store::Counts { signed_in, anonymous, ended } = counts;
        let crowded_out = self.shared.table.crowded_out();
        let trouble = &self.shared.trouble;
        self.shared.metrics.encode(SessionCounts {
            signed_in,
            anonymous,
            ended,
            crowded_out,
            store_waiting: self.shared.table.waiting(),
            audit_crowded_out: self.shared.table.audit_crowded_out(),
            store_writes: trouble.counts(),
            store_degraded: trouble.lasts(self.shared.clock.now()).is_some(),
        })
    }

    /// What the control thread does besides serving the admin API.
    pub(super) async fn housekeeping(self: Arc<Self>) {
        let sweeping = control::sweep(Arc::clone(&self.shared.table), self.shared.clock.clone());
        let fetching = self.keys.fetch(&self.shared.clock);
        let watching = async {
            let mut file = self.file.subscribe();
            let named = file.wait_for(Option::is_some).await.ok().and_then(|file| file.clone());
            let Some(Watched { path, seen }) = named else { return std::future::pending().await };
            let reload = async || {
                let inner = Arc::clone(&self);
                let _told_in_the_log = tokio::task::spawn_blocking(move || inner.reload()).await;
            };
            control::watch(|| self.files(&path), seen, reload).await;
        };
        let calling = async {
            let due = self.farewells_due.lock().take();
            let Some(due) = due else { return std::future::pending().await };
            farewells::make_calls(due, Arc::clone(&self.shared), Arc::clone(&self.made_with.upstream_tls))
                .await;
        };
        tokio::select! {
            () = sweeping => {}
            () = calling => {}
            () = fetching => {}
            () = watching => {}
            () = self.left() => {}
        }
    }
}
