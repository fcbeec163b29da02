//! The small programs beside this file, one for each language: each reads headers in hex, one a line, and answers with one
//! line of JSON each.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::headers::COOKIES;

/// Names and values as a parser yields them.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
/// What each parser of a driver makes of one header.
pub type Read = Vec<(String, Pairs)>;

/// A program that reads headers.
pub struct Driver {
    /// What it is called here.
    pub name: &'static str,
    command: fn() -> Command,
}

/// Those that read `Cookie`.
pub const DRIVERS: &[Driver] = &[
    Driver { name: "python", command: || python(&[]) },
    Driver { name: "node", command: || node(&[]) },
    Driver { name: "php", command: || script("php", "read.php") },
    Driver { name: "perl", command: || script("perl", "read.pl") },
    Driver { name: "ruby", command: || script("ruby", "read.rb") },
    Driver { name: "tomcat 10", command: || java("tomcat10", &[]) },
    Driver { name: "tomcat 9", command: || java("tomcat9", &["legacy"]) },
];

/// Those that read `Set-Cookie`.
pub const SET_DRIVERS: &[Driver] = &[
    Driver { name: "python, set", command: || python(&["set"]) },
    Driver { name: "node, set", command: || node(&["set"]) },
];

/// The moment at which `Set-Cookie` fields are read, in Unix milliseconds: any will do.
pub const NOW_MS: u64 = 1_700_000_000_000;

fn installed(part: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("test-differential").join(part);
    assert!(
        place.exists(),
        "the parsers of {part} are missing; install them with: bash tests/differential/install.sh"
    );
    place
}

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential").join(file)
}

fn script(program: &str, file: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(source(file));
    command
}

fn python(arguments: &[&str]) -> Command {
    let mut command = Command::new(installed("python").join("bin/python"));
    command.arg(source("read.py")).args(arguments);
    command
}

fn node(arguments: &[&str]) -> Command {
    let mut command = script("node", "read.js");
    command.args(arguments).env("NODE_PLACE", installed("node"));
    command.env("NAMES", serde_json::to_string(COOKIES).unwrap()).env("NOW_MS", NOW_MS.to_string());
    command
}

fn java(tomcat: &str, arguments: &[&str]) -> Command {
    let mut path = installed("java").into_os_string();
    for entry in fs::read_dir("/usr/share/java").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(tomcat)) {
            path.push(":");
            path.push(entry.path());
        }
    }
    let mut command = Command::new("java");
    command.arg("-cp").arg(path).arg("Read").args(arguments);
    command
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that a text in hex stands for.
pub fn unhex(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(pair).collect()
}

impl Driver {
    /// One line of JSON for each header.
    fn answers(&self, headers: &[&[u8]]) -> Vec<Value> {
        let directory = tempfile::tempdir().unwrap();
        let input = directory.path().join("headers");
        let lines: String = headers.iter().map(|header| hex(header) + "\n").collect();
        fs::write(&input, lines).unwrap();
        let mut command = (self.command)();
        // The headers come from a file, so that neither side waits for the other.
        command.stdin(File::open(&input).unwrap()).stderr(Stdio::piped());
        let out = command.output().unwrap_or_else(|error| {
            panic!("{}: {error}; install it with: bash tests/differential/install.sh", self.name)
        });
        let told = String::from_utf8_lossy(&out.stderr);
        let text = String::from_utf8_lossy(&out.stdout);
        let read: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        assert!(out.status.success() && read.len() == headers.len(), "{}: {told}", self.name);
        read
    }
}

/// What the drivers answer, side by side.
pub fn ask_all<'a>(drivers: &'a [Driver], headers: &[&[u8]]) -> Vec<(&'a Driver, Vec<Value>)> {
    std::thread::scope(|scope| {
        let running: Vec<_> =
            drivers.iter().map(|driver| (driver, scope.spawn(|| driver.answers(headers)))).collect();
        let done = |running: std::thread::ScopedJoinHandle<'_, Vec<Value>>| {
            running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        running.into_iter().map(|(driver, handle)| (driver, done(handle))).collect()
    })
}

/// What all parsers of the drivers read.
pub fn run_all<'a>(drivers: &'a [Driver], headers: &[&[u8]]) -> Vec<(&'a Driver, Vec<Read>)> {
    let answers = ask_all(drivers, headers).into_iter();
    answers.map(|(driver, lines)| (driver, lines.iter().map(read).collect())).collect()
}

fn read(line: &Value) -> Read {
    let parsers = line.as_object().expect("an object").iter();
    parsers.map(|(parser, pairs)| (parser.clone(), pairs_of(pairs))).collect()
}

fn pairs_of(pairs: &Value) -> Pairs {
    let pair = |pair: &Value| (bytes_of(&pair[0]), bytes_of(&pair[1]));
    pairs.as_array().expect("a list of pairs").iter().map(pair).collect()
}

/// The bytes of a JSON string in hex.
pub fn bytes_of(text: &Value) -> Vec<u8> {
    unhex(text.as_str().expect("a string"))
}

/// The headers in the tests of the Python packages.
pub fn python_corpus() -> Vec<Vec<u8>> {
    let out = python(&["corpus"]).arg(installed("python").join("sources")).output().expect("Python runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(unhex).collect()
}
