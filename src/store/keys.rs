//! From a token to its key: a keyed hash, so that neither memory, file nor wire ever holds the token (law 10).

use zeroize::Zeroizing;

use crate::session::TokenKey;

/// Makes keys of tokens. SECURITY: holds the secret that keys the hashes; no `Debug`.
#[derive(Clone)]
pub struct Hasher {
    secret: [u8; 32],
    /// What every hash begins with.
    app: Vec<u8>,
}

impl Hasher {
    /// A hasher for one app. The app's name is part of the hash: equal values in two apps are two tokens.
    #[must_use]
    pub fn new(secret: &[u8; 32], app: &str) -> Self {
        let app = [length(app.as_bytes()).as_slice(), app.as_bytes()].concat();
        Self { secret: *secret, app }
    }

    /// The key of the id `id` in the cookie `name`.
    #[must_use]
    pub fn key(&self, name: &[u8], id: &[u8]) -> TokenKey {
        // In one piece: the state of a hash that is fed bit by bit is two kilobytes, and would be copied for each request.
        let whole = [self.app.as_slice(), &length(name), name, id].concat();
        let hash = blake3::keyed_hash(&self.secret, &whole);
        let mut key = [0; 16];
        key.copy_from_slice(&hash.as_bytes()[..16]);
        TokenKey(key)
    }
}

/// The key of the hashes, from the configured secret of whatever length.
#[must_use]
pub fn derive_key(secret: &[u8]) -> [u8; 32] {
    blake3::derive_key("tenure 2026-11 token hashes", secret)
}

/// As many as the key of the hashes has.
pub(super) const SECRET_BYTES: usize = 32;

/// A secret of the store's own. It does not end with a line end, which is no part of a secret where a configuration names the
/// file that holds it.
pub(super) fn new_secret() -> Zeroizing<[u8; SECRET_BYTES]> {
    loop {
        let secret = Zeroizing::new(random_bytes::<SECRET_BYTES>());
        if !secret.ends_with(b"\n") && !secret.ends_with(b"\r") {
            return secret;
        }
    }
}

/// What a secret is known by where something is keyed by it; it cannot be found from that.
#[must_use]
pub(super) fn proof(secret: &[u8; 32]) -> [u8; 32] {
    *blake3::keyed_hash(secret, b"tenure: is this the secret of this store?").as_bytes()
}

/// Goes before a part, so that no two pairs of parts hash alike.
fn length(part: &[u8]) -> [u8; 8] {
    u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes()
}

/// Random bytes from the operating system.
///
/// # Panics
/// When the system has no randomness: nothing can be done safely then, and a predictable id would be worse.
#[must_use]
#[expect(clippy::expect_used, reason = "without randomness nothing may go on")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system provides randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_secret_app_name_and_id() {
        let base = Hasher::new(&[1; 32], "crm").key(b"sid", b"x");
        assert_eq!(base, Hasher::new(&[1; 32], "crm").key(b"sid", b"x"));
        for other in [
            Hasher::new(&[2; 32], "crm").key(b"sid", b"x"),
            Hasher::new(&[1; 32], "wiki").key(b"sid", b"x"),
            Hasher::new(&[1; 32], "crm").key(b"sidx", b""),
            Hasher::new(&[1; 32], "crm").key(b"sid", b"y"),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn keys_stay_what_stores_have_written() {
        for id in ["x".to_owned(), "y".repeat(5000)] {
            let mut fed = blake3::Hasher::new_keyed(&[1; 32]);
            for part in [&3_u64.to_le_bytes()[..], b"crm", &3_u64.to_le_bytes(), b"sid", id.as_bytes()] {
                fed.update(part);
            }
            let key = Hasher::new(&[1; 32], "crm").key(b"sid", id.as_bytes());
            assert_eq!(key.0, fed.finalize().as_bytes()[..16]);
        }
    }
}
