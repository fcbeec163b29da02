//! The envelope of what is stored: which version of the form it is in, and whether it is what was written.

/// The form that this program writes, and the newest that it reads.
pub(super) const VERSION: u8 = 1;

/// Enough to find what broke by chance; against those who can write to the store no sum helps.
const SUM_BYTES: usize = 8;

/// Why stored bytes cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// A newer program wrote it.
    #[error("it is in form {0}, and this program reads forms up to {VERSION}")]
    Newer(u8),
    /// It is not what was written.
    #[error("it is damaged")]
    Damaged,
}

/// Puts `content` into an envelope. `place` is where it will lie: what strays to another place is damage.
pub(super) fn seal(place: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + content.len() + SUM_BYTES);
    bytes.push(VERSION);
    bytes.extend_from_slice(content);
    let sum = sum(place, &bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// Takes the content out.
pub(super) fn open<'a>(place: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], Unreadable> {
    let (content, found) = bytes.split_last_chunk::<SUM_BYTES>().ok_or(Unreadable::Damaged)?;
    if sum(place, content) != *found {
        return Err(Unreadable::Damaged);
    }
    match content.split_first() {
        Some((&VERSION, content)) => Ok(content),
        Some((&version, _)) if version > VERSION => Err(Unreadable::Newer(version)),
        Some(_) | None => Err(Unreadable::Damaged),
    }
}

fn sum(place: &[u8], bytes: &[u8]) -> [u8; SUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    // Places are of one length within each table, so no two pairs of parts hash alike.
    hasher.update(place).update(bytes);
    let mut sum = [0; SUM_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let bytes = seal(b"1", b"content");
        assert_eq!(open(b"1", &bytes), Ok(b"content".as_slice()));
        assert_eq!(open(b"2", &bytes), Err(Unreadable::Damaged), "it strayed");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = seal(b"1", b"content");
        for index in 0..bytes.len() {
            assert_eq!(open(b"1", &bytes[..index]), Err(Unreadable::Damaged));
            for bit in 0..8 {
                let mut broken = bytes.clone();
                broken[index] ^= 1 << bit;
                assert_eq!(open(b"1", &broken), Err(Unreadable::Damaged));
            }
        }
    }

    #[test]
    fn a_newer_form_is_named() {
        let mut bytes = vec![VERSION + 1, 7];
        let sum = sum(b"1", &bytes);
        bytes.extend_from_slice(&sum);
        assert_eq!(open(b"1", &bytes), Err(Unreadable::Newer(VERSION + 1)));
    }
}
