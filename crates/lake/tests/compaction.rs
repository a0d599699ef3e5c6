//! Small files become larger ones, and no reader sees a row twice or misses one.

mod common;

use common::{DAY, event, open, positions, read, rows_of, sealing_of};
use lake::{Lake, Retention};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

const HOUR: i64 = 3_600_000_000;
const SECOND: i64 = 1_000_000;

/// `seals` seals of ten events each from `first` on, one every 30 seconds from `since` on.
async fn seals(lake: &Lake, first: i64, seals: i64, since: i64) {
    for n in 0..seals {
        let (first, received) = (first + 10 * n, since + n * 30 * SECOND);
        let events =
            (0..10).map(|row| event(first + row, ["roof", "cellar"][row as usize % 2], received, received + row));
        lake.seal(sealing_of(events.collect())).await.expect("sealed");
    }
}

/// Merges all that is due at this time. Returns how many merges there were.
async fn compact(lake: &Lake, now: i64) -> usize {
    let mut merges = 0;
    while lake.compact(now).await.expect("compacted").is_some() {
        merges += 1;
    }
    merges
}

async fn maintain(lake: &Lake) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    lake.sweep(now.as_micros() as i64).await.expect("swept");
    lake.checkpoint().await.expect("a checkpoint");
}

fn names(lake: &Lake) -> Vec<String> {
    let snapshot = lake.snapshot();
    let name = |path: &str| path.rsplit('/').next().expect("a name").split('-').next().expect("a word").to_owned();
    snapshot.files.iter().map(|f| name(&f.path)).collect()
}

fn on_disk(dir: &Path) -> HashSet<String> {
    let day = dir.join("received_date=1970-01-02");
    std::fs::read_dir(day).expect("a folder").flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test]
async fn the_seals_of_an_hour_become_one_file_and_its_rows_are_written_anew_twice_at_most() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seals(&lake, 1, 40, DAY).await;
    assert_eq!(compact(&lake, DAY + HOUR / 2).await, 1, "32 at once, and 8 are too few");
    assert_eq!(names(&lake).iter().filter(|name| *name == "merged").count(), 1);
    assert_eq!(lake.snapshot().files.len(), 9);
    assert_eq!(compact(&lake, DAY + 2 * HOUR).await, 1);
    assert_eq!(names(&lake), ["hour"]);
    assert_eq!(positions(&lake), (1..=400).collect::<Vec<_>>());
    assert_eq!(compact(&lake, DAY + 100 * HOUR).await, 0, "never again");
    // The lake is as it was for the next seal, also after a restart.
    drop(lake);
    let lake = open(dir.path()).await;
    seals(&lake, 401, 1, DAY + HOUR).await;
    assert_eq!((positions(&lake), lake.snapshot().sealed), ((1..=410).collect(), 410));
}

#[tokio::test]
async fn rows_lie_in_order_of_sensor_time_and_position() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seals(&lake, 1, 16, DAY).await;
    let in_order = |lake: &Lake| {
        for file in &lake.snapshot().files {
            let rows: Vec<_> = read(&lake.snapshot().root.join(&file.path)).iter().flat_map(rows_of).collect();
            assert!(rows.is_sorted(), "{}", file.path);
        }
    };
    in_order(&lake);
    compact(&lake, DAY + 2 * HOUR).await;
    in_order(&lake);
    let file = File::open(lake.snapshot().root.join(&lake.snapshot().files[0].path)).expect("a file");
    let metadata = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").metadata().clone();
    assert!(metadata.row_group(0).sorting_columns().is_some(), "readers are told");
}

#[tokio::test]
async fn rows_whose_time_is_far_from_the_others_lie_apart() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seals(&lake, 1, 16, DAY).await;
    let late = vec![event(161, "roof", DAY + 500 * SECOND, 5), event(162, "roof", DAY + 500 * SECOND, DAY * 40_000)];
    lake.seal(sealing_of(late)).await.expect("sealed");
    compact(&lake, DAY + 2 * HOUR).await;
    let snapshot = lake.snapshot();
    let rows: Vec<u64> = snapshot.files.iter().map(|f| f.stats.rows).collect();
    assert_eq!(rows, [160, 2]);
    assert!(snapshot.files[0].stats.time.min >= Some(DAY), "{:?}", snapshot.files[0].stats.time);
    assert_eq!(positions(&lake), (1..=162).collect::<Vec<_>>());
}

#[tokio::test]
async fn seals_and_merges_at_the_same_time_lose_and_double_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    let (sealer, first, second) = (lake.clone(), lake.clone(), lake.clone());
    let (mut merges, mut others) = (0, 0);
    tokio::join!(
        async { seals(&sealer, 1, 48, DAY).await },
        // Two merges of one stale snapshot: one of them finds that its files are gone, and does nothing.
        async {
            while lake.snapshot().sealed < 480 {
                merges += compact(&first, DAY + 2 * HOUR).await;
                tokio::task::yield_now().await;
            }
        },
        async {
            while lake.snapshot().sealed < 480 {
                others += compact(&second, DAY + 2 * HOUR).await;
                tokio::task::yield_now().await;
            }
        },
    );
    assert!(merges + others > 2, "{merges} and {others} merges");
    assert_eq!(positions(&lake), (1..=480).collect::<Vec<_>>());
    let seen = lake.snapshot();
    drop((lake, sealer, first, second));
    let lake = open(dir.path()).await;
    assert_eq!(positions(&lake), (1..=480).collect::<Vec<_>>(), "also as the table itself has it");
    assert_eq!((lake.snapshot().version, lake.snapshot().sealed), (seen.version, 480));
}

#[tokio::test]
async fn what_a_killed_merge_left_is_removed() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seals(&lake, 1, 16, DAY).await;
    drop(lake);
    let before = on_disk(dir.path());
    // Written, and in its place, but in no commit.
    let whole = "merged-01890a5d-ac96-774b-bcce-b302099a8057.parquet";
    for name in [whole, "hour-01890a5d-ac96-774b-bcce-b302099a8057.parquet#0"] {
        std::fs::write(dir.path().join("received_date=1970-01-02").join(name), "x").expect("written");
    }
    let day = dir.path().join("received_date=1970-01-02");
    let hours_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    File::options().write(true).open(day.join(whole)).and_then(|f| f.set_modified(hours_ago)).expect("older");
    let lake = open(dir.path()).await;
    assert!(on_disk(dir.path()).contains(whole), "not before the start went well");
    maintain(&lake).await;
    assert_eq!(on_disk(dir.path()), before);
    assert_eq!(positions(&lake), (1..=160).collect::<Vec<_>>());
}

#[tokio::test]
async fn files_that_were_merged_stay_for_who_reads_them_also_over_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seals(&lake, 1, 16, DAY).await;
    let view = lake.snapshot();
    compact(&lake, DAY + 2 * HOUR).await;
    maintain(&lake).await;
    assert_eq!(on_disk(dir.path()).len(), 17, "an hour is not over");
    let read_before: Vec<_> = view.files.iter().flat_map(|f| read(&view.root.join(&f.path))).collect();
    assert_eq!(read_before.iter().map(|b| b.num_rows()).sum::<usize>(), 160);
    drop((lake, view));
    let lake = open(dir.path()).await;
    maintain(&lake).await;
    assert_eq!(on_disk(dir.path()).len(), 17, "nor after a restart");
    assert_eq!(positions(&lake), (1..=160).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_expires_is_gone_and_counted_and_everything_else_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seals(&lake, 1, 16, DAY).await;
    compact(&lake, DAY + 2 * HOUR).await;
    seals(&lake, 161, 4, DAY + 2 * HOUR).await;
    let age = |seconds| Retention { age_seconds: Some(seconds), bytes_max: None };
    assert!(
        lake.expire(age(7200), DAY + 2 * HOUR).await.expect("nothing to do").is_none(),
        "one event is not old enough"
    );
    let after = lake.expire(age(3600), DAY + 2 * HOUR).await.expect("expired").expect("something went");
    assert_eq!((positions(&lake), after.sealed, after.expired_rows), ((161..=200).collect(), 200, 160));
    drop((lake, after));
    let lake = open(dir.path()).await;
    assert_eq!((positions(&lake), lake.snapshot().expired_rows), ((161..=200).collect(), 160));
    // The oldest of what is left, one file: then it is small enough.
    let bytes = lake.snapshot().files.iter().map(|f| f.bytes).sum::<u64>();
    let most = Retention { age_seconds: None, bytes_max: Some(bytes - 1) };
    lake.expire(most, DAY + 2 * HOUR).await.expect("expired").expect("something went");
    seals(&lake, 201, 1, DAY + 3 * HOUR).await;
    assert_eq!((positions(&lake), lake.snapshot().expired_rows), ((171..=210).collect(), 170));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_left_and_the_others_are_merged() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seals(&lake, 1, 20, DAY).await;
    let damaged = lake.snapshot().files[3].path.clone();
    std::fs::write(dir.path().join(&damaged), "not Parquet").expect("written");
    let error = lake.compact(DAY + 2 * HOUR).await.expect_err("a file is damaged");
    assert!(error.to_string().contains(&damaged), "{error}");
    compact(&lake, DAY + 2 * HOUR).await;
    let left: Vec<_> = lake.snapshot().files.iter().map(|f| (f.path.clone(), f.stats.rows)).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&(damaged, 10)) && left.iter().any(|(_, rows)| *rows == 190), "{left:?}");
}

#[tokio::test]
async fn files_of_a_program_of_before_are_left_as_they_are() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seals(&lake, 1, 3, DAY).await;
    // Without a word about order.
    for file in &lake.snapshot().files[..2] {
        let path = lake.snapshot().root.join(&file.path);
        let batches = read(&path);
        let file = File::create(&path).expect("a file");
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batches[0].schema(), None).expect("a writer");
        writer.write(&batches[0]).expect("written");
        writer.close().expect("closed");
    }
    for _ in 0..2 {
        let error = lake.compact(DAY + 2 * HOUR).await.expect_err("it cannot be merged");
        assert!(error.to_string().contains("of a program of before"), "{error}");
    }
    assert_eq!(compact(&lake, DAY + 2 * HOUR).await, 0, "one is too few");
    assert_eq!(positions(&lake), (1..=30).collect::<Vec<_>>());
}

#[tokio::test]
async fn hour_after_hour_one_file_is_left_and_the_log_of_the_table_stays_short() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    for hour in 0..3 {
        let since = DAY + hour * HOUR;
        for part in 0..2 {
            seals(&lake, 1 + 10 * (hour * 40 + part * 20), 20, since + part * 600 * SECOND).await;
            compact(&lake, since + (part + 1) * 600 * SECOND).await;
            maintain(&lake).await;
        }
    }
    compact(&lake, DAY + 5 * HOUR).await;
    assert_eq!(names(&lake), ["hour", "hour", "hour"]);
    assert_eq!(positions(&lake), (1..=1200).collect::<Vec<_>>());
    assert!(dir.path().join("_delta_log/_last_checkpoint").exists());
    let before = lake.snapshot();
    drop(lake);
    let after = open(dir.path()).await.snapshot();
    assert_eq!((after.version, after.sealed, after.files.len()), (before.version, 1200, 3));
}
