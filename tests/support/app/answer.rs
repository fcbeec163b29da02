//! An answer of the app, and its bytes with every bad habit that is switched on.

use super::switches::{BadHeader, CloseAfter, Switches};

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header lines, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A page.
    pub fn html(status: u16, text: &str) -> Self {
        let body = format!("<!doctype html>\n<title>Fixture</title>\n<main>{text}</main>\n");
        Self::of(status, "text/html; charset=utf-8", body)
    }

    /// A JSON value.
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::of(status, "application/json", value.to_string())
    }

    /// Anything.
    pub fn of(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![("Content-Type".to_owned(), kind.to_owned())], body: body.into() }
    }

    /// A redirect, with the little body that servers send along.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::html(status, "Moved.").with("Location", location)
    }

    /// With one more header line.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The bytes of an answer whose length is known.
    pub fn bytes(&self, s: &Switches, method: &str, close: bool) -> Vec<u8> {
        let bodiless = matches!(self.status, 100..=199 | 204 | 304);
        let chunked = s.chunked_answers && !s.http10 && !bodiless;
        let mut bytes = self.head(s, chunked.then_some("chunked"), close);
        if !bodiless && !chunked && !s.http10 {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        if bodiless || method == "HEAD" {
            return bytes;
        }
        if s.close_after == CloseAfter::FinMidAnswer {
            bytes.extend_from_slice(&self.body[..self.body.len() / 2]);
        } else if chunked {
            bytes.extend_from_slice(&chunk(&self.body));
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    /// The bytes of the head, without the line that says the length and without the empty line.
    pub fn head(&self, s: &Switches, transfer_encoding: Option<&str>, close: bool) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        if s.early_hints && !s.http10 && self.status != 101 {
            bytes.extend_from_slice(
                b"HTTP/1.1 103 Early Hints\r\nLink: </static/app.css>; rel=preload\r\n\r\n",
            );
        }
        let version = if s.http10 { "1.0" } else { "1.1" };
        bytes.extend_from_slice(
            format!("HTTP/{version} {} {}\r\n", self.status, reason(self.status)).as_bytes(),
        );
        for (name, value) in self.headers.iter().chain(&s.extra_headers) {
            bytes.extend_from_slice(format!("{name}: {}\r\n", folded(s, value)).as_bytes());
        }
        bytes.extend_from_slice(bad_line(s.bad_header));
        if let Some(encoding) = transfer_encoding {
            bytes.extend_from_slice(format!("Transfer-Encoding: {encoding}\r\n").as_bytes());
        }
        if close && self.status != 101 {
            bytes.extend_from_slice(b"Connection: close\r\n");
        }
        bytes
    }
}

/// One chunk; of nothing, nothing (an empty chunk would end the body).
pub fn chunk(data: &[u8]) -> Vec<u8> {
    if data.is_empty() {
        return Vec::new();
    }
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

fn folded(s: &Switches, value: &str) -> String {
    if s.fold_headers { value.replacen("; ", ";\r\n\t", 1) } else { value.to_owned() }
}

fn bad_line(kind: BadHeader) -> &'static [u8] {
    match kind {
        BadHeader::None => b"",
        BadHeader::Latin1 => b"X-Legacy-Name: caf\xe9\r\n",
        BadHeader::SpaceInName => b"X Legacy Name: cafe\r\n",
        BadHeader::SpaceBeforeColon => b"X-Legacy-Name : cafe\r\n",
        BadHeader::NoColon => b"X-Legacy-Name\r\n",
    }
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Odd")
}
