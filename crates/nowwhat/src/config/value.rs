//! The types of settings.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A type that a setting can have.
pub trait Value: Sized {
    /// What is expected, for error messages: `a number of bytes such as 64MiB`.
    const EXPECTED: &'static str;
    /// Whether the value must never be shown.
    const SECRET: bool = false;
    /// Whether TOML writes it without quotes.
    const BARE: bool = false;
    /// Reads it; none when the text is not one.
    fn parse(text: &str) -> Option<Self>;
    /// The amount a range is checked by; none for values without an order.
    fn amount(&self) -> Option<u128> {
        None
    }
    /// The value, whose text took something from a secret: what `Debug` would show of it is masked, where the type can do that.
    fn masked(self) -> Self {
        self
    }
    /// The first element that makes a text no list of such; none for values that are no list.
    fn flawed_element(_text: &str) -> Option<FlawedElement> {
        None
    }
}

/// An element of a list that is none of what the list may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlawedElement {
    /// Which, counted from 1.
    pub position: usize,
    /// What it says.
    pub text: String,
    /// What it should be, in words.
    pub expected: &'static str,
}

macro_rules! integers {
    ($($kind:ty)*) => {$(
        impl Value for $kind {
            const EXPECTED: &'static str = "a whole number";
            const BARE: bool = true;
            fn parse(text: &str) -> Option<Self> {
                text.replace('_', "").parse().ok()
            }
            fn amount(&self) -> Option<u128> {
                u128::try_from(*self).ok()
            }
        }
    )*};
}

integers!(u16 u32 u64 usize);

impl Value for f64 {
    const EXPECTED: &'static str = "a number";
    const BARE: bool = true;
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number: &Self| number.is_finite())
    }
}

/// Values with commas between them, or a list in TOML; an empty text is an empty list.
impl<T: Value> Value for Vec<T> {
    const EXPECTED: &'static str = "a list with commas between its values";
    const SECRET: bool = T::SECRET;
    fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            Some(Self::new())
        } else {
            text.split(',').map(|item| T::parse(item.trim())).collect()
        }
    }
    fn masked(self) -> Self {
        self.into_iter().map(T::masked).collect()
    }
    fn flawed_element(text: &str) -> Option<FlawedElement> {
        let elements = text.split(',').map(str::trim).zip(1..).filter(|_| !text.trim().is_empty());
        let (text, position) = elements.into_iter().find(|(item, _)| T::parse(item).is_none())?;
        Some(FlawedElement { position, text: text.to_owned(), expected: T::EXPECTED })
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";
    const BARE: bool = true;
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a text";
    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path";
    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::from(text))
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as 127.0.0.1:4711";
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// An empty text is none.
impl<T: Value> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const SECRET: bool = T::SECRET;
    const BARE: bool = T::BARE;
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { T::parse(text).map(Some) }
    }
    fn masked(self) -> Self {
        self.map(T::masked)
    }
    fn flawed_element(text: &str) -> Option<FlawedElement> {
        T::flawed_element(text)
    }
    fn amount(&self) -> Option<u128> {
        self.as_ref().and_then(T::amount)
    }
}

/// A number of bytes: `1024`, `64KiB`, `10MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

impl Value for ByteSize {
    const EXPECTED: &'static str = "a number of bytes such as 65536 or 64KiB";
    fn parse(text: &str) -> Option<Self> {
        with_unit(text, &BYTE_UNITS).map(Self)
    }
    fn amount(&self) -> Option<u128> {
        Some(u128::from(self.0))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = BYTE_UNITS[..4].iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        match exact {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A duration in whole seconds: `15`, `15s`, `10m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u64);

const TIME_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

impl Value for Seconds {
    const EXPECTED: &'static str = "a duration such as 30s, 10m or 1h";
    fn parse(text: &str) -> Option<Self> {
        with_unit(text, &TIME_UNITS).map(Self)
    }
    fn amount(&self) -> Option<u128> {
        Some(u128::from(self.0))
    }
}

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

/// In milliseconds, with its unit: `500ms`, `15s`, `10m`, `1h`, `7d`.
impl Value for Duration {
    const EXPECTED: &'static str = "a duration such as 500ms, 30s or 10m";
    fn parse(text: &str) -> Option<Self> {
        // A number alone would be seconds to one reader and milliseconds to another.
        let has_unit = text.trim_end().ends_with(|sign: char| sign.is_ascii_alphabetic());
        has_unit.then(|| with_unit(text, &DURATION_UNITS)).flatten().map(Self::from_millis)
    }
    fn amount(&self) -> Option<u128> {
        Some(self.as_millis())
    }
}

impl Seconds {
    /// As a [`Duration`].
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

/// An address such as `postgres://user:password@host/name`. It may hold a password: its `Debug` leaves out what stands before `@`, or
/// everything when the address was made of a secret, and `config show` masks it whole.
#[derive(Clone)]
pub struct Url {
    uri: http::Uri,
    shown: Shown,
}

impl PartialEq for Url {
    fn eq(&self, other: &Self) -> bool {
        self.uri == other.uri
    }
}

impl Eq for Url {}

/// How much of an address its `Debug` shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Scheme, host, port and path.
    Place,
    Nothing,
}

impl Url {
    /// The whole address, with its password.
    pub fn reveal(&self) -> String {
        self.uri.to_string()
    }

    /// What stands before `://`.
    pub fn scheme(&self) -> &str {
        self.uri.scheme_str().unwrap_or_default()
    }

    /// Host and port, without a user.
    fn place(&self) -> &str {
        self.uri.authority().map_or("", |a| a.as_str().rsplit('@').next().unwrap_or_default())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shown {
            Shown::Place => write!(f, "{}://{}{}", self.scheme(), self.place(), self.uri.path()),
            Shown::Nothing => f.write_str("***"),
        }
    }
}

impl Value for Url {
    const EXPECTED: &'static str = "an address such as scheme://host:port/path, with a port up to 65535 or none";
    const SECRET: bool = true;
    fn parse(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok()?;
        let host = uri.host().filter(|host| uri.scheme().is_some() && !host.is_empty())?.len();
        let url = Self { uri, shown: Shown::Place };
        // A port that is none is no part of the host, and would be left out without a word.
        (url.place().len() == host || url.uri.port_u16().is_some()).then_some(url)
    }
    fn masked(self) -> Self {
        Self { shown: Shown::Nothing, ..self }
    }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, size) = units
        .iter()
        .find_map(|(unit, size)| text.strip_suffix(unit).map(|number| (number, *size)))
        .unwrap_or((text, 1));
    number.trim().replace('_', "").parse::<u64>().ok()?.checked_mul(size)
}

/// A text that is never shown: its `Debug` is `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Value for Secret {
    const EXPECTED: &'static str = "a text";
    const SECRET: bool = true;
    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_have_units() {
        let bytes = |text| ByteSize::parse(text).map(|b| b.0);
        assert_eq!(bytes("64MiB"), Some(64 << 20));
        assert_eq!(bytes("10 kB"), Some(10_000));
        assert_eq!(bytes("1_000"), Some(1000));
        assert_eq!(bytes("99999999999GiB"), None);
        assert_eq!(bytes("-1"), None);
        assert_eq!(bytes("much"), None);
        assert_eq!(Seconds::parse("10m"), Some(Seconds(600)));
        assert_eq!(Seconds::parse("1.5h"), None);
        let millis = |text| Duration::parse(text).map(|duration| duration.as_millis());
        assert_eq!([millis("500ms"), millis("3 s"), millis("2m")], [Some(500), Some(3000), Some(120_000)]);
        assert_eq!([millis("1h"), millis("7d")], [Some(3_600_000), Some(604_800_000)]);
        assert_eq!([millis("15"), millis(""), millis("ms"), millis("1.5s"), millis("99999999999999999d")], [None; 5]);
        assert!(Duration::parse("900ms").and_then(|d| d.amount()) < Duration::parse("1s").and_then(|d| d.amount()));
        assert_eq!(ByteSize(3 << 20).to_string(), "3MiB");
        assert_eq!(ByteSize(1000).to_string(), "1000");
    }

    #[test]
    fn lists_and_addresses_are_read_and_a_password_in_an_address_does_not_show() {
        assert_eq!(Vec::<u16>::parse("80, 443"), Some(vec![80, 443]));
        assert_eq!(Vec::<u16>::parse(""), Some(Vec::new()));
        assert_eq!(Vec::<u16>::parse("80, http"), None);
        assert_eq!((f64::parse("0.25"), f64::parse("NaN"), f64::parse("much")), (Some(0.25), None, None));
        let url = Url::parse("postgres://me:hidden@db.example:5432/notes?sslmode=off").expect("an address");
        assert_eq!(format!("{url:?}"), "postgres://db.example:5432/notes");
        assert_eq!(url.reveal(), "postgres://me:hidden@db.example:5432/notes?sslmode=off");
        assert_eq!([Url::parse("/notes"), Url::parse("db.example"), Url::parse("")], [None, None, None]);
        for (port, is_one) in
            [("", true), (":1", true), (":65535", true), (":65536", false), (":http", false), (":", false)]
        {
            for host in ["db.example", "[::1]", "me:hidden@db.example"] {
                let text = format!("redis://{host}{port}/0");
                assert_eq!(Url::parse(&text).is_some(), is_one, "{text}");
            }
        }
        let masked = Some(vec![url]).masked();
        assert_eq!(format!("{masked:?}"), "Some([***])");
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = Secret::parse("hidden").expect("a text");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "*** Some(***)");
    }
}
