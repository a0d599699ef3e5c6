//! What a client accepts, by the weights of its header `Accept` (RFC 9110, 12.5.1).

use http::{HeaderMap, header};
use std::cmp::Reverse;

/// The ranges of all headers `Accept` of a request.
#[derive(Debug)]
pub struct Ranges<'a>(Vec<Range<'a>>);

/// How much a type is wanted; of two types the greater one is wanted more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// In thousandths; with 0 it is not to be answered.
    pub quality: u16,
    exact: u8,
    /// Of types that are wanted as much the one named first is taken.
    place: Reverse<usize>,
}

/// One range, such as `text/*;q=0.5`.
#[derive(Debug)]
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    version: Option<&'a str>,
    quality: u16,
}

/// Exact enough to be a name.
const BY_NAME: u8 = 3;

impl<'a> Ranges<'a> {
    /// Those of a request.
    pub fn of(headers: &'a HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges = values.flat_map(|value| value.split(',')).filter(|range| !range.trim().is_empty());
        Self(ranges.map(Range::read).collect())
    }

    /// Whether it says nothing: then every type is as welcome.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much a type is wanted, such as `text/csv`; also one of a version, such as `text/plain; version=0.0.4`. Of the ranges that fit, the
    /// most exact one speaks, and of equally exact ones the highest.
    pub fn wanted(&self, media_type: &str) -> Wanted {
        let own = Range::read(media_type);
        let fitting = self.0.iter().enumerate().filter_map(|(place, range)| {
            let exact = range.fits(&own);
            (exact > 0).then_some(Wanted { quality: range.quality, exact, place: Reverse(place) })
        });
        fitting.max_by_key(|wanted| (wanted.exact, *wanted)).unwrap_or_default()
    }
}

impl Wanted {
    /// Whether the type is named, and not only its class or anything at all.
    pub fn is_named(self) -> bool {
        self.exact >= BY_NAME
    }
}

impl<'a> Range<'a> {
    /// A quality that cannot be read counts as 0: not wanted.
    fn read(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next().and_then(|name| name.split_once('/')).unwrap_or_default();
        let mut range = Self { kind, subtype, version: None, quality: 1000 };
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if name.eq_ignore_ascii_case("q") => range.quality = quality(value),
                name if name.eq_ignore_ascii_case("version") => range.version = Some(value),
                _ => {}
            }
        }
        range
    }

    /// How exactly it names a type: 4 with its version, 3 by name, 2 by its class, 1 as anything, 0 when it is another.
    fn fits(&self, own: &Range<'_>) -> u8 {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        match (same(self.kind, own.kind), same(self.subtype, own.subtype)) {
            (true, true) => match (self.version, own.version) {
                (Some(asked), Some(own)) => {
                    if asked == own {
                        BY_NAME + 1
                    } else {
                        0
                    }
                }
                _ => BY_NAME,
            },
            (true, false) if self.subtype == "*" => 2,
            _ if self.kind == "*" && self.subtype == "*" => 1,
            _ => 0,
        }
    }
}

fn quality(text: &str) -> u16 {
    let number = text.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q));
    number.map_or(0, |q| (q * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_range_speaks_and_of_two_types_the_weight_then_the_name_then_the_order_decides() {
        for (accept, first, second) in [
            ("text/csv, application/json;q=0.9", "text/csv", "application/json"),
            ("text/csv;q=0.1, application/json;q=0.9", "application/json", "text/csv"),
            ("application/json, */*", "application/json", "text/csv"),
            ("application/json, text/csv", "application/json", "text/csv"),
            ("text/csv, application/json", "text/csv", "application/json"),
            ("TEXT/*;q=0.5, */*;q=0.1", "text/csv", "application/json"),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("a value"))]);
            let ranges = Ranges::of(&headers);
            assert!(ranges.wanted(first) > ranges.wanted(second), "{accept}");
        }
        for accept in ["text/csv;q=0, */*", "text/*;q=0", "application/json", "text/csv;q=much", "csv"] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().expect("a value"))]);
            assert_eq!(Ranges::of(&headers).wanted("text/csv").quality, 0, "{accept}");
        }
        assert!(Ranges::of(&HeaderMap::new()).is_empty());
        assert!(Ranges::of(&HeaderMap::from_iter([(header::ACCEPT, " ,".parse().expect("a value"))])).is_empty());
    }
}
