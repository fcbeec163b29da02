//! The pure core: no async, no IO, no clock, no lock, no log. Values in, values out.
//!
//! Words, decided once and used everywhere:
//!
//! | word | meaning |
//! |---|---|
//! | *token* | the secret value of a configured cookie; only its keyed hash is ever kept |
//! | *key* | that keyed hash ([`TokenKey`]) |
//! | *session* | the record of one login or one anonymous visit; its public [`SessionId`] is no credential |
//! | *identity* | user, tenant and roles, and the source that named them |
//! | *policy* | what a session is held to ([`Policy`]); *layers* say where each value comes from |
//! | *evidence* | what the presented tokens turned out to be |
//! | *verdict* | live, or over for a reason |
//! | *action* | what the gateway does with a request |
//! | *lesson* | what a response teaches about sessions |

pub mod activity;
pub mod chosen;
pub mod chunks;
pub mod cookie;
mod cookie_date;
pub mod device;
mod digits;
pub mod fields;
mod former;
pub mod gate;
pub mod harden;
pub mod identity;
pub mod jar;
pub mod keys;
pub mod layers;
pub mod lesson;
pub mod path;
pub mod policy;
pub mod preset;
pub mod profile;
mod random_hash;
pub mod record;
pub mod return_to;
mod time;
mod tokens;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use digits::Digits;

pub use policy::{Deadline, OnLimit, Policy, Times, Verdict, deadline, judge};
pub use random_hash::{BuildRandomHasher, RandomHasher};
pub use time::{Moment, Span};

/// The public, random name of a session. Not derived from its token and worth nothing as a credential.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Digits", into = "Digits")]
pub struct SessionId(u128);

impl SessionId {
    /// The id with this number.
    #[must_use]
    pub const fn from_u128(id: u128) -> Self {
        Self(id)
    }

    /// The number of this id.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }
}

/// 32 lower-case hexadecimal digits.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digits(self.0).fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The text is not a session id: 32 hexadecimal digits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session id is 32 hexadecimal digits")]
pub struct NotASessionId;

impl FromStr for SessionId {
    type Err = NotASessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|Digits(id)| Self(id)).map_err(|()| NotASessionId)
    }
}

/// The keyed hash of a token. It cannot be turned back into the token, and its `Debug` shows nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Digits", into = "Digits")]
pub struct TokenKey(pub [u8; 16]);

impl From<Digits> for SessionId {
    fn from(Digits(id): Digits) -> Self {
        Self(id)
    }
}

impl From<SessionId> for Digits {
    fn from(id: SessionId) -> Self {
        Self(id.0)
    }
}

impl From<Digits> for TokenKey {
    fn from(Digits(key): Digits) -> Self {
        Self(key.to_be_bytes())
    }
}

impl From<TokenKey> for Digits {
    fn from(key: TokenKey) -> Self {
        Self(u128::from_be_bytes(key.0))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// Why a session ended. A session ends once, for one reason. Stores keep the variants by their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its user was idle for too long.
    IdleTimeout,
    /// Its lifetime was over.
    ForceRelogin,
    /// Its user signed in elsewhere once too often.
    MaxConcurrent,
    /// Somebody ended it.
    Revoked,
    /// The app signed the user out.
    Logout,
    /// The same user signed in again in the same browser.
    Superseded,
    /// Another user signed in on the same session.
    AccountSwitched,
}

impl EndReason {
    /// All of them, for tables of metrics and tests.
    pub const ALL: [Self; 7] = [
        Self::IdleTimeout,
        Self::ForceRelogin,
        Self::MaxConcurrent,
        Self::Revoked,
        Self::Logout,
        Self::Superseded,
        Self::AccountSwitched,
    ];

    /// The contract's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle_timeout",
            Self::ForceRelogin => "force_relogin",
            Self::MaxConcurrent => "max_concurrent",
            Self::Revoked => "revoked",
            Self::Logout => "logout",
            Self::Superseded => "superseded",
            Self::AccountSwitched => "account_switched",
        }
    }

    /// Whether the person is told: the app's own doings are silent (R15).
    #[must_use]
    pub const fn is_told(self) -> bool {
        match self {
            Self::IdleTimeout | Self::ForceRelogin | Self::MaxConcurrent | Self::Revoked => true,
            Self::Logout | Self::Superseded | Self::AccountSwitched => false,
        }
    }

    /// Whether the same browser signed in again: it has, or is about to get, the cookie of another session.
    #[must_use]
    pub const fn is_by_sign_in(self) -> bool {
        matches!(self, Self::Superseded | Self::AccountSwitched)
    }

    /// Whether a navigation first meets a page that says why, instead of the login page at once.
    #[must_use]
    pub const fn has_page(self) -> bool {
        matches!(self, Self::MaxConcurrent | Self::Revoked)
    }
}

impl FromStr for EndReason {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or(())
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
