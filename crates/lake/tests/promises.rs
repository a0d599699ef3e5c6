//! What the lake promises, shown on a real folder.

mod common;

use arrow::datatypes::{DataType, Field, Schema};
use common::{DAY, WAL, event, open, positions, schema, sealing_of};
use event::FieldRules;
use lake::{Lake, LakeError, LakeMetrics, OpenError, Pace, Sealing};
use std::sync::Arc;

/// Events `first..=last`, received at one microsecond each after `received_at`.
fn rows(first: i64, last: i64, received_at: i64) -> Sealing {
    sealing_of((first..=last).map(|n| event(n, "roof", received_at + n - first, received_at + n - first)).collect())
}

fn sealing(first: i64, last: i64) -> Sealing {
    rows(first, last, DAY)
}

fn count(lake: &Lake) -> u64 {
    lake.snapshot().files.iter().map(|f| f.stats.rows).sum()
}

#[tokio::test]
async fn a_seal_is_in_once_however_often_it_is_repeated_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    lake.seal(sealing(1, 10)).await.expect("sealed");
    lake.seal(sealing(1, 10)).await.expect("sealed again");
    assert_eq!((count(&lake), lake.snapshot().sealed), (10, 10));
    drop(lake);
    let lake = open(dir.path()).await;
    lake.seal(sealing(1, 10)).await.expect("and again");
    lake.seal(sealing(11, 15)).await.expect("the next");
    assert_eq!(positions(&lake), (1..=15).collect::<Vec<_>>());
    assert_eq!((count(&lake), lake.snapshot().sealed, lake.highest_position()), (15, 15, 15));
}

#[tokio::test]
async fn at_each_pace_a_seal_writes_the_same_bytes() {
    let mut written = Vec::new();
    for pace in [Pace::Calm, Pace::Pressed] {
        let dir = tempfile::tempdir().expect("a folder");
        let lake = open(dir.path()).await;
        let snapshot = lake.seal(Sealing { pace, ..rows(1, 20_000, 2 * DAY - 5) }).await.expect("sealed");
        let bytes = |path: &str| std::fs::read(dir.path().join(path)).expect("a data file");
        written.push(snapshot.files.iter().map(|file| (file.path.clone(), bytes(&file.path))).collect::<Vec<_>>());
    }
    assert!(written[0].len() == 2 && written[0] == written[1]);
}

#[tokio::test]
async fn a_seal_that_overlaps_what_is_sealed_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    lake.seal(sealing(1, 10)).await.expect("sealed");
    let error = lake.seal(sealing(5, 12)).await.expect_err("half of it is in");
    assert!(matches!(error, LakeError::Overlap { first: 5, last: 12, sealed: 10 }), "{error}");
    assert_eq!(count(&lake), 10);
}

#[tokio::test]
async fn each_day_of_receipt_gets_its_own_file_in_its_own_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    let snapshot = lake.seal(rows(1, 10, 2 * DAY - 5)).await.expect("sealed");
    let days: Vec<&str> = snapshot.files.iter().map(|f| f.path.split('/').next().expect("a folder")).collect();
    assert_eq!(days, ["received_date=1970-01-02", "received_date=1970-01-03"]);
    let rows: Vec<u64> = snapshot.files.iter().map(|f| f.stats.rows).collect();
    assert_eq!(rows, [5, 5]);
}

#[tokio::test]
async fn what_an_unfinished_seal_left_is_removed_once_the_wal_is_known_to_have_it_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    open(dir.path()).await.seal(sealing(1, 10)).await.expect("sealed");
    let day = dir.path().join("received_date=1970-01-02");
    let put = |name: &str| std::fs::write(day.join(name), "x").expect("written");
    put(&format!("{WAL}-11-20-0.parquet"));
    put(&format!("{WAL}-11-20-0.parquet#7"));
    put("of-someone-else.parquet");
    let lake = open(dir.path()).await;
    let names = || {
        let entries = std::fs::read_dir(&day).expect("a folder").flatten();
        let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let [first, unfinished, other] =
        [format!("{WAL}-1-10-0.parquet"), format!("{WAL}-11-20-0.parquet"), "of-someone-else.parquet".to_owned()];
    assert_eq!(names(), [first.clone(), unfinished, other.clone()]);
    lake.remove_unnamed().await.expect("removed");
    assert_eq!(names(), [first, other]);
    assert_eq!(count(&lake), 10);
}

#[tokio::test]
async fn an_unfinished_seal_that_is_made_again_before_its_leftovers_go_keeps_its_file() {
    let dir = tempfile::tempdir().expect("a folder");
    open(dir.path()).await.seal(sealing(1, 10)).await.expect("sealed");
    let file = dir.path().join(format!("received_date=1970-01-02/{WAL}-11-20-0.parquet"));
    std::fs::write(&file, "x").expect("written");
    let lake = open(dir.path()).await;
    lake.seal(sealing(11, 20)).await.expect("sealed");
    lake.remove_unnamed().await.expect("removed");
    assert!(file.exists() && std::fs::metadata(&file).expect("a file").len() > 1, "the table names it");
    assert_eq!(count(&lake), 20);
}

#[tokio::test]
async fn two_lakes_over_one_folder_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let _first = open(dir.path()).await;
    let second = Lake::open(dir.path(), &schema(), WAL, FieldRules::default(), LakeMetrics::default()).await;
    assert!(matches!(second, Err(OpenError::InUse(_))));
}

#[tokio::test]
async fn a_table_with_other_columns_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(open(dir.path()).await);
    let mut fields: Vec<Field> = schema().fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.push(Field::new("more", DataType::Utf8, true));
    let opened =
        Lake::open(dir.path(), &Arc::new(Schema::new(fields)), WAL, FieldRules::default(), LakeMetrics::default())
            .await;
    let Err(error) = opened else { panic!("opened a foreign table") };
    assert!(error.to_string().contains("column more is missing"), "{error}");
}

#[tokio::test]
async fn checkpoints_are_written_and_the_lake_opens_from_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    for n in 0..40 {
        lake.seal(sealing(n * 10 + 1, n * 10 + 10)).await.expect("sealed");
        lake.checkpoint().await.expect("a checkpoint");
    }
    assert!(dir.path().join("_delta_log/_last_checkpoint").exists());
    let before = lake.snapshot().as_ref().clone();
    drop(lake);
    let after = open(dir.path()).await.snapshot();
    assert_eq!((after.sealed, count_of(&after), after.version), (400, 400, before.version));
    assert_eq!(after.files.len(), before.files.len());
    for (a, b) in after.files.iter().zip(&before.files) {
        assert_eq!((&a.path, &a.stats.position, &a.stats.sensor), (&b.path, &b.stats.position, &b.stats.sensor));
        assert!(a.stats.time.min <= b.stats.time.min && a.stats.time.max >= b.stats.time.max);
    }
}

fn count_of(snapshot: &lake::Snapshot) -> u64 {
    snapshot.files.iter().map(|f| f.stats.rows).sum()
}
