//! Heads of HTTP/1.1 messages (RFC 9112): a request's as it is written, an answer's as it is read. Pure.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG,
    EXPIRES, LAST_MODIFIED, LOCATION, SERVER, SET_COOKIE, TRANSFER_ENCODING, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use smallvec::SmallVec;

use super::framing::Framing;

/// The largest head of an upstream's answer, in bytes.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// Most fields of an answer's head; the library's own bound on requests is a hundred.
const MAX_FIELDS: usize = 128;

/// An answer that cannot be read as HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The status line or a field.
    #[error("the head of the answer is malformed")]
    Head,
    /// Larger than [`MAX_BYTES`], or of more fields than [`MAX_FIELDS`].
    #[error("the head of the answer is too large")]
    TooLarge,
    /// Lengths that differ or are none, or chunks of HTTP/1.0.
    #[error("the length of the answer is ambiguous")]
    Length,
    /// A chunk's size, its end, or the trailers.
    #[error("the chunks of the answer are malformed")]
    Chunk,
}

/// An answer's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    /// What the app says of the status, where that is not the usual.
    pub(super) reason: Option<Bytes>,
    pub(super) headers: HeaderMap,
    /// How the body ends.
    pub(super) framing: Framing,
    /// The connection may carry another request after this answer.
    pub(super) keeps: bool,
}

/// How a request's body is told to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Sending {
    /// None; nothing is said of it.
    Nothing,
    /// As many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// The head of a request, as it is written line by line: names in title case, for servers that depend on it (FIELD F26).
pub(in crate::proxy) struct Writer(Vec<u8>);

impl Writer {
    /// A head that asks for `target`.
    pub(in crate::proxy) fn new(method: &Method, target: &str) -> Self {
        let mut out = Vec::with_capacity(1024);
        for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        Self(out)
    }

    /// One more field. The value comes from a field, or has been checked: it holds no line's end.
    pub(in crate::proxy) fn line(&mut self, name: &HeaderName, value: &[u8]) {
        write_line(name, value, &mut self.0);
    }

    /// Fields that are written already.
    pub(in crate::proxy) fn lines(&mut self, lines: &[u8]) {
        self.0.extend_from_slice(lines);
    }

    /// The whole head, for a body that is sent so.
    pub(in crate::proxy) fn end(mut self, sending: Sending) -> Vec<u8> {
        match sending {
            Sending::Nothing => {}
            Sending::Length(length) => {
                self.0.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
            }
            Sending::Chunked => self.0.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        }
        self.0.extend_from_slice(b"\r\n");
        self.0
    }
}

/// Writes one field.
pub(in crate::proxy) fn write_line(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    let name = name.as_str().as_bytes();
    out.reserve(name.len() + value.len() + ": \r\n".len());
    let mut before = b'-';
    out.extend(name.iter().map(|byte| {
        let written = if before == b'-' { byte.to_ascii_uppercase() } else { *byte };
        before = *byte;
        written
    }));
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Takes an answer's head off `buffer`, once it is whole. `asked` is the request's method.
///
/// # Errors
/// [`Malformed`].
pub(super) fn read(buffer: &mut BytesMut, asked: &Method) -> Result<Option<Head>, Malformed> {
    if buffer.is_empty() {
        return Ok(None);
    }
    let mut fields = Fields::new();
    let Some(Line { status, reason, version, len }) = parse(buffer, &mut fields)? else {
        return if buffer.len() > MAX_BYTES { Err(Malformed::TooLarge) } else { Ok(None) };
    };
    let bytes = buffer.split_to(len).freeze();
    let mut headers = HeaderMap::with_capacity(fields.len());
    let mut told = Told::default();
    for &Field { name, value } in &fields {
        let (name, value) = (name_of(&bytes[name.range()])?, value_of(&bytes, value)?);
        if told.hear(&name, &value) {
            headers.append(name, value);
        }
    }
    let framing = told.framing(status, version, asked)?;
    told.tidy_length(&mut headers);
    let goes_on = framing != Framing::UntilClose && status != StatusCode::SWITCHING_PROTOCOLS;
    let keeps = goes_on && told.keeps_alive(version) && !told.announces_stray_body(status);
    let reason = reason.map(|place| bytes.slice(place.range()));
    Ok(Some(Head { status, reason, headers, framing, keeps }))
}

/// What an answer's fields say of its body and of the connection.
#[derive(Clone, Copy, Default)]
struct Told {
    /// How many lengths are told, in fields and items of lists.
    lengths: usize,
    /// The one length that all fields and all items of a list agree on (RFC 9110 section 8.6).
    length: Option<u64>,
    /// They do not agree, or are no numbers.
    is_ambiguous: bool,
    /// Whether the last transfer coding is the one in chunks, where there are any.
    chunked: Option<bool>,
    /// `Connection: close`.
    closes: bool,
    /// `Connection: keep-alive`.
    keeps: bool,
}

impl Told {
    /// Hears a field. Returns whether it says anything beyond this connection.
    fn hear(&mut self, name: &HeaderName, value: &HeaderValue) -> bool {
        let items = || value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        match *name {
            CONTENT_LENGTH => {
                items().for_each(|item| self.hear_length(item));
                true
            }
            TRANSFER_ENCODING => {
                // Empty items of a list say nothing (RFC 9110 section 5.6.1).
                let last = items().rfind(|item| !item.is_empty());
                let is_chunked = |last: &[u8]| last.eq_ignore_ascii_case(b"chunked");
                self.chunked = last.map(is_chunked).or(self.chunked).or(Some(false));
                true
            }
            CONNECTION => {
                let mut says_more = false;
                for option in items() {
                    let (closes, keeps) =
                        (option.eq_ignore_ascii_case(b"close"), option.eq_ignore_ascii_case(b"keep-alive"));
                    self.closes |= closes;
                    self.keeps |= keeps;
                    says_more |= !closes && !keeps;
                }
                says_more
            }
            _ => true,
        }
    }

    fn hear_length(&mut self, digits: &[u8]) {
        let length = number(digits);
        self.lengths += 1;
        self.is_ambiguous |= length.is_none() || self.length.is_some_and(|agreed| Some(agreed) != length);
        self.length = length;
    }

    /// Leaves one length where several agree, and none where they do not: an answer without a body may still tell some, to a HEAD
    /// for instance.
    fn tidy_length(self, headers: &mut HeaderMap) {
        match self.length {
            _ if self.is_ambiguous => drop(headers.remove(CONTENT_LENGTH)),
            Some(length) if self.lengths > 1 => drop(headers.insert(CONTENT_LENGTH, length.into())),
            Some(_) | None => {}
        }
    }

    /// RFC 9112 section 6.3.
    fn framing(self, status: StatusCode, version: Version, asked: &Method) -> Result<Framing, Malformed> {
        if status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || *asked == Method::HEAD
        {
            return Ok(Framing::Nothing);
        }
        match self.chunked {
            Some(_) if version == Version::HTTP_10 => Err(Malformed::Length),
            Some(true) => Ok(Framing::chunked()),
            Some(false) => Ok(Framing::UntilClose),
            None if self.is_ambiguous => Err(Malformed::Length),
            None => Ok(self.length.map_or(Framing::UntilClose, Framing::length)),
        }
    }

    /// Whether a body is announced where none may be. SECURITY: what an app sends all the same would be read as the next answer.
    fn announces_stray_body(self, status: StatusCode) -> bool {
        match status {
            // A length here is that of another answer (RFC 9110 section 8.6).
            StatusCode::NOT_MODIFIED => self.chunked.is_some(),
            StatusCode::NO_CONTENT => {
                self.chunked.is_some() || self.is_ambiguous || self.length.is_some_and(|length| length > 0)
            }
            _ => false,
        }
    }

    /// RFC 9112 section 9.3. An answer that tells two lengths is believed for the last time (section 6.3).
    const fn keeps_alive(self, version: Version) -> bool {
        let is_told_twice = self.chunked.is_some() && self.lengths > 0;
        let is_kept = matches!(version, Version::HTTP_11) || self.keeps;
        is_kept && !self.closes && !is_told_twice
    }
}

/// A part of a head. A head is no longer than what an offset of 32 bits reaches, see [`MAX_BYTES`].
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    end: u32,
}

impl Place {
    /// Where `part` stands in `whole`, of which it is a part.
    fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = part.as_ptr().addr() - whole.as_ptr().addr();
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: offset(start), end: offset(start + part.len()) }
    }

    const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Where a field stands.
#[derive(Clone, Copy)]
struct Field {
    name: Place,
    value: Place,
}

type Fields = SmallVec<[Field; 32]>;

struct Line {
    status: StatusCode,
    reason: Option<Place>,
    version: Version,
    /// Of the whole head.
    len: usize,
}

fn parse(buffer: &[u8], fields: &mut Fields) -> Result<Option<Line>, Malformed> {
    let mut config = httparse::ParserConfig::default();
    // Old servers fold fields and put spaces before colons (FIELD F26).
    config
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    let mut room = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut answer = httparse::Response::new(&mut []);
    let parsed = config.parse_response_with_uninit_headers(&mut answer, buffer, &mut room);
    let len = match parsed {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::TooLarge),
        Err(_) => return Err(Malformed::Head),
    };
    for field in &*answer.headers {
        let (name, value) = (Place::of(field.name.as_bytes(), buffer), Place::of(field.value, buffer));
        fields.push(Field { name, value });
    }
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed::Head)?;
    let reason =
        answer.reason.filter(|reason| !reason.is_empty() && status.canonical_reason() != Some(reason));
    let reason = reason.map(|reason| Place::of(reason.as_bytes(), buffer));
    let version = if answer.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    Ok(Some(Line { status, reason, version, len }))
}

/// The names that most answers consist of, each in the one spelling that most servers write it in. Others are read by the
/// library, letter by letter.
fn name_of(raw: &[u8]) -> Result<HeaderName, Malformed> {
    Ok(match raw {
        b"Date" => DATE,
        b"ETag" => ETAG,
        b"Vary" => VARY,
        b"Server" => SERVER,
        b"Expires" => EXPIRES,
        b"Location" => LOCATION,
        b"Connection" => CONNECTION,
        b"Set-Cookie" => SET_COOKIE,
        b"Content-Type" => CONTENT_TYPE,
        b"Cache-Control" => CACHE_CONTROL,
        b"Last-Modified" => LAST_MODIFIED,
        b"Accept-Ranges" => ACCEPT_RANGES,
        b"Content-Length" => CONTENT_LENGTH,
        b"Content-Encoding" => CONTENT_ENCODING,
        b"Transfer-Encoding" => TRANSFER_ENCODING,
        _ => HeaderName::from_bytes(raw).map_err(|_| Malformed::Head)?,
    })
}

fn value_of(head: &Bytes, place: Place) -> Result<HeaderValue, Malformed> {
    // No value may hold a line's end: what cannot be taken as it is was folded, or is refused below.
    if let Ok(value) = HeaderValue::from_maybe_shared(head.slice(place.range())) {
        return Ok(value);
    }
    // RFC 9112 section 5.2: what was folded is joined by spaces.
    let lines: Vec<&[u8]> =
        head[place.range()].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
    HeaderValue::from_bytes(&lines.join(&b' ')).map_err(|_| Malformed::Head)
}

/// A number of digits alone; `None` where it is none, or too large.
fn number(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, digit: &u8| {
        let digit = char::from(*digit).to_digit(10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str) -> Result<Option<Head>, Malformed> {
        read(&mut BytesMut::from(text), &Method::GET)
    }

    fn head(text: &str) -> Head {
        get(text).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_taken_once_it_is_whole() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: 1\r\n\r\nabc";
        let end = whole.len() - 3;
        for cut in 0..end {
            let mut buffer = BytesMut::from(&whole[..cut]);
            assert!(read(&mut buffer, &Method::GET).unwrap().is_none(), "{cut}");
            assert_eq!(buffer.len(), cut);
        }
        let mut buffer = BytesMut::from(whole);
        let head = read(&mut buffer, &Method::GET).unwrap().unwrap();
        assert_eq!((head.status, head.keeps, &buffer[..]), (StatusCode::OK, true, &b"abc"[..]));
        assert_eq!(head.framing, Framing::length(3));
        assert_eq!(head.headers["x-a"], "1");
    }

    #[test]
    fn the_end_of_a_body_is_told_as_the_standard_says() {
        let framed = |status: &str, fields: &str| head(&format!("HTTP/1.1 {status}\r\n{fields}\r\n")).framing;
        assert_eq!(framed("200 OK", ""), Framing::UntilClose);
        assert_eq!(framed("204 No Content", "Content-Length: 5\r\n"), Framing::Nothing);
        assert_eq!(framed("304 Not Modified", "Content-Length: 5\r\n"), Framing::Nothing);
        assert_eq!(framed("103 Early Hints", ""), Framing::Nothing);
        assert_eq!(framed("200 OK", "Transfer-Encoding: gzip, Chunked\r\n"), Framing::chunked());
        assert_eq!(
            framed("200 OK", "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"),
            Framing::UntilClose
        );
        for coding in ["chunked,", "chunked , ,", ",chunked", "chunked\r\nTransfer-Encoding: ,"] {
            let fields = format!("Transfer-Encoding: {coding}\r\n");
            assert_eq!(framed("200 OK", &fields), Framing::chunked(), "{coding}");
        }
        assert_eq!(framed("200 OK", "Transfer-Encoding: ,\r\n"), Framing::UntilClose);
        let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(framed("200 OK", both), Framing::chunked());
        assert_eq!(framed("200 OK", "Content-Length: 3, 3\r\nContent-Length: 3\r\n"), Framing::length(3));
        let of_head =
            read(&mut BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), &Method::HEAD);
        assert_eq!(of_head.unwrap().unwrap().framing, Framing::Nothing);
    }

    #[test]
    fn what_two_readers_could_frame_differently_is_refused() {
        for fields in [
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: 3, 4\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
        ] {
            let answer = get(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
            assert_eq!(answer.err(), Some(Malformed::Length), "{fields}");
        }
        let old = get("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(old.err(), Some(Malformed::Length));
        assert_eq!(get("SSH-2.0-OpenSSH\r\n\r\n").err(), Some(Malformed::Head));
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(MAX_BYTES));
        assert_eq!(get(&endless).err(), Some(Malformed::TooLarge));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(get(&many).err(), Some(Malformed::TooLarge));
    }

    #[test]
    fn a_connection_is_kept_unless_somebody_says_otherwise() {
        for (head_text, keeps) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false),
            ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", true),
            ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            assert_eq!(head(head_text).keeps, keeps, "{head_text}");
        }
        let told = head("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: X-A\r\n\r\n").headers;
        assert_eq!(told.get_all(CONNECTION).iter().collect::<Vec<_>>(), ["X-A"], "only what names fields");
    }

    #[test]
    fn old_servers_are_understood() {
        let old =
            head("HTTP/1.0 200 OK\r\nX-Folded: one\r\n  two\r\n\tthree\r\nX-Space : 1\r\nno colon\r\n\r\n");
        assert_eq!(old.headers["x-folded"], "one two three");
        assert_eq!(old.headers["x-space"], "1");
        assert_eq!(old.headers.len(), 2);
    }

    #[test]
    fn what_an_app_says_of_a_status_is_kept() {
        for (line, reason) in [
            ("200 OK", None),
            ("200 Everything Fine", Some("Everything Fine")),
            ("499 Quota", Some("Quota")),
            ("200", None),
        ] {
            let said = head(&format!("HTTP/1.1 {line}\r\n\r\n")).reason;
            assert_eq!(said.as_deref(), reason.map(str::as_bytes), "{line}");
        }
    }

    #[test]
    fn a_length_goes_on_once_or_not_at_all() {
        for (fields, told) in [
            ("Content-Length: 3\r\n", &["3"][..]),
            ("Content-Length: 3\r\nContent-Length: 3\r\n", &["3"]),
            ("Content-Length: 3, 3\r\n", &["3"]),
            ("Content-Length: 3, 4\r\n", &[]),
            ("Content-Length: 3\r\nContent-Length: 4\r\n", &[]),
            ("Content-Length: +3\r\n", &[]),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let of_head = read(&mut BytesMut::from(&*text), &Method::HEAD).unwrap().unwrap().headers;
            assert_eq!(of_head.get_all(CONTENT_LENGTH).iter().collect::<Vec<_>>(), told, "{fields}");
            if let Ok(Some(of_get)) = get(&text) {
                assert_eq!(
                    of_get.headers.get_all(CONTENT_LENGTH).iter().collect::<Vec<_>>(),
                    told,
                    "{fields}"
                );
            }
        }
    }

    #[test]
    fn a_request_is_framed_once() {
        let written = |sending| {
            let mut head = Writer::new(&Method::POST, "/a?b=c");
            head.line(&HeaderName::from_static("x-one-two"), b"1");
            String::from_utf8(head.end(sending)).unwrap()
        };
        let head = "POST /a?b=c HTTP/1.1\r\nX-One-Two: 1\r\n";
        assert_eq!(written(Sending::Nothing), format!("{head}\r\n"));
        assert_eq!(written(Sending::Length(4)), format!("{head}Content-Length: 4\r\n\r\n"));
        assert_eq!(written(Sending::Chunked), format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
    }
}
