//! `[store]`: what keeps the sessions, and the secret that keys their tokens.

use super::raw::{Section, Value};
use super::{Secret, Store, StoreKind, later};

/// Shorter secrets could be guessed.
const MIN_SECRET_BYTES: usize = 16;

pub(super) fn read(mut section: Section<'_>) -> Store {
    let kind = match section.value("path") {
        Some(path) => path.text().map_or(StoreKind::Memory, |text| kind(&path, text)),
        None => StoreKind::Path(section.sink.path("data")),
    };
    let secret = section.value("secret").and_then(|value| read_secret(&value));
    later::refuse_in_store(&mut section);
    section.finish();
    Store { kind, secret }
}

fn kind(value: &Value<'_>, text: &str) -> StoreKind {
    if text.is_empty() {
        value.fault("names no directory", "write \"data\", or \"off\" to keep sessions in memory alone");
    }
    if text == "off" { StoreKind::Memory } else { StoreKind::Path(value.sink.path(text)) }
}

fn read_secret(value: &Value<'_>) -> Option<Secret> {
    let secret = value.secret()?;
    if secret.expose().len() < MIN_SECRET_BYTES {
        let hint = "make one with `openssl rand -base64 32` and keep it in a file: secret = \"file:PATH\"";
        value.fault(format!("the secret is shorter than {MIN_SECRET_BYTES} bytes"), hint);
    }
    Some(secret)
}
