//! What stands behind each path.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::json;

use super::answer::Answer;
use super::form;
use super::sessions::{Person, Visit};
use super::switches::{Switches, WrongPassword};
use super::wire::Head;
use super::{MFA_CODE, PASSWORD, Shared};

/// What an exchange turns into.
pub enum Reply {
    /// An answer of known length.
    Whole(Answer),
    /// `/download`.
    Download {
        /// So many bytes.
        bytes: u64,
        /// After so many of them the app's gate is waited for.
        hold: Option<u64>,
        /// Chunked, with a trailer field at the end.
        trailers: bool,
    },
    /// `/events`.
    Events,
    /// `/ws`, when the handshake is accepted.
    WebSocket,
}

/// Everything a handler may look at.
pub struct Exchange<'a> {
    /// The app.
    pub app: &'a Shared,
    /// Its habits when the request came.
    pub s: &'a Switches,
    /// The request's head.
    pub head: &'a Head,
    /// Its body, up to a bound.
    pub body: &'a [u8],
    /// Its body's length.
    pub body_length: u64,
}

impl Exchange<'_> {
    /// Answers; `visit` carries the session in and the cookies out.
    pub async fn reply(&self, visit: &mut Visit) -> Reply {
        let whole = match (self.head.method.as_str(), &*self.path()) {
            ("POST", "/login") => self.sign_in(visit).await,
            ("POST", "/mfa") => self.second_step(visit).await,
            (_, "/login") => self.login_form(200),
            (_, "/mfa") => Answer::html(200, r#"<form method="post"><input name="code"></form>"#),
            (_, "/logout") => self.sign_out(visit),
            (_, "/") | (_, "/page") => self.page(visit),
            (_, "/me") => Self::me(visit),
            (_, "/api/whoami") if self.s.whoami_fails => Answer::json(500, &json!({ "error": "busy" })),
            (_, "/api/whoami") => Self::whoami(visit),
            (_, "/poll") => Answer::json(200, &json!({ "news": self.app.poll_count() })),
            (_, "/slow") => self.slow(visit).await,
            (_, "/upload") => Answer::json(200, &json!({ "bytes": self.body_length })),
            (_, "/echo") => self.echo(),
            (_, "/status") => {
                Answer::html(self.number("code").unwrap_or(200).try_into().unwrap_or(500), "As asked.")
            }
            (_, "/static/app.css") => {
                Answer::of(200, "text/css", "body { color: #222 }\n").with("Cache-Control", "max-age=60")
            }
            (_, "/download") => return self.download(),
            (_, "/events") => return Reply::Events,
            (_, "/ws") => return self.web_socket(),
            _ => Answer::html(404, "Nothing here."),
        };
        Reply::Whole(whole)
    }

    fn path(&self) -> Cow<'_, str> {
        let path = self.head.path();
        if self.s.any_spelling {
            let path = path.replace("/x/..;/", "/");
            let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
            let segments: Vec<_> = segments.filter(|segment| !segment.is_empty()).collect();
            return format!("/{}", segments.join("/").to_lowercase()).into();
        }
        if let Some((script, _)) = path.split_once(".php").filter(|_| self.s.scripts) {
            return script.into();
        }
        let path = if self.s.url_ids { path.split(';').next().unwrap_or(path) } else { path };
        path.into()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.head.query(name)?.parse().ok()
    }

    fn redirect(&self, status: u16, path: &str) -> Answer {
        match self.head.header("host") {
            Some(host) if self.s.absolute_location && path.starts_with('/') => {
                Answer::redirect(status, &format!("http://{host}{path}"))
            }
            _ => Answer::redirect(status, path),
        }
    }

    fn login_form(&self, status: u16) -> Answer {
        let field = &self.s.user_field;
        let form = format!(
            r#"<form method="post"><input name="{field}"><input name="password" type="password"></form>"#
        );
        Answer::html(status, &form).with("Cache-Control", "no-store")
    }

    async fn sign_in(&self, visit: &mut Visit) -> Answer {
        let fields = form::fields(self.head, self.body).await;
        let user = form::value(&fields, &self.s.user_field);
        if user.is_empty() || form::value(&fields, "password") != PASSWORD {
            return match self.s.wrong_password {
                WrongPassword::Ok200 => self.login_form(200),
                WrongPassword::Unauthorized401 => self.login_form(401),
                WrongPassword::Redirect302 => self.redirect(302, "/login?error=1"),
            };
        }
        if self.s.mfa {
            self.app.sessions.lock().half_way(self.s, visit, user);
            return self.redirect(302, "/mfa");
        }
        self.welcome(visit, user, &fields).await
    }

    async fn second_step(&self, visit: &mut Visit) -> Answer {
        let fields = form::fields(self.head, self.body).await;
        let user = self.app.sessions.lock().waiting(visit);
        match user {
            Some(user) if form::value(&fields, "code") == MFA_CODE => {
                self.welcome(visit, &user, &fields).await
            }
            Some(_) => self.redirect(302, "/mfa?error=1"),
            None => self.redirect(302, "/login"),
        }
    }

    /// Signs in; with `?hold` the answer waits at the app's gate.
    async fn welcome(&self, visit: &mut Visit, user: &str, fields: &[(String, String)]) -> Answer {
        self.app.sessions.lock().sign_in(self.s, visit, user);
        if self.head.query("hold").is_some() {
            self.app.wait_at_gate().await;
        }
        if self.s.login_status == 200 {
            return Answer::html(200, &format!("Welcome, {user}."));
        }
        let next = self.head.query("next").unwrap_or_else(|| form::value(fields, "next").to_owned());
        self.redirect(self.s.login_status, if next.is_empty() { "/" } else { &next })
    }

    fn sign_out(&self, visit: &mut Visit) -> Answer {
        self.app.sessions.lock().sign_out(self.s, visit);
        self.redirect(302, "/login")
    }

    fn page(&self, visit: &Visit) -> Answer {
        let path = self.head.path();
        match &visit.user {
            Some(user) => Answer::html(200, &format!("{path} of {user}")),
            None if path == "/" => self.redirect(302, "/login"),
            None => self.redirect(302, &format!("/login?next={path}")),
        }
    }

    fn me(visit: &Visit) -> Answer {
        let person = visit.user.as_deref().map(Person::named);
        let (tenant, roles) = person.map(|p| (p.tenant, p.roles)).unzip();
        Answer::json(200, &json!({ "user": visit.user, "tenant": tenant, "roles": roles }))
    }

    fn whoami(visit: &Visit) -> Answer {
        let Some(person) = visit.user.as_deref().map(Person::named) else {
            return Answer::json(401, &json!({ "error": "nobody" }));
        };
        let Person { user, tenant, roles } = person;
        Answer::json(200, &json!({ "user": { "email": user }, "tenant": tenant, "roles": roles }))
    }

    /// The app does not notice when the one who asked goes away: the session is saved all the same.
    async fn slow(&self, visit: &mut Visit) -> Answer {
        let before = visit.clone();
        match self.number("ms") {
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            None => self.app.wait_at_gate().await,
        }
        self.app.sessions.lock().finish_slow(self.s, &before, visit);
        Answer::json(200, &json!({ "slow": true, "user": before.user }))
    }

    fn echo(&self) -> Answer {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers: Vec<_> = self.head.headers.iter().map(|(name, value)| (name, text(value))).collect();
        let head = self.head;
        Answer::json(
            200,
            &json!({
                "method": head.method,
                "target": head.target,
                "version": format!("HTTP/1.{}", head.version),
                "headers": headers,
                "body": text(self.body),
            }),
        )
    }

    fn download(&self) -> Reply {
        Reply::Download {
            bytes: self.number("bytes").unwrap_or(1024),
            hold: self.number("hold"),
            trailers: self.number("trailers").is_some(),
        }
    }

    fn web_socket(&self) -> Reply {
        let asked =
            self.head.lists("upgrade", "websocket") && self.head.header("sec-websocket-key").is_some();
        match self.s.refuse_upgrade {
            Some(status) => Reply::Whole(Answer::html(status, "No sockets here.")),
            None if asked => Reply::WebSocket,
            None => Reply::Whole(Answer::html(426, "Only sockets here.").with("Upgrade", "websocket")),
        }
    }
}
