//! How the body of an answer ends (RFC 9112 sections 6 and 7): takes it off a buffer, piece by piece. Pure.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::head::Malformed;

/// The longest line that tells a chunk's size, its extensions included, in bytes.
const MAX_SIZE_LINE: usize = 16 * 1024;

/// The largest trailers, in bytes, and most of their fields.
const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_FIELDS: usize = 64;

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing, or nothing more.
    Nothing,
    /// As many bytes, at least one.
    Length(u64),
    /// Chunks, the next of which begins at this point.
    Chunks(Chunk),
    /// Everything until the connection is closed.
    UntilClose,
}

/// Where a body in chunks stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// Before the line that tells the size.
    Size,
    /// In a chunk: as many bytes are left of it.
    Data(u64),
    /// Before the line's end behind a chunk.
    End,
    /// Before the trailers.
    Trailers,
}

/// What came off the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    /// The body has ended.
    End,
    /// More bytes are needed.
    More,
}

impl Framing {
    pub(super) const fn length(length: u64) -> Self {
        if length == 0 { Self::Nothing } else { Self::Length(length) }
    }

    pub(super) const fn chunked() -> Self {
        Self::Chunks(Chunk::Size)
    }

    /// Takes the next piece off `buffer`.
    ///
    /// # Errors
    /// [`Malformed::Chunk`].
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        match self {
            Self::Nothing => Ok(Piece::End),
            Self::UntilClose if buffer.is_empty() => Ok(Piece::More),
            Self::UntilClose => Ok(Piece::Data(buffer.split().freeze())),
            Self::Length(left) => {
                let Some((data, left)) = take_data(buffer, *left) else { return Ok(Piece::More) };
                *self = Self::length(left);
                Ok(Piece::Data(data))
            }
            Self::Chunks(_) => self.take_of_chunks(buffer),
        }
    }

    fn take_of_chunks(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        while let Self::Chunks(chunk) = self {
            match chunk {
                Chunk::Size => match size(buffer)? {
                    None => return Ok(Piece::More),
                    Some(0) => *chunk = Chunk::Trailers,
                    Some(size) => *chunk = Chunk::Data(size),
                },
                Chunk::Data(left) => {
                    let Some((data, left)) = take_data(buffer, *left) else { return Ok(Piece::More) };
                    *chunk = if left == 0 { Chunk::End } else { Chunk::Data(left) };
                    return Ok(Piece::Data(data));
                }
                Chunk::End => match (buffer.first(), buffer.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        buffer.advance(2);
                        *chunk = Chunk::Size;
                    }
                    (None, _) | (Some(b'\r'), None) => return Ok(Piece::More),
                    _ => return Err(Malformed::Chunk),
                },
                Chunk::Trailers => {
                    let Some(trailers) = trailers(buffer)? else { return Ok(Piece::More) };
                    *self = Self::Nothing;
                    return Ok(if trailers.is_empty() { Piece::End } else { Piece::Trailers(trailers) });
                }
            }
        }
        Ok(Piece::End)
    }
}

/// As much of `left` bytes as there is; with what is left after it.
fn take_data(buffer: &mut BytesMut, left: u64) -> Option<(Bytes, u64)> {
    if buffer.is_empty() {
        return None;
    }
    let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    Some((buffer.split_to(count).freeze(), left - count as u64))
}

fn size(buffer: &mut BytesMut) -> Result<Option<u64>, Malformed> {
    // The parser takes a line without a digit for a size of 0, which would end the body early.
    if buffer.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
        return Err(Malformed::Chunk);
    }
    match httparse::parse_chunk_size(buffer) {
        Ok(httparse::Status::Complete((len, size))) => {
            buffer.advance(len);
            Ok(Some(size))
        }
        Ok(httparse::Status::Partial) if buffer.len() > MAX_SIZE_LINE => Err(Malformed::Chunk),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(Malformed::Chunk),
    }
}

fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, Malformed> {
    let mut room = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    match httparse::parse_headers(buffer, &mut room) {
        Ok(httparse::Status::Complete((len, fields))) => {
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed::Chunk)?;
                let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed::Chunk)?;
                trailers.append(name, value);
            }
            buffer.advance(len);
            Ok(Some(trailers))
        }
        Ok(httparse::Status::Partial) if buffer.len() > MAX_TRAILERS => Err(Malformed::Chunk),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(Malformed::Chunk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All data, the trailers, and what is left in the buffer, when the bytes come in pieces of `step`.
    fn read(framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, HeaderMap, Framing), Malformed> {
        let (mut framing, mut buffer) = (framing, BytesMut::new());
        let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                match framing.take(&mut buffer)? {
                    Piece::Data(more) => data.extend_from_slice(&more),
                    Piece::Trailers(more) => trailers = more,
                    Piece::End | Piece::More => break,
                }
            }
        }
        Ok((data, trailers, framing))
    }

    #[test]
    fn chunks_are_joined_however_they_come() {
        let bytes = b"4\r\nabcd\r\n00A;x=y\r\n0123456789\r\n0\r\nX-Sum: 9\r\n\r\n";
        for step in 1..=bytes.len() {
            let (data, trailers, framing) = read(Framing::chunked(), bytes, step).unwrap();
            assert_eq!((&data[..], framing), (&b"abcd0123456789"[..], Framing::Nothing), "{step}");
            assert_eq!(trailers["x-sum"], "9");
        }
        let (data, trailers, framing) = read(Framing::chunked(), b"0\r\n\r\n", 1).unwrap();
        assert_eq!((data.len(), trailers.len(), framing), (0, 0, Framing::Nothing));
    }

    #[test]
    fn a_length_takes_no_more_than_its_own() {
        let mut buffer = BytesMut::from("abcdef");
        let mut framing = Framing::length(4);
        assert_eq!(framing.take(&mut buffer), Ok(Piece::Data("abcd".into())));
        assert_eq!((framing.take(&mut buffer), &buffer[..]), (Ok(Piece::End), &b"ef"[..]));
        assert_eq!(Framing::length(0).take(&mut buffer), Ok(Piece::End));
        assert_eq!(Framing::length(1).take(&mut BytesMut::new()), Ok(Piece::More));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let endless = [b"1;".as_slice(), &[b'x'; MAX_SIZE_LINE]].concat();
        let trailers = [b"0\r\nX: ".as_slice(), &[b'x'; MAX_TRAILERS]].concat();
        let bad: [&[u8]; 9] = [
            b"x\r\n",
            b"-1\r\n",
            b"\r\n\r\n",
            b";x\r\n\r\n",
            b"1\r\nabc",
            b"1\r\na\n\n",
            b"fffffffffffffffff\r\n",
            &endless,
            &trailers,
        ];
        for bytes in bad {
            let read = read(Framing::chunked(), bytes, bytes.len());
            assert_eq!(read.err(), Some(Malformed::Chunk), "{:?}", &bytes[..bytes.len().min(20)]);
        }
    }
}
