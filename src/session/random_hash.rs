//! Hashing of what is random already.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`RandomHasher`]s.
pub type BuildRandomHasher = BuildHasherDefault<RandomHasher>;

/// A hasher for session ids and token keys alone. Ids are random and ours, keys are hashes under a secret: nobody can choose
/// any of them, and any part of one is a hash.
#[derive(Clone, Debug, Default)]
pub struct RandomHasher(u64);

impl Hasher for RandomHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.0 ^= u64::from_ne_bytes(*word);
        }
        for byte in rest {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;
    use crate::session::{SessionId, TokenKey};

    #[test]
    fn every_bit_counts() {
        let build = BuildRandomHasher::default();
        let id = |bit: u32| build.hash_one(SessionId::from_u128(1 << bit));
        let key = |bit: u32| build.hash_one(TokenKey((1_u128 << bit).to_ne_bytes()));
        for bit in 0..128 {
            assert_ne!(id(bit), build.hash_one(SessionId::from_u128(0)), "{bit}");
            assert_ne!(key(bit), build.hash_one(TokenKey([0; 16])), "{bit}");
        }
    }
}
