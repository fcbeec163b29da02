//! The gate: from what a request presents to what the gateway does with it.
//!
//! [`weigh`] turns the standings of all presented tokens into one piece of *evidence* and says which tokens may
//! travel on; [`decide`] turns evidence and facts into an *action*. Both are total functions of values.

use smallvec::SmallVec;

use super::activity::Kind;
use super::profile::CookieKind;
use super::{EndReason, SessionId};

/// What the table knows of one presented token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Never seen being issued, or forgotten.
    Unseen,
    /// Known, but no token of its session any more: an alias or a sibling past its grace.
    Stale,
    /// The value from before a sign-in, while requests may be under way with it (FIELD F9). Afterwards it is forgotten, so
    /// it is unseen.
    Replaced,
    /// A token of a live session.
    Live {
        /// Whose.
        session: SessionId,
        /// It is an alias: the value from before a rotation, within its grace. It never touches (R10).
        alias: bool,
    },
    /// The token of a session that is held back (`refuse`, `ask`).
    Pending {
        /// Whose.
        session: SessionId,
    },
    /// The token of a session that has ended.
    Ended {
        /// Whose.
        session: SessionId,
        /// Why it ended.
        reason: EndReason,
        /// Somebody had signed in on it.
        signed_in: bool,
        /// Its end was told on a navigation already.
        told: bool,
    },
    /// The store cannot say (R23).
    Unavailable,
}

/// What all presented tokens together amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// No configured cookie was presented.
    NoToken,
    /// What was presented cannot be read; it was dropped.
    Malformed,
    /// Only tokens that nobody saw being issued.
    Unseen,
    /// A live session; `alias` when only by the value from before a rotation.
    Live {
        /// Which one.
        session: SessionId,
        /// See [`Standing::Live`].
        alias: bool,
    },
    /// A session that is held back.
    Pending {
        /// Which one.
        session: SessionId,
    },
    /// A session that is over.
    Ended {
        /// Which one.
        session: SessionId,
        /// Why.
        reason: EndReason,
        /// Somebody had signed in on it.
        signed_in: bool,
        /// Told on a navigation before.
        told: bool,
    },
    /// The store cannot say.
    Unavailable,
}

/// One presented token with its standing.
#[derive(Clone, Copy, Debug)]
pub struct Weighed<'a> {
    /// The cookie's name.
    pub name: &'a [u8],
    /// What the cookie is to the app.
    pub kind: CookieKind,
    /// What the table knows of it.
    pub standing: Standing,
}

/// Which of the presented tokens travel on; by index.
pub type Kept = SmallVec<[bool; 4]>;

/// Weighs all presented tokens (R3): any live one counts, a session cookie's before a companion's, the first sent
/// before a later one; only live tokens of that one session travel on, and of duplicates of one cookie only one.
#[must_use]
pub fn weigh(tokens: &[Weighed<'_>], dropped: usize) -> (Evidence, Kept) {
    let mut kept: Kept = tokens.iter().map(|_| false).collect();
    if tokens.iter().any(|t| t.standing == Standing::Unavailable) {
        return (Evidence::Unavailable, kept);
    }
    if let Some((session, alias)) = live_session(tokens) {
        for index in 0..tokens.len() {
            kept[index] = is_best_of_its_name(tokens, index, session);
        }
        return (Evidence::Live { session, alias }, kept);
    }
    (dead_evidence(tokens, dropped), kept)
}

/// The session whose live token counts. A current value counts before an alias of the same kind.
fn live_session(tokens: &[Weighed<'_>]) -> Option<(SessionId, bool)> {
    let rank = |token: &Weighed<'_>| match token.standing {
        Standing::Live { session, alias } => Some((token.kind == CookieKind::Companion, alias, session)),
        Standing::Unseen
        | Standing::Stale
        | Standing::Replaced
        | Standing::Pending { .. }
        | Standing::Ended { .. }
        | Standing::Unavailable => None,
    };
    let ranked = tokens.iter().filter_map(rank);
    ranked
        .min_by_key(|(companion, alias, _)| (*companion, *alias))
        .map(|(_, alias, session)| (session, alias))
}

/// Of duplicates of one cookie only one may reach the app, or it could count another than we did (law 7): the first
/// current value, else the first alias.
fn is_best_of_its_name(tokens: &[Weighed<'_>], index: usize, session: SessionId) -> bool {
    let rank = |i: usize| match tokens[i].standing {
        Standing::Live { session: s, alias } if s == session && tokens[i].name == tokens[index].name => {
            Some((alias, i))
        }
        Standing::Live { .. }
        | Standing::Unseen
        | Standing::Stale
        | Standing::Replaced
        | Standing::Pending { .. }
        | Standing::Ended { .. }
        | Standing::Unavailable => None,
    };
    (0..tokens.len()).filter_map(rank).min().is_some_and(|(_, best)| best == index)
}

fn dead_evidence(tokens: &[Weighed<'_>], dropped: usize) -> Evidence {
    let mut best = match (tokens.is_empty(), dropped) {
        (true, 0) => Evidence::NoToken,
        (true, _) => Evidence::Malformed,
        (false, _) => Evidence::Unseen,
    };
    for token in tokens {
        match token.standing {
            Standing::Pending { session } if token.kind == CookieKind::Session => {
                return Evidence::Pending { session };
            }
            // An end that must be told counts before one that is silent; the first sent before a later one.
            Standing::Ended { session, reason, signed_in, told }
                if token.kind == CookieKind::Session && !is_untold(best) =>
            {
                best = Evidence::Ended { session, reason, signed_in, told };
            }
            Standing::Pending { .. }
            | Standing::Ended { .. }
            | Standing::Unseen
            | Standing::Stale
            | Standing::Replaced
            | Standing::Live { .. }
            | Standing::Unavailable => {}
        }
    }
    best
}

fn is_untold(evidence: Evidence) -> bool {
    matches!(evidence, Evidence::Ended { reason, signed_in: true, told: false, .. } if reason.is_told())
}

/// Where a request goes, as far as an end is answered differently there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The app's `login` page.
    Login,
    /// Where signing in happens.
    SignIn,
    /// The app's `logout`.
    Logout,
    /// No session is needed, made or renewed.
    Public,
    /// Everywhere else.
    Other,
}

impl Place {
    /// Whether a request here is never answered by an end (R15).
    #[must_use]
    pub const fn is_open(self) -> bool {
        match self {
            Self::Login | Self::SignIn | Self::Public => true,
            Self::Logout | Self::Other => false,
        }
    }
}

/// What to do with cookies that were never seen being issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// Strip and treat as anonymous.
    Refuse,
    /// Adopt what the app accepts (R14); for the roll-out only.
    Adopt,
}

/// The app's rules that [`decide`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Cookies never seen being issued.
    pub unseen: Unseen,
    /// Whether Basic or Bearer requests without a session cookie pass.
    pub pass_unidentified: bool,
    /// False: observe only (R17). The store then ends nothing by time or limit by itself.
    pub enforce: bool,
    /// The app's login page is known.
    pub has_login: bool,
}

/// What is known of a request besides its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What answer it expects.
    pub kind: Kind,
    /// Where it goes.
    pub place: Place,
    /// It counts as its user's activity.
    pub activity: bool,
    /// It carries Basic or Bearer credentials.
    pub credentials: bool,
}

/// How an end, or being held back, is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// 303 to the login page.
    Redirect,
    /// A short page that says why.
    Page,
    /// 401 with `application/problem+json`.
    Problem,
}

/// What the gateway does with a request. Tokens that are not kept are stripped whatever the action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forward for this live session.
    Forward {
        /// Whose.
        session: SessionId,
        /// The request renews the idle clock.
        touch: bool,
    },
    /// Forward without any session cookie.
    ForwardWithout,
    /// Forward with the unseen cookie; adopt it when the app accepts it (R14).
    Adopt,
    /// Tell the browser that its session has ended.
    Tell {
        /// Which session.
        session: SessionId,
        /// Why it ended.
        reason: EndReason,
        /// In which form.
        how: Telling,
    },
    /// Forward without the session cookie, and remember that the end was told: there is no known login page.
    TellByPassing {
        /// Which session.
        session: SessionId,
    },
    /// The session is held back: ask or refuse.
    HoldBack {
        /// Which one.
        session: SessionId,
        /// In which form.
        how: Telling,
    },
    /// 401: credentials in a header are no way round the session.
    RefuseUnidentified,
    /// 503: the store cannot say, and no cookie is touched.
    Unavailable,
}

/// Decides what to do with a request.
#[must_use]
pub fn decide(rules: &Rules, facts: &Facts, evidence: Evidence) -> Action {
    match evidence {
        Evidence::Unavailable => Action::Unavailable,
        Evidence::Live { session, alias } => {
            Action::Forward { session, touch: facts.activity && !alias && facts.place != Place::Public }
        }
        Evidence::Pending { session } if !facts.place.is_open() && facts.place != Place::Logout => {
            let how = if facts.kind == Kind::Navigation { Telling::Page } else { Telling::Problem };
            Action::HoldBack { session, how }
        }
        Evidence::Ended { session, reason, signed_in: true, told }
            if !facts.place.is_open() && reason.is_told() =>
        {
            tell(rules, facts, session, reason, told)
        }
        Evidence::Unseen if rules.unseen == Unseen::Adopt || !rules.enforce => Action::Adopt,
        Evidence::NoToken
        | Evidence::Malformed
        | Evidence::Unseen
        | Evidence::Pending { .. }
        | Evidence::Ended { .. } => without_session(rules, facts),
    }
}

fn without_session(rules: &Rules, facts: &Facts) -> Action {
    if facts.credentials && !rules.pass_unidentified && !facts.place.is_open() {
        return Action::RefuseUnidentified;
    }
    Action::ForwardWithout
}

fn tell(rules: &Rules, facts: &Facts, session: SessionId, reason: EndReason, told: bool) -> Action {
    match facts.kind {
        Kind::Fetch | Kind::WebSocket => Action::Tell { session, reason, how: Telling::Problem },
        // Told once on a navigation; from then on the token is none there (R15).
        Kind::Navigation if told => without_session(rules, facts),
        Kind::Navigation if reason.has_page() => Action::Tell { session, reason, how: Telling::Page },
        Kind::Navigation if rules.has_login => Action::Tell { session, reason, how: Telling::Redirect },
        Kind::Navigation => match without_session(rules, facts) {
            Action::ForwardWithout => Action::TellByPassing { session },
            refused => refused,
        },
    }
}
