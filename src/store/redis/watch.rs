//! Follows what other gateways do: by what they announce, and by the logs of the buckets, so that an announcement that was
//! lost costs seconds, not safety.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use futures_util::StreamExt;
use redis::Value;

use super::clock_offset;
use super::layout::{Announcement, BUCKETS, Home, audit_entry, bytes};
use super::link::LuaScript;
use super::pace::{Pace, has_passed};
use super::port::{Port, WriteFault};
use crate::clock::Stopwatch;
use crate::session::{Moment, Span};
use crate::store::Trouble;

/// Every so many beats the logs are read: well within the 5 s in which a lost announcement is made good (R21).
const BEATS_TO_A_POLL: u64 = 6;

/// Every so many polls what belongs to no session any more is forgotten; it takes a look at every session.
const POLLS_TO_A_PRUNE: u64 = 20;

/// Gateways that are gone for this long are forgotten.
const FORGOTTEN_AFTER: Span = Span::from_secs(24 * 3600);

/// The logs go back by a minute; who has not read them for this long looks at everything anew.
const LOG_GOES_BACK_US: u64 = 45_000_000;

/// How far this machine's clock may be from the store's (R23).
const MAX_OFFSET_MS: i64 = 200;

static HOMES: LuaScript = LuaScript::new(include_str!("homes.lua"));
static POLL: LuaScript = LuaScript::new(include_str!("poll.lua"));

/// How many buckets one script looks at: few enough to be done in a moment.
const BUCKETS_AT_ONCE: usize = 16;

/// How many homes are followed at once.
const AT_ONCE: usize = 64;

/// How many entries of the audit are read in one go.
const AUDIT_AT_ONCE: usize = 1000;

pub(super) struct Watch {
    pub(super) port: Rc<Port>,
    pub(super) pace: Pace,
    trouble: Arc<Trouble>,
    /// How long a store without an epoch waits for gateways that may know what was in it.
    pub(super) patience: Span,
    /// The last entry read of each bucket's log.
    positions: RefCell<Vec<String>>,
    polled: Cell<Option<Stopwatch>>,
    /// How often they were read.
    polls: Cell<u64>,
    /// Homes that something was announced of, and that were not followed since.
    concerned: RefCell<HashSet<Home>>,
    /// The server that everything was followed of.
    pub(super) generation: Cell<u64>,
    /// All that is there has been read once, or is being read.
    reads: Cell<bool>,
    /// Since when the store has been without its epoch; and the epoch that was last known.
    pub(super) without_epoch: Cell<Option<Stopwatch>>,
    pub(super) known_epoch: Cell<u64>,
    /// The bucket whose epoch is looked at next.
    pub(super) looked_at: Cell<u8>,
    /// The gateways that beat lately, and when that was last seen: a server that lost its list does not make them forgotten.
    pub(super) others: RefCell<HashMap<Vec<u8>, Stopwatch>>,
    /// The last entry of the audit that was taken in.
    audited: RefCell<String>,
}

impl Watch {
    pub(super) fn new(port: Rc<Port>, pace: Pace, trouble: Arc<Trouble>, patience: Span) -> Rc<Self> {
        let known_epoch = Cell::new(port.replica.epoch());
        let generation = Cell::new(port.link.generation());
        Rc::new(Self {
            port,
            pace,
            trouble,
            patience,
            positions: RefCell::new(from_the_beginning()),
            polled: Cell::new(None),
            polls: Cell::new(0),
            concerned: RefCell::default(),
            generation,
            reads: Cell::new(false),
            without_epoch: Cell::new(None),
            known_epoch,
            looked_at: Cell::new(0),
            others: RefCell::default(),
            audited: RefCell::new("0".to_owned()),
        })
    }

    /// Waits until the store's word can be taken, and all users' sessions are known. At once where it has an epoch; one that
    /// is new or has lost what it held is given one first. Not for ever: a gateway that serves what it can is better than none.
    pub(super) async fn begin(self: &Rc<Self>) {
        let began = Stopwatch::start();
        self.trouble.is_reading(true);
        let is_registered = self.register(self.port.clock.now()).await.is_ok();
        if is_registered && !self.others.borrow().is_empty() {
            // The server may have lost something a moment ago: then the others notice with their next beat, and put it back.
            tokio::time::sleep(self.pace.noticed()).await;
        }
        self.beat_once(false).await;
        let is_ready = || self.port.replica.epoch() != 0 && self.trouble.has_read_all();
        while !is_ready() && !has_passed(began, self.pace.beginning()) {
            tokio::time::sleep(self.pace.beat() / 10).await;
            // What is being read is not to wait behind beats.
            if self.port.replica.epoch() == 0 || !self.reads.get() {
                self.beat_once(false).await;
            }
        }
    }

    /// Beats until the task is dropped.
    pub(super) async fn run(self: Rc<Self>) {
        tokio::task::spawn_local(Rc::clone(&self).listen());
        let mut is_well = true;
        for beats in 0_u64.. {
            // After an outage all is well only once what was announced meanwhile was heard.
            is_well = self.beat_once(!is_well || beats % BEATS_TO_A_POLL == 0).await;
            tokio::time::sleep(self.pace.beat()).await;
        }
    }

    /// Returns whether all is well.
    async fn beat_once(self: &Rc<Self>, polls: bool) -> bool {
        let now = self.port.clock.now();
        let beaten = self.beat(polls, now).await;
        match &beaten {
            Ok(()) => self.trouble.is_back(),
            Err(why) => self.trouble.is_away(&why.to_string(), now),
        }
        beaten.is_ok()
    }

    /// This gateway leaves in order: nobody waits for it.
    pub(super) async fn leave(port: &Port) {
        let mut leave = redis::cmd("ZREM");
        leave.arg(port.layout.whole("gateways")).arg(port.replica.name.as_slice());
        let _it_is_forgotten_in_time = port.link.call(&leave).await;
    }

    async fn beat(self: &Rc<Self>, polls: bool, now: Moment) -> Result<(), WriteFault> {
        self.port.link.look().await?;
        self.register(now).await?;
        let epoch = self.epoch().await?;
        if epoch == 0 {
            return self.bring_together().await;
        }
        self.without_epoch.set(None);
        let is_another = self.port.link.generation() != self.generation.get();
        let is_late = self.polled.get().is_some_and(|polled| polled.elapsed_us() > LOG_GOES_BACK_US);
        // One that opened the epoch itself has not read what the others stored.
        if epoch != self.port.replica.epoch() || is_another || is_late || !self.reads.get() {
            let generation = self.port.link.generation();
            self.start_anew(epoch).await?;
            self.generation.set(generation);
        }
        self.port.replica.facts.follow(&self.port).await?;
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
        let replica = &self.port.replica;
        let mut homes: HashSet<Home> = replica.versions.homes().into_iter().collect();
        if replica.epoch() != epoch {
            replica.set_epoch(epoch);
            self.known_epoch.set(epoch);
            // With another server all was marked when it was met.
            replica.mark_all();
        }
        *self.positions.borrow_mut() = from_the_beginning();
        replica.facts.follow(&self.port).await?;
        self.reads.set(true);
        self.polled.set(Some(Stopwatch::start()));
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
        let Port { link, layout, clock, .. } = &*self.port;
        let now = [clock.now().unix_ms().to_string().into_bytes()];
        let lists: Vec<Vec<u8>> = (0..=u8::MAX).map(|bucket| layout.homes(bucket)).collect();
        let mut homes = Vec::new();
        for lists in lists.chunks(link.at_once(BUCKETS_AT_ONCE)) {
            let Value::Array(names) = link.eval(&HOMES, lists, &now).await? else {
                return Err(WriteFault::Answer);
            };
            homes.extend(names.iter().filter_map(|name| Some(Home(bytes(name)?.try_into().ok()?))));
        }
        Ok(homes)
    }

    async fn follow_all(&self, homes: impl IntoIterator<Item = Home>) -> Result<(), WriteFault> {
        let follow = |home| async move {
            self.port.follow(home).await?;
            self.concerned.borrow_mut().remove(&home);
            Ok(())
        };
        let mut following =
            futures_util::stream::iter(homes.into_iter().map(follow)).buffer_unordered(AT_ONCE);
        let mut outcome = Ok(());
        while let Some(followed) = following.next().await {
            outcome = outcome.and(followed);
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
        link.call(set.arg(accepts).arg(&replica.accepts).arg("PX").arg(self.pace.gone_after().as_ms() * 2))
            .await?;
        link.call(redis::cmd("ZADD").arg(&gateways).arg(&at).arg(replica.name.as_slice())).await?;
        let since = now.minus(self.pace.gone_after()).unix_ms().to_string();
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
        others.retain(|_, seen| !has_passed(*seen, self.pace.gone_after().to_std()));
        self.port.replica.set_alone(others.is_empty());
    }

    /// What was announced and may not have been heard.
    async fn poll(&self) -> Result<(), WriteFault> {
        let began = Stopwatch::start();
        let all: Vec<u8> = (0..=u8::MAX).collect();
        for buckets in all.chunks(self.port.link.at_once(BUCKETS_AT_ONCE)) {
            self.poll_buckets(buckets).await?;
        }
        self.polled.set(Some(began));
        let concerned = self.concerned.borrow().clone();
        self.follow_all(concerned).await?;
        self.check_clock().await?;
        let polls = self.polls.get();
        if polls.is_multiple_of(POLLS_TO_A_PRUNE) {
            self.port.replica.prune();
        }
        self.polls.set(polls + 1);
        Ok(())
    }

    async fn poll_buckets(&self, buckets: &[u8]) -> Result<(), WriteFault> {
        let Port { link, layout, .. } = &*self.port;
        let logs: Vec<Vec<u8>> = buckets.iter().map(|bucket| layout.log(*bucket)).collect();
        let position = |bucket: &u8| {
            let positions = self.positions.borrow();
            positions.get(usize::from(*bucket)).map_or_else(|| b"0".to_vec(), |id| id.clone().into_bytes())
        };
        let positions: Vec<Vec<u8>> = buckets.iter().map(position).collect();
        let Value::Array(found) = link.eval(&POLL, &logs, &positions).await? else {
            return Err(WriteFault::Answer);
        };
        for (bucket, entries) in buckets.iter().zip(&found) {
            let Value::Array(entries) = entries else { return Err(WriteFault::Answer) };
            for [id, announcement] in entries.as_chunks::<2>().0 {
                if let Some(announcement) = bytes(announcement).and_then(Announcement::read) {
                    self.concerned.borrow_mut().extend(self.concerns(&announcement));
                }
                if let (Some(id), Some(position)) =
                    (bytes(id), self.positions.borrow_mut().get_mut(usize::from(*bucket)))
                {
                    *position = String::from_utf8_lossy(id).into_owned();
                }
            }
        }
        Ok(())
    }

    /// Where to look, if an announcement is of interest here.
    fn concerns(&self, announcement: &Announcement) -> Option<Home> {
        let replica = &self.port.replica;
        let of_interest = announcement.by != replica.name
            && (announcement.is_of_user
                || replica.versions.follows(announcement.home)
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
            tokio::time::sleep(self.pace.beat()).await;
        }
    }

    async fn hear(self: &Rc<Self>, message: &[u8]) {
        if message.len() == self.port.replica.name.len() {
            let _read_at_the_next_poll = self.port.replica.facts.follow(&self.port).await;
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

    async fn check_clock(&self) -> Result<(), WriteFault> {
        if let Some(offset) = clock_offset(&self.port.link, &self.port.clock).await? {
            self.trouble.is_off(offset.abs() > MAX_OFFSET_MS, offset);
        }
        Ok(())
    }
}

fn from_the_beginning() -> Vec<String> {
    vec!["0".to_owned(); usize::from(BUCKETS)]
}
