//! What the gateway remembers of one request until its response has been learned from.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use http::header::{COOKIE, USER_AGENT};
use http::request::Parts;

use super::host::AskedHost;
use super::intake::{Cookie, Intake};
use super::site::AppSite;
use super::sources::Said;
use crate::session::activity::Kind;
use crate::session::cookie::Attributes;
use crate::session::gate::{Action, Place};
use crate::session::jar;
use crate::session::record::{CookieShape, NewToken, Session};
use crate::session::{Moment, TokenKey};
use crate::store::{SessionRef, Table};

/// The longest `User-Agent` that is kept, in bytes.
pub(super) const MAX_USER_AGENT_BYTES: usize = 512;

/// One request on its way through the gateway.
pub(super) struct Visit {
    /// Whose.
    pub app: Arc<AppSite>,
    /// When it was judged.
    pub began: Moment,
    /// Where it goes.
    pub place: Place,
    /// What answer it expects.
    pub kind: Kind,
    /// The head as it came, without what its `Connection` names.
    pub head: Parts,
    /// The normalised path.
    pub path: String,
    /// The query as forwarded.
    pub query: Option<String>,
    /// The session's last activity before this request, where the app may say that this was none.
    pub active_before: Option<Moment>,
    /// The browser came over https, to us or to a trusted proxy before us.
    pub https: bool,
    /// The host that the browser asked.
    pub host: Rc<AskedHost>,
    /// The live session whose token travels upstream, and that token.
    pub session: Option<(SessionRef, TokenKey)>,
    /// The session that was presented though its token does not travel on: it is held back, or over.
    pub stopped: Option<SessionRef>,
    /// A dead token of somebody's ended session was presented.
    pub after_end: bool,
    /// A value was presented that a sign-in had just replaced: the browser has a better one by now, or is about to.
    pub overtaken: bool,
    /// The client's address, as far as it can be trusted.
    pub client_ip: IpAddr,
    /// The `Cookie` header as forwarded.
    pub cookie: Cookie,
    /// The user of a sign-in form, with the index of its source; empty where the form named nobody.
    pub form_user: Option<(usize, String)>,
    /// What the request itself says, with the index of its source: a trusted proxy's headers, or a verified token.
    pub request_said: Option<(usize, Said)>,
    /// The source that named the carried session's user.
    pub known_source: Option<usize>,
    /// The ended session whose end is told by letting the request pass.
    pub passed_end: Option<Box<Session>>,
    /// Unseen tokens that travel on: rule index, name and key.
    pub adopting: Vec<(usize, String, TokenKey)>,
    /// Names of the chunks that it brought, read or left over: an end deletes them with their cookie.
    pub chunks: Vec<String>,
    /// Another site's page had the browser send it, by a method that changes something: then no cookie that is `SameSite=Lax`
    /// came with it, ours not either.
    pub is_foreign_write: bool,
}

impl Visit {
    /// Path and query as forwarded, for the way back.
    #[must_use]
    pub(super) fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// The `Cookie` header as forwarded. SECURITY: secret.
    #[must_use]
    pub(super) fn cookie(&self) -> Option<&[u8]> {
        match &self.cookie {
            Cookie::AsItCame => self.head.headers.get(COOKIE).map(HeaderValue::as_bytes),
            Cookie::Written(cookie) => cookie.as_deref(),
        }
    }

    /// Takes over what the intake found: which session's token travels on, and what is being adopted.
    pub(super) fn carry(&mut self, intake: &mut Intake) {
        let forwards = matches!(intake.action, Action::Forward { .. });
        let session = intake.session.take();
        (self.session, self.stopped) =
            if forwards { (session.zip(intake.key), None) } else { (None, session) };
        self.after_end = intake.after_end;
        self.overtaken = intake.overtaken;
        self.adopting = std::mem::take(&mut intake.adopting);
        self.chunks = std::mem::take(&mut intake.chunks);
        self.cookie = std::mem::take(&mut intake.cookie);
        self.active_before = intake.active_before;
    }

    /// The session that was presented, whether its token is to travel on or not.
    #[must_use]
    pub(super) fn presented(&self) -> Option<&SessionRef> {
        self.session.as_ref().map(|(session, _)| session).or(self.stopped.as_ref())
    }

    /// What a browser's cookie jar goes by.
    #[must_use]
    pub(super) fn site(&self) -> jar::Site<'_> {
        self.host.site(&self.path, self.https)
    }

    /// `User-Agent` as it is kept: readable, and cut at [`MAX_USER_AGENT_BYTES`].
    #[must_use]
    pub(super) fn user_agent(&self) -> String {
        let Some(value) = self.head.headers.get(USER_AGENT) else { return String::new() };
        let bytes = value.as_bytes();
        let cut = &bytes[..bytes.len().min(MAX_USER_AGENT_BYTES)];
        String::from_utf8_lossy(cut).chars().filter(|c| !c.is_control()).collect()
    }

    /// The live session that the request carried.
    #[must_use]
    pub(super) fn carried(&self) -> Option<(SessionRef, TokenKey)> {
        self.session.clone()
    }

    /// The tokens that are being adopted, with the attributes most apps use: nobody saw how they were set.
    #[must_use]
    pub(super) fn adopted_tokens(&self, table: &Table) -> Vec<NewToken> {
        let token = |(rule, name, key): &(usize, String, TokenKey)| {
            // In a vault the first rule is that of our own cookie.
            let rule = rule.checked_sub(usize::from(self.app.vault.is_some()))?;
            let kind = self.app.config.cookies.get(rule)?.kind;
            let attributes = Attributes { path: "/".to_owned(), ..Attributes::default() };
            Some(NewToken {
                key: *key,
                kind,
                shape: table.intern(CookieShape { name: name.clone(), attributes }),
            })
        };
        self.adopting.iter().filter_map(token).collect()
    }
}
