//! Two that change the files of one snapshot: the lane lets one of them.

use super::*;
use crate::lake::{Pace, Sealing};
use crate::metrics::LakeMetrics;
use crate::plan::{self, Merge};
use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use event::FieldRules;
use uuid::Uuid;

/// The second day of the epoch, in microseconds.
const DAY: i64 = 86_400_000_000;
const HOUR: i64 = 3_600_000_000;

/// Ten events from `first` on: the even positions are the cellar's.
fn rows(first: i64) -> RecordBatch {
    let positions = first..first + 10;
    let texts = |of: fn(i64) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(positions.clone().map(of)))
    };
    let times = || {
        Arc::new(TimestampMicrosecondArray::from_iter_values(positions.clone().map(|n| DAY + n)).with_timezone("UTC"))
    };
    let columns: [(&str, ArrayRef); 8] = [
        ("position", Arc::new(Int64Array::from_iter_values(positions.clone()))),
        ("id", texts(|_| "id")),
        ("sensor", texts(|n| ["cellar", "roof"][n as usize % 2])),
        ("type", texts(|_| "reading")),
        ("time", times()),
        ("received_at", times()),
        ("data", texts(|_| "{\"t\": 1}")),
        ("attributes", texts(|_| "{}")),
    ];
    RecordBatch::try_from_iter(columns).expect("the columns fit")
}

async fn open(dir: &Path) -> Lake {
    let (schema, wal) = (rows(1).schema(), Uuid::from_u128(0x1234));
    Lake::open(dir, &schema, wal, FieldRules::default(), LakeMetrics::default()).await.expect("the lake opens")
}

/// Sixteen seals of ten events each.
async fn sixteen_seals(dir: &Path) -> Lake {
    let lake = open(dir).await;
    for first in (1..=160).step_by(10) {
        let batches = vec![rows(first)];
        lake.seal(Sealing { first: first as u64, last: first as u64 + 9, batches, pace: Pace::Pressed })
            .await
            .expect("sealed");
    }
    lake
}

/// The positions of all rows in the files that the lake names, sorted.
fn positions(lake: &Lake) -> Vec<i64> {
    let snapshot = lake.snapshot();
    let mut positions = Vec::new();
    for file in &snapshot.files {
        let file = File::open(snapshot.root.join(&file.path)).expect("a file");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|b| b.build()).expect("Parquet");
        for rows in reader {
            let rows = rows.expect("rows");
            let column = rows.column_by_name("position").expect("a column");
            positions.extend_from_slice(column.as_primitive::<Int64Type>().values());
        }
    }
    positions.sort_unstable();
    positions
}

fn merge_of(snapshot: &Snapshot) -> Arc<Merge> {
    let merge = plan::next(&snapshot.files, DAY + 2 * HOUR, &HashSet::new()).expect("it is due");
    assert_eq!(merge.files.len(), 16);
    Arc::new(merge)
}

fn erasing() -> Erasing {
    Erasing { sensor: "cellar".to_owned(), until: 1000 }
}

/// What the table itself has, and how many data files lie there.
async fn opened_again(lake: Lake, dir: &Path) -> (Vec<i64>, usize) {
    drop(lake);
    let lake = open(dir).await;
    (positions(&lake), data_files(dir).expect("a folder").len())
}

#[tokio::test]
async fn a_merge_of_a_snapshot_before_an_erasure_brings_no_row_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = sixteen_seals(dir.path()).await;
    let before = lake.snapshot();
    let erased = lake.erase_from(&before.files[3], &erasing()).await.expect("erased").expect("it had rows");
    assert_eq!((erased.expired_rows, erased.erased_rows), (5, 5));
    let after = lake.merge(merge_of(&before)).await.expect("nothing is done");
    assert_eq!((after.version, after.files.len()), (erased.version, 16), "it found a file gone");
    let left: Vec<i64> = (1..=160).filter(|n| !(31..=40).contains(n) || n % 2 == 1).collect();
    assert_eq!(positions(&lake), left);
    assert_eq!(opened_again(lake, dir.path()).await, (left, 17), "and left nothing behind");
}

#[tokio::test]
async fn an_erasure_of_a_snapshot_before_a_merge_doubles_no_row_and_goes_on_with_the_newer_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = sixteen_seals(dir.path()).await;
    let before = lake.snapshot();
    let merged = lake.merge(merge_of(&before)).await.expect("merged");
    let after = lake.erase_from(&before.files[3], &erasing()).await.expect("nothing is done").expect("it had rows");
    assert_eq!((after.version, after.erased_rows), (merged.version, 0), "it found the file gone");
    assert_eq!(positions(&lake), (1..=160).collect::<Vec<_>>());
    lake.erase(&erasing(), |_| {}).await.expect("erased");
    let roof: Vec<i64> = (1..=160).step_by(2).collect();
    assert_eq!((positions(&lake), lake.snapshot().erased_rows), (roof.clone(), 80));
    assert_eq!(opened_again(lake, dir.path()).await.0, roof);
}

#[tokio::test]
async fn of_two_merges_of_one_snapshot_one_is_made() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = sixteen_seals(dir.path()).await;
    let before = lake.snapshot();
    let first = lake.merge(merge_of(&before)).await.expect("merged");
    let second = lake.merge(merge_of(&before)).await.expect("nothing is done");
    assert_eq!((second.version, second.files.len()), (first.version, 1));
    assert_eq!(opened_again(lake, dir.path()).await, ((1..=160).collect(), 17));
}

#[tokio::test]
async fn of_two_erasures_of_one_snapshot_one_counts() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = sixteen_seals(dir.path()).await;
    let before = lake.snapshot();
    for _ in 0..2 {
        lake.erase_from(&before.files[3], &erasing()).await.expect("no error").expect("it had rows");
    }
    assert_eq!((positions(&lake).len(), lake.snapshot().erased_rows), (155, 5));
}

#[tokio::test]
async fn a_file_that_only_the_table_knows_is_not_taken_for_one_that_was_left_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = sixteen_seals(dir.path()).await;
    let before = lake.snapshot();
    lake.merge(merge_of(&before)).await.expect("merged");
    // As after a commit that is in, and of which an error was told.
    *lake.shared.snapshot.write().expect("unpoisoned") = before;
    let nobody = Erasing { sensor: "nobody".to_owned(), until: 1000 };
    let mut told = Vec::new();
    lake.remove_erased(&nobody, |lake| told.push(lake.files.len())).await.expect("no error");
    assert_eq!((positions(&lake), told), ((1..=160).collect::<Vec<_>>(), vec![1]));
}

#[tokio::test]
async fn a_file_of_an_hour_stays_one_and_is_merged_no_second_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = sixteen_seals(dir.path()).await;
    let merge = Merge { level: Level::Hour, ..Arc::into_inner(merge_of(&lake.snapshot())).expect("one owner") };
    lake.merge(Arc::new(merge)).await.expect("merged");
    lake.erase(&erasing(), |_| {}).await.expect("erased");
    let files = lake.snapshot().files.clone();
    assert_eq!(files.iter().map(|file| level(&file.path)).collect::<Vec<_>>(), [Some(Level::Hour)]);
    assert_eq!(positions(&lake), (1..=160).step_by(2).collect::<Vec<_>>());
}
