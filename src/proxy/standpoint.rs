//! Where the session of a response stands at the moment of learning: it may have ended since the request was judged, or a
//! sign-in may have replaced the value that the request carried.

use super::visit::Visit;
use crate::session::gate::Place;
use crate::session::lesson::Carried;
use crate::session::record::Session;
use crate::session::{Moment, TokenKey};
use crate::store::{SessionRef, Table};

/// The session that a response speaks about, as it stands at this moment.
pub(super) struct Standpoint {
    /// Which one, and the token by which the request carried it.
    pub(super) session: Option<(SessionRef, TokenKey)>,
    /// Its record.
    pub(super) record: Option<Session>,
    /// Why there is none, where the request carried one.
    pub(super) lost: Option<Lost>,
}

/// What became of a session between request and response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It is over.
    Over,
    /// A sign-in replaced the value that the request carried (R10), before it was judged or after.
    Replaced,
    /// Neither: this is the answer of that very sign-in, and another one showed it before. The session is the one signed in on.
    Early,
}

impl Standpoint {
    /// What the request carried, as the lesson has it.
    pub(super) fn carried(&self) -> Carried<'_> {
        match self.lost {
            Some(Lost::Over) => {
                let end = self.record.as_ref().and_then(Session::ended);
                return Carried::Over { by_app: end.is_some_and(|end| !end.reason.is_told()) };
            }
            Some(Lost::Replaced) => return Carried::Replaced,
            Some(Lost::Early) => {
                let identity = self.record.as_ref().and_then(|record| record.identity.as_deref());
                return identity.map_or(Carried::Replaced, |identity| Carried::Early { identity });
            }
            None => {}
        }
        let (Some((_, key)), Some(record)) = (&self.session, &self.record) else { return Carried::Nothing };
        let current = record.is_current(*key);
        match record.identity.as_deref() {
            Some(identity) if record.times.signed_in_at.is_some() => Carried::SignedIn { identity, current },
            Some(_) | None => Carried::Anonymous { current },
        }
    }

    /// Somebody may have just signed in on the carried anonymous session.
    pub(super) fn signs_in(&self, visit: &Visit) -> bool {
        visit.place == Place::SignIn && matches!(self.carried(), Carried::Anonymous { .. })
    }

    /// Where the session of `visit` stands.
    pub(super) fn of_visit(table: &Table, visit: &Visit, now: Moment) -> Self {
        match visit.carried() {
            None if visit.overtaken => Self { session: None, record: None, lost: Some(Lost::Replaced) },
            carried => {
                let standpoint = Self::of(table, carried.clone(), visit.began, now);
                let is_lost = standpoint.lost.is_some() && visit.place == Place::SignIn;
                let early = is_lost.then(|| Self::of_early(table, &carried?.0, now)).flatten();
                early.unwrap_or(standpoint)
            }
        }
    }

    /// Where the session stands on which another answer has signed in whoever was signing in with `carried`.
    fn of_early(table: &Table, carried: &SessionRef, now: Moment) -> Option<Self> {
        let session = table.early_sign_in(carried, now)?;
        let record = table.read(&session, now);
        let key = record.current_tokens().first()?.key;
        Some(Self { session: Some((session, key)), record: Some(record), lost: Some(Lost::Early) })
    }

    /// Where the session stands whose token was live when the request was judged, at `began`.
    pub(super) fn of(
        table: &Table,
        session: Option<(SessionRef, TokenKey)>,
        began: Moment,
        now: Moment,
    ) -> Self {
        let none = |lost| Self { session: None, record: None, lost };
        let Some((session, key)) = session else { return none(None) };
        let record = table.read(&session, now);
        if record.is_forgotten() {
            return none(None);
        }
        let live = record.is_live(now);
        if live && !record.holds(key) && !is_rotated_away(&record, began) {
            return none(Some(Lost::Replaced));
        }
        Self { session: Some((session, key)), record: Some(record), lost: (!live).then_some(Lost::Over) }
    }
}

/// Whether a value that has been lost since `began` fell out by rotation: its grace is over, or more values than a session
/// holds came after it. Nobody has signed in since, so the answer still speaks about this session; its own values are too
/// late, as `rotate` says. Without a user it makes no difference who was first.
fn is_rotated_away(record: &Session, began: Moment) -> bool {
    record.times.signed_in_at.is_some_and(|at| at < began)
}
