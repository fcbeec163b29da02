//! Sessions in the embedded store: what a restart finds, and what happens while the store fails.

use std::path::Path;

use tempfile::TempDir;
use tenure::config::check_text;
use tenure::server::Gateway;
use tenure::session::chosen::{Choice, Holder};
use tenure::session::layers::{Layer, Limit};
use tenure::session::{OnLimit, Span};
use tenure::store::StateFilter;

use crate::setup::{BY_HEADER, POLICY, World, config_text, post_login, sign_in, who};
use crate::support::app::{Profile, Switches};
use crate::support::browser::Browser;

/// A gateway with a directory of its own.
pub(crate) struct Durable {
    pub world: World,
    pub place: TempDir,
    pub text: String,
}

impl Durable {
    pub(crate) async fn with(habits: impl FnOnce(&mut Switches), app_lines: &str, store_lines: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut text = String::new();
        let world = World::from_text(
            |s| {
                s.identity_headers = true;
                habits(s);
            },
            |upstream| {
                let kept = format!("path = \"{}\"\n{store_lines}", place.path().join("data").display());
                let plain = config_text(upstream, app_lines, BY_HEADER, POLICY);
                text = plain.replacen("path = \"off\"", &kept, 1);
                text.clone()
            },
        )
        .await;
        Self { world, place, text }
    }

    pub(crate) async fn new() -> Self {
        Self::with(|_| (), "", "").await
    }

    pub(crate) async fn restart(&mut self, browsers: &[&Browser]) {
        self.world.restart(&self.text, browsers).await;
    }

    fn database(&self) -> rusqlite::Connection {
        let database = rusqlite::Connection::open(self.place.path().join("data/sessions.db")).unwrap();
        database.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        database
    }
}

#[tokio::test]
async fn a_restart_signs_nobody_out_and_moves_no_clock() {
    for custody in ["track", "vault"] {
        for profile in [Profile::Opaque, Profile::RotateEach, Profile::RotateLogin, Profile::Route] {
            let lines = format!("custody = \"{custody}\"");
            let mut kept = Durable::with(|s| s.profile = profile, &lines, "").await;
            let browser = kept.world.signed_in("ann").await;
            kept.world.pass(1800);
            assert_eq!(who(&browser).await.as_deref(), Some("ann"));
            let before = kept.world.only_session_of("ann");
            kept.restart(&[&browser]).await;
            let after = kept.world.only_session_of("ann");
            assert_eq!((after.id, after.times, after.deadline), (before.id, before.times, before.deadline));
            assert_eq!((after.ip, &after.user_agent), (before.ip, &before.user_agent));
            assert_eq!(who(&browser).await.as_deref(), Some("ann"), "{custody} {profile:?}");
            // Time while the gateway was down counts (R20).
            kept.world.pass(3599);
            kept.restart(&[&browser]).await;
            assert_eq!(who(&browser).await.as_deref(), Some("ann"), "{custody} {profile:?}");
            kept.world.pass(3600);
            kept.restart(&[&browser]).await;
            assert_eq!(who(&browser).await, None, "{custody} {profile:?}");
            assert_eq!(kept.world.ends_of("ann"), ["idle_timeout"]);
        }
    }
}

#[tokio::test]
async fn what_has_ended_stays_ended_and_its_reason_is_told() {
    for custody in ["track", "vault"] {
        let name = if custody == "track" { "SID" } else { "tenure-app" };
        let mut kept = Durable::with(|_| (), &format!("custody = \"{custody}\""), "").await;
        let browser = kept.world.signed_in("ann").await;
        let copy = format!("{name}={}", browser.cookie(name).unwrap());
        kept.world.revoke("ann").await;
        kept.restart(&[&browser]).await;
        let page = kept.world.browser().fetch_with_cookie("/me", &copy).await;
        assert_eq!((page.status, page.json()["reason"].as_str()), (401, Some("revoked")), "{custody}");
        assert_eq!(browser.navigate("/page").await.status, 401, "its page says why");
        kept.restart(&[&browser]).await;
        assert_eq!(kept.world.ends_of("ann"), ["revoked"]);
        sign_in(&browser, "ann").await;
    }
}

#[tokio::test]
async fn visitors_after_a_restart_are_no_sign_that_nobody_signs_in() {
    let mut kept = Durable::with(|s| s.anonymous_cookie = true, "", "").await;
    let browser = kept.world.signed_in("ann").await;
    kept.restart(&[&browser]).await;
    for _ in 0..100 {
        kept.world.browser().navigate("/").await;
    }
    let app = kept.world.gateway.handle().shared().metrics.app("app");
    assert_eq!(app.habits.noticed().count(), 0);
}

#[tokio::test]
async fn the_limit_holds_over_a_restart() {
    let mut kept = Durable::new().await;
    let first = kept.world.signed_in("ann").await;
    // Of sign-ins at one moment either may count as the older.
    kept.world.pass(1);
    let browsers = [first, kept.world.signed_in("ann").await];
    kept.restart(&[&browsers[0], &browsers[1]]).await;
    let third = kept.world.browser();
    sign_in(&third, "ann").await;
    assert_eq!(kept.world.ends_of("ann"), ["max_concurrent"]);
    assert_eq!(who(&browsers[0]).await, None, "the oldest");
    assert_eq!(who(&browsers[1]).await.as_deref(), Some("ann"));
}

#[tokio::test]
async fn a_policy_that_changed_while_the_gateway_was_down_brings_nobody_back() {
    let mut kept = Durable::new().await;
    let (ann, bob) = (kept.world.signed_in("ann").await, kept.world.browser());
    kept.world.pass(3000);
    sign_in(&bob, "bob").await;
    kept.world.pass(1000);
    // Ann's hour is over, Bob's is not: the longer one that holds from now on is his alone (R1).
    kept.text = kept.text.replace("idle_timeout = \"1h\"", "idle_timeout = \"3h\"");
    kept.restart(&[&ann, &bob]).await;
    assert_eq!((who(&ann).await, who(&bob).await.as_deref()), (None, Some("bob")));
    assert_eq!(kept.world.ends_of("ann"), ["idle_timeout"]);
    kept.text = kept.text.replace("idle_timeout = \"3h\"", "idle_timeout = \"1s\"");
    kept.world.pass(2);
    kept.restart(&[&bob]).await;
    assert_eq!(who(&bob).await, None, "a tighter one ends at once what it must");
}

#[tokio::test]
async fn no_token_and_no_cookie_of_the_app_is_on_the_disk() {
    let mut kept = Durable::with(|_| (), "custody = \"vault\"", "").await;
    let browser = kept.world.signed_in("ann").await;
    let ours = browser.cookie("tenure-app").unwrap();
    kept.restart(&[&browser]).await;
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    let mut secrets = kept.world.app.issued_tokens();
    secrets.push(ours);
    let mut files = 0;
    for entry in std::fs::read_dir(kept.place.path().join("data")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        files += 1;
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a token", path.display());
        }
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is for its owner alone", path.display());
    }
    assert!(files >= 3, "the database, the lock and the secret");
}

#[tokio::test]
async fn while_the_store_fails_sessions_go_on_and_nothing_is_lost() {
    let mut kept = Durable::new().await;
    let ann = kept.world.signed_in("ann").await;
    let blocker = kept.database();
    blocker.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let bob = kept.world.browser();
    sign_in(&bob, "bob").await;
    assert_eq!(who(&ann).await.as_deref(), Some("ann"));
    assert_eq!(kept.world.count("tenure_unconfirmed_total"), 1);
    blocker.execute_batch("ROLLBACK").unwrap();
    drop(blocker);
    kept.restart(&[&ann, &bob]).await;
    assert_eq!((who(&ann).await.as_deref(), who(&bob).await.as_deref()), (Some("ann"), Some("bob")));
}

#[tokio::test]
async fn where_so_chosen_nothing_is_answered_that_the_store_cannot_confirm() {
    let kept = Durable::with(|_| (), "", "on_outage = \"refuse\"").await;
    let ann = kept.world.signed_in("ann").await;
    let blocker = kept.database();
    blocker.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let bob = kept.world.browser();
    let page = post_login(&bob, "bob").await;
    assert_eq!((page.status, bob.cookie("SID")), (503, None));
    assert_eq!(who(&ann).await.as_deref(), Some("ann"), "who is signed in goes on");
    blocker.execute_batch("ROLLBACK").unwrap();
    drop(blocker);
    assert_eq!(kept.world.sessions(StateFilter::Active).len(), 2);
}

#[tokio::test]
async fn a_jar_that_changes_with_every_answer_waits_for_no_store() {
    for on_outage in ["local", "refuse"] {
        let store = format!("on_outage = \"{on_outage}\"");
        let mut kept =
            Durable::with(|s| s.profile = Profile::RotateEach, "custody = \"vault\"", &store).await;
        let ann = kept.world.signed_in("ann").await;
        let blocker = kept.database();
        blocker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        for _ in 0..3 {
            assert_eq!(who(&ann).await.as_deref(), Some("ann"), "{on_outage}");
        }
        assert_eq!(kept.world.count("tenure_unconfirmed_total"), 0, "nobody waited");
        blocker.execute_batch("ROLLBACK").unwrap();
        drop(blocker);
        kept.restart(&[&ann]).await;
        assert_eq!(who(&ann).await.as_deref(), Some("ann"), "the jar was written behind");
    }
}

/// Starts a gateway on the directory of another one; the fault that it leaves with.
pub(crate) fn fault_of(text: &str, kept: &Durable) -> String {
    let config = check_text("test.toml", text, Path::new(".")).unwrap();
    match Gateway::start(config, kept.world.clock.clone()) {
        Ok(_) => panic!("it started"),
        Err(fault) => fault.to_string(),
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_refused_in_words() {
    let mut kept = Durable::new().await;
    let browser = kept.world.signed_in("ann").await;
    assert!(fault_of(&kept.text, &kept).contains("in use by another process"));
    let memory = config_text(&kept.world.app.url(), "", "", "");
    kept.world.restart(&memory, &[]).await;
    let other = kept.text.replace("[store]\n", "[store]\nsecret = \"another secret of thirty bytes\"\n");
    assert!(fault_of(&other, &kept).contains("written under another secret"));
    {
        let database = kept.database();
        database.pragma_update(None, "user_version", 99).unwrap();
        drop(database);
        assert!(fault_of(&kept.text, &kept).contains("is of version 99"));
        kept.database().pragma_update(None, "user_version", 1).unwrap();
        let record: Vec<u8> =
            kept.database().query_row("SELECT record FROM session", [], |row| row.get(0)).unwrap();
        let mut broken = record.clone();
        broken[20] ^= 4;
        kept.database().execute("UPDATE session SET record = ?1", [&broken]).unwrap();
        let fault = fault_of(&kept.text, &kept);
        assert!(fault.contains("damaged") && fault.contains("row 1 of its table session"), "{fault}");
        kept.database().execute("UPDATE session SET record = ?1", [&record]).unwrap();
    }
    kept.restart(&[&browser]).await;
    assert_eq!(who(&browser).await.as_deref(), Some("ann"), "none of these starts has harmed it");
    let path = kept.place.path().join("data");
    kept.world.restart(&memory, &[]).await;
    std::fs::write(path.join("sessions.db"), b"this is no database, and has never been one at all....")
        .unwrap();
    assert!(fault_of(&kept.text, &kept).contains("damaged"));
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, b"").unwrap();
    assert!(fault_of(&kept.text, &kept).contains("[store] path names it"));
}

/// SQLite takes what is damaged in its log for the torn end of it.
#[tokio::test]
async fn confirmed_changes_that_are_missing_are_noticed() {
    let kept = Durable::new().await;
    kept.world.signed_in("ann").await;
    kept.world.revoke("ann").await;
    kept.world.gateway.table().safe().await.unwrap();
    let (data, copy) = (kept.place.path().join("data"), kept.place.path().join("copy"));
    let take_copy = |log: &dyn Fn(&mut Vec<u8>)| {
        let _ = std::fs::remove_dir_all(&copy);
        std::fs::create_dir(&copy).unwrap();
        for name in ["sessions.db", "sessions.db-wal", "secret", "confirmed"] {
            let mut bytes = std::fs::read(data.join(name)).unwrap();
            if name.ends_with("wal") {
                log(&mut bytes);
            }
            std::fs::write(copy.join(name), bytes).unwrap();
        }
    };
    let text = kept.text.replace("/data\"", "/copy\"");
    for log in [
        (&|log: &mut Vec<u8>| {
            let at = log.len() - 100;
            log[at] ^= 1;
        }) as &dyn Fn(&mut Vec<u8>),
        &|log| log.truncate(log.len() - 4000),
        &|log| log.truncate(0),
    ] {
        take_copy(log);
        let fault = fault_of(&text, &kept);
        assert!(fault.contains("transactions are missing") || fault.contains("damaged"), "{fault}");
    }
    take_copy(&|_| ());
    let config = check_text("test.toml", &text, Path::new(".")).unwrap();
    let gateway = Gateway::start(config, kept.world.clock.clone()).expect("a copy as it was is good");
    assert_eq!(gateway.table().counts().ended, 1);
}

#[tokio::test]
async fn cookies_from_before_the_gateway_are_adopted_once_and_until_the_roll_out_is_over() {
    let lines = "unseen = \"adopt\"\nadopt_until = \"2025-06-15T16:06:40Z\"";
    let mut kept = Durable::with(|_| (), lines, "").await;
    let mut before = Vec::new();
    for user in ["ann", "bob", "cid"] {
        let browser = Browser::at(kept.world.app.addr());
        post_login(&browser, user).await;
        before.push(format!("SID={}", browser.cookie("SID").unwrap()));
    }
    let through = kept.world.browser();
    let me = async |cookie: &str| through.fetch_with_cookie("/me", cookie).await;
    assert_eq!(me(&before[0]).await.json()["user"], "ann");
    kept.world.revoke("ann").await;
    assert_eq!(me(&before[0]).await.status, 401, "adopted once");
    kept.world.pass(30 * 60);
    kept.restart(&[&through]).await;
    assert_eq!(me(&before[0]).await.status, 401, "adopted once, restarts included");
    assert_eq!(me(&before[1]).await.json()["user"], "bob", "the roll-out goes on");
    kept.world.pass(40 * 60);
    assert_eq!(me(&before[2]).await.json()["user"], serde_json::Value::Null, "it is over");
    assert_eq!(me(&before[1]).await.json()["user"], "bob", "who was adopted stays");
}

#[tokio::test]
async fn policies_that_were_set_outlive_the_process() {
    let mut kept = Durable::new().await;
    let (ann, bob) = (kept.world.signed_in("ann").await, kept.world.signed_in("bob").await);
    let holder = |user: &str| Holder::User { tenant: "default".into(), user: user.into() };
    let idle = |hours: u64| Choice {
        layer: Layer { idle_timeout: Some(Limit::At(Span::from_secs(hours * 3600))), ..Layer::default() },
        bounded: false,
    };
    kept.world.gateway.handle().choose(&holder("ann"), Some(idle(3))).unwrap();
    kept.world.gateway.handle().choose(&Holder::App("gone".into()), Some(idle(1))).unwrap();
    assert!(kept.world.gateway.handle().is_safe().await);
    // Longer than the file's hour: held to the file alone, Ann's session would end at the restart.
    kept.world.pass(2 * 3600);
    kept.restart(&[&ann, &bob]).await;
    assert_eq!((who(&ann).await.as_deref(), who(&bob).await), (Some("ann"), None));
    kept.world.pass(3 * 3600 - 1);
    kept.restart(&[&ann]).await;
    assert_eq!(who(&ann).await.as_deref(), Some("ann"));
    let layers = kept.world.gateway.handle().layers();
    assert_eq!(layers.chosen.get(&Holder::App("gone".into())), Some(&idle(1)), "without effect, and kept");
    kept.world.gateway.handle().choose(&holder("ann"), None).unwrap();
    kept.restart(&[&ann]).await;
    assert_eq!(kept.world.gateway.handle().layers().chosen.get(&holder("ann")), None);
    kept.world.pass(3600);
    assert_eq!(who(&ann).await, None, "the file's holds again");
}

#[tokio::test]
async fn stored_policies_that_cannot_be_read_refuse_the_start() {
    let mut kept = Durable::new().await;
    let set = Choice { layer: Layer { on_limit: Some(OnLimit::Ask), ..Layer::default() }, bounded: false };
    kept.world.gateway.handle().choose(&Holder::Tenant("acme".into()), Some(set)).unwrap();
    assert!(kept.world.gateway.handle().is_safe().await);
    let memory = config_text(&kept.world.app.url(), "", "", "");
    kept.world.restart(&memory, &[]).await;
    let written: Vec<u8> = kept
        .database()
        .query_row("SELECT value FROM fact WHERE name = 'policies'", [], |row| row.get(0))
        .unwrap();
    for (value, words) in
        [("{\"version\":2}", "version 2"), ("{\"version\":1", "cannot be read"), ("", "cannot be read")]
    {
        let statement = "UPDATE fact SET value = ?1 WHERE name = 'policies'";
        kept.database().execute(statement, [value.as_bytes()]).unwrap();
        assert!(fault_of(&kept.text, &kept).contains(words), "{value}");
        kept.database().execute(statement, [&written]).unwrap();
    }
    kept.restart(&[]).await;
    assert_eq!(kept.world.gateway.handle().layers().chosen.get(&Holder::Tenant("acme".into())), Some(&set));
}

#[tokio::test]
async fn a_policy_that_the_store_does_not_confirm_is_in_force_here_alone() {
    let kept = Durable::new().await;
    let blocker = kept.database();
    blocker.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let set = Choice { layer: Layer { on_limit: Some(OnLimit::Ask), ..Layer::default() }, bounded: false };
    let holder = Holder::Tenant("acme".into());
    kept.world.gateway.handle().choose(&holder, Some(set)).unwrap();
    assert!(!kept.world.gateway.handle().is_safe().await);
    assert_eq!(kept.world.gateway.handle().layers().chosen.get(&holder), Some(&set));
    blocker.execute_batch("ROLLBACK").unwrap();
}
