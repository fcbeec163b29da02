//! `from = "jwt-cookie"` and `from = "jwt-header"`: how tokens of an identity provider are verified and read (R8).

use jsonptr::PointerBuf;
use jsonwebtoken::Algorithm;

use super::raw::{Section, Value};
use super::{cookies, identity};
use crate::session::identity::{JwtKeys, JwtRule, SourceKind};
use crate::session::keys::KeySet;

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

pub(super) fn in_cookie(section: &mut Section<'_>) -> Option<SourceKind> {
    let name = section.required("name", "name the cookie that holds the token: name = \"access_token\"");
    let jwt = rule(section);
    let name = name.and_then(|name| name.read(cookies::cookie_name));
    Some(SourceKind::JwtCookie { name: name?, jwt: jwt? })
}

pub(super) fn in_header(section: &mut Section<'_>) -> Option<SourceKind> {
    let name = section.required("name", "name the header that holds the token: name = \"Authorization\"");
    let jwt = rule(section);
    let name = name.and_then(|name| name.header());
    Some(SourceKind::JwtHeader { name: name?, jwt: jwt? })
}

fn rule(section: &mut Section<'_>) -> Option<JwtRule> {
    let issuer = section
        .required("issuer", "name who must have issued the token: issuer = \"https://idp.example.com\"");
    let audience = section.required("audience", "name whom the token must be meant for: audience = \"crm\"");
    let algorithms = section.required("algorithms", "name what may sign: algorithms = [\"RS256\"]");
    let names = identity::names(section, claim);
    let keys = keys(section);
    let text = |value: Option<Value<'_>>| value.and_then(|value| nonempty(&value));
    let (issuer, audience) = (text(issuer), text(audience));
    let one_key = match &keys {
        Some(JwtKeys::Pem(pem)) => KeySet::from_pem(pem).ok(),
        Some(JwtKeys::Jwks(_)) | None => None,
    };
    let algorithms = algorithms.and_then(|value| read_algorithms(&value, one_key.as_ref()));
    Some(JwtRule {
        keys: keys?,
        issuer: issuer?,
        audience: audience?,
        algorithms: algorithms?,
        names: names?,
    })
}

fn nonempty(value: &Value<'_>) -> Option<String> {
    value.read(|text| match text {
        "" => Err(("is empty".to_owned(), "an empty value would fit no token".to_owned())),
        text => Ok(text.to_owned()),
    })
}

/// `one_key` is the key where it is fixed: an algorithm that it does not serve could never fit.
fn read_algorithms(value: &Value<'_>, one_key: Option<&KeySet>) -> Option<Vec<Algorithm>> {
    if value.is_empty_list() {
        value.fault("names no algorithm", "write algorithms = [\"RS256\"]");
    }
    let mut read = Vec::new();
    for (value, algorithm) in value.one_or_more().iter().filter_map(|value| Some((value, algorithm(value)?)))
    {
        if one_key.is_some_and(|key| !key.serves(algorithm)) {
            value.fault(format!("{algorithm:?} does not fit the key"), "name those of the key alone");
        }
        read.push(algorithm);
    }
    (!read.is_empty()).then_some(read)
}

/// SECURITY: `none` proves nothing, and with a symmetric algorithm whoever reads the public key could sign.
fn algorithm(value: &Value<'_>) -> Option<Algorithm> {
    let text = value.as_text().unwrap_or_default();
    let symmetric = text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("HS"));
    if symmetric || text.eq_ignore_ascii_case("none") {
        let message = format!("{text:?} is refused: a token must be verified by a public key");
        value.fault(message, "use the provider's asymmetric algorithm, such as \"RS256\" or \"ES256\"");
        return None;
    }
    value.choice(ALGORITHMS)
}

/// A claim: a plain name, or a JSON pointer into nested claims.
fn claim(value: &Value<'_>) -> Option<PointerBuf> {
    value.read(|text| match text {
        "" | "/" => {
            Err((format!("{text:?} names no claim"), "write \"sub\" or \"/realm_access/roles\"".to_owned()))
        }
        nested if nested.starts_with('/') => PointerBuf::parse(nested).map_err(|_| {
            (format!("{nested:?} is not a JSON pointer"), "write it as \"/realm_access/roles\"".to_owned())
        }),
        name => Ok(PointerBuf::from_tokens([name])),
    })
}

fn keys(section: &mut Section<'_>) -> Option<JwtKeys> {
    let jwks = section.value("jwks");
    let key = section.value("key");
    match (jwks, key) {
        (Some(jwks), None) => jwks.read(jwks_url).map(JwtKeys::Jwks),
        (None, Some(key)) => public_key(&key).map(JwtKeys::Pem),
        (Some(_), Some(key)) => {
            key.fault(
                "stands beside jwks",
                "keep one: jwks follows the provider's changes of keys, key is fixed",
            );
            None
        }
        (None, None) => {
            let hint = "add jwks = \"https://idp.example.com/jwks.json\" or key = \"idp.pem\"";
            section.sink.missing(&section.at, "neither jwks nor key is given", hint);
            None
        }
    }
}

/// SECURITY: keys that travel in clear text could be replaced on the way; only this machine is near enough.
fn jwks_url(text: &str) -> Result<String, (String, String)> {
    let hint = || "write \"https://idp.example.com/jwks.json\"".to_owned();
    // SECURITY: the text is never shown, it may hold a password.
    let wrong = |message: &str| (message.to_owned(), hint());
    let uri: http::Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong("names a user: keys are fetched without credentials"));
    }
    let local = |host: &str| matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => Ok(text.to_owned()),
        (Some("http"), Some(host)) if local(host) => Ok(text.to_owned()),
        (Some("http"), Some(_)) => Err(wrong("would fetch the keys in clear text")),
        _ => Err(wrong("is not a URL")),
    }
}

/// A PEM public key: the text itself, or the path of its file with or without `file:`.
fn public_key(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let pem = if text.starts_with("-----BEGIN") || text.contains("${") {
        value.secret_text()?.to_string()
    } else {
        let bytes = value.file(text.strip_prefix("file:").unwrap_or(text))?;
        String::from_utf8(bytes).unwrap_or_default()
    };
    let hint = "give the provider's public key in PEM form, \"-----BEGIN PUBLIC KEY-----\"";
    if pem.contains("PRIVATE KEY-----") {
        value.fault("is a private key", hint);
        return None;
    }
    if KeySet::from_pem(&pem).is_err() {
        value.fault("is not a public key in PEM form", hint);
        return None;
    }
    Some(pem)
}
