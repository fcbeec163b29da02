//! The connection to the store's server, or to the servers of a cluster.
//!
//! No call waits for longer than [`Pace::answer`], whatever the server, the network or the client library do: every wait has
//! a time-out of this module's own around it. After a failure calls fail at once for a while, until one has got through.
//!
//! A new connection to the same server costs nothing but itself: what was stored is still there. What tells servers apart is
//! in [`server`](super::server).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use futures_util::StreamExt;
use redis::aio::PubSub;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};

use super::dial::{Dial, Wire};
use super::pace::{Pace, has_passed};
use super::server::{self, Incarnation, Met, Server};
use super::trust;
use crate::clock::Stopwatch;
use crate::config::Redis;

/// A command did not get through, or was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::store) enum LinkFault {
    /// Nobody answers, or only for now nobody who could: it may work in a moment.
    #[error("{0}")]
    Away(String),
    /// The server says no: somebody has to change something.
    #[error("the server refuses: {0}")]
    Refused(String),
}

/// A script that runs in the server.
pub(in crate::store) struct LuaScript {
    text: &'static str,
}

impl LuaScript {
    pub(in crate::store) const fn new(text: &'static str) -> Self {
        Self { text }
    }

    fn digest(&self) -> String {
        use std::fmt::Write;
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, self.text.as_bytes());
        digest.as_ref().iter().fold(String::with_capacity(40), |mut text, byte| {
            let _never_fails = write!(text, "{byte:02x}");
            text
        })
    }

    fn command(&self, verb: &str, script: &str, keys: &[Vec<u8>], args: &[Vec<u8>]) -> Cmd {
        let mut cmd = redis::cmd(verb);
        cmd.arg(script).arg(keys.len());
        keys.iter().chain(args).for_each(|part| {
            cmd.arg(part);
        });
        cmd
    }
}

/// See the module. Lives on the runtime of one thread.
pub(in crate::store) struct Link {
    dial: Dial,
    pace: Pace,
    server: Arc<Server>,
    wire: RefCell<Option<Connected>>,
    /// Held while connecting, so that one does it for all.
    connecting: tokio::sync::Mutex<()>,
    /// How many connections there were.
    connections: Cell<u64>,
    /// How often a command was sent once more.
    sent_again: Cell<u64>,
    met: RefCell<Met>,
    /// The server does not say who it is.
    is_silent: Cell<bool>,
    /// Held while looking at it again; how many such looks have begun, and the last that went well.
    looking: tokio::sync::Mutex<()>,
    looks_begun: Cell<u64>,
    looked: Cell<u64>,
    /// When a call failed last, if none has got through since.
    broken: Cell<Option<Stopwatch>>,
    /// Digests of the scripts that were run, by the address of their text.
    digests: RefCell<Vec<(*const u8, Rc<str>)>>,
}

/// A connection as it was made.
#[derive(Clone)]
struct Connected {
    /// See [`Link::connections`].
    number: u64,
    /// See [`Server::generation`].
    generation: u64,
    wire: Wire,
}

/// What arrives on a channel.
pub(in crate::store) struct Messages(PubSub);

impl Messages {
    /// The next message; `None` once the connection is broken.
    pub(in crate::store) async fn next(&mut self) -> Option<Vec<u8>> {
        let message = self.0.on_message().next().await?;
        Some(message.get_payload_bytes().to_vec())
    }
}

impl Link {
    /// Does not connect yet: the first call does. `server` is told whom each connection leads to, before anything is asked
    /// over it.
    pub(in crate::store) fn new(settings: &Redis, pace: Pace, server: Arc<Server>) -> Self {
        Self {
            dial: Dial::new(settings, pace),
            pace,
            server,
            wire: RefCell::default(),
            connecting: tokio::sync::Mutex::default(),
            connections: Cell::new(0),
            sent_again: Cell::new(0),
            met: RefCell::default(),
            is_silent: Cell::new(false),
            looking: tokio::sync::Mutex::default(),
            looks_begun: Cell::new(0),
            looked: Cell::new(0),
            broken: Cell::new(None),
            digests: RefCell::default(),
        }
    }

    /// See [`Server::generation`].
    pub(in crate::store) fn generation(&self) -> u64 {
        self.server.generation()
    }

    /// Whether the server is the first, or has been this one for a while: another one may not have everything yet which other
    /// gateways know.
    pub(in crate::store) fn is_settled(&self) -> bool {
        self.server.another_since().is_none_or(|since| has_passed(since, self.pace.settling()))
    }

    /// The server turned out to have lost something, whoever it says that it is.
    pub(in crate::store) fn has_lost(&self) {
        self.server.has_lost();
    }

    /// How often a command was sent once more, because its connection was closed: nobody knows whether it was carried out before.
    pub(in crate::store) fn sent_again(&self) -> u64 {
        self.sent_again.get()
    }

    /// How many keys of different buckets one command may concern.
    pub(in crate::store) fn at_once(&self, many: usize) -> usize {
        if self.dial.is_cluster() { 1 } else { many }
    }

    /// Sends a command and waits for its answer, connecting first where there is no connection.
    ///
    /// # Errors
    /// [`LinkFault`], within [`Pace::answer`] or, where it had to connect, [`Pace::connecting`] more.
    // CANCEL: the command may have been carried out.
    pub(in crate::store) async fn call(&self, cmd: &Cmd) -> Result<Value, LinkFault> {
        if self.broken.get().is_some_and(|since| !has_passed(since, self.pace.pause())) {
            return Err(LinkFault::Away("the store did not answer a moment ago".to_owned()));
        }
        let outcome = self.try_call(cmd).await;
        match &outcome {
            Err(LinkFault::Away(_)) => self.broken.set(Some(Stopwatch::start())),
            Ok(_) | Err(LinkFault::Refused(_)) => self.broken.set(None),
        }
        outcome
    }

    /// A connection that rested may have been closed by the server, or by what is between: that shows with the next command,
    /// which is sent once more over a new one. What is carried out twice does no harm, see the scripts; an entry of the audit may
    /// stand there twice.
    async fn try_call(&self, cmd: &Cmd) -> Result<Value, LinkFault> {
        let before = self.connections.get();
        match self.send(cmd).await {
            Err((_, true)) if self.connections.get() == before => {
                self.sent_again.set(self.sent_again.get() + 1);
                self.send(cmd).await
            }
            outcome => outcome,
        }
        .map_err(|(fault, _)| fault)
    }

    /// With a fault comes whether the connection turned out to be closed.
    async fn send(&self, cmd: &Cmd) -> Result<Value, (LinkFault, bool)> {
        let Connected { number, mut wire, .. } = self.wire().await.map_err(|fault| (fault, false))?;
        let patience = self.pace.answer();
        match tokio::time::timeout(patience, wire.send(cmd)).await {
            Ok(Ok(Value::ServerError(error))) => Err((self.judge(number, &RedisError::from(error)), false)),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err((self.judge(number, &error), error.is_connection_dropped())),
            Err(_) => {
                self.drop_wire(number);
                Err((LinkFault::Away(format!("no answer within {} ms", patience.as_millis())), false))
            }
        }
    }

    /// Runs a script; sends its text where the server does not know it yet.
    ///
    /// # Errors
    /// See [`Link::call`].
    pub(in crate::store) async fn eval(
        &self,
        script: &LuaScript,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
    ) -> Result<Value, LinkFault> {
        let digest = self.digest(script);
        match self.call(&script.command("EVALSHA", &digest, keys, args)).await {
            Err(LinkFault::Refused(why)) if why.contains("NOSCRIPT") || why.contains("NoScript") => {
                self.call(&script.command("EVAL", script.text, keys, args)).await
            }
            outcome => outcome,
        }
    }

    fn digest(&self, script: &LuaScript) -> Rc<str> {
        let mut digests = self.digests.borrow_mut();
        if let Some((_, digest)) = digests.iter().find(|(text, _)| std::ptr::eq(*text, script.text.as_ptr()))
        {
            return Rc::clone(digest);
        }
        let digest: Rc<str> = script.digest().into();
        digests.push((script.text.as_ptr(), Rc::clone(&digest)));
        digest
    }

    /// A connection of its own that listens on a channel.
    ///
    /// # Errors
    /// See [`Link::call`].
    pub(in crate::store) async fn listen(&self, channel: &str) -> Result<Messages, LinkFault> {
        let listening = async {
            let client = self.dial.client().await?;
            let mut messages = client.get_async_pubsub().await.map_err(|error| fault(&error))?;
            messages.subscribe(channel).await.map_err(|error| fault(&error))?;
            Ok(Messages(messages))
        };
        let listening = tokio::time::timeout(self.pace.connecting(), listening).await;
        listening.unwrap_or_else(|_| Err(LinkFault::Away("no connection in time".to_owned())))
    }

    /// What an error means; a connection that is of no use any more is thrown away.
    fn judge(&self, number: u64, error: &RedisError) -> LinkFault {
        let fault = fault(error);
        if matches!(fault, LinkFault::Away(_)) {
            self.drop_wire(number);
        }
        fault
    }

    fn drop_wire(&self, number: u64) {
        let mut wire = self.wire.borrow_mut();
        if wire.as_ref().is_some_and(|known| known.number == number) {
            *wire = None;
        }
    }

    /// The connection, unless another link has met another server since it was made: it may lead to the one before.
    fn known_wire(&self) -> Option<Connected> {
        let known = self.wire.borrow().clone()?;
        (self.is_silent.get() || known.generation == self.server.generation()).then_some(known)
    }

    async fn wire(&self) -> Result<Connected, LinkFault> {
        if let Some(known) = self.known_wire() {
            return Ok(known);
        }
        let connecting = async {
            let _one_for_all = self.connecting.lock().await;
            if let Some(known) = self.known_wire() {
                return Ok(known);
            }
            let wire = self.dial.connect().await?;
            let generation = match server::of(|cmd| self.ask(wire.clone(), cmd)).await {
                // One primary that is down does not keep the others from being asked; whether it was replaced shows later.
                Err(LinkFault::Away(_)) if self.dial.is_cluster() => self.server.generation(),
                found => self.meet(found?),
            };
            let number = self.connections.get() + 1;
            self.connections.set(number);
            let connected = Connected { number, generation, wire };
            *self.wire.borrow_mut() = Some(connected.clone());
            Ok(connected)
        };
        let connected = tokio::time::timeout(self.pace.connecting(), connecting).await;
        connected.unwrap_or_else(|_| Err(LinkFault::Away("no connection in time".to_owned())))
    }

    /// Looks whether the server is still the one that it was: one that has become a replica of another one and a primary again,
    /// or a primary of a cluster that was replaced, may have lost what was written last without closing a connection.
    ///
    /// # Errors
    /// See [`Link::call`].
    pub(in crate::store) async fn look(&self) -> Result<(), LinkFault> {
        if self.is_silent.get() {
            return Ok(());
        }
        let before = self.connections.get();
        let found = server::of(|cmd| async move { self.call(&cmd).await }).await?;
        // Else it was looked at as it was connected to.
        if self.connections.get() == before {
            let generation = self.meet(found);
            if let Some(connected) = self.wire.borrow_mut().as_mut() {
                connected.generation = generation;
            }
        }
        Ok(())
    }

    /// The same, with a look that begins after this was called; one for all who wait.
    ///
    /// # Errors
    /// See [`Link::call`].
    pub(in crate::store) async fn look_again(&self) -> Result<(), LinkFault> {
        let begun = self.looks_begun.get();
        let _one_for_all = self.looking.lock().await;
        if self.looked.get() > begun {
            return Ok(());
        }
        let number = self.looks_begun.get() + 1;
        self.looks_begun.set(number);
        self.look().await?;
        self.looked.set(number);
        Ok(())
    }

    /// The connection leads there. Returns the generation.
    fn meet(&self, found: Option<Incarnation>) -> u64 {
        self.is_silent.set(found.is_none());
        let (met, generation) = self.server.is_met(self.met.take(), found);
        self.met.replace(met);
        generation
    }

    async fn ask(&self, mut wire: Wire, cmd: Cmd) -> Result<Value, LinkFault> {
        let asking = tokio::time::timeout(self.pace.answer(), wire.send(&cmd)).await;
        match asking.map_err(|_| LinkFault::Away("the server does not say which one it is".to_owned()))? {
            Ok(Value::ServerError(error)) => Err(fault(&RedisError::from(error))),
            answer => answer.map_err(|error| fault(&error)),
        }
    }
}

/// SECURITY: the library's texts name addresses and what the server said, never a password.
pub(super) fn fault(error: &RedisError) -> LinkFault {
    let text = error.to_string();
    if let Some(advice) = trust::advice(error) {
        return LinkFault::Refused(format!("{text}; {advice}"));
    }
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask,
        )
        | ErrorKind::Io
        | ErrorKind::Client
        | ErrorKind::ClusterConnectionNotFound => LinkFault::Away(text),
        ErrorKind::Extension if ["NOREPLICAS", "BUSY"].iter().any(|code| text.contains(code)) => {
            LinkFault::Away(text)
        }
        _ => LinkFault::Refused(text),
    }
}
