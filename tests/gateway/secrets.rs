//! The store's secret is replaced while sessions go on: at one gateway over restarts, and at several one after another.

use std::path::Path;

use tenure::config::check_text;
use tenure::server::Gateway;

use crate::durable::{Durable, fault_of};
use crate::setup::{config_text, sign_in, who};
use crate::shared::Both;
use crate::support::browser::{Browser, Heard};
use crate::support::wait::{PATIENCE, eventually};

const A: &str = "secret = \"the first one of two secrets\"";
const B: &str = "secret = \"another one of two secrets\"";
const A_BEFORE: &str = "previous_secrets = [\"the first one of two secrets\"]";
const B_NEXT: &str = "next_secret = \"another one of two secrets\"";

/// The cookie that stands for a browser's session.
fn cookie_of(browser: &Browser) -> String {
    let found = ["SID", "tenure-app"].map(|name| browser.cookie(name).map(|value| format!("{name}={value}")));
    found.into_iter().flatten().next().expect("it has one")
}

#[tokio::test]
async fn sessions_go_on_under_a_new_secret_and_dead_ones_stay_dead() {
    for custody in ["track", "vault"] {
        let lines = format!("custody = \"{custody}\"");
        let mut kept = Durable::with(|_| (), &lines, A).await;
        let (ann, bob) = (kept.world.signed_in("ann").await, kept.world.signed_in("bob").await);
        let carl = kept.world.signed_in("carl").await;
        let dead = cookie_of(&bob);
        kept.world.revoke("bob").await;
        let with_a = kept.text.clone();
        // Both are known.
        kept.text = with_a.replace(A, &format!("{B}\n{A_BEFORE}"));
        kept.restart(&[&ann, &bob, &carl]).await;
        kept.world.app.forget_requests();
        assert_eq!(who(&ann).await.as_deref(), Some("ann"), "{custody}");
        assert_eq!(who(&ann).await.as_deref(), Some("ann"), "{custody}: again, by its new key");
        let page = bob.fetch_with_cookie("/me", &dead).await;
        assert!(page.text().contains("revoked"), "{custody}: {}", page.text());
        assert!(!kept.world.app.saw_token(dead.split_once('=').unwrap().1));
        let dave = kept.world.signed_in("dave").await;
        kept.world.gateway.table().safe().await.unwrap();
        // A restart in between, and the old one alone, which does not know what came since.
        kept.restart(&[&ann, &dave]).await;
        assert_eq!(who(&ann).await.as_deref(), Some("ann"));
        let memory = config_text(&kept.world.app.url(), "", "", "");
        kept.world.restart(&memory, &[]).await;
        assert!(fault_of(&with_a, &kept).contains("written under another secret"));
        // The old one is left out: whoever was seen since goes on, the others sign in anew.
        kept.text = with_a.replace(A, B);
        kept.restart(&[&ann, &bob, &carl, &dave]).await;
        assert_eq!(who(&ann).await.as_deref(), Some("ann"), "{custody}");
        assert_eq!(who(&dave).await.as_deref(), Some("dave"), "{custody}");
        kept.world.app.forget_requests();
        assert_eq!(bob.fetch_with_cookie("/me", &dead).await.json()["user"], serde_json::Value::Null);
        assert!(!kept.world.app.saw_token(dead.split_once('=').unwrap().1));
        assert_eq!(who(&carl).await, None, "{custody}");
        sign_in(&carl, "carl").await;
        kept.world.restart(&memory, &[]).await;
        assert!(fault_of(&with_a, &kept).contains("written under another secret"), "{custody}: no way back");
    }
}

#[tokio::test]
async fn the_secret_of_the_directory_may_be_laid_aside() {
    let mut kept = Durable::new().await;
    let (ann, bob) = (kept.world.signed_in("ann").await, kept.world.signed_in("bob").await);
    kept.world.revoke("bob").await;
    let memory = config_text(&kept.world.app.url(), "", "", "");
    kept.world.restart(&memory, &[]).await;
    let data = kept.place.path().join("data");
    let old = std::fs::read(data.join("secret")).unwrap();
    std::fs::rename(data.join("secret"), data.join("secret.previous")).unwrap();
    kept.restart(&[&ann, &bob]).await;
    assert_ne!(std::fs::read(data.join("secret")).unwrap(), old, "a new one was made");
    assert_eq!((who(&ann).await.as_deref(), who(&bob).await), (Some("ann"), None));
    kept.world.restart(&memory, &[]).await;
    std::fs::remove_file(data.join("secret.previous")).unwrap();
    kept.restart(&[&ann]).await;
    assert_eq!(who(&ann).await.as_deref(), Some("ann"));
}

/// What the old secret keys would be unknown, and so be adopted, the ended ones too.
#[tokio::test]
async fn while_cookies_are_adopted_no_secret_is_left_out() {
    let lines = "unseen = \"adopt\"\nadopt_until = \"2026-01-31T00:00:00Z\"";
    let mut kept = Durable::with(|_| (), lines, A).await;
    kept.world.signed_in("ann").await;
    let with_a = kept.text.clone();
    kept.text = with_a.replace(A, &format!("{B}\n{A_BEFORE}"));
    kept.restart(&[]).await;
    let memory = config_text(&kept.world.app.url(), "", "", "");
    kept.world.restart(&memory, &[]).await;
    let fault = fault_of(&with_a.replace(A, B), &kept);
    assert!(fault.contains("previous_secrets until adopt_until"), "{fault}");
    kept.restart(&[]).await;
}

/// A request that is under way while its session gets the new key goes on, as does a WebSocket.
#[tokio::test]
async fn what_is_under_way_while_a_token_gets_its_new_key_goes_on() {
    let mut kept = Durable::with(|_| (), "", A).await;
    let ann = kept.world.signed_in("ann").await;
    kept.text = kept.text.replace(A, &format!("{B}\n{A_BEFORE}"));
    kept.restart(&[&ann]).await;
    let slow = async { ann.fetch("/slow").await };
    let rest = async {
        eventually(PATIENCE, async || kept.world.app.waiting() == 1).await;
        let mut socket = ann.websocket("/ws").await.expect("opens");
        for _ in 0..3 {
            assert_eq!(who(&ann).await.as_deref(), Some("ann"));
        }
        kept.world.app.release(1);
        assert!(socket.say("hello").await);
        assert!(matches!(socket.hear().await, Heard::Text(_)));
    };
    let (page, ()) = tokio::join!(slow, rest);
    assert_eq!(page.status, 200, "{}", page.text());
}

impl Both {
    /// A gateway with other lines in the place of [`A`].
    fn another(&self, lines: &str) -> Result<Gateway, String> {
        let config = check_text("test.toml", &self.text.replace(A, lines), Path::new(".")).unwrap();
        Gateway::start(config, self.world.clock.clone()).map_err(|fault| fault.to_string())
    }
}

#[tokio::test]
async fn gateways_take_a_new_secret_one_after_another() {
    for custody in ["track", "vault"] {
        let mut both = Both::with(|_| (), &format!("custody = \"{custody}\""), A).await;
        let (ann, bob) = (both.world.signed_in("ann").await, both.world.signed_in("bob").await);
        let ready = format!("{A}\n{B_NEXT}");
        let after = format!("{B}\n{A_BEFORE}");
        if custody == "track" {
            // Who goes ahead alone is refused, for the others would not know what it keys.
            assert!(both.another(&after).is_err_and(|fault| fault.contains("next_secret at all of them")));
        }
        // First: all accept it.
        both.other = both.another(&ready).unwrap();
        both.world.gateway = both.another(&ready).unwrap();
        // Then one after another uses it.
        both.other = both.another(&after).unwrap();
        let mut eve = both.world.browser();
        both.turn(&eve, &both.other).await;
        sign_in(&eve, "eve").await;
        for turn in 0..6 {
            for (browser, user) in [(&ann, "ann"), (&bob, "bob"), (&eve, "eve")] {
                both.turn(browser, [&both.world.gateway, &both.other][turn % 2]).await;
                assert_eq!(who(browser).await.as_deref(), Some(user), "{custody} {turn}");
            }
        }
        // The limit counts over both, and an end at either is one at both.
        both.world.pass(1);
        both.turn(&eve, &both.world.gateway).await;
        let more = both.world.signed_in("eve").await;
        both.world.pass(1);
        let last = both.world.browser();
        both.turn(&last, &both.other).await;
        sign_in(&last, "eve").await;
        eventually(PATIENCE, async || both.world.ends_of("eve") == ["max_concurrent"]).await;
        for gateway in [&both.world.gateway, &both.other] {
            both.turn(&eve, gateway).await;
            assert_eq!(who(&eve).await, None, "{custody}");
            both.turn(&more, gateway).await;
            assert_eq!(who(&more).await.as_deref(), Some("eve"), "{custody}");
        }
        // One that does not know the new one is refused by now.
        assert!(both.another(A).is_err_and(|fault| fault.contains("next_secret")));
        both.world.gateway = both.another(&after).unwrap();
        let dead = cookie_of(&bob);
        // It reads what the others stored, beside serving.
        eventually(PATIENCE, async || both.world.live_of("bob").len() == 1).await;
        both.world.revoke("bob").await;
        for browser in [&ann, &more] {
            both.turn(browser, &both.world.gateway).await;
            assert!(who(browser).await.is_some());
        }
        both.world.gateway.table().safe().await.unwrap();
        // At last the old one is left out.
        both.other = both.another(B).unwrap();
        both.world.gateway = both.another(B).unwrap();
        for (browser, user) in [(&ann, "ann"), (&more, "eve"), (&last, "eve")] {
            both.turn(browser, &both.other).await;
            assert_eq!(who(browser).await.as_deref(), Some(user), "{custody}");
        }
        eve = both.world.browser();
        both.world.app.forget_requests();
        eve.fetch_with_cookie("/me", &dead).await;
        assert!(!both.world.app.saw_token(dead.split_once('=').unwrap().1), "{custody}");
    }
}
