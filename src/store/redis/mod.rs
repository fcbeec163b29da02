//! A store that several gateways share: Redis or Valkey, one server, one under Sentinel, or a cluster.
//!
//! The table in memory stays what answers requests. What happens in it is written here by one thread, batch by batch;
//! another one answers questions about tokens that this gateway has not seen, and follows what other gateways write. All
//! decisions are those of the same code as without a shared store: the scripts compare versions and keep what they are given.

mod activity;
mod facts;
mod layout;
mod link;
mod pace;
mod reader;
mod replica;
mod together;
mod watch;
mod writer;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use ::redis::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{mpsc, oneshot};

use self::facts::Facts;
pub use self::facts::OnFacts;
use self::layout::{Layout, bytes};
use self::link::{Link, LinkFault};
pub use self::pace::Pace;
use self::reader::Reader;
use self::replica::Replica;
use self::watch::{Watch, clock_offset};
use self::writer::{Port, WriteFault, Writer};
use super::audit::Audit;
use super::book::Book;
use super::journal::Journal;
use super::sharing::{Inquiry, Sharing};
use super::table::Table;
use super::{Observer, Trouble, random_bytes};
use crate::clock::Clock;
use crate::config;
use crate::session::Span;

/// How often the start tries to reach the store, a second apart: servers of one deployment start together.
const TRIES_AT_START: u32 = 10;

/// This gateway's part in a shared store. Dropped, it writes what is left and leaves.
pub struct Redis {
    journal: Arc<Journal>,
    writer: Option<JoinHandle<()>>,
    follower: Option<JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
    replica: Arc<Replica>,
}

/// A shared store that was opened.
pub struct RedisOpened {
    /// The sessions that this gateway knows: none yet.
    pub table: Arc<Table>,
    /// What keeps them.
    pub redis: Redis,
    /// What keys the hashes of tokens, in all gateways alike.
    pub secret: [u8; 32],
    /// The machine's clock, set by the store's (R23).
    pub clock: Clock,
    /// What was kept by [`Table::keep_fact`], by whichever gateway.
    pub facts: HashMap<String, Vec<u8>>,
}

/// How to open a shared store.
pub struct RedisOpening<'a> {
    /// Where it is.
    pub settings: &'a config::Redis,
    /// What keys the hashes of tokens; `None` for the secret that the store itself keeps.
    pub secret: Option<[u8; 32]>,
    /// The machine's time.
    pub clock: Clock,
    /// Told how the store fares.
    pub trouble: Arc<Trouble>,
    /// How long a store that is empty waits for gateways that may know what was in it.
    pub patience: Span,
}

/// The shared store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RedisFault {
    /// It cannot be reached, or refuses.
    #[error(
        "the store in Redis cannot be used: {0}; check [store] redis, and that the server runs and lets this user in"
    )]
    Unusable(String),
    /// Its sessions are keyed by another secret.
    #[error(
        "the store in Redis was written under another secret: give every gateway the same [store] secret, or another prefix"
    )]
    OtherSecret,
    /// The system gives no thread.
    #[error("cannot start a thread for the store: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<LinkFault> for RedisFault {
    fn from(fault: LinkFault) -> Self {
        Self::Unusable(fault.to_string())
    }
}

impl From<WriteFault> for RedisFault {
    fn from(fault: WriteFault) -> Self {
        Self::Unusable(fault.to_string())
    }
}

impl Redis {
    /// Opens the store. The book follows from the facts that it keeps.
    ///
    /// # Errors
    /// [`RedisFault`], or what `book` says of the facts.
    pub fn open<E: From<RedisFault>>(
        opening: &RedisOpening<'_>,
        book: impl FnOnce(&HashMap<String, Vec<u8>>) -> Result<Book, E>,
        observer: Arc<dyn Observer>,
    ) -> Result<RedisOpened, E> {
        Self::open_at(Pace::default(), opening, book, observer)
    }

    /// The same at another pace.
    ///
    /// # Errors
    /// See [`Redis::open`].
    pub fn open_at<E: From<RedisFault>>(
        pace: Pace,
        opening: &RedisOpening<'_>,
        book: impl FnOnce(&HashMap<String, Vec<u8>>) -> Result<Book, E>,
        observer: Arc<dyn Observer>,
    ) -> Result<RedisOpened, E> {
        // On a thread of its own: whoever opens may be on a runtime, which must not be waited on from within.
        let found = std::thread::scope(|scope| {
            let looking = scope.spawn(|| runtime()?.block_on(look(opening, pace)));
            looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let clock = opening.clock.shifted(found.offset_ms);
        let facts = found.facts.values();
        let book = book(&facts)?;
        let journal = Journal::new();
        let (sharing, asked) = Sharing::new();
        let audit = Audit::shared(Arc::clone(&journal));
        let table =
            Arc::new(Table::with_journal(book, observer, Some(Arc::clone(&journal)), audit, Some(sharing)));
        let replica = Replica::new(Arc::clone(&table), Arc::clone(&journal), &found.secret, found.facts);
        let replica = Arc::new(replica);
        let settings = opening.settings.clone();
        let port = Ports { settings, pace, replica: Arc::clone(&replica), clock: clock.clone() };
        let (stop, stopped) = oneshot::channel();
        let follower = Follower {
            ports: port.clone(),
            asked,
            trouble: Arc::clone(&opening.trouble),
            patience: opening.patience,
            stopped,
        };
        let (ready, is_ready) = std::sync::mpsc::channel();
        let follower = spawn("store-follow", move |runtime| follower.run(runtime, &ready))?;
        let _begun = is_ready.recv();
        let writer = spawn("store", {
            let (journal, trouble) = (Arc::clone(&journal), Arc::clone(&opening.trouble));
            move |runtime| {
                let _guard = runtime.enter();
                Writer::new(port.open(), trouble).run(&journal, runtime);
            }
        })?;
        let redis =
            Self { journal, writer: Some(writer), follower: Some(follower), stop: Some(stop), replica };
        Ok(RedisOpened { table, redis, secret: found.secret, clock, facts })
    }

    /// From now on `hear` is told when facts are other ones than before; and at once, for they may be already.
    pub fn on_facts(&self, hear: Box<OnFacts>) {
        self.replica.facts.on_change(Some(hear));
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.replica.facts.on_change(None);
        self.journal.close();
        if let Some(writer) = self.writer.take() {
            let _it_has_logged_why = writer.join();
        }
        drop(self.stop.take());
        if let Some(follower) = self.follower.take() {
            let _it_has_logged_why = follower.join();
        }
    }
}

/// What a port is made of, on the thread that uses it.
#[derive(Clone)]
struct Ports {
    settings: config::Redis,
    pace: Pace,
    replica: Arc<Replica>,
    clock: Clock,
}

impl Ports {
    fn open(&self) -> Port {
        let replica = Arc::clone(&self.replica);
        // Whatever it leads to may lack what was written over the one before: that is marked before anything is taken over.
        let link = Link::new(&self.settings, self.pace, move || replica.mark_all());
        Port {
            link,
            layout: Layout::new(&self.settings.prefix),
            replica: Arc::clone(&self.replica),
            clock: self.clock.clone(),
        }
    }
}

/// The thread that answers questions and follows what other gateways do.
struct Follower {
    ports: Ports,
    asked: mpsc::Receiver<Inquiry>,
    trouble: Arc<Trouble>,
    patience: Span,
    stopped: oneshot::Receiver<()>,
}

impl Follower {
    fn run(self, runtime: &tokio::runtime::Runtime, ready: &std::sync::mpsc::Sender<()>) {
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(runtime, async {
            let port = Rc::new(self.ports.open());
            let pace = self.ports.pace;
            let watch = Watch::new(Rc::clone(&port), pace, Arc::clone(&self.trouble), self.patience);
            watch.begin().await;
            let _nobody_waits = ready.send(());
            tokio::task::spawn_local(Reader::new(Rc::clone(&port)).run(self.asked));
            tokio::task::spawn_local(watch.run());
            let _stopped = self.stopped.await;
            Watch::leave(&port).await;
        });
    }
}

/// What the store says at the start.
struct Found {
    secret: [u8; 32],
    offset_ms: i64,
    facts: Facts,
}

/// Why the store could not be looked at.
enum Unseen {
    /// It may work in a moment.
    Now(RedisFault),
    ForGood(RedisFault),
}

impl From<LinkFault> for Unseen {
    fn from(fault: LinkFault) -> Self {
        match fault {
            LinkFault::Away(_) => Self::Now(fault.into()),
            LinkFault::Refused(_) => Self::ForGood(fault.into()),
        }
    }
}

impl From<WriteFault> for Unseen {
    fn from(fault: WriteFault) -> Self {
        match fault {
            WriteFault::Link(fault) => fault.into(),
            fault => Self::ForGood(fault.into()),
        }
    }
}

async fn look(opening: &RedisOpening<'_>, pace: Pace) -> Result<Found, RedisFault> {
    let (link, layout) = (Link::new(opening.settings, pace, || {}), Layout::new(&opening.settings.prefix));
    let mut tried = 1;
    loop {
        match look_once(opening, &link, &layout).await {
            Ok(found) => return Ok(found),
            Err(Unseen::Now(why)) if tried < TRIES_AT_START => {
                tracing::warn!(%why, "the store does not answer yet");
                tried += 1;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            Err(Unseen::Now(why) | Unseen::ForGood(why)) => return Err(why),
        }
    }
}

async fn look_once(opening: &RedisOpening<'_>, link: &Link, layout: &Layout) -> Result<Found, Unseen> {
    link.call(&::redis::cmd("PING")).await?;
    let secret = match opening.secret {
        Some(secret) => secret,
        None => kept_secret(link, layout).await?,
    };
    check_secret(link, layout, &secret).await?;
    let offset_ms = clock_offset(link, &opening.clock).await?.unwrap_or(0);
    let facts = Facts::new(facts::read(link, layout).await?);
    Ok(Found { secret, offset_ms, facts })
}

/// The secret that the store keeps; made by the first gateway.
async fn kept_secret(link: &Link, layout: &Layout) -> Result<[u8; 32], Unseen> {
    tracing::warn!(
        "[store] secret is not set: the store keeps one, and whoever reads the store can open the vault"
    );
    let name = layout.whole("secret");
    let new = STANDARD.encode(random_bytes::<32>());
    link.call(::redis::cmd("SET").arg(&name).arg(new).arg("NX")).await?;
    let answer = link.call(::redis::cmd("GET").arg(&name)).await?;
    let kept =
        bytes(&answer).and_then(|text| STANDARD.decode(text).ok()).and_then(|kept| kept.try_into().ok());
    let none = || RedisFault::Unusable(format!("{} holds no secret", String::from_utf8_lossy(&name)));
    kept.ok_or_else(|| Unseen::ForGood(none()))
}

/// Gateways with different secrets would take each other's sessions for unknown ones.
async fn check_secret(link: &Link, layout: &Layout, secret: &[u8; 32]) -> Result<(), Unseen> {
    let name = layout.whole("keyed-by");
    let proof = blake3::derive_key("tenure 2026-11 proof of secret", secret);
    link.call(::redis::cmd("SET").arg(&name).arg(proof.as_slice()).arg("NX")).await?;
    match link.call(::redis::cmd("GET").arg(&name)).await? {
        Value::BulkString(known) if known == proof => Ok(()),
        _ => Err(Unseen::ForGood(RedisFault::OtherSecret)),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn spawn(
    name: &str,
    run: impl FnOnce(&tokio::runtime::Runtime) + Send + 'static,
) -> Result<JoinHandle<()>, RedisFault> {
    let runtime = runtime()?;
    Ok(std::thread::Builder::new().name(name.into()).spawn(move || run(&runtime))?)
}
