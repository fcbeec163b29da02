//! The connection to the store's server, or to the servers of a cluster.
//!
//! No call waits for longer than [`Pace::answer`], whatever the server, the network or the client library do: every wait has
//! a time-out of this module's own around it. After a failure calls fail at once for a while, until one has got through.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::{TcpSettings, socket2};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, Value,
};

use super::pace::{Pace, has_passed};
use super::trust;
use crate::clock::Stopwatch;
use crate::config::{Redis, RedisMode, RedisNode};

/// How often a command is sent anew within one call where a cluster has moved what it asks for.
const CLUSTER_RETRIES: u32 = 3;

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

/// A connection that many calls share; of one thread.
#[derive(Clone)]
enum Wire {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Wire {
    async fn send(&mut self, cmd: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::One(connection) => connection.req_packed_command(cmd).await,
            Self::Cluster(connection) => connection.req_packed_command(cmd).await,
        }
    }
}

/// See the module. Lives on the runtime of one thread.
pub(in crate::store) struct Link {
    settings: Redis,
    pace: Pace,
    /// Called with every new connection before anything is asked over it.
    on_connect: Box<dyn Fn()>,
    wire: RefCell<Option<(u64, Wire)>>,
    /// Held while connecting, so that one does it for all.
    connecting: tokio::sync::Mutex<()>,
    generation: Cell<u64>,
    /// Since when the connection has been another one than the first.
    another_since: Cell<Option<Stopwatch>>,
    /// When a call failed last, if none has got through since.
    broken: Cell<Option<Stopwatch>>,
    /// Digests of the scripts that were run, by the address of their text.
    digests: RefCell<Vec<(*const u8, Rc<str>)>>,
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
    /// Does not connect yet: the first call does. `on_connect` is called with every new connection, before anything is asked
    /// over it.
    pub(in crate::store) fn new(settings: &Redis, pace: Pace, on_connect: impl Fn() + 'static) -> Self {
        Self {
            settings: settings.clone(),
            pace,
            on_connect: Box::new(on_connect),
            wire: RefCell::default(),
            connecting: tokio::sync::Mutex::default(),
            generation: Cell::new(0),
            another_since: Cell::new(None),
            broken: Cell::new(None),
            digests: RefCell::default(),
        }
    }

    /// Rises with every new connection, to whichever server: what was written last may be lost by then.
    pub(in crate::store) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Whether the connection is the first, or an old one: a new one may lead to a server that does not have everything yet
    /// which other gateways know.
    pub(in crate::store) fn is_settled(&self) -> bool {
        self.another_since.get().is_none_or(|since| has_passed(since, self.pace.settling()))
    }

    /// How many keys of different buckets one command may concern.
    pub(in crate::store) fn at_once(&self, many: usize) -> usize {
        match self.settings.mode {
            RedisMode::Single | RedisMode::Sentinel(_) => many,
            RedisMode::Cluster => 1,
        }
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
        let before = self.generation.get();
        match self.send(cmd).await {
            Err((_, true)) if self.generation.get() == before => self.send(cmd).await,
            outcome => outcome,
        }
        .map_err(|(fault, _)| fault)
    }

    /// With a fault comes whether the connection turned out to be closed.
    async fn send(&self, cmd: &Cmd) -> Result<Value, (LinkFault, bool)> {
        let (number, mut wire) = self.wire().await.map_err(|fault| (fault, false))?;
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
            let client = self.client().await?;
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
        if wire.as_ref().is_some_and(|(known, _)| *known == number) {
            *wire = None;
        }
    }

    fn known_wire(&self) -> Option<(u64, Wire)> {
        self.wire.borrow().clone()
    }

    async fn wire(&self) -> Result<(u64, Wire), LinkFault> {
        if let Some(known) = self.known_wire() {
            return Ok(known);
        }
        let connecting = async {
            let _one_for_all = self.connecting.lock().await;
            if let Some(known) = self.known_wire() {
                return Ok(known);
            }
            let wire = self.connect().await?;
            let number = self.generation.get() + 1;
            (self.on_connect)();
            self.generation.set(number);
            self.another_since.set((number > 1).then(Stopwatch::start));
            *self.wire.borrow_mut() = Some((number, wire.clone()));
            Ok((number, wire))
        };
        let connected = tokio::time::timeout(self.pace.connecting(), connecting).await;
        connected.unwrap_or_else(|_| Err(LinkFault::Away("no connection in time".to_owned())))
    }

    async fn connect(&self) -> Result<Wire, LinkFault> {
        if self.settings.mode == RedisMode::Cluster {
            return self.connect_cluster().await.map(Wire::Cluster);
        }
        let client = self.client().await?;
        connect_to(&client, self.pace).await.map(Wire::One)
    }

    /// Whoever is the primary now; in a cluster any node.
    async fn client(&self) -> Result<Client, LinkFault> {
        match &self.settings.mode {
            RedisMode::Single => self.client_of(&self.first()?, true),
            RedisMode::Sentinel(service) => self.primary(service).await,
            RedisMode::Cluster => self.any_node().await,
        }
    }

    fn first(&self) -> Result<RedisNode, LinkFault> {
        self.settings.nodes.first().cloned().ok_or_else(|| LinkFault::Refused("no address is set".to_owned()))
    }

    async fn any_node(&self) -> Result<Client, LinkFault> {
        let mut last = LinkFault::Away("no address is set".to_owned());
        for node in &self.settings.nodes {
            let client = self.client_of(node, true)?;
            match connect_to(&client, self.pace).await {
                Ok(_) => return Ok(client),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// Asks the sentinels in turn, and believes only a server that says itself that it is the primary.
    async fn primary(&self, service: &str) -> Result<Client, LinkFault> {
        let mut last = LinkFault::Away("no sentinel is set".to_owned());
        for sentinel in &self.settings.nodes {
            match self.primary_by(sentinel, service).await {
                Ok(client) => return Ok(client),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    async fn primary_by(&self, sentinel: &RedisNode, service: &str) -> Result<Client, LinkFault> {
        let answer = match self.ask_sentinel(sentinel, service, false).await {
            Err(LinkFault::Refused(why)) if why.contains("NOAUTH") || why.contains("Authentication") => {
                self.ask_sentinel(sentinel, service, true).await?
            }
            answer => answer?,
        };
        let Value::Array(parts) = &answer else {
            return Err(LinkFault::Refused(format!("the sentinels know no service {service:?}")));
        };
        let [Value::BulkString(host), Value::BulkString(port)] = parts.as_slice() else {
            return Err(LinkFault::Away("the sentinel's answer cannot be read".to_owned()));
        };
        let host = String::from_utf8_lossy(host).into_owned();
        let port = std::str::from_utf8(port).ok().and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| LinkFault::Away("the sentinel's answer cannot be read".to_owned()))?;
        let client = self.client_of(&RedisNode { host, port }, true)?;
        let mut connection = connect_to(&client, self.pace).await?;
        let role = connection.req_packed_command(&redis::cmd("ROLE")).await.map_err(|error| fault(&error))?;
        let is_primary = matches!(&role, Value::Array(parts)
            if matches!(parts.first(), Some(Value::BulkString(role)) if role == b"master"));
        let stale = || LinkFault::Away("the sentinel names a server that is no primary".to_owned());
        if is_primary { Ok(client) } else { Err(stale()) }
    }

    async fn ask_sentinel(
        &self,
        sentinel: &RedisNode,
        service: &str,
        signs_in: bool,
    ) -> Result<Value, LinkFault> {
        let client = self.client_of(sentinel, signs_in)?;
        let mut connection = connect_to(&client, self.pace).await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(service);
        let asking = tokio::time::timeout(self.pace.answer(), connection.req_packed_command(&ask)).await;
        let answer = asking.map_err(|_| LinkFault::Away("a sentinel does not answer".to_owned()))?;
        answer.map_err(|error| fault(&error))
    }

    fn client_of(&self, node: &RedisNode, signs_in: bool) -> Result<Client, LinkFault> {
        let info = self.connection_info(node, signs_in)?;
        let client = match self.settings.tls {
            true => Client::build_with_tls(info, self.certificates()?),
            false => Client::open(info),
        };
        client.map_err(|error| fault(&error))
    }

    fn connection_info(&self, node: &RedisNode, signs_in: bool) -> Result<ConnectionInfo, LinkFault> {
        let (host, port) = (node.host.clone(), node.port);
        let address = match self.settings.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        };
        let mut user = RedisConnectionInfo::default().set_skip_set_lib_name();
        if signs_in {
            let (name, password) = self.credentials()?;
            if let Some(name) = name {
                user = user.set_username(name);
            }
            if let Some(password) = password {
                user = user.set_password(password);
            }
            if !matches!(self.settings.mode, RedisMode::Cluster) {
                user = user.set_db(i64::from(self.settings.database));
            }
        }
        let info = address.into_connection_info().map_err(|error| fault(&error))?;
        Ok(info.set_redis_settings(user).set_tcp_settings(tcp_settings()))
    }

    /// Read anew for each connection, so that a password can be changed without a restart.
    fn credentials(&self) -> Result<(Option<String>, Option<String>), LinkFault> {
        let Some(password) = &self.settings.password else {
            return Ok((self.settings.username.clone(), None));
        };
        let secret = password.read();
        let secret = secret
            .map_err(|error| LinkFault::Refused(format!("the password's file cannot be read: {error}")))?;
        let text = std::str::from_utf8(secret.expose()).map(str::to_owned);
        let text = text.map_err(|_| LinkFault::Refused("the password is not UTF-8 text".to_owned()))?;
        Ok((self.settings.username.clone(), Some(text)))
    }

    fn certificates(&self) -> Result<TlsCertificates, LinkFault> {
        let read = |path: &std::path::PathBuf| {
            let unreadable = |error| LinkFault::Refused(format!("cannot read {}: {error}", path.display()));
            std::fs::read(path).map_err(unreadable)
        };
        let root_cert = self.settings.ca.as_ref().map(read).transpose()?;
        let client_tls = match &self.settings.client {
            Some((cert, key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
            None => None,
        };
        Ok(TlsCertificates { client_tls, root_cert })
    }

    async fn connect_cluster(&self) -> Result<ClusterConnection, LinkFault> {
        let nodes = self.settings.nodes.iter().map(|node| self.connection_info(node, true));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        let mut builder = redis::cluster::ClusterClientBuilder::new(nodes)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(10)
            .max_retry_wait(100)
            .connection_timeout(self.pace.answer())
            .response_timeout(self.pace.answer())
            .overall_response_timeout(Some(self.pace.answer()))
            .tcp_settings(tcp_settings());
        if self.settings.tls {
            builder = builder.certs(self.certificates()?);
        }
        let client = builder.build().map_err(|error| fault(&error))?;
        client.get_async_connection().await.map_err(|error| fault(&error))
    }
}

async fn connect_to(client: &Client, pace: Pace) -> Result<MultiplexedConnection, LinkFault> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(pace.answer()))
        .set_response_timeout(Some(pace.answer()));
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| fault(&error))
}

fn tcp_settings() -> TcpSettings {
    // A listener sends nothing by itself: only so does it notice that the other side is gone.
    let alive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(2))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    TcpSettings::default().set_nodelay(true).set_keepalive(alive).set_user_timeout(Duration::from_secs(5))
}

/// SECURITY: the library's texts name addresses and what the server said, never a password.
fn fault(error: &RedisError) -> LinkFault {
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
        ErrorKind::Extension if text.contains("NOREPLICAS") => LinkFault::Away(text),
        _ => LinkFault::Refused(text),
    }
}
