//! Who signed in: the identity itself, the sources that may name one, and what counts as a successful sign-in.
//!
//! Sources are tried in the order of the configuration; the first that yields a user wins, and a session remembers
//! which one named its user (R8). The IO some of them need (bodies, userinfo, keys) stays outside.

use http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;

use super::path::Pattern;

/// The longest user, tenant or role name in bytes. Longer ones are refused, never cut (R7).
pub const MAX_NAME_BYTES: usize = 256;

/// The most roles that one identity may bring.
pub const MAX_ROLES: usize = 32;

/// Whom a session belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The user, normalised.
    pub user: String,
    /// The tenant; the app's default where no source names one.
    pub tenant: String,
    /// The roles that count for this session, sorted.
    pub roles: Vec<String>,
    /// Index of the source that named the user.
    pub source: u8,
}

/// How user names are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserCase {
    /// `Alice` and `alice` are one user (FIELD F16).
    Fold,
    /// Byte for byte, after trimming and NFKC.
    Exact,
}

/// A name is longer than [`MAX_NAME_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is longer than {MAX_NAME_BYTES} bytes")]
pub struct NameTooLong;

/// A name as the gateway keeps it: trimmed, NFKC, case-folded unless `case` is exact. `None` when nothing is left.
///
/// # Errors
/// [`NameTooLong`], before or after normalisation.
pub fn normal_name(raw: &str, case: UserCase) -> Result<Option<String>, NameTooLong> {
    if raw.len() > MAX_NAME_BYTES {
        return Err(NameTooLong);
    }
    let composed: String = raw.trim().nfkc().collect();
    let name = match case {
        // Folding can undo the composition, so compose again.
        UserCase::Fold => composed.to_lowercase().nfkc().collect(),
        UserCase::Exact => composed,
    };
    let name = name.trim().to_owned();
    if name.len() > MAX_NAME_BYTES {
        return Err(NameTooLong);
    }
    Ok((!name.is_empty() && !name.chars().any(char::is_control)).then_some(name))
}

/// Roles as an app names them in one value: separated by commas or white space.
pub fn split_roles(raw: &str) -> impl Iterator<Item = &str> {
    raw.split([',', ' ', '\t'])
        .filter(|role| !role.is_empty() && role.len() <= MAX_NAME_BYTES)
        .take(MAX_ROLES)
}

/// Three places from which user, tenant and roles are read; `None` where the source names none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names<T> {
    /// Where the user stands.
    pub user: T,
    /// Where the tenant stands.
    pub tenant: Option<T>,
    /// Where the roles stand.
    pub roles: Option<T>,
}

/// User, tenant and roles as a source wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The user; empty for nobody.
    pub user: String,
    /// The tenant.
    pub tenant: Option<String>,
    /// The roles.
    pub roles: Vec<String>,
}

impl Names<jsonptr::PointerBuf> {
    /// What stands in `document`; `None` where it names no user. Roles are a list of strings, or one string as
    /// [`split_roles`] reads it.
    #[must_use]
    pub fn read(&self, document: &Value) -> Option<Raw> {
        let text = |pointer: &jsonptr::PointerBuf| match pointer.resolve(document) {
            Ok(Value::String(text)) => Some(text.clone()),
            Ok(Value::Number(number)) => Some(number.to_string()),
            Ok(_) | Err(_) => None,
        };
        let user = text(&self.user).filter(|user| !user.trim().is_empty())?;
        let roles = self.roles.as_ref().and_then(|pointer| pointer.resolve(document).ok());
        Some(Raw {
            user,
            tenant: self.tenant.as_ref().and_then(text),
            roles: roles.map(json_roles).unwrap_or_default(),
        })
    }
}

fn json_roles(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => split_roles(text).map(str::to_owned).collect(),
        Value::Array(list) => {
            let names = list.iter().filter_map(Value::as_str);
            names.filter(|name| name.len() <= MAX_NAME_BYTES).take(MAX_ROLES).map(str::to_owned).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// One `[[app.identity]]`.
#[derive(Clone, Debug)]
pub struct SourceRule {
    /// What kind of source, with what it needs.
    pub kind: SourceKind,
    /// Whether roles from this source count at all (R9: `login-form` and `cookie` give none unless told so).
    pub grants_roles: bool,
}

/// The kinds of `[[app.identity]]`.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// The app names the user on any response; the browser never sees the headers.
    ResponseHeader(Names<HeaderName>),
    /// The field of a sign-in form, for an app that cannot be changed.
    LoginForm(LoginForm),
    /// The app is asked who a cookie is; members of its JSON answer as JSON pointers.
    UserInfo {
        /// Path at the upstream.
        path: String,
        /// JSON pointers (RFC 6901).
        names: Names<jsonptr::PointerBuf>,
    },
    /// A verified JWT in a cookie that the app sets; claims as names or JSON pointers.
    JwtCookie {
        /// The cookie's name.
        name: String,
        /// How it is verified and read.
        jwt: JwtRule,
    },
    /// A verified JWT in a request header (`Bearer ` is taken off).
    JwtHeader {
        /// The header's name.
        name: HeaderName,
        /// How it is verified and read.
        jwt: JwtRule,
    },
    /// A second cookie, as the app sets it; never as a request brings it.
    Cookie(Names<String>),
    /// From a trusted proxy only.
    RequestHeader(Names<HeaderName>),
}

impl SourceKind {
    /// The configuration's spelling.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ResponseHeader(_) => "response-header",
            Self::LoginForm(_) => "login-form",
            Self::UserInfo { .. } => "userinfo",
            Self::JwtCookie { .. } => "jwt-cookie",
            Self::JwtHeader { .. } => "jwt-header",
            Self::Cookie(_) => "cookie",
            Self::RequestHeader(_) => "request-header",
        }
    }
}

/// `from = "login-form"`.
#[derive(Clone, Debug)]
pub struct LoginForm {
    /// Where the form is posted to.
    pub path: Pattern,
    /// The field that names the user.
    pub user: String,
    /// What shows that the sign-in succeeded.
    pub success: Success,
}

/// What shows that a sign-in succeeded: all parts that are given must hold.
#[derive(Clone, Debug, Default)]
pub struct Success {
    /// The answer has one of these statuses; empty for any below 400.
    pub status: Vec<u16>,
    /// The answer's `Location` path matches none of these patterns (`*` may stand at the end).
    pub location_not: Option<String>,
    /// The answer's `Location` path matches this pattern.
    pub location: Option<String>,
    /// What the answer must set.
    pub sets_cookie: SetsCookie,
}

/// Which cookie the answer to a sign-in must set (R7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SetsCookie {
    /// The session cookie.
    #[default]
    Session,
    /// The session cookie, or one of these.
    Named(Vec<String>),
    /// None; such a sign-in counts only on a session without a user.
    NotNeeded,
}

impl Success {
    /// Whether an answer with this `status` and `location` shows success, cookies aside.
    #[must_use]
    pub fn holds(&self, status: StatusCode, location: Option<&str>) -> bool {
        let status_fits = if self.status.is_empty() {
            status.as_u16() < 400
        } else {
            self.status.contains(&status.as_u16())
        };
        let path = location.map(location_path);
        let not = self.location_not.as_deref();
        let avoids = not.is_none_or(|pattern| path.is_none_or(|p| !fits(pattern, p)));
        let wanted = self.location.as_deref();
        let reaches = wanted.is_none_or(|pattern| path.is_some_and(|p| fits(pattern, p)));
        status_fits && avoids && reaches
    }
}

/// The path and query of a `Location`, absolute or relative.
fn location_path(location: &str) -> &str {
    match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => location,
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == pattern || path.split('?').next() == Some(pattern),
    }
}

/// How a JWT is verified (R8: issuer, audience and algorithms are required, `exp` is checked) and read.
#[derive(Clone, Debug)]
pub struct JwtRule {
    /// Where the keys come from.
    pub keys: JwtKeys,
    /// The required `iss`.
    pub issuer: String,
    /// The required `aud`.
    pub audience: String,
    /// The allowed algorithms; the token's header never widens them.
    pub algorithms: Vec<jsonwebtoken::Algorithm>,
    /// Claims: a plain name, or a JSON pointer.
    pub names: Names<jsonptr::PointerBuf>,
}

/// Where the keys of a [`JwtRule`] come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// A JWKS fetched from this URL and cached.
    Jwks(String),
    /// The text of a PEM public key.
    Pem(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        for (raw, fold, exact) in [
            (" Alice ", Some("alice"), Some("Alice")),
            ("\u{ff21}nn", Some("ann"), Some("Ann")),
            ("  ", None, None),
            ("a\u{0}b", None, None),
        ] {
            assert_eq!(normal_name(raw, UserCase::Fold).unwrap().as_deref(), fold);
            assert_eq!(normal_name(raw, UserCase::Exact).unwrap().as_deref(), exact);
        }
        assert_eq!(normal_name(&"x".repeat(257), UserCase::Fold), Err(NameTooLong));
    }

    #[test]
    fn success_needs_every_part() {
        let rule =
            Success { status: vec![302, 303], location_not: Some("/login*".into()), ..Success::default() };
        let found = StatusCode::FOUND;
        for (status, location, holds) in [
            (found, Some("/home"), true),
            (found, Some("http://a.example/home"), true),
            (found, Some("http://a.example/login?error"), false),
            (found, Some("/login"), false),
            (StatusCode::OK, Some("/home"), false),
        ] {
            assert_eq!(rule.holds(status, location), holds, "{status} {location:?}");
        }
        assert!(Success::default().holds(StatusCode::OK, None));
        assert!(!Success::default().holds(StatusCode::UNAUTHORIZED, None));
    }
}
