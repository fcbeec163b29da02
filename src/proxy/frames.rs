//! Follows WebSocket frames (RFC 6455 section 5) as they pass, header by header, without keeping any payload: to know
//! where one ends, since a Close frame may be put in only there.

/// The longest frame header: two bytes, an eight-byte length, a four-byte mask.
const MAX_HEADER: usize = 14;

/// Where in the stream of frames one direction stands.
#[derive(Clone, Debug, Default)]
pub struct FrameTracker {
    header: [u8; MAX_HEADER],
    have: usize,
    /// Payload bytes that are still to come.
    payload: u64,
}

impl FrameTracker {
    /// Whether the last frame that began has passed as a whole.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// Follows `bytes`; returns how many data frames (text, binary, continuation) began in them.
    pub fn follow(&mut self, mut bytes: &[u8]) -> usize {
        let mut data_frames = 0;
        while !bytes.is_empty() {
            let skipped = self.skip_payload(bytes);
            bytes = &bytes[skipped..];
            if let Some((&byte, rest)) = bytes.split_first() {
                bytes = rest;
                data_frames += usize::from(self.push(byte));
            }
        }
        data_frames
    }

    /// How many of `bytes` lead up to the next boundary; all of them when it lies beyond.
    #[must_use]
    pub fn up_to_boundary(&self, bytes: &[u8]) -> usize {
        let mut probe = self.clone();
        for (count, byte) in bytes.iter().enumerate() {
            if probe.at_boundary() {
                return count;
            }
            probe.follow(std::slice::from_ref(byte));
        }
        bytes.len()
    }

    fn skip_payload(&mut self, bytes: &[u8]) -> usize {
        let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
        self.payload -= skipped as u64;
        skipped
    }

    /// Takes one byte of a header; returns whether it completed the header of a data frame.
    fn push(&mut self, byte: u8) -> bool {
        self.header[self.have] = byte;
        self.have += 1;
        let Some(length) = self.length() else { return false };
        self.payload = length;
        self.have = 0;
        self.header[0] & 0x0f <= 0x2
    }

    /// The payload's length once the header is complete.
    fn length(&self) -> Option<u64> {
        if self.have < 2 {
            return None;
        }
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        let (extended, length) = match self.header[1] & 0x7f {
            126 => (2, u64::from(u16::from_be_bytes([self.header[2], self.header[3]]))),
            127 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&self.header[2..10]);
                (8, u64::from_be_bytes(bytes))
            }
            short => (0, u64::from(short)),
        };
        (self.have >= 2 + extended + mask).then_some(length)
    }
}

/// A Close frame with `code` and `reason`, unmasked as a server sends it. A control frame holds 125 bytes at most.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let text = &reason.as_bytes()[..reason.len().min(123)];
    let length = u8::try_from(2 + text.len()).unwrap_or(125);
    let mut frame = vec![0x88, length];
    frame.extend(code.to_be_bytes());
    frame.extend(text);
    frame
}

/// The same as a client sends it: masked, here with zeros, since the payload is no secret and goes to no cache.
#[must_use]
pub fn masked_close_frame(code: u16) -> Vec<u8> {
    let mut frame = vec![0x88, 0x82, 0, 0, 0, 0];
    frame.extend(code.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match payload {
            0..=125 => bytes.push(mask | u8::try_from(payload).unwrap()),
            126..=65535 => {
                bytes.push(mask | 126);
                bytes.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend(std::iter::repeat_n(7, if masked { 4 } else { 0 } + payload));
        bytes
    }

    #[test]
    fn boundaries_are_found_however_the_stream_is_cut() {
        let stream =
            [frame(1, true, 5), frame(9, false, 0), frame(2, true, 300), frame(0, false, 70_000)].concat();
        for step in [1, 2, 3, 7, 1000, stream.len()] {
            let mut tracker = FrameTracker::default();
            let data: usize = stream.chunks(step).map(|chunk| tracker.follow(chunk)).sum();
            assert_eq!((data, tracker.at_boundary()), (3, true), "step {step}");
        }
    }

    #[test]
    fn the_way_to_the_boundary_is_measured() {
        let stream = [frame(1, false, 10), frame(1, false, 3)].concat();
        let mut tracker = FrameTracker::default();
        assert_eq!(tracker.up_to_boundary(&stream), 0);
        tracker.follow(&stream[..4]);
        assert_eq!(tracker.up_to_boundary(&stream[4..]), 8);
        assert_eq!(tracker.up_to_boundary(&stream[4..6]), 2);
    }

    #[test]
    fn close_frames_are_small_and_tell_the_reason() {
        assert_eq!(close_frame(4401, "revoked"), [&[0x88, 9, 0x11, 0x31][..], b"revoked"].concat());
        assert!(close_frame(4401, &"x".repeat(500)).len() <= 127);
    }
}
