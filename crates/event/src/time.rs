//! Times: RFC 3339 with a zone, epoch numbers, and zoneless times in a zone that was set.
//!
//! Everything becomes microseconds since the epoch, UTC; finer digits are cut off. Years go from 0001 to 9999. A leap second
//! (`:60`) is the first moment of the next minute. In a zone, a time that a clock change skips is read with the offset before
//! the change, one that occurs twice is the earlier one ("compatible" in RFC 5545).

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

const DAY_SECONDS: i64 = 86_400;
const MICROS: i64 = 1_000_000;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z.
const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// Why a time could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// The text is no time.
    #[error("{0:?} is not a time: send RFC 3339 with a zone, such as 2026-01-31T12:00:00Z, or an epoch number")]
    Unreadable(String),
    /// The time has no zone, and none is set.
    #[error(
        "the time {0:?} has no zone: add Z or an offset such as +02:00, or send the batch with time_zone=Europe/Berlin"
    )]
    NoZone(String),
    /// The time has no zone, and none can be set.
    #[error("the time {0:?} has no zone: add Z or an offset such as +02:00")]
    NeedsZone(String),
    /// The year is not from 0001 to 9999.
    #[error("the time {0} is outside the years 0001 to 9999")]
    OutOfRange(String),
    /// The time of a CloudEvent is not RFC 3339.
    #[error("{0:?} is not a time by RFC 3339: send one with a zone, such as 2026-01-31T12:00:00Z")]
    NotRfc3339(String),
    /// The value is neither a string nor a number.
    #[error("a time is a string or a number, not {0}")]
    WrongKind(&'static str),
}

/// The zone of a name in the IANA list, such as `Europe/Berlin`, written as it is there: also what else lies in the system's folder of zones,
/// and other letters' case, would be found.
///
/// # Errors
/// A sentence, when the name is not known.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    let zone = TimeZone::get(name).ok().filter(|zone| zone.primary_iana_name().is_some());
    match zone.as_ref().and_then(TimeZone::iana_name) {
        Some(listed) if listed == name => Ok(zone.expect("it has a name")),
        Some(listed) => Err(format!("{:?} is not a time zone: write {listed}", shortened(name))),
        None => Err(format!("{:?} is not a time zone: use a name such as Europe/Berlin or UTC", shortened(name))),
    }
}

/// Reads a time with a zone of its own.
///
/// # Errors
/// [`TimeError`].
pub fn parse_time(text: &str) -> Result<i64, TimeError> {
    read_text(text, None).map_err(|error| match error {
        TimeError::NoZone(text) => TimeError::NeedsZone(text),
        other => other,
    })
}

/// RFC 3339 with `Z`; fractions only where there are some.
pub fn format_time(micros: i64) -> String {
    civil(micros).map_or_else(|| micros.to_string(), |time| format!("{time}Z"))
}

/// Reads a time from the text of a string.
pub(crate) fn read_text(text: &str, zone: Option<&TimeZone>) -> Result<i64, TimeError> {
    let unreadable = || TimeError::Unreadable(shortened(text));
    let local = Local::read(text.as_bytes()).ok_or_else(unreadable)?;
    let micros = match offset(local.rest).ok_or_else(unreadable)? {
        Some(offset_seconds) => local.micros - offset_seconds * MICROS,
        None => in_zone(&local, zone.ok_or_else(|| TimeError::NoZone(shortened(text)))?).ok_or_else(unreadable)?,
    };
    within(micros, text)
}

/// Reads a time as RFC 3339 has it and nothing else: a `T`, seconds, and `Z` or an offset of hours and minutes.
pub(crate) fn read_rfc3339(text: &str) -> Result<i64, TimeError> {
    let bytes = text.as_bytes();
    let zoned = matches!(bytes, [.., b'Z' | b'z'] | [.., b'+' | b'-', _, _, b':', _, _]);
    let strict = zoned && matches!(bytes.get(10), Some(b'T' | b't')) && !text.contains([',', ' ']);
    let read = if strict { read_text(text, None) } else { Err(TimeError::Unreadable(String::new())) };
    read.map_err(|error| match error {
        out @ TimeError::OutOfRange(_) => out,
        _ => TimeError::NotRfc3339(shortened(text)),
    })
}

/// Reads an epoch number from its text: seconds below 1e11, milliseconds below 1e14, microseconds below 1e17, else nanoseconds.
pub(crate) fn read_number(text: &str) -> Result<i64, TimeError> {
    let out = || TimeError::OutOfRange(shortened(text));
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = if digits.contains(['e', 'E']) {
        let value: f64 = digits.parse().map_err(|_| out())?;
        if value >= 1e21 {
            return Err(out());
        }
        (value.trunc() as i128, (value.fract() * 1e9) as i128)
    } else {
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let nine: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        (whole.parse().map_err(|_| out())?, nine.parse().map_err(|_| out())?)
    };
    let billionths = whole.checked_mul(1_000_000_000).and_then(|w| w.checked_add(fraction)).ok_or_else(out)?;
    // Billionths of the unit in a microsecond: seconds, milli-, micro- or nanoseconds by size.
    let in_a_micro = match whole.unsigned_abs() {
        n if n < 100_000_000_000 => 1_000,
        n if n < 100_000_000_000_000 => 1_000_000,
        n if n < 100_000_000_000_000_000 => 1_000_000_000,
        _ => 1_000_000_000_000,
    };
    let micros = billionths / in_a_micro;
    let signed = if negative { -micros } else { micros };
    within(i64::try_from(signed).map_err(|_| out())?, text)
}

fn within(micros: i64, text: &str) -> Result<i64, TimeError> {
    if RANGE.contains(&micros) { Ok(micros) } else { Err(TimeError::OutOfRange(shortened(text))) }
}

/// A date and a time of day, and what follows them.
struct Local<'a> {
    micros: i64,
    rest: &'a [u8],
}

impl<'a> Local<'a> {
    /// `YYYY-MM-DD`, a `T`, `t` or space, `HH:MM:SS`, and a fraction.
    fn read(text: &'a [u8]) -> Option<Self> {
        let (stamp, mut rest) = text.split_at_checked(19)?;
        let separators =
            [stamp[4], stamp[7], stamp[13], stamp[16]] == *b"--::" && matches!(stamp[10], b'T' | b't' | b' ');
        let number = |range: std::ops::Range<usize>| {
            stamp[range].iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
        };
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        let valid = separators && year >= 1 && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
        if !valid || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let mut micros = (days(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second) * MICROS;
        if let [b'.' | b',', fraction @ ..] = rest {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            let mut scale = MICROS / 10;
            for digit in fraction.iter().take(digits.min(6)) {
                micros += i64::from(digit - b'0') * scale;
                scale /= 10;
            }
            rest = &fraction[digits..];
        }
        Some(Self { micros, rest })
    }
}

/// The offset in seconds; `Some(None)` when there is none.
fn offset(rest: &[u8]) -> Option<Option<i64>> {
    let rest = if let [b' ', rest @ ..] = rest { rest } else { rest };
    let two = |a: u8, b: u8| {
        (a.is_ascii_digit() && b.is_ascii_digit()).then(|| i64::from(a - b'0') * 10 + i64::from(b - b'0'))
    };
    let (sign, hours, minutes) = match *rest {
        [] => return Some(None),
        [b'Z' | b'z'] => return Some(Some(0)),
        [sign @ (b'+' | b'-'), a, b] => (sign, two(a, b)?, 0),
        [sign @ (b'+' | b'-'), a, b, c, d] | [sign @ (b'+' | b'-'), a, b, b':', c, d] => (sign, two(a, b)?, two(c, d)?),
        _ => return None,
    };
    let seconds = hours * 3600 + minutes * 60;
    (hours <= 23 && minutes <= 59).then_some(Some(if sign == b'-' { -seconds } else { seconds }))
}

/// The offset alone is asked for: a `Timestamp` ends a day before the year 9999 does.
fn in_zone(local: &Local<'_>, zone: &TimeZone) -> Option<i64> {
    let civil = civil(local.micros)?;
    let (AmbiguousOffset::Unambiguous { offset }
    | AmbiguousOffset::Gap { before: offset, .. }
    | AmbiguousOffset::Fold { before: offset, .. }) = zone.to_ambiguous_timestamp(civil).offset();
    Some(local.micros - i64::from(offset.seconds()) * MICROS)
}

/// A date and a time of day, by the calendar alone.
fn civil(micros: i64) -> Option<DateTime> {
    let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
    epoch.checked_add(jiff::SignedDuration::from_micros(micros)).ok()
}

/// Days since 1970-01-01 of a proleptic Gregorian date.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The first characters of a text from outside, for what is said of it.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> i64 {
        let time: jiff::Timestamp = text.parse().expect("a time that jiff reads");
        time.as_microsecond()
    }

    #[test]
    fn rfc_3339_and_its_common_variants_are_read() {
        let noon = at("2026-01-31T12:00:00Z");
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31t12:00:00z",
            "2026-01-31 12:00:00Z",
            "2026-01-31T12:00:00+00:00",
            "2026-01-31T12:00:00+0000",
            "2026-01-31T14:00:00+02:00",
            "2026-01-31T14:00:00+02",
            "2026-01-31 07:00:00 -0500",
            "2026-01-31T12:00:00.000000999Z",
        ] {
            assert_eq!(parse_time(text), Ok(noon), "{text}");
        }
        assert_eq!(parse_time("2026-01-31T12:00:00.5Z"), Ok(noon + 500_000));
        assert_eq!(parse_time("2016-12-31T23:59:60Z"), Ok(at("2017-01-01T00:00:00Z")));
        for text in ["2026-01-31T09:45:00-02:15", "2026-01-31T17:30:00+0530", "2026-02-01T11:59:00+23:59"] {
            assert_eq!(parse_time(text), Ok(noon), "{text}");
        }
        assert_eq!(parse_time("0001-01-01T00:00:00Z"), Ok(*RANGE.start()));
        assert_eq!(parse_time("9999-12-31T23:59:59.999999Z"), Ok(*RANGE.end()));
    }

    #[test]
    fn the_calendar_knows_the_days_of_every_month_and_leap_years() {
        let is_day = |year: i64, month: i64, day: i64| {
            let text = format!("{year:04}-{month:02}-{day:02}T00:00:00Z");
            let (found, expected) = (parse_time(&text).ok(), text.parse::<jiff::Timestamp>().ok());
            assert_eq!(found, expected.map(jiff::Timestamp::as_microsecond), "{text}");
            found.is_some()
        };
        let days = |year, month| (1..=32).filter(|day| is_day(year, month, *day)).count();
        let year = |year| (1..=12).map(|month| days(year, month)).collect::<Vec<_>>();
        assert_eq!(year(2026), [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]);
        let february = [1900, 2000, 2023, 2024, 2100, 2400].map(|year| days(year, 2));
        assert_eq!(february, [28, 29, 28, 29, 28, 29]);
        assert!(!is_day(2026, 0, 1) && !is_day(2026, 13, 1) && !is_day(2026, 1, 0));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-31",
            "2026-01-31T24:00:00Z",
            "1700000000",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00Zz",
            "2026-01-31T12:00:00+1",
            "0000-01-01T00:00:00Z",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+23:60",
            "2026-01-31T12:00:00+1:30",
            "2026-01-31T12:00:00+0x:30",
            "2026-01-31T12:00:00+x1",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:61Z",
            "2026/01-31T12:00:00Z",
            "2026-01-31T12:00-00Z",
            "2026-01-31_12:00:00Z",
        ] {
            assert!(matches!(parse_time(text), Err(TimeError::Unreadable(_))), "{text}");
        }
        assert!(matches!(parse_time("0001-01-01T00:00:00+01:00"), Err(TimeError::OutOfRange(_))));
    }

    #[test]
    fn where_only_rfc_3339_counts_nothing_else_is_read() {
        let five = at("2018-04-05T17:31:00Z");
        assert!(matches!(read_rfc3339("0001-01-01T00:00:00+01:00"), Err(TimeError::OutOfRange(_))));
        for text in ["2018-04-05T17:31:00Z", "2018-04-05t18:31:00.000000000+01:00", "2018-04-05T17:31:00-00:00"] {
            assert_eq!(read_rfc3339(text), Ok(five), "{text}");
        }
        for text in [
            "",
            "Z",
            "2018-04-05 17:31:00Z",
            "2018-04-05T17:31Z",
            "2018-04-05T17:31:00",
            "2018-04-05T17:31:00 Z",
            "2018-04-05T17:31:00,5Z",
            "2018-04-05T17:31:00+05",
            "2018-04-05T17:31:00+0500",
            "2018-04-05T17:31:00+25:00",
            "1700000000",
        ] {
            assert!(matches!(read_rfc3339(text), Err(TimeError::NotRfc3339(_))), "{text}");
        }
    }

    #[test]
    fn a_zoneless_time_needs_a_zone_and_follows_its_clock_changes() {
        assert!(matches!(read_text("2026-07-01T12:00:00", None), Err(TimeError::NoZone(_))));
        let berlin = time_zone("Europe/Berlin").expect("known");
        assert_eq!(read_text("2026-07-01T12:00:00", Some(&berlin)), Ok(at("2026-07-01T10:00:00Z")));
        assert_eq!(read_text("2026-01-01 12:00:00.25", Some(&berlin)), Ok(at("2026-01-01T11:00:00.25Z")));
        assert_eq!(read_text("2026-03-29T02:30:00", Some(&berlin)), Ok(at("2026-03-29T01:30:00Z")), "skipped hour");
        assert_eq!(
            read_text("2026-10-25T02:30:00", Some(&berlin)),
            Ok(at("2026-10-25T00:30:00Z")),
            "hour that occurs twice"
        );
        // What else lies in the system's folder of zones is none.
        for name in ["Mars/Olympus", "", "posixrules", "localtime", "posix/Europe/Berlin", "right/UTC", "Etc/Unknown"] {
            let error = time_zone(name).expect_err(name);
            assert!(error.contains("use a name such as Europe/Berlin"), "{error}");
        }
        for (name, listed) in [("europe/berlin", "Europe/Berlin"), ("utc", "UTC"), ("EST5edt", "EST5EDT")] {
            assert!(time_zone(name).expect_err(name).ends_with(&format!(": write {listed}")));
        }
        for name in ["UTC", "Etc/UTC", "Asia/Calcutta", "Asia/Kolkata", "EST5EDT"] {
            assert!(time_zone(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn epoch_numbers_tell_their_unit_by_size() {
        let second = 1_700_000_000 * MICROS;
        for text in ["1700000000", "1700000000000", "1700000000000000", "1700000000000000000", "1.7e9", "1700000000.0"]
        {
            assert_eq!(read_number(text), Ok(second), "{text}");
        }
        assert_eq!(read_number("1700000000.123456789"), Ok(second + 123_456));
        assert_eq!(read_number("1700000000123.5"), Ok(second + 123_500));
        assert_eq!(read_number("-1.5"), Ok(-1_500_000));
        assert_eq!(read_number("1.5e0"), Ok(1_500_000));
        // The least of each unit, and the greatest of the one before.
        let hundred_years = 100_000_000_000_000;
        for (text, micros) in [
            ("99999999999", 99_999_999_999 * MICROS),
            ("100000000000", hundred_years),
            ("99999999999999", 99_999_999_999_999_000),
            ("100000000000000", hundred_years),
            ("99999999999999999", 99_999_999_999_999_999),
            ("100000000000000000", hundred_years),
        ] {
            assert_eq!(read_number(text), Ok(micros), "{text}");
        }
        assert_eq!(read_number("0"), Ok(0));
        assert!(matches!(read_number("1e40"), Err(TimeError::OutOfRange(_))));
        assert!(matches!(read_number("99999999999999999999999999999999999999999999"), Err(TimeError::OutOfRange(_))));
    }

    proptest! {
        #[test]
        fn every_time_comes_back_as_it_was_printed(micros in RANGE) {
            prop_assert_eq!(parse_time(&format_time(micros)), Ok(micros));
        }

        #[test]
        fn so_does_every_time_near_the_ends(from_end in 0..3 * 86_400 * MICROS) {
            for micros in [RANGE.start() + from_end, RANGE.end() - from_end] {
                prop_assert_eq!(parse_time(&format_time(micros)), Ok(micros));
            }
        }

        #[test]
        fn it_never_panics(text in "\\PC{0,40}") {
            drop(parse_time(&text));
            drop(read_rfc3339(&text));
            drop(read_number(&text));
        }
    }
}
