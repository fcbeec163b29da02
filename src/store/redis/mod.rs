//! A store that several gateways share: Redis or Valkey, one server, one under Sentinel, or a cluster.
//!
//! The table in memory stays what answers requests. What happens in it is written here by one thread, batch by batch;
//! another one answers questions about tokens that this gateway has not seen, and follows what other gateways write. All
//! decisions are those of the same code as without a shared store: the scripts compare versions and keep what they are given.

mod activity;
mod carry;
mod claim;
mod dial;
mod facts;
mod layout;
mod link;
mod opener;
mod pace;
mod port;
mod reader;
mod replica;
mod server;
mod together;
mod trust;
mod versions;
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

pub use self::carry::{export_shared, import_shared};
use self::facts::Facts;
pub use self::facts::OnFacts;
use self::layout::{Layout, bytes, number};
use self::link::{Link, LinkFault};
use self::opener::Opener;
pub use self::pace::Pace;
use self::port::{Port, WriteFault};
use self::reader::Reader;
use self::replica::Replica;
use self::server::Server;
use self::watch::Watch;
use self::writer::Writer;
use super::audit::Audit;
use super::book::Book;
use super::journal::Journal;
use super::keys::{SECRET_BYTES, derive_key, new_secret, proof};
use super::lasting::Backing;
use super::secrets::{SecretFault, Secrets};
use super::sharing::{Inquiry, Sharing};
use super::table::Table;
use super::{Observer, Trouble};
use crate::clock::Clock;
use crate::config;
use crate::session::Span;

/// Under which names the whole store keeps its own secret, where none is configured; what proves by which one it is keyed;
/// and that lines are being taken in.
const SECRET: &str = "secret";
const KEYED_BY: &str = "keyed-by";
const TAKING_IN: &str = "taking-in";

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
    pub secrets: Secrets,
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
    pub secrets: Option<Secrets>,
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
        "the store in Redis cannot be used: {0}; check [store] redis (rediss:// where the server speaks TLS), and that the \
         server runs and lets this user in"
    )]
    Unusable(String),
    /// Its sessions are keyed by another secret.
    #[error(
        "the store in Redis was written under another secret: give every gateway the same [store] secret (in a rotation the \
         other one too, see previous_secrets and next_secret), or another prefix"
    )]
    OtherSecret,
    /// Other gateways would not know what is keyed by the secret.
    #[error(
        "gateways are running that do not know the new [store] secret: what it keys they would take for unknown; first name it \
         as next_secret at all of them"
    )]
    SecretNotKnown,
    /// A secret was left out while tokens that nobody knows are adopted.
    #[error(
        "tokens in Redis are keyed by a secret that is named no more, and with unseen = \"adopt\" those of ended sessions would \
         be taken for new ones: name it in [store] previous_secrets until adopt_until is over"
    )]
    SecretLeftOut,
    /// What was to be carried into it is not all there.
    #[error(
        "`tenure store import` is under way in Redis, or broke off: wait for it, or remove the keys that begin with {0:?} and \
         take the lines in again"
    )]
    HalfTakenIn(String),
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
    /// Opens the store. The book follows from the facts that it keeps; from other ones too, where they turn out to be others
    /// before the first session is read.
    ///
    /// # Errors
    /// [`RedisFault`], or what `book` says of the facts.
    pub fn open<E: From<RedisFault>>(
        opening: &RedisOpening<'_>,
        book: impl FnMut(&HashMap<String, Vec<u8>>) -> Result<Book, E>,
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
        mut book: impl FnMut(&HashMap<String, Vec<u8>>) -> Result<Book, E>,
        observer: Arc<dyn Observer>,
    ) -> Result<RedisOpened, E> {
        // On a thread of its own: whoever opens may be on a runtime, which must not be waited on from within.
        let found = std::thread::scope(|scope| {
            let looking = scope.spawn(|| runtime()?.block_on(look(opening, pace)));
            looking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let clock = opening.clock.shifted(found.offset_ms);
        let facts = found.facts.values();
        let first_book = book(&facts)?;
        let journal = Journal::new();
        let (sharing, asked) = Sharing::new();
        let audit = Audit::shared(Arc::clone(&journal));
        let (journaled, sharing) = (Some(Arc::clone(&journal)), Some(sharing));
        // What others know is read at leisure.
        let backing = Backing { journal: journaled, audit, sharing, expected: 0 };
        let table = Arc::new(Table::with_backing(first_book, observer, backing));
        let replica = Replica::new(Arc::clone(&table), Arc::clone(&journal), &found.secrets, found.facts);
        let replica = Arc::new(replica);
        let settings = opening.settings.clone();
        // Another server may lack what was written to the one before: that is marked before anything is taken over.
        let marking = Arc::clone(&replica);
        let server = Arc::new(Server::new(move || marking.mark_all()));
        let port = Ports { settings, pace, server, replica: Arc::clone(&replica), clock: clock.clone() };
        let (stop, stopped) = oneshot::channel();
        let follower = Follower {
            ports: port.clone(),
            asked,
            trouble: Arc::clone(&opening.trouble),
            patience: opening.patience,
            stopped,
        };
        let (opener, told) = Opener::waiting(&replica);
        let follower = spawn("store-follow", move |runtime| follower.run(runtime, opener))?;
        let mut facts = facts;
        while let Ok((newer, taken)) = told.recv() {
            table.set_book(book(&newer)?, clock.now());
            facts = newer;
            drop(taken);
        }
        let writer = spawn("store", {
            let (journal, trouble) = (Arc::clone(&journal), Arc::clone(&opening.trouble));
            move |runtime| {
                let _guard = runtime.enter();
                Writer::new(port.open(), trouble).run(&journal, runtime);
            }
        })?;
        let redis =
            Self { journal, writer: Some(writer), follower: Some(follower), stop: Some(stop), replica };
        Ok(RedisOpened { table, redis, secrets: found.secrets, clock, facts })
    }

    /// From now on `hear` is told when facts are other ones than before; and at once, for they may be already.
    pub fn on_facts(&self, hear: Box<OnFacts>) {
        self.replica.facts.on_change(Some(hear));
        self.replica.facts.tell();
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
    server: Arc<Server>,
    replica: Arc<Replica>,
    clock: Clock,
}

impl Ports {
    fn open(&self) -> Port {
        Port {
            link: Link::new(&self.settings, self.pace, Arc::clone(&self.server)),
            pace: self.pace,
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
    fn run(self, runtime: &tokio::runtime::Runtime, opener: Opener) {
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(runtime, async {
            let port = Rc::new(self.ports.open());
            let pace = self.ports.pace;
            let watch = Watch::new(Rc::clone(&port), pace, Arc::clone(&self.trouble), self.patience);
            watch.begin().await;
            drop(opener);
            tokio::task::spawn_local(Reader::new(Rc::clone(&port)).run(self.asked));
            tokio::task::spawn_local(watch.run());
            let _stopped = self.stopped.await;
            Watch::leave(&port).await;
        });
    }
}

/// What the store says at the start.
struct Found {
    secrets: Secrets,
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
    let (link, layout) = (
        Link::new(opening.settings, pace, Server::unwatched().into()),
        Layout::new(&opening.settings.prefix),
    );
    in_time(async || look_once(opening, pace, &link, &layout).await).await
}

/// Tries it again for a while where the store is away.
async fn in_time<T>(look: impl AsyncFn() -> Result<T, Unseen>) -> Result<T, RedisFault> {
    let mut tried = 1;
    loop {
        match look().await {
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

async fn look_once(
    opening: &RedisOpening<'_>,
    pace: Pace,
    link: &Link,
    layout: &Layout,
) -> Result<Found, Unseen> {
    link.call(&::redis::cmd("PING")).await?;
    if link.call(::redis::cmd("GET").arg(layout.whole(TAKING_IN))).await? != Value::Nil {
        return Err(Unseen::ForGood(RedisFault::HalfTakenIn(opening.settings.prefix.clone())));
    }
    let secrets = match &opening.secrets {
        Some(secrets) => secrets.clone(),
        None => kept_secret(link, layout).await?.into(),
    };
    let offset_ms = clock_offset(link, &opening.clock).await?.unwrap_or(0);
    let clock = opening.clock.shifted(offset_ms);
    check_secrets(link, layout, &secrets, (&clock, pace.gone_after())).await?;
    let facts = Facts::new(facts::read(link, layout).await?);
    Ok(Found { secrets, offset_ms, facts })
}

/// The secret that the store keeps; made by the first gateway.
async fn kept_secret(link: &Link, layout: &Layout) -> Result<[u8; 32], Unseen> {
    tracing::warn!(
        "[store] secret is not set: the store keeps one, and whoever reads the store can open the vault"
    );
    let name = layout.whole(SECRET);
    let new = STANDARD.encode(*new_secret());
    link.call(::redis::cmd("SET").arg(&name).arg(new).arg("NX")).await?;
    let kept = found_secret(link, layout).await?;
    let none = || RedisFault::Unusable(format!("{} holds no secret", String::from_utf8_lossy(&name)));
    kept.ok_or_else(|| Unseen::ForGood(none()))
}

/// The secret that the store keeps, if it does. As if a file held it, so that it can be carried into one.
async fn found_secret(link: &Link, layout: &Layout) -> Result<Option<[u8; 32]>, LinkFault> {
    let answer = link.call(::redis::cmd("GET").arg(layout.whole(SECRET))).await?;
    let kept = bytes(&answer).and_then(|text| STANDARD.decode(text).ok());
    Ok(kept.filter(|kept| kept.len() == SECRET_BYTES).map(|kept| derive_key(&kept)))
}

/// Gateways with different secrets would take each other's sessions for unknown ones.
async fn check_secrets(
    link: &Link,
    layout: &Layout,
    secrets: &Secrets,
    (clock, gone_after): (&Clock, Span),
) -> Result<(), Unseen> {
    let name = layout.whole(KEYED_BY);
    link.call(::redis::cmd("SET").arg(&name).arg(proof(&secrets.current).as_slice()).arg("NX")).await?;
    let answer = link.call(::redis::cmd("GET").arg(&name)).await?;
    let known = bytes(&answer).unwrap_or_default();
    let keyed_by = secrets.keyed_by(known).map_err(|fault| match fault {
        SecretFault::Other => Unseen::ForGood(RedisFault::OtherSecret),
        SecretFault::LeftOut => Unseen::ForGood(RedisFault::SecretLeftOut),
    })?;
    if secrets.takes_over(known) {
        expect_known(link, layout, secrets, (clock, gone_after)).await?;
    }
    if keyed_by != known {
        // Gateways that start together say the same.
        link.call(::redis::cmd("SET").arg(&name).arg(keyed_by)).await?;
    }
    Ok(())
}

/// All gateways have to know the secret before the first one uses it. One that died is waited for until it is taken for gone.
async fn expect_known(
    link: &Link,
    layout: &Layout,
    secrets: &Secrets,
    (clock, gone_after): (&Clock, Span),
) -> Result<(), Unseen> {
    for tried in 0..=TRIES_AT_START {
        let since = clock.now().minus(gone_after).unix_ms().to_string();
        let mut ask = ::redis::cmd("ZRANGEBYSCORE");
        ask.arg(layout.whole("gateways")).arg(since).arg("+inf");
        let Value::Array(names) = link.call(&ask).await? else { return Err(WriteFault::Answer.into()) };
        let mut is_known = true;
        for name in names.iter().filter_map(bytes) {
            let accepts = link.call(::redis::cmd("GET").arg(layout.accepts(name))).await?;
            is_known &= bytes(&accepts).is_some_and(|proofs| secrets.is_known_to(proofs));
        }
        if is_known {
            return Ok(());
        }
        if tried == 0 {
            tracing::warn!(
                "gateways are running that do not know the new [store] secret; they may be gone in a moment"
            );
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Err(Unseen::ForGood(RedisFault::SecretNotKnown))
}

/// How far the store's clock is ahead of this gateway's, in milliseconds; `None` where this gateway's is not the machine's.
async fn clock_offset(link: &Link, clock: &Clock) -> Result<Option<i64>, WriteFault> {
    if clock.is_manual() {
        return Ok(None);
    }
    let before = clock.now().unix_ms();
    let answer = link.call(&redis::cmd("TIME")).await?;
    let after = clock.now().unix_ms();
    let Value::Array(parts) = answer else { return Err(WriteFault::Answer) };
    let [seconds, micros] = parts.as_slice() else { return Err(WriteFault::Answer) };
    let (Some(seconds), Some(micros)) = (number(seconds), number(micros)) else {
        return Err(WriteFault::Answer);
    };
    let there = i64::try_from(seconds * 1000 + micros / 1000).unwrap_or(i64::MAX);
    let here = i64::try_from(before.midpoint(after)).unwrap_or(i64::MAX);
    Ok(Some(there - here))
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
