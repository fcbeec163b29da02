//! Which tenants and spellings of users the apps can yield, so that names in the policy and in roles mean one
//! person each (R7, R9).

use super::app::{self, ReadApp};
use super::raw::Value;
use crate::session::identity::{Names, SourceKind, UserCase, normal_name};

/// What the apps together say about names.
pub(super) struct Tenancy {
    /// How names of the policy are normalised: folded unless every app is exact.
    pub(super) case: UserCase,
    mixed: bool,
    only: Option<String>,
}

impl Tenancy {
    pub(super) fn of(apps: &[ReadApp]) -> Self {
        let exact = apps.iter().filter(|read| read.app.user_case == UserCase::Exact).count();
        let all_exact = exact > 0 && exact == apps.len();
        let first = apps.first().map(|read| read.app.tenant.clone());
        let one = apps.iter().all(|read| {
            let fixed = !read.app.identity.iter().any(|source| names_tenant(&source.kind));
            fixed && Some(&read.app.tenant) == first.as_ref()
        });
        Self {
            case: if all_exact { UserCase::Exact } else { UserCase::Fold },
            mixed: exact > 0 && !all_exact,
            only: first.filter(|_| one),
        }
    }

    /// A user's name in the form that sessions carry.
    pub(super) fn user(&self, value: &Value<'_>) -> Option<String> {
        self.name(value, "user")
    }

    /// A tenant's name in the form that sessions carry.
    pub(super) fn tenant(&self, value: &Value<'_>) -> Option<String> {
        self.name(value, "tenant")
    }

    fn name(&self, value: &Value<'_>, what: &str) -> Option<String> {
        let name = app::name(value, self.case)?;
        let exact = normal_name(value.as_text()?, UserCase::Exact).ok().flatten();
        if let Some(exact) = exact.filter(|exact| self.mixed && *exact != name) {
            let message = format!("{exact:?} would be another {what} to the app with user_case = \"exact\"");
            value.fault(message, "use the same user_case for all apps, or write the name in small letters");
        }
        Some(name)
    }

    /// The tenant of a user whom the file names without one.
    pub(super) fn only_tenant(&self, user: &Value<'_>) -> Option<String> {
        if self.only.is_none() {
            let hint = "say which: tenant = \"acme\" beside the user's name";
            user.sink.missing(&user.at, "needs a tenant: the apps can yield more than one", hint);
        }
        self.only.clone()
    }
}

fn names_tenant(kind: &SourceKind) -> bool {
    fn any<T>(names: &Names<T>) -> bool {
        names.tenant.is_some()
    }
    match kind {
        SourceKind::ResponseHeader(names) | SourceKind::RequestHeader(names) => any(names),
        SourceKind::UserInfo { names, .. } => any(names),
        SourceKind::JwtCookie { jwt, .. } | SourceKind::JwtHeader { jwt, .. } => any(&jwt.names),
        SourceKind::Cookie(names) => any(names),
        SourceKind::LoginForm(_) => false,
    }
}
