//! From a token to its key: a keyed hash, so that neither memory, file nor wire ever holds the token (law 10).

use zeroize::Zeroizing;

use crate::session::TokenKey;

/// Makes keys of tokens. SECURITY: holds the secret that keys the hashes; no `Debug`.
#[derive(Clone)]
pub struct Hasher {
    keyed: blake3::Hasher,
}

impl Hasher {
    /// A hasher for one app. The app's name is part of the hash: equal values in two apps are two tokens.
    #[must_use]
    pub fn new(secret: &[u8; 32], app: &str) -> Self {
        let mut keyed = blake3::Hasher::new_keyed(secret);
        absorb(&mut keyed, app.as_bytes());
        Self { keyed }
    }

    /// The key of the id `id` in the cookie `name`.
    #[must_use]
    pub fn key(&self, name: &[u8], id: &[u8]) -> TokenKey {
        let mut keyed = self.keyed.clone();
        absorb(&mut keyed, name);
        keyed.update(id);
        let mut key = [0; 16];
        keyed.finalize_xof().fill(&mut key);
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

/// Length before content, so that no two pairs of parts hash alike.
fn absorb(hasher: &mut blake3::Hasher, part: &[u8]) {
    hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
    hasher.update(part);
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
}
