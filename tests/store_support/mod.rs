//! Shared by the store suite and the simulation: short ways to tables, tokens and identities.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tenure::session::cookie::Attributes;
use tenure::session::identity::{Identity, UserCase};
use tenure::session::layers::Layers;
use tenure::session::profile::CookieKind;
use tenure::session::record::{AppId, CookieShape, Mode, NewToken, Visitor};
use tenure::session::{EndReason, Moment, Policy, Span, TokenKey};
use tenure::store::{AppRules, Book, Event, EventKind, Newcomer, Observer, Table};

/// When every test begins.
pub const AT: Moment = Moment::from_unix_ms(1_750_000_000_000);

pub fn secs(n: u64) -> Span {
    Span::from_secs(n)
}

/// Remembers every event.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<EventKind>>);

impl Observer for Recorder {
    fn observe(&self, event: &Event) {
        self.0.lock().push(event.kind.clone());
    }
}

impl Recorder {
    pub fn kinds(&self) -> Vec<EventKind> {
        self.0.lock().clone()
    }

    pub fn ends(&self) -> Vec<EndReason> {
        let end = |kind: EventKind| match kind {
            EventKind::Ended { reason, .. } => Some(reason),
            _ => None,
        };
        self.kinds().into_iter().filter_map(end).collect()
    }
}

pub fn book(base: Policy) -> Book {
    Book {
        layers: Layers { base, ..Layers::default() },
        apps: vec![AppRules { name: "app".into(), mode: Mode::Enforce, case: UserCase::Fold }],
        roles: BTreeMap::new(),
        rotation_grace: secs(10),
        anonymous_sessions: 1000,
        ended_kept: secs(30 * 24 * 3600),
        ended_kept_until: Moment::default(),
    }
}

pub fn table(base: Policy) -> Table {
    Table::new(book(base), Arc::new(Recorder::default()))
}

pub fn key(n: u64) -> TokenKey {
    let mut bytes = [7; 16];
    // Spread over the hash's high bits as a keyed hash would.
    bytes[..8].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    bytes[8..].copy_from_slice(&n.to_le_bytes());
    TokenKey(bytes)
}

pub fn token(n: u64) -> NewToken {
    let attributes = Attributes { path: "/".into(), ..Attributes::default() };
    let shape = CookieShape { name: "sid".into(), attributes };
    NewToken { key: key(n), kind: CookieKind::Session, shape: Arc::new(shape) }
}

/// A cookie that signs browsers in again.
pub fn companion(n: u64) -> NewToken {
    let shape = CookieShape { name: "remember".into(), attributes: Attributes::default() };
    NewToken { key: key(n), kind: CookieKind::Companion, shape: Arc::new(shape) }
}

pub fn newcomer(values: &[u64]) -> Newcomer {
    Newcomer {
        app: AppId(0),
        tokens: values.iter().map(|n| token(*n)).collect(),
        jar: None,
        visitor: Visitor { ip: IpAddr::from([192, 0, 2, 1]), user_agent: "test".into() },
        adopted: false,
        recycles: Some(Moment::MAX),
    }
}

pub fn identity(user: &str) -> Identity {
    Identity { user: user.into(), tenant: "default".into(), roles: vec![], source: 0 }
}
