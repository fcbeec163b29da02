//! What of a session outlives the process: the form in which stores, replicas and exports hold it.
//!
//! Stores write it with postcard, where members are known by their place: a new member goes to the end, so that an older
//! gateway reads what it knows and leaves the rest. Anything else is a new version of the envelope around it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AppId, CookieShape, Mode, Observed, Session, State, Visitor};
use crate::session::identity::Identity;
use crate::session::tokens::{TokenImage, Tokens};
use crate::session::{Moment, OnLimit, Policy, SessionId, Span, Times, deadline};

/// A session without what belongs to one process: the number of its app, and the jar, which is sealed on its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its public name.
    pub id: SessionId,
    /// The app's name.
    pub app: String,
    /// From which its deadline is computed.
    pub times: Times,
    /// `idle_timeout` that it was held to: its deadline follows from it until newer terms are taken on (R1).
    idle_timeout: Option<Span>,
    /// `force_relogin` that it was held to.
    force_relogin: Option<Span>,
    mode: Mode,
    /// Where it stands.
    pub state: State,
    /// Who signed in.
    pub identity: Option<Identity>,
    visitor: Visitor,
    pub(super) generation: u32,
    adopted: bool,
    pub(super) returned: bool,
    pub(super) observed: Observed,
    /// Requests forwarded for it.
    pub requests: u64,
    pub(super) tokens: Vec<TokenImage>,
}

impl Session {
    /// The session as stores hold it; `app` is the name of its app. `None` once it was forgotten.
    #[must_use]
    pub fn image(&self, app: &str) -> Option<Image> {
        (!self.is_forgotten()).then(|| Image {
            id: self.id,
            app: app.to_owned(),
            times: self.times,
            idle_timeout: self.policy.idle_timeout,
            force_relogin: self.policy.force_relogin,
            mode: self.mode,
            state: self.state.clone(),
            identity: self.identity.as_deref().cloned(),
            visitor: self.visitor.clone(),
            generation: self.generation,
            adopted: self.adopted,
            returned: self.returned,
            observed: self.observed,
            requests: self.requests,
            tokens: self.tokens.images(),
        })
    }
}

impl Image {
    /// The session again, of the app with this number. It is held to what it was held to before, under a number `epoch` of
    /// the book that has to be older than the one in force: whoever looks at it first judges it by its old deadline, then
    /// takes on the new terms (R1).
    #[must_use]
    pub fn restore(
        self,
        app: AppId,
        epoch: u32,
        intern: &mut dyn FnMut(CookieShape) -> Arc<CookieShape>,
    ) -> Session {
        let policy = Policy {
            idle_timeout: self.idle_timeout,
            force_relogin: self.force_relogin,
            max_concurrent: None,
            on_limit: OnLimit::EndOldest,
        };
        Session {
            id: self.id,
            app,
            times: self.times,
            deadline: deadline(&policy, &self.times),
            policy,
            mode: self.mode,
            epoch,
            state: self.state,
            identity: self.identity.map(Arc::new),
            visitor: self.visitor,
            generation: self.generation,
            adopted: self.adopted,
            requests: self.requests,
            jar: None,
            tokens: Tokens::from_images(self.tokens, intern),
            returned: self.returned,
            forgotten: false,
            observed: self.observed,
            adopted_terms: false,
            elsewhere: None,
        }
    }

    /// Takes over an activity that was noted apart from the rest. One that came later than the rest was written counts.
    pub fn active(&mut self, at: Moment, requests: u64) {
        self.times.last_active_at = self.times.last_active_at.max(at);
        self.requests = self.requests.max(requests);
    }
}
