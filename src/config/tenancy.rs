//! Which tenants and spellings of users the apps can yield, so that names in the policy and in roles mean one
//! person each (R7, R9).

use super::raw::Value;
use super::{App, Config, app};
use crate::session::identity::{Names, SourceKind, UserCase, normal_name};

/// What the apps together say about names.
pub struct Tenancy {
    /// How names of the policy are normalised: folded unless every app is exact.
    pub(super) case: UserCase,
    mixed: bool,
    only: Option<String>,
}

impl Tenancy {
    pub(super) fn of<'a>(apps: impl Iterator<Item = &'a App> + Clone) -> Self {
        let (all, first) = (apps.clone().count(), apps.clone().next().map(|app| app.tenant.clone()));
        let exact = apps.clone().filter(|app| app.user_case == UserCase::Exact).count();
        let one = apps.into_iter().all(|app| {
            let fixed = !app.identity.iter().any(|source| names_tenant(&source.kind));
            fixed && Some(&app.tenant) == first.as_ref()
        });
        Self {
            case: if exact > 0 && exact == all { UserCase::Exact } else { UserCase::Fold },
            mixed: exact > 0 && exact < all,
            only: first.filter(|_| one),
        }
    }

    /// A name in the form that sessions carry.
    ///
    /// # Errors
    /// What is wrong with it: it is none, or would mean another one to some app.
    pub fn normal(&self, text: &str) -> Result<String, String> {
        let read = |case| normal_name(text, case).map_err(|error| error.to_string());
        let name = read(self.case)?.ok_or_else(|| format!("{text:?} is no name"))?;
        match read(UserCase::Exact)?.filter(|exact| self.mixed && *exact != name) {
            None => Ok(name),
            Some(exact) => Err(format!(
                "{exact:?} would be another one to the app with user_case = \"exact\": write {name:?}, or use the \
                 same user_case for all apps"
            )),
        }
    }

    /// The one tenant that the apps can yield, where there is but one.
    #[must_use]
    pub fn only(&self) -> Option<&str> {
        self.only.as_deref()
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

impl Config {
    /// What the apps together say about names.
    #[must_use]
    pub fn tenancy(&self) -> Tenancy {
        Tenancy::of(self.apps.iter())
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
