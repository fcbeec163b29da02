//! What the app's answer says: who signed in, what became of the session; asks the app where a source wants it asked.

use http::HeaderMap;
use http::HeaderValue;
use http::header::SET_COOKIE;
use http::response::Parts;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};

use super::body::{Body, Bound};
use super::command;
use super::forward::send;
use super::handle::{Proxy, Shared};
use super::headers;
use super::keep;
use super::learn::{self, Learned, Over};
use super::set_cookies::{ResponseCookies, rule_of};
use super::site::AppSite;
use super::sources::{self, Heard, Said};
use super::upstream::Outgoing;
use super::userinfo::Due;
use super::visit::Visit;
use super::{answer, userinfo};

use crate::session::harden::harden;
use crate::session::identity::{Identity, SourceKind};
use crate::session::profile::CookieKind;
use crate::session::{Moment, TokenKey};

/// Adds what the app's session cookies lack (`harden`), before anything is learned from them: they are deleted with the
/// attributes that the browser has seen.
fn harden_cookies(app: &AppSite, headers: &mut HeaderMap, https: bool) {
    let options = app.config.harden;
    if options.is_empty() || !headers.contains_key(SET_COOKIE) {
        return;
    }
    let hardened = |field: &HeaderValue| {
        let is_session = rule_of(app, field).is_some_and(|rule| rule.kind == CookieKind::Session);
        let changed = if is_session { harden(field.as_bytes(), options, https) } else { None };
        changed.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()).unwrap_or_else(|| field.clone())
    };
    let fields: Vec<_> = headers.get_all(SET_COOKIE).iter().map(hardened).collect();
    headers.remove(SET_COOKIE);
    headers.extend(fields.into_iter().map(|field| (SET_COOKIE, field)));
}

impl Proxy {
    /// Has the browser forget a session that has ended with this very answer; one that ended before was told elsewhere, and by
    /// now the browser may have the cookies of another. After a sign-in that other one goes on with some of them.
    fn forget(&self, visit: &Visit, over: Over, head: &mut Parts, now: Moment) {
        match (over, &visit.session) {
            (Over::SignedOut, Some((session, _))) => {
                let ended = self.shared.table.read(session, now);
                answer::forget(visit, &ended, &mut head.headers);
            }
            (Over::SignedInAnew, _) | (Over::SignedOut, None) => {
                answer::clear(&visit.app, &mut head.headers);
            }
        }
    }

    /// An answer to a request by which a session was adopted is bound to it from now on, as a stream is that may last
    /// for hours.
    pub(super) fn bind_adopted(&self, visit: &mut Visit) -> Option<Bound> {
        let (_, _, key) = visit.adopting.first()?;
        let (_, owner) = self.shared.table.look_up(*key, self.shared.clock.now());
        visit.session = Some((owner?, *key));
        self.bind(visit)
    }

    /// Learns from the response. An answer of our own replaces it when its session ended while the app was asked, and
    /// when a sign-in must be withheld altogether (`require_user`). `now` is when its head had come.
    pub(super) async fn learn(
        &self,
        visit: &mut Visit,
        head: &mut Parts,
        mut now: Moment,
    ) -> Result<(), (Response<Body>, &'static str)> {
        let table = &self.shared.table;
        harden_cookies(&visit.app, &mut head.headers, visit.https);
        let mut cookies = ResponseCookies::read(&visit.app, table, &head.headers, &visit.path, now);
        let mut userinfo = None;
        if let Some(due) = userinfo::is_due(visit, &cookies, &self.shared.asked, now) {
            // Boxed, as everything that few requests wait for: a future is as large as the largest of its parts.
            userinfo = Box::pin(self.ask_userinfo(visit, &cookies, head, due)).await;
            now = self.shared.clock.now();
            if let Some(response) = self.ended_meanwhile(visit, now) {
                return Err((response, "ended"));
            }
            harden_cookies(&visit.app, &mut head.headers, visit.https);
            cookies = ResponseCookies::read(&visit.app, table, &head.headers, &visit.path, now);
        }
        let new_value = visit.form_user.is_some() && self.brings_new_value(visit, &cookies, head, now);
        let heard =
            Heard { status: head.status, headers: &head.headers, cookies: &cookies, new_value, userinfo };
        let named = sources::name(visit, &heard, now);
        if visit.form_user.is_some() {
            visit.app.metrics.habits.form(&visit.app.config.name, named.identity.is_some());
        }
        if table.is_shared() {
            Box::pin(self.ask_elsewhere(visit, &cookies, named.identity.as_ref())).await;
            now = self.shared.clock.now();
        }
        let (learned, over) = learn::apply(table, visit, &cookies, &named, &mut head.headers, now);
        let commanded = visit.app.config.app_commands && command::obey(table, visit, &head.headers, now);
        if let Some(over) = over.or(commanded.then_some(Over::SignedOut)) {
            self.forget(visit, over, head, now);
        }
        headers::strip_location(&mut head.headers, &visit.host.name, &visit.app.id_parameters);
        headers::prepare_response(&mut head.headers, |name| visit.app.identity_headers.contains(name));
        if (learned == Learned::PassesWhenSafe || commanded) && !self.is_safe(visit).await {
            let title = "The store cannot confirm this";
            return Err((answer::problem(StatusCode::SERVICE_UNAVAILABLE, title, &[]), "store"));
        }
        match learned {
            Learned::UserUnknown => {
                let title = "Cannot tell who signed in";
                Err((answer::problem(StatusCode::SERVICE_UNAVAILABLE, title, &[]), "user_unknown"))
            }
            Learned::JarFull => {
                let app = &visit.app.config.name;
                tracing::warn!(%app, "the app sets more cookies than limits.jar_bytes allow: its answer is withheld");
                let detail = "the app sets more cookies than limits.jar_bytes allow";
                let members = [("detail", Some(detail))];
                Err((answer::problem(StatusCode::BAD_GATEWAY, "Cookies do not fit", &members), "jar_full"))
            }
            Learned::Passes | Learned::PassesWhenSafe | Learned::Withheld => Ok(()),
        }
    }

    /// What other gateways know of the values that the answer sets, and of the user whom it names, is met before the lesson is
    /// drawn. A store that cannot say holds nothing up: what it knows is brought together when the change is stored.
    async fn ask_elsewhere(&self, visit: &Visit, cookies: &ResponseCookies, named: Option<&Identity>) {
        let (table, now) = (&self.shared.table, self.shared.clock.now());
        let keys: Vec<TokenKey> = cookies.tokens(table).into_iter().map(|token| token.key).collect();
        let _silent = table.ask(&keys, visit.client_ip, now).await;
        if let Some(identity) = named {
            table.meet(visit.app.id, identity, now).await;
        }
    }

    /// Waits until the store has what the answer changed. Returns whether the answer may go to the browser: `on_outage` says
    /// so while the store cannot tell.
    async fn is_safe(&self, visit: &Visit) -> bool {
        let Shared { table, trouble, clock, site, .. } = &*self.shared;
        if Box::pin(table.safe()).await.is_ok() {
            return true;
        }
        visit.app.metrics.unconfirmed();
        trouble.lasts(clock.now()).unwrap_or_default() < site.load().outage_max
    }

    fn brings_new_value(&self, visit: &Visit, cookies: &ResponseCookies, head: &Parts, now: Moment) -> bool {
        let table = &self.shared.table;
        if let Some(vault) = &visit.app.vault {
            return keep::brings_new_value(vault, table, visit, &head.headers, now);
        }
        visit.session.as_ref().is_none_or(|(session, _)| {
            table.inspect(session, now, |s| cookies.session_keys().any(|key| !s.holds(key)))
        })
    }

    /// Asks the app who the cookie is, where a source says so and it is time; what it sets joins the answer (R8).
    async fn ask_userinfo(
        &self,
        visit: &Visit,
        cookies: &ResponseCookies,
        head: &mut Parts,
        Due { index, path, value }: Due,
    ) -> Option<(usize, Said)> {
        let SourceKind::UserInfo { names, .. } = &visit.app.config.identity.get(index)?.kind else {
            return None;
        };
        let asking = async {
            let (table, now) = (&self.shared.table, self.shared.clock.now());
            let cookie = match &visit.app.vault {
                Some(vault) => keep::cookie_after(vault, table, visit, &head.headers, &path, now),
                None => userinfo::cookie_after(visit, cookies),
            };
            let mut question = Outgoing::bare(&userinfo::question(visit, &path, &cookie)?);
            let pool = self.pool(&visit.app).for_holder();
            let (parts, lease) =
                send(&pool, &mut question, userinfo::PATIENCE, || self.may_go_on(visit)).await.ok()?;
            let body = Limited::new(lease, userinfo::MAX_ANSWER_BYTES);
            let bytes = body.collect().await.ok()?.to_bytes();
            for field in parts.headers.get_all(SET_COOKIE) {
                head.headers.append(SET_COOKIE, field.clone());
            }
            Some(userinfo::read(parts.status, &bytes, names))
        };
        let said =
            tokio::time::timeout(userinfo::PATIENCE, asking).await.ok().flatten().unwrap_or(Said::Failed);
        if said == Said::Failed {
            self.shared.asked.failed(value);
        }
        Some((index, said))
    }
}
