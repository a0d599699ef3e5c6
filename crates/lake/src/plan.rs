//! Which files are merged next.
//!
//! Seals make small files, one every few seconds. Of each hour of receipt, sixteen of a seal's become one as they come, and when the hour
//! is over, all that it left becomes one: a row is written anew twice at most, and a day ends with a few dozen files.

use crate::name::{Level, level};
use crate::snapshot::LakeFile;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// So many files of seals are merged while their hour goes on.
const SEALS_MIN: usize = 16;
/// A merge reads no more files at once: each takes memory.
const FILES_MAX: usize = 32;
/// A merge makes no larger files than about this, and files of half of it are left as they are.
const BYTES_MAX: u64 = 256 << 20;
const HOUR_MICROS: i64 = 3_600_000_000;
/// An hour is over this much after its end: what was received in it is sealed.
const GRACE_MICROS: i64 = 120_000_000;

/// Files that are put together.
#[derive(Debug)]
pub(crate) struct Merge {
    /// All of one day of receipt.
    pub(crate) files: Vec<Arc<LakeFile>>,
    /// What becomes of them.
    pub(crate) level: Level,
}

/// The files of one hour of receipt that can be merged.
#[derive(Default)]
struct Hour<'a> {
    sealed: Vec<&'a Arc<LakeFile>>,
    merged: Vec<&'a Arc<LakeFile>>,
    is_over: bool,
}

impl<'a> Hour<'a> {
    /// The files that are due, and what becomes of them.
    fn due(mut self) -> Option<(Vec<&'a Arc<LakeFile>>, Level)> {
        if self.sealed.len() >= SEALS_MIN {
            return Some((self.sealed, Level::Merged));
        }
        self.merged.append(&mut self.sealed);
        (self.is_over && self.merged.len() >= 2).then_some((self.merged, Level::Hour))
    }
}

/// The next merge of these files, but for those that are `left` as they are; none when nothing is due.
pub(crate) fn next(files: &[Arc<LakeFile>], now_micros: i64, left: &HashSet<String>) -> Option<Merge> {
    let (due, level) = hours(files, now_micros, left).into_values().find_map(Hour::due)?;
    let mut bytes = 0;
    let fits = |file: &&Arc<LakeFile>| {
        bytes += file.bytes;
        bytes <= BYTES_MAX
    };
    Some(Merge { files: due.into_iter().take(FILES_MAX).take_while(fits).cloned().collect(), level })
}

/// Number of files that the coming merges take.
pub(crate) fn due(files: &[Arc<LakeFile>], now_micros: i64, left: &HashSet<String>) -> usize {
    hours(files, now_micros, left).into_values().filter_map(Hour::due).map(|(files, _)| files.len()).sum()
}

fn hours<'a>(
    files: &'a [Arc<LakeFile>],
    now_micros: i64,
    left: &HashSet<String>,
) -> BTreeMap<(&'a str, i64), Hour<'a>> {
    let mut hours: BTreeMap<(&str, i64), Hour<'_>> = BTreeMap::new();
    for file in files {
        let (Some((folder, _)), Some(received)) = (file.path.rsplit_once('/'), file.stats.received_at.max) else {
            continue;
        };
        if file.bytes >= BYTES_MAX / 2 || left.contains(&file.path) {
            continue;
        }
        let number = received.div_euclid(HOUR_MICROS);
        let Some(level) = level(&file.path).filter(|level| *level < Level::Hour) else {
            continue;
        };
        let hour = hours.entry((folder, number)).or_default();
        hour.is_over = now_micros >= (number + 1).saturating_mul(HOUR_MICROS).saturating_add(GRACE_MICROS);
        match level {
            Level::Sealed => hour.sealed.push(file),
            _ => hour.merged.push(file),
        }
    }
    hours
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name;
    use crate::stats::{FileStats, Range};
    use proptest::prelude::*;
    use std::sync::OnceLock;
    use uuid::Uuid;

    fn file(path: String, received: i64, bytes: u64) -> Arc<LakeFile> {
        let received_at = Range { min: Some(received), max: Some(received) };
        let stats = FileStats { rows: 1, received_at, ..FileStats::default() };
        Arc::new(LakeFile { path, bytes, modified_millis: 0, stats, known: OnceLock::new() })
    }

    fn sealed(position: u64, received: i64) -> Arc<LakeFile> {
        file(name::path("1970-01-01", Uuid::from_u128(1), (position, position), 0), received, 1000)
    }

    fn none_left() -> HashSet<String> {
        HashSet::new()
    }

    #[test]
    fn sixteen_seals_are_merged_while_their_hour_goes_on_and_fewer_when_it_is_over() {
        let fifteen: Vec<_> = (1..=15).map(|n| sealed(n, 1)).collect();
        assert!(next(&fifteen, HOUR_MICROS, &none_left()).is_none());
        let merge = next(&fifteen, HOUR_MICROS + GRACE_MICROS, &none_left()).expect("the hour is over");
        assert_eq!((merge.files.len(), merge.level), (15, Level::Hour));
        let sixteen: Vec<_> = (1..=16).map(|n| sealed(n, 1)).collect();
        let merge = next(&sixteen, 0, &none_left()).expect("enough");
        assert_eq!((merge.files.len(), merge.level), (16, Level::Merged));
        assert_eq!(due(&sixteen, 0, &none_left()), 16);
        let left = HashSet::from([sixteen[3].path.clone()]);
        assert!(next(&sixteen, 0, &left).is_none(), "one is left as it is");
    }

    #[test]
    fn what_is_foreign_large_or_of_another_hour_is_not_merged() {
        let large = file(name::path("1970-01-01", Uuid::from_u128(1), (1, 1), 0), 1, BYTES_MAX / 2);
        let foreign = file("received_date=1970-01-01/part-0.parquet".to_owned(), 1, 10);
        let files = vec![large, foreign, sealed(2, 1), sealed(3, HOUR_MICROS)];
        assert!(next(&files, 100 * HOUR_MICROS, &none_left()).is_none());
    }

    proptest! {
        #[test]
        fn merging_comes_to_an_end_and_writes_no_row_more_than_twice(
            seals in prop::collection::vec((0i64..3, 1u64..BYTES_MAX / 2), 0..200), now in 0i64..5,
        ) {
            let mut files: Vec<(Arc<LakeFile>, u32)> = seals.into_iter().enumerate().map(|(n, (hour, bytes))| {
                (file(name::path("1970-01-01", Uuid::from_u128(1), (n as u64, n as u64), 0), hour * HOUR_MICROS, bytes), 0)
            }).collect();
            for _ in 0..=400 {
                let plain: Vec<_> = files.iter().map(|(file, _)| file.clone()).collect();
                let Some(merge) = next(&plain, now * HOUR_MICROS, &none_left()) else { break };
                prop_assert!((2..=FILES_MAX).contains(&merge.files.len()));
                let bytes = merge.files.iter().map(|f| f.bytes).sum();
                prop_assert!(bytes <= BYTES_MAX);
                let taken = |file: &Arc<LakeFile>| merge.files.iter().any(|f| f.path == file.path);
                let times = files.iter().filter(|(file, _)| taken(file)).map(|(_, times)| times + 1).max().expect("some");
                prop_assert!(times <= 2);
                files.retain(|(file, _)| !taken(file));
                let received = merge.files[0].stats.received_at.max.expect("known");
                files.push((file(name::merged("received_date=1970-01-01", merge.level), received, bytes), times));
            }
            let plain: Vec<_> = files.into_iter().map(|(file, _)| file).collect();
            prop_assert!(next(&plain, now * HOUR_MICROS, &none_left()).is_none());
        }
    }
}
