//! Asks the identity sources who signed in, in the order of the configuration; the first that yields a user wins.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::headers;
use super::learn::Named;
use super::set_cookies::ResponseCookies;
use super::site::AppSite;
use super::visit::Visit;
use crate::session::Moment;
use crate::session::identity::{
    Identity, LoginForm, Names, Raw, SetsCookie, SourceKind, SourceRule, normal_name, split_roles,
};

/// What one source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It names this user.
    User(Raw),
    /// It names nobody.
    Nobody,
    /// It could not be read, verified or reached.
    Failed,
}

/// A response as the sources read it.
pub(super) struct Heard<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What it sets.
    pub cookies: &'a ResponseCookies,
    /// It sets a session cookie to a value that the carried session does not hold.
    pub new_value: bool,
    /// What the app said when it was asked, where it was.
    pub userinfo: Option<(usize, Said)>,
}

/// Whom the sources name for a response.
#[must_use]
pub(super) fn name(visit: &Visit, heard: &Heard<'_>, now: Moment) -> Named {
    let mut named = Named::default();
    for (index, source) in visit.app.config.identity.iter().enumerate() {
        let said = ask(visit, index, source, heard, now);
        if said == Said::Failed {
            visit.app.metrics.identity_failure(source.kind.as_str());
            named.failed = true;
        }
        if said == Said::Nobody
            && visit.known_source == Some(index)
            && speaks_always(&source.kind, heard, index)
        {
            named.source_silent = true;
        }
        let Said::User(raw) = said else { continue };
        match identity(&visit.app, index, source, raw) {
            Ok(Some(identity)) => {
                named.identity = Some(identity);
                named.failed = false;
                return named;
            }
            Ok(None) => {}
            Err(_) => {
                visit.app.metrics.identity_failure(source.kind.as_str());
                named.failed = true;
            }
        }
    }
    named
}

/// Whether silence of this source means that nobody is signed in: it would have spoken on this response (R10).
fn speaks_always(kind: &SourceKind, heard: &Heard<'_>, index: usize) -> bool {
    match kind {
        SourceKind::ResponseHeader(_) => true,
        SourceKind::UserInfo { .. } => heard.userinfo.as_ref().is_some_and(|(asked, _)| *asked == index),
        SourceKind::LoginForm(_)
        | SourceKind::JwtCookie { .. }
        | SourceKind::JwtHeader { .. }
        | SourceKind::Cookie(_)
        | SourceKind::RequestHeader(_) => false,
    }
}

fn ask(visit: &Visit, index: usize, source: &SourceRule, heard: &Heard<'_>, now: Moment) -> Said {
    match &source.kind {
        SourceKind::ResponseHeader(names) => from_headers(names, heard.headers),
        SourceKind::LoginForm(form) => from_form(visit, index, form, heard),
        SourceKind::UserInfo { .. } => match &heard.userinfo {
            Some((asked, said)) if *asked == index => said.clone(),
            Some(_) | None => Said::Nobody,
        },
        SourceKind::JwtCookie { name, .. } => match heard.cookies.value_of(name) {
            Some(token) => verify(&visit.app, index, &token, now),
            None => Said::Nobody,
        },
        SourceKind::Cookie(names) => from_cookies(names, heard.cookies),
        SourceKind::JwtHeader { .. } | SourceKind::RequestHeader(_) => match &visit.request_said {
            Some((asked, said)) if *asked == index => said.clone(),
            Some(_) | None => Said::Nobody,
        },
    }
}

/// What the request itself says, by a verified token or a trusted proxy's headers; asked before it is forwarded.
#[must_use]
pub(super) fn of_request(
    app: &AppSite,
    headers: &HeaderMap,
    trusted: bool,
    now: Moment,
) -> Option<(usize, Said)> {
    let mut failed = None;
    for (index, source) in app.config.identity.iter().enumerate() {
        let said = match &source.kind {
            SourceKind::RequestHeader(names) if trusted => from_headers(names, headers),
            SourceKind::JwtHeader { name, .. } => match headers.get(name).map(HeaderValue::to_str) {
                Some(Ok(text)) => bearer(text).map_or(Said::Nobody, |token| verify(app, index, token, now)),
                Some(Err(_)) => Said::Failed,
                None => Said::Nobody,
            },
            SourceKind::RequestHeader(_)
            | SourceKind::ResponseHeader(_)
            | SourceKind::LoginForm(_)
            | SourceKind::UserInfo { .. }
            | SourceKind::JwtCookie { .. }
            | SourceKind::Cookie(_) => Said::Nobody,
        };
        match said {
            Said::User(_) => return Some((index, said)),
            // A later source may know better: of two providers, each verifies its own tokens alone.
            Said::Failed => failed = failed.or(Some((index, said))),
            Said::Nobody => {}
        }
    }
    failed
}

/// The token, alone or after `Bearer`; `None` where the header carries another kind of credentials, or nothing.
fn bearer(text: &str) -> Option<&str> {
    let token = match text.trim().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        Some(_) => return None,
        None => text.trim(),
    };
    (!token.is_empty() && !token.eq_ignore_ascii_case("bearer")).then_some(token)
}

fn verify(app: &AppSite, index: usize, token: &str, now: Moment) -> Said {
    let Some(Some(verifier)) = app.verifiers.get(index) else { return Said::Failed };
    match verifier.verify(token, now) {
        Ok(claims) => Said::User(claims),
        Err(fault) => {
            tracing::debug!(app = %app.config.name, fault = fault.label(), "a token was not accepted");
            Said::Failed
        }
    }
}

fn from_headers(names: &Names<HeaderName>, headers: &HeaderMap) -> Said {
    // As it is of most answers.
    if !headers::holds(headers, &names.user) {
        return Said::Nobody;
    }
    let text =
        |name: &HeaderName| headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    let mut values = headers.get_all(&names.user).iter();
    let user = match (values.next(), values.next()) {
        (Some(_), None) => text(&names.user).unwrap_or_default(),
        // Two users in one answer: nobody can say who is meant.
        (Some(_), Some(_)) => return Said::Failed,
        (None, _) => return Said::Nobody,
    };
    if user.trim().is_empty() {
        return Said::Nobody;
    }
    Said::User(Raw {
        user,
        tenant: names.tenant.as_ref().and_then(text),
        roles: names
            .roles
            .as_ref()
            .and_then(text)
            .map(|roles| split_roles(&roles).map(str::to_owned).collect())
            .unwrap_or_default(),
    })
}

fn from_cookies(names: &Names<String>, cookies: &ResponseCookies) -> Said {
    let text = |name: &String| {
        let value = cookies.value_of(name)?;
        Some(percent_encoding::percent_decode_str(&value).decode_utf8_lossy().into_owned())
    };
    match text(&names.user) {
        Some(user) if !user.trim().is_empty() => Said::User(Raw {
            user,
            tenant: names.tenant.as_ref().and_then(text),
            roles: names
                .roles
                .as_ref()
                .and_then(text)
                .map(|roles| split_roles(&roles).map(str::to_owned).collect())
                .unwrap_or_default(),
        }),
        Some(_) | None => Said::Nobody,
    }
}

/// The form counts only if the predicate holds *and* the answer sets what it must (R7).
fn from_form(visit: &Visit, index: usize, form: &LoginForm, heard: &Heard<'_>) -> Said {
    let Some((asked, user)) = &visit.form_user else { return Said::Nobody };
    let location = heard.headers.get(http::header::LOCATION).and_then(|l| l.to_str().ok());
    if *asked != index || !form.success.holds(heard.status, location) {
        return Said::Nobody;
    }
    // On a session that has a user the old value again says nothing: apps set it anew at every answer.
    if visit.known_source.is_some() && !heard.new_value {
        return Said::Nobody;
    }
    let sets = match &form.success.sets_cookie {
        SetsCookie::Session => heard.cookies.sets_session(),
        SetsCookie::Named(names) => {
            heard.cookies.sets_session() || names.iter().any(|name| heard.cookies.value_of(name).is_some())
        }
        SetsCookie::NotNeeded => visit.known_source.is_none(),
    };
    match sets {
        false => Said::Nobody,
        // Somebody has signed in, and the form did not say who.
        true if user.trim().is_empty() => Said::Failed,
        true => Said::User(Raw { user: user.clone(), ..Raw::default() }),
    }
}

/// The identity as the gateway keeps it. `None` when the name is empty.
///
/// # Errors
/// A name that is too long; it is refused, never cut (R7).
pub(super) fn identity(
    app: &AppSite,
    index: usize,
    source: &SourceRule,
    raw: Raw,
) -> Result<Option<Identity>, crate::session::identity::NameTooLong> {
    let Some(user) = normal_name(&raw.user, app.config.user_case)? else { return Ok(None) };
    let tenant = match raw.tenant {
        Some(tenant) => normal_name(&tenant, app.config.user_case)?,
        None => None,
    };
    let mut roles = if source.grants_roles { raw.roles } else { Vec::new() };
    roles.sort();
    roles.dedup();
    let source = u8::try_from(index).unwrap_or(u8::MAX);
    let tenant = tenant.unwrap_or_else(|| app.config.tenant.clone());
    Ok(Some(Identity { user, tenant, roles, source }))
}
