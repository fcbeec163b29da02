//! Heads of HTTP/1.1 messages (RFC 9112): a request's as it is written, an answer's as it is read. Pure.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use smallvec::SmallVec;

use super::framing::Framing;

/// The largest head of an upstream's answer, in bytes.
const MAX_BYTES: usize = 256 * 1024;

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

/// How a request's body is told to the app. Read off the head's own fields, of which one alone is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// None; nothing is said of it.
    Nothing,
    /// As many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

impl Sending {
    /// # Errors
    /// [`Malformed::Length`]: the length is no number. Requests are checked before, see `headers::check_framing`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Malformed> {
        if headers.contains_key(TRANSFER_ENCODING) {
            return Ok(Self::Chunked);
        }
        Ok(length(headers)?.map_or(Self::Nothing, Self::Length))
    }
}

/// The head of a request, as it goes out: names in title case, for servers that depend on it (FIELD F26).
pub(super) fn write<B>(request: &Request<B>, sending: Sending) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    write_target(request.uri(), &mut out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            write_title_case(name.as_str().as_bytes(), &mut out);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    match sending {
        Sending::Nothing => {}
        Sending::Length(length) => {
            out.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
        }
        Sending::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn write_target(uri: &Uri, out: &mut Vec<u8>) {
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    out.extend_from_slice(target.as_bytes());
}

fn write_title_case(name: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(name);
    let mut upper = true;
    for byte in &mut out[start..] {
        if upper {
            byte.make_ascii_uppercase();
        }
        upper = *byte == b'-';
    }
}

/// Takes an answer's head off `buffer`, once it is whole. `asked` is the request's method.
///
/// # Errors
/// [`Malformed`].
pub(super) fn read(buffer: &mut BytesMut, asked: &Method) -> Result<Option<Head>, Malformed> {
    if buffer.is_empty() {
        return Ok(None);
    }
    let Some(Lines { status, reason, version, fields, len }) = parse(buffer)? else {
        return if buffer.len() > MAX_BYTES { Err(Malformed::TooLarge) } else { Ok(None) };
    };
    let bytes = buffer.split_to(len).freeze();
    let mut headers = HeaderMap::with_capacity(fields.len() + 2);
    for Field { name, value } in fields {
        let name = HeaderName::from_bytes(&bytes[name]).map_err(|_| Malformed::Head)?;
        headers.append(name, value_of(bytes.slice(value))?);
    }
    let framing = framing(status, version, &headers, asked)?;
    if let (Framing::Length(length), true) =
        (framing, headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some())
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    // An answer that tells two lengths is believed for the last time (RFC 9112 section 6.3).
    let is_told_twice = headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH);
    let goes_on = framing != Framing::UntilClose && status != StatusCode::SWITCHING_PROTOCOLS;
    let keeps = goes_on && !is_told_twice && keeps_alive(version, &headers);
    let reason = reason.map(|place| bytes.slice(place));
    Ok(Some(Head { status, reason, headers, framing, keeps }))
}

/// Where a field stands.
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

struct Lines {
    status: StatusCode,
    reason: Option<Range<usize>>,
    version: Version,
    fields: SmallVec<[Field; 32]>,
    len: usize,
}

fn parse(buffer: &[u8]) -> Result<Option<Lines>, Malformed> {
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
    let place = |part: &[u8]| {
        let start = part.as_ptr().addr() - buffer.as_ptr().addr();
        start..start + part.len()
    };
    let fields = answer
        .headers
        .iter()
        .map(|field| Field { name: place(field.name.as_bytes()), value: place(field.value) })
        .collect();
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Malformed::Head)?;
    let reason =
        answer.reason.filter(|reason| !reason.is_empty() && status.canonical_reason() != Some(reason));
    let reason = reason.map(|reason| place(reason.as_bytes()));
    let version = if answer.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    Ok(Some(Lines { status, reason, version, fields, len }))
}

fn value_of(raw: Bytes) -> Result<HeaderValue, Malformed> {
    if memchr::memchr2(b'\r', b'\n', &raw).is_none() {
        return HeaderValue::from_maybe_shared(raw).map_err(|_| Malformed::Head);
    }
    // RFC 9112 section 5.2: what was folded is joined by spaces.
    let lines: Vec<&[u8]> = raw.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
    HeaderValue::from_bytes(&lines.join(&b' ')).map_err(|_| Malformed::Head)
}

/// RFC 9112 section 6.3.
fn framing(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    asked: &Method,
) -> Result<Framing, Malformed> {
    if status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || *asked == Method::HEAD
    {
        return Ok(Framing::Nothing);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match codings.next_back() {
        Some(_) if version == Version::HTTP_10 => Err(Malformed::Length),
        Some(last) if is_chunked(last) => Ok(Framing::chunked()),
        Some(_) => Ok(Framing::UntilClose),
        None => Ok(length(headers)?.map_or(Framing::UntilClose, Framing::length)),
    }
}

fn is_chunked(coding: &HeaderValue) -> bool {
    let last = coding.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
    last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// The one length that all fields and all items of a list agree on (RFC 9110 section 8.6).
fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut agreed = None;
    for field in headers.get_all(CONTENT_LENGTH) {
        for item in field.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let digits = !item.is_empty() && item.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(item).ok().filter(|_| digits);
            let length: u64 = text.and_then(|text| text.parse().ok()).ok_or(Malformed::Length)?;
            if agreed.is_some_and(|agreed| agreed != length) {
                return Err(Malformed::Length);
            }
            agreed = Some(length);
        }
    }
    Ok(agreed)
}

/// RFC 9112 section 9.3.
fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let says = |word: &[u8]| {
        let options =
            headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        options.map(<[u8]>::trim_ascii).any(|option| option.eq_ignore_ascii_case(word))
    };
    if version == Version::HTTP_10 { says(b"keep-alive") && !says(b"close") } else { !says(b"close") }
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
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ] {
            assert_eq!(head(head_text).keeps, keeps, "{head_text}");
        }
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
        let many = head("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n");
        assert_eq!(many.headers.get_all(CONTENT_LENGTH).iter().count(), 1);
    }

    #[test]
    fn a_request_is_framed_once() {
        let request = Request::post("/a?b=c")
            .header("x-one-two", "1")
            .header("content-length", "4")
            .header("content-length", "4")
            .body(())
            .unwrap();
        let sending = Sending::of(request.headers()).unwrap();
        assert_eq!(sending, Sending::Length(4));
        let text = String::from_utf8(write(&request, sending)).unwrap();
        assert_eq!(text, "POST /a?b=c HTTP/1.1\r\nX-One-Two: 1\r\nContent-Length: 4\r\n\r\n");
        let chunked = Request::put("/").header("transfer-encoding", "chunked").body(()).unwrap();
        let sending = Sending::of(chunked.headers()).unwrap();
        let text = String::from_utf8(write(&chunked, sending)).unwrap();
        assert_eq!(text, "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    }
}
