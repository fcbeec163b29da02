//! Values under names, by which all gateways go: policies that were set while they run.
//!
//! Each has a stamp that grows with time, and the one with the latest counts. A gateway that knows a later one than the store
//! puts it back: a server that took another one's place may not have it.

use std::collections::HashMap;

use parking_lot::Mutex;
use redis::Value;

use super::layout::{Layout, Said, bytes, read_answer};
use super::link::{Link, LuaScript};
use super::port::{Port, WriteFault};
use super::writer::proposed_version;
use crate::session::Moment;

/// Digits of a stamp and of the gateway's number, which stand before the value.
const STAMP_DIGITS: usize = 16;
const NUMBER_DIGITS: usize = 20;

/// How often a value is written anew because another gateway's was later.
const MAX_TRIES: usize = 8;

static FACT: LuaScript = LuaScript::new(include_str!("fact.lua"));

/// Called when another gateway set policies: with all facts as they are now.
pub type OnFacts = dyn Fn(HashMap<String, Vec<u8>>) + Send + Sync;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamped {
    /// When it was set, by which gateway: of two of one moment all choose the same.
    stamp: (u64, u64),
    value: Vec<u8>,
}

impl Stamped {
    fn to_bytes(&self) -> Vec<u8> {
        let (at, by) = self.stamp;
        [format!("{at:0STAMP_DIGITS$}{by:0NUMBER_DIGITS$}").as_bytes(), &self.value].concat()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (at, rest) = bytes.split_first_chunk::<STAMP_DIGITS>()?;
        let (by, value) = rest.split_first_chunk::<NUMBER_DIGITS>()?;
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
        Some(Self { stamp: (number(at)?, number(by)?), value: value.to_vec() })
    }
}

/// The facts as this gateway knows them, and who is told when they change.
#[derive(Default)]
pub(super) struct Facts {
    known: Mutex<HashMap<String, Stamped>>,
    /// What was set here and could not be stored yet; what was set elsewhere since counts instead.
    pending: Mutex<HashMap<String, Stamped>>,
    hears: Mutex<Option<Box<OnFacts>>>,
}

impl Facts {
    pub(super) fn new(known: HashMap<String, Stamped>) -> Self {
        Self { known: Mutex::new(known), ..Self::default() }
    }

    pub(super) fn values(&self) -> HashMap<String, Vec<u8>> {
        values(&self.known.lock())
    }

    /// From now on `hear` is told of changes.
    pub(super) fn on_change(&self, hear: Option<Box<OnFacts>>) {
        *self.hears.lock() = hear;
    }

    /// Tells of the facts as they are now.
    pub(super) fn tell(&self) {
        if let Some(hear) = &*self.hears.lock() {
            hear(self.values());
        }
    }

    /// Takes over what is later in the store. Returns whether anything was, and what is later here.
    fn meet(&self, stored: HashMap<String, Stamped>) -> (bool, Vec<(String, Stamped)>) {
        let mut known = self.known.lock();
        let is_later_here = |(name, ours): &(&String, &Stamped)| {
            stored.get(*name).is_none_or(|theirs| theirs.stamp < ours.stamp)
        };
        let owed = known.iter().filter(is_later_here);
        let owed = owed.map(|(name, ours)| (name.clone(), ours.clone())).collect();
        let mut is_news = false;
        for (name, theirs) in stored {
            if known.get(&name).is_none_or(|ours| ours.stamp < theirs.stamp) {
                known.insert(name, theirs);
                is_news = true;
            }
        }
        (is_news, owed)
    }

    /// Brings the store's facts and those of this gateway together.
    pub(super) async fn follow(&self, port: &Port) -> Result<(), WriteFault> {
        let (is_news, owed) = self.meet(read(&port.link, &port.layout).await?);
        if is_news {
            self.tell();
        }
        for (name, fact) in owed {
            put(port, &name, &fact).await?;
        }
        Ok(())
    }

    /// Stores what was set here. What could not be stored for a while gives way to what was set elsewhere since.
    pub(super) async fn write(
        &self,
        port: &Port,
        name: &str,
        value: &[u8],
        now: Moment,
    ) -> Result<(), WriteFault> {
        let by = u64::from_be_bytes(port.replica.name);
        let (mut fact, was_tried) = self.stamp((name, value), by, now);
        for _ in 0..MAX_TRIES {
            self.pending.lock().insert(name.to_owned(), fact.clone());
            match put(port, name, &fact).await? {
                Some((later, _)) if !was_tried => fact.stamp.0 = later + 1,
                Some(_) => {
                    self.pending.lock().remove(name);
                    return self.follow(port).await;
                }
                None => {
                    self.pending.lock().remove(name);
                    self.known.lock().insert(name.to_owned(), fact);
                    // Another gateway's may have been in force meanwhile.
                    self.tell();
                    return Ok(());
                }
            }
        }
        Err(WriteFault::Busy)
    }

    /// A stamp later than all that is known here; the same one as before where it was tried before.
    fn stamp(&self, (name, value): (&str, &[u8]), by: u64, now: Moment) -> (Stamped, bool) {
        let tried = self.pending.lock().get(name).filter(|tried| tried.value == value).cloned();
        let after = self.known.lock().get(name).map_or(0, |fact| fact.stamp.0 + 1);
        let new = || Stamped { stamp: (proposed_version(now).max(after), by), value: value.to_vec() };
        let was_tried = tried.is_some();
        (tried.unwrap_or_else(new), was_tried)
    }
}

/// Without their stamps.
pub(super) fn values(known: &HashMap<String, Stamped>) -> HashMap<String, Vec<u8>> {
    known.iter().map(|(name, fact)| (name.clone(), fact.value.clone())).collect()
}

/// How the store keeps a fact that was carried there from elsewhere.
pub(super) fn carried(value: Vec<u8>, by: [u8; 8], now: Moment) -> Vec<u8> {
    Stamped { stamp: (proposed_version(now), u64::from_be_bytes(by)), value }.to_bytes()
}

/// Stores a fact. Returns the stamp of what is there, if that is another one and no earlier.
async fn put(port: &Port, name: &str, fact: &Stamped) -> Result<Option<(u64, u64)>, WriteFault> {
    let keys = [port.layout.whole("facts")];
    let args = [name.into(), fact.to_bytes(), port.layout.channel().into(), port.replica.name.to_vec()];
    let answer = port.link.eval(&FACT, &keys, &args).await?;
    match read_answer(&answer) {
        Some(Said::Stored(..)) => Ok(None),
        Some(Said::Held(held)) => Ok(Some(Stamped::read(&held).ok_or(WriteFault::Answer)?.stamp)),
        _ => Err(WriteFault::Answer),
    }
}

/// What the store keeps under names.
pub(super) async fn read(link: &Link, layout: &Layout) -> Result<HashMap<String, Stamped>, WriteFault> {
    let answer = link.call(redis::cmd("HGETALL").arg(layout.whole("facts"))).await?;
    let items = match answer {
        Value::Array(items) => items,
        Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
        _ => return Err(WriteFault::Answer),
    };
    let pair = |[name, value]: &[Value; 2]| {
        Some((String::from_utf8(bytes(name)?.to_vec()).ok()?, Stamped::read(bytes(value)?)?))
    };
    Ok(items.as_chunks::<2>().0.iter().filter_map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(stamp: u64) -> Stamped {
        Stamped { stamp: (stamp, 7), value: stamp.to_string().into_bytes() }
    }

    fn facts(all: &[(&str, u64)]) -> HashMap<String, Stamped> {
        all.iter().map(|(name, stamp)| ((*name).to_owned(), stamped(*stamp))).collect()
    }

    #[test]
    fn the_later_one_counts_wherever_it_is_known() {
        let here = Facts::new(facts(&[("older", 1), ("newer", 5), ("same", 3), ("mine", 4)]));
        let (is_news, mut owed) = here.meet(facts(&[("older", 2), ("newer", 4), ("same", 3), ("theirs", 9)]));
        owed.sort_by(|a, b| a.0.cmp(&b.0));
        assert!(is_news);
        assert_eq!(owed, [("mine".to_owned(), stamped(4)), ("newer".to_owned(), stamped(5))]);
        let known = facts(&[("older", 2), ("newer", 5), ("same", 3), ("mine", 4), ("theirs", 9)]);
        assert_eq!(here.values(), values(&known));
        assert!(!here.meet(facts(&[("same", 3)])).0, "it is known");
    }

    #[test]
    fn a_fact_is_read_as_it_was_written() {
        assert_eq!(Stamped::read(&stamped(7).to_bytes()), Some(stamped(7)));
        assert_eq!(Stamped::read(b"short"), None);
    }
}
