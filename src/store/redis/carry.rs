//! Carrying the shared store elsewhere, and taking in what was carried from elsewhere.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{BufRead, Write as Out};
use std::rc::Rc;
use std::sync::Arc;

use redis::{Cmd, Value};
use tokio::task::{JoinSet, LocalSet};

use super::claim::POINTER;
use super::layout::{
    Home, Layout, Row, Said, audit_entry, bytes, home_alone, home_of, number, pointer, read_answer,
    seal_record, term,
};
use super::link::{Link, LinkFault};
use super::pace::Pace;
use super::port::{READ, WriteFault};
use super::replica::{JarChange, Pointer, Put, Write};
use super::server::Server;
use super::versions::Base;
use super::writer::{WRITE, write_args, write_keys};
use super::{
    KEYED_BY, RedisFault, SECRET, TAKING_IN, Unseen, clock_offset, facts, found_secret, in_time, runtime,
};
use crate::clock::Clock;
use crate::config::{self, RedisMode};
use crate::session::record::{AppId, Image};
use crate::session::{Moment, SessionId, Span, TokenKey};
use crate::store::audit::{Found, SHARED};
use crate::store::carry::{Carried, CarryFault, Item, Lines, Reading};
use crate::store::random_bytes;
use crate::store::restore::{Claim, claim_of};
use crate::store::secrets::Secrets;

/// How many sessions are held in memory on their way.
const PORTION: usize = 1000;

/// How many homes are read or written at once.
const AT_ONCE: usize = 64;

/// How many keys are asked for in one go, and entries of the audit.
const KEYS_AT_ONCE: usize = 1000;

/// The epoch of a store that was carried here: there is nobody who could know more.
const FIRST_EPOCH: u64 = 1;

impl From<WriteFault> for CarryFault {
    fn from(fault: WriteFault) -> Self {
        Self::Shared(fault.into())
    }
}

impl From<LinkFault> for CarryFault {
    fn from(fault: LinkFault) -> Self {
        Self::Shared(fault.into())
    }
}

/// Writes everything that is in the store; gateways may be using it meanwhile. Each user's sessions are those of one moment,
/// unless there are more than a thousand. Not on a thread of an asynchronous runtime.
///
/// # Errors
/// [`CarryFault`].
pub fn export_shared(
    settings: &config::Redis,
    clock: &Clock,
    out: &mut impl Out,
) -> Result<Carried, CarryFault> {
    let runtime = runtime().map_err(RedisFault::from)?;
    LocalSet::new().block_on(&runtime, async { Place::open(settings, clock).await?.export(out).await })
}

/// Takes in what was exported, by whichever kind of store, where nothing of the prefix is in Redis; ended sessions are kept
/// for `ended_kept`. All of it, or nothing. Not on a thread of an asynchronous runtime.
///
/// # Errors
/// [`CarryFault`].
pub fn import_shared(
    settings: &config::Redis,
    secrets: Option<Secrets>,
    ended_kept: Span,
    clock: &Clock,
    input: &mut impl BufRead,
) -> Result<Carried, CarryFault> {
    let runtime = runtime().map_err(RedisFault::from)?;
    LocalSet::new().block_on(&runtime, async {
        Place::open(settings, clock).await?.import(secrets, ended_kept, input).await
    })
}

/// The shared store, without a table of its own.
struct Place {
    link: Link,
    layout: Layout,
    settings: config::Redis,
    now: Moment,
}

impl Place {
    async fn open(settings: &config::Redis, clock: &Clock) -> Result<Rc<Self>, CarryFault> {
        let link = Link::new(settings, Pace::default(), Server::unwatched().into());
        let layout = Layout::new(&settings.prefix);
        in_time(async || link.call(&redis::cmd("PING")).await.map_err(Unseen::from)).await?;
        let offset_ms = clock_offset(&link, clock).await?.unwrap_or(0);
        let now = clock.shifted(offset_ms).now();
        Ok(Rc::new(Self { link, layout, settings: settings.clone(), now }))
    }

    async fn export(self: Rc<Self>, out: &mut impl Out) -> Result<Carried, CarryFault> {
        let keyed_by = self.link.call(redis::cmd("GET").arg(self.layout.whole(KEYED_BY))).await?;
        let Some(proof) = bytes(&keyed_by) else {
            return Err(CarryFault::Nothing { prefix: self.settings.prefix.clone() });
        };
        let mut lines = Lines::begin(out, proof, self.now)?;
        let facts: BTreeMap<_, _> =
            facts::values(&facts::read(&self.link, &self.layout).await?).into_iter().collect();
        for (name, value) in &facts {
            lines.fact(name, value)?;
        }
        let records = self.keys(&self.layout.all_records()).await?;
        let homes: HashSet<Home> = records.iter().filter_map(|key| self.layout.home_in(key)).collect();
        drop(records);
        let mut homes = homes.into_iter();
        let mut reading = JoinSet::new();
        loop {
            for home in homes.by_ref().take(AT_ONCE.saturating_sub(reading.len())) {
                let place = Rc::clone(&self);
                reading.spawn_local(async move { place.read(home).await });
            }
            let Some(rows) = reading.join_next().await else { break };
            for row in rows.unwrap_or(Err(WriteFault::Answer))?.into_values() {
                let image = row.image().map_err(|why| CarryFault::Unreadable(why.to_string()))?;
                lines.session(image, row.sealed())?;
            }
        }
        self.entries(&mut lines).await?;
        lines.end()
    }

    /// Each session once, as it was stored last.
    async fn read(&self, home: Home) -> Result<HashMap<SessionId, Row>, WriteFault> {
        let epoch = self.link.call(redis::cmd("GET").arg(self.layout.epoch(home.0[0]))).await?;
        let epoch = bytes(&epoch).ok_or(WriteFault::Epoch)?;
        let mut keys = self.layout.home(home).to_vec();
        keys.push(self.layout.epoch(home.0[0]));
        let (mut since, mut all) = (0, HashMap::new());
        loop {
            let args = [since.to_string().into_bytes(), epoch.to_vec()];
            let said = read_answer(&self.link.eval(&READ, &keys, &args).await?).ok_or(WriteFault::Answer)?;
            let is_all = matches!(said, Said::Read(..));
            let (version, rows) = match said {
                Said::Read(version, rows) | Said::Part(version, rows) => (version, rows),
                Said::Epoch => return Err(WriteFault::Epoch),
                Said::Stored(..) | Said::Behind(..) | Said::Missing | Said::Held(_) => {
                    return Err(WriteFault::Answer);
                }
            };
            all.extend(rows.into_iter().map(|row| (row.id, row)));
            if is_all {
                return Ok(all);
            }
            since = version;
        }
    }

    async fn entries<W: Out>(&self, lines: &mut Lines<'_, W>) -> Result<(), CarryFault> {
        let mut after = "0".to_owned();
        loop {
            let mut ask = redis::cmd("XRANGE");
            ask.arg(self.layout.whole("audit")).arg(format!("({after}")).arg("+");
            let answer = self.link.call(ask.arg("COUNT").arg(KEYS_AT_ONCE)).await?;
            let Value::Array(entries) = answer else { return Err(WriteFault::Answer.into()) };
            for entry in &entries {
                let Some((id, number, line)) = audit_entry(entry) else { continue };
                if let Ok(found) = serde_json::from_slice::<Found>(line) {
                    lines.entry(Found { number, ..found })?;
                }
                after = id;
            }
            if entries.len() < KEYS_AT_ONCE {
                return Ok(());
            }
        }
    }

    async fn import<R: BufRead>(
        self: Rc<Self>,
        secrets: Option<Secrets>,
        ended_kept: Span,
        input: &mut R,
    ) -> Result<Carried, CarryFault> {
        let kept = self.layout.whole(SECRET);
        if self.keys(&self.layout.everything()).await?.iter().any(|key| *key != kept) {
            return Err(CarryFault::PrefixInUse { prefix: self.settings.prefix.clone() });
        }
        let (mut reading, head) = Reading::begin(input)?;
        let secrets = match secrets {
            Some(secrets) => secrets,
            None => found_secret(&self.link, &self.layout).await?.ok_or(CarryFault::OtherSecret)?.into(),
        };
        let proofs = reading.keyed_by(&head, &secrets)?;
        self.link.call(redis::cmd("SET").arg(self.layout.whole(TAKING_IN)).arg(1)).await?;
        let taken = Incoming::new(Rc::clone(&self), ended_kept).take_in(&mut reading, &proofs).await;
        if taken.is_err() {
            self.remove_all(&kept).await?;
        }
        taken.map(|()| reading.carried())
    }

    /// What was taken in until now is not all.
    async fn remove_all(&self, but: &[u8]) -> Result<(), CarryFault> {
        for key in self.keys(&self.layout.everything()).await? {
            if key != but {
                self.link.call(redis::cmd("UNLINK").arg(key)).await?;
            }
        }
        Ok(())
    }

    /// The names of all keys that look like `pattern`; in a cluster of those only that belong to a bucket.
    async fn keys(&self, pattern: &str) -> Result<Vec<Vec<u8>>, CarryFault> {
        if self.settings.mode == RedisMode::Cluster {
            return self.keys_of_cluster().await;
        }
        let mut keys = Vec::new();
        let mut cursor = b"0".to_vec();
        loop {
            let mut ask = redis::cmd("SCAN");
            ask.arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(KEYS_AT_ONCE);
            let answer = self.link.call(&ask).await?;
            let Value::Array(parts) = &answer else { return Err(WriteFault::Answer.into()) };
            let [next, Value::Array(found)] = parts.as_slice() else { return Err(WriteFault::Answer.into()) };
            keys.extend(found.iter().filter_map(bytes).map(<[u8]>::to_vec));
            cursor = bytes(next).unwrap_or(b"0").to_vec();
            if cursor == b"0" {
                return Ok(keys);
            }
        }
    }

    /// The server of each bucket names what it holds; nothing may be moving meanwhile.
    async fn keys_of_cluster(&self) -> Result<Vec<Vec<u8>>, CarryFault> {
        let mut keys = Vec::new();
        for bucket in 0..=u8::MAX {
            let slot = slot_of(bucket);
            let held = self.link.call(redis::cmd("CLUSTER").arg("COUNTKEYSINSLOT").arg(slot)).await?;
            let count = number(&held).ok_or(WriteFault::Answer)?;
            let ask = redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(count).to_owned();
            let Value::Array(found) = self.link.call(&ask).await? else {
                return Err(WriteFault::Answer.into());
            };
            let ours = |key: &&[u8]| key.starts_with(&self.layout.whole("{"));
            keys.extend(found.iter().filter_map(bytes).filter(ours).map(<[u8]>::to_vec));
        }
        for name in [SECRET, KEYED_BY, TAKING_IN, "facts", "audit", "gateways", "merged"] {
            let key = self.layout.whole(name);
            if number(&self.link.call(redis::cmd("EXISTS").arg(&key)).await?) == Some(1) {
                keys.push(key);
            }
        }
        Ok(keys)
    }
}

/// What comes in on lines, on its way to the store.
struct Incoming {
    place: Rc<Place>,
    kept: Span,
    /// Names this process where others name gateways.
    name: [u8; 8],
    versions: HashMap<Home, u64>,
    /// The best claim on each token until now.
    claims: HashMap<TokenKey, Claim>,
    portion: Vec<(Image, Option<Vec<u8>>)>,
    entries: VecDeque<Found>,
}

impl Incoming {
    fn new(place: Rc<Place>, kept: Span) -> Self {
        let (versions, claims, portion, entries) = Default::default();
        Self { place, kept, name: random_bytes(), versions, claims, portion, entries }
    }

    async fn take_in<R: BufRead>(
        mut self,
        reading: &mut Reading<'_, R>,
        proofs: &[u8],
    ) -> Result<(), CarryFault> {
        let place = Rc::clone(&self.place);
        let call = async |cmd: &Cmd| place.link.call(cmd).await;
        let whole = |name| place.layout.whole(name);
        while let Some(item) = reading.next()? {
            match item {
                Item::Session(image, jar) => self.portion.push((*image, jar)),
                Item::Fact(name, value) => {
                    let fact = facts::carried(value, self.name, place.now);
                    call(redis::cmd("HSET").arg(whole("facts")).arg(name).arg(fact)).await?;
                }
                Item::Entry(found) => {
                    // As many as gateways keep there.
                    if self.entries.len() == SHARED {
                        self.entries.pop_front();
                    }
                    self.entries.push_back(found);
                }
            }
            if self.portion.len() == PORTION {
                self.flush().await?;
            }
        }
        self.flush().await?;
        for entry in &self.entries {
            let line = serde_json::to_vec(entry).map_err(std::io::Error::from)?;
            call(redis::cmd("XADD").arg(whole("audit")).arg("*").arg("e").arg(line)).await?;
        }
        call(redis::cmd("SET").arg(whole(KEYED_BY)).arg(proofs)).await?;
        for bucket in 0..=u8::MAX {
            call(redis::cmd("SET").arg(place.layout.epoch(bucket)).arg(FIRST_EPOCH)).await?;
        }
        // ORDER: last: until then no gateway begins with what is here.
        call(redis::cmd("DEL").arg(whole(TAKING_IN))).await?;
        Ok(())
    }

    /// Writes what has gathered, many homes at once.
    async fn flush(&mut self) -> Result<(), CarryFault> {
        let mut homes: HashMap<Home, Write> = HashMap::new();
        let mut pointers: HashMap<TokenKey, (Home, Pointer)> = HashMap::new();
        for (image, jar) in std::mem::take(&mut self.portion) {
            let home = match &image.identity {
                Some(identity) => home_of(&image.app, &identity.tenant, &identity.user),
                None => home_alone(image.id),
            };
            let base = Base::of(self.versions.get(&home).copied().unwrap_or(0));
            let nothing = || Write { home, base, puts: Vec::new(), pointers: Vec::new() };
            let (put, tokens) = self.put(image, jar).map_err(WriteFault::Record)?;
            homes.entry(home).or_insert_with(nothing).puts.push(put);
            pointers.extend(tokens.into_iter().map(|pointer| (pointer.key, (home, pointer))));
        }
        let mut writing = JoinSet::new();
        for write in homes.into_values() {
            let (place, name) = (Rc::clone(&self.place), self.name);
            writing.spawn_local(async move { Ok((write.home, place.write(&write, name).await?)) });
            if writing.len() == AT_ONCE {
                self.written(writing.join_next().await)?;
            }
        }
        while let Some(written) = writing.join_next().await {
            self.written(Some(written))?;
        }
        let mut pointing: JoinSet<Result<(), WriteFault>> = JoinSet::new();
        for (home, pointer) in pointers.into_values() {
            let place = Rc::clone(&self.place);
            pointing.spawn_local(async move { place.point(home, &pointer).await });
            if pointing.len() == AT_ONCE {
                pointing.join_next().await.and_then(Result::ok).unwrap_or(Err(WriteFault::Answer))?;
            }
        }
        while let Some(pointed) = pointing.join_next().await {
            pointed.unwrap_or(Err(WriteFault::Answer))?;
        }
        Ok(())
    }

    fn written(&mut self, written: Option<Joined<(Home, u64)>>) -> Result<(), WriteFault> {
        let (home, version) = written.and_then(Result::ok).unwrap_or(Err(WriteFault::Answer))?;
        self.versions.insert(home, version);
        Ok(())
    }

    /// What the store is to hold of a session, and the tokens on which it has the best claim until now.
    fn put(&mut self, image: Image, jar: Option<Vec<u8>>) -> Result<(Put, Vec<Pointer>), String> {
        let id = image.id;
        let record = Some(seal_record(&image, 0).map_err(|why| why.to_string())?);
        let session = image.restore(AppId(0), 0, &mut Arc::new);
        let now = self.place.now;
        let term = term(&session, self.kept);
        let ttl = term.saturating_sub(now.unix_ms()).max(1);
        let mut pointers = Vec::new();
        for key in session.keys() {
            let claim = claim_of(&session, key, now);
            if self.claims.get(&key).is_none_or(|best| claim > *best) {
                self.claims.insert(key, claim);
                pointers.push(Pointer { key, id, ttl });
            }
        }
        let put = Put {
            id,
            record,
            jar: jar.map_or(JarChange::Keep, JarChange::Put),
            term,
            active_at: session.times.last_active_at,
            signed_in: session.identity.is_some(),
            ended: session.ended().is_some(),
        };
        Ok((put, pointers))
    }
}

type Joined<T> = Result<Result<T, WriteFault>, tokio::task::JoinError>;

impl Place {
    async fn write(&self, write: &Write, by: [u8; 8]) -> Result<u64, WriteFault> {
        let args = write_args(&self.layout, by, write, Vec::new(), self.now);
        let answer = self.link.eval(&WRITE, &write_keys(&self.layout, write.home), &args).await?;
        match read_answer(&answer).ok_or(WriteFault::Answer)? {
            Said::Stored(version, _) => Ok(version),
            Said::Behind(..) => Err(WriteFault::Busy),
            Said::Read(..) | Said::Part(..) | Said::Missing | Said::Held(_) | Said::Epoch => {
                Err(WriteFault::Answer)
            }
        }
    }

    async fn point(&self, home: Home, to: &Pointer) -> Result<(), WriteFault> {
        let args = [pointer(home, to.id), to.ttl.to_string().into(), b"1".to_vec()];
        self.link.eval(&POINTER, &[self.layout.token(to.key)], &args).await?;
        Ok(())
    }
}

/// The slot of a cluster that the keys of a bucket are in: a sum of what stands between the braces.
fn slot_of(bucket: u8) -> u16 {
    let byte = |sum: u16, byte: u8| {
        (0..8)
            .fold(sum ^ (u16::from(byte) << 8), |sum, _| (sum << 1) ^ if sum >> 15 == 1 { 0x1021 } else { 0 })
    };
    format!("{bucket:02x}").bytes().fold(0, byte) % 16384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_servers() {
        // As `CLUSTER KEYSLOT` says.
        assert_eq!([0x00, 0x7f, 0xab, 0xff].map(slot_of), [13254, 4194, 13567, 11756]);
    }
}
