//! Several gateways before one app, with their sessions in one Redis.

use std::path::Path;
use std::time::Duration;

use tenure::clock::{Clock, Stopwatch};
use tenure::config::check_text;
use tenure::server::Gateway;
use tenure::session::Span;
use tenure::session::chosen::{Choice, Holder};
use tenure::session::layers::{Layer, Limit};
use tenure::store::{Filter, StateFilter};

use crate::redis_support::Server;
use crate::setup::{BY_HEADER, POLICY, World, config_text, post_login, sign_in, who};
use crate::support::app::{Profile, Switches};
use crate::support::browser::{Browser, Heard};
use crate::support::wait::{PATIENCE, eventually, soon};

/// Two gateways; `world` holds the first of them.
pub(crate) struct Both {
    pub world: World,
    pub other: Gateway,
    pub server: Server,
    /// The configuration of both.
    pub text: String,
}

impl Both {
    pub(crate) async fn with(habits: impl FnOnce(&mut Switches), app_lines: &str, store_lines: &str) -> Self {
        let server = Server::start();
        let mut text = String::new();
        let world = World::from_text(
            |s| {
                s.identity_headers = true;
                habits(s);
            },
            |upstream| {
                let kept = format!("redis = \"{}\"\n{store_lines}", server.url());
                text =
                    config_text(upstream, app_lines, BY_HEADER, POLICY).replacen("path = \"off\"", &kept, 1);
                text.clone()
            },
        )
        .await;
        let config = check_text("test.toml", &text, Path::new(".")).unwrap();
        let other = Gateway::start(config, world.clock.clone()).expect("the second gateway starts");
        Self { world, other, server, text }
    }

    async fn new() -> Self {
        Self::with(|_| (), "", "").await
    }

    /// From now on the browser meets the other gateway, as a balancer may decide with every request.
    pub(crate) async fn turn(&self, browser: &Browser, gateway: &Gateway) {
        browser.resolve("app.localhost", gateway.http.unwrap());
        browser.hang_up().await;
    }

    fn live_at(gateway: &Gateway, clock: &Clock) -> usize {
        let filter = Filter { state: Some(StateFilter::Active), ..Filter::default() };
        let listed = gateway.table().list(&filter, None, 1000, clock.now()).items;
        listed.iter().filter(|view| view.identity.is_some()).count()
    }
}

#[tokio::test]
async fn a_browser_may_meet_another_gateway_with_every_request() {
    for custody in ["track", "vault"] {
        for profile in [Profile::Opaque, Profile::RotateEach, Profile::RotateLogin, Profile::Route] {
            let lines = format!("custody = \"{custody}\"");
            let both = Both::with(|s| s.profile = profile, &lines, "").await;
            let browser = both.world.browser();
            both.turn(&browser, &both.other).await;
            sign_in(&browser, "ann").await;
            for turn in 0..6 {
                both.turn(&browser, [&both.world.gateway, &both.other][turn % 2]).await;
                assert_eq!(who(&browser).await.as_deref(), Some("ann"), "{custody} {profile:?} {turn}");
            }
        }
    }
}

#[tokio::test]
async fn the_limit_holds_over_all_gateways() {
    let both = Both::new().await;
    let mut browsers = Vec::new();
    for turn in 0..5 {
        let browser = both.world.browser();
        both.turn(&browser, [&both.world.gateway, &both.other][turn % 2]).await;
        sign_in(&browser, "ann").await;
        both.world.pass(1);
        browsers.push(browser);
    }
    let mut known = Vec::new();
    for (turn, browser) in browsers.iter().enumerate() {
        both.turn(browser, [&both.other, &both.world.gateway][turn % 2]).await;
        known.push(who(browser).await.is_some());
    }
    assert_eq!(known, [false, false, false, true, true]);
}

#[tokio::test]
async fn a_revocation_cuts_what_another_gateway_holds() {
    let both = Both::new().await;
    let browser = both.world.signed_in("ann").await;
    let mut socket = browser.websocket("/ws").await.expect("opens");
    assert!(socket.say("hello").await);
    assert!(matches!(socket.hear().await, Heard::Text(_)));
    eventually(PATIENCE, async || Both::live_at(&both.other, &both.world.clock) == 1).await;
    let filter = Filter { user: Some(vec!["ann".into()]), ..Filter::default() };
    let ended = both.other.table().revoke(&filter, &[], false, &"test".into(), both.world.clock.now());
    assert_eq!(ended.ended.len(), 1);
    let end = soon("the close", socket.hear_end()).await;
    assert_eq!(end, Heard::Closed { code: 4401, reason: "revoked".into() });
    assert_eq!(who(&browser).await, None);
}

#[tokio::test]
async fn while_the_store_is_away_nobody_who_is_known_meets_an_error() {
    let both = Both::new().await;
    let ann = both.world.signed_in("ann").await;
    let bob = both.world.browser();
    both.turn(&bob, &both.other).await;
    sign_in(&bob, "bob").await;
    both.server.pause();
    let began = Stopwatch::start();
    while began.elapsed_us() < 3_000_000 {
        for browser in [&ann, &bob] {
            let page = browser.fetch("/me").await;
            assert_eq!(page.status, 200, "{}", page.text());
        }
    }
    let eve = both.world.signed_in("eve").await;
    both.server.resume();
    eventually(PATIENCE, async || Both::live_at(&both.other, &both.world.clock) == 3).await;
    both.turn(&eve, &both.other).await;
    assert_eq!(who(&eve).await.as_deref(), Some("eve"), "who signed in meanwhile is known everywhere");
}

#[tokio::test]
async fn a_token_of_which_nobody_can_say_anything_costs_no_cookie() {
    let both = Both::new().await;
    let ann = both.world.signed_in("ann").await;
    both.server.pause();
    // A gateway that begins anew knows nobody, and cannot ask: here one that never heard of her.
    let nobody = both.world.browser();
    let value = ann.cookie("SID").expect("she has one");
    both.turn(&nobody, &both.other).await;
    let page = nobody.fetch_with_cookie("/me", &format!("SID={value}x")).await;
    assert_eq!((page.status, page.headers.get("set-cookie")), (503, None), "{}", page.text());
    both.server.resume();
}

#[tokio::test]
async fn refuse_answers_no_sign_in_that_others_could_not_see() {
    let both = Both::with(|_| (), "", "on_outage = \"refuse\"").await;
    both.server.pause();
    let browser = both.world.browser();
    let page = post_login(&browser, "ann").await;
    assert_eq!(page.status, 503, "{}", page.text());
    both.server.resume();
}

#[tokio::test]
async fn a_policy_that_is_set_at_one_gateway_holds_at_all() {
    let both = Both::new().await;
    let ann = both.world.signed_in("ann").await;
    both.world.pass(1800);
    assert!(who(&ann).await.is_some());
    both.world.pass(900);
    let layer = Layer { idle_timeout: Some(Limit::At(Span::from_secs(600))), ..Layer::default() };
    let holder = Holder::Tenant("default".into());
    both.other.handle().choose(&holder, Some(Choice { layer, bounded: false })).unwrap();
    eventually(PATIENCE, async || both.world.ends_of("ann") == ["idle_timeout"]).await;
}

#[tokio::test]
async fn idle_users_stay_if_they_are_active_elsewhere() {
    let both = Both::new().await;
    let ann = both.world.signed_in("ann").await;
    both.turn(&ann, &both.other).await;
    for _ in 0..4 {
        both.world.pass(3000);
        assert_eq!(who(&ann).await.as_deref(), Some("ann"));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    both.turn(&ann, &both.world.gateway).await;
    assert_eq!(who(&ann).await.as_deref(), Some("ann"));
    both.world.pass(3601);
    assert_eq!(who(&ann).await, None);
}
