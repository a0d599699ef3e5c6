//! What someone may have meant: "did you mean".

/// The known name that looks most like an unknown one, when it looks alike at all.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let far_max = 1 + name.len() / 4;
    // Comparing takes the product of the lengths; names that differ more in length are not alike anyway.
    let alike = known.filter(|known| known.len().abs_diff(name.len()) <= far_max);
    let distances = alike.map(|known| (distance(name, known), known));
    distances.min().filter(|(far, _)| *far <= far_max).map(|(_, known)| known)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
