//! Attributes that an app forgot to give its session cookie (`harden`), added on the way to the browser.

use super::profile::{Harden, SameSite};

/// `field`, a `Set-Cookie` value, with what `harden` asks for; all other bytes stay as they are. `None` when it has that
/// already. `Secure`, and `SameSite=None` which needs it, are added only where the browser came over https: it takes no
/// such cookie otherwise, and nobody could sign in.
#[must_use]
pub fn harden(field: &[u8], harden: Harden, https: bool) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = field.split(|b| *b == b';').collect();
    let has = |parts: &[&[u8]], name: &str| parts.iter().skip(1).any(|part| is_named(part, name));
    let before = parts.len();
    if harden.secure && https && !has(&parts, "secure") {
        parts.push(b" Secure");
    }
    if harden.http_only && !has(&parts, "httponly") {
        parts.push(b" HttpOnly");
    }
    let mut changed = parts.len() > before;
    let wanted = harden.same_site.filter(|same_site| https || *same_site != SameSite::None);
    let attribute = wanted.map(|same_site| format!(" SameSite={}", same_site.as_str()));
    if let Some(attribute) = &attribute {
        // Of several a browser takes the last (RFC 6265bis section 5.6.7); the app's own would only confuse.
        let same = |part: &&[u8]| part.trim_ascii().eq_ignore_ascii_case(attribute.trim().as_bytes());
        let given: Vec<_> = parts.iter().skip(1).filter(|part| is_named(part, "samesite")).copied().collect();
        if !matches!(&given[..], [one] if same(one)) {
            let mut index = 0;
            parts.retain(|part| {
                index += 1;
                index == 1 || !is_named(part, "samesite")
            });
            parts.push(attribute.as_bytes());
            changed = true;
        }
    }
    changed.then(|| parts.join(b";".as_slice()))
}

fn is_named(part: &[u8], name: &str) -> bool {
    let found = part.split(|b| *b == b'=').next().unwrap_or_default();
    found.trim_ascii().eq_ignore_ascii_case(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Harden = Harden { secure: true, http_only: true, same_site: Some(SameSite::Lax) };

    fn hardened(field: &str, options: Harden, https: bool) -> Option<String> {
        harden(field.as_bytes(), options, https).map(|field| String::from_utf8(field).unwrap())
    }

    #[test]
    fn what_is_missing_is_added_and_nothing_else_changes() {
        let same_site = |same_site| Harden { same_site: Some(same_site), ..Harden::default() };
        for (field, options, https, expected) in [
            ("sid=x", ALL, true, Some("sid=x; Secure; HttpOnly; SameSite=Lax")),
            ("sid=x", ALL, false, Some("sid=x; HttpOnly; SameSite=Lax")),
            ("sid=x; Path=/a;secure; HTTPONLY; SameSite=lax", ALL, true, None),
            ("sid=secure; Path=/", ALL, true, Some("sid=secure; Path=/; Secure; HttpOnly; SameSite=Lax")),
            (
                "sid=x; SameSite=None; Secure; Priority=High",
                same_site(SameSite::Strict),
                true,
                Some("sid=x; Secure; Priority=High; SameSite=Strict"),
            ),
            (
                "sid=x; SameSite=Strict; SameSite=Lax",
                same_site(SameSite::Lax),
                true,
                Some("sid=x; SameSite=Lax"),
            ),
            ("sid=x", same_site(SameSite::None), false, None),
            ("sid=x", Harden::default(), true, None),
        ] {
            assert_eq!(hardened(field, options, https).as_deref(), expected, "{field}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_cookie_itself_is_never_touched_and_twice_is_once(field in "[ -~]{0,60}", bits in 0..8_u8, https: bool) {
            let options = Harden {
                secure: bits & 1 != 0,
                http_only: bits & 2 != 0,
                same_site: (bits & 4 != 0).then_some(SameSite::Lax),
            };
            if let Some(once) = hardened(&field, options, https) {
                proptest::prop_assert_eq!(once.split(';').next(), field.split(';').next());
                proptest::prop_assert_eq!(hardened(&once, options, https), None);
            }
        }
    }
}
