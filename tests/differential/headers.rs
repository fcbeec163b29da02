//! The headers: written by hand, and made from nasty pieces.

use crate::random::Random;

/// The `Cookie` fields of a request.
pub type Header = Vec<Vec<u8>>;

/// The configured cookies: one whose spelling PHP mangles others into, one that PHP mangles itself, a servlet container's.
pub const COOKIES: &[&str] = &["sess_id", "app.sess", "JSESSIONID"];
/// The value that ended.
pub const DEAD: &[u8] = b"DEADc0ffee";
/// The value of a living session.
pub const LIVE: &[u8] = b"LIVE5ea5e1";

/// Fields of one request are parted by a newline. Sources: RFC 6265bis sections 4.2, 5.7.3 and 5.8.3, RFC 2965 for `$Version`,
/// RULINGS R4, FIELD F11, and what the made-up headers have found.
const TABLE: &[&[u8]] = &[
    b"sess_id=DEADc0ffee",
    b"sess_id=\"DEADc0ffee\"",
    b"sess_id=LIVE5ea5e1; sess_id=DEADc0ffee",
    b"sess_id=DEADc0ffee; sess_id=LIVE5ea5e1",
    b"sess_id=LIVE5ea5e1\nsess_id=DEADc0ffee",
    b"a=b\nsess_id=DEADc0ffee\nc=d",
    b"Sess_Id=DEADc0ffee; SESS_ID=DEADc0ffee",
    b"sess_id=LIVE5ea5e1; SESS_ID=DEADc0ffee",
    b"sess.id=DEADc0ffee; sess id=DEADc0ffee; sess[id=DEADc0ffee",
    b"sess_id[]=DEADc0ffee; sess_id[a]=DEADc0ffee; sess_id=LIVE5ea5e1",
    b"app_sess=DEADc0ffee; app sess=DEADc0ffee; app.sess=LIVE5ea5e1",
    b"%73ess_id=DEADc0ffee; sess%5Fid=DEADc0ffee",
    b"sess_id%00x=DEADc0ffee; sess_id%20=DEADc0ffee",
    b"$Version=1; sess_id=DEADc0ffee; $Path=/",
    b"$Version=\"1\"; a=\"b; sess_id=DEADc0ffee; c=d\"",
    b"a=\"; sess_id=DEADc0ffee; b=\"",
    b"a=\"b\\\"; sess_id=DEADc0ffee; c=\\\"d\"",
    b"a=b, sess_id=DEADc0ffee",
    b"a=b,sess_id=DEADc0ffee,c=d",
    b"a=b sess_id=DEADc0ffee",
    b"a=\"b\" sess_id = DEADc0ffee",
    b"a=\"b\"sess_id=DEADc0ffee",
    b"a\tsess_id=DEADc0ffee",
    b"sess_id\t=\tDEADc0ffee",
    b"\tsess_id=DEADc0ffee",
    b"sess_id=LIVE5ea5e1=DEADc0ffee",
    b"sess_id=LIVE5ea5e1, sess_id=DEADc0ffee",
    b"sess_id=LIVE5ea5e1 sess_id=DEADc0ffee",
    b"sess_id=\"LIVE5ea5e1\" sess_id=\"DEADc0ffee\"",
    b"sess_id=LIVE5ea5e1&DEADc0ffee; sess_id=DEADc0ffee&LIVE5ea5e1",
    b"sess_id=%44EADc0ffee; sess_id=\"\\104EADc0ffee\"",
    b"sess_id; sess_id=; =sess_id=DEADc0ffee; ==; =DEADc0ffee",
    b"=sess_id; sess_id==DEADc0ffee",
    b"sess_id=DEADc0ffee;;;; ;sess_id=DEADc0ffee",
    b"sess_id\x00=DEADc0ffee; \x00sess_id=DEADc0ffee; a=\x00; sess_id=DEADc0ffee",
    b"a=b\x0b; \x0csess_id=DEADc0ffee; \x1fsess_id=DEADc0ffee",
    b"\xa0sess_id=DEADc0ffee; \x85sess_id=DEADc0ffee; sess_id\xa0=DEADc0ffee",
    b"\xc2\xa0sess_id=DEADc0ffee; \xe2\x80\x83sess_id=DEADc0ffee; sess_id\xe3\x80\x80=DEADc0ffee",
    b"\xef\xbb\xbfsess_id=DEADc0ffee; \xc2\x85sess_id=DEADc0ffee",
    b"JSESSIONID=LIVE5ea5e1.node1; JSESSIONID=DEADc0ffee.node2",
    b"jsessionid=DEADc0ffee; JSESSIONID=DEADc0ffee",
    b"JSESSIONID=\"DEADc0ffee\"; $Path=\"/\"; JSESSIONID=\"LIVE5ea5e1\"",
];

/// The table, and one header of very many pairs.
pub fn table() -> Vec<Header> {
    let split = |text: &&[u8]| text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let mut all: Vec<Header> = TABLE.iter().map(split).collect();
    let mut many: Vec<u8> = (0..3000).flat_map(|i| format!("c{i}=v; ").into_bytes()).collect();
    many.extend_from_slice(b"sess_id=DEADc0ffee");
    all.push(vec![many]);
    all
}

const NAMES: &[&[u8]] = &[
    b"sess_id",
    b"sess_id",
    b"sess_id",
    b"app.sess",
    b"app_sess",
    b"JSESSIONID",
    b"jsessionid",
    b"SESS_ID",
    b"sess.id",
    b"sess id",
    b"sess[id",
    b"sess_id[x]",
    b"%73ess_id",
    b"sess%5fid",
    b"$Version",
    b"$Path",
    b"a",
    b"b",
    b"",
    b"Path",
    b"expires",
    b"sess_idx",
    b"xsess_id",
    b"\xc5\xbfess_id",
    b"s\xd0\xb5ss_id",
    b"__Host-sess_id",
    b"\"sess_id\"",
];
const VALUES: &[&[u8]] = &[
    DEAD,
    DEAD,
    DEAD,
    LIVE,
    LIVE,
    b"\"DEADc0ffee\"",
    b"\"LIVE5ea5e1\"",
    b"LIVE5ea5e1.node1",
    b"DEADc0ffee.node1",
    b"1",
    b"",
    b"\"",
    b"\"x",
    b"x\"",
    b"\"x y\"",
    b"\\\"",
    b"Thu, 01 Jan 1970 00:00:00 GMT",
    b"s:DEADc0ffee.sig",
    b"%44EADc0ffee",
];
const JOINTS: &[&[u8]] =
    &[b"; ", b"; ", b"; ", b";", b", ", b",", b" ", b";  ", b";\t", b" ;", b"&", b";;", b"\xa0;"];
const PIECES: &[&[u8]] = &[
    b"\"",
    b"\"",
    b"\\",
    b"\\\"",
    b"$Version=1",
    b",",
    b";",
    b"=",
    b" ",
    b"\t",
    b"%00",
    b"%20",
    b"%3b",
    b"%3D",
    b"%22",
    b"%",
    b"\x00",
    b"\x01",
    b"\x0b",
    b"\x0c",
    b"\x1c",
    b"\x1f",
    b"\x7f",
    b"\x80",
    b"\x85",
    b"\xa0",
    b"\xff",
    b"\xc2\xa0",
    b"\xc2\x85",
    b"\xe2\x80\x83",
    b"\xe2\x80\xa8",
    b"\xe3\x80\x80",
    b"\xef\xbb\xbf",
    b"\xef\xbc\x9b",
    b"[",
    b"]",
    b"[]",
    b".",
    b"_",
    b"+",
    b"&",
    b"(",
    b")",
    b"<",
    b">",
    b"@",
    b":",
    b"/",
    b"?",
    b"{",
    b"}",
    b"'",
    b"\\054",
    b"\\073",
    b"sess_id=DEADc0ffee",
    b"; sess_id=DEADc0ffee",
    b"sess_id",
    b"JSESSIONID=DEADc0ffee",
    b"app.sess=DEADc0ffee",
    b"=DEADc0ffee",
    b"DEADc0ffee",
];

fn pair(random: &mut Random) -> Vec<u8> {
    let equals = random.pick(&[b"=".as_slice(), b"=", b"=", b"=", b" = ", b"==", b"", b"\t="]);
    [random.pick(NAMES), equals, random.pick(VALUES)].concat()
}

fn pairs(random: &mut Random) -> Vec<u8> {
    let mut bytes = pair(random);
    for _ in 0..random.below(5) {
        bytes.extend_from_slice(random.pick(JOINTS));
        bytes.extend(pair(random));
    }
    bytes
}

fn field(random: &mut Random) -> Vec<u8> {
    let written = random.one_in(4);
    let mut bytes = if written { random.pick(TABLE).to_vec() } else { pairs(random) };
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() + 1);
        if at < bytes.len() && random.one_in(5) {
            bytes.remove(at);
        } else if at < bytes.len() && random.one_in(8) {
            bytes[at] = u8::try_from(random.below(256)).expect("a byte");
        } else {
            bytes.splice(at..at, random.pick(PIECES).iter().copied());
        }
    }
    bytes
}

/// One or several fields of pairs with tokens among them, broken in a few places.
pub fn made_up(random: &mut Random) -> Header {
    let fields = if random.one_in(5) { 2 } else { 1 };
    let fields = (0..fields)
        .flat_map(|_| field(random).split(|b| *b == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>());
    fields.collect()
}

/// A well-formed field that has nothing to do with any configured cookie.
pub fn harmless(random: &mut Random) -> Vec<u8> {
    const NAME: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCXYZ0189!#%&'*+-.^_`|~";
    const VALUE: &[u8] = b"abcxyzABCXYZ0189!#$%&'()*+-./:<=>?@[]^_`{|}~,\x80\xa0\xc2\xe9\xff ";
    let letters = |random: &mut Random, from: &[u8], length: usize| -> Vec<u8> {
        (0..length).map(|_| random.pick(from)).collect()
    };
    let pair = |random: &mut Random| {
        let (long, longer) = (1 + random.below(12), random.below(30));
        let quote = if random.one_in(6) { b"\"".as_slice() } else { b"" };
        [&letters(random, NAME, long), b"=".as_slice(), quote, &letters(random, VALUE, longer), quote]
            .concat()
    };
    let pairs: Vec<Vec<u8>> = (0..=random.below(6)).map(|_| pair(random)).collect();
    pairs.join(b"; ".as_slice())
}

/// Pairs that hide a live token from some parser unless they are dropped (R4).
pub fn hiding() -> Vec<Header> {
    const HIDING: &[&[u8]] = &[
        b"a=\"x; sess_id=LIVE5ea5e1; b=y\"",
        b"a=\"; sess_id=LIVE5ea5e1; b=\"",
        b"a=\"x\\\"; sess_id=LIVE5ea5e1; b=\\\"y\"",
        b"$Version=1; sess_id=LIVE5ea5e1; $Path=/",
        b"a=\x01; sess_id=LIVE5ea5e1",
    ];
    HIDING.iter().map(|field| vec![field.to_vec()]).collect()
}

/// What browsers send: harmless cookies of any app, a dead token of an older path, and the live one somewhere among them.
pub fn ordinary(random: &mut Random) -> Header {
    const OTHERS: &[&[u8]] =
        &[b"theme=dark", b"_ga=GA1.2.3.4", b"csrftoken=aB3-_", b"lang=\"de\"", b"n=%7B%22a%22%3A1%7D", b"e="];
    let mut pairs: Vec<Vec<u8>> = (0..random.below(6)).map(|_| random.pick(OTHERS).to_vec()).collect();
    for value in [DEAD, LIVE] {
        let at = random.below(pairs.len() + 1);
        let quote = if random.one_in(4) { b"\"".as_slice() } else { b"" };
        pairs.insert(at, [b"sess_id=".as_slice(), quote, value, quote].concat());
    }
    vec![pairs.join(b"; ".as_slice())]
}
