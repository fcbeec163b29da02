//! Holds the house in order: the dependency rule, where time is read, and the sizes of files and functions.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Which modules a module may use, besides itself (RULINGS R26). Dependencies point downwards only.
const LAYERS: &[(&str, &[&str])] = &[
    ("clock", &["session"]),
    ("session", &[]),
    ("config", &["session"]),
    ("telemetry", &["clock", "session"]),
    ("store", &["clock", "config", "session", "telemetry"]),
    ("vault", &["clock", "config", "session", "telemetry", "store"]),
    ("pages", &["clock", "session", "store"]),
    ("proxy", &["clock", "config", "session", "telemetry", "store", "vault", "pages"]),
    ("admin", &["clock", "config", "session", "telemetry", "store", "pages"]),
    ("server", &["clock", "config", "session", "telemetry", "store", "pages", "proxy", "admin"]),
    ("demo", &["clock", "session"]),
    (
        "cli",
        &["clock", "config", "session", "telemetry", "store", "pages", "proxy", "admin", "server", "demo"],
    ),
];

const MAX_FILE_LINES: usize = 500;
const MAX_LINE_COLUMNS: usize = 130;

fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inside = path.strip_prefix(&root).unwrap();
                let first = inside.components().next().unwrap().as_os_str().to_string_lossy();
                let module = first.trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).unwrap();
                found.push((module, inside.to_path_buf(), text));
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// The code without its unit tests, which stand last in a file.
fn logic(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests").map_or(text, |at| &text[..at])
}

/// First segments after `crate::` on lines that are no comments, groups (`crate::{a, b::c}`) included.
fn used_modules(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && c.is_alphabetic() => {
                        used.push(name(&group[i..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            used.push(name(rest));
        }
    }
    used
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn dependencies_point_downwards_only() {
    let mut faults = Vec::new();
    for (module, path, text) in sources() {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            assert!(module == "main" || module == "lib", "{module} has no place in the house");
            continue;
        };
        for used in used_modules(logic(&text)) {
            if used != module && !allowed.contains(&used.as_str()) {
                faults.push(format!("{}: {module} uses {used}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_core_is_pure() {
    let banned = [
        "async ",
        "tokio::",
        "tracing::",
        "std::fs",
        "std::net::Tcp",
        "Mutex",
        "RwLock",
        "Atomic",
        "println!",
    ];
    let mut faults = Vec::new();
    for (module, path, text) in sources() {
        let code = logic(&text);
        for word in banned {
            let found = code.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word));
            if module == "session" && found {
                faults.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn time_is_read_in_one_file() {
    let banned = ["SystemTime::now", "Instant::now", "clock_gettime", "Timestamp::now", "Zoned::now"];
    let mut faults = Vec::new();
    for (_, path, text) in sources() {
        for word in banned {
            if path != Path::new("clock.rs") && logic(&text).contains(word) {
                faults.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn files_stay_small() {
    let mut faults = Vec::new();
    for (_, path, text) in sources() {
        let lines = logic(&text).lines().count();
        if lines > MAX_FILE_LINES {
            faults.push(format!("{}: {lines} lines of logic", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > MAX_LINE_COLUMNS {
                faults.push(format!("{}:{}: {} columns", path.display(), number + 1, line.chars().count()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn open_ends_have_an_issue() {
    let mut faults = Vec::new();
    for (_, path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let open = ["TODO", "FIXME", "XXX"].iter().any(|word| line.contains(word));
            if open && !line.contains('#') {
                faults.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_checks_of_this_file_can_fail() {
    let used = used_modules("use crate::{clock::Clock, session::{a, b}};\nlet x = crate::store::y();");
    assert_eq!(used, ["clock", "session", "store"]);
    assert_eq!(logic("a\n#[cfg(test)]\nmod tests {}"), "a\n");
}
