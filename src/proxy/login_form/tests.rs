use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn read(
    kind: &str,
    query: Option<&str>,
    body: impl Into<Vec<u8>>,
    field: &str,
) -> Result<Option<String>, FormFault> {
    let mut headers = HeaderMap::new();
    if !kind.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
    }
    read_with(&headers, query, body, field)
}

fn read_with(
    headers: &HeaderMap,
    query: Option<&str>,
    body: impl Into<Vec<u8>>,
    field: &str,
) -> Result<Option<String>, FormFault> {
    user_of(headers, query, &body.into(), field)
}

const FORM: &str = "application/x-www-form-urlencoded";

fn form(body: &str) -> Result<Option<String>, FormFault> {
    read(FORM, None, body, "user")
}

fn some(name: &str) -> Result<Option<String>, FormFault> {
    Ok(Some(name.to_owned()))
}

#[test]
fn a_form_names_its_user() {
    assert_eq!(form("user=ann&password=p%26user%3Dbob"), some("ann"));
    assert_eq!(form("csrf=1&user=Ann+M%C3%BCller%40x"), some("Ann Müller@x"));
    assert_eq!(form("us%65r=ann"), some("ann"));
    assert_eq!(form("password=only"), Ok(None));
    assert_eq!(form("user="), some(""));
    assert_eq!(form(""), Ok(None));
    assert_eq!(read("", None, "user=ann", "user"), some("ann"), "Rack reads a body without a type as a form");
    assert_eq!(read(FORM, Some("next=/a;b&user=ann"), "password=p", "user"), some("ann"));
    assert_eq!(
        read("application/x-www-form-urlencoded; charset=UTF-8", None, "user=ann", "user"),
        some("ann")
    );
    // A page in Latin-1 sends a password that is no UTF-8.
    assert_eq!(form("user=ann&password=%E4"), some("ann"));
}

#[test]
fn a_user_named_twice_is_refused_in_every_spelling() {
    for second in ["user", "User", "us%65r", "user[]", "user%5B%5D", "user[x]", "+user", "%20user"] {
        assert_eq!(form(&format!("user=ann&{second}=bob")), Err(FormFault::Repeated), "{second}");
    }
    for second in ["user.name", "user name", "user%20name", "user[name"] {
        let body = format!("user_name=ann&{second}=bob");
        assert_eq!(read(FORM, None, body, "user_name"), Err(FormFault::Repeated), "{second}");
    }
    assert_eq!(read(FORM, Some("user=bob"), "user=ann", "user"), Err(FormFault::Repeated));
    assert_eq!(read(FORM, Some("x=1&USER=bob"), "user=ann", "user"), Err(FormFault::Repeated));
    assert_eq!(form("user=ann&user=ann"), Err(FormFault::Repeated));
}

#[test]
fn what_two_apps_would_read_in_two_ways_is_refused() {
    for body in
        ["x=1;user=bob&user=ann", "user=ann;x=1", "%u0075ser=bob&user=ann", "user=ann%", "p=%zz&user=ann"]
    {
        assert_eq!(form(body), Err(FormFault::Malformed), "{body}");
    }
    assert_eq!(form("user%00x=bob&user=ann"), Err(FormFault::Malformed));
    assert_eq!(form("user=ann%00bob"), Err(FormFault::NotText));
    assert_eq!(form("user=m%FCller"), Err(FormFault::NotText));
    assert_eq!(read(FORM, Some("x=1;user=bob"), "user=ann", "user"), Err(FormFault::Malformed));
}

#[test]
fn another_charset_or_encoding_is_refused() {
    assert_eq!(form("_charset_=iso-8859-1&user=ann"), Err(FormFault::Charset));
    assert_eq!(form("_charset_=UTF-8&user=ann"), some("ann"));
    let kind = "application/x-www-form-urlencoded; charset=UTF-16";
    assert_eq!(read(kind, None, "user=ann", "user"), Err(FormFault::Charset));
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    assert_eq!(read_with(&headers, None, "user=ann", "user"), Err(FormFault::Encoded));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
    assert_eq!(read_with(&headers, None, "user=ann", "user"), some("ann"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
    headers.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    assert_eq!(read_with(&headers, None, "user=ann", "user"), Err(FormFault::Malformed));
    for kind in ["text/plain", "application/xml", "application/octet-stream"] {
        assert_eq!(read(kind, None, "user=ann", "user"), Err(FormFault::Unsupported), "{kind}");
    }
}

fn json(body: &str, field: &str) -> Result<Option<String>, FormFault> {
    read("application/json", None, body, field)
}

#[test]
fn json_names_its_user() {
    assert_eq!(json(r#"{"x":{"user":"bob"},"user":"ann"}"#, "user"), some("ann"));
    assert_eq!(json(r#"{"user":"\u0061nn"}"#, "user"), some("ann"));
    assert_eq!(json(r#"{"user":4711}"#, "user"), some("4711"));
    assert_eq!(json(r#"{"user":null}"#, "user"), Ok(None));
    assert_eq!(json(r#"["ann"]"#, "user"), Ok(None));
    assert_eq!(json(r#"{"a":[{"b/c":"ann"},{"b/c":"bob"}]}"#, "/a/1/b~1c"), some("bob"));
    assert_eq!(read("application/vnd.api+json", None, r#"{"user":"ann"}"#, "user"), some("ann"));
}

#[test]
fn json_with_two_readings_is_refused() {
    for body in [
        r#"{"user":"ann","user":"bob"}"#,
        r#"{"user":"ann","User":"bob"}"#,
        r#"{"user":"ann","\u0075ser":"bob"}"#,
    ] {
        assert_eq!(json(body, "user"), Err(FormFault::Repeated), "{body}");
    }
    assert_eq!(json(r#"{"a":{"u":"x"},"a":{"u":"y"}}"#, "/a/u"), Err(FormFault::Repeated));
    assert_eq!(
        read("application/json", Some("user=bob"), r#"{"user":"ann"}"#, "user"),
        Err(FormFault::Repeated)
    );
    for body in [r#"{"user":["ann"]}"#, r#"{"user":{"$ne":1}}"#, r#"{"user":true}"#, r#"{"user":1.5}"#] {
        assert_eq!(json(body, "user"), Err(FormFault::NotText), "{body}");
    }
    for body in [r#"{"user":"ann"} x"#, r#"{"user":"ann""#, "\u{feff}{\"user\":\"ann\"}", "{'user':'ann'}"] {
        assert_eq!(json(body, "user"), Err(FormFault::Malformed), "{body}");
    }
    let utf16: Vec<u8> = "{\"user\":\"ann\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read("application/json", None, utf16, "user"), Err(FormFault::Malformed));
    let deep = "[".repeat(60_000);
    assert_eq!(json(&deep, "user"), Err(FormFault::Malformed));
}

fn multipart(parts: &[(&str, &str)]) -> Result<Option<String>, FormFault> {
    let mut body = String::new();
    for (header, value) in parts {
        body.push_str(&format!("--X\r\nContent-Disposition: {header}\r\n\r\n{value}\r\n"));
    }
    body.push_str("--X--\r\n");
    read("multipart/form-data; boundary=X", None, body, "user")
}

#[test]
fn a_multipart_form_names_its_user() {
    let name = "form-data; name=\"user\"";
    let file = "form-data; name=\"photo\"; filename=\"a\\b.png\"";
    assert_eq!(multipart(&[("form-data; name=\"csrf\"", "1"), (name, "ann"), (file, "…")]), some("ann"));
    assert_eq!(multipart(&[(file, "…")]), Ok(None));
    assert_eq!(multipart(&[(name, "ann"), (name, "bob")]), Err(FormFault::Repeated));
    assert_eq!(multipart(&[(name, "ann"), ("form-data; name=\"user[]\"", "bob")]), Err(FormFault::Repeated));
}

#[test]
fn a_multipart_form_with_two_readings_is_refused() {
    for header in [
        "form-data; name=user",
        "form-data; name*=utf-8''user",
        "form-data; name=\"x\"; name=\"user\"",
        "form-data; name=\"us\\er\"",
        "form-data; filename=\"f\"; name=\"user\"",
        "attachment; name=\"user\"",
    ] {
        assert_eq!(multipart(&[(header, "bob")]), Err(FormFault::Malformed), "{header}");
    }
    let twice = "form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"user\"";
    assert_eq!(multipart(&[(twice, "bob")]), Err(FormFault::Malformed));
    let odd = "form-data; name=\"user\"\r\nContent-Type: text/plain; charset=utf-7";
    assert_eq!(multipart(&[(odd, "bob")]), Err(FormFault::Charset));
    let encoded = "form-data; name=\"user\"\r\nContent-Transfer-Encoding: base64";
    assert_eq!(multipart(&[(encoded, "Ym9i")]), Err(FormFault::Encoded));
    let charset = [("form-data; name=\"_charset_\"", "latin1"), ("form-data; name=\"user\"", "bob")];
    assert_eq!(multipart(&charset), Err(FormFault::Charset));
    for kind in ["multipart/form-data", "multipart/form-data; boundary=X; boundary=Y"] {
        assert_eq!(read(kind, None, "--X--\r\n", "user"), Err(FormFault::Malformed), "{kind}");
    }
    for body in ["x--X\r\n", "--X--", "--X\r\n--X--", "--X\r\n\r\n--X--", "--X \r\n\r\n\r\n--X--"] {
        let read = read("multipart/form-data; boundary=X", None, body, "user");
        assert_eq!(read, if body == "--X--" { Ok(None) } else { Err(FormFault::Malformed) }, "{body:?}");
    }
    let cut = "--X\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nann";
    assert_eq!(read("multipart/form-data; boundary=X", None, cut, "user"), Err(FormFault::Malformed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_panics(body in proptest::collection::vec(any::<u8>(), 0..512), query in ".{0,64}", kind in 0..5usize) {
        let kinds = [FORM, "application/json", "multipart/form-data; boundary=X", "", "text/json"];
        let _ = read(kinds[kind], Some(&query), body, "user");
    }

    #[test]
    fn what_a_browser_encodes_is_read(user in "[^\\p{Cc}]{1,40}", password in ".{0,40}") {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("user", &user).append_pair("password", &password).finish();
        prop_assert_eq!(read(FORM, None, form, "user"), Ok(Some(user.clone())));
        let json = serde_json::json!({ "password": password, "user": user }).to_string();
        prop_assert_eq!(read("application/json", None, json, "user"), Ok(Some(user)));
    }
}
