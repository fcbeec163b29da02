//! Public keys that verify the tokens of an identity provider: from a JWKS (RFC 7517), or one in PEM form.

use std::ops::RangeInclusive;

use aws_lc_rs::rsa::PublicKey;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;

/// The most keys that one provider may publish.
pub const MAX_KEYS: usize = 64;

/// The most keys that are tried on one token.
pub const MAX_TRIED: usize = 16;

/// How long the modulus of an RSA key may be, as the library holds it: 2048 to 8192 bits.
const RSA_BYTES: RangeInclusive<usize> = 256..=1024;

/// The keys of one provider.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    /// What may be verified with it, by its kind and by its own `alg`; never empty.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// Why no keys can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// It is no JSON object with `keys`.
    #[error("it is not a JWKS")]
    NotJwks,
    /// It holds too many keys.
    #[error("it holds more than {MAX_KEYS} keys")]
    TooMany,
    /// The PEM text holds no public key of a kind that verifies tokens.
    #[error("it is not a public key (RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519) in PEM form")]
    NotPem,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// The keys of a JWKS. Those that are for something else, or of an unknown kind, are left out.
    ///
    /// # Errors
    /// It is no JWKS, or holds more than [`MAX_KEYS`].
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeyFault> {
        let document: Document = serde_json::from_slice(json).map_err(|_| KeyFault::NotJwks)?;
        if document.keys.len() > MAX_KEYS {
            return Err(KeyFault::TooMany);
        }
        Ok(Self { keys: document.keys.into_iter().filter_map(Key::from_json).collect() })
    }

    /// The one key of a PEM text.
    ///
    /// # Errors
    /// It holds no public key of a kind that is supported.
    pub fn from_pem(pem: &str) -> Result<Self, KeyFault> {
        let key = pem_content(pem).and_then(|der| Key::from_der(&der)).ok_or(KeyFault::NotPem)?;
        Ok(Self { keys: vec![key] })
    }

    /// Whether it holds no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key has this name.
    #[must_use]
    pub fn knows(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// Whether some key fits `algorithm`.
    #[must_use]
    pub fn serves(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.algorithms.contains(&algorithm))
    }

    /// The keys to try on a token with this header: those of its `kid` first, then those without a name; all that fit
    /// where it names none.
    pub(crate) fn candidates<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a DecodingKey> {
        let fits = move |key: &&Key| key.algorithms.contains(&algorithm);
        let named = self.keys.iter().filter(move |key| kid.is_none() || key.kid.as_deref() == kid);
        let nameless = self.keys.iter().filter(move |key| kid.is_some() && key.kid.is_none());
        named.chain(nameless).filter(fits).map(|key| &key.key).take(MAX_TRIED)
    }
}

impl Key {
    fn from_json(value: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
        let verifies = common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let mut algorithms = algorithms(&jwk.algorithm)?;
        if let Some(own) = common.key_algorithm {
            let own: Algorithm = own.try_into().ok()?;
            algorithms.retain(|algorithm| *algorithm == own);
        }
        if algorithms.is_empty() {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { kid: jwk.common.key_id, algorithms, key })
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        let is = |algorithm: &'static dyn VerificationAlgorithm| ParsedPublicKey::new(algorithm, der).is_ok();
        let rsa = PublicKey::from_der(der).is_ok_and(|key| RSA_BYTES.contains(&key.modulus_len()));
        let (algorithms, key) = if rsa {
            (AlgorithmFamily::Rsa.algorithms().to_vec(), DecodingKey::from_rsa_der(der))
        } else if is(&signature::ECDSA_P256_SHA256_FIXED) {
            (vec![Algorithm::ES256], DecodingKey::from_ec_der(der))
        } else if is(&signature::ECDSA_P384_SHA384_FIXED) {
            (vec![Algorithm::ES384], DecodingKey::from_ec_der(der))
        } else if is(&signature::ED25519) {
            (vec![Algorithm::EdDSA], DecodingKey::from_ed_der(der))
        } else {
            return None;
        };
        Some(Self { kid: None, algorithms, key })
    }
}

/// What a key of this kind verifies. SECURITY: a symmetric key in a published set is known to everybody.
fn algorithms(parameters: &AlgorithmParameters) -> Option<Vec<Algorithm>> {
    match parameters {
        AlgorithmParameters::RSA(_) => Some(AlgorithmFamily::Rsa.algorithms().to_vec()),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Some(vec![Algorithm::ES256])
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
            Some(vec![Algorithm::ES384])
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Some(vec![Algorithm::EdDSA])
        }
        _ => None,
    }
}

/// The content of the first block, which must be a public key's (RFC 7468, or PKCS #1 as OpenSSL writes it).
fn pem_content(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    if !matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY") {
        return None;
    }
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}
