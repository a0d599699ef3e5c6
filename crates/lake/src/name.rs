//! Names of data files below `received_date=<day>/`: `<wal id>-<first>-<last>-<n>.parquet` of a seal, so that a repeated seal writes over
//! itself; `merged-<id>.parquet` of several seals; `hour-<id>.parquet` of all seals of an hour.

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

/// How often the rows of a file were written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// By a seal.
    Sealed,
    /// By a merge of seals.
    Merged,
    /// By a merge of all that an hour left: not again.
    Hour,
}

impl Level {
    fn prefix(self) -> &'static str {
        match self {
            Self::Sealed => "",
            Self::Merged => "merged-",
            Self::Hour => "hour-",
        }
    }
}

/// The level of the file with this path; none when the name is not one of ours.
pub(crate) fn level(path: &str) -> Option<Level> {
    let name = path.rsplit('/').next()?.strip_suffix(".parquet")?;
    for level in [Level::Merged, Level::Hour] {
        if let Some(id) = name.strip_prefix(level.prefix()) {
            return id.parse::<Uuid>().is_ok().then_some(level);
        }
    }
    sealed_by_any(&format!("{name}.parquet")).map(|_| Level::Sealed)
}

/// The range of positions whose seal made a file, of whatever wal.
pub(crate) fn sealed_by_any(name: &str) -> Option<(u64, u64)> {
    sealed_range(name, name.get(..36)?.parse().ok()?)
}

/// A new path in the folder of a day, for what a merge makes.
pub(crate) fn merged(folder: &str, level: Level) -> String {
    format!("{folder}/{}{}.parquet", level.prefix(), Uuid::now_v7())
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

    #[test]
    fn a_name_tells_its_level() {
        let day = "received_date=2026-01-31";
        assert_eq!(level(&path("2026-01-31", Uuid::from_u128(7), (3, 12), 0)), Some(Level::Sealed));
        assert_eq!(level(&merged(day, Level::Merged)), Some(Level::Merged));
        assert_eq!(level(&merged(day, Level::Hour)), Some(Level::Hour));
        for foreign in [
            "part-00001.parquet",
            "hour-1.parquet",
            "merged-.parquet",
            "x",
            "hour-00000000-0000-0000-0000-000000000007.csv",
        ] {
            assert_eq!(level(&format!("{day}/{foreign}")), None, "{foreign}");
        }
    }
}
