//! Looks for tokens where none may stand: logs, answers, metrics.
//!
//! A token is found as it is, percent-encoded (any mixture, twice over), in hex, in base64 (both alphabets, at any
//! offset within the encoded text), and when only its beginning or its end was printed. What is found is told by
//! the token's number, never by its value.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::percent_decode;

/// Needles are indexed by their first bytes; shorter ones could not be told from chance anyway.
const STEM: usize = 8;
/// So many bytes of a long token's beginning or end are a leak by themselves.
const PART: usize = 12;

/// Where a token was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The token's place in the list that the search was made of.
    pub token: usize,
    /// How it was spelt.
    pub spelling: &'static str,
    /// The name of the text.
    pub text: String,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {} ({}) stands in {}", self.token, self.spelling, self.text)
    }
}

struct Needle {
    token: usize,
    spelling: &'static str,
    bytes: Vec<u8>,
}

/// The spellings of many tokens, searched for in one pass over each text.
pub struct TokenSearch {
    by_stem: HashMap<[u8; STEM], Vec<Needle>>,
    /// Whether some needle begins with these two bytes: spares most of a text the look-up.
    begins: Vec<bool>,
    tokens: usize,
}

impl TokenSearch {
    /// A search for `tokens`; panics on one too short to be searched for, lest it go unsearched.
    pub fn new<T: AsRef<str>>(tokens: impl IntoIterator<Item = T>) -> Self {
        let mut search = Self { by_stem: HashMap::new(), begins: vec![false; 1 << 16], tokens: 0 };
        for token in tokens {
            search.add(token.as_ref().as_bytes());
        }
        search
    }

    /// How many tokens are searched for; a test asserts that there are some.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    fn add(&mut self, token: &[u8]) {
        let number = self.tokens;
        assert!(token.len() >= STEM, "token {number} is too short to be searched for");
        self.tokens += 1;
        let mut put = |spelling, bytes: Vec<u8>| {
            let Some(stem) = bytes.first_chunk::<STEM>() else { return };
            self.begins[two(stem)] = true;
            self.by_stem.entry(*stem).or_default().push(Needle { token: number, spelling, bytes });
        };
        put("plain", token.to_vec());
        if token.len() >= 2 * PART {
            put("its beginning", token[..PART].to_vec());
            put("its end", token[token.len() - PART..].to_vec());
        }
        put("hex", hex(token).into_bytes());
        put("hex", hex(token).to_ascii_uppercase().into_bytes());
        for offset in 0..3 {
            put("base64", base64_within(&STANDARD_NO_PAD, token, offset));
            put("base64url", base64_within(&URL_SAFE_NO_PAD, token, offset));
        }
    }

    /// Every token found in `text`, named `name` in the findings.
    pub fn find(&self, name: &str, text: impl AsRef<[u8]>) -> Vec<Found> {
        let mut readable = text.as_ref().to_vec();
        let mut found = Vec::new();
        for _ in 0..3 {
            self.scan(name, &readable, &mut found);
            let decoded: Vec<u8> = percent_decode(&readable).collect();
            if decoded == readable {
                break;
            }
            readable = decoded;
        }
        found.dedup();
        found
    }

    fn scan(&self, name: &str, text: &[u8], found: &mut Vec<Found>) {
        for (at, window) in text.windows(STEM).enumerate().filter(|(_, window)| self.begins[two(window)]) {
            let Some(needles) = window.first_chunk::<STEM>().and_then(|stem| self.by_stem.get(stem)) else {
                continue;
            };
            for needle in needles.iter().filter(|needle| text[at..].starts_with(&needle.bytes)) {
                found.push(Found { token: needle.token, spelling: needle.spelling, text: name.to_owned() });
            }
        }
    }

    /// Panics when a token stands in one of the texts.
    pub fn assert_none<T: AsRef<[u8]>>(&self, texts: impl IntoIterator<Item = (&'static str, T)>) {
        for (name, text) in texts {
            if let Some(first) = self.find(name, text).first() {
                panic!("{first}");
            }
        }
    }
}

fn two(window: &[u8]) -> usize {
    usize::from(window[0]) << 8 | usize::from(window[1])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The characters of `token`'s base64 that do not depend on its neighbours, when it starts at `offset` modulo 3.
fn base64_within(engine: &impl Engine, token: &[u8], offset: usize) -> Vec<u8> {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(token);
    let encoded = engine.encode(&padded).into_bytes();
    let first = (offset * 8).div_ceil(6);
    let whole = padded.len() * 8 / 6;
    encoded[first..whole].to_vec()
}
