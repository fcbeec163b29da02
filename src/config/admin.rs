//! `[admin]`: where the API listens, and who may use it.

use std::net::{Ipv4Addr, SocketAddr};

use super::raw::{Section, Value};
use super::roles::known_scope;
use super::tenancy::Tenancy;
use super::{Admin, AdminListen, AdminToken, app};
use crate::session::identity::UserCase;

const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

pub(super) fn read(mut section: Section<'_>, tenancy: &Tenancy) -> Admin {
    let at = section.value("listen");
    let listen = match &at {
        Some(value) => address(value),
        None => section.is_present().then_some(AdminListen::Tcp(DEFAULT)),
    };
    let probes = section.value("probes").and_then(|value| value.address());
    let tokens = read_tokens(&section.list("tokens"), tenancy);
    if let (Some(value), Some(AdminListen::Tcp(address))) = (&at, &listen)
        && !address.ip().is_loopback()
        && tokens.is_empty()
    {
        let hint = "listen at 127.0.0.1:9901, or add tokens: `tenure token new` makes one";
        section.sink.missing(
            &value.at,
            "the API would listen to the network, and nobody could use it: it has no token",
            hint,
        );
    }
    section.finish();
    Admin { listen, probes, tokens }
}

fn address(value: &Value<'_>) -> Option<AdminListen> {
    match value.text()?.strip_prefix("unix:") {
        Some("") => {
            value.fault("names no socket", "write \"unix:/run/tenure.sock\"");
            None
        }
        Some(path) => Some(AdminListen::Unix(value.sink.path(path))),
        None => value.address().map(AdminListen::Tcp),
    }
}

fn read_tokens(values: &[Value<'_>], tenancy: &Tenancy) -> Vec<AdminToken> {
    let mut tokens: Vec<AdminToken> = Vec::new();
    for value in values {
        let Some(token) = read_token(value, tenancy) else { continue };
        if tokens.iter().any(|other| other.name == token.name) {
            value.fault(
                format!("a second token named {:?}", token.name),
                "names stand in the audit: make them differ",
            );
        }
        if tokens.iter().any(|other| other.hash == token.hash) {
            value.fault("the same token under a second name", "make one for each with `tenure token new`");
        }
        tokens.push(token);
    }
    tokens
}

fn read_token(value: &Value<'_>, tenancy: &Tenancy) -> Option<AdminToken> {
    let mut section = value.section()?;
    let hint = "`tenure token new --name ops --scopes '*'` prints the whole line";
    let name = section.required("name", hint);
    let hash = section.required("hash", hint);
    let scopes = section.required("scopes", "write scopes = [\"sessions.read\"], or [\"*\"] for all");
    let tenant = section.value("tenant");
    section.finish();
    let tenant = match tenant {
        Some(tenant) if tenant.as_text() != Some("*") => Some(tenancy.tenant(&tenant)?),
        _ => None,
    };
    let (hash, scopes) = (hash.as_ref().and_then(read_hash), scopes.map(|scopes| read_scopes(&scopes)));
    Some(AdminToken { name: app::name(&name?, UserCase::Exact)?, hash: hash?, scopes: scopes?, tenant })
}

fn read_scopes(value: &Value<'_>) -> Vec<String> {
    if value.is_empty_list() {
        value.fault("a token without scopes may do nothing", "write scopes = [\"sessions.read\"]");
    }
    let scope = |value: &Value<'_>| {
        value.read(|text| match known_scope(text) {
            Ok(()) => Ok(text.to_owned()),
            Err(hint) => Err((format!("{text:?} is no scope"), hint)),
        })
    };
    value.list().iter().filter_map(scope).collect()
}

/// `sha256:` and 64 hexadecimal digits. What stands there instead is never shown: it may be the token itself.
fn read_hash(value: &Value<'_>) -> Option<[u8; 32]> {
    let text = value.secret_text()?;
    let hash = text.trim().strip_prefix("sha256:").and_then(unhex);
    if hash.is_none() {
        let hint =
            "write \"sha256:\" and the 64 hexadecimal digits that `tenure token new` prints, never the token";
        value.fault("is not the hash of a token", hint);
    }
    hash
}

fn unhex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
