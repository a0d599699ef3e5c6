//! The balances of `docs/METRICS.md`: read from there, and checked against what a collector tells.

use std::collections::BTreeMap;

const DOCUMENT: &str = include_str!("../../docs/METRICS.md");

/// The balances, each a line such as `a + b = c`.
pub fn balances() -> Vec<String> {
    crate::blocks(DOCUMENT, "balances").iter().flat_map(|block| block.lines()).map(str::to_owned).collect()
}

/// Which balances do not hold in a text of metrics, with their numbers.
///
/// # Panics
/// When a line of the document is no equation.
pub fn imbalances(metrics: &str) -> Vec<String> {
    let samples = samples(metrics);
    let flaw = |balance: String| {
        let (left, right) = balance.split_once(" = ").unwrap_or_else(|| panic!("no equation: {balance}"));
        match (sum(left, &samples), sum(right, &samples)) {
            (Ok(left), Ok(right)) => (left != right).then(|| format!("{balance}: {left} is not {right}")),
            (Err(name), _) | (_, Err(name)) => Some(format!("{balance}: there is no metric {name}")),
        }
    };
    balances().into_iter().filter_map(flaw).collect()
}

/// The value of each sample by its name with labels, and of each name the sum over its labels.
fn samples(metrics: &str) -> BTreeMap<&str, i128> {
    let mut samples = BTreeMap::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        // What counts events has no fractions, and no balance is about anything else.
        let Ok(value) = value.trim_end_matches(".0").parse::<i128>() else { continue };
        samples.insert(name, value);
        if let Some((family, _)) = name.split_once('{') {
            *samples.entry(family).or_insert(0) += value;
        }
    }
    samples
}

fn sum<'a>(terms: &'a str, samples: &BTreeMap<&str, i128>) -> Result<i128, &'a str> {
    let value = |term: &'a str| term.parse().ok().or_else(|| samples.get(term).copied()).ok_or(term);
    terms.split(" + ").map(value).sum()
}
