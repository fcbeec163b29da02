//! A bare socket, for what no client library would send.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::wait::PATIENCE;

const MOST_FIELDS: usize = 256;

/// A connection written to and read from byte by byte.
pub struct RawSocket {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// An answer read off a bare socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAnswer {
    /// The status.
    pub status: u16,
    /// The head's bytes, with the empty line.
    pub head: Vec<u8>,
    /// The body, as far as it came; chunks joined.
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<String> {
        let head = String::from_utf8_lossy(&self.head).into_owned();
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }
}

impl RawSocket {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Writes these bytes.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await?
    }

    /// Closes our side only.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Breaks the connection off with a reset.
    pub fn reset(self) -> io::Result<()> {
        self.stream.set_zero_linger()
    }

    /// Reads up to the peer's close; an error when it reset the connection or did not close in time.
    pub async fn read_to_end(&mut self) -> io::Result<()> {
        while self.fill().await? > 0 {}
        Ok(())
    }

    /// What was read and not yet taken as an answer.
    pub fn into_unread(self) -> Vec<u8> {
        self.unread
    }

    /// The next answer, framed by its length, its chunks or the end of the connection; `1xx` counts as one.
    /// `bodiless`: it answers a HEAD.
    pub async fn answer(&mut self, bodiless: bool) -> io::Result<RawAnswer> {
        let (status, head) = self.head().await?;
        let mut answer = RawAnswer { status, head, body: Vec::new() };
        if bodiless || matches!(status, 100..=199 | 204 | 304) {
            return Ok(answer);
        }
        if answer.all("transfer-encoding").iter().any(|value| value.eq_ignore_ascii_case("chunked")) {
            answer.body = self.chunks().await?;
        } else if let Some(length) = answer.all("content-length").first() {
            let length = length.parse().map_err(io::Error::other)?;
            answer.body = self.exactly(length).await?;
        } else {
            self.read_to_end().await?;
            answer.body = std::mem::take(&mut self.unread);
        }
        Ok(answer)
    }

    async fn head(&mut self) -> io::Result<(u16, Vec<u8>)> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
            let mut response = httparse::Response::new(&mut fields);
            let mut config = httparse::ParserConfig::default();
            config.allow_obsolete_multiline_headers_in_responses(true);
            let parsed = config.parse_response(&mut response, &self.unread).map_err(io::Error::other)?;
            if let httparse::Status::Complete(length) = parsed {
                let status = response.code.unwrap_or_default();
                return Ok((status, self.unread.drain(..length).collect()));
            }
            self.fill_some().await?;
        }
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size).await?);
            self.line().await?;
        }
        while !self.line().await?.is_empty() {}
        Ok(body)
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.fill_some().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            self.fill_some().await?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    async fn fill_some(&mut self) -> io::Result<()> {
        if self.fill().await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await?
    }
}
