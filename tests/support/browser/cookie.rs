//! A `Set-Cookie` line as a browser reads it: RFC 6265bis, section 5.6, and what Chromium adds.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const MOST_PAIR_BYTES: usize = 4096;
const MOST_ATTRIBUTE_BYTES: usize = 1024;
const MOST_SECONDS: i64 = 400 * 24 * 3600;

/// `SameSite`, as it is enforced: without the attribute a cookie is `Lax`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Only requests that come from the site itself.
    Strict,
    /// And navigations from elsewhere by a safe method.
    Lax,
    /// All.
    None,
}

/// A parsed line, before any rule of the jar has looked at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCookie {
    /// The name; may be empty.
    pub name: String,
    /// The value, quotes and all.
    pub value: String,
    /// When it expires, in seconds since the epoch; `None`: with the browser.
    pub expires: Option<i64>,
    /// `Domain`, without a leading dot, in lower case.
    pub domain: Option<String>,
    /// `Path`, when it begins with a slash.
    pub path: Option<String>,
    /// `Secure`.
    pub secure: bool,
    /// `HttpOnly`.
    pub http_only: bool,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Partitioned`.
    pub partitioned: bool,
}

impl SetCookie {
    /// Parses a line; `None` when a browser ignores it altogether. Each byte becomes one char (Latin-1), so that
    /// nothing is lost on the way back out.
    pub fn parse(line: &[u8], now: i64) -> Option<Self> {
        let line: String = line.iter().map(|byte| char::from(*byte)).collect();
        if line.chars().any(|c| c.is_ascii_control() && c != '\t') {
            return None;
        }
        let mut parts = line.split(';');
        let pair = parts.next().unwrap_or_default();
        let (name, value) = pair.split_once('=').unwrap_or(("", pair));
        let (name, value) = (blank_trimmed(name), blank_trimmed(value));
        if (name.is_empty() && value.is_empty()) || name.len() + value.len() > MOST_PAIR_BYTES {
            return None;
        }
        let mut cookie = Self {
            name: name.to_owned(),
            value: value.to_owned(),
            expires: None,
            domain: None,
            path: None,
            secure: false,
            http_only: false,
            same_site: SameSite::Lax,
            partitioned: false,
        };
        cookie.attributes(parts, now);
        Some(cookie)
    }

    fn attributes<'a>(&mut self, parts: impl Iterator<Item = &'a str>, now: i64) {
        let mut max_age = None;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (blank_trimmed(name), blank_trimmed(value));
            if value.len() > MOST_ATTRIBUTE_BYTES {
                continue;
            }
            match name.to_ascii_lowercase().as_str() {
                "expires" => self.expires = date(value).map(|at| at.min(now + MOST_SECONDS)).or(self.expires),
                "max-age" => max_age = seconds(value).or(max_age),
                "domain" => {
                    let domain = value.strip_prefix('.').unwrap_or(value).to_ascii_lowercase();
                    self.domain = Some(domain).filter(|domain| !domain.is_empty());
                }
                "path" => self.path = Some(value.to_owned()).filter(|path| path.starts_with('/')),
                "secure" => self.secure = true,
                "httponly" => self.http_only = true,
                "samesite" => self.same_site = same_site(value),
                "partitioned" => self.partitioned = true,
                _ => {}
            }
        }
        if let Some(seconds) = max_age {
            self.expires = Some(if seconds <= 0 { i64::MIN } else { now + seconds.min(MOST_SECONDS) });
        }
    }
}

fn blank_trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn same_site(value: &str) -> SameSite {
    match value.to_ascii_lowercase().as_str() {
        "strict" => SameSite::Strict,
        "none" => SameSite::None,
        _ => SameSite::Lax,
    }
}

fn seconds(value: &str) -> Option<i64> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(value.parse().unwrap_or(if value.starts_with('-') { i64::MIN } else { i64::MAX }))
}

/// The forgiving date of section 5.1.1: time, day, month and year in any order.
pub fn date(text: &str) -> Option<i64> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(is_delimiter).filter(|token| !token.is_empty()) {
        if time.is_none() && clock_time(token).is_some() {
            time = clock_time(token);
        } else if day.is_none() && leading_number(token, 1, 2).is_some() {
            day = leading_number(token, 1, 2);
        } else if month.is_none() && month_of(token).is_some() {
            month = month_of(token);
        } else if year.is_none() {
            year = leading_number(token, 2, 4);
        }
    }
    let year = match year? {
        year @ 70..=99 => year + 1900,
        year @ 0..=69 => year + 2000,
        year => year,
    };
    let (hour, minute, second) = time?;
    let small = |number: i64| i8::try_from(number).ok();
    let at = DateTime::new(
        i16::try_from(year).ok().filter(|year| *year >= 1601)?,
        month?,
        small(day?)?,
        small(hour)?,
        small(minute)?,
        small(second)?,
        0,
    );
    Some(at.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

fn is_delimiter(c: char) -> bool {
    matches!(c, '\t' | ' '..='/' | ';'..='@' | '['..='`' | '{'..='~')
}

fn leading_number(token: &str, least: usize, most: usize) -> Option<i64> {
    let digits = token.bytes().take_while(u8::is_ascii_digit).count();
    if (least..=most).contains(&digits) { token[..digits].parse().ok() } else { None }
}

fn clock_time(token: &str) -> Option<(i64, i64, i64)> {
    let mut fields = token.splitn(3, ':');
    let whole = |field: &str| if field.len() <= 2 { field.parse::<i64>().ok() } else { None };
    let (hour, minute) = (whole(fields.next()?)?, whole(fields.next()?)?);
    Some((hour, minute, leading_number(fields.next()?, 1, 2)?))
}

fn month_of(token: &str) -> Option<i8> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let start = token.get(..3)?.to_ascii_lowercase();
    let at = MONTHS.iter().position(|month| *month == start)?;
    i8::try_from(at + 1).ok()
}
