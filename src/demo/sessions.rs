//! The app's own sessions: a map from the cookie's value to who signed in. Nothing in it ever expires.

use std::collections::{HashMap, VecDeque};

use crate::session::Moment;

/// When there are more, the one made first is forgotten.
const MAX_SESSIONS: usize = 1024;

/// Somebody who may sign in: name, password, and what the pages call them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: &'static str,
    password: &'static str,
    pub(super) full_name: &'static str,
}

const USERS: &[User] = &[
    User { name: "ann", password: "ann", full_name: "Ann Archer" },
    User { name: "bob", password: "bob", full_name: "Bob Baker" },
    User { name: "admin", password: "admin", full_name: "The administrator" },
];

/// The user with this name and password.
pub(super) fn authenticate(name: &str, password: &str) -> Option<&'static User> {
    let name = name.trim();
    USERS.iter().find(|user| user.name.eq_ignore_ascii_case(name) && user.password == password)
}

/// Who signed in, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignedIn {
    pub(super) user: &'static User,
    pub(super) at: Moment,
}

/// All sessions of the app; a visitor has one before signing in as well.
#[derive(Default)]
pub(super) struct Sessions {
    by_id: HashMap<String, Option<SignedIn>>,
    in_order: VecDeque<String>,
}

impl Sessions {
    /// Makes a session and returns its id; `None` when the system has no random bytes.
    pub(super) fn open(&mut self, signed_in: Option<SignedIn>) -> Option<String> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        let id = format!("{:032X}", u128::from_be_bytes(bytes));
        self.by_id.insert(id.clone(), signed_in);
        self.in_order.push_back(id.clone());
        if self.in_order.len() > MAX_SESSIONS
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        Some(id)
    }

    /// Whether there is such a session, signed in or not.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// Who signed in on this session.
    pub(super) fn signed_in(&self, id: &str) -> Option<SignedIn> {
        self.by_id.get(id).copied().flatten()
    }

    /// Forgets a session.
    pub(super) fn close(&mut self, id: &str) {
        self.by_id.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_signs_in() {
        assert_eq!(authenticate(" Ann ", "ann").map(|user| user.name), Some("ann"));
        assert_eq!(authenticate("ann", "bob"), None);
        assert_eq!(authenticate("", ""), None);
    }

    #[test]
    fn sessions_are_bounded_and_the_first_goes_first() {
        let mut sessions = Sessions::default();
        let first = sessions.open(None).unwrap();
        let second = sessions.open(None).unwrap();
        for _ in 0..MAX_SESSIONS - 1 {
            sessions.open(None).unwrap();
        }
        assert!(!sessions.knows(&first) && sessions.knows(&second));
        assert_eq!(sessions.by_id.len(), MAX_SESSIONS);
    }
}
