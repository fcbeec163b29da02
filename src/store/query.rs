//! Listing and revoking by filter, for the admin API and the pages.
//!
//! A listing walks a copy of pointers and settles each session it shows; pages are ordered by (`created_at`, id), so
//! that a cursor stays right while sessions come and go.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::cell::{Cell, SessionRef};
use super::table::{Table, UserKey};
use crate::session::identity::{Identity, UserCase};
use crate::session::record::{AppId, End, Session, State};
use crate::session::{Deadline, EndReason, Moment, SessionId, Times};

/// Which sessions are meant. Every member that is given must fit; names are compared in their normalised form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The app's name.
    pub app: Option<String>,
    /// The tenant: folded, and as it is written where that differs; each app's own case says which is meant.
    pub tenant: Option<Vec<String>>,
    /// The user, in the same way.
    pub user: Option<Vec<String>>,
    /// Cuts everything to this tenant, whatever else is asked.
    pub only_tenant: Option<String>,
    /// The address.
    pub ip: Option<IpAddr>,
    /// Where the session stands.
    pub state: Option<StateFilter>,
    /// Why it ended.
    pub reason: Option<EndReason>,
    /// One of these sessions.
    pub ids: Vec<SessionId>,
}

impl Filter {
    /// Whether nothing is asked for (what the caller is cut to aside): such a filter means everyone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let cut = Self { only_tenant: self.only_tenant.clone(), ..Self::default() };
        *self == cut
    }

    /// The tenants that users can be of, where that is asked for, in all spellings.
    fn tenants(&self) -> Option<&[String]> {
        self.tenant.as_deref().or_else(|| self.only_tenant.as_ref().map(std::slice::from_ref))
    }

    /// Whether all sessions, or the names of all users, are looked at to find what fits; `only_living` where sessions that go on
    /// are wanted alone, whatever the filter says.
    #[must_use]
    pub fn walks(&self, only_living: bool) -> bool {
        let is_indexed = (only_living || self.lives()) && self.user.is_some() && self.tenants().is_some();
        self.ids.is_empty() && !is_indexed
    }

    /// Whether only sessions that go on can fit.
    fn lives(&self) -> bool {
        matches!(self.state, Some(StateFilter::Active | StateFilter::Pending))
    }
}

/// For the audit: what was asked for, `everyone` where nothing was.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            f.write_str("everyone")?;
        }
        let first = |names: &Option<Vec<String>>| names.as_ref().and_then(|names| names.first().cloned());
        let members = [
            ("app", self.app.clone()),
            ("tenant", first(&self.tenant)),
            ("user", first(&self.user)),
            ("within_tenant", self.only_tenant.clone()),
            ("ip", self.ip.map(|ip| ip.to_string())),
            ("state", self.state.map(|state| state.as_str().to_owned())),
            ("reason", self.reason.map(|reason| reason.as_str().to_owned())),
            ("session", self.ids.first().map(ToString::to_string)),
        ];
        let mut given = members.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        given.try_for_each(|(name, value)| write!(f, " {name}={value:?}"))
    }
}

/// `state=` of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFilter {
    /// In use.
    Active,
    /// Held back.
    Pending,
    /// Over.
    Ended,
}

impl StateFilter {
    /// The API's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Ended => "ended",
        }
    }
}

/// Where a page begins: behind the session that was made then and has this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// `created_at` of the last session of the page before.
    pub created_at: Moment,
    /// Its id.
    pub id: SessionId,
}

/// One page of a listing.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// A session as people see it. Holds no token and no key.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// The public id.
    pub id: SessionId,
    /// The app's name.
    pub app: Arc<str>,
    /// Who signed in.
    pub identity: Option<Arc<Identity>>,
    /// Roles in force, the operator's included.
    pub roles: Vec<String>,
    /// Where it stands.
    pub state: StateFilter,
    /// Its times.
    pub times: Times,
    /// When it will end.
    pub deadline: Deadline,
    /// How it ended.
    pub end: Option<End>,
    /// Address at its beginning.
    pub ip: IpAddr,
    /// `User-Agent` at its beginning.
    pub user_agent: Arc<str>,
    /// Requests forwarded for it.
    pub requests: u64,
    /// WebSockets and event streams open now.
    pub live_connections: u32,
}

/// A user with the number of live sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserView {
    /// The user.
    pub user: String,
    /// The tenant.
    pub tenant: String,
    /// Apps with live sessions, sorted.
    pub apps: Vec<String>,
    /// Live sessions in all of them.
    pub sessions: usize,
    /// The latest activity.
    pub last_active_at: Moment,
}

/// What a revocation by filter did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevokeOutcome {
    /// Sessions that fitted the filter and had not ended.
    pub matched: usize,
    /// Those among them that this call ended.
    pub ended: Vec<SessionId>,
}

impl Table {
    /// One session as people see it.
    #[must_use]
    pub fn view(&self, session: &SessionRef, now: Moment) -> SessionView {
        self.view_cell(&session.0, now)
    }

    /// A page of the sessions that fit `filter`, oldest first, behind `after`; `limit` at least 1.
    #[must_use]
    pub fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
        now: Moment,
    ) -> Page<SessionView> {
        let limit = limit.max(1);
        let mut found: BTreeMap<Cursor, Arc<Cell>> = BTreeMap::new();
        for cell in self.candidates(filter, filter.lives()) {
            let Some(cursor) = self.fits(&cell, filter, now) else { continue };
            if after.is_some_and(|after| cursor <= after) {
                continue;
            }
            found.insert(cursor, cell);
            if found.len() > limit + 1 {
                found.pop_last();
            }
        }
        let more = found.len() > limit;
        let next = more.then(|| found.keys().nth(limit - 1).copied()).flatten();
        let items = found.values().take(limit).map(|cell| self.view_cell(cell, now)).collect();
        Page { items, next }
    }

    /// Ends every live or held-back session that fits `filter` and is not in `except`; with `dry_run` it only counts.
    pub fn revoke(
        &self,
        filter: &Filter,
        except: &[SessionId],
        dry_run: bool,
        by: &Arc<str>,
        now: Moment,
    ) -> RevokeOutcome {
        let mut outcome = RevokeOutcome::default();
        for cell in self.candidates(filter, true) {
            let Some(cursor) = self.fits(&cell, filter, now) else { continue };
            let over = self.with(&cell, now, |s| s.ended().is_some());
            if over || except.contains(&cursor.id) {
                continue;
            }
            outcome.matched += 1;
            if !dry_run && self.end(&SessionRef(cell), EndReason::Revoked, Some(Arc::clone(by)), now) {
                outcome.ended.push(cursor.id);
            }
        }
        outcome
    }

    /// Users with live sessions, ordered by (user, tenant), behind `after`: those of one of `tenants` whose name, in
    /// small letters, holds `contains`.
    #[must_use]
    pub fn users(
        &self,
        tenants: Option<&[String]>,
        contains: Option<&str>,
        after: Option<&(String, String)>,
        limit: usize,
        now: Moment,
    ) -> (Vec<UserView>, Option<(String, String)>) {
        let mut found: BTreeMap<(String, String), UserView> = BTreeMap::new();
        for cell in self.cells() {
            let live = self.with(&cell, now, |s| {
                let identity = s.identity.clone()?;
                s.is_live(now).then_some((identity, s.app, s.times.last_active_at))
            });
            let Some((identity, app, active)) = live else { continue };
            let key = (identity.user.clone(), identity.tenant.clone());
            let wanted = tenants.is_none_or(|known| known.contains(&identity.tenant))
                && contains.is_none_or(|part| identity.user.to_lowercase().contains(part))
                && after.is_none_or(|after| key > *after);
            if wanted {
                let app = self.bound.load().name(app);
                add_session(found.entry(key.clone()).or_insert_with(|| new_user(key)), &app, active);
                if found.len() > limit + 1 {
                    found.pop_last();
                }
            }
        }
        let next =
            (found.len() > limit).then(|| found.keys().nth(limit.saturating_sub(1)).cloned()).flatten();
        (found.into_values().take(limit).collect(), next)
    }

    /// The sessions that `filter` can fit: those with its ids, those of its users where only sessions that go on are
    /// asked for (the index holds no others), else all. Where the tenant is not known, the names of all users are looked at.
    fn candidates(&self, filter: &Filter, only_living: bool) -> Vec<Arc<Cell>> {
        if !filter.ids.is_empty() {
            return filter.ids.iter().filter_map(|id| self.cell_by_id(*id)).collect();
        }
        let Some(users) = filter.user.as_ref().filter(|_| only_living) else { return self.cells() };
        let wanted = |key: &UserKey| users.iter().any(|user| **user == *key.user);
        let of = |key: &UserKey| self.by_user.view(key, |_, cells| cells.clone()).unwrap_or_default();
        let keys = match filter.tenants() {
            Some(tenants) => self.keys_of(filter.app.as_deref(), tenants, users),
            None => self.users_indexed(wanted),
        };
        keys.iter().flat_map(of).collect()
    }

    /// All that the index could call users of these names in these tenants, in one app or in any.
    fn keys_of(&self, app: Option<&str>, tenants: &[String], users: &[String]) -> Vec<UserKey> {
        let bound = self.bound.load();
        let apps =
            bound.apps.iter().enumerate().filter(|(_, (name, _))| app.is_none_or(|app| **name == *app));
        let apps = apps.filter_map(|(number, _)| u16::try_from(number).ok().map(AppId));
        let pairs =
            |app| tenants.iter().flat_map(move |tenant| users.iter().map(move |user| (app, tenant, user)));
        let key = |(app, tenant, user): (AppId, &String, &String)| UserKey {
            app,
            tenant: tenant.as_str().into(),
            user: user.as_str().into(),
        };
        apps.flat_map(pairs).map(key).collect()
    }

    fn fits(&self, cell: &Arc<Cell>, filter: &Filter, now: Moment) -> Option<Cursor> {
        let bound = self.bound.load();
        self.with(cell, now, |s| {
            let identity = s.identity.as_deref();
            // `Ann` and `ann` are two people to an app that keeps the case.
            let meant = |spellings: &[String], name: &str| match bound.case(s.app) {
                UserCase::Fold => spellings.first().is_some_and(|spelling| spelling == name),
                UserCase::Exact => spellings.last().is_some_and(|spelling| spelling == name),
            };
            let fits = filter.app.as_deref().is_none_or(|app| *bound.name(s.app) == *app)
                && filter.only_tenant.as_deref().is_none_or(|t| identity.is_some_and(|i| i.tenant == t))
                && filter.tenant.as_ref().is_none_or(|t| identity.is_some_and(|i| meant(t, &i.tenant)))
                && filter.user.as_ref().is_none_or(|u| identity.is_some_and(|i| meant(u, &i.user)))
                && filter.ip.is_none_or(|ip| s.visitor.ip == ip)
                && filter.state.is_none_or(|state| state_of(s) == state)
                && filter.reason.is_none_or(|reason| s.ended().is_some_and(|end| end.reason == reason));
            fits.then_some(Cursor { created_at: s.times.created_at, id: s.id })
        })
    }

    fn view_cell(&self, cell: &Arc<Cell>, now: Moment) -> SessionView {
        let bound = self.bound.load();
        self.with(cell, now, |s| SessionView {
            id: s.id,
            app: bound.name(s.app),
            roles: s.identity.as_deref().map(|i| bound.book.roles_of(i)).unwrap_or_default(),
            identity: s.identity.clone(),
            state: state_of(s),
            times: s.times,
            deadline: s.deadline,
            end: s.ended().cloned(),
            ip: s.visitor.ip,
            user_agent: Arc::clone(&s.visitor.user_agent),
            requests: s.requests,
            live_connections: cell.live_connections(),
        })
    }
}

fn state_of(session: &Session) -> StateFilter {
    match session.state {
        State::Active => StateFilter::Active,
        State::Pending(_) => StateFilter::Pending,
        State::Ended(_) => StateFilter::Ended,
    }
}

fn new_user((user, tenant): (String, String)) -> UserView {
    UserView { user, tenant, apps: Vec::new(), sessions: 0, last_active_at: Moment::default() }
}

fn add_session(user: &mut UserView, app: &str, active: Moment) {
    user.sessions += 1;
    user.last_active_at = user.last_active_at.max(active);
    if let Err(at) = user.apps.binary_search_by(|known| known.as_str().cmp(app)) {
        user.apps.insert(at, app.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_index_answers_does_not_walk() {
        let some = |name: &str| Some(vec![name.to_owned()]);
        let of = |user, tenant, only_tenant| Filter { user, tenant, only_tenant, ..Filter::default() };
        let active = |filter| Filter { state: Some(StateFilter::Active), ..filter };
        let ended = |filter| Filter { state: Some(StateFilter::Ended), ..filter };
        let known = || of(some("ann"), some("acme"), None);
        for (filter, to_list, to_end) in [
            (Filter::default(), true, true),
            (active(of(some("ann"), None, None)), true, true),
            (active(of(None, some("acme"), None)), true, true),
            (known(), true, false),
            (ended(known()), true, false),
            (active(known()), false, false),
            (active(of(some("ann"), None, Some("acme".to_owned()))), false, false),
            (Filter { ids: vec![SessionId::from_u128(1)], ..Filter::default() }, false, false),
        ] {
            assert_eq!((filter.walks(false), filter.walks(true)), (to_list, to_end), "{filter}");
        }
    }
}
