//! What the app's answer says: who signed in, what became of the session; asks the app where a source wants it asked.

use http::header::SET_COOKIE;
use http::response::Parts;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};

use super::body::{Body, Bound, Upload, UploadState};
use super::forward::send;
use super::handle::Proxy;
use super::headers;
use super::learn::{self, Learned};
use super::set_cookies::ResponseCookies;
use super::sources::{self, Heard, Said};
use super::userinfo::Due;
use super::visit::Visit;
use super::{answer, userinfo};
use crate::session::identity::SourceKind;
use crate::session::record::Session;

impl Proxy {
    /// An answer to a request by which a session was adopted is bound to it from now on, as a stream is that may last
    /// for hours.
    pub(super) fn bind_adopted(&self, visit: &mut Visit) -> Option<Bound> {
        let (_, _, key) = visit.adopting.first()?;
        let (_, owner) = self.shared.table.look_up(*key, self.shared.clock.now());
        visit.session = Some((owner?, *key));
        self.bind(visit)
    }

    /// Learns from the response. An answer of our own replaces it when its session ended while the app was asked, and
    /// when a sign-in must be withheld altogether (`require_user`).
    pub(super) async fn learn(
        &self,
        visit: &mut Visit,
        head: &mut Parts,
    ) -> Result<(), (Response<Body>, &'static str)> {
        let table = &self.shared.table;
        let now = self.shared.clock.now();
        let mut cookies = ResponseCookies::read(&visit.app, &head.headers, &visit.path, now);
        visit.known_source = visit.session.as_ref().and_then(|(session, _)| {
            let signed_in =
                |s: &Session| s.times.signed_in_at.and(s.identity.as_ref()).map(|i| usize::from(i.source));
            table.inspect(session, now, signed_in)
        });
        let mut userinfo = None;
        if let Some(due) = userinfo::is_due(visit, &cookies, &self.shared.asked, now) {
            // Boxed, as everything that few requests wait for: a future is as large as the largest of its parts.
            userinfo = Box::pin(self.ask_userinfo(visit, &cookies, head, due)).await;
            if let Some(response) = self.ended_meanwhile(visit) {
                return Err((response, "ended"));
            }
            cookies = ResponseCookies::read(&visit.app, &head.headers, &visit.path, now);
        }
        let new_value = visit.form_user.is_some()
            && visit.session.as_ref().is_none_or(|(session, _)| {
                table.inspect(session, now, |s| cookies.session_keys().any(|key| !s.holds(key)))
            });
        let heard =
            Heard { status: head.status, headers: &head.headers, cookies: &cookies, new_value, userinfo };
        let named = sources::name(visit, &heard, now);
        let learned =
            learn::apply(table, visit, &cookies, &named, &mut head.headers, self.shared.clock.now());
        sources::strip_identity(&visit.app, &mut head.headers);
        headers::strip_location(&mut head.headers, &visit.host.name, &visit.app.id_parameters);
        headers::prepare_response(&mut head.headers);
        match learned {
            Learned::UserUnknown => {
                let title = "Cannot tell who signed in";
                Err((answer::problem(StatusCode::SERVICE_UNAVAILABLE, title, &[]), "user_unknown"))
            }
            Learned::Passes | Learned::Withheld => Ok(()),
        }
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
            let question = userinfo::question(visit, &path, cookies)?.map(|_| Upload::Empty);
            let pool = self.pool(&visit.app).for_holder();
            let (response, mut lease) =
                send(&pool, question, &UploadState::default(), userinfo::PATIENCE, || self.may_go_on(visit))
                    .await
                    .ok()?;
            let (parts, body) = response.into_parts();
            let bytes = Limited::new(body, userinfo::MAX_ANSWER_BYTES).collect().await.ok()?.to_bytes();
            lease.give_back();
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
