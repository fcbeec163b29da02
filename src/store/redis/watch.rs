//! Follows what other gateways do: by what they announce, and by the logs of the buckets, so that an announcement that was
//! lost costs seconds, not safety. Notices that a server lost what it held, and brings it together again.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::clock_offset;
use super::layout::{Announcement, BUCKETS, Home, Layout, audit_entry, bytes, number};
use super::link::{Link, LinkFault, LuaScript};
use super::writer::{Port, WriteFault};
use crate::clock::Stopwatch;
use crate::session::{Moment, Span};
use crate::store::Trouble;
use crate::store::journal::Journal;

/// Between two beats: each says that this gateway is there, and looks whether the store is what it was.
const BEAT: Duration = Duration::from_millis(500);

/// Every so many beats the logs are read: well within the 5 s in which a lost announcement is made good (R21).
const BEATS_TO_A_POLL: u64 = 6;

/// Every so many polls what belongs to no session any more is forgotten; it takes a look at every session.
const POLLS_TO_A_PRUNE: u64 = 20;

/// A gateway whose last beat is this old is taken for gone where the store waits for all of them.
pub(super) const GONE_AFTER: Span = Span::from_secs(10);

/// The longest that a start waits for the store's epoch, and until it has read what is there.
const BEGIN_WITHIN_US: u64 = 5_000_000;

/// Gateways that are gone for this long are forgotten.
const FORGOTTEN_AFTER: Span = Span::from_secs(24 * 3600);

/// The logs go back by a minute; who has not read them for this long looks at everything anew.
const LOG_GOES_BACK_US: u64 = 45_000_000;

/// How far this machine's clock may be from the store's (R23).
const MAX_OFFSET_MS: i64 = 200;

static HOMES: LuaScript = LuaScript::new(include_str!("homes.lua"));
static POLL: LuaScript = LuaScript::new(include_str!("poll.lua"));

/// How many buckets' epochs are looked at with each beat: all of them within 4 s.
const LOOKED_AT_ONCE: u8 = 32;

/// How many entries of the audit are read in one go.
const AUDIT_AT_ONCE: usize = 1000;

/// Called when another gateway set policies: with the facts as the store has them.
pub type OnFacts = dyn Fn(HashMap<String, Vec<u8>>) + Send + Sync;

pub(super) struct Watch {
    port: Rc<Port>,
    journal: Arc<Journal>,
    trouble: Arc<Trouble>,
    /// How long a store without an epoch waits for gateways that may know what was in it.
    patience: Span,
    /// The last entry read of each bucket's log.
    positions: RefCell<Vec<String>>,
    polled: Cell<Option<Stopwatch>>,
    /// How often they were read.
    polls: Cell<u64>,
    /// The connection that everything was followed over.
    generation: Cell<u64>,
    /// All that is there has been read once, or is being read.
    reads: Cell<bool>,
    /// Since when the store has been without its epoch; and the epoch that was last known.
    without_epoch: Cell<Option<Stopwatch>>,
    known_epoch: Cell<u64>,
    /// The bucket whose epoch is looked at next.
    looked_at: Cell<u8>,
    /// The gateways that beat lately, and when that was last seen: a server that lost its list does not make them forgotten.
    others: RefCell<HashMap<Vec<u8>, Stopwatch>>,
    facts: RefCell<HashMap<String, Vec<u8>>>,
    /// The last entry of the audit that was taken in.
    audited: RefCell<String>,
    on_facts: Arc<parking_lot::Mutex<Option<Box<OnFacts>>>>,
}

impl Watch {
    pub(super) fn new(
        port: Rc<Port>,
        journal: Arc<Journal>,
        trouble: Arc<Trouble>,
        patience: Span,
        on_facts: Arc<parking_lot::Mutex<Option<Box<OnFacts>>>>,
    ) -> Rc<Self> {
        let known_epoch = Cell::new(port.replica.epoch());
        let generation = Cell::new(port.link.generation());
        Rc::new(Self {
            port,
            journal,
            trouble,
            patience,
            positions: RefCell::new(vec!["0".to_owned(); usize::from(BUCKETS)]),
            polled: Cell::new(None),
            polls: Cell::new(0),
            generation,
            reads: Cell::new(false),
            without_epoch: Cell::new(None),
            known_epoch,
            looked_at: Cell::new(0),
            others: RefCell::default(),
            facts: RefCell::default(),
            audited: RefCell::new("0".to_owned()),
            on_facts,
        })
    }

    /// Waits until the store's word can be taken, and all users' sessions are known. At once where it has an epoch; one that
    /// is new or has lost what it held is given one first. Not for ever: a gateway that serves what it can is better than none.
    pub(super) async fn begin(self: &Rc<Self>) {
        let began = Stopwatch::start();
        self.trouble.is_reading(true);
        self.beat_once(false).await;
        let is_ready = || self.port.replica.epoch() != 0 && self.trouble.has_read_all();
        while !is_ready() && began.elapsed_us() < BEGIN_WITHIN_US {
            tokio::time::sleep(BEAT / 10).await;
            // What is being read is not to wait behind beats.
            if self.port.replica.epoch() == 0 || !self.reads.get() {
                self.beat_once(false).await;
            }
        }
    }

    /// Beats until the task is dropped.
    pub(super) async fn run(self: Rc<Self>) {
        tokio::task::spawn_local(Rc::clone(&self).listen());
        for beats in 0_u64.. {
            self.beat_once(beats % BEATS_TO_A_POLL == 0).await;
            tokio::time::sleep(BEAT).await;
        }
    }

    async fn beat_once(self: &Rc<Self>, polls: bool) {
        let now = self.port.clock.now();
        match self.beat(polls, now).await {
            Ok(()) => self.trouble.is_back(),
            Err(why) => self.trouble.is_away(&why.to_string(), now),
        }
    }

    /// This gateway leaves in order: nobody waits for it.
    pub(super) async fn leave(port: &Port) {
        let mut leave = redis::cmd("ZREM");
        leave.arg(port.layout.whole("gateways")).arg(port.replica.name.as_slice());
        let _it_is_forgotten_in_time = port.link.call(&leave).await;
    }

    async fn beat(self: &Rc<Self>, polls: bool, now: Moment) -> Result<(), WriteFault> {
        self.register(now).await?;
        let epoch = self.epoch().await?;
        if epoch == 0 {
            return self.bring_together().await;
        }
        self.without_epoch.set(None);
        let is_reconnected = self.port.link.generation() != self.generation.get();
        // One that opened the epoch itself has not read what the others stored.
        if epoch != self.port.replica.epoch() || is_reconnected || !self.reads.get() {
            let generation = self.port.link.generation();
            self.start_anew(epoch).await?;
            self.generation.set(generation);
        }
        if polls {
            self.poll().await?;
        }
        self.follow_audit().await
    }

    /// Takes in what all gateways noted.
    async fn follow_audit(&self) -> Result<(), WriteFault> {
        let Port { link, layout, replica, .. } = &*self.port;
        loop {
            let after = format!("({}", self.audited.borrow());
            let mut ask = redis::cmd("XRANGE");
            ask.arg(layout.whole("audit")).arg(after).arg("+").arg("COUNT").arg(AUDIT_AT_ONCE);
            let Value::Array(entries) = link.call(&ask).await? else { return Err(WriteFault::Answer) };
            for entry in &entries {
                let Some((id, number, line)) = audit_entry(entry) else { continue };
                if let Ok(found) = serde_json::from_slice(line) {
                    replica.table.audit.follow(number, found);
                }
                *self.audited.borrow_mut() = id;
            }
            if entries.len() < AUDIT_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Another server, or one that was brought together without this gateway: it gets everything that is known here, and
    /// everything that is known there is followed.
    async fn start_anew(self: &Rc<Self>, epoch: u64) -> Result<(), WriteFault> {
        let mut homes: HashSet<Home> = self.port.replica.homes().into_iter().collect();
        self.port.replica.set_epoch(epoch);
        self.known_epoch.set(epoch);
        self.port.replica.mark_all();
        self.read_facts().await?;
        self.reads.set(true);
        let watch = Rc::clone(self);
        // Beside the beats: there may be a million.
        tokio::task::spawn_local(async move {
            let followed = async {
                homes.extend(watch.homes_of_users().await?);
                watch.follow_all(homes).await
            };
            match followed.await {
                Ok(()) => watch.trouble.is_reading(false),
                Err(why) => {
                    tracing::warn!(%why, "not all sessions could be read; they are read again");
                    watch.reads.set(false);
                }
            }
        });
        Ok(())
    }

    /// Where all users' sessions are: every gateway knows them, to list them and to end them.
    async fn homes_of_users(&self) -> Result<Vec<Home>, WriteFault> {
        let now = self.port.clock.now().unix_ms().to_string().into_bytes();
        let mut homes = Vec::new();
        for bucket in 0..=u8::MAX {
            let keys = [self.port.layout.homes(bucket)];
            let Value::Array(names) = self.port.link.eval(&HOMES, &keys, std::slice::from_ref(&now)).await?
            else {
                return Err(WriteFault::Answer);
            };
            homes.extend(names.iter().filter_map(|name| Some(Home(bytes(name)?.try_into().ok()?))));
        }
        Ok(homes)
    }

    async fn follow_all(&self, homes: impl IntoIterator<Item = Home>) -> Result<(), WriteFault> {
        let mut tasks = tokio::task::JoinSet::new();
        let mut outcome = Ok(());
        for home in homes {
            let port = Rc::clone(&self.port);
            tasks.spawn_local(async move { port.follow(home).await });
            if tasks.len() >= 64 {
                let followed = tasks.join_next().await;
                outcome = outcome.and(followed.and_then(Result::ok).unwrap_or(Ok(())));
            }
        }
        while let Some(followed) = tasks.join_next().await {
            outcome = outcome.and(followed.unwrap_or(Ok(())));
        }
        outcome
    }

    /// Says that this gateway is there, and sees who else is.
    async fn register(&self, now: Moment) -> Result<(), WriteFault> {
        let Port { link, layout, replica, .. } = &*self.port;
        let gateways = layout.whole("gateways");
        let at = now.unix_ms().to_string();
        let accepts = layout.accepts(&replica.name);
        let mut set = redis::cmd("SET");
        // ORDER: before its name, by which others look for it.
        link.call(set.arg(accepts).arg(&replica.accepts).arg("PX").arg(GONE_AFTER.as_ms() * 2)).await?;
        link.call(redis::cmd("ZADD").arg(&gateways).arg(&at).arg(replica.name.as_slice())).await?;
        let since = now.minus(GONE_AFTER).unix_ms().to_string();
        let answer = link.call(redis::cmd("ZRANGEBYSCORE").arg(&gateways).arg(&since).arg("+inf")).await?;
        let Value::Array(names) = answer else { return Err(WriteFault::Answer) };
        self.see(names.iter().filter_map(bytes));
        let before = now.minus(FORGOTTEN_AFTER).unix_ms().to_string();
        link.call(redis::cmd("ZREMRANGEBYSCORE").arg(&gateways).arg("-inf").arg(&before)).await?;
        Ok(())
    }

    /// These gateways beat lately.
    fn see<'a>(&self, names: impl Iterator<Item = &'a [u8]>) {
        let mut others = self.others.borrow_mut();
        for name in names.filter(|name| *name != self.port.replica.name) {
            others.insert(name.to_vec(), Stopwatch::start());
        }
        others.retain(|_, seen| seen.elapsed_us() < GONE_AFTER.as_ms() * 1000);
    }

    /// The store's epoch; 0 where a bucket has none, or an older one than is known. While all is well a few buckets are
    /// looked at with each beat, in turn: who reads or writes in another one looks at that one's.
    async fn epoch(&self) -> Result<u64, WriteFault> {
        let known = self.port.replica.epoch();
        let first = self.looked_at.get();
        self.looked_at.set(first.wrapping_add(LOOKED_AT_ONCE));
        if known != 0 {
            let some = (0..LOOKED_AT_ONCE).map(|n| first.wrapping_add(n));
            if self.lowest_epoch(some).await? == known {
                return Ok(known);
            }
        }
        let lowest = self.lowest_epoch(0..=u8::MAX).await?;
        Ok(if lowest < self.known_epoch.get() { 0 } else { lowest })
    }

    async fn lowest_epoch(&self, buckets: impl Iterator<Item = u8>) -> Result<u64, WriteFault> {
        let mut lowest = u64::MAX;
        let mut tasks = tokio::task::JoinSet::new();
        for bucket in buckets {
            let port = Rc::clone(&self.port);
            tasks.spawn_local(async move {
                port.link.call(redis::cmd("GET").arg(port.layout.epoch(bucket))).await
            });
        }
        while let Some(answer) = tasks.join_next().await {
            let answer = answer.unwrap_or_else(|_| Err(LinkFault::Away("a task failed".to_owned())))?;
            lowest = lowest.min(number(&answer).unwrap_or(0));
        }
        Ok(lowest)
    }

    /// The store is without its epoch: it is new, or a server lost what it held. Until every gateway has stored what it
    /// knows, nobody takes the store's word that something is unknown (R23).
    async fn bring_together(&self) -> Result<(), WriteFault> {
        let Port { link, layout, replica, .. } = &*self.port;
        let since = match self.without_epoch.get() {
            Some(since) => since,
            None => {
                tracing::warn!("the store has lost what it held, or is new: gateways store what they know");
                replica.set_epoch(0);
                replica.mark_all();
                let since = Stopwatch::start();
                self.without_epoch.set(Some(since));
                since
            }
        };
        if self.journal.is_idle() {
            let merged = layout.whole("merged");
            link.call(redis::cmd("SADD").arg(&merged).arg(replica.name.as_slice())).await?;
            link.call(redis::cmd("PEXPIRE").arg(&merged).arg(60_000)).await?;
            let Value::Array(names) = link.call(redis::cmd("SMEMBERS").arg(&merged)).await? else {
                return Err(WriteFault::Answer);
            };
            let merged: HashSet<&[u8]> = names.iter().filter_map(bytes).collect();
            let all = self.others.borrow().keys().all(|other| merged.contains(other.as_slice()));
            let waited = Span::from_ms(since.elapsed_us() / 1000);
            if waited >= self.patience && (all || waited >= GONE_AFTER) {
                return self.open_epoch().await;
            }
        }
        Err(WriteFault::Epoch)
    }

    async fn open_epoch(&self) -> Result<(), WriteFault> {
        let Port { link, layout, replica, .. } = &*self.port;
        let epoch = self.known_epoch.get() + 1;
        for bucket in 0..=u8::MAX {
            link.call(redis::cmd("SET").arg(layout.epoch(bucket)).arg(epoch)).await?;
        }
        link.call(redis::cmd("DEL").arg(layout.whole("merged"))).await?;
        self.known_epoch.set(epoch);
        replica.set_epoch(epoch);
        self.generation.set(link.generation());
        self.without_epoch.set(None);
        self.write_facts().await?;
        tracing::info!(epoch, "the store holds again what the gateways know");
        Ok(())
    }

    /// What was announced and may not have been heard.
    async fn poll(&self) -> Result<(), WriteFault> {
        let late = self.polled.get().is_none_or(|polled| polled.elapsed_us() > LOG_GOES_BACK_US);
        let began = Stopwatch::start();
        let mut concerned = HashSet::new();
        for bucket in 0..=u8::MAX {
            self.poll_bucket(bucket, &mut concerned).await?;
        }
        if late && self.polled.get().is_some() {
            concerned.extend(self.port.replica.homes());
        }
        self.follow_all(concerned).await?;
        self.read_facts().await?;
        self.check_clock().await?;
        let polls = self.polls.get();
        if polls.is_multiple_of(POLLS_TO_A_PRUNE) {
            self.port.replica.prune();
        }
        self.polls.set(polls + 1);
        self.polled.set(Some(began));
        Ok(())
    }

    async fn poll_bucket(&self, bucket: u8, concerned: &mut HashSet<Home>) -> Result<(), WriteFault> {
        let Port { link, layout, .. } = &*self.port;
        let keys = [layout.log(bucket), layout.epoch(bucket)];
        let position = self.positions.borrow().get(usize::from(bucket)).cloned().unwrap_or_default();
        let Value::Array(items) = link.eval(&POLL, &keys, &[position.into_bytes()]).await? else {
            return Err(WriteFault::Answer);
        };
        let entries = items.get(1..).unwrap_or_default();
        for [id, announcement] in entries.as_chunks::<2>().0 {
            if let Some(announcement) = bytes(announcement).and_then(Announcement::read) {
                concerned.extend(self.concerns(&announcement));
            }
            if let (Some(id), Some(slot)) =
                (bytes(id), self.positions.borrow_mut().get_mut(usize::from(bucket)))
            {
                *slot = String::from_utf8_lossy(id).into_owned();
            }
        }
        Ok(())
    }

    /// Where to look, if an announcement is of interest here.
    fn concerns(&self, announcement: &Announcement) -> Option<Home> {
        let replica = &self.port.replica;
        let of_interest = announcement.by != replica.name
            && (announcement.is_of_user
                || replica.follows(announcement.home)
                || announcement.ids.iter().any(|id| replica.table.by_id(*id).is_some()));
        of_interest.then_some(announcement.home)
    }

    /// Hears what others announce, at once.
    async fn listen(self: Rc<Self>) {
        loop {
            if let Ok(mut messages) = self.port.link.listen(&self.port.layout.channel()).await {
                while let Some(message) = messages.next().await {
                    self.hear(&message).await;
                }
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    async fn hear(self: &Rc<Self>, message: &[u8]) {
        if message.len() == self.port.replica.name.len() {
            let _read_at_the_next_poll = self.read_facts().await;
            return;
        }
        let Some(home) = Announcement::read(message).and_then(|announced| self.concerns(&announced)) else {
            return;
        };
        let watch = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let _read_at_the_next_poll = watch.port.follow(home).await;
        });
    }

    /// Policies that were set through another gateway.
    async fn read_facts(&self) -> Result<(), WriteFault> {
        let facts = read_facts(&self.port.link, &self.port.layout).await?;
        if *self.facts.borrow() == facts {
            return Ok(());
        }
        self.facts.borrow_mut().clone_from(&facts);
        if let Some(hear) = &*self.on_facts.lock() {
            hear(facts);
        }
        Ok(())
    }

    async fn write_facts(&self) -> Result<(), WriteFault> {
        let facts = self.facts.borrow().clone();
        for (name, value) in facts {
            let mut set = redis::cmd("HSETNX");
            set.arg(self.port.layout.whole("facts")).arg(name).arg(value);
            self.port.link.call(&set).await?;
        }
        Ok(())
    }

    async fn check_clock(&self) -> Result<(), WriteFault> {
        if let Some(offset) = clock_offset(&self.port.link, &self.port.clock).await? {
            self.trouble.is_off(offset.abs() > MAX_OFFSET_MS, offset);
        }
        Ok(())
    }
}

/// What is kept under names.
pub(super) async fn read_facts(link: &Link, layout: &Layout) -> Result<HashMap<String, Vec<u8>>, WriteFault> {
    let answer = link.call(redis::cmd("HGETALL").arg(layout.whole("facts"))).await?;
    let items = match answer {
        Value::Array(items) => items,
        Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
        _ => return Err(WriteFault::Answer),
    };
    let pair = |[name, value]: &[Value; 2]| {
        Some((String::from_utf8(bytes(name)?.to_vec()).ok()?, bytes(value)?.to_vec()))
    };
    Ok(items.as_chunks::<2>().0.iter().filter_map(pair).collect())
}
