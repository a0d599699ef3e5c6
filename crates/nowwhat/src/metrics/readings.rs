//! What the metrics say at one moment, for a service that shows its own numbers: the same ones that Prometheus reads.

use super::{Registry, SharedRegistry};
use prometheus_client::encoding::text::encode;
use std::collections::HashMap;
use std::sync::PoisonError;

/// The values of some metrics at one moment.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    series: HashMap<String, Vec<Series>>,
}

#[derive(Clone, Debug)]
struct Series {
    labels: Vec<(String, String)>,
    value: f64,
}

impl Readings {
    /// Reads the samples of these names, as they stand in the exposition: counters end in `_total`, histograms in `_bucket`.
    pub fn of(registry: &SharedRegistry, names: &[&str]) -> Self {
        Self::read(&registry.read().unwrap_or_else(PoisonError::into_inner), names)
    }

    fn read(registry: &Registry, names: &[&str]) -> Self {
        let mut text = String::new();
        encode(&mut text, registry).expect("writing to a text does not fail");
        let mut series: HashMap<String, Vec<Series>> = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            if names.contains(&name)
                && let Some(read) = sample(&line[name.len()..])
            {
                series.entry(name.to_owned()).or_default().push(read);
            }
        }
        Self { series }
    }

    /// The sum of all series of this name that have these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.with(name, labels).map(|series| series.value).sum()
    }

    /// The buckets of a histogram with these labels, by their upper bounds: how many were observed up to each.
    pub fn buckets(&self, name: &str, labels: &[(&str, &str)]) -> Buckets {
        let mut of_bounds: Vec<(f64, f64)> = Vec::new();
        for series in self.with(&format!("{name}_bucket"), labels) {
            let Some(bound) = series.label("le").and_then(|le| le.parse().ok()) else { continue };
            match of_bounds.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, count)) => *count += series.value,
                None => of_bounds.push((bound, series.value)),
            }
        }
        of_bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        Buckets(of_bounds)
    }

    fn with<'a>(&'a self, name: &str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Series> {
        let all = self.series.get(name).into_iter().flatten();
        all.filter(|series| labels.iter().all(|(label, value)| series.label(label) == Some(value)))
    }
}

impl Series {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Labels and value of a line, behind its name.
fn sample(mut rest: &str) -> Option<Series> {
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (name, value) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, behind) = quoted(value)?;
            labels.push((name.to_owned(), value));
            rest = behind;
        }
        rest = &rest[1..];
    }
    // An exemplar may come behind it.
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Series { labels, value })
}

/// A text up to its closing quote, and what comes behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// How many were observed up to each bound, of the last of which all are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    /// What was observed since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |bound: f64| earlier.0.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, count)| *count);
        Self(self.0.iter().map(|(bound, count)| (*bound, (count - before(*bound)).max(0.0))).collect())
    }

    /// How many were observed.
    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The value below which this share of them lies, as `histogram_quantile` of Prometheus reckons it: evenly spread inside a bucket, and the
    /// last bound that is a number for those beyond it. None when nothing was observed.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count();
        if rank <= 0.0 {
            return None;
        }
        let mut lower = (0.0, 0.0);
        for (bound, count) in self.0.iter().copied() {
            if count >= rank {
                let (from, below) = lower;
                let inside = (rank - below) / (count - below);
                return Some(if bound.is_finite() { from + (bound - from) * inside } else { from });
            }
            lower = (bound, count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::histogram::Histogram;

    #[test]
    fn values_are_read_by_name_and_labels_whatever_is_in_them() {
        let mut registry = Registry::default();
        let loaves = Family::<Vec<(String, String)>, Counter>::default();
        registry.register("loaves", "Loaves baked", loaves.clone());
        registry.register("loaves_sold", "Loaves sold", Counter::<u64>::default());
        let of = |kind: &str, shop: &str| {
            loaves
                .get_or_create(&vec![("kind".to_owned(), kind.to_owned()), ("shop".to_owned(), shop.to_owned())])
                .clone()
        };
        of("rye", "a \"b\", {c}\\\nd").inc_by(3);
        of("rye", "e").inc_by(4);
        of("wheat", "e").inc_by(5);
        let read = Readings::read(&registry, &["loaves_total"]);
        assert_eq!(read.sum("loaves_total", &[]), 12.0);
        assert_eq!(read.sum("loaves_total", &[("kind", "rye")]), 7.0);
        assert_eq!(read.sum("loaves_total", &[("kind", "rye"), ("shop", "a \"b\", {c}\\\nd")]), 3.0);
        assert_eq!(read.sum("loaves_sold_total", &[]), 0.0, "it was not asked for");
    }

    #[test]
    fn a_quantile_is_that_of_what_was_observed_between_two_moments() {
        let mut registry = Registry::default();
        let seconds = Histogram::new([1.0, 2.0, 4.0]);
        registry.register("seconds", "Time", seconds.clone());
        let read = || Readings::read(&registry, &["seconds_bucket"]).buckets("seconds", &[]);
        assert_eq!(read().quantile(0.5), None, "nothing yet");
        (0..1000).for_each(|_| seconds.observe(0.5));
        let before = read();
        assert_eq!(read().since(&before).quantile(0.5), None, "nothing new");
        (0..10).for_each(|_| seconds.observe(3.0));
        let between = read().since(&before);
        assert_eq!((between.count(), between.quantile(0.5)), (10.0, Some(3.0)));
        seconds.observe(100.0);
        assert_eq!(read().since(&before).quantile(1.0), Some(4.0), "more than the last bound is told as that");
    }
}
