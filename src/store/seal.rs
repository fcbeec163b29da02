//! Encryption of jars where they leave the memory of the process: nobody who reads a disk or a Redis holds a cookie.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use super::secrets::Secrets;
use crate::session::SessionId;
use crate::session::jar::Jar;

/// Seals jars under one secret, and opens those that were sealed under others that are held too.
pub(super) struct Sealer {
    current: RandomizedNonceKey,
    next: Option<RandomizedNonceKey>,
    previous: Vec<RandomizedNonceKey>,
}

/// A jar that was opened.
#[derive(Debug)]
pub(super) struct OpenedJar {
    pub(super) jar: Jar,
    /// It was sealed under a secret from before, and is to be sealed anew.
    pub(super) is_old: bool,
}

/// A jar cannot be opened: it was sealed under another secret, or is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a jar was sealed under another secret, or is damaged")]
pub(super) struct CannotOpen;

impl Sealer {
    /// A sealer under the secrets that key the hashes of tokens.
    #[must_use]
    pub(super) fn new(secrets: &Secrets) -> Self {
        Self {
            current: key_of(&secrets.current),
            next: secrets.next.as_ref().map(key_of),
            previous: secrets.previous.iter().map(key_of).collect(),
        }
    }

    /// The jar of `session`, encrypted; the nonce comes first. Only for that session can it be opened again.
    #[must_use]
    pub(super) fn seal(&self, session: SessionId, jar: &Jar) -> Option<Vec<u8>> {
        let mut content = Zeroizing::new(postcard::to_allocvec(jar).ok()?);
        // In place: nothing of the plain text may be left in memory that was given back.
        let mut sealed = Zeroizing::new(Vec::with_capacity(NONCE_LEN + content.len() + 16));
        let nonce = self.current.seal_in_place_append_tag(aad(session), &mut *content).ok()?;
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&content);
        Some(std::mem::take(&mut *sealed))
    }

    /// Opens what [`Sealer::seal`] made.
    ///
    /// # Errors
    /// [`CannotOpen`].
    pub(super) fn open(&self, session: SessionId, sealed: &[u8]) -> Result<OpenedJar, CannotOpen> {
        let with = |key: &RandomizedNonceKey| open(key, session, sealed).ok();
        let fresh = with(&self.current).or_else(|| self.next.as_ref().and_then(with));
        if let Some(jar) = fresh {
            return Ok(OpenedJar { jar, is_old: false });
        }
        let old = self.previous.iter().find_map(with);
        old.map(|jar| OpenedJar { jar, is_old: true }).ok_or(CannotOpen)
    }
}

/// # Panics
/// Never: the key has the length that the cipher asks for.
#[expect(clippy::expect_used, reason = "the length is that of the key's own type")]
fn key_of(secret: &[u8; 32]) -> RandomizedNonceKey {
    let key = Zeroizing::new(blake3::derive_key("tenure 2026-11 vault jars", secret));
    RandomizedNonceKey::new(&AES_256_GCM_SIV, key.as_slice()).expect("a key of 32 bytes")
}

fn open(key: &RandomizedNonceKey, session: SessionId, sealed: &[u8]) -> Result<Jar, CannotOpen> {
    let (nonce, content) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(CannotOpen)?;
    let mut content = Zeroizing::new(content.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let plain = key.open_in_place(nonce, aad(session), &mut content).map_err(|_| CannotOpen)?;
    postcard::from_bytes(plain).map_err(|_| CannotOpen)
}

fn aad(session: SessionId) -> Aad<[u8; 16]> {
    Aad::from(session.as_u128().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Moment;
    use crate::session::jar::Site;

    #[test]
    fn a_jar_is_opened_by_its_secret_and_for_its_session_alone() {
        let (now, site) = (Moment::from_unix_ms(5), Site::new("app.example", "/", true));
        let mut jar = Jar::default();
        jar.store(b"sid=topsecret; Path=/", &site, now, 4096);
        let (one, other) = (SessionId::from_u128(1), SessionId::from_u128(2));
        let sealer = Sealer::new(&Secrets::from([1; 32]));
        let sealed = sealer.seal(one, &jar).expect("sealed");
        assert!(!sealed.windows(9).any(|w| w == b"topsecret"));
        assert!(sealer.open(one, &sealed).is_ok_and(|opened| opened.jar == jar && !opened.is_old));
        assert_eq!(sealer.open(other, &sealed).err(), Some(CannotOpen));
        let another = Secrets::from([2; 32]);
        assert_eq!(Sealer::new(&another).open(one, &sealed).err(), Some(CannotOpen));
        for (previous, next, is_old) in [(vec![[1; 32]], None, true), (vec![], Some([1; 32]), false)] {
            let sealer = Sealer::new(&Secrets { previous, next, ..another.clone() });
            assert!(
                sealer.open(one, &sealed).is_ok_and(|opened| opened.jar == jar && opened.is_old == is_old)
            );
        }
        for cut in [0, 5, NONCE_LEN, sealed.len() - 1] {
            assert_eq!(sealer.open(one, &sealed[..cut]).err(), Some(CannotOpen));
        }
    }
}
