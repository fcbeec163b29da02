//! `application/x-www-form-urlencoded` bodies, and queries: an app may take the name from either (Servlet's
//! `getParameter` does).

use std::borrow::Cow;

use super::{FormFault, Found, is_utf8, same_field};

/// The field by which a browser says in which charset it encoded a form (HTML, 4.10.21.8).
const CHARSET_FIELD: &[u8] = b"_charset_";

pub(super) fn read_body(body: &[u8], field: &str, found: &mut Found) -> Result<(), FormFault> {
    for pair in body.split(|byte| *byte == b'&') {
        read(pair, field, found)?;
        // Browsers write every `%` that is not an escape as `%25`; IIS reads `%u0075` as one.
        let (name, value) = split(pair);
        if broken(value) {
            return Err(FormFault::Malformed);
        }
        if same_field(&decoded(name)?, CHARSET_FIELD) && !is_utf8(&String::from_utf8_lossy(&decoded(value)?))
        {
            return Err(FormFault::Charset);
        }
    }
    Ok(())
}

/// As a body, but links written by hand stand in queries: a stray `%` in a value is let be.
pub(super) fn read_query(query: &str, field: &str, found: &mut Found) -> Result<(), FormFault> {
    query.as_bytes().split(|byte| *byte == b'&').try_for_each(|pair| read(pair, field, found))
}

/// Old apps separate pairs by `;` too (HTML 4.01, B.2.2). Browsers never leave one bare in a form.
fn read(pair: &[u8], field: &str, found: &mut Found) -> Result<(), FormFault> {
    for piece in pair.split(|byte| *byte == b';') {
        let (name, value) = split(piece);
        let name = decoded(name)?;
        if name.iter().any(u8::is_ascii_control) || std::str::from_utf8(&name).is_err() {
            return Err(FormFault::Malformed);
        }
        if !same_field(&name, field.as_bytes()) {
            continue;
        }
        if piece.len() != pair.len() {
            return Err(FormFault::Malformed);
        }
        found.add_bytes(&decoded(value)?);
    }
    Ok(())
}

fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, b""),
    }
}

fn broken(text: &[u8]) -> bool {
    let escapes = memchr::memchr_iter(b'%', text);
    escapes
        .into_iter()
        .any(|at| !matches!(text.get(at + 1..at + 3), Some(two) if two.iter().all(u8::is_ascii_hexdigit)))
}

fn decoded(text: &[u8]) -> Result<Cow<'_, [u8]>, FormFault> {
    if broken(text) {
        return Err(FormFault::Malformed);
    }
    if !text.contains(&b'+') {
        return Ok(percent_encoding::percent_decode(text).into());
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Ok(percent_encoding::percent_decode(&spaced).collect::<Vec<u8>>().into())
}
