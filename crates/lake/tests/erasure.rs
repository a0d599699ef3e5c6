//! The events of one sensor go: from the table, from the disk, and from the log of the table.

mod common;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use common::{DAY, event, open, positions, read, rows_of, sealing_of};
use lake::{Erasing, Lake, Retention, View};
use parquet::arrow::ArrowWriter;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

const HOUR: i64 = 3_600_000_000;

fn cellar(until: u64) -> Erasing {
    Erasing { sensor: "cellar".to_owned(), until }
}

/// A seal of ten events from `first` on, of these sensors in turn.
async fn seal(lake: &Lake, first: i64, sensors: &[&'static str]) {
    let events = (first..first + 10).map(|n| event(n, sensors[n as usize % sensors.len()], DAY + n, DAY - n));
    lake.seal(sealing_of(events.collect())).await.expect("sealed");
}

/// The data files of the table, with their rows by sensor.
fn rows_by_sensor(lake: &Lake) -> BTreeMap<String, u64> {
    let snapshot = lake.snapshot();
    let rows = snapshot.files.iter().flat_map(|f| read(&snapshot.root.join(&f.path)));
    let mut of = BTreeMap::new();
    for (sensor, _, _) in rows.flat_map(|batch| rows_of(&batch)) {
        *of.entry(sensor).or_insert(0) += 1;
    }
    of
}

fn on_disk(dir: &Path) -> BTreeSet<String> {
    let day = dir.join("received_date=1970-01-02");
    let names = std::fs::read_dir(day).into_iter().flatten().flatten();
    names.map(|e| format!("received_date=1970-01-02/{}", e.file_name().to_string_lossy())).collect()
}

fn active(lake: &Lake) -> BTreeSet<String> {
    lake.snapshot().files.iter().map(|f| f.path.clone()).collect()
}

/// All that the log of the table says, checkpoints included.
fn log_text(dir: &Path) -> String {
    let mut text = String::new();
    for file in std::fs::read_dir(dir.join("_delta_log")).expect("a log").flatten() {
        text += &file.file_name().to_string_lossy();
        if file.path().extension().is_none_or(|e| e != "parquet") {
            text += &String::from_utf8_lossy(&std::fs::read(file.path()).expect("readable"));
            continue;
        }
        for batch in read(&file.path()) {
            for column in batch.columns() {
                let options = FormatOptions::default();
                let shown = ArrayFormatter::try_new(column, &options).expect("shown");
                (0..column.len()).for_each(|row| text += &shown.value(row).to_string());
            }
        }
    }
    text
}

async fn erase_all(lake: &Lake, erasing: &Erasing) {
    lake.erase(erasing, |_| {}).await.expect("erased");
    assert_eq!(lake.remove_erased(erasing, |_| {}).await.expect("removed"), 0);
    lake.forget_history().await.expect("forgotten");
}

#[tokio::test]
async fn nothing_of_a_sensor_is_left_and_everything_else_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    for n in 0..16 {
        seal(&lake, 1 + n * 10, &["roof", "cellar"]).await;
    }
    lake.compact(DAY + 2 * HOUR).await.expect("merged").expect("it was due");
    seal(&lake, 161, &["cellar"]).await;
    seal(&lake, 171, &["attic", "roof"]).await;
    seal(&lake, 181, &["attic", "cellar", "roof"]).await;
    let untouched = lake.snapshot().files[2].path.clone();
    assert!(log_text(dir.path()).contains("cellar"));
    let mut told = 0;
    lake.erase(&cellar(190), |_| told += 1).await.expect("erased");
    assert_eq!((told, lake.snapshot().files.len()), (3, 3), "two are written anew, one is all the cellar's");
    assert!(active(&lake).contains(&untouched));
    erase_all(&lake, &cellar(190)).await;
    let left = BTreeMap::from([("attic".to_owned(), 8), ("roof".to_owned(), 88)]);
    assert_eq!(rows_by_sensor(&lake), left);
    assert_eq!((on_disk(dir.path()), lake.snapshot().expired_rows), (active(&lake), 94));
    assert!(!log_text(dir.path()).contains("cellar"), "{}", log_text(dir.path()));
    // The table goes on, and is what it was after another opening.
    seal(&lake, 191, &["cellar"]).await;
    lake.compact(DAY + 2 * HOUR).await.expect("no error");
    let (all, snapshot) = (positions(&lake), lake.snapshot());
    drop(lake);
    let lake = open(dir.path()).await;
    assert_eq!((positions(&lake), lake.snapshot().erased_rows, lake.snapshot().sealed), (all, 94, 200));
    assert_eq!(lake.snapshot().version, snapshot.version);
}

#[tokio::test]
async fn what_came_later_stays_and_files_without_such_rows_are_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seal(&lake, 1, &["attic", "roof"]).await;
    seal(&lake, 11, &["cellar"]).await;
    seal(&lake, 21, &["cellar"]).await;
    let before: Vec<String> = lake.snapshot().files.iter().map(|f| f.path.clone()).collect();
    erase_all(&lake, &cellar(15)).await;
    assert_eq!(positions(&lake), (1..=10).chain(16..=30).collect::<Vec<_>>());
    assert!(active(&lake).contains(&before[0]) && active(&lake).contains(&before[2]));
    // Again: there is nothing to do.
    let version = lake.snapshot().version;
    erase_all(&lake, &cellar(15)).await;
    assert_eq!((lake.snapshot().version, lake.snapshot().erased_rows), (version, 5));
}

#[tokio::test]
async fn a_file_stays_as_long_as_a_reader_of_this_process_has_it_and_not_for_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seal(&lake, 1, &["cellar", "roof"]).await;
    seal(&lake, 11, &["roof"]).await;
    let (view, other) = (View::of_lake(lake.snapshot()), lake.snapshot().files[1].path.clone());
    lake.erase(&cellar(20), |_| {}).await.expect("erased");
    // What never had such rows stays for an hour.
    lake.expire(Retention { age_seconds: None, bytes_max: Some(1) }, DAY).await.expect("no error");
    assert_eq!(lake.remove_erased(&cellar(20), |_| {}).await.expect("no error"), 1);
    assert_eq!(read(&view.lake.root.join(&view.lake.files[0].path)).len(), 1, "the reader has it");
    drop(view);
    assert_eq!(lake.remove_erased(&cellar(20), |_| {}).await.expect("removed"), 0);
    let left = on_disk(dir.path());
    assert!(left.contains(&other) && left.iter().all(|path| path == &other || path.contains("merged-")), "{left:?}");
}

#[tokio::test]
async fn what_unfinished_merges_and_seals_left_goes_and_what_is_foreign_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seal(&lake, 1, &["cellar", "roof"]).await;
    let day = dir.path().join("received_date=1970-01-02");
    let wal = common::WAL;
    let left = [
        "merged-01890a5d-ac96-774b-bcce-b302099a8057.parquet".to_owned(),
        "hour-01890a5d-ac96-774b-bcce-b302099a8057.parquet#0".to_owned(),
        format!("{wal}-1-5-0.parquet"),
    ];
    let stays = [format!("{wal}-11-20-0.parquet"), format!("{wal}-11-20-0.parquet#7"), "foreign.csv".to_owned()];
    for name in left.iter().chain(&stays) {
        std::fs::write(day.join(name), "x").expect("written");
    }
    erase_all(&lake, &cellar(10)).await;
    for name in &left {
        assert!(!day.join(name).exists(), "{name}");
    }
    for name in &stays {
        assert!(day.join(name).exists(), "{name} is being sealed, or somebody else's");
    }
}

/// Writes a file of the table again as another program may have: without a word about order, with text of another type.
fn written_by_another(lake: &Lake, file: usize) {
    let path = lake.snapshot().root.join(&lake.snapshot().files[file].path);
    let batches = read(&path);
    let rows = concat_batches(&batches[0].schema(), &batches).expect("one batch");
    let order: Int64Array = (0..rows.num_rows() as i64).map(|n| (n * 7 + 3) % rows.num_rows() as i64).collect();
    let rows = take_record_batch(&rows, &order).expect("taken");
    let large = |(name, column): (&str, &ArrayRef)| {
        let column: ArrayRef = match column.as_any().downcast_ref::<StringArray>() {
            Some(texts) => Arc::new(arrow::array::LargeStringArray::from_iter(texts)),
            None => column.clone(),
        };
        (name.to_owned(), column)
    };
    let schema = rows.schema();
    let columns = schema.fields().iter().map(|f| f.name().as_str()).zip(rows.columns());
    let rows = RecordBatch::try_from_iter(columns.map(large)).expect("rows");
    let mut writer = ArrowWriter::try_new(File::create(&path).expect("a file"), rows.schema(), None).expect("a writer");
    writer.write(&rows).expect("written");
    writer.close().expect("closed");
}

#[tokio::test]
async fn files_of_other_programs_are_erased_as_well_and_put_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seal(&lake, 1, &["cellar", "attic", "roof"]).await;
    written_by_another(&lake, 0);
    erase_all(&lake, &cellar(10)).await;
    assert_eq!(rows_by_sensor(&lake), BTreeMap::from([("attic".to_owned(), 4), ("roof".to_owned(), 3)]));
    let file = lake.snapshot().root.join(&lake.snapshot().files[0].path);
    let rows: Vec<_> = read(&file).iter().flat_map(rows_of).collect();
    assert!(rows.is_sorted(), "{rows:?}");
    seal(&lake, 11, &["roof"]).await;
    lake.compact(DAY + 2 * HOUR).await.expect("it can be merged now").expect("it is due");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_fails_the_erasure_by_its_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seal(&lake, 1, &["cellar", "roof"]).await;
    let path = lake.snapshot().files[0].path.clone();
    std::fs::write(dir.path().join(&path), "not Parquet").expect("written");
    seal(&lake, 11, &["cellar", "roof"]).await;
    let error = lake.erase(&cellar(20), |_| {}).await.expect_err("nobody knows what is in it");
    assert!(error.to_string().contains(&path), "{error}");
    assert_eq!(lake.snapshot().erased_rows, 5, "of the other one they are gone");
    // Where it cannot have such rows it is nobody's affair.
    lake.erase(&Erasing { sensor: "zebra".to_owned(), until: 10 }, |_| {}).await.expect("nothing to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_seals_and_merges_an_erasure_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    for n in 0..20 {
        seal(&lake, 1 + n * 10, &["roof", "cellar"]).await;
    }
    let (sealer, merger) = (lake.clone(), lake.clone());
    tokio::join!(
        async {
            for n in 20..60 {
                seal(&sealer, 1 + n * 10, &["roof", "cellar"]).await;
            }
        },
        async {
            while merger.snapshot().sealed < 600 {
                merger.compact(DAY + 2 * HOUR).await.expect("no error");
                tokio::task::yield_now().await;
            }
        },
        async {
            for until in [50, 200, 200, 400] {
                lake.erase(&cellar(until), |_| {}).await.expect("erased");
            }
        },
    );
    lake.erase(&cellar(400), |_| {}).await.expect("erased");
    drop((sealer, merger));
    let left: Vec<i64> = (1..=600).filter(|n| n % 2 == 0 || *n > 400).collect();
    assert_eq!((positions(&lake), lake.snapshot().erased_rows), (left.clone(), 200));
    drop(lake);
    let lake = open(dir.path()).await;
    assert_eq!((positions(&lake), lake.snapshot().expired_rows), (left, 200), "also as the table itself has it");
}
