//! Every parser over its committed corpus and over simple mutations of it, from a fixed seed. `fuzz/` has the same
//! bodies for cargo-fuzz, which goes deeper.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test may fail loudly")]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::path::Path;

/// `TENURE_FUZZ=1000000` for more.
fn mutations() -> u64 {
    std::env::var("TENURE_FUZZ").ok().and_then(|text| text.parse().ok()).unwrap_or(3000)
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).unwrap()
    }

    /// One input, changed in a few places, or joined with a piece of another.
    fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const TELLING: &[u8] = b"\0\t\n\r \"%&'+,./:;=?@[\\]{|}\x7f\x80\xc0\xffaZ09_-$";
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 if at < bytes.len() => drop(bytes.remove(at)),
                1 if at < bytes.len() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                2 => {
                    let other = &corpus[self.below(corpus.len())];
                    let (from, length) = (self.below(other.len()), self.below(16));
                    let piece = other[from..].iter().take(length).copied().collect::<Vec<_>>();
                    bytes.splice(at..at, piece);
                }
                3 => bytes.truncate(at),
                _ => bytes.insert(at, TELLING[self.below(TELLING.len())]),
            }
        }
        bytes
    }
}

#[test]
fn no_input_breaks_a_parser_or_what_it_promises() {
    for (name, body) in bodies::TARGETS {
        let corpus = corpus(name);
        assert!(corpus.len() >= 5, "the corpus of {name} is too small");
        corpus.iter().for_each(|input| body(input));
        let mut random = Random(1);
        for _ in 0..mutations() {
            let input = random.mutate(&corpus);
            let broken = std::panic::catch_unwind(|| body(&input));
            assert!(broken.is_ok(), "{name} breaks on {:?}", String::from_utf8_lossy(&input));
        }
    }
}

#[test]
fn every_target_is_one_of_cargo_fuzz() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let manifest = fs::read_to_string(folder.with_file_name("Cargo.toml")).unwrap();
    for (name, _) in bodies::TARGETS {
        assert!(folder.join(format!("{name}.rs")).exists(), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
