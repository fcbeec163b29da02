//! The date in `Expires` as browsers read it (RFC 6265bis section 5.1.1): far more lenient than any date format, because apps
//! write `GMT`, `UTC` and `+0000`, one digit or two, and days of the week or none.

use super::Moment;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
/// A browser takes an earlier year for nonsense: the calendar in use begins here.
const FIRST_YEAR: u64 = 1601;
const MS_PER_DAY: u64 = 86_400_000;

/// What was found so far.
#[derive(Default)]
struct Found {
    time: Option<[u64; 3]>,
    day: Option<u64>,
    month: Option<u64>,
    year: Option<u64>,
}

/// Reads a date; `None` when a browser would ignore it. What lies before 1970 is the beginning of 1970.
#[must_use]
pub(super) fn read_cookie_date(text: &str) -> Option<Moment> {
    let mut found = Found::default();
    text.split(is_delimiter).filter(|token| !token.is_empty()).for_each(|token| found.take(token));
    found.moment()
}

fn is_delimiter(letter: char) -> bool {
    matches!(letter, '\t' | '\x20'..='\x2f' | '\x3b'..='\x40' | '\x5b'..='\x60' | '\x7b'..='\x7e')
}

impl Found {
    /// Each token is the first thing that is still missing and that it can be.
    fn take(&mut self, token: &str) {
        if self.time.is_none()
            && let Some(time) = time_of(token)
        {
            self.time = Some(time);
        } else if self.day.is_none()
            && let Some(day) = number(token, 1..=2)
        {
            self.day = Some(day);
        } else if self.month.is_none()
            && let Some(month) = month_of(token)
        {
            self.month = Some(month);
        } else if self.year.is_none() {
            self.year = number(token, 2..=4).map(full_year);
        }
    }

    fn moment(&self) -> Option<Moment> {
        let ([hour, minute, second], day, month, year) = (self.time?, self.day?, self.month?, self.year?);
        let exists = year >= FIRST_YEAR && (1..=days_in(year, month)).contains(&day);
        if !exists || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days_before(year, month) + day - 1;
        let of_day = ((hour * 60 + minute) * 60 + second) * 1000;
        Some(Moment::from_unix_ms(
            days.checked_sub(days_before(1970, 1)).map_or(0, |d| d * MS_PER_DAY + of_day),
        ))
    }
}

/// The number at the beginning, when it has so many digits and no more.
fn number(token: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let end = token.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(token.len());
    digits.contains(&end).then(|| token[..end].parse().ok()).flatten()
}

fn time_of(token: &str) -> Option<[u64; 3]> {
    let mut parts = token.splitn(3, ':');
    let whole = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| number(part, 1..=2)).flatten();
    // Only behind the seconds may something else follow.
    Some([whole(parts.next()?)?, whole(parts.next()?)?, number(parts.next()?, 1..=2)?])
}

fn month_of(token: &str) -> Option<u64> {
    let head = token.get(..3)?;
    (1..).zip(MONTHS).find(|(_, name)| head.eq_ignore_ascii_case(name)).map(|(month, _)| month)
}

const fn full_year(year: u64) -> u64 {
    match year {
        0..=69 => year + 2000,
        70..=99 => year + 1900,
        _ => year,
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the beginning of the year 1 to that of the month.
fn days_before(year: u64, month: u64) -> u64 {
    let past = year - 1;
    past * 365 + past / 4 - past / 100
        + past / 400
        + (1..month).map(|month| days_in(year, month)).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Option<u64> {
        read_cookie_date(text).map(|moment| moment.unix_ms())
    }

    #[test]
    fn dates_are_read_as_browsers_read_them() {
        for (text, wanted) in [
            ("Thu, 01 Jan 1970 00:00:01 GMT", Some(1000)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777_000)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777_000)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777_000)),
            ("6 nov 1994 8:49:37 +0000", Some(784_111_777_000)),
            ("Tue, 29 Feb 2000 12:00:00 UTC", Some(951_825_600_000)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799_000)),
            ("1 Jan 1900 00:00:00", Some(0)),
            ("1 Jan 1600 00:00:00", None),
            ("31 Feb 2000 00:00:00", None),
            ("1 Jan 2000 24:00:00", None),
            ("1 Jan 2000 0:00", None),
            ("1 Jan 20000 0:00:00", None),
            ("0", None),
            ("", None),
        ] {
            assert_eq!(ms(text), wanted, "{text}");
        }
    }
}
