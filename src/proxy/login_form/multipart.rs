//! `multipart/form-data` (RFC 7578) in the one form that browsers give it. Libraries are made to read what senders
//! get wrong, and of a header given twice they keep one; here any second reading must be seen and refused.

use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use memchr::memmem;
use mime::Mime;

use super::{FormFault, Found, is_utf8, same_field, utf8};

/// RFC 2046, 5.1.1, in bytes.
const MAX_BOUNDARY: usize = 70;
/// More header fields than any browser gives a part.
const MAX_HEADERS: usize = 8;

pub(super) fn read(body: &[u8], boundary: &str, field: &str, found: &mut Found) -> Result<(), FormFault> {
    for part in parts(body, boundary)? {
        let part = Part::read(part).ok_or(FormFault::Malformed)?;
        if same_field(part.name, b"_charset_") && !is_utf8(&String::from_utf8_lossy(part.value)) {
            return Err(FormFault::Charset);
        }
        if same_field(part.name, field.as_bytes()) {
            part.is_plain_text()?;
            found.add_bytes(part.value);
        }
    }
    Ok(())
}

/// The parts between the boundaries. The boundary must stand nowhere but where it separates parts.
fn parts<'b>(body: &'b [u8], boundary: &str) -> Result<Vec<&'b [u8]>, FormFault> {
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
        return Err(FormFault::Malformed);
    }
    let delimiter = format!("--{boundary}");
    let starts: Vec<usize> = memmem::find_iter(body, &delimiter).collect();
    let (Some(0), Some(last)) = (starts.first(), starts.last()) else { return Err(FormFault::Malformed) };
    if !matches!(&body[last + delimiter.len()..], b"--" | b"--\r\n") {
        return Err(FormFault::Malformed);
    }
    let between = starts.windows(2).map(|pair| &body[pair[0] + delimiter.len()..pair[1]]);
    let part = |text: &'b [u8]| text.strip_prefix(b"\r\n")?.strip_suffix(b"\r\n");
    between.map(|text| part(text).ok_or(FormFault::Malformed)).collect()
}

struct Part<'b> {
    name: &'b [u8],
    headers: Vec<httparse::Header<'b>>,
    value: &'b [u8],
}

impl<'b> Part<'b> {
    fn read(text: &'b [u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let httparse::Status::Complete((end, headers)) = httparse::parse_headers(text, &mut headers).ok()?
        else {
            return None;
        };
        let headers = headers.to_vec();
        let mut dispositions = named(&headers, CONTENT_DISPOSITION.as_str());
        let (only, None) = (dispositions.next()?, dispositions.next()) else { return None };
        let name = name_of(only)?;
        drop(dispositions);
        Some(Self { name, headers, value: &text[end..] })
    }

    fn is_plain_text(&self) -> Result<(), FormFault> {
        if named(&self.headers, "content-transfer-encoding").next().is_some() {
            return Err(FormFault::Encoded);
        }
        named(&self.headers, CONTENT_TYPE.as_str()).try_for_each(|kind| {
            let text = std::str::from_utf8(kind).map_err(|_| FormFault::Malformed)?;
            utf8(&text.parse::<Mime>().map_err(|_| FormFault::Malformed)?)
        })
    }
}

fn named<'h, 'b>(headers: &'h [httparse::Header<'b>], name: &'h str) -> impl Iterator<Item = &'b [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// `form-data; name="…"`, then perhaps `; filename="…"`. Browsers write `"` and line breaks in either as `%22`, `%0D`
/// and `%0A`, and never a backslash as an escape, so a name with a backslash has two readings.
fn name_of(disposition: &[u8]) -> Option<&[u8]> {
    let rest = disposition.trim_ascii().strip_prefix(b"form-data")?;
    let (name, rest) = quoted(rest, b"name")?;
    let rest = if rest.is_empty() { rest } else { quoted(rest, b"filename")?.1 };
    (rest.is_empty() && !name.contains(&b'\\')).then_some(name)
}

/// The value of `; key="value"` at the front, and what follows it.
fn quoted<'h>(text: &'h [u8], key: &[u8]) -> Option<(&'h [u8], &'h [u8])> {
    let text = text.strip_prefix(b";")?.trim_ascii_start();
    let text = text.strip_prefix(key)?.strip_prefix(b"=\"")?;
    let end = text.iter().position(|byte| *byte == b'"')?;
    Some((&text[..end], &text[end + 1..]))
}
