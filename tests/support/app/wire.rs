//! HTTP/1 by hand over one connection, so that the app sees requests exactly as they came and can answer as wrongly
//! as an old server does.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MOST_HEAD: usize = 256 * 1024;
const MOST_FIELDS: usize = 512;

/// A request's head as it came.
#[derive(Clone, Debug)]
pub struct Head {
    /// The bytes themselves, with the empty line.
    pub raw: Bytes,
    /// The method.
    pub method: String,
    /// The target, unparsed.
    pub target: String,
    /// 0 or 1: the minor version.
    pub version: u8,
    /// Names (in the case they came in) and values, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// All values of a header, in order.
    pub fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.headers
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// The first value of a header, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Whether a header's list holds this element.
    pub fn lists(&self, name: &str, element: &str) -> bool {
        self.all(name)
            .filter_map(|value| std::str::from_utf8(value).ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(element)))
    }

    /// The path as it came, up to `?`; of an absolute target its path alone.
    pub fn path(&self) -> &str {
        let target = match self.target.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => &self.target,
        };
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// A decoded value of the query.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// How the end of a request's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
}

/// A connection with what was read of it and not yet used.
pub struct Wire {
    stream: TcpStream,
    unread: BytesMut,
}

impl Wire {
    /// Takes over a fresh connection.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, unread: BytesMut::new() }
    }

    /// The next request's head; `None` when the peer closed, or was idle for `idle`.
    pub async fn head(&mut self, idle: Option<Duration>) -> io::Result<Option<Head>> {
        loop {
            if let Some(head) = parse_head(&mut self.unread)? {
                return Ok(Some(head));
            }
            if self.unread.len() > MOST_HEAD {
                return Err(io::Error::other("the head is too long"));
            }
            let read = match idle.filter(|_| self.unread.is_empty()) {
                Some(idle) => match tokio::time::timeout(idle, self.read()).await {
                    Ok(read) => read?,
                    Err(_) => return Ok(None),
                },
                None => self.read().await?,
            };
            if read == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads the body of `head` to its end, handing over each piece.
    pub async fn body(&mut self, head: &Head, mut piece: impl FnMut(&[u8])) -> io::Result<()> {
        match framing(head)? {
            Framing::Length(length) => self.exactly(length, &mut piece).await,
            Framing::Chunked => self.chunks(&mut piece).await,
        }
    }

    async fn chunks(&mut self, piece: &mut impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                break;
            }
            self.exactly(size, piece).await?;
            self.line().await?;
        }
        while !self.line().await?.is_empty() {}
        Ok(())
    }

    async fn exactly(&mut self, mut left: u64, piece: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while left > 0 {
            if self.unread.is_empty() && self.read().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let take = self.unread.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            piece(&self.unread[..take]);
            self.unread.advance(take);
            left -= take as u64;
        }
        Ok(())
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.unread) {
                let line = self.unread.split_to(end + 1);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.unread.len() > MOST_HEAD || self.read().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.unread.reserve(16 * 1024);
        self.stream.read_buf(&mut self.unread).await
    }

    /// Writes and flushes.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Waits until the peer closes or resets; what it sends meanwhile is dropped.
    pub async fn closed(&mut self) {
        loop {
            self.unread.clear();
            if !matches!(self.read().await, Ok(read) if read > 0) {
                return;
            }
        }
    }

    /// Closes with a reset in place of a FIN.
    pub fn reset(self) {
        // Without the option the connection just closes, and the test that wants a reset tells.
        let _ = self.stream.set_zero_linger();
    }

    /// Sends FIN, keeps reading until the peer closes too: no reset can overtake what was written.
    pub async fn finish(mut self) {
        if self.stream.shutdown().await.is_ok() {
            let _ = tokio::time::timeout(Duration::from_secs(5), self.closed()).await;
        }
    }

    /// The connection and what was read too far, for another protocol.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.unread.to_vec())
    }
}

fn parse_head(unread: &mut BytesMut) -> io::Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(unread).map_err(io::Error::other)? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    let method = request.method.unwrap_or_default().to_owned();
    let target = request.path.unwrap_or_default().to_owned();
    let version = request.version.unwrap_or(1);
    let headers = request.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect();
    let raw = unread.split_to(length).freeze();
    Ok(Some(Head { raw, method, target, version, headers }))
}

fn framing(head: &Head) -> io::Result<Framing> {
    if head.lists("transfer-encoding", "chunked") {
        return Ok(Framing::Chunked);
    }
    let Some(length) = head.header("content-length") else { return Ok(Framing::Length(0)) };
    length.trim().parse().map(Framing::Length).map_err(io::Error::other)
}
