//! Under which keys the store holds what, and in which form.
//!
//! All that belongs to one user (in one app and tenant), or to one anonymous session, is its *home*: five keys of one hash
//! tag, so that one script can change them together in a cluster. Homes and tokens fall into [`BUCKETS`] buckets by their
//! first byte; each bucket has a log of what changed in it, by which gateways catch up, and an epoch, by which they notice
//! that a server lost what it held.

use redis::Value;

use crate::session::record::{Image, Session};
use crate::session::{Moment, SessionId, Span, TokenKey};
use crate::store::envelope::{self, Unreadable};
use crate::store::restore::Stored;
use crate::store::seal::Sealer;
use crate::store::sharing::stored_at;

/// Enough to spread over any number of servers, few enough to be polled one by one.
pub(super) const BUCKETS: u16 = 256;

/// A stored session is kept this much longer than it is needed, so that its keys need no new term with each request.
const SLACK: Span = Span::from_secs(24 * 3600);

/// Later than all terms that are counted in milliseconds, and exact in the floating point numbers of a sorted set.
const NEVER_MS: u64 = 1 << 52;

/// Where the store keeps a session: with the others of its user, or alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Home(pub(super) [u8; 16]);

/// Where the sessions of a user are kept. Not keyed by the secret: gateways have to agree on it while the secret is replaced,
/// and whoever may read the keys may read the records, in which the name stands.
pub(super) fn home_of(app: &str, tenant: &str, user: &str) -> Home {
    let mut naming = naming();
    for part in [app, tenant, user] {
        // Length before content, so that no two names hash alike.
        naming.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        naming.update(part.as_bytes());
    }
    finished(&naming)
}

/// Where a session is kept that nobody has signed in on.
pub(super) fn home_alone(id: SessionId) -> Home {
    let mut naming = naming();
    naming.update(&id_bytes(id));
    finished(&naming)
}

fn naming() -> blake3::Hasher {
    blake3::Hasher::new_derive_key("tenure 2026-11 homes")
}

fn finished(naming: &blake3::Hasher) -> Home {
    let mut home = [0; 16];
    naming.finalize_xof().fill(&mut home);
    Home(home)
}

/// The names of keys.
#[derive(Clone)]
pub(super) struct Layout {
    prefix: String,
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    fn in_bucket(&self, bucket: u8, rest: &str) -> Vec<u8> {
        format!("{}{{{bucket:02x}}}:{rest}", self.prefix).into_bytes()
    }

    /// Records, versions, terms, activity, jars.
    pub(super) fn home(&self, home: Home) -> [Vec<u8>; 5] {
        let name = hex(&home.0);
        ["r", "v", "x", "a", "j"].map(|part| self.in_bucket(home.0[0], &format!("{name}:{part}")))
    }

    /// The records of a home alone.
    pub(super) fn records(&self, home: Home) -> Vec<u8> {
        self.in_bucket(home.0[0], &format!("{}:r", hex(&home.0)))
    }

    pub(super) fn token(&self, key: TokenKey) -> Vec<u8> {
        self.in_bucket(key.0[0], &format!("t:{}", hex(&key.0)))
    }

    pub(super) fn log(&self, bucket: u8) -> Vec<u8> {
        self.in_bucket(bucket, "log")
    }

    /// The homes of users, each until the last of its sessions may be forgotten.
    pub(super) fn homes(&self, bucket: u8) -> Vec<u8> {
        self.in_bucket(bucket, "homes")
    }

    pub(super) fn epoch(&self, bucket: u8) -> Vec<u8> {
        self.in_bucket(bucket, "epoch")
    }

    /// The home whose records are under `key`, if that is what it is; see [`Layout::all_records`].
    pub(super) fn home_in(&self, key: &[u8]) -> Option<Home> {
        let rest = std::str::from_utf8(key.strip_prefix(self.prefix.as_bytes())?).ok()?;
        let name = rest.split_once("}:")?.1.strip_suffix(":r")?;
        u128::from_str_radix(name, 16).ok().filter(|_| name.len() == 32).map(|home| Home(home.to_be_bytes()))
    }

    /// What every key looks like that holds the records of a home, as Redis compares names.
    pub(super) fn all_records(&self) -> String {
        format!("{}{{??}}:*:r", self.prefix)
    }

    /// What every key looks like.
    pub(super) fn everything(&self) -> String {
        format!("{}*", self.prefix)
    }

    /// What there is once in the whole store.
    pub(super) fn whole(&self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.prefix).into_bytes()
    }

    /// By which secrets a gateway knows tokens, for as long as it beats.
    pub(super) fn accepts(&self, gateway: &[u8]) -> Vec<u8> {
        self.whole(&format!("accepts:{}", hex(gateway)))
    }

    /// Where changes are announced.
    pub(super) fn channel(&self) -> String {
        format!("{}changes", self.prefix)
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn id_bytes(id: SessionId) -> [u8; 16] {
    id.as_u128().to_be_bytes()
}

/// What a token points to.
pub(super) fn pointer(home: Home, id: SessionId) -> Vec<u8> {
    [home.0, id_bytes(id)].concat()
}

pub(super) fn read_pointer(bytes: &[u8]) -> Option<(Home, SessionId)> {
    let (home, id) = bytes.split_first_chunk::<16>()?;
    let id = u128::from_be_bytes(id.try_into().ok()?);
    Some((Home(*home), SessionId::from_u128(id)))
}

/// What a change announces: who made it, where, and which sessions it concerns.
pub(super) struct Announcement {
    pub(super) by: [u8; 8],
    /// Every gateway follows the sessions of users; anonymous ones only where they are met.
    pub(super) is_of_user: bool,
    pub(super) home: Home,
    pub(super) ids: Vec<SessionId>,
}

impl Announcement {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [self.by.as_slice(), &[u8::from(self.is_of_user)], &self.home.0].concat();
        self.ids.iter().for_each(|id| bytes.extend_from_slice(&id_bytes(*id)));
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (by, rest) = bytes.split_first_chunk::<8>()?;
        let ([of_user], rest) = rest.split_first_chunk::<1>()?;
        let (home, ids) = rest.split_first_chunk::<16>()?;
        let is_of_user = *of_user != 0;
        let id = |chunk: &[u8; 16]| SessionId::from_u128(u128::from_be_bytes(*chunk));
        Some(Self {
            by: *by,
            is_of_user,
            home: Home(*home),
            ids: ids.as_chunks::<16>().0.iter().map(id).collect(),
        })
    }
}

/// A record as the store holds it; `None` once the session was forgotten.
pub(super) fn record(session: &Session, app: &str, revision: u32) -> Option<Vec<u8>> {
    seal_record(&session.image(app)?, revision).ok()
}

/// The same of a session from elsewhere.
pub(super) fn seal_record(image: &Image, revision: u32) -> Result<Vec<u8>, postcard::Error> {
    // In front: at the end stands what a newer program adds.
    let content = postcard::to_extend(image, revision.to_le_bytes().to_vec())?;
    Ok(envelope::seal(&id_bytes(image.id), &content))
}

/// The session of a record, and its revision.
pub(super) fn read_record(id: SessionId, record: &[u8]) -> Result<(Image, u32), Unreadable> {
    let content = envelope::open(&id_bytes(id), record)?;
    let (revision, content) = content.split_first_chunk().ok_or(Unreadable::Damaged)?;
    // What a newer program added stands at the end, and is left alone.
    let (image, _) = postcard::take_from_bytes(content).map_err(|_| Unreadable::Damaged)?;
    Ok((image, u32::from_le_bytes(*revision)))
}

/// When the store may forget the session, in milliseconds since the Unix epoch: `kept` after its end, whenever that is.
pub(super) fn term(session: &Session, kept: Span) -> u64 {
    let end = session.ended().map_or(session.deadline.at(), |end| end.at);
    let term = if end == Moment::MAX { end } else { end.plus(kept).plus(SLACK) };
    term.unix_ms().min(NEVER_MS)
}

/// What a script said of a home.
#[derive(Debug)]
pub(super) enum Said {
    /// It is stored, under this version; these sessions another gateway had ended before.
    Stored(u64, Vec<SessionId>),
    /// Nothing was stored: the home is further. This was stored since, up to this version.
    Behind(u64, Vec<Row>),
    /// This was stored since, up to this version.
    Read(u64, Vec<Row>),
    /// The same, and there is more.
    Part(u64, Vec<Row>),
    /// Nothing is stored of the session.
    Missing,
    /// Somebody else holds the token.
    Held(Vec<u8>),
    /// The bucket is of another epoch, or of none: the server lost what it held.
    Epoch,
}

/// One stored session.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: SessionId,
    record: Vec<u8>,
    active: Option<Moment>,
    jar: Option<Vec<u8>>,
}

impl Row {
    /// The session without its jar.
    pub(super) fn image(&self) -> Result<Image, Unreadable> {
        self.read().map(|(image, _)| image)
    }

    fn read(&self) -> Result<(Image, u32), Unreadable> {
        let (mut image, revision) = read_record(self.id, &self.record)?;
        if let Some(at) = self.active {
            image.active(at, 0);
        }
        Ok((image, revision))
    }

    /// Its jar as it lies there.
    pub(super) fn sealed(&self) -> Option<&[u8]> {
        self.jar.as_deref()
    }

    pub(super) fn open(&self, sealer: &Sealer) -> Result<Stored, Unreadable> {
        let (image, revision) = self.read()?;
        let jar = self.jar.as_ref().map(|sealed| sealer.open(self.id, sealed)).transpose();
        let jar = jar.map_err(|_| Unreadable::Damaged)?;
        let slot = stored_at(image.times.created_at, image.times.signed_in_at.is_some());
        Ok(Stored { revision, ..Stored::new(image, jar, slot) })
    }
}

/// Reads the answer of a script; `None` where it is none that our scripts give.
pub(super) fn read_answer(answer: &Value) -> Option<Said> {
    let Value::Array(items) = answer else { return None };
    let status = bytes(items.first()?)?;
    Some(match status {
        b"stored" => Said::Stored(items.get(1).and_then(number).unwrap_or(0), ids(items.get(2..))),
        b"behind" => Said::Behind(number(items.get(1)?)?, rows(items.get(2..)?)?),
        b"read" => Said::Read(number(items.get(1)?)?, rows(items.get(2..)?)?),
        b"part" => Said::Part(number(items.get(1)?)?, rows(items.get(2..)?)?),
        b"missing" => Said::Missing,
        b"held" => Said::Held(bytes(items.get(1)?)?.to_vec()),
        b"epoch" => Said::Epoch,
        _ => return None,
    })
}

fn ids(items: Option<&[Value]>) -> Vec<SessionId> {
    let id = |item: &Value| Some(SessionId::from_u128(u128::from_be_bytes(bytes(item)?.try_into().ok()?)));
    items.unwrap_or_default().iter().filter_map(id).collect()
}

fn rows(items: &[Value]) -> Option<Vec<Row>> {
    let row = |[id, record, active, jar]: &[Value; 4]| {
        let id = SessionId::from_u128(u128::from_be_bytes(bytes(id)?.try_into().ok()?));
        let active = number(active).map(Moment::from_unix_ms);
        Some(Row { id, record: bytes(record)?.to_vec(), active, jar: bytes(jar).map(<[u8]>::to_vec) })
    };
    // A session may be gone from the records before its version is.
    Some(items.as_chunks::<4>().0.iter().filter_map(row).collect())
}

/// An entry of a stream: its id, a number that grows as it does, and what it holds.
pub(super) fn audit_entry(entry: &Value) -> Option<(String, u64, &[u8])> {
    let Value::Array(parts) = entry else { return None };
    let [id, Value::Array(fields)] = parts.as_slice() else { return None };
    let id = String::from_utf8(bytes(id)?.to_vec()).ok()?;
    let (ms, nth) = id.split_once('-')?;
    let number = ms.parse::<u64>().ok()?.saturating_mul(4096) + nth.parse::<u64>().ok()?.min(4095);
    let line = bytes(fields.get(1)?)?;
    Some((id, number, line))
}

pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        value => std::str::from_utf8(bytes(value)?).ok()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_home_are_of_one_hash_tag() {
        let keys = Layout::new("tenure:").home(Home([0xab; 16]));
        let tags: Vec<_> = keys
            .iter()
            .map(|key| String::from_utf8_lossy(key).split(':').nth(1).map(str::to_owned))
            .collect();
        assert_eq!(tags, vec![Some("{ab}".to_owned()); 5]);
    }

    #[test]
    fn a_home_is_known_by_the_key_of_its_records() {
        let (layout, home) = (Layout::new("tenure:"), home_of("crm", "acme", "ann"));
        assert_ne!(home, home_of("crm", "acmea", "nn"));
        let keys = layout.home(home);
        let found: Vec<_> = keys.iter().map(|key| layout.home_in(key)).collect();
        assert_eq!(found, [Some(home), None, None, None, None]);
        assert_eq!(layout.home_in(&layout.homes(7)), None);
        assert_eq!(Layout::new("other:").home_in(&keys[0]), None);
    }

    #[test]
    fn what_is_announced_is_read() {
        let ids = vec![SessionId::from_u128(7), SessionId::from_u128(u128::MAX)];
        let bytes =
            Announcement { by: [1; 8], is_of_user: true, home: Home([2; 16]), ids: ids.clone() }.to_bytes();
        let read = Announcement::read(&bytes).expect("it is read");
        assert_eq!((read.by, read.is_of_user, read.home, read.ids), ([1; 8], true, Home([2; 16]), ids));
        assert!(Announcement::read(&bytes[..20]).is_none());
    }

    #[test]
    fn answers_of_no_script_of_ours_are_none() {
        for answer in [Value::Nil, Value::Array(vec![]), Value::Array(vec![Value::SimpleString("x".into())])]
        {
            assert!(read_answer(&answer).is_none());
        }
    }
}
