//! The fields of a request's head that the gateway reads of every request, found in one pass.
//!
//! On its way a request is asked for a score of fields, of which it has few. To look each of them up costs more than to
//! read all names once.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A field that is read of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what they are named")]
pub enum Field {
    Accept,
    AccessControlRequestMethod,
    Authorization,
    Connection,
    ContentLength,
    Cookie,
    Expect,
    Forwarded,
    Host,
    Purpose,
    SecFetchMode,
    SecFetchSite,
    SecPurpose,
    TransferEncoding,
    Upgrade,
    XForwardedFor,
    XForwardedProto,
    XMoz,
}

/// How many there are.
const COUNT: usize = Field::XMoz as usize + 1;

impl Field {
    fn of(name: &HeaderName) -> Option<Self> {
        Some(match name.as_str() {
            "accept" => Self::Accept,
            "access-control-request-method" => Self::AccessControlRequestMethod,
            "authorization" => Self::Authorization,
            "connection" => Self::Connection,
            "content-length" => Self::ContentLength,
            "cookie" => Self::Cookie,
            "expect" => Self::Expect,
            "forwarded" => Self::Forwarded,
            "host" => Self::Host,
            "purpose" => Self::Purpose,
            "sec-fetch-mode" => Self::SecFetchMode,
            "sec-fetch-site" => Self::SecFetchSite,
            "sec-purpose" => Self::SecPurpose,
            "transfer-encoding" => Self::TransferEncoding,
            "upgrade" => Self::Upgrade,
            "x-forwarded-for" => Self::XForwardedFor,
            "x-forwarded-proto" => Self::XForwardedProto,
            "x-moz" => Self::XMoz,
            _ => return None,
        })
    }
}

/// The head of one request.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    headers: &'a HeaderMap,
    first: [Option<&'a HeaderValue>; COUNT],
    /// A bit for each field that came more than once.
    repeated: u32,
    bytes: usize,
}

impl<'a> Fields<'a> {
    /// Reads the names of all fields.
    #[must_use]
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self { headers, first: [None; COUNT], repeated: 0, bytes: 0 };
        for (name, value) in headers {
            fields.bytes += name.as_str().len() + value.len() + ": \r\n".len();
            let Some(field) = Field::of(name) else { continue };
            match &mut fields.first[field as usize] {
                Some(_) => fields.repeated |= 1 << field as u32,
                first @ None => *first = Some(value),
            }
        }
        fields
    }

    /// All fields.
    #[must_use]
    pub const fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// How many bytes all fields are, as HTTP/1.1 writes them.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the head has this field.
    #[must_use]
    pub const fn has(&self, field: Field) -> bool {
        self.first[field as usize].is_some()
    }

    /// Whether the head has this field more than once.
    #[must_use]
    pub const fn is_repeated(&self, field: Field) -> bool {
        self.repeated & (1 << field as u32) != 0
    }

    /// The value of this field; the first one where there are several.
    #[must_use]
    pub const fn first(&self, field: Field) -> Option<&'a HeaderValue> {
        self.first[field as usize]
    }

    /// The same as text, where it is text.
    #[must_use]
    pub fn text(&self, field: Field) -> Option<&'a str> {
        self.first(field).and_then(|value| value.to_str().ok())
    }

    /// All values of this field, in the order sent.
    pub fn all(&self, field: Field) -> impl Iterator<Item = &'a HeaderValue> + use<'a> {
        let (headers, is_repeated) = (self.headers, self.is_repeated(field));
        let alone = self.first(field).filter(|_| !is_repeated);
        let is_one = move |(name, value)| (Field::of(name) == Some(field)).then_some(value);
        let several = is_repeated.then(|| headers.iter().filter_map(is_one));
        alone.into_iter().chain(several.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_alone_and_repeated() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("cookie", "a"), ("x-other", "1"), ("host", "h"), ("cookie", "b")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let fields = Fields::of(&headers);
        assert_eq!((fields.text(Field::Host), fields.text(Field::Cookie)), (Some("h"), Some("a")));
        assert_eq!(fields.all(Field::Cookie).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(fields.all(Field::Host).collect::<Vec<_>>(), ["h"]);
        assert_eq!(fields.all(Field::Accept).count(), 0);
        assert!(fields.is_repeated(Field::Cookie) && !fields.is_repeated(Field::Host));
        assert!(fields.has(Field::Host) && !fields.has(Field::XMoz));
        assert_eq!(fields.bytes(), "cookie: a\r\nx-other: 1\r\nhost: h\r\ncookie: b\r\n".len());
    }
}
