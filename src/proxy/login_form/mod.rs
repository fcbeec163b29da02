//! Reads the user's name, and nothing else, out of a sign-in request (RULINGS R7).
//!
//! Apps differ in how they read a form, and whoever signs in chooses the bytes. So what two apps could read in two
//! ways is refused before the app sees it: the name must be the one that the app will read, or there is no sign-in.
//! Fields are found in any spelling under which some app would find them (`same_field`).

mod json;
mod multipart;
mod urlencoded;

#[cfg(test)]
mod tests;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use mime::Mime;

/// The longest sign-in body that is read, in bytes: a form, not an upload. A hidden field such as ASP.NET's
/// `__VIEWSTATE` may take tens of kilobytes.
pub const MAX_SIGN_IN_BODY: usize = 64 * 1024;

/// Why a sign-in request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormFault {
    /// More than one field could be the user's.
    #[error("the sign-in form names its user more than once")]
    Repeated,
    /// The body cannot be read in the way that it claims, or can be read in more than one way.
    #[error("the sign-in form is malformed")]
    Malformed,
    /// The name is a list, an object or holds control characters, or is no UTF-8.
    #[error("the user's name is not text")]
    NotText,
    /// A `Content-Encoding`, or a part's `Content-Transfer-Encoding`.
    #[error("an encoded sign-in form is not accepted")]
    Encoded,
    /// Another charset than UTF-8 is claimed.
    #[error("a sign-in form must be in UTF-8")]
    Charset,
    /// No form that is known.
    #[error("a sign-in form must be urlencoded, multipart or JSON")]
    Unsupported,
}

impl FormFault {
    /// The status of the refusal.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Repeated | Self::Malformed | Self::NotText => StatusCode::BAD_REQUEST,
            Self::Encoded | Self::Charset | Self::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }
}

/// The user that a sign-in request with this query and body names; `field` as in the configuration: a field's name,
/// or for JSON a pointer that begins with `/`.
///
/// # Errors
/// See [`FormFault`]. A request without the field is no fault: the app will refuse it.
pub fn user_of(
    headers: &HeaderMap,
    query: Option<&str>,
    body: &[u8],
    field: &str,
) -> Result<Option<String>, FormFault> {
    let mut found = Found::default();
    if let Some(query) = query {
        urlencoded::read_query(query, field, &mut found)?;
    }
    if !body.is_empty() {
        unencoded(headers)?;
        match kind(headers)? {
            Kind::UrlEncoded => urlencoded::read_body(body, field, &mut found)?,
            Kind::Multipart(boundary) => multipart::read(body, &boundary, field, &mut found)?,
            Kind::Json => json::read(body, field, &mut found)?,
        }
    }
    found.user()
}

/// The fields that could be the user's, in the order in which they came.
#[derive(Default)]
struct Found {
    first: Option<Result<String, FormFault>>,
    more: bool,
}

impl Found {
    fn add(&mut self, name: Result<String, FormFault>) {
        self.more |= self.first.is_some();
        self.first.get_or_insert(name);
    }

    fn add_bytes(&mut self, name: &[u8]) {
        self.add(std::str::from_utf8(name).map(str::to_owned).map_err(|_| FormFault::NotText));
    }

    fn user(self) -> Result<Option<String>, FormFault> {
        if self.more {
            return Err(FormFault::Repeated);
        }
        let user = self.first.transpose()?;
        // An app in C ends a name at its first NUL, others do not.
        match user.as_ref().is_some_and(|name| name.trim().chars().any(char::is_control)) {
            true => Err(FormFault::NotText),
            false => Ok(user),
        }
    }
}

enum Kind {
    UrlEncoded,
    Multipart(String),
    Json,
}

/// What the body is said to be. Without a `Content-Type` it is read as Rack does: as a form.
fn kind(headers: &HeaderMap) -> Result<Kind, FormFault> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let Some(first) = types.next() else { return Ok(Kind::UrlEncoded) };
    if types.next().is_some() {
        return Err(FormFault::Malformed);
    }
    let text = first.to_str().map_err(|_| FormFault::Malformed)?;
    let mime: Mime = text.parse().map_err(|_| FormFault::Malformed)?;
    utf8(&mime)?;
    match (mime.type_().as_str(), mime.subtype().as_str(), mime.suffix().map(|suffix| suffix.as_str())) {
        ("application", "x-www-form-urlencoded", _) => Ok(Kind::UrlEncoded),
        ("application" | "text", "json", _) | (_, _, Some("json")) => Ok(Kind::Json),
        ("multipart", "form-data", _) => boundary(&mime).map(Kind::Multipart),
        _ => Err(FormFault::Unsupported),
    }
}

fn boundary(mime: &Mime) -> Result<String, FormFault> {
    let mut boundaries = mime.params().filter(|(name, _)| *name == mime::BOUNDARY);
    match (boundaries.next(), boundaries.next()) {
        (Some((_, boundary)), None) => Ok(boundary.as_str().to_owned()),
        _ => Err(FormFault::Malformed),
    }
}

/// Every charset that is claimed must be UTF-8 or a part of it.
fn utf8(mime: &Mime) -> Result<(), FormFault> {
    let charsets = mime.params().filter(|(name, _)| *name == mime::CHARSET);
    let odd = charsets.into_iter().any(|(_, charset)| !is_utf8(charset.as_str()));
    if odd { Err(FormFault::Charset) } else { Ok(()) }
}

fn is_utf8(charset: &str) -> bool {
    ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| charset.trim().eq_ignore_ascii_case(known))
}

fn unencoded(headers: &HeaderMap) -> Result<(), FormFault> {
    let plain = |value: &http::HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    let all_plain = headers.get_all(CONTENT_ENCODING).iter().all(plain);
    if all_plain { Ok(()) } else { Err(FormFault::Encoded) }
}

/// Whether some app would find `field` under `name`: ASP.NET ignores case; PHP ignores white space before a name,
/// reads ` ` and `.` as `_`, and takes `user[]` and `user[x]` for `user`.
fn same_field(name: &[u8], field: &[u8]) -> bool {
    name == field || canonical(name).eq(canonical(field))
}

fn canonical(name: &[u8]) -> impl Iterator<Item = u8> {
    let name = name.trim_ascii_start();
    // PHP: a bracket that is never closed is read as `_`, so only a pair of them ends the name.
    let open = name.iter().position(|byte| *byte == b'[').filter(|at| *at > 0 && name[*at..].contains(&b']'));
    let plain = |byte: u8| if matches!(byte, b' ' | b'.' | b'[') { b'_' } else { byte.to_ascii_lowercase() };
    name[..open.unwrap_or(name.len())].iter().map(move |byte| plain(*byte))
}
