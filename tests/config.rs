//! Configurations that must be read, and configurations that must be refused with just the faults that they name.
//!
//! A file of `tests/config/bad` ends with one comment for each fault: `# fault: line N: text`, in the order of the
//! file, where `text` is part of `key: message; hint`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use tenure::config::{AdminListen, App, Config, Custody, Fault, Faults, Origin, StoreKind, check_text, load};
use tenure::session::identity::{JwtKeys, SetsCookie, SourceKind, UserCase};
use tenure::session::layers::{Limit, Subject};
use tenure::session::profile::{CookieKind, Extract, Harden, SameSite};
use tenure::session::{OnLimit, Span};

/// A directory with the files that configurations of the tests name.
struct Base(tempfile::TempDir);

impl Base {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let of = |host: &str| rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
        let (ours, other) = (of("a.example"), of("b.example"));
        write("a.pem", &ours.cert.pem());
        write("a.key", &ours.signing_key.serialize_pem());
        write("b.key", &other.signing_key.serialize_pem());
        write("idp.pem", &ours.signing_key.public_key_pem());
        write("secret.txt", "a secret long enough\n");
        write("short.txt", "short\n");
        Self(dir)
    }

    fn check(&self, path: &Path) -> Result<Config, Faults> {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        check_text(&name, &fs::read_to_string(path).unwrap(), self.0.path())
    }

    fn good(&self, name: &str) -> Config {
        let path =
            cases("good").into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == name)).unwrap();
        self.check(&path).unwrap_or_else(|faults| panic!("{faults}"))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn cases(kind: &str) -> Vec<PathBuf> {
    let folder = root().join("tests/config").join(kind);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths
}

fn expected(text: &str) -> Vec<(usize, String)> {
    let fault = |line: &str| {
        let (number, words) = line.strip_prefix("# fault: line ")?.split_once(": ").unwrap();
        Some((number.parse().unwrap(), words.to_owned()))
    };
    text.lines().filter_map(fault).collect()
}

fn told(fault: &Fault) -> String {
    format!("{}: {}; {}", fault.key, fault.message, fault.hint)
}

#[test]
fn every_bad_file_is_refused_with_just_its_faults() {
    let base = Base::new();
    let paths = cases("bad");
    assert!(paths.len() >= 37, "only {} bad files were found", paths.len());
    let mut wrong = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy();
        let expected = expected(&fs::read_to_string(&path).unwrap());
        assert!(!expected.is_empty(), "{name} expects no fault");
        let Err(faults) = base.check(&path) else {
            wrong.push(format!("{name}: was accepted"));
            continue;
        };
        let faults = faults.as_slice();
        let fits = |((line, words), fault): (&(usize, String), &Fault)| {
            *line == fault.line && told(fault).contains(words.as_str()) && !fault.hint.is_empty()
        };
        if expected.len() != faults.len() || !expected.iter().zip(faults).all(fits) {
            let lines: Vec<_> =
                faults.iter().map(|f| format!("# fault: line {}: {}", f.line, told(f))).collect();
            wrong.push(format!("{name}: found\n{}", lines.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn no_fault_repeats_a_secret() {
    let base = Base::new();
    let mut seen = 0;
    for path in cases("bad") {
        let Err(faults) = base.check(&path) else { continue };
        let shown = format!("{faults}{faults:?}");
        for secret in ["hunter2", "tnr_this-is", ":secret@", "a secret long enough", "PRIVATE KEY-----"] {
            assert!(!shown.contains(secret), "{}: {secret}", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 35);
}

#[test]
fn every_good_file_is_read() {
    let base = Base::new();
    let paths = cases("good");
    assert!(paths.len() >= 5, "only {} good files were found", paths.len());
    for path in paths {
        let config = base.check(&path).unwrap_or_else(|faults| panic!("{faults}"));
        assert!(!config.summary().is_empty());
        let shown = format!("{config:?}{:?}{:?}", config.summary(), config.notes());
        assert!(!shown.contains("a secret long enough"), "{}: the secret is shown", path.display());
    }
}

#[test]
fn the_shipped_file_is_good() {
    let config = load(&root().join("config.toml")).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.apps.len(), 1);
    assert!(!config.notes().iter().any(|note| note.contains("in memory alone")), "{:?}", config.notes());
}

#[test]
fn the_smallest_file_has_the_contract_s_defaults() {
    let config = Base::new().good("smallest");
    let app = &config.apps[0];
    assert_eq!((app.name.as_str(), app.tenant.as_str()), ("app", "default"));
    assert!(app.enforce && app.pass_unidentified && !app.require_user && app.hosts.is_empty());
    assert_eq!(app.max_upstream_connections.get(), 256);
    assert_eq!(config.policy.base.idle_timeout, Some(Span::from_secs(1800)));
    assert_eq!(config.policy.base.force_relogin, Some(Span::from_secs(12 * 3600)));
    assert_eq!(config.policy.base.max_concurrent, NonZeroU32::new(3));
    assert_eq!(config.policy.base.on_limit, OnLimit::EndOldest);
    assert_eq!((config.admin.listen, config.admin.tokens.len()), (None, 0));
    assert_eq!(config.limits.header_bytes, 65_536);
    assert_eq!((config.limits.body_bytes, config.limits.jar_bytes), (None, 65_536));
    assert_eq!((app.custody, &app.app_logout, app.harden), (Custody::Track, &None, Harden::default()));
    assert!(app.preset.is_none() && app.filled.is_empty() && app.pass_cookies.is_empty());
    assert!(!app.app_commands && !app.clear_on_end && !app.i_accept_replay);
    assert_eq!(config.limits.rotation_grace, Span::from_secs(10));
    assert_eq!(config.drain.timeout, Span::from_secs(30));
    assert!(matches!(config.store.kind, StoreKind::Path(path) if path.ends_with("data")));
}

#[test]
fn the_contract_s_example_means_what_it_says() {
    let base = Base::new();
    let config = base.good("contract");
    let app = &config.apps[0];
    assert_eq!(app.login.as_deref(), Some("/login"));
    assert!(app.sign_in[0].matches("POST", "/login") && !app.sign_in[0].matches("GET", "/login"));
    assert!(app.public[0].matches("/static/a/b.css"));
    assert_eq!((app.cookies.len(), app.inactive.len()), (2, 2));
    let grants: Vec<_> = app.identity.iter().map(|s| (s.kind.as_str(), s.grants_roles)).collect();
    let expected = [
        ("response-header", true),
        ("login-form", true),
        ("userinfo", true),
        ("jwt-cookie", true),
        ("cookie", false),
        ("request-header", true),
    ];
    assert_eq!(grants, expected);
    assert_eq!(config.listen.certificates[0].cert, base.0.path().join("a.pem"), "relative to the file");
    let roles = ["admin".to_owned()];
    let ann = Subject { app: "crm", tenant: Some("acme"), user: Some("ann@acme.example"), roles: &roles };
    let policy = config.policy.effective(&ann);
    assert_eq!(policy.idle_timeout, Some(Span::from_secs(300)));
    assert_eq!(policy.max_concurrent, NonZeroU32::new(1));
    let bob = Subject { app: "wiki", tenant: Some("acme"), user: Some("bob"), roles: &[] };
    assert_eq!(config.policy.effective(&bob).idle_timeout, Some(Span::from_secs(900)));
    assert_eq!(config.policy.bounds.max_concurrent.max, NonZeroU32::new(10));
    let role = &config.roles["support"];
    assert_eq!(role.users, [("acme".to_owned(), "alice@acme.example".to_owned())]);
    assert!(role.learned && role.permissions.len() == 2);
    let token = &config.admin.tokens[0];
    assert_eq!((token.name.as_str(), token.hash[0], &token.tenant), ("ops", 0x9f, &None));
}

#[test]
fn several_apps_are_told_apart() {
    let config = Base::new().good("many-apps");
    let names: Vec<_> = config.apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["crm", "app2", "app3"]);
    let [crm, form, rest] = &config.apps[..] else { panic!("three apps") };
    assert_eq!(crm.hosts[0], "crm.example.com");
    let upstreams: Vec<_> = crm.upstream.iter().map(|up| (up.tls, up.host.as_str(), up.port)).collect();
    assert_eq!(upstreams, [(false, "127.0.0.1", 3000), (true, "::1", 443), (true, "app.internal", 8443)]);
    assert_eq!(config.listen.trusted_proxies[0].to_string(), "10.0.0.0/8");
    assert_eq!(config.policy.apps["crm"].on_limit, Some(OnLimit::Ask));
    assert!(!crm.pass_unidentified && crm.require_user && crm.user_case == UserCase::Exact);
    let SourceKind::JwtHeader { jwt, .. } = &crm.identity[1].kind else { panic!("{:?}", crm.identity[1]) };
    assert!(matches!(&jwt.keys, JwtKeys::Pem(pem) if pem.contains("PUBLIC KEY")));
    assert_eq!(jwt.names.roles.as_ref().unwrap().as_str(), "/https:~1~1example.com~1roles");
    let SourceKind::LoginForm(login) = &form.identity[0].kind else { panic!("{:?}", form.identity[0]) };
    assert_eq!((&login.success.status[..], &login.success.sets_cookie), (&[302][..], &SetsCookie::NotNeeded));
    assert!(form.sign_in[0].matches("POST", "/check.php"), "the form's path, not the login page");
    assert!(rest.sign_in.is_empty());
    let key = ("Other".to_owned(), "Ann".to_owned());
    assert_eq!(config.policy.users[&key].max_concurrent, NonZeroU32::new(1).map(Limit::At));
    assert!(matches!(config.admin.listen, Some(AdminListen::Unix(path)) if path.ends_with("tenure.sock")));
    assert_eq!(config.store.kind, StoreKind::Memory);
    let secret = config.store.secret.unwrap();
    assert!(secret.expose().starts_with(env!("CARGO_MANIFEST_DIR").as_bytes()));
    assert_eq!(config.limits.body_bytes, Some(10 << 20));
    assert_eq!(config.limits.rotation_grace, Span::ZERO);
}

fn app<'a>(config: &'a Config, name: &str) -> &'a App {
    config.apps.iter().find(|app| app.name == name).unwrap()
}

/// Names of the session cookies, and of the companions, with a space between them.
fn cookies(app: &App, kind: CookieKind) -> String {
    let rules = app.cookies.iter().filter(|rule| rule.kind == kind);
    rules.map(|rule| rule.name.stem()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_preset_says_what_the_file_does_not() {
    let config = Base::new().good("presets");
    let expected = [
        ("tomcat", "JSESSIONID", "JSESSIONIDSSO remember-me", "track", Some("/login.jsp"), ""),
        ("spring", "APPSESSION", "remember-me", "track", Some("/login"), ""),
        ("php", "PHPSESSID", "", "track", None, ""),
        (
            "laravel",
            "laravel_session laravel-session",
            "remember_web_",
            "vault",
            Some("/login"),
            "XSRF-TOKEN",
        ),
        ("rails", "_crm_session", "", "vault", None, ""),
        ("django", "sessionid", "", "track", None, ""),
        ("flask", "session", "remember_token", "track", None, ""),
        ("express", "connect.sid", "", "vault", None, "ui_ theme"),
        ("aspnet", "ASP.NET_SessionId .ASPXAUTH .AspNet.ApplicationCookie", "", "track", None, ""),
        ("aspnetcore", "MyAuth", "", "vault", Some("/signin"), ""),
        ("coldfusion", "CFTOKEN JSESSIONID", "stay", "track", Some("/login.cfm"), ""),
    ];
    let found: Vec<_> = config
        .apps
        .iter()
        .map(|app| {
            let passed: Vec<_> = app.pass_cookies.iter().map(|name| name.stem()).collect();
            let kinds = [CookieKind::Session, CookieKind::Companion].map(|kind| cookies(app, kind));
            (app.name.clone(), kinds, app.custody.as_str(), app.login.clone(), passed.join(" "))
        })
        .collect();
    let expected = expected.map(|(name, session, companions, custody, login, passed)| {
        let kinds = [session.to_owned(), companions.to_owned()];
        (name.to_owned(), kinds, custody, login.map(str::to_owned), passed.to_owned())
    });
    assert_eq!(found, expected);
    assert_eq!(app(&config, "spring").cookies[0].extract, Extract::WithoutRoute);
    assert_eq!(app(&config, "spring").cookies[1].extract, Extract::Whole, "a companion has no route");
    assert_eq!(app(&config, "aspnetcore").cookies[0].extract, Extract::Chunked);
    let logout = |name: &str, method: &str, path: &str| {
        app(&config, name).logout.as_ref().unwrap().matches(method, path)
    };
    assert!(logout("spring", "POST", "/logout") && !logout("spring", "GET", "/logout"));
    assert!(logout("aspnetcore", "POST", "/signout") && logout("django", "GET", "/accounts/logout/"));
    assert!(app(&config, "spring").sign_in[0].matches("POST", "/login"), "by the preset's login");
    let sign_in = &app(&config, "aspnetcore").sign_in;
    assert!(sign_in[0].matches("POST", "/signin") && sign_in[1].matches("POST", "/signin-oidc"));
    assert_eq!(app(&config, "flask").sign_in.len(), 1, "what the file says holds");
    assert!(app(&config, "flask").i_accept_replay);
}

#[test]
fn what_an_end_does_to_the_app_is_read() {
    let config = Base::new().good("presets");
    let php = app(&config, "php");
    let harden = Harden { secure: true, http_only: true, same_site: Some(SameSite::Strict) };
    assert_eq!(php.harden, harden);
    let logout = php.app_logout.as_ref().unwrap();
    assert_eq!((logout.method.as_str(), logout.path.as_str()), ("POST", "/logout.php?really=1"));
    assert!(php.clear_on_end && php.app_commands);
    assert_eq!(config.limits.jar_bytes, 4096);
}

#[test]
fn check_says_what_a_preset_expanded_to_and_what_it_advises() {
    let config = Base::new().good("presets");
    let (summary, notes) = (config.summary(), config.notes());
    let has = |lines: &[String], text: &str| lines.iter().any(|line| line.contains(text));
    for line in [
        "preset  tomcat for tomcat: cookie JSESSIONID (preset); companions JSESSIONIDSSO, remember-me (preset); \
         custody track (default); login /login.jsp (file)",
        "preset  laravel for laravel: cookie laravel_session, laravel-session (preset); companions remember_web_* (preset); \
         custody vault (preset); login /login (preset); logout POST /logout (preset); pass_cookies XSRF-TOKEN (preset)",
        "preset  aspnetcore for aspnetcore: cookie MyAuth (file); custody vault (preset); login /signin (file); \
         sign_in /signin-oidc (preset); logout POST /signout (file); pass_cookies none (file)",
        "cookie laravel_session, laravel-session, companions remember_web_*, custody vault",
    ] {
        assert!(has(&summary, line), "{line}\n{summary:#?}");
    }
    for note in [
        "app \"php\": php hands out the same id again after an end",
        "app \"aspnet\": aspnet hands out",
        "app \"coldfusion\": coldfusion hands out",
        "app \"rails\": companions of the preset left out, remember_user_token: neither login nor sign_in is known",
        "app \"django\": login of the preset left out, /accounts/login/: the file says that people sign in elsewhere",
        "app \"laravel\": without [listen] https or trusted_proxies the cookie tenure-laravel goes without Secure",
        "app \"flask\": copies of its cookie outlive an end",
    ] {
        assert!(has(&notes, note), "{note}\n{notes:#?}");
    }
    assert!(
        !has(&notes, "tomcat hands out") && !has(&notes, "tenure-php") && !has(&notes, "csrftoken"),
        "{notes:#?}"
    );
    let filled = &app(&config, "rails").filled;
    let left_out = filled.iter().filter(|filled| matches!(filled.origin, Origin::LeftOut(_)));
    assert_eq!(left_out.map(|filled| filled.key).collect::<Vec<_>>(), ["companions"]);
}

#[test]
fn a_secure_way_in_keeps_check_quiet_about_the_vault_s_cookie() {
    let file = |listen: &str| {
        format!(
            "[listen]\nhttp = \"127.0.0.1:0\"\n{listen}\n[[app]]\nupstream = \"http://a\"\ncookie = \"sid\"\ncustody = \"vault\"\n"
        )
    };
    let warned = |listen: &str| {
        let config = check_text("config.toml", &file(listen), Path::new(""))
            .unwrap_or_else(|faults| panic!("{faults}"));
        config.notes().iter().any(|note| note.contains("without Secure"))
    };
    assert!(warned(""));
    assert!(!warned("trusted_proxies = [\"10.0.0.0/8\"]"));
}

#[test]
fn names_of_the_policy_are_folded_as_those_of_sessions() {
    let config = Base::new().good("one-tenant");
    let key = ("acme".to_owned(), "ann@acme.example".to_owned());
    assert_eq!(config.apps[0].tenant, "acme");
    assert!(config.policy.users.contains_key(&key), "{:?}", config.policy.users);
    let users: Vec<_> = config.roles["support"].users.iter().map(|(t, u)| (t.as_str(), u.as_str())).collect();
    assert_eq!(users, [("acme", "bob"), ("acme", "carol")]);
    assert_eq!(config.store.secret.unwrap().expose(), b"a secret long enough");
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault() {
    let base = Base::new();
    let faults = load(&base.0.path().join("none.toml")).unwrap_err();
    assert!(faults.to_string().contains("none.toml: cannot be read"), "{faults}");
    let binary = base.0.path().join("binary.toml");
    fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(load(&binary).unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn a_fault_is_shown_with_its_line_and_hint() {
    let text = "[listen]\nhttp = \"127.0.0.1:0\"\n[[app]]\nupstream = \"http://a\"\ncookie = \"a b\"\n";
    let faults = check_text("config.toml", text, Path::new("")).unwrap_err();
    let hint = "letters, digits, \"-\", \"_\" and \".\"; a \"*\" only at the end of a prefix";
    let expected =
        format!("config.toml:5: app[0].cookie: \"a b\" is not a cookie name\n  hint: {hint}\n1 fault");
    assert_eq!(faults.to_string(), expected);
}

#[test]
fn the_demonstration_runs_with_a_good_configuration() {
    let at = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let addresses = tenure::demo::guide::Addresses { gateway: at(1), admin: at(2), app: at(3) };
    let hash = format!("sha256:{}", "0".repeat(64));
    let text = tenure::demo::guide::configuration(&addresses, &hash);
    check_text("demo.toml", &text, Path::new("")).unwrap_or_else(|faults| panic!("{faults}"));
}

#[test]
fn no_damage_to_a_file_panics_or_goes_unnoticed_without_a_hint() {
    let text = fs::read_to_string(root().join("config.toml")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let cut = (0..text.len()).step_by(7).map(|at| text[..at].to_owned());
    let without = (0..lines.len()).map(|gone| [&lines[..gone], &lines[gone + 1..]].concat().join("\n"));
    let mut refused = 0;
    for damaged in cut.chain(without) {
        if let Err(faults) = check_text("config.toml", &damaged, Path::new("")) {
            let faults = faults.as_slice();
            let last = damaged.lines().count().max(1) + 1;
            assert!(
                !faults.is_empty()
                    && faults.iter().all(|f| (1..=last).contains(&f.line) && !f.hint.is_empty())
            );
            refused += 1;
        }
    }
    assert!(refused > 100, "only {refused} damaged files were refused");
}
