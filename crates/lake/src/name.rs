//! Names of data files: `received_date=<day>/<wal id>-<first>-<last>-<n>.parquet`, so that a repeated seal writes over itself.

use uuid::Uuid;

/// The range of positions whose seal made a file, from its name; none when it is not of this wal.
pub(crate) fn sealed_range(name: &str, wal: Uuid) -> Option<(u64, u64)> {
    let rest = name.strip_suffix(".parquet")?.strip_prefix(&wal.to_string())?.strip_prefix('-')?;
    let mut parts = rest.split('-').map(|part| part.parse::<u64>().ok());
    let range = (parts.next()??, parts.next()??);
    parts.next()??;
    parts.next().is_none().then_some(range)
}

/// The path of the `n`th file of a seal.
pub(crate) fn path(day: &str, wal: Uuid, range: (u64, u64), n: usize) -> String {
    format!("received_date={day}/{wal}-{}-{}-{n}.parquet", range.0, range.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_range_and_foreign_names_tell_nothing() {
        let wal = Uuid::from_u128(7);
        let path = path("2026-01-31", wal, (3, 12), 0);
        let name = path.rsplit('/').next().expect("a name");
        assert_eq!(sealed_range(name, wal), Some((3, 12)));
        assert_eq!(sealed_range(name, Uuid::from_u128(8)), None);
        assert_eq!(sealed_range("part-00001.parquet", wal), None);
        assert_eq!(sealed_range(&name.replace("-0.parquet", ".parquet"), wal), None);
    }
}
