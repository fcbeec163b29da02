//! Tokens made by hand, so that every part of them can be wrong.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::session::identity::JwtKeys;
use pair::{Pair, b64, good, message};

mod pair;

const NOW: u64 = 1_750_000_000;
const AT: Moment = Moment::from_unix_ms(NOW * 1000);

fn verifier_of(keys: KeySet, algorithms: &[Algorithm]) -> Verifier {
    let pointer = |text: &str| jsonptr::PointerBuf::parse(text).unwrap();
    let names =
        Names { user: pointer("/sub"), tenant: Some(pointer("/org/id")), roles: Some(pointer("/roles")) };
    let rule = JwtRule {
        keys: JwtKeys::Pem(String::new()),
        issuer: "idp".into(),
        audience: "crm".into(),
        algorithms: algorithms.to_vec(),
        names,
    };
    Verifier::new(&rule, SharedKeys::new(keys))
}

fn jwks(keys: &[Value]) -> KeySet {
    KeySet::from_jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

/// A verifier that knows this key alone and allows its algorithm alone.
fn only(pair: &Pair) -> Verifier {
    verifier_of(jwks(&[pair.jwk(json!({}))]), &[pair.algorithm()])
}

fn user(verifier: &Verifier, token: &str) -> Result<String, JwtFault> {
    verifier.verify(token, AT).map(|raw| raw.user)
}

#[test]
fn good_tokens_name_user_tenant_and_roles_in_every_family_from_jwks_and_pem() {
    for pair in Pair::all() {
        let claims = json!({ "org": { "id": "acme" }, "roles": ["admin", 7, "x"], "aud": ["other", "crm"] });
        let token = pair.token(json!({ "kid": "any" }), claims);
        let expected =
            Raw { user: "ann".into(), tenant: Some("acme".into()), roles: vec!["admin".into(), "x".into()] };
        for keys in [jwks(&[pair.jwk(json!({ "use": "sig" }))]), KeySet::from_pem(&pair.pem()).unwrap()] {
            let verifier = verifier_of(keys, &[Algorithm::RS512, pair.algorithm()]);
            assert_eq!(verifier.verify(&token, AT), Ok(expected.clone()), "{:?}", pair.algorithm());
        }
        let token = pair.token(json!({ "typ": "at+JWT" }), json!({ "roles": "admin,x y" }));
        assert_eq!(only(&pair).verify(&token, AT).unwrap().roles, ["admin", "x", "y"]);
    }
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    for pair in Pair::all() {
        let head = message(&json!({ "alg": "HS256", "typ": "JWT" }), &good(json!({})));
        for secret in [pair.der(), pair.pem().into_bytes(), pair.pem().trim().as_bytes().to_vec()] {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), head.as_bytes());
            let token = format!("{head}.{}", b64(tag.as_ref()));
            for keys in [jwks(&[pair.jwk(json!({}))]), KeySet::from_pem(&pair.pem()).unwrap()] {
                let verifier = verifier_of(keys, &[pair.algorithm()]);
                assert_eq!(user(&verifier, &token), Err(JwtFault::Algorithm));
            }
        }
    }
    let secret = json!({ "kty": "oct", "k": b64(b"a symmetric key that is published"), "alg": "HS256" });
    assert!(jwks(&[secret]).is_empty(), "a published secret verifies nothing");
}

#[test]
fn unsigned_tokens_and_other_algorithms_are_refused() {
    let pair = Pair::rsa();
    let verifier = only(&pair);
    for name in ["none", "None", "NONE", "", "HS256x"] {
        let head = message(&json!({ "alg": name }), &good(json!({})));
        for token in [format!("{head}."), head.clone(), format!("{head}.AAAA")] {
            assert_eq!(user(&verifier, &token), Err(JwtFault::Malformed), "{name}");
        }
    }
    let (ec, rsa) = (Pair::ec(), pair.jwk(json!({})));
    let both = verifier_of(jwks(&[rsa.clone(), ec.jwk(json!({}))]), &[Algorithm::RS256]);
    assert_eq!(user(&both, &ec.token(json!({}), json!({}))), Err(JwtFault::Algorithm), "not configured");
    let psonly = verifier_of(jwks(&[rsa]), &[Algorithm::PS256]);
    assert_eq!(user(&psonly, &pair.token(json!({}), json!({}))), Err(JwtFault::Algorithm), "same family");
    let renamed = pair.token(json!({ "alg": "RS512" }), json!({}));
    let wide = verifier_of(jwks(&[pair.jwk(json!({}))]), &[Algorithm::RS256, Algorithm::RS512]);
    assert_eq!(user(&wide, &renamed), Err(JwtFault::Signature));
}

#[test]
fn a_foreign_or_changed_token_is_refused() {
    for (pair, other) in Pair::all().iter().zip(&Pair::all()) {
        let verifier = only(pair);
        assert_eq!(user(&verifier, &other.token(json!({}), json!({}))), Err(JwtFault::Signature));
        let token = pair.token(json!({}), json!({}));
        let [head, _, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
        let claims = b64(good(json!({ "sub": "admin" })).to_string().as_bytes());
        assert_eq!(user(&verifier, &format!("{head}.{claims}.{signature}")), Err(JwtFault::Signature));
        assert_eq!(user(&verifier, &token).as_deref(), Ok("ann"));
    }
}

#[test]
fn keys_that_the_token_brings_itself_are_not_used() {
    let (ours, theirs) = (Pair::ec(), Pair::ec());
    let header = json!({ "jwk": theirs.jwk(json!({})), "jku": "https://evil.example/jwks.json" });
    assert_eq!(user(&only(&ours), &theirs.token(header, json!({}))), Err(JwtFault::Signature));
}

#[test]
fn required_claims_must_be_there_and_right() {
    use JwtFault::{Audience, Claims, Issuer, NoUser};
    let pair = Pair::ed();
    let verifier = only(&pair);
    for (claims, fault) in [
        (json!({ "exp": null }), Claims),
        (json!({ "iss": null }), Claims),
        (json!({ "aud": null }), Claims),
        (json!({ "exp": "soon" }), Claims),
        (json!({ "exp": -1 }), Claims),
        (json!({ "nbf": "now" }), Claims),
        (json!({ "iss": "other" }), Issuer),
        (json!({ "iss": "idp/" }), Issuer),
        (json!({ "iss": ["idp"] }), Issuer),
        (json!({ "aud": "wiki" }), Audience),
        (json!({ "aud": ["wiki", "crm2"] }), Audience),
        (json!({ "sub": null }), NoUser),
        (json!({ "sub": " " }), NoUser),
    ] {
        let token = pair.token(json!({}), claims.clone());
        assert_eq!(user(&verifier, &token), Err(fault), "{claims}");
    }
    for odd in [json!({ "aud": [] }), json!({ "sub": ["ann"] }), json!({ "exp": [NOW + 300] })] {
        assert!(user(&verifier, &pair.token(json!({}), odd.clone())).is_err(), "{odd}");
    }
}

#[test]
fn times_are_judged_to_the_millisecond_with_the_leeway() {
    let pair = Pair::ed();
    let verifier = only(&pair);
    let at = |token: &str, ms: u64| verifier.verify(token, Moment::from_unix_ms(ms)).map(|raw| raw.user);
    let ann = Ok("ann".to_owned());
    let leeway = LEEWAY.as_ms();
    let token = pair.token(json!({}), json!({ "exp": NOW, "nbf": NOW - 60 }));
    let (over, begins) = (NOW * 1000 + leeway, (NOW - 60) * 1000 - leeway);
    assert_eq!(at(&token, over - 1), ann);
    assert_eq!(at(&token, over), Err(JwtFault::Expired));
    assert_eq!(at(&token, over + 1), Err(JwtFault::Expired));
    assert_eq!(at(&token, begins), ann);
    assert_eq!(at(&token, begins - 1), Err(JwtFault::NotYet));
    let token = pair.token(json!({}), json!({ "exp": NOW as f64 + 0.25 }));
    assert_eq!(at(&token, over + 249), ann);
    assert_eq!(at(&token, over + 250), Err(JwtFault::Expired));
    let token = pair.token(json!({}), json!({ "exp": u64::MAX }));
    assert_eq!(at(&token, over), ann, "no overflow");
}

#[test]
fn keys_for_something_else_are_left_out() {
    let pair = Pair::rsa();
    let token = pair.token(json!({}), json!({}));
    for with in [
        json!({ "use": "enc" }),
        json!({ "use": "tls" }),
        json!({ "key_ops": ["encrypt"] }),
        json!({ "alg": "RS512" }),
        json!({ "alg": "RSA-OAEP" }),
        json!({ "alg": "ES256" }),
        json!({ "alg": "unheard-of" }),
        json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA" }),
        json!({ "kty": "unheard-of" }),
        json!({ "n": "not base64!" }),
    ] {
        let verifier = verifier_of(jwks(&[pair.jwk(with.clone())]), &[Algorithm::RS256]);
        assert_eq!(user(&verifier, &token), Err(JwtFault::UnknownKey), "{with}");
        let beside = jwks(&[pair.jwk(with), pair.jwk(json!({ "alg": "RS256", "use": "sig" }))]);
        assert_eq!(user(&verifier_of(beside, &[Algorithm::RS256]), &token).as_deref(), Ok("ann"));
    }
}

#[tokio::test]
async fn the_kid_picks_the_key_and_an_unknown_one_is_missed() {
    let (one, two) = (Pair::ec(), Pair::ec());
    let named = |pair: &Pair, kid: &str| pair.jwk(json!({ "kid": kid }));
    let verifier = verifier_of(jwks(&[named(&one, "1"), named(&two, "2")]), &[Algorithm::ES256]);
    let is_missed = || {
        use futures_util::FutureExt;
        verifier.keys.missed().now_or_never().is_some()
    };
    for (pair, kid, result) in [
        (&one, json!("1"), Ok("ann")),
        (&two, json!("2"), Ok("ann")),
        (&two, json!(null), Ok("ann")),
        (&one, json!("2"), Err(&JwtFault::Signature)),
    ] {
        let token = pair.token(json!({ "kid": kid }), json!({}));
        assert_eq!(user(&verifier, &token).as_deref(), result);
        assert!(!is_missed(), "{kid}");
    }
    for _ in 0..3 {
        let token = two.token(json!({ "kid": "3" }), json!({}));
        assert_eq!(user(&verifier, &token), Err(JwtFault::UnknownKey));
    }
    assert!(is_missed());
    assert!(!is_missed(), "one wish, however many miss");
    verifier.keys.replace(jwks(&[named(&two, "3")]));
    assert_eq!(user(&verifier, &two.token(json!({ "kid": "3" }), json!({}))).as_deref(), Ok("ann"));
    assert!(user(&verifier, &one.token(json!({ "kid": "1" }), json!({}))).is_err(), "withdrawn");
}

#[test]
fn the_work_on_one_token_is_bounded() {
    let (pair, other) = (Pair::ed(), Pair::ed());
    let mut keys = vec![other.jwk(json!({})); crate::session::keys::MAX_TRIED];
    let token = pair.token(json!({}), json!({}));
    keys.push(pair.jwk(json!({})));
    let verifier = verifier_of(jwks(&keys), &[Algorithm::EdDSA]);
    assert_eq!(user(&verifier, &token), Err(JwtFault::Signature), "the seventeenth is not tried");
    keys.remove(0);
    assert_eq!(user(&verifier_of(jwks(&keys), &[Algorithm::EdDSA]), &token).as_deref(), Ok("ann"));
    let long = pair.token(json!({}), json!({ "pad": "x".repeat(MAX_TOKEN_BYTES) }));
    assert_eq!(user(&verifier, &long), Err(JwtFault::TooLong));
    let many = json!({ "keys": vec![other.jwk(json!({})); 65] }).to_string();
    assert!(KeySet::from_jwks(many.as_bytes()).is_err());
}

#[test]
fn tokens_for_another_purpose_and_unknown_extensions_are_refused() {
    let pair = Pair::ed();
    let verifier = only(&pair);
    for typ in ["logout+jwt", "secevent+jwt", "application/logout+jwt", "dpop+jwt", "ä"] {
        assert_eq!(
            user(&verifier, &pair.token(json!({ "typ": typ }), json!({}))),
            Err(JwtFault::Type),
            "{typ}"
        );
    }
    for typ in [json!(null), json!("jwt"), json!("application/at+jwt"), json!("APPLICATION/JWT")] {
        let token = pair.token(json!({ "typ": typ }), json!({}));
        assert_eq!(user(&verifier, &token).as_deref(), Ok("ann"), "{typ}");
    }
    let critical = pair.token(json!({ "crit": ["b64"], "b64": false }), json!({}));
    assert_eq!(user(&verifier, &critical), Err(JwtFault::Malformed));
}

#[test]
fn only_public_keys_are_read_from_pem() {
    let small = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf\n\
                 9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ==\n-----END PUBLIC KEY-----";
    let pem = Pair::ec().pem();
    for text in
        ["", "-----BEGIN PUBLIC KEY-----", small, &pem.replace("PUBLIC", "PRIVATE"), &pem.replace('M', "N")]
    {
        assert!(KeySet::from_pem(text).is_err(), "{text}");
    }
    let rsa = Pair::rsa();
    let Pair::Rs(pair) = &rsa else { panic!("RSA") };
    let bare = STANDARD.encode(pair.public_key().as_ref());
    let pkcs1 = format!("-----BEGIN RSA PUBLIC KEY-----\r\n{bare}\r\n-----END RSA PUBLIC KEY-----\r\n");
    let verifier = verifier_of(KeySet::from_pem(&pkcs1).unwrap(), &[Algorithm::RS256]);
    assert_eq!(user(&verifier, &rsa.token(json!({}), json!({}))).as_deref(), Ok("ann"));
}

proptest! {
    #[test]
    fn arbitrary_text_is_refused_and_nothing_panics(text in any::<String>(), bytes in any::<Vec<u8>>()) {
        let verifier = verifier_of(KeySet::default(), &[Algorithm::RS256]);
        prop_assert!(verifier.verify(&text, AT).is_err());
        let header = b64(br#"{"alg":"RS256"}"#);
        let token = format!("{header}.{}.{}", b64(&bytes), b64(&bytes));
        prop_assert!(verifier.verify(&token, AT).is_err());
        prop_assert!(verifier.verify(&String::from_utf8_lossy(&bytes), AT).is_err());
        let _ = KeySet::from_jwks(&bytes);
        let _ = KeySet::from_pem(&text);
    }

    #[test]
    fn arbitrary_claims_of_a_real_key_never_panic(
        exp in any::<f64>(), nbf in any::<i64>(), sub in any::<String>(), n in any::<Vec<u8>>(),
    ) {
        let pair = Pair::ed();
        let token = pair.token(json!({}), json!({ "exp": exp, "nbf": nbf, "sub": sub }));
        let _ = only(&pair).verify(&token, AT);
        let odd = json!({ "kty": "RSA", "n": b64(&n), "e": b64(&n) });
        let verifier = verifier_of(jwks(&[odd]), &[Algorithm::RS256]);
        let header = b64(br#"{"alg":"RS256"}"#);
        let token = format!("{header}.{}.{}", b64(&n), b64(&n));
        prop_assert!(verifier.verify(&token, AT).is_err());
    }
}
