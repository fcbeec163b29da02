//! The commands that need no running gateway.

use std::fs;

use crate::{tenure, text};

#[test]
fn check_tells_what_a_good_file_means() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml");
    let done = tenure(&["check", "--config", shipped]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("crm: every host -> http://127.0.0.1:3000, cookie JSESSIONID"));
    assert!(done.stderr.is_empty());
}

#[test]
fn check_tells_all_faults_on_stderr_and_exits_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    fs::write(&path, "[listen]\nhttp = 8080\n[[app]]\ncookie = \"a b\"\n").unwrap();
    let done = tenure(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(78));
    assert!(done.stdout.is_empty());
    let told = text(&done.stderr);
    for (line, key) in [(2, "listen.http"), (3, "app[0].upstream"), (4, "app[0].cookie")] {
        assert!(told.contains(&format!("config.toml:{line}: {key}: ")), "{told}");
    }
    assert!(told.trim_end().ends_with("3 faults"), "{told}");
}

#[test]
fn a_missing_file_is_bad_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let done = tenure(&["check", "--config", dir.path().join("none.toml").to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(78));
    assert!(text(&done.stderr).contains("cannot be read"));
}

#[test]
fn what_cannot_be_understood_exits_with_2() {
    for args in
        [&["frobnicate"][..], &[], &["check", "--conf"], &["token", "new", "--name", "a", "--scopes", "alll"]]
    {
        let done = tenure(args);
        assert_eq!(done.status.code(), Some(2), "{args:?}");
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(tenure(&["--help"]).status.code(), Some(0));
    assert_eq!(tenure(&["--version"]).status.code(), Some(0));
}

#[test]
fn a_new_token_and_its_entry_go_to_stdout() {
    let args = ["token", "new", "--name", "ops", "--scopes", "sessions.read,sessions.revoke"];
    let (one, two) = (tenure(&args), tenure(&args));
    assert_eq!(one.status.code(), Some(0));
    assert_ne!(one.stdout, two.stdout, "every token is new");
    let [token, entry] = text(&one.stdout).lines().collect::<Vec<_>>()[..] else { panic!("two lines") };
    assert!(token.starts_with("tnr_"));
    assert!(entry.starts_with("{ name = \"ops\", hash = \"sha256:"), "{entry}");
    assert!(
        entry.ends_with("scopes = [\"sessions.read\", \"sessions.revoke\"], tenant = \"*\" }"),
        "{entry}"
    );
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let done = tenure(&["completions", shell]);
        assert_eq!(done.status.code(), Some(0), "{shell}");
        assert!(text(&done.stdout).contains("tenure"), "{shell}");
    }
}
