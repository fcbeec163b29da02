//! Key pairs of every family, which sign whatever they are told to.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::NOW;

pub(super) enum Pair {
    Rs(RsaKeyPair),
    Es(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Pair {
    pub(super) fn rsa() -> Self {
        Self::Rs(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(super) fn ec() -> Self {
        Self::Es(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(super) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    pub(super) fn all() -> [Self; 3] {
        [Self::rsa(), Self::ec(), Self::ed()]
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rs(_) => Algorithm::RS256,
            Self::Es(_) => Algorithm::ES256,
            Self::Ed(_) => Algorithm::EdDSA,
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rs(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Es(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    pub(super) fn der(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Rs(pair) => pair.public_key().as_der().unwrap(),
            Self::Es(pair) => pair.public_key().as_der().unwrap(),
            Self::Ed(pair) => pair.public_key().as_der().unwrap(),
        };
        der.as_ref().to_vec()
    }

    pub(super) fn pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(self.der()))
    }

    /// The key as a JWK, changed by `with`.
    pub(super) fn jwk(&self, with: Value) -> Value {
        let mut jwk = match self {
            Self::Rs(pair) => {
                let parts = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "n": b64(&parts.n), "e": b64(&parts.e) })
            }
            Self::Es(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]) })
            }
            Self::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref()) })
            }
        };
        merge(&mut jwk, with);
        jwk
    }

    pub(super) fn token(&self, header: Value, claims: Value) -> String {
        let mut whole = json!({ "alg": format!("{:?}", self.algorithm()), "typ": "JWT" });
        merge(&mut whole, header);
        let message = message(&whole, &good(claims));
        format!("{message}.{}", b64(&self.sign(message.as_bytes())))
    }
}

pub(super) fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(header.to_string().as_bytes()), b64(claims.to_string().as_bytes()))
}

/// `null` removes a member.
pub(super) fn merge(into: &mut Value, from: Value) {
    let (Value::Object(into), Value::Object(from)) = (into, from) else { panic!("not an object") };
    for (name, value) in from {
        into.insert(name, value);
    }
    into.retain(|_, value| !value.is_null());
}

/// Claims that are right, but for `with`.
pub(super) fn good(with: Value) -> Value {
    let mut claims = json!({ "iss": "idp", "aud": "crm", "exp": NOW + 300, "sub": "ann" });
    merge(&mut claims, with);
    claims
}
