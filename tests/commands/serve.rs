//! `tenure serve`, and the commands that talk to it.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::redis_support::Server;
use crate::running::Running;
use crate::support::app::{App, PASSWORD};
use crate::support::browser::{Browser, Page};
use crate::support::search::TokenSearch;
use crate::support::wait::{PATIENCE, comes_true};
use crate::{command, tenure, text};

/// A gateway in its own process before a fixture app.
struct World {
    app: App,
    place: TempDir,
    gateway: Running,
    token: String,
}

impl World {
    async fn new() -> Self {
        let app = App::start().await;
        let place = tempfile::tempdir().unwrap();
        let made = tenure(&["token", "new", "--name", "ops", "--scopes", "*"]);
        let (token, entry) = text(&made.stdout).trim_end().split_once('\n').unwrap();
        let (token, entry) = (token.to_owned(), entry.to_owned());
        fs::write(place.path().join("entry"), &entry).unwrap();
        fs::write(place.path().join("config.toml"), config(&app, &place, &entry, "1h")).unwrap();
        let gateway =
            Running::start(&["serve", "--config", place.path().join("config.toml").to_str().unwrap()]);
        gateway.says("ready").await;
        Self { app, place, gateway, token }
    }

    fn file(&self) -> PathBuf {
        self.place.path().join("config.toml")
    }

    fn write_config(&self, idle: &str) {
        let entry = fs::read_to_string(self.place.path().join("entry")).unwrap();
        // In one step, as an editor does: a half-written file is a faulty one.
        let new = self.place.path().join("new");
        fs::write(&new, config(&self.app, &self.place, &entry, idle)).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    /// A command against this gateway, with its token.
    fn ask(&self, args: &[&str]) -> Output {
        let mut command = command(args);
        command.arg("--admin").arg(format!("unix:{}", self.place.path().join("admin.sock").display()));
        command.env("TENURE_TOKEN", &self.token).output().unwrap()
    }

    /// What a command that must succeed prints.
    fn told(&self, args: &[&str]) -> String {
        let done = self.ask(args);
        assert_eq!(done.status.code(), Some(0), "{args:?}: {}", text(&done.stderr));
        assert!(done.stderr.is_empty(), "{args:?}: {}", text(&done.stderr));
        text(&done.stdout).to_owned()
    }

    async fn signed_in(&self, user: &str) -> Browser {
        let browser = Browser::at(self.gateway.address("http").await);
        let page = browser.post_form("/login", &[("username", user), ("password", PASSWORD)]).await;
        assert_eq!(page.status, 200, "{}", page.text());
        browser
    }

    /// Waits until the idle time-out in force is this.
    async fn idle_becomes(&self, idle: &str) {
        let row = format!("idle_timeout    {idle}");
        assert!(comes_true(PATIENCE, async || self.told(&["policy", "explain"]).contains(&row)).await);
    }
}

fn config(app: &App, place: &TempDir, entry: &str, idle: &str) -> String {
    format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\nworkers = 1\n[drain]\ndelay = \"0s\"\ntimeout = \"5s\"\n\
         [admin]\nlisten = \"unix:{}\"\ntokens = [{entry}]\n\
         [[app]]\nname = \"crm\"\nupstream = \"{}\"\ncookie = \"SID\"\nlogin = \"/login\"\nlogout = \"/logout\"\n\
         [[app.identity]]\nfrom = \"login-form\"\npath = \"/login\"\nuser = \"username\"\n\
         success = {{ location_not = \"/login*\" }}\n\
         [policy]\nidle_timeout = \"{idle}\"\nforce_relogin = \"8h\"\nmax_concurrent = 2\n\
         [[policy.tenant]]\nname = \"acme\"\nmax_concurrent = 1\n",
        place.path().join("admin.sock").display(),
        app.url(),
    )
}

fn is_signed_in(page: &Page) -> bool {
    page.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_explained_and_revoked_from_a_shell() {
    let world = World::new().await;
    let (ann, bob) = (world.signed_in("ann").await, world.signed_in("bob").await);

    let listed = world.told(&["sessions"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 3, "{listed}");
    assert!(lines[0].starts_with("ID") && lines[0].contains("LAST ACTIVE"));
    let columns = |line: &str| line.split_whitespace().take(5).map(str::to_owned).collect::<Vec<_>>();
    let row = lines.iter().map(|line| columns(line)).find(|row| row[1] == "ann").expect("ann is listed");
    assert_eq!(row[1..], ["ann", "default", "crm", "active"]);
    let id = row[0].as_str();
    assert!(lines.iter().any(|line| columns(line)[1] == "bob"));
    assert_eq!(world.told(&["sessions", "--user", "ann", "--json"]).lines().count(), 1);
    let json: serde_json::Value =
        serde_json::from_str(&world.told(&["sessions", "--app", "crm", "--user", "bob", "--json"])).unwrap();
    assert_eq!((json["user"].as_str(), json["state"].as_str()), (Some("bob"), Some("active")));

    assert_eq!(world.told(&["revoke", "--user", "ann", "--dry-run"]), "1 would end\n");
    assert!(is_signed_in(&ann.fetch("/me").await));
    assert_eq!(world.told(&["revoke", "--session", id]), format!("{id} has ended: revoked\n"));
    assert!(!is_signed_in(&ann.fetch("/me").await));
    assert!(is_signed_in(&bob.fetch("/me").await));
    let ended = world.told(&["sessions", "--ended"]);
    assert!(ended.lines().any(|line| line.starts_with(id) && line.contains("  revoked  ")), "{ended}");
    assert_eq!(world.told(&["revoke", "--tenant", "default", "--user", "nobody"]), "0 ended\n");
    assert_eq!(world.told(&["revoke", "--everyone"]), "1 ended\n");
    assert!(!is_signed_in(&bob.fetch("/me").await));
    assert_eq!(world.told(&["sessions"]).lines().count(), 1, "the head alone");
    for _ in 0..50 {
        bob.fetch_with_cookie("/me", "SID=made-up").await;
    }
    let listed = world.told(&["sessions"]);
    let advice = listed.lines().last().unwrap();
    assert!(advice.starts_with("advice for crm: browsers bring session cookies"), "{listed}");
    assert_eq!(world.gateway.times("habit=\"unseen_cookies\""), 1, "{}", world.gateway.err());

    let unknown = world.ask(&["revoke", "--session", &"0".repeat(32)]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("404"), "{}", text(&unknown.stderr));
    let tokens = TokenSearch::new(world.app.issued_tokens());
    tokens.assert_none([("the list", listed), ("the ended", ended), ("the log", world.gateway.err())]);
    assert!(!world.gateway.err().contains(&world.token), "the operator's token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_shown_and_explained() {
    let world = World::new().await;
    let shown = world.told(&["policy", "show"]);
    for row in ["policy       idle_timeout    1h", "tenant acme  max_concurrent  1"] {
        assert!(shown.contains(row), "{row}\n{shown}");
    }
    let explained = world.told(&["policy", "explain", "--tenant", "acme", "--user", "ann"]);
    assert!(explained.contains("max_concurrent  1           tenant acme"), "{explained}");
    assert!(explained.contains("idle_timeout    1h          policy"), "{explained}");
    for args in [&["policy", "show", "--json"][..], &["policy", "explain", "--json"]] {
        let _: serde_json::Value = serde_json::from_str(&world.told(args)).expect("JSON");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_set_above_the_file_and_kept() {
    let mut world = World::new().await;
    let ann = world.signed_in("ann").await;
    let default = ["policy", "set", "--tenant", "default"];
    let set = |more: &[&str]| world.told(&[&default[..], more].concat());
    assert_eq!(set(&["--idle-timeout", "1ms", "--preview"]), "1 session would end\n");
    assert!(is_signed_in(&ann.fetch("/me").await), "a preview changes nothing");
    assert_eq!(set(&["--idle-timeout", "20m", "--max-concurrent", "1"]), "0 sessions ended\n");
    assert_eq!(set(&["--on-limit", "refuse", "--unset", "max_concurrent"]), "0 sessions ended\n");
    let shown = world.told(&["policy", "show"]);
    for row in ["tenant default, set  idle_timeout    20m", "tenant default, set  on_limit        refuse"] {
        assert!(shown.contains(row), "{row}\n{shown}");
    }
    assert!(!shown.contains("tenant default, set  max_concurrent"), "{shown}");
    let by_user = ["policy", "set", "--user", "ann", "--tenant", "default", "--max-concurrent", "off"];
    assert_eq!(world.told(&by_user), "0 sessions ended\n");
    let explain = ["policy", "explain", "--user", "ann"];
    let explained = world.told(&explain);
    assert!(explained.contains("idle_timeout    20m     tenant default, set"), "{explained}");
    assert!(explained.contains("max_concurrent  off     user ann, set"), "{explained}");
    let refused = world.ask(&["policy", "set", "--role", "none", "--on-limit", "ask"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("404"), "{}", text(&refused.stderr));
    for wrong in [&["--idle-timeout", "5"][..], &["--max-concurrent", "many"]] {
        let refused = world.ask(&[&default[..], wrong].concat());
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("400"), "{}", text(&refused.stderr));
    }
    for usage in [&["policy", "set", "--on-limit", "ask"][..], &default[..]] {
        assert_eq!(world.ask(usage).status.code(), Some(2), "{usage:?}");
    }
    world.gateway.signal(Signal::KILL);
    world.gateway.ends().await;
    world.gateway = Running::start(&["serve", "--config", world.file().to_str().unwrap()]);
    world.gateway.says("ready").await;
    assert_eq!(world.told(&explain), explained);
    assert_eq!(world.told(&[&default[..], &["--remove"]].concat()), "0 sessions ended\n");
    assert!(world.told(&explain).contains("idle_timeout    1h"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_comes_by_command_by_signal_and_by_a_change_of_content() {
    let world = World::new().await;
    let ann = world.signed_in("ann").await;
    // By its content.
    world.write_config("59m");
    world.idle_becomes("59m").await;
    // By command: whichever sees it first, it is in force when the command returns.
    world.write_config("58m");
    assert_eq!(world.told(&["reload"]), "the configuration is in force\n");
    assert!(world.told(&["policy", "explain"]).contains("58m"));
    // By signal.
    world.write_config("57m");
    world.gateway.signal(Signal::HUP);
    world.idle_becomes("57m").await;
    // A faulty file changes nothing, and the command says why.
    fs::write(world.file(), "[listen]\nnonsense = 1\n").unwrap();
    let refused = world.ask(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("listen.nonsense"), "{}", text(&refused.stderr));
    assert!(world.told(&["policy", "explain"]).contains("57m"));
    assert!(is_signed_in(&ann.fetch("/me").await), "no reload ended the session");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_leaves_in_order_by_command_and_by_signal() {
    let mut world = World::new().await;
    assert_eq!(world.told(&["health"]), "ready\n");
    assert_eq!(world.told(&["drain"]), "draining\n");
    assert_eq!(world.gateway.ends().await.code(), Some(0));
    let gone = world.ask(&["health"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("no gateway at unix:"), "{}", text(&gone.stderr));
    for signal in [Signal::TERM, Signal::INT] {
        let mut world = World::new().await;
        world.gateway.signal(signal);
        assert_eq!(world.gateway.ends().await.code(), Some(0), "{signal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_the_process_however_it_ends() {
    let mut world = World::new().await;
    assert_eq!(world.gateway.times("sessions are kept in memory alone"), 0, "{}", world.gateway.err());
    assert!(world.gateway.out().is_empty(), "logs go to stderr");
    let ann = Browser::at(world.gateway.address("http").await);
    ann.post_form("/login", &[("username", "ann"), ("password", PASSWORD)]).await;
    assert!(is_signed_in(&ann.fetch("/me").await));
    for signal in [Signal::KILL, Signal::TERM] {
        world.gateway.signal(signal);
        world.gateway.ends().await;
        world.gateway = Running::start(&["serve", "--config", world.file().to_str().unwrap()]);
        world.gateway.says("ready").await;
        ann.resolve("app.localhost", world.gateway.address("http").await);
        ann.hang_up().await;
        assert!(is_signed_in(&ann.fetch("/me").await), "{signal:?}: {}", world.gateway.err());
    }
    assert!(world.place.path().join("data/sessions.db").exists(), "beside the configuration");
}

/// `tenure store import` with these lines; exit code and words.
fn import(file: &std::path::Path, lines: &[u8]) -> (Option<i32>, String) {
    use std::io::Write;
    use std::process::Stdio;
    let mut command = command(&["store", "import", "--config", file.to_str().unwrap()]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have seen enough before all is written.
    let _ = child.stdin.take().unwrap().write_all(lines);
    let done = child.wait_with_output().unwrap();
    (done.status.code(), text(&done.stderr).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_carried_elsewhere() {
    let mut world = World::new().await;
    let (ann, bob) = (world.signed_in("ann").await, world.signed_in("bob").await);
    world.told(&["revoke", "--user", "bob"]);
    let file = world.file();
    let exported = tenure(&["store", "export", "--config", file.to_str().unwrap()]);
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
    assert!(text(&exported.stderr).contains("2 sessions"), "{}", text(&exported.stderr));
    let lines = exported.stdout;
    let secrets = [ann.cookie("SID").unwrap(), bob.cookie("SID").unwrap()];
    assert!(secrets.iter().all(|secret| !text(&lines).contains(secret.as_str())), "no token");
    // Another directory, which gets the secret of the old one.
    world.gateway.signal(Signal::TERM);
    world.gateway.ends().await;
    let old = world.place.path().join("data");
    let elsewhere = world.place.path().join("elsewhere");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{config}\n[store]\npath = \"elsewhere\"\n")).unwrap();
    let (code, said) = import(&file, &lines);
    assert_eq!(code, Some(1));
    assert!(said.contains("under another secret"), "{said}");
    fs::remove_dir_all(&elsewhere).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    fs::copy(old.join("secret"), elsewhere.join("secret")).unwrap();
    for (cut, word) in [(lines.len() / 2, "line"), (0, "the end is missing")] {
        let (code, said) = import(&file, &lines[..cut]);
        assert!(code == Some(1) && said.contains(word), "{said}");
    }
    let (code, said) = import(&file, &lines);
    assert!(code == Some(0) && said.contains("2 sessions"), "{said}");
    let (code, said) = import(&file, &lines);
    assert!(code == Some(1) && said.contains("holds sessions already"), "{said}");
    world.gateway = Running::start(&["serve", "--config", file.to_str().unwrap()]);
    world.gateway.says("ready").await;
    for (browser, goes_on) in [(&ann, true), (&bob, false)] {
        browser.resolve("app.localhost", world.gateway.address("http").await);
        browser.hang_up().await;
        assert_eq!(is_signed_in(&browser.fetch("/me").await), goes_on);
    }
    let listed = world.told(&["sessions", "--ended"]);
    assert!(listed.contains("bob") && listed.contains("revoked"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_carried_to_redis_and_back() {
    let mut world = World::new().await;
    let (ann, bob) = (world.signed_in("ann").await, world.signed_in("bob").await);
    world.told(&["policy", "set", "--user", "ann", "--tenant", "default", "--idle-timeout", "20m"]);
    world.told(&["revoke", "--user", "bob"]);
    let (file, config) = (world.file(), fs::read_to_string(world.file()).unwrap());
    let server = Server::start();
    let places = [format!("redis = \"{}\"", server.url()), "path = \"elsewhere\"".to_owned()];
    for place in places {
        let exported = tenure(&["store", "export", "--config", file.to_str().unwrap()]);
        assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
        world.gateway.signal(Signal::TERM);
        world.gateway.ends().await;
        // The secret of the old directory is configured from now on.
        let store = format!("[store]\n{place}\nsecret = \"file:data/secret\"\n");
        fs::write(&file, format!("{config}\n{store}")).unwrap();
        let (code, said) = import(&file, &exported.stdout);
        assert!(code == Some(0) && said.contains("2 sessions"), "{said}");
        let (code, said) = import(&file, &exported.stdout);
        assert!(code == Some(1) && said.contains("nothing was changed"), "{said}");
        world.gateway = Running::start(&["serve", "--config", file.to_str().unwrap()]);
        world.gateway.says("ready").await;
        for (browser, goes_on) in [(&ann, true), (&bob, false)] {
            browser.resolve("app.localhost", world.gateway.address("http").await);
            browser.hang_up().await;
            assert_eq!(is_signed_in(&browser.fetch("/me").await), goes_on, "{place}");
        }
        let explained = world.told(&["policy", "explain", "--user", "ann", "--tenant", "default"]);
        assert!(explained.contains("20m"), "{explained}");
        let listed = world.told(&["sessions", "--ended"]);
        assert!(listed.contains("bob") && listed.contains("revoked"), "{listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_at_start_when_sessions_are_in_memory() {
    let mut world = World::new().await;
    let text = fs::read_to_string(world.file()).unwrap();
    fs::write(world.file(), format!("{text}\n[store]\npath = \"off\"\n")).unwrap();
    world.gateway.signal(Signal::TERM);
    world.gateway.ends().await;
    world.gateway = Running::start(&["serve", "--config", world.file().to_str().unwrap()]);
    world.gateway.says("ready").await;
    assert_eq!(world.gateway.times("sessions are kept in memory alone"), 1, "{}", world.gateway.err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hinders_a_start_is_told() {
    let world = World::new().await;
    let taken = world.gateway.address("http").await;
    let file = world.place.path().join("second.toml");
    let second = format!(
        "[listen]\nhttp = \"{taken}\"\n[[app]]\nupstream = \"{}\"\ncookie = \"SID\"\n",
        world.app.url()
    );
    fs::write(&file, &second).unwrap();
    let path = file.to_str().unwrap();
    let done = tenure(&["serve", "--config", path]);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains(&taken.to_string()), "{}", text(&done.stderr));
    fs::write(&file, second.replace("cookie", "cokie")).unwrap();
    let done = tenure(&["serve", "--config", path]);
    assert_eq!(done.status.code(), Some(78));
    assert!(text(&done.stderr).contains("second.toml:5: "), "{}", text(&done.stderr));
}

#[test]
fn without_a_gateway_the_commands_say_so() {
    let at = ["--admin", "http://127.0.0.1:1"];
    for args in [
        &["sessions"][..],
        &["revoke", "--everyone"],
        &["policy", "show"],
        &["reload"],
        &["drain"],
        &["health"],
    ] {
        let done = tenure(&[args, &at].concat());
        assert_eq!(done.status.code(), Some(1), "{args:?}");
        assert!(text(&done.stderr).contains("no gateway at http://127.0.0.1:1"), "{}", text(&done.stderr));
        assert!(done.stdout.is_empty());
    }
    for args in [
        &["revoke"][..],
        &["revoke", "--session", "x", "--user", "y"],
        &["revoke", "--everyone", "--app", "x"],
        &["health", "--admin", "https://127.0.0.1:1"],
        &["health", "--admin", "http://127.0.0.1"],
    ] {
        assert_eq!(tenure(args).status.code(), Some(2), "{args:?}");
    }
    let done = tenure(&["sessions", "--token-file", "/nonexistent"]);
    assert!(text(&done.stderr).contains("/nonexistent"), "{}", text(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_or_that_cannot_be_written_harms_nobody() {
    for is_stalled in [true, false] {
        let app = App::start().await;
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("config.toml");
        let port = free_port();
        let text = config(&app, &place, "", "1h").replace(":0\"", &format!(":{port}\""));
        fs::write(&file, text).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut reader = Some(reader);
        if !is_stalled {
            drop(reader.take());
        }
        let mut gateway =
            command(&["serve", "--config", file.to_str().unwrap()]).stderr(writer).spawn().unwrap();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        assert!(comes_true(PATIENCE, async || tokio::net::TcpStream::connect(address).await.is_ok()).await);
        let browser = Browser::at(address);
        // Far more lines than a pipe holds.
        for _ in 0..1000 {
            assert_eq!(browser.fetch("/poll").await.status, 200, "stalled: {is_stalled}");
        }
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }
}

/// A port on which nobody listens at this moment.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_json_log_is_json() {
    let app = App::start().await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("config.toml");
    fs::write(&file, format!("{}[log]\nformat = \"json\"\n", config(&app, &place, "", "1h"))).unwrap();
    let mut gateway = Running::start(&["serve", "--config", file.to_str().unwrap()]);
    gateway.says("\"ready\"").await;
    let line = gateway.err().lines().find(|line| line.contains("listening for http")).unwrap().to_owned();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let browser = Browser::at(line["address"].as_str().unwrap().parse().unwrap());
    browser.post_form("/login", &[("username", "ann"), ("password", PASSWORD)]).await;
    gateway.says("\"signed_in\"").await;
    gateway.signal(Signal::TERM);
    gateway.ends().await;
    let text = gateway.err();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["target"].is_string());
    }
    assert!(text.contains("\"target\":\"access\"") && text.contains("\"target\":\"audit\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_file_descriptors_is_survived() {
    let app = App::start().await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("config.toml");
    let text = config(&app, &place, "", "1h").replace("[admin]\n", "[admin]\nprobes = \"127.0.0.1:0\"\n");
    fs::write(&file, text).unwrap();
    let script = format!("ulimit -n 60; exec {} serve --config config.toml", env!("CARGO_BIN_EXE_tenure"));
    let gateway = Running::start_shell(&script, place.path());
    let (address, probes) = (gateway.address("http").await, gateway.address("probes").await);
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    gateway.says("a connection could not be accepted").await;
    drop(open);
    let browser = Browser::at(address);
    assert!(comes_true(PATIENCE, async || browser.fetch("/poll").await.status == 200).await);
    let metrics = Browser::at(probes).fetch("/metrics").await.text();
    assert!(!metrics.contains("tenure_accept_errors_total 0\n"), "{metrics}");
}
