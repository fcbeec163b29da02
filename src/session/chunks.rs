//! Cookies that are too long for one: the base cookie says how many chunks there are, and the chunks hold the data (F2).
//!
//! The form is that of ASP.NET Core's and Katana's `ChunkingCookieManager`: `Name=chunks-2` (Katana: `chunks:2`) with
//! `NameC1` and `NameC2`. The base value is the same for everybody, so base and chunks are one token here, whose id is the
//! joined data. As the app does, a base value of another form is taken for the whole cookie, and chunks that no base value
//! announces are read by nobody: the app leaves them behind when a cookie gets shorter (aspnetcore#4639).

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::cookie::SetCookie;
use super::profile::{CookieRule, Extract, text_of};

/// The most chunks that are joined: with 4050 bytes each more than any head of a request may hold (1 MiB).
pub const MAX_CHUNKS: usize = 256;

/// What the value of a base cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// It is the data itself.
    Nothing,
    /// The data stands in so many chunks.
    Chunks(usize),
    /// It announces a number of chunks that no app ever made.
    Nonsense,
}

/// Reads the value of a base cookie.
#[must_use]
pub fn announced(value: &[u8]) -> Announced {
    let bare = unquoted(value);
    let Some(count) = bare.strip_prefix(b"chunks-").or_else(|| bare.strip_prefix(b"chunks:")) else {
        return Announced::Nothing;
    };
    // Only what the app itself takes for a number: digits, neither sign nor space.
    let digits = std::str::from_utf8(count).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|text| text.parse().ok()) {
        Some(count @ 1..=MAX_CHUNKS) => Announced::Chunks(count),
        Some(_) | None => Announced::Nonsense,
    }
}

/// One pair of a chunked cookie in a request.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    /// Name of the base cookie.
    pub(super) base: &'a [u8],
    /// The chunk's number, from 1; `None` for the base cookie itself.
    pub(super) number: Option<usize>,
    /// The value. SECURITY: secret.
    pub(super) value: &'a [u8],
    /// Which pair of the header it is.
    pub(super) pair: usize,
    /// Index of the rule.
    pub(super) rule: usize,
}

/// A base cookie with its chunks: one token.
pub(super) struct Joined<'a> {
    /// The base cookie's piece.
    pub(super) base: Piece<'a>,
    /// The joined data; `None` where a chunk is missing. SECURITY: secret.
    pub(super) id: Option<Cow<'a, [u8]>>,
    /// The pairs of its chunks.
    pub(super) chunks: Vec<usize>,
}

/// Chunks by the name of their base cookie and their number, in the order sent.
type Chunks<'a> = BTreeMap<(&'a [u8], usize), Vec<Piece<'a>>>;

/// Joins the pieces of a request. Where a cookie is sent several times over (it was set for several paths), the first base
/// takes the first chunk of each number, the second the second: that is the order in which browsers send them. Chunks that
/// are in no result are left over. Each chunk is taken once at most, so the work grows with the header and not faster.
pub(super) fn join<'a>(pieces: &[Piece<'a>]) -> Vec<Joined<'a>> {
    let mut chunks = Chunks::new();
    // The app takes an empty chunk for a missing one.
    for piece in pieces.iter().filter(|piece| !unquoted(piece.value).is_empty()) {
        if let Some(number) = piece.number {
            chunks.entry((piece.base, number)).or_default().push(*piece);
        }
    }
    let mut turns: BTreeMap<&[u8], usize> = BTreeMap::new();
    let bases = pieces.iter().filter(|piece| piece.number.is_none());
    let joined = bases.map(|base| match announced(base.value) {
        Announced::Nothing => {
            let id = Some(text_of(base.value)).filter(|id| !id.is_empty());
            Joined { base: *base, id, chunks: Vec::new() }
        }
        Announced::Nonsense => Joined { base: *base, id: None, chunks: Vec::new() },
        Announced::Chunks(count) => {
            let turn = turns.entry(base.base).or_default();
            *turn += 1;
            join_one(base, &chunks, count, *turn - 1)
        }
    });
    joined.collect()
}

fn join_one<'a>(base: &Piece<'a>, chunks: &Chunks<'a>, count: usize, turn: usize) -> Joined<'a> {
    let (mut id, mut pairs) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let Some(chunk) = chunks.get(&(base.base, number)).and_then(|all| all.get(turn)) else {
            return Joined { base: *base, id: None, chunks: Vec::new() };
        };
        id.extend_from_slice(&text_of(chunk.value));
        pairs.push(chunk.pair);
    }
    Joined { base: *base, id: Some(Cow::Owned(id)), chunks: pairs }
}

/// The id to which the field `set` of a response sets a cookie of `rule`; `all` are the response's fields, among which
/// its chunks are found, set at the same domain and path. `None` when it sets no whole value: the field deletes the cookie,
/// or a chunk is missing. Of several fields for one chunk the last counts, as with a browser. SECURITY: secret.
#[must_use]
pub fn join_set<'a>(rule: &CookieRule, set: &'a SetCookie, all: &'a [SetCookie]) -> Option<Cow<'a, [u8]>> {
    if set.deletes {
        return None;
    }
    let count = match announced(&set.value) {
        Announced::Chunks(count) if rule.extract == Extract::Chunked => count,
        Announced::Nonsense if rule.extract == Extract::Chunked => return None,
        Announced::Nothing | Announced::Chunks(_) | Announced::Nonsense => {
            return Some(rule.extract.id(&set.value)).filter(|id| !id.is_empty());
        }
    };
    let place = |other: &SetCookie| {
        (other.attributes.domain == set.attributes.domain) && other.attributes.path == set.attributes.path
    };
    let mut id = Vec::new();
    for number in 1..=count {
        let is_chunk = |other: &&SetCookie| {
            rule.chunk_of(other.name.as_bytes()) == Some((set.name.as_bytes(), number)) && place(other)
        };
        let chunk = all.iter().rfind(is_chunk).filter(|chunk| !chunk.deletes)?;
        id.extend_from_slice(&text_of(&chunk.value));
    }
    Some(Cow::Owned(id))
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail as loudly as it can")]
    use super::super::Moment;
    use super::super::cookie::{RequestCookies, read_set_cookie};
    use super::super::profile::{CookieKind, NamePattern};
    use super::*;

    fn rule() -> CookieRule {
        let extract = Extract::for_name(".AspNetCore.Cookies");
        CookieRule { name: NamePattern::parse(".AspNetCore.Cookies"), kind: CookieKind::Session, extract }
    }

    /// The ids found, what is forwarded when they are stripped and when they are kept, and how many pairs were dropped. `X`
    /// stands for the cookie's name.
    fn read(header: &str) -> (Vec<String>, String, String, usize) {
        let header = header.replace('X', ".AspNetCore.Cookies");
        let rules = [rule()];
        let parsed = RequestCookies::parse(std::iter::once(header.as_bytes()), &rules);
        let ids = parsed.tokens.iter().map(|token| String::from_utf8(token.id.to_vec()).unwrap()).collect();
        let text = |keep: bool| {
            let out = String::from_utf8(parsed.forwarded(|_, _| keep).unwrap_or_default()).unwrap();
            out.replace(".AspNetCore.Cookies", "X")
        };
        (ids, text(false), text(true), parsed.dropped)
    }

    #[test]
    fn base_and_chunks_are_one_token() {
        for (header, ids, stripped, kept, dropped) in [
            ("a=1; X=chunks-2; XC1=ab; XC2=cd", &["abcd"][..], "a=1", "a=1; X=chunks-2; XC1=ab; XC2=cd", 0),
            ("XC2=cd; a=1; XC1=ab; X=chunks-2", &["abcd"], "a=1", "XC2=cd; a=1; XC1=ab; X=chunks-2", 0),
            ("X=chunks:1; XC1=ab", &["ab"], "", "X=chunks:1; XC1=ab", 0),
            ("X=chunks-1; XC1=\"ab\"", &["ab"], "", "X=chunks-1; XC1=\"ab\"", 0),
            ("X=ab; a=1", &["ab"], "a=1", "X=ab; a=1", 0),
            // Left over from a longer value: stripped, and no fault of anybody's.
            ("X=chunks-1; XC1=ab; XC2=cd; XC3=ef", &["ab"], "", "X=chunks-1; XC1=ab", 0),
            ("X=ab; XC1=cd; a=1", &["ab"], "a=1", "X=ab; a=1", 0),
            ("XC1=cd; a=1", &[], "a=1", "a=1", 0),
            // Nothing that the app could read.
            ("X=chunks-2; XC1=ab; a=1", &[], "a=1", "a=1", 1),
            ("X=chunks-2; XC1=ab; XC2=; a=1", &[], "a=1", "a=1", 1),
            ("X=chunks-0; a=1", &[], "a=1", "a=1", 1),
            ("X=chunks-99999999999999999999; XC1=ab", &[], "", "", 1),
            ("X=chunks-+1; XC1=ab", &[], "", "", 1),
            ("X=; XC1=ab", &[], "", "", 1),
            // The app ignores case.
            ("X=chunks-1; Xc1=ab", &["ab"], "", "X=chunks-1; Xc1=ab", 0),
            // Set for two paths.
            (
                "X=chunks-1; XC1=ab; X=chunks-1; XC1=cd",
                &["ab", "cd"],
                "",
                "X=chunks-1; XC1=ab; X=chunks-1; XC1=cd",
                0,
            ),
        ] {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            assert_eq!(read(header), (ids, stripped.to_owned(), kept.to_owned(), dropped), "{header}");
        }
    }

    #[test]
    fn a_chunk_in_another_spelling_is_dropped() {
        let rules = [rule()];
        let header =
            b".AspNetCore.Cookies=chunks-1; .AspNetCore.CookiesC1=ab; .ASPNETCORE.cookiesc1=cd".as_slice();
        let parsed = RequestCookies::parse(std::iter::once(header), &rules);
        assert_eq!((parsed.tokens.len(), parsed.dropped), (1, 1));
    }

    #[test]
    fn a_response_joins_as_a_request_does() {
        let set = |fields: &[&str]| {
            let read = |field: &&str| {
                let field = field.replace('X', ".AspNetCore.Cookies");
                read_set_cookie(field.as_bytes(), "/", Moment::from_unix_ms(0)).unwrap()
            };
            let all: Vec<SetCookie> = fields.iter().map(read).collect();
            let base = all.iter().find(|set| set.name == ".AspNetCore.Cookies").unwrap().clone();
            join_set(&rule(), &base, &all).map(|id| String::from_utf8(id.into_owned()).unwrap())
        };
        assert_eq!(set(&["XC2=cd; Path=/", "X=chunks-2; Path=/", "XC1=ab; Path=/"]).as_deref(), Some("abcd"));
        assert_eq!(set(&["X=ab", "XC1=cd"]).as_deref(), Some("ab"));
        assert_eq!(set(&["X=chunks-1", "XC1=old", "XC1=new"]).as_deref(), Some("new"));
        assert_eq!(set(&["X=chunks-1", "XC1=ab; Path=/elsewhere"]), None);
        assert_eq!(set(&["X=chunks-2", "XC1=ab"]), None);
        assert_eq!(set(&["X=chunks-1", "XC1=; Max-Age=0"]), None);
        assert_eq!(set(&["X=; Max-Age=0", "XC1=ab"]), None);
    }
}
