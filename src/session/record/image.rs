//! What of a session outlives the process: the form in which stores, replicas and exports hold it.
//!
//! Stores write it with postcard, where members are known by their place: a new member goes to the end, so that an older
//! gateway reads what it knows and leaves the rest. Anything else is a new version of the envelope around it.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::{AppId, CookieShape, Mode, Observed, Session, State, Visitor};
use crate::session::identity::Identity;
use crate::session::tokens::{TokenImage, Tokens};
use crate::session::{Moment, OnLimit, Policy, SessionId, Span, Times, TokenKey, deadline};

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
    /// Former keys of tokens, each with the key that the token has now.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "at_the_end")]
    pub(super) former: Vec<(TokenKey, TokenKey)>,
}

/// What the records of older programs do not have at their end, and those of this one only where there is something: it has to
/// be written in any case once another member stands behind it. That a record is whole is known before it is read.
fn at_the_end<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(T::deserialize(from).unwrap_or_default())
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
            former: self.tokens.former(),
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
            tokens: Tokens::from_images(self.tokens, self.former, intern),
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::session::cookie::Attributes;
    use crate::session::profile::CookieKind;
    use crate::session::record::{NewToken, Terms};

    #[test]
    fn former_keys_stand_behind_what_older_programs_know() {
        let visitor = Visitor { ip: IpAddr::from([127, 0, 0, 1]), user_agent: "x".into() };
        let terms = Terms { policy: Policy::default(), mode: Mode::Enforce, epoch: 0 };
        let mut session = Session::new(SessionId::from_u128(1), AppId(0), terms, visitor, Moment::default());
        let shape = CookieShape { name: "sid".into(), attributes: Attributes::default() };
        let [old, new] = [1, 2].map(|n| TokenKey([n; 16]));
        let token = NewToken { key: old, kind: CookieKind::Session, shape: Arc::new(shape) };
        session.replace(&[token], Span::ZERO, Moment::default());
        let plain = postcard::to_allocvec(&session.image("app").unwrap()).unwrap();
        session.rekey(old, new);
        let image = session.image("app").unwrap();
        let bytes = postcard::to_allocvec(&image).unwrap();
        assert_eq!(bytes.len(), plain.len() + 1 + 2 * 16, "a count and a pair");
        for (bytes, former) in [(&plain, vec![]), (&bytes, vec![(old, new)])] {
            let (read, rest) = postcard::take_from_bytes::<Image>(bytes).unwrap();
            assert_eq!((read.former, rest.len()), (former, 0));
        }
        let line = serde_json::to_string(&image).unwrap();
        assert_eq!(serde_json::from_str::<Image>(&line).unwrap(), image);
    }
}
