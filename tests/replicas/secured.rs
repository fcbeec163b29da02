//! A server that lets in only whom it should: TLS by an own authority, a certificate asked of the gateway, a user with no more
//! rights than the documentation says, and a password that changes.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tempfile::TempDir;
use tenure::clock::Clock;
use tenure::config::{self, RedisPassword, Secret};
use tenure::session::gate::Standing;
use tenure::session::{EndReason, Policy};
use tenure::store::{export_shared, import_shared};

use crate::redis_support::Server;
use crate::store_support::{AT, key, secs};
use crate::{Gateway, SECRET, gateways_at, sessions_are_shared, try_gateway, until};

/// Where the certificates of a test are, and the password.
struct Safe {
    place: TempDir,
    server: Server,
}

impl Safe {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority of a test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        write("ca.pem", &authority.pem());
        for (name, purpose) in
            [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
        {
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().unwrap();
            write(&format!("{name}.pem"), &params.signed_by(&key, &authority).unwrap().pem());
            write(&format!("{name}.key"), &key.serialize_pem());
        }
        let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        write("other.pem", &other.cert.pem());
        write("password", "the first password\n");
        let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
        let (ca, cert, key) = (path("ca.pem"), path("server.pem"), path("server.key"));
        let tls = [
            "--requirepass",
            "for the operator",
            "--tls-ca-cert-file",
            &ca,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
        ];
        let (cert, key) = (path("client.pem"), path("client.key"));
        let operator = ["-a", "for the operator", "--no-auth-warning", "--tls"];
        let cli = [&operator[..], &["--cacert", &ca, "--cert", &cert, "--key", &key]].concat();
        let server = Server::with_tls(&tls, &cli);
        let safe = Self { place, server };
        let mut user = vec!["acl", "setuser", "tenure", "reset", "on", ">the first password"];
        let rights = rights();
        user.extend(rights.split_whitespace());
        assert_eq!(safe.server.ask(&user).trim(), "OK");
        safe
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn settings(&self) -> config::Redis {
        config::Redis {
            tls: true,
            ca: Some(self.path("ca.pem")),
            client: Some((self.path("client.pem"), self.path("client.key"))),
            username: Some("tenure".to_owned()),
            password: Some(RedisPassword::File(self.path("password"))),
            ..self.server.settings()
        }
    }
}

/// What the documentation says that the gateway's user needs.
fn rights() -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, rest) = readme.split_once("Its user needs `").expect("the README says what the user needs");
    let sentence = rest.split_once("`.").unwrap().0;
    sentence.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// Why a gateway with these settings does not start.
fn fault_of(settings: &config::Redis) -> String {
    let fault = std::thread::scope(|scope| {
        scope.spawn(|| try_gateway(settings, SECRET).err().map(|fault| fault.to_string())).join().unwrap()
    });
    fault.expect("it does not start")
}

fn two(safe: &Safe) -> [Gateway; 2] {
    let policy = Policy { max_concurrent: std::num::NonZeroU32::new(2), ..Policy::default() };
    gateways_at(&safe.settings(), policy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_no_more_rights_than_documented_is_enough() {
    let mut safe = Safe::start();
    assert!(rights().contains("+@read") && rights().contains("~tenure:*"), "{}", rights());
    let [a, b] = two(&safe);
    sessions_are_shared(&a, &b, 1).await;
    let bob = a.sign_in("bob", 50).await;
    assert!(b.is_live(50).await);
    a.table.end(&bob, EndReason::Revoked, None, a.clock.now());
    let over = || matches!(b.table.look_up(key(50), b.clock.now()).0, Standing::Ended { .. });
    let took = until("the end", over).await;
    assert!(took.as_secs() < 3, "it is heard, not polled: {took:?}");
    a.table.keep_fact("policies", b"[]".to_vec());
    a.table.safe().await.unwrap();
    // Nothing that it did was refused.
    assert_eq!(safe.server.ask(&["acl", "log"]).trim(), "");
    let (settings, mut lines) = (safe.settings(), Vec::new());
    std::thread::scope(|scope| {
        let carrying = || export_shared(&settings, &Clock::manual(AT), &mut lines).unwrap();
        scope.spawn(carrying).join().unwrap();
    });
    // A server that has lost everything is brought together by the same rights.
    safe.server.kill();
    until("it is noticed", || a.trouble.lasts(AT).is_some() && b.trouble.lasts(AT).is_some()).await;
    safe.server.restart();
    let rights = rights();
    let user = ["acl", "setuser", "tenure", "reset", "on", ">the first password"];
    safe.server.ask(&[&user[..], &rights.split_whitespace().collect::<Vec<_>>()].concat());
    // They may have come before their user did.
    safe.server.ask(&["acl", "log", "reset"]);
    until("all is well again", || {
        let now = a.clock.now();
        a.trouble.lasts(now).is_none() && b.trouble.lasts(now).is_none()
    })
    .await;
    sessions_are_shared(&b, &a, 100).await;
    drop((a, b));
    safe.server.ask(&["flushall"]);
    std::thread::scope(|scope| {
        let secrets = Some(SECRET.into());
        let carrying = || {
            import_shared(&settings, secrets, secs(3600), &Clock::manual(AT), &mut lines.as_slice()).unwrap()
        };
        assert!(scope.spawn(carrying).join().unwrap().sessions > 3);
    });
    assert_eq!(safe.server.ask(&["acl", "log"]).trim(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_is_told_why_at_once() {
    let safe = Safe::start();
    let settings = safe.settings();
    let with = |change: fn(&mut config::Redis)| {
        let mut changed = settings.clone();
        change(&mut changed);
        changed
    };
    let authority = |name: &str| config::Redis { ca: Some(safe.path(name)), ..settings.clone() };
    let anonymous = with(|s| (s.username, s.password) = (None, None));
    let wrong = with(|s| s.password = Some(RedisPassword::Given(Secret::new(b"hunter2".to_vec()))));
    for (settings, words) in [
        (wrong, ["Password authentication failed", "lets this user in"]),
        (anonymous, ["Authentication required", "lets this user in"]),
        (authority("other.pem"), ["certificate", "[store.redis] ca"]),
        (with(|s| s.ca = None), ["certificate", "[store.redis] ca"]),
        (with(|s| s.client = None), ["certificate", "[store.redis] cert"]),
        (authority("none.pem"), ["cannot read", "none.pem"]),
    ] {
        let began = tenure::clock::Stopwatch::start();
        let fault = fault_of(&settings);
        for word in words {
            assert!(fault.contains(word), "no {word:?} in: {fault}");
        }
        assert!(!fault.contains("hunter2") && !fault.contains("first password"), "{fault}");
        assert!(began.elapsed_us() < 5_000_000, "nobody waits for what will not change: {fault}");
    }
    // A server that starts may refuse connections for a while, so this is tried for longer.
    let plain = fault_of(&with(|s| (s.tls, s.ca, s.client) = (false, None, None)));
    assert!(plain.contains("rediss:// where the server speaks TLS"), "{plain}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_may_change_while_gateways_run() {
    let safe = Safe::start();
    let [a, b] = two(&safe);
    sessions_are_shared(&a, &b, 1).await;
    // As an operator does it: both are let in for a while.
    safe.server.ask(&["acl", "setuser", "tenure", ">another password"]);
    std::fs::write(safe.path("password"), "another password\n").unwrap();
    safe.server.ask(&["acl", "setuser", "tenure", "<the first password"]);
    safe.server.ask(&["client", "kill", "user", "tenure"]);
    sessions_are_shared(&b, &a, 100).await;
    until("all is well", || a.trouble.lasts(a.clock.now()).is_none() && b.trouble.lasts(AT).is_none()).await;
    // One that is wrong for a while signs nobody out, and is right again without a restart.
    std::fs::write(safe.path("password"), "no password at all\n").unwrap();
    safe.server.ask(&["client", "kill", "user", "tenure"]);
    until("it is noticed", || a.trouble.lasts(a.clock.now()).is_some()).await;
    assert!(a.is_live(102).await && b.is_live(102).await);
    std::fs::write(safe.path("password"), "another password\n").unwrap();
    until("all is well again", || {
        a.trouble.lasts(a.clock.now()).is_none() && b.trouble.lasts(b.clock.now()).is_none()
    })
    .await;
    sessions_are_shared(&a, &b, 200).await;
}
