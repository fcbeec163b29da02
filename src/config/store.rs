//! `[store]`: what keeps the sessions, and the secret that keys their tokens.

use super::raw::{Section, Value};
use super::{OnOutage, Secret, Store, StoreKind, redis};
use crate::session::Span;

/// `outage_max` where nothing is set: long enough for a disk to be cleared or a server to be replaced.
const OUTAGE_MAX: Span = Span::from_secs(15 * 60);

/// Shorter secrets could be guessed.
const MIN_SECRET_BYTES: usize = 16;

/// More were never in use within the time that anything is kept.
const MAX_PREVIOUS: usize = 4;

pub(super) fn read(mut section: Section<'_>) -> Store {
    let (path, shared) = (section.value("path"), section.value("redis"));
    if let (Some(_), Some(shared)) = (&path, &shared) {
        shared.fault("stands beside path", "sessions are kept in one place: remove one of the two");
    }
    let kind = match (path, shared) {
        (_, Some(shared)) => {
            redis::read(&shared).map_or(StoreKind::Memory, |redis| StoreKind::Redis(Box::new(redis)))
        }
        (Some(path), None) => path.text().map_or(StoreKind::Memory, |text| kind(&path, text)),
        (None, None) => StoreKind::Path(section.sink.path("data")),
    };
    let secret = section.value("secret").and_then(|value| read_secret(&value));
    let (previous, next) = (section.value("previous_secrets"), section.value("next_secret"));
    let others = [&previous, &next];
    for value in others.into_iter().flatten().filter(|_| secret.is_none()) {
        value.fault("has no meaning without secret", "name the secret that is in use too");
    }
    let previous_secrets = previous.as_ref().map(read_previous).unwrap_or_default();
    let next_secret = next.as_ref().and_then(read_secret);
    let mut all: Vec<&Secret> = secret.iter().chain(&previous_secrets).chain(&next_secret).collect();
    all.sort_by_key(|secret| secret.expose());
    if let (true, Some(value)) =
        (all.windows(2).any(|two| two[0].expose() == two[1].expose()), others.into_iter().flatten().next())
    {
        value.fault(
            "one secret stands in two places",
            "leave it in one of secret, previous_secrets and next_secret",
        );
    }
    let on_outage = section.value("on_outage");
    let choices = [("local", OnOutage::Local), ("refuse", OnOutage::Refuse)];
    let chosen = on_outage.as_ref().and_then(|value| value.choice(&choices)).unwrap_or(OnOutage::Local);
    let outage_max = section.value("outage_max");
    let lasts = outage_max.as_ref().and_then(Value::span).unwrap_or(OUTAGE_MAX);
    if kind == StoreKind::Memory {
        for value in [&on_outage, &outage_max].into_iter().flatten() {
            value.fault("has no meaning with path = \"off\"", "remove it, or keep sessions in a store");
        }
    }
    section.finish();
    Store { kind, secret, previous_secrets, next_secret, on_outage: chosen, outage_max: lasts }
}

fn read_previous(value: &Value<'_>) -> Vec<Secret> {
    let values = value.one_or_more();
    if values.len() > MAX_PREVIOUS {
        let hint = format!("keep the {MAX_PREVIOUS} latest: each costs a hash where a token is unknown");
        value.fault(format!("names {} secrets", values.len()), hint);
    }
    values.iter().filter_map(read_secret).collect()
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
