//! `[store] redis`: the Redis or Valkey that several gateways share.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::raw::{Section, Value};
use super::secret::{Secret, read_bounded};

/// The prefix of all keys where none is set.
const PREFIX: &str = "tenure:";

/// Longer prefixes only cost memory with each key.
const MAX_PREFIX_BYTES: usize = 64;

/// More addresses than any deployment names.
const MAX_URLS: usize = 64;

const HINT: &str = "write \"redis://host:6379/0\", or \"rediss://host:6379/0\" for TLS";

/// Where the shared store is and how gateways sign in to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Addresses of the server, of the sentinels, or of some nodes of the cluster.
    pub nodes: Vec<RedisNode>,
    /// What stands at these addresses.
    pub mode: RedisMode,
    /// Connections are encrypted.
    pub tls: bool,
    /// The certificate authority that signed the servers' certificates, PEM; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// The gateway's own certificate and key, PEM.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Number of the database; always 0 in a cluster.
    pub database: u32,
    /// The user of the server's access control list.
    pub username: Option<String>,
    /// That user's password, or that of the server.
    pub password: Option<RedisPassword>,
    /// What all keys begin with.
    pub prefix: String,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisNode {
    /// Name or IP address, the latter without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What the addresses are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// One server.
    Single,
    /// Sentinels that know which server is the primary of this service.
    Sentinel(String),
    /// Nodes of a cluster.
    Cluster,
}

/// A password, or the file that it is read from for each new connection: it can be changed without a restart.
#[derive(Clone, Debug)]
pub enum RedisPassword {
    /// As the configuration gives it.
    Given(Secret),
    /// In this file.
    File(PathBuf),
}

impl RedisPassword {
    /// The password now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> std::io::Result<Secret> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::File(path) => Ok(Secret::new(read_bounded(path)?.trim_ascii_end().to_vec())),
        }
    }
}

impl PartialEq for RedisPassword {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Given(one), Self::Given(other)) => one.expose() == other.expose(),
            (Self::File(one), Self::File(other)) => one == other,
            (Self::Given(_), Self::File(_)) | (Self::File(_), Self::Given(_)) => false,
        }
    }
}

impl Eq for RedisPassword {}

/// What one URL says.
struct Url {
    tls: bool,
    node: RedisNode,
    has_port: bool,
    database: Option<u32>,
    username: Option<String>,
    password: Option<Secret>,
}

/// Reads the value of `redis`: a URL, or a table.
pub(super) fn read(value: &Value<'_>) -> Option<Redis> {
    if !value.is_table() {
        let url = value.read(parse_url)?;
        return Some(one_server(url));
    }
    let mut section = value.section()?;
    let urls = section.required("urls", HINT);
    let mode = read_mode(&mut section);
    let (username, password) = (section.value("username"), section.value("password"));
    let ca = section.value("ca").and_then(|value| pem(&value));
    let client = read_client(&mut section);
    let prefix =
        section.value("prefix").map_or_else(|| Some(PREFIX.to_owned()), |value| value.read(parse_prefix));
    section.finish();
    let urls = urls.and_then(|urls| read_urls(&urls, mode.as_ref()))?;
    let first = urls.first()?;
    let read_text = |value: &Value<'_>| value.text().map(str::to_owned);
    let username = one_place(username.as_ref(), first.username.as_ref(), read_text);
    let given = first.password.clone().map(RedisPassword::Given);
    let password = one_place(password.as_ref(), given.as_ref(), read_password);
    if (ca.is_some() || client.is_some()) && !first.tls {
        value.fault("certificates are given, but the scheme is without TLS", "write rediss:// in urls");
    }
    Some(Redis {
        tls: first.tls,
        database: first.database.unwrap_or(0),
        nodes: urls.iter().map(|url| url.node.clone()).collect(),
        mode: mode?,
        ca,
        client,
        username,
        password,
        prefix: prefix?,
    })
}

fn one_server(url: Url) -> Redis {
    Redis {
        nodes: vec![url.node],
        mode: RedisMode::Single,
        tls: url.tls,
        ca: None,
        client: None,
        database: url.database.unwrap_or(0),
        username: url.username,
        password: url.password.map(RedisPassword::Given),
        prefix: PREFIX.to_owned(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Sentinel,
    Cluster,
}

fn read_mode(section: &mut Section<'_>) -> Option<RedisMode> {
    let choices = [("single", Kind::Single), ("sentinel", Kind::Sentinel), ("cluster", Kind::Cluster)];
    let (mode, service) = (section.value("mode"), section.value("service"));
    let kind = match &mode {
        Some(mode) => mode.choice(&choices)?,
        None => Kind::Single,
    };
    let hint = "write service = \"mymaster\", the name that the sentinels know the primary by";
    match (kind, service) {
        (Kind::Sentinel, Some(service)) => Some(RedisMode::Sentinel(service.text()?.to_owned())),
        (Kind::Sentinel, None) => {
            section.fault("mode = \"sentinel\" needs service", hint);
            None
        }
        (Kind::Single | Kind::Cluster, Some(service)) => {
            service.fault("has a meaning with mode = \"sentinel\" alone", "remove it, or set the mode");
            None
        }
        (Kind::Single, None) => Some(RedisMode::Single),
        (Kind::Cluster, None) => Some(RedisMode::Cluster),
    }
}

fn read_urls(value: &Value<'_>, mode: Option<&RedisMode>) -> Option<Vec<Url>> {
    let values = value.one_or_more();
    if values.is_empty() || values.len() > MAX_URLS {
        value.fault(format!("names {} addresses", values.len()), format!("write from 1 to {MAX_URLS}"));
        return None;
    }
    if mode == Some(&RedisMode::Single) && values.len() > 1 {
        let hint = "set mode = \"cluster\" or \"sentinel\", or name one server";
        value.fault("several addresses have no meaning with mode = \"single\"", hint);
    }
    let mut urls: Vec<Url> = Vec::new();
    for value in &values {
        let Some(mut url) = value.read(parse_url) else { continue };
        if !url.has_port && matches!(mode, Some(RedisMode::Sentinel(_))) {
            url.node.port = 26379;
        }
        if mode == Some(&RedisMode::Cluster) && url.database.is_some_and(|database| database != 0) {
            value.fault("a cluster has database 0 alone", "remove the number behind the host");
        }
        if urls.first().is_some_and(|first| first.tls != url.tls) {
            value.fault("some addresses are with TLS and some without", "use one scheme for all");
        }
        urls.push(url);
    }
    Some(urls)
}

/// What may stand in the URL or beside it, but not in both places.
fn one_place<T: Clone>(
    beside: Option<&Value<'_>>,
    within: Option<&T>,
    read: impl Fn(&Value<'_>) -> Option<T>,
) -> Option<T> {
    match (beside, within) {
        (Some(value), Some(_)) => {
            value.fault("stands in the URL already", "leave it in one of the two places");
            None
        }
        (Some(value), None) => read(value),
        (None, within) => within.cloned(),
    }
}

fn read_password(value: &Value<'_>) -> Option<RedisPassword> {
    // Read once in any case, so that a missing file is a fault of the configuration.
    let secret = value.secret()?;
    match value.as_text().and_then(|text| text.strip_prefix("file:")) {
        Some(path) => Some(RedisPassword::File(value.sink.path(path))),
        None => Some(RedisPassword::Given(secret)),
    }
}

fn pem(value: &Value<'_>) -> Option<PathBuf> {
    let text = value.text()?;
    let bytes = value.file(text)?;
    if !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        value.fault("is not in PEM form", "the file begins with \"-----BEGIN …-----\"");
        return None;
    }
    Some(value.sink.path(text))
}

fn read_client(section: &mut Section<'_>) -> Option<(PathBuf, PathBuf)> {
    match (section.value("cert"), section.value("key")) {
        (Some(cert), Some(key)) => Some((pem(&cert)?, pem(&key)?)),
        (Some(alone), None) | (None, Some(alone)) => {
            alone.fault("cert and key go together", "give both, or neither");
            None
        }
        (None, None) => None,
    }
}

fn parse_prefix(text: &str) -> Result<String, (String, String)> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"{}*?[]\\".contains(&byte);
    if text.is_empty() || text.len() > MAX_PREFIX_BYTES || !text.bytes().all(plain) {
        let hint = format!("up to {MAX_PREFIX_BYTES} letters, digits and signs without braces: \"tenure:\"");
        return Err((format!("{text:?} cannot begin a key"), hint));
    }
    Ok(text.to_owned())
}

/// The faults never repeat the URL: it may hold a password.
fn parse_url(text: &str) -> Result<Url, (String, String)> {
    let wrong = |message: &str| (message.to_owned(), HINT.to_owned());
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("the URL has no scheme"))?;
    let tls = match scheme {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => return Err(wrong(&format!("the scheme {scheme:?} is not supported"))),
    };
    if rest.contains(['?', '#']) {
        return Err(wrong("the URL has a query"));
    }
    let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let authority: http::uri::Authority =
        authority.parse().map_err(|_| wrong("the URL's host cannot be read"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port_text = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let port = match port_text {
        "" => Some(6379),
        _ => authority.port_u16().filter(|port| *port != 0),
    };
    let port = port.ok_or_else(|| wrong("the URL's port is not a number from 1 to 65535"))?;
    let database = match database {
        "" => None,
        number => Some(number.parse().map_err(|_| wrong("the URL's database is not a number"))?),
    };
    let (username, password) = user.map_or((None, None), |user| {
        user.split_once(':').map_or((Some(user), None), |(user, password)| (Some(user), Some(password)))
    });
    let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let username = username.filter(|user| !user.is_empty()).map(|user| String::from_utf8(decoded(user)));
    let username = username.transpose().map_err(|_| wrong("the URL's user is not UTF-8 text"))?;
    let password = password.map(|password| Secret::new(decoded(password)));
    Ok(Url {
        tls,
        node: RedisNode { host, port },
        has_port: !port_text.is_empty(),
        database,
        username,
        password,
    })
}
