//! The other direction: what `Set-Cookie` sets, beside tough-cookie, which reads as a browser does, and Python's `http.cookies`.

use serde_json::Value;
use tenure::session::Moment;
use tenure::session::cookie::{SetCookie, read_set_cookie};

use crate::drivers::{NOW_MS, SET_DRIVERS, ask_all, bytes_of};
use crate::random::Random;
use crate::wanted;

/// From RFC 6265bis sections 5.1.1, 5.6 and 5.7, and what apps are known to send.
const TABLE: &[&[u8]] = &[
    b"sid=v",
    b"sid=v; Path=/app; Domain=.Example.com; Secure; HttpOnly; SameSite=Lax",
    b"sid=\"v\"; Path=/",
    b"sid=\"a;b\"; Path=/",
    b" sid = v ; path = /x ",
    b"sid=a=b=c",
    b"sid=; Path=/",
    b"sid=v; Max-Age=0",
    b"sid=v; Max-Age=-1",
    b"sid=v; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    b"sid=v; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    b"sid=v; Expires=Thu, 01-Jan-1970 00:00:01 GMT",
    b"sid=v; Expires=Thursday, 01-Jan-70 00:00:00 GMT",
    b"sid=v; Expires=Thu Jan  1 00:00:00 1970",
    b"sid=v; expires=Thu, 1 Jan 1970 0:00:00 GMT",
    b"sid=v; expires=Mon, 01-Jan-1990 00:00:00 UTC",
    b"sid=v; expires=Sat, 01 Jan 2000 00:00:00 +0000",
    b"sid=v; expires=Fri, 31 Dec 9999 23:59:59 GMT",
    b"sid=v; expires=Sun, 17 Jan 2038 19:14:07 GMT",
    b"sid=v; expires=0",
    b"sid=v; expires=-1",
    b"sid=v; expires=",
    b"sid=v; Expires=\"Thu, 01 Jan 1970 00:00:00 GMT\"",
    b"sid=v; Max-Age=\"0\"",
    b"sid=v; Max-Age=",
    b"sid=v; Max-Age=+0",
    b"sid=v; Max-Age=0.5",
    b"sid=v; Max-Age=1e3",
    b"sid=v; Max-Age=99999999999999999999999",
    b"sid=v; Max-Age=-99999999999999999999999",
    b"sid=v; Max-Age=60; Max-Age=0",
    b"sid=v; Max-Age=0; Max-Age=60",
    b"sid=v; Max-Age=0; Max-Age=x",
    b"sid=v; Path=/a; Path=/b",
    b"sid=v; Path=/a; Path=b",
    b"sid=v; Path=/a; Path",
    b"sid=v; Domain=a.example; Domain=b.example",
    b"sid=v; Max-Age=; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    b"sid=v; Max-Age=-",
    b"sid=caf\xe9; Path=/",
    b"sid=v, other=w; Path=/",
    b"sid",
    b"=v",
    b"",
    b"; sid=v",
    b"sid=v;;; Path=/x",
    b"sid=v\x01; Path=/",
    b"sid=a\tb; Path=/",
];

const NAMES: &[&[u8]] = &[b"sid", b"sid", b"sid", b"__Host-sid", b"", b" sid", b"s d", b"si\"d", b"$sid"];
const VALUES: &[&[u8]] =
    &[b"v", b"\"v\"", b"", b"\"\"", b"a=b", b"a b", b" v", b"%3B", b"caf\xe9", b"\"", b"a,b", b"deleted"];
const ATTRIBUTES: &[&[u8]] = &[
    b"Path=/",
    b"path=/a/b",
    b"Path=x",
    b"Path",
    b"Path=\"/q\"",
    b"Domain=example.com",
    b"domain=.EXAMPLE.com",
    b"Domain=",
    b"Secure",
    b"HttpOnly=1",
    b"SameSite=None",
    b"Max-Age=0",
    b"max-age=-1",
    b"Max-Age=60",
    b"Max-Age=x",
    b"Max-Age=007",
    b"Max-Age= 0 ",
    b"Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    b"expires=Thu, 01-Jan-70 00:00:00 GMT",
    b"Expires=Fri, 31 Dec 2099 23:59:59 GMT",
    b"Expires=Thu Jan  1 00:00:00 1970",
    b"Expires=nonsense",
    b"Expires=1 Jan 2000",
    b"Expires=Sat, 01 Jan 2000 00:00:00 EST",
    b"",
    b"Expires=01 jan 1999 1:2:3",
    b"Expires=Jan 1999 01:02:03 1",
    b"Expires=Tue, 31 Feb 2020 00:00:00 GMT",
    b"Priority=High",
    b"=x",
];

fn made_up(random: &mut Random) -> Vec<u8> {
    let mut bytes =
        [random.pick(NAMES), random.pick(&[b"=".as_slice(), b"=", b" = ", b""]), random.pick(VALUES)]
            .concat();
    for _ in 0..random.below(5) {
        bytes.extend_from_slice(random.pick(&[b"; ".as_slice(), b";", b" ; ", b";\t"]));
        bytes.extend_from_slice(random.pick(ATTRIBUTES));
    }
    if random.one_in(4) {
        let at = random.below(bytes.len() + 1);
        bytes.splice(
            at..at,
            random.pick(&[b"\"".as_slice(), b" ", b"\t", b"=", b";", b"\xff", b",", b"0"]).iter().copied(),
        );
    }
    bytes
}

/// The driver reads the field as Latin-1 and answers in UTF-8.
fn latin(text: &Value) -> Vec<u8> {
    let text = String::from_utf8(bytes_of(text)).expect("UTF-8");
    text.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect()
}

/// What matters of a reading: which value comes back, from where, and whether the field deletes.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    name: Vec<u8>,
    value: Vec<u8>,
    path: String,
    domain: String,
    deletes: bool,
}

impl Reading {
    fn ours(set: &SetCookie) -> Self {
        Self {
            name: set.name.clone().into_bytes(),
            value: set.value.clone(),
            path: set.attributes.path.clone(),
            domain: set.attributes.domain.clone().unwrap_or_default().to_ascii_lowercase(),
            deletes: set.deletes,
        }
    }

    fn of_tough_cookie(read: &Value) -> Self {
        let text = |member: &str| String::from_utf8_lossy(&latin(&read[member])).into_owned();
        let value = latin(&read["value"]);
        let path = Some(text("path")).filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
        // A browser keeps an empty cookie. It signs nobody in, so for us it is a deletion.
        let deletes = read["deletes"].as_bool().expect("a bool") || value.iter().all(|byte| *byte == b'"');
        Self { name: latin(&read["name"]), value, path, domain: text("domain"), deletes }
    }
}

/// The faults of all fields, in words.
fn against_tough_cookie(fields: &[&[u8]], read: &[Value]) -> Vec<String> {
    let different = |(field, line): (&&[u8], &Value)| {
        let ours = read_set_cookie(field, "/", Moment::from_unix_ms(NOW_MS)).map(|set| Reading::ours(&set));
        let theirs = line["tough-cookie"].get(0).map(Reading::of_tough_cookie);
        // tough-cookie keeps to RFC 6265, where a tab within refuses the field; browsers and RFC 6265bis keep it. A name that is
        // not ASCII is never a configured one.
        let passes =
            (theirs.is_none() && field.contains(&b'\t')) || ours.as_ref().is_some_and(|r| !r.name.is_ascii());
        (ours != theirs && !passes)
            .then(|| format!("`{}`\n  ours   {ours:?}\n  theirs {theirs:?}", field.escape_ascii()))
    };
    fields.iter().zip(read).filter_map(different).collect()
}

/// A value that a server may send (RFC 6265bis section 4.1.1); browsers take more.
fn is_well_formed(value: &[u8]) -> bool {
    let bare = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
    bare.iter().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(b))
}

/// Where `http.cookies` yields another value for a well-formed cookie, and how often it yields the same. It is no browser:
/// it stops at much that browsers read.
fn beside_http_cookies(fields: &[&[u8]], read: &[Value]) -> (usize, Vec<String>) {
    let (mut same, mut different) = (0, Vec::new());
    for (field, line) in fields.iter().zip(read) {
        let Some(set) = read_set_cookie(field, "/", Moment::from_unix_ms(NOW_MS)) else { continue };
        let mut morsels = line["http.cookies"].as_array().expect("a list").iter();
        let Some(morsel) = morsels.find(|m| latin(&m["name"]) == set.name.as_bytes()) else { continue };
        let theirs = latin(&morsel["value"]);
        if theirs == set.value {
            same += 1;
        } else if is_well_formed(&set.value) {
            different.push(format!("`{}`: `{}`", field.escape_ascii(), theirs.escape_ascii()));
        }
    }
    (same, different)
}

#[test]
fn set_cookie_is_read_as_a_browser_reads_it() {
    let mut random = Random(4);
    let mut fields: Vec<Vec<u8>> = TABLE.iter().map(|field| field.to_vec()).collect();
    fields.extend((0..wanted()).map(|_| made_up(&mut random)));
    let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
    let answers = ask_all(SET_DRIVERS, &fields);
    let of =
        |name: &str| &answers.iter().find(|(driver, _)| driver.name.starts_with(name)).expect("a driver").1;
    let faults = against_tough_cookie(&fields, of("node"));
    let told = faults.iter().take(40).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(faults.is_empty(), "{} of {} differ, among them:\n{told}", faults.len(), fields.len());
    let (same, different) = beside_http_cookies(&fields, of("python"));
    let told = different.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(same > 1000 && different.is_empty(), "{same} agree, {} differ:\n{told}", different.len());
}
