//! The configuration as the data path reads it: apps by host, with everything derived once.
//!
//! A [`Site`] is immutable and shared by all workers behind an `ArcSwap`; a request loads it once and keeps to it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;

use crate::config::{App, Config, MethodPath};
use crate::session::activity::Asked;
use crate::session::gate::{Place, Rules, Unseen};
use crate::session::identity::{Names, SourceKind};
use crate::session::path::{IdParameters, NormalPath, loosened};
use crate::session::preset::Preset;
use crate::session::profile::{CookieKind, CookieRule, NamePattern};
use crate::session::record::AppId;
use crate::session::{Moment, Span};
use crate::store::{Keyring, Secrets, Table};
use crate::telemetry::{AppMetrics, Metrics};

use super::jwt::Verifier;
use super::pool::PoolSettings;
use crate::vault::Vault;

/// Everything the data path needs of one configuration.
pub struct Site {
    /// The apps, in the order of the configuration.
    pub apps: Vec<Arc<AppSite>>,
    /// Peers whose forwarding and identity headers count.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Headers that name identities; stripped unless a trusted proxy sends them.
    pub identity_headers: Vec<HeaderName>,
    /// Largest head of a request.
    pub header_bytes: usize,
    /// Largest request body; `None` is off.
    pub body_bytes: Option<u64>,
    /// From the request's end to the first byte of the upstream's answer.
    pub first_byte_timeout: Duration,
    /// For how long a store that fails holds nothing up.
    pub outage_max: Span,
}

/// One app with what follows from its configuration.
pub struct AppSite {
    /// Its number in the store.
    pub id: AppId,
    /// Its configuration.
    pub config: App,
    /// Makes keys of its tokens.
    pub keys: Keyring,
    /// What [`crate::session::gate::decide`] reads; see [`AppSite::rules_at`].
    rules: Rules,
    /// Its counters.
    pub metrics: Arc<AppMetrics>,
    /// An identity source reads `Authorization`: to come with a token is a way of signing in.
    pub reads_credentials: bool,
    /// The headers by which it names its user in answers: the browser never sees them.
    pub identity_headers: Vec<HeaderName>,
    /// Names of parameters that its server reads as the session id (FIELD F11).
    pub id_parameters: IdParameters,
    /// How its upstream is reached, by one worker.
    pub pool: PoolSettings,
    /// Path of `login`, without its query.
    login_path: Option<String>,
    /// Custody of its cookies, where the browser does not hold them.
    pub vault: Option<Vault>,
    /// One entry for each identity source; the verifier where it is a JWT.
    pub verifiers: Vec<Option<Verifier>>,
}

/// What a process decides once for all its sites.
#[derive(Clone)]
pub struct MadeWith {
    /// How many workers share an app's connections.
    pub workers: usize,
    /// How TLS upstreams are verified.
    pub upstream_tls: Arc<rustls::ClientConfig>,
}

fn pool_settings(config: &Config, app: &App, made_with: &MadeWith) -> PoolSettings {
    PoolSettings {
        upstream: app.upstream.clone(),
        max_connections: app.max_upstream_connections.get().div_ceil(made_with.workers.max(1)),
        idle: config.limits.upstream_idle.to_std(),
        connect_timeout: config.limits.connect_timeout.to_std(),
        tls: app.upstream.iter().any(|u| u.tls).then(|| Arc::clone(&made_with.upstream_tls)),
    }
}

impl Site {
    /// Builds the site of `config`. `verifier` yields the verifier of a JWT source.
    #[must_use]
    pub fn new(
        config: &Config,
        table: &Table,
        secrets: &Secrets,
        metrics: &Metrics,
        made_with: &MadeWith,
        verifier: &mut dyn FnMut(&SourceKind) -> Option<Verifier>,
    ) -> Self {
        let apps = config.apps.iter().map(|app| {
            let verifiers = app.identity.iter().map(|source| verifier(&source.kind)).collect();
            Arc::new(AppSite {
                id: table.app_id(&app.name).unwrap_or(AppId(u16::MAX)),
                keys: Keyring::new(secrets, &app.name),
                rules: Rules {
                    unseen: app.unseen,
                    pass_unidentified: app.pass_unidentified,
                    enforce: app.enforce,
                    has_login: app.login.is_some(),
                },
                metrics: metrics.app(&app.name),
                identity_headers: identity_headers(app),
                id_parameters: id_parameters(app),
                reads_credentials: app.identity.iter().any(|source| {
                    matches!(&source.kind, SourceKind::JwtHeader { name, .. } if name == AUTHORIZATION)
                }),
                login_path: app.login.as_deref().map(|l| l.split('?').next().unwrap_or(l).to_owned()),
                verifiers,
                pool: pool_settings(config, app, made_with),
                vault: Vault::of(app, config.limits.jar_bytes),
                config: app.clone(),
            })
        });
        Self {
            apps: apps.collect(),
            trusted_proxies: config.listen.trusted_proxies.clone(),
            identity_headers: config.identity_headers(),
            header_bytes: config.limits.header_bytes,
            body_bytes: config.limits.body_bytes,
            first_byte_timeout: config.limits.first_byte_timeout.to_std(),
            outage_max: config.store.tolerates(),
        }
    }

    /// The app that serves `host` (without port, lower case): an exact name before a wildcard before the app
    /// without hosts.
    #[must_use]
    pub fn app_for(&self, host: &str) -> Option<&Arc<AppSite>> {
        let exact = |app: &&Arc<AppSite>| app.config.hosts.iter().any(|h| h == host);
        let wild = |app: &&Arc<AppSite>| {
            let under = |h: &String| h.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix));
            app.config.hosts.iter().any(under)
        };
        let find = |fits: &dyn Fn(&&Arc<AppSite>) -> bool| self.apps.iter().find(|app| fits(app));
        find(&exact).or_else(|| find(&wild)).or_else(|| find(&|app| app.config.hosts.is_empty()))
    }
}

fn identity_headers(app: &App) -> Vec<HeaderName> {
    let named = app.identity.iter().filter_map(|source| match &source.kind {
        SourceKind::ResponseHeader(names) => Some(names),
        SourceKind::LoginForm(_)
        | SourceKind::UserInfo { .. }
        | SourceKind::JwtCookie { .. }
        | SourceKind::JwtHeader { .. }
        | SourceKind::Cookie(_)
        | SourceKind::RequestHeader(_) => None,
    });
    let all = |names: &Names<HeaderName>| {
        let others = names.tenant.iter().chain(&names.roles);
        std::iter::once(&names.user).chain(others).cloned().collect::<Vec<_>>()
    };
    named.flat_map(all).collect()
}

/// `jsessionid` for everybody; the names of the cookies where the framework reads them there, or nobody knows it.
fn id_parameters(app: &App) -> IdParameters {
    let named = |is_read: fn(&Preset) -> bool| {
        let mut names = vec!["jsessionid".to_owned()];
        if app.preset.is_none_or(is_read) {
            let session = app.cookies.iter().filter(|rule| rule.kind == CookieKind::Session);
            names.extend(session.filter_map(|rule| match &rule.name {
                NamePattern::Exact(name) if !name.eq_ignore_ascii_case("jsessionid") => Some(name.clone()),
                NamePattern::Exact(_) | NamePattern::Prefix(_) => None,
            }));
        }
        names
    };
    IdParameters { path: named(|preset| preset.ids_in_path), query: named(|preset| preset.ids_in_query) }
}

impl AppSite {
    /// What [`crate::session::gate::decide`] reads at this moment: cookies are adopted during the roll-out alone (R14).
    #[must_use]
    pub(super) fn rules_at(&self, now: Moment) -> Rules {
        let is_over = self.config.adopt_until.is_some_and(|until| now >= until);
        Rules { unseen: if is_over { Unseen::Refuse } else { self.rules.unseen }, ..self.rules }
    }

    /// The cookies to look for in a request that came over https, or over http.
    #[must_use]
    pub fn presented(&self, https: bool) -> &[CookieRule] {
        self.vault.as_ref().map_or(&self.config.cookies, |vault| vault.presented(https))
    }

    /// Where a request goes. Signing in and out come first: a pattern of `public` must not hide them.
    #[must_use]
    pub fn place(&self, asked: &Asked<'_>, path: &NormalPath) -> Place {
        // An app that takes no notice of case, path parameters or slashes must not be signed in to unseen.
        let (method, loose) = (asked.method.as_str(), loosened(&path.path));
        let fits = |rule: &MethodPath| rule.matches_loosely(method, &path.path, &loose);
        if self.config.sign_in.iter().any(fits) {
            return Place::SignIn;
        }
        if self.config.logout.as_ref().is_some_and(fits) {
            return Place::Logout;
        }
        if self.login_path.as_deref() == Some(path.path.as_str()) {
            return Place::Login;
        }
        if !path.ambiguous && self.config.public.iter().any(|pattern| pattern.matches(&path.path)) {
            return Place::Public;
        }
        Place::Other
    }
}
