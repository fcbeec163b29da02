//! Who signed in, from every source; and what no source may be tricked into.

use crate::setup::{BY_FORM, BY_HEADER, POLICY, World, post_login, sign_in, who};
use crate::support::app::{MFA_CODE, PASSWORD, Profile, Switches, WrongPassword};
use crate::support::browser::{Ask, Mode};

#[tokio::test]
async fn the_response_header_names_the_user_and_never_reaches_the_browser() {
    let world = World::new().await;
    let browser = world.browser();
    let page = post_login(&browser, "ann@acme.example").await;
    for hop in page.chain.iter().map(|hop| &hop.headers).chain([&page.headers]) {
        assert!(hop.keys().all(|name| !name.as_str().starts_with("x-session")), "{hop:?}");
    }
    let identity = world.only_session_of("ann@acme.example").identity.unwrap();
    assert_eq!((identity.tenant.as_str(), identity.source), ("acme", 0));
}

#[tokio::test]
async fn the_form_names_the_user_only_when_the_sign_in_succeeded() {
    for wrong in [WrongPassword::Ok200, WrongPassword::Unauthorized401, WrongPassword::Redirect302] {
        let world = World::with(|s| s.wrong_password = wrong, "", BY_FORM, POLICY).await;
        let browser = world.browser();
        browser.post_form("/login", &[("username", "ann"), ("password", "wrong")]).await;
        assert!(world.live_of("ann").is_empty(), "{wrong:?}");
        sign_in(&browser, "ann").await;
        assert_eq!(world.live_of("ann").len(), 1);
    }
}

#[tokio::test]
async fn forms_are_read_in_every_encoding_and_forwarded_whole() {
    let world = World::with(|_| {}, "", BY_FORM, POLICY).await;
    let browser = world.browser();
    browser.post_multipart("/login", &[("username", "mia"), ("password", PASSWORD)]).await;
    assert_eq!(world.live_of("mia").len(), 1, "multipart");
    let browser = world.browser();
    let body = serde_json::json!({ "username": "joe", "password": PASSWORD });
    browser.post_json("/login", &body).await;
    assert_eq!(world.live_of("joe").len(), 1, "JSON");
    let seen = world.app.requests_to("/login").pop().unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&seen.body).unwrap(), body, "forwarded whole");
}

#[tokio::test]
async fn an_ambiguous_sign_in_is_refused_before_the_app_sees_it() {
    let world = World::with(|_| {}, "", BY_FORM, POLICY).await;
    let form = "application/x-www-form-urlencoded";
    let long = format!("username={}&password=x", "x".repeat(300));
    let huge = format!("username=ann&password={}", "x".repeat(100_000));
    let cases = [
        ("/login", form, "username=ann&username=bob", 400),
        ("/login?username=bob", form, "username=ann", 400),
        ("/login", "application/json", r#"{"username":"ann","username":"bob"}"#, 400),
        ("/login", "application/x-www-form-urlencoded; charset=utf-16", "username=ann", 415),
        ("/login", form, long.as_str(), 400),
        ("/login", form, huge.as_str(), 413),
    ];
    for (target, kind, body, status) in cases {
        let browser = world.browser();
        let ask = Ask::post(Mode::Navigate, target, kind, body.to_owned());
        assert_eq!(browser.send(ask).await.unwrap().status, status, "{target} {kind}");
    }
    let browser = world.browser();
    let ask = Ask::post(Mode::Navigate, "/login", form, "username=ann").with("content-encoding", "gzip");
    assert_eq!(browser.send(ask).await.unwrap().status, 415);
    assert!(world.app.requests_to("/login").is_empty(), "the app saw none of them");
}

#[tokio::test]
async fn the_second_step_is_where_the_sign_in_succeeds() {
    let identity = "[[app.identity]]\nfrom = \"response-header\"\nuser = \"X-Session-User\"\n";
    let line = "sign_in = [\"POST /login\", \"POST /mfa\"]";
    let world = World::with(
        |s| {
            s.mfa = true;
            s.identity_headers = true;
            s.profile = Profile::RotateLogin;
        },
        line,
        identity,
        POLICY,
    )
    .await;
    let browser = world.browser();
    post_login(&browser, "ann").await;
    assert!(world.live_of("ann").is_empty(), "half way");
    browser.post_form("/mfa", &[("code", MFA_CODE)]).await;
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    assert_eq!(world.live_of("ann").len(), 1);
}

#[tokio::test]
async fn the_app_is_asked_who_a_cookie_is_once_for_each_sign_in() {
    let identity = "[[app.identity]]\nfrom = \"userinfo\"\npath = \"/api/whoami\"\nuser = \"/user/email\"\ntenant = \"/tenant\"\nroles = \"/roles\"\n";
    let world = World::with(|_| {}, "", identity, POLICY).await;
    let browser = world.browser();
    sign_in(&browser, "ann@acme.example").await;
    let session = world.only_session_of("ann@acme.example");
    assert_eq!(session.identity.unwrap().tenant, "acme");
    for _ in 0..5 {
        who(&browser).await;
    }
    assert_eq!(world.app.requests_to("/api/whoami").len(), 1);
    assert_eq!(
        session.requests,
        world.only_session_of("ann@acme.example").requests - 5,
        "asking is no request of the user's"
    );
}

#[tokio::test]
async fn a_second_cookie_names_the_user_as_the_app_sets_it_and_not_as_a_request_brings_it() {
    let identity = "[[app.identity]]\nfrom = \"cookie\"\nuser = \"username\"\n";
    let world = World::with(
        |s| s.extra_headers = vec![("Set-Cookie".into(), "username=ann%40x; Path=/".into())],
        "",
        identity,
        POLICY,
    )
    .await;
    let browser = world.browser();
    post_login(&browser, "whoever").await;
    assert_eq!(world.live_of("ann@x").len(), 1);
    let world = World::with(|_| {}, "", identity, POLICY).await;
    let browser = world.browser();
    browser.jar(|_| ());
    let ask =
        Ask::form("/login", &[("username", "bob"), ("password", PASSWORD)]).with("cookie", "username=admin");
    browser.send(ask).await.unwrap();
    assert!(world.live_of("admin").is_empty());
}

#[tokio::test]
async fn identity_headers_of_a_request_count_from_a_trusted_proxy_only() {
    let identity = "[[app.identity]]\nfrom = \"request-header\"\nuser = \"X-Forwarded-User\"\n";
    for (trusted, known) in [("", false), ("trusted_proxies = [\"127.0.0.0/8\"]", true)] {
        let text = |upstream: &str| {
            let usual = crate::setup::config_text(upstream, "", identity, POLICY);
            usual.replace("workers = 2\n", &format!("workers = 2\n{trusted}\n"))
        };
        let world = World::from_text(|_| {}, text).await;
        let browser = world.browser();
        let ask = Ask::form("/login", &[("username", "ann"), ("password", PASSWORD)])
            .with("x-forwarded-user", "ann")
            .with("x_forwarded_user", "mallory")
            .no_follow();
        browser.send(ask).await.unwrap();
        assert_eq!(world.live_of("ann").len(), usize::from(known), "{trusted}");
        let seen = world.app.requests_to("/login").pop().unwrap();
        assert_eq!(seen.all("x-forwarded-user").len(), usize::from(known), "stripped unless trusted");
        assert!(known || seen.all("x_forwarded_user").is_empty());
    }
}

#[tokio::test]
async fn roles_count_only_where_the_operator_allows_it() {
    let rest = "[policy]\n[roles.admin]\nlearned = true\npermissions = [\"sessions.read\"]\n[roles.user]\n";
    let world = World::with(|s| s.identity_headers = true, "", BY_HEADER, rest).await;
    world.signed_in("admin-ann").await;
    world.signed_in("bob").await;
    assert_eq!(world.only_session_of("admin-ann").roles, ["admin"]);
    assert!(world.only_session_of("bob").roles.is_empty(), "this role may not be learned");
    let form = World::with(|s| s.identity_headers = true, "", BY_FORM, rest).await;
    form.signed_in("admin-ann").await;
    assert!(form.only_session_of("admin-ann").roles.is_empty(), "a form gives no role (R9)");
}

#[tokio::test]
async fn other_roles_hold_from_the_answer_that_names_them() {
    let rest =
        "[policy]\n[[policy.role]]\nname = \"admin\"\nmax_concurrent = 1\n[roles.admin]\nlearned = true\n";
    let world = World::with(|s| s.identity_headers = true, "", BY_HEADER, rest).await;
    let first = world.signed_in("bob").await;
    world.pass(1);
    let second = world.signed_in("bob").await;
    world.app.set(|s| s.all_admins = true);
    assert_eq!(who(&second).await.as_deref(), Some("bob"));
    assert_eq!(world.only_session_of("bob").roles, ["admin"], "and the limit of that role holds too");
    assert_eq!((who(&first).await, who(&second).await.as_deref()), (None, Some("bob")));
}

#[tokio::test]
async fn the_first_source_that_names_somebody_wins() {
    let both = format!("{BY_HEADER}{BY_FORM}");
    let world = World::with(|s| s.identity_headers = true, "", &both, POLICY).await;
    world.signed_in("ann").await;
    assert_eq!(world.only_session_of("ann").identity.unwrap().source, 0);
    let world = World::with(|_| {}, "", &both, POLICY).await;
    world.signed_in("ann").await;
    assert_eq!(world.only_session_of("ann").identity.unwrap().source, 1);
}

#[tokio::test]
async fn require_user_withholds_a_sign_in_whose_user_stays_unknown() {
    let identity = "[[app.identity]]\nfrom = \"userinfo\"\npath = \"/status?code=500\"\nuser = \"/user\"\n";
    let world = World::with(|_| {}, "require_user = true", identity, POLICY).await;
    let browser = world.browser();
    let page = post_login(&browser, "ann").await;
    assert_eq!(page.status, 503);
    assert_eq!(browser.cookie("SID"), None);
    let world = World::with(|_| {}, "", identity, POLICY).await;
    let browser = world.browser();
    assert_eq!(post_login(&browser, "ann").await.status, 200, "admitted without a user otherwise");
    let text = world.gateway.handle().metrics_text();
    assert!(text.contains("tenure_identity_failures_total{app=\"app\",source=\"userinfo\"} 1"), "{text}");
}

#[tokio::test]
async fn require_user_withholds_a_sign_in_by_the_value_that_the_browser_has_already() {
    let identity = "[[app.identity]]\nfrom = \"userinfo\"\npath = \"/api/whoami\"\nuser = \"/user/email\"\n";
    let habits = |s: &mut Switches| {
        s.anonymous_cookie = true;
        s.whoami_fails = true;
    };
    let world = World::with(habits, "require_user = true", identity, POLICY).await;
    let browser = world.browser();
    browser.navigate("/login").await;
    let before = browser.cookie("SID").unwrap();
    assert_eq!(post_login(&browser, "ann").await.status, 503);
    assert_eq!(world.app.signed_in(), 1, "the app keeps the value it gave to the stranger");
    world.app.forget_requests();
    assert_eq!(who(&browser).await, None);
    assert!(!world.app.saw_token(&before), "it is dead");
    world.app.set(|s| s.whoami_fails = false);
    sign_in(&browser, "ann").await;
    assert_eq!(world.live_of("ann").len(), 1);
}

#[tokio::test]
async fn require_user_withholds_what_the_form_calls_a_sign_in_and_gives_no_name() {
    let form = BY_FORM.replace("user = \"username\"", "user = \"account\"");
    for (lines, status) in [("require_user = true", 503), ("", 200)] {
        let world = World::with(|_| {}, lines, &form, POLICY).await;
        let browser = world.browser();
        assert_eq!(post_login(&browser, "ann").await.status, status, "{lines}");
        assert_eq!(browser.cookie("SID").is_some(), status == 200);
        let text = world.gateway.handle().metrics_text();
        let counted = "tenure_identity_failures_total{app=\"app\",source=\"login-form\"} 1";
        assert!(text.contains(counted), "{text}");
    }
}

#[tokio::test]
async fn require_user_lets_a_wrong_password_pass_with_its_anonymous_cookie() {
    let by_userinfo =
        "[[app.identity]]\nfrom = \"userinfo\"\npath = \"/api/whoami\"\nuser = \"/user/email\"\n";
    for identity in [BY_HEADER, by_userinfo, BY_FORM] {
        let habits = |s: &mut Switches| {
            s.identity_headers = true;
            s.anonymous_cookie = true;
        };
        let world = World::with(habits, "require_user = true", identity, POLICY).await;
        let browser = world.browser();
        let page = browser.post_form("/login", &[("username", "ann"), ("password", "wrong")]).await;
        assert!(page.status == 200 && page.text().contains("<form"), "{identity}");
        let anonymous = browser.cookie("SID").expect("the app gave one");
        sign_in(&browser, "ann").await;
        assert_eq!(browser.cookie("SID"), Some(anonymous), "kept over the sign-in");
        assert_eq!(world.live_of("ann").len(), 1, "{identity}");
    }
}

#[tokio::test]
async fn an_app_that_could_not_say_who_signed_in_is_asked_again() {
    let identity = "[[app.identity]]\nfrom = \"userinfo\"\npath = \"/api/whoami\"\nuser = \"/user/email\"\n";
    let world = World::with(|s| s.whoami_fails = true, "", identity, POLICY).await;
    let browser = world.browser();
    sign_in(&browser, "ann").await;
    assert!(world.live_of("ann").is_empty(), "admitted without a user");
    world.app.set(|s| s.whoami_fails = false);
    who(&browser).await;
    assert!(world.live_of("ann").is_empty(), "not within the minute");
    world.pass(60);
    who(&browser).await;
    assert_eq!(world.live_of("ann").len(), 1);
    let asked = world.app.requests_to("/api/whoami").len();
    world.pass(120);
    who(&browser).await;
    assert_eq!(world.app.requests_to("/api/whoami").len(), asked, "known by now");
}

#[tokio::test]
async fn what_the_app_sets_when_it_is_asked_is_learned_too() {
    let identity = "[[app.identity]]\nfrom = \"userinfo\"\npath = \"/api/whoami\"\nuser = \"/user/email\"\n";
    let world = World::with(|s| s.profile = Profile::RotateEach, "", identity, POLICY).await;
    let browser = world.browser();
    sign_in(&browser, "ann").await;
    for _ in 0..3 {
        assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    }
    assert_eq!(world.live_of("ann").len(), 1);
}

#[tokio::test]
async fn a_form_is_read_as_the_app_will_read_it() {
    let world = World::with(|_| {}, "", BY_FORM, POLICY).await;
    let password = form_urlencoded::byte_serialize(PASSWORD.as_bytes()).collect::<String>();
    let body = format!("{{\"a\":\"&username=bob&password={password}&z=\",\"username\":\"alice\"}}");
    let head = format!(
        "POST /login HTTP/1.1\r\nHost: app.localhost\r\nConnection: close, Content-Type\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    world.browser().raw(head).await;
    assert_eq!(world.app.signed_in(), 1);
    let named = (world.live_of("alice").len(), world.live_of("bob").len());
    assert_eq!(named, (0, 1), "the app never saw that it was JSON");
}

#[tokio::test]
async fn a_sign_in_behind_a_path_parameter_is_a_sign_in() {
    let world = World::with(|s| s.url_ids = true, "", BY_FORM, POLICY).await;
    let browser = world.browser();
    browser.post_form("/login;x=1", &[("username", "ann"), ("password", PASSWORD)]).await;
    assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    assert_eq!(world.live_of("ann").len(), 1);
    // And it is one by its place, whatever the source.
    let habits = |s: &mut Switches| {
        s.url_ids = true;
        s.identity_headers = true;
        s.profile = Profile::RotateLogin;
    };
    let world = World::with(habits, "", BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    browser.post_form("/login;x=1", &[("username", "ann"), ("password", PASSWORD)]).await;
    assert_eq!(world.ends_of("ann"), ["superseded"]);
}

#[tokio::test]
async fn the_value_set_again_names_nobody_else() {
    // Express with `rolling`: every answer sets the cookie again. A wrong password is answered like any page.
    let success = BY_FORM.split("success").next().unwrap();
    let identity = format!("{success}success = {{ status = [200] }}\n");
    let habits = |s: &mut Switches| {
        s.login_status = 200;
        s.rolling = true;
    };
    let world = World::with(habits, "", &identity, POLICY).await;
    let browser = world.browser();
    post_login(&browser, "ann").await;
    assert_eq!(world.live_of("ann").len(), 1);
    browser.post_form("/login", &[("username", "bob"), ("password", "wrong")]).await;
    assert_eq!((world.live_of("ann").len(), world.live_of("bob").len()), (1, 0));
}

#[tokio::test]
async fn a_cookie_of_an_old_path_may_be_deleted_beside_the_new_one() {
    let old = ("Set-Cookie".to_owned(), "SID=; Path=/old; Max-Age=0".to_owned());
    let habits = move |s: &mut Switches| {
        s.identity_headers = true;
        s.extra_headers = vec![old];
    };
    let world = World::with(habits, "", BY_HEADER, POLICY).await;
    let browser = world.signed_in("ann").await;
    for _ in 0..3 {
        assert_eq!(who(&browser).await.as_deref(), Some("ann"));
    }
    assert_eq!(world.live_of("ann").len(), 1);
}
