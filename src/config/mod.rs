//! The configuration in two stages: the file as written (`raw`), and the checked [`Config`] that the rest of the
//! gateway reads. All faults of a file are gathered and told together, each with its line and a hint (R28).
//!
//! Checking has no effects: nothing is bound, fetched or created here. Files that a value names (`file:`,
//! certificates) are read, because a secret that is missing is a fault of the configuration.

mod admin;
mod app;
mod check;
mod chosen;
mod cookies;
mod custody;
mod fault;
mod hosts;
mod identity;
mod jwt;
mod limits;
mod listen;
mod policy;
mod preset;
mod raw;
mod redis;
mod roles;
mod secret;
mod setting;
mod store;
mod summary;
mod tenancy;
mod upstream;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

pub use check::{check_text, load};
pub use chosen::{ChosenFault, read_chosen, write_chosen};
pub use custody::{AppLogout, Custody};
pub use fault::{Fault, Faults};
use http::HeaderName;
pub use preset::{Filled, Origin};
pub use redis::{Redis, RedisMode, RedisNode, RedisPassword};
pub use roles::known_scope;
pub use secret::Secret;
pub use setting::{Settings, within};
pub use tenancy::Tenancy;

use crate::session::activity::InactiveRule;
use crate::session::gate::Unseen;
use crate::session::identity::{SourceRule, UserCase};
use crate::session::layers::Layers;
use crate::session::path::Pattern;
use crate::session::preset::Preset;
use crate::session::profile::{CookieRule, Harden, NamePattern};
use crate::session::{Moment, Span};

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[listen]`.
    pub listen: Listen,
    /// Every `[[app]]`, at least one, in the order of the file.
    pub apps: Vec<App>,
    /// All layers of policy: `[policy]`, `[app.policy]`, `[[policy.tenant]]`, `[[policy.role]]`, `[[policy.user]]`.
    pub policy: Layers,
    /// `[roles.*]`.
    pub roles: BTreeMap<String, Role>,
    /// `[admin]`.
    pub admin: Admin,
    /// `[store]`.
    pub store: Store,
    /// `[limits]`.
    pub limits: Limits,
    /// `[drain]`.
    pub drain: Drain,
    /// `[log]`.
    pub log: Log,
}

/// `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Plain HTTP/1.1.
    pub http: Option<SocketAddr>,
    /// TLS with HTTP/1.1 and HTTP/2 by ALPN.
    pub https: Option<SocketAddr>,
    /// Certificate chains and keys; SNI picks. Paths are absolute or relative to the working directory by now.
    pub certificates: Vec<Certificate>,
    /// Every connection must begin with a PROXY protocol header, v1 or v2.
    pub proxy_protocol: bool,
    /// Peers whose `X-Forwarded-*`, `Forwarded` and identity headers count.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Worker threads; `None` for one per core.
    pub workers: Option<NonZeroUsize>,
}

/// One entry of `certificates`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// PEM file with the chain, leaf first.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// One `[[app]]`.
#[derive(Clone, Debug)]
pub struct App {
    /// Its name; `app`, `app2`, ... where the file names none. Unique.
    pub name: String,
    /// Host patterns in lower case, without port; empty for every host. A leading `*.` matches one or more labels.
    pub hosts: Vec<String>,
    /// Where the app is, at least one.
    pub upstream: Vec<Upstream>,
    /// The preset that the file names.
    pub preset: Option<&'static Preset>,
    /// What the preset could fill in, and where each value came from; empty without a preset.
    pub filled: Vec<Filled>,
    /// `cookie` first, then `companions`.
    pub cookies: Vec<CookieRule>,
    /// Who keeps the app's cookies.
    pub custody: Custody,
    /// With `vault`, the cookies that go to the browser all the same; they cover no configured cookie.
    pub pass_cookies: Vec<NamePattern>,
    /// `track` was chosen for a cookie of which copies outlive a session's end.
    pub i_accept_replay: bool,
    /// The app's own logout, called with the dead cookie at an end.
    pub app_logout: Option<AppLogout>,
    /// `Tenure-Command` of the upstream is obeyed.
    pub app_commands: bool,
    /// What is added to the app's session cookies; nothing with `vault`.
    pub harden: Harden,
    /// An end is answered with `Clear-Site-Data` and `Cache-Control: no-store`.
    pub clear_on_end: bool,
    /// The login page, path and perhaps query.
    pub login: Option<String>,
    /// The logout path.
    pub logout: Option<MethodPath>,
    /// Paths that need no session.
    pub public: Vec<Pattern>,
    /// Requests that are not the user's activity.
    pub inactive: Vec<InactiveRule>,
    /// Where signing in happens; by default the login-form paths, else POST to `login`. Empty when unknown.
    pub sign_in: Vec<MethodPath>,
    /// Query parameter of `login` for the way back.
    pub return_to: Option<String>,
    /// Cookies never seen being issued.
    pub unseen: Unseen,
    /// Until when `unseen = "adopt"` holds.
    pub adopt_until: Option<Moment>,
    /// False: observe only.
    pub enforce: bool,
    /// The tenant when no identity source names one.
    pub tenant: String,
    /// How user names are compared.
    pub user_case: UserCase,
    /// A sign-in whose user stays unknown is withheld: where a source failed, or the form's own predicate says that
    /// somebody signed in and the form named nobody. Where all other sources say "nobody", nobody has signed in: a wrong
    /// password is answered like that too, often with a fresh anonymous cookie, and passes.
    pub require_user: bool,
    /// Whether Basic or Bearer requests without a session cookie pass.
    pub pass_unidentified: bool,
    /// Client data frames of WebSockets count as activity.
    pub websocket_activity: bool,
    /// Most connections to the upstream, over all workers. While the app is asked who a cookie is (`userinfo`), the answer
    /// that waits for it may use one more.
    pub max_upstream_connections: NonZeroUsize,
    /// Identity sources in the order they are tried.
    pub identity: Vec<SourceRule>,
}

/// A method, or any, and a path pattern: `"POST /login"`, `"/auth/callback"`.
#[derive(Clone, Debug)]
pub struct MethodPath {
    /// Upper case; `None` for any.
    pub method: Option<String>,
    /// The pattern over the normalised path.
    pub path: Pattern,
}

impl MethodPath {
    /// SECURITY: some apps take `post` for `POST`.
    fn is_for(&self, method: &str) -> bool {
        self.method.as_deref().is_none_or(|m| m.eq_ignore_ascii_case(method))
    }

    /// Whether a request with this method and normalised path is meant.
    #[must_use]
    pub fn matches(&self, method: &str, path: &str) -> bool {
        self.is_for(method) && self.path.matches(path)
    }

    /// Whether some app takes it for such a one; see [`Pattern::matches_loosely`].
    #[must_use]
    pub fn matches_loosely(&self, method: &str, path: &str, loose: &str) -> bool {
        self.is_for(method) && self.path.matches_loosely(path, loose)
    }
}

/// One address of an upstream: `http://host:port` or `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// TLS to the upstream.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port; 80 or 443 where the URL names none.
    pub port: u16,
}

/// One `[roles.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Users who hold it, by (tenant, user), normalised.
    pub users: Vec<(String, String)>,
    /// Identity sources may give it.
    pub learned: bool,
    /// What it permits.
    pub permissions: Vec<String>,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The API's listener; `None` when the section is missing.
    pub listen: Option<AdminListen>,
    /// A listener for probes and metrics alone.
    pub probes: Option<SocketAddr>,
    /// Operators' tokens.
    pub tokens: Vec<AdminToken>,
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminListen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket, `unix:PATH`.
    Unix(PathBuf),
}

/// One of `[admin] tokens`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminToken {
    /// Shown in audit lines.
    pub name: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Permissions; `*` is all.
    pub scopes: Vec<String>,
    /// The one tenant it is bound to; `None` for all (`"*"`).
    pub tenant: Option<String>,
}

/// `[store]`.
#[derive(Clone, Debug)]
pub struct Store {
    /// What keeps the sessions.
    pub kind: StoreKind,
    /// Keys the hashes; `None`: the store's own, or one made anew at each start where nothing outlives the process.
    pub secret: Option<Secret>,
    /// Secrets from before this one: tokens that they key are known still.
    pub previous_secrets: Vec<Secret>,
    /// The secret that other gateways use already, or soon.
    pub next_secret: Option<Secret>,
    /// What happens while the store cannot be written or reached.
    pub on_outage: OnOutage,
    /// How long [`OnOutage::Local`] holds; then it is as [`OnOutage::Refuse`].
    pub outage_max: Span,
}

impl Store {
    /// For how long a store that fails holds nothing up: not at all where `on_outage = "refuse"`.
    #[must_use]
    pub fn tolerates(&self) -> Span {
        match self.on_outage {
            OnOutage::Local => self.outage_max,
            OnOutage::Refuse => Span::ZERO,
        }
    }
}

/// `on_outage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutage {
    /// Sessions go on and begin by what this gateway knows; what happens is written once that is possible again.
    Local,
    /// What cannot be made safe is answered 503.
    Refuse,
}

/// What keeps the sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// `path = "off"`: memory alone, by choice.
    Memory,
    /// `path = "…"`, the default: the embedded store in this directory.
    Path(PathBuf),
    /// `redis = …`: several gateways share the sessions.
    Redis(Box<Redis>),
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest head of a request, in bytes.
    pub header_bytes: usize,
    /// Most that the cookie jar of one session may hold, in bytes, from 4 KiB to 1 MiB.
    pub jar_bytes: usize,
    /// Largest request body; `None` is off.
    pub body_bytes: Option<u64>,
    /// Most anonymous sessions.
    pub anonymous_sessions: usize,
    /// How long the value from before a rotation lives on.
    pub rotation_grace: Span,
    /// How long ended sessions are remembered.
    pub ended_kept: Span,
    /// Connecting to the upstream.
    pub connect_timeout: Span,
    /// From the request's end to the first byte of the upstream's answer.
    pub first_byte_timeout: Span,
    /// How long an idle connection to the upstream is kept.
    pub upstream_idle: Span,
}

/// `[drain]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Readiness is off for this long before listeners close.
    pub delay: Span,
    /// What is still in progress may finish within this time.
    pub timeout: Span,
}

/// `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: tracing::Level,
}

/// `[log] format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Config {
    /// Names of all headers by which the apps' sources learn identities; stripped from every request that does not
    /// come from a trusted proxy.
    #[must_use]
    pub fn identity_headers(&self) -> Vec<HeaderName> {
        use crate::session::identity::SourceKind;
        let mut names = Vec::new();
        for source in self.apps.iter().flat_map(|app| &app.identity) {
            if let SourceKind::ResponseHeader(n) | SourceKind::RequestHeader(n) = &source.kind {
                names.push(n.user.clone());
                names.extend(n.tenant.iter().chain(&n.roles).cloned());
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_known_whatever_its_case() {
        let post = MethodPath { method: Some("POST".to_owned()), path: Pattern::parse("/login").unwrap() };
        for (method, is_meant) in [("POST", true), ("post", true), ("PoSt", true), ("GET", false)] {
            assert_eq!(post.matches(method, "/login"), is_meant, "{method}");
            assert_eq!(post.matches_loosely(method, "/login", "/login"), is_meant, "{method}");
        }
    }
}
