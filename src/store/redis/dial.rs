//! Makes connections: to one server, to whoever the sentinels call the primary, or to a cluster.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::{TcpSettings, socket2};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use super::link::{LinkFault, fault};
use super::pace::Pace;
use crate::config::{Redis, RedisMode, RedisNode};

/// How often a command is sent anew within one call where a cluster has moved what it asks for.
const CLUSTER_RETRIES: u32 = 3;

/// A connection that many calls share; of one thread.
#[derive(Clone)]
pub(super) enum Wire {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Wire {
    pub(super) async fn send(&mut self, cmd: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::One(connection) => connection.req_packed_command(cmd).await,
            Self::Cluster(connection) => connection.req_packed_command(cmd).await,
        }
    }
}

/// See the module.
pub(super) struct Dial {
    settings: Redis,
    pace: Pace,
}

impl Dial {
    pub(super) fn new(settings: &Redis, pace: Pace) -> Self {
        Self { settings: settings.clone(), pace }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.settings.mode == RedisMode::Cluster
    }

    /// A new connection, to whoever is the primary now, or to a cluster.
    ///
    /// # Errors
    /// [`LinkFault`].
    pub(super) async fn connect(&self) -> Result<Wire, LinkFault> {
        if self.is_cluster() {
            return self.connect_cluster().await.map(Wire::Cluster);
        }
        let client = self.client().await?;
        connect_to(&client, self.pace).await.map(Wire::One)
    }

    /// Whoever is the primary now; in a cluster any node.
    ///
    /// # Errors
    /// [`LinkFault`].
    pub(super) async fn client(&self) -> Result<Client, LinkFault> {
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
