//! Verifies tokens of identity providers (`from = "jwt-cookie"` and `"jwt-header"`, R8).
//!
//! What may sign is said by the configuration alone; a token's header only chooses among that. Times are judged by the
//! gateway's own clock, so the library's checks of them are off.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use serde_json::Value;
use tokio::sync::Notify;

use crate::session::identity::{JwtRule, Names, Raw};
use crate::session::keys::KeySet;
use crate::session::{Moment, Span};

/// The longest token that is read.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// How far the provider's clock may be from ours.
const LEEWAY: Span = Span::from_secs(30);

/// Keys that verifiers on all workers read and the control thread replaces.
#[derive(Debug, Default)]
pub struct SharedKeys {
    set: ArcSwap<KeySet>,
    /// Holds one wish at most, however many tokens miss their key.
    missed: Notify,
}

impl SharedKeys {
    /// Shares `keys`.
    #[must_use]
    pub fn new(keys: KeySet) -> Arc<Self> {
        Arc::new(Self { set: ArcSwap::from_pointee(keys), missed: Notify::new() })
    }

    /// From now on these keys verify, and no others.
    pub fn replace(&self, keys: KeySet) {
        self.set.store(Arc::new(keys));
    }

    /// Waits until a token names a key that is not here; at once when one did since the last call.
    // CANCEL: a wish that was not yet taken stays for the next call.
    pub async fn missed(&self) {
        self.missed.notified().await;
    }
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtFault {
    /// It is longer than is read.
    #[error("the token is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    /// It is no signed token, or its header asks for something that is not understood.
    #[error("it is no token that can be read")]
    Malformed,
    /// It is a token for another purpose, by its `typ`.
    #[error("it is a token for another purpose")]
    Type,
    /// It is signed in a way that the configuration does not allow.
    #[error("its algorithm is not allowed")]
    Algorithm,
    /// There is no key for it.
    #[error("its key is not known")]
    UnknownKey,
    /// No key verifies it.
    #[error("its signature is wrong")]
    Signature,
    /// A required claim is missing or is not of its type.
    #[error("a required claim is missing or cannot be read")]
    Claims,
    /// Somebody else issued it.
    #[error("it has another issuer")]
    Issuer,
    /// It is meant for somebody else.
    #[error("it has another audience")]
    Audience,
    /// It is over.
    #[error("it has expired")]
    Expired,
    /// It is for later.
    #[error("it is not valid yet")]
    NotYet,
    /// It names no user.
    #[error("it names no user")]
    NoUser,
}

impl JwtFault {
    /// A short name for logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::NoUser => "no_user",
        }
    }
}

/// Verifies the tokens of one source.
#[derive(Debug)]
pub struct Verifier {
    keys: Arc<SharedKeys>,
    /// One for each allowed algorithm, so that none lets in another.
    allowed: Vec<(Algorithm, Validation)>,
    names: Names<jsonptr::PointerBuf>,
}

impl Verifier {
    /// A verifier by `rule` with `keys`.
    #[must_use]
    pub fn new(rule: &JwtRule, keys: Arc<SharedKeys>) -> Self {
        let allowed = rule.algorithms.iter().map(|algorithm| (*algorithm, validation(rule, *algorithm)));
        Self { keys, allowed: allowed.collect(), names: rule.names.clone() }
    }

    /// Whom `token` names, if it is valid at `now`.
    ///
    /// # Errors
    /// See [`JwtFault`]; nothing of the token is in it.
    pub fn verify(&self, token: &str, now: Moment) -> Result<Raw, JwtFault> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwtFault::TooLong);
        }
        let header = decode_header(token).map_err(|_| JwtFault::Malformed)?;
        // RFC 7515 section 4.1.11: who does not understand an extension marked critical must refuse the token.
        if header.crit.is_some() {
            return Err(JwtFault::Malformed);
        }
        if !names_nobody_else(header.typ.as_deref()) {
            return Err(JwtFault::Type);
        }
        let allowed = self.allowed.iter().find(|(algorithm, _)| *algorithm == header.alg);
        let (_, validation) = allowed.ok_or(JwtFault::Algorithm)?;
        let claims = self.signed_claims(token, &header, validation)?;
        judge_times(&claims, now)?;
        self.names.read(&claims).ok_or(JwtFault::NoUser)
    }

    /// The claims, once some key verifies their signature, and issuer and audience are the required ones.
    fn signed_claims(
        &self,
        token: &str,
        header: &Header,
        validation: &Validation,
    ) -> Result<Value, JwtFault> {
        let keys = self.keys.set.load();
        let kid = header.kid.as_deref();
        let mut fault = JwtFault::UnknownKey;
        for key in keys.candidates(kid, header.alg) {
            match decode::<Value>(token, key, validation) {
                Ok(data) => return checked_issuer(data.claims),
                Err(error) => fault = fault_of(&error),
            }
            if fault != JwtFault::Signature {
                return Err(fault);
            }
        }
        // A provider that changes its keys is asked again; the fetching side bounds how often.
        if !kid.is_some_and(|kid| keys.knows(kid)) {
            self.keys.missed.notify_one();
        }
        Err(fault)
    }
}

fn validation(rule: &JwtRule, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.set_issuer(&[&rule.issuer]);
    validation.set_audience(&[&rule.audience]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

/// SECURITY: a logout or security event token of the same provider names a user, who has not signed in by it.
fn names_nobody_else(typ: Option<&str>) -> bool {
    let Some(typ) = typ else { return true };
    let typ = typ
        .get(.."application/".len())
        .filter(|p| p.eq_ignore_ascii_case("application/"))
        .map_or(typ, |p| &typ[p.len()..]);
    typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt")
}

/// The library also takes a list that holds the issuer; RFC 7519 knows one issuer alone.
fn checked_issuer(claims: Value) -> Result<Value, JwtFault> {
    if claims.get("iss").is_some_and(Value::is_string) { Ok(claims) } else { Err(JwtFault::Issuer) }
}

fn fault_of(error: &Error) -> JwtFault {
    match error.kind() {
        ErrorKind::InvalidSignature => JwtFault::Signature,
        ErrorKind::InvalidIssuer => JwtFault::Issuer,
        ErrorKind::InvalidAudience => JwtFault::Audience,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => JwtFault::Claims,
        ErrorKind::InvalidAlgorithm => JwtFault::Algorithm,
        _ => JwtFault::Malformed,
    }
}

/// RFC 7519: from `exp` on it must not be accepted, nor before `nbf`.
fn judge_times(claims: &Value, now: Moment) -> Result<(), JwtFault> {
    let expires = claims.get("exp").and_then(numeric_date).ok_or(JwtFault::Claims)?;
    if now >= expires.plus(LEEWAY) {
        return Err(JwtFault::Expired);
    }
    let Some(begins) = claims.get("nbf") else { return Ok(()) };
    let begins = numeric_date(begins).ok_or(JwtFault::Claims)?;
    if now.plus(LEEWAY) < begins { Err(JwtFault::NotYet) } else { Ok(()) }
}

/// Seconds since the epoch, with or without a fraction.
fn numeric_date(value: &Value) -> Option<Moment> {
    let ms = match value.as_u64() {
        Some(seconds) => seconds.saturating_mul(1000),
        // A float that is cast saturates; before the epoch is the epoch.
        None => (value.as_f64()? * 1000.0) as u64,
    };
    Some(Moment::from_unix_ms(ms))
}

#[cfg(test)]
mod tests;
