//! Data files whose bytes are not what was written: nothing of them is read, and what is whole is kept.

mod common;

use arrow::record_batch::RecordBatch;
use common::{DAY, event, open, positions, rows_of, sealing_of};
use lake::{CheckedFile, Lake};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::ChunkReader;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

async fn seal(lake: &Lake, first: i64, rows: i64) {
    // Times that do not compress.
    let time = |n: i64| DAY + n * 2_654_435_761 % 1_000_000_007;
    let events = (first..first + rows).map(|n| event(n, ["roof", "cellar"][n as usize % 2], DAY + n, time(n)));
    lake.seal(sealing_of(events.collect())).await.expect("sealed");
}

fn files(lake: &Lake) -> Vec<PathBuf> {
    let snapshot = lake.snapshot();
    snapshot.files.iter().map(|file| snapshot.root.join(&file.path)).collect()
}

/// All rows, with the page index and a filter of ids beside; an error as a text.
fn rows<R: ChunkReader + 'static>(file: R) -> Result<Vec<RecordBatch>, String> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(|e| e.to_string())?;
    let id = builder.parquet_schema().columns().iter().position(|c| c.name() == "id").expect("a column");
    let groups = builder.metadata().num_row_groups();
    for group in 0..groups {
        let filter = builder.get_row_group_column_bloom_filter(group, id).map_err(|e| e.to_string())?;
        if !filter.is_some_and(|filter| filter.check("id")) {
            return Err("the filter does not have the id".to_owned());
        }
    }
    builder.build().map_err(|e| e.to_string())?.collect::<Result<_, _>>().map_err(|e| e.to_string())
}

fn checked(path: &Path) -> Result<Vec<RecordBatch>, String> {
    rows(CheckedFile::open(path).map_err(|e| e.to_string())?)
}

fn flip(file: &File, bit: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).expect("read");
    file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).expect("written");
}

#[tokio::test]
async fn every_flipped_bit_of_a_data_file_is_an_error_or_changes_no_answer() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seal(&lake, 1, 60).await;
    let path = files(&lake).remove(0);
    let (snapshot, whole) = (lake.snapshot(), checked(&path).expect("whole"));
    assert_eq!(whole.iter().map(RecordBatch::num_rows).sum::<usize>(), 60);
    let file = File::options().read(true).write(true).open(&path).expect("the file");
    let (bits, mut told, mut plain) = (8 * file.metadata().expect("a file").len(), 0, 0);
    for bit in 0..bits {
        flip(&file, bit);
        match checked(&path) {
            Ok(found) => assert_eq!(found, whole, "bit {bit} changes what is read"),
            Err(_) => told += 1,
        }
        // What the checksums are for: without them some of these are taken for good.
        let unchecked = (bit % 64 == 5 && bit < bits / 2).then(|| File::open(&path).expect("the file"));
        if let Some(Ok(found)) = unchecked.map(|file| std::panic::catch_unwind(move || rows(file).ok()))
            && found.is_some_and(|found| found != whole)
        {
            plain += 1;
        }
        if bit % 501 == 0 {
            let damage = snapshot.files[0].damage(&snapshot.root).expect("it can be looked at");
            assert!(damage.is_some() || checked(&path).is_ok(), "bit {bit} is found by who looks");
        }
        flip(&file, bit);
    }
    assert!(plain > 0, "other rows are read without checksums");
    // Also of the name of the key itself, without which a file would be taken for one of before.
    assert_eq!(told, bits, "all are told");
    assert_eq!(snapshot.files[0].damage(&snapshot.root).expect("looked at"), None);
}

type Told = (u64, u64, u64, Vec<ToldFile>);
type ToldFile = (String, u64, lake::FileStats);

/// What is told of a table: version, what is sealed, files with what they hold.
async fn told(dir: &Path) -> Result<Told, String> {
    let snapshot = lake::look_for(dir, common::WAL).await.map_err(|e| e.to_string())?;
    let files = snapshot.files.iter().map(|file| (file.path.clone(), file.bytes, file.stats.clone())).collect();
    Ok((snapshot.version, snapshot.sealed, snapshot.expired_rows, files))
}

#[tokio::test]
async fn a_flipped_bit_of_the_log_of_the_table_is_an_error_or_changes_nothing_that_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seal(&lake, 1, 10).await;
    seal(&lake, 11, 10).await;
    lake.forget_history().await.expect("a checkpoint");
    seal(&lake, 21, 10).await;
    let whole = told(dir.path()).await.expect("whole");
    assert_eq!((whole.1, whole.3.len()), (30, 3));
    let log = std::fs::read_dir(dir.path().join("_delta_log")).expect("a log").flatten().map(|file| file.path());
    let log: Vec<PathBuf> = log.filter(|path| path.is_file()).collect();
    assert!(log.iter().any(|path| path.ends_with("00000000000000000002.checkpoint.parquet")), "{log:?}");
    for path in log {
        let file = File::options().read(true).write(true).open(&path).expect("the file");
        let bits = 8 * file.metadata().expect("a file").len();
        let mut errors = 0;
        for bit in (0..bits).step_by(if bits > 16_000 { 401 } else { 37 }) {
            flip(&file, bit);
            match told(dir.path()).await {
                Ok(found) => assert_eq!(found, whole, "bit {bit} of {}", path.display()),
                Err(_) => errors += 1,
            }
            flip(&file, bit);
        }
        let is_read = ["3.json", "2.checkpoint.parquet"].iter().any(|name| path.to_string_lossy().ends_with(name));
        assert!(errors > 0 || !is_read, "{}", path.display());
    }
    assert_eq!(told(dir.path()).await.expect("whole"), whole);
}

#[tokio::test]
async fn an_emptied_commit_is_an_error_that_names_it_and_not_a_table_without_its_events() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seal(&lake, 1, 10).await;
    drop(lake);
    let commit = dir.path().join("_delta_log/00000000000000000001.json");
    File::options().write(true).truncate(true).open(&commit).expect("a commit");
    let told = lake::look(dir.path()).await.expect_err("it is damaged").to_string();
    assert!(told.contains("00000000000000000001.json") && told.contains("it is empty"), "{told}");
}

#[tokio::test]
async fn a_file_without_checksums_is_read_as_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seal(&lake, 1, 60).await;
    let whole = checked(&files(&lake)[0]).expect("whole");
    let path = dir.path().join("of-before.parquet");
    let mut writer =
        ArrowWriter::try_new(File::create(&path).expect("made"), whole[0].schema(), None).expect("a writer");
    whole.iter().for_each(|batch| writer.write(batch).expect("written"));
    writer.close().expect("closed");
    let file = CheckedFile::open(&path).expect("opened");
    assert!(!file.check().expect("nothing to check"));
    let read = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("a reader");
    assert_eq!(read.collect::<Result<Vec<_>, _>>().expect("rows"), whole);
}

#[tokio::test]
async fn a_repair_keeps_the_row_groups_that_are_whole_and_what_went_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    seal(&lake, 1, 10).await;
    seal(&lake, 11, 300_000).await;
    let paths = files(&lake);
    let open_file =
        || ParquetRecordBatchReaderBuilder::try_new(File::open(&paths[1]).expect("a file")).expect("Parquet");
    assert_eq!(open_file().metadata().num_row_groups(), 3);
    // The first and the last one stay.
    let read = open_file().with_row_groups(vec![0, 2]).build().expect("a reader");
    let stay = read.flat_map(|batch| rows_of(&batch.expect("rows"))).map(|(_, _, position)| position);
    let stay: Vec<i64> = stay.collect();
    let (start, bytes) = open_file().metadata().row_group(1).column(4).byte_range();
    let file = File::options().read(true).write(true).open(&paths[1]).expect("the file");
    flip(&file, 8 * (start + bytes / 2));
    let damaged = std::fs::read(&paths[1]).expect("a file");

    let aside = dir.path().join("aside");
    let mended = lake.repair(&aside).await.expect("repaired");
    assert_eq!(mended.len(), 1, "{mended:?}");
    let one = &mended[0];
    assert_eq!((one.kept_rows, one.lost_rows), (stay.len() as u64, 300_000 - stay.len() as u64));
    assert_eq!(std::fs::read(one.kept_at.as_ref().expect("kept")).expect("a file"), damaged);
    let mut expected: Vec<i64> = (1..=10).chain(stay).collect();
    expected.sort_unstable();
    assert_eq!(positions(&lake), expected);
    assert!(lake.repair(&aside).await.expect("nothing to do").is_empty());

    // A footer that cannot be trusted, and a file that is gone: nothing of them can be read.
    let paths = files(&lake);
    let file = File::options().read(true).write(true).open(&paths[0]).expect("the file");
    flip(&file, 8 * (std::fs::metadata(&paths[0]).expect("a file").len() - 40));
    std::fs::remove_file(&paths[1]).expect("removed");
    let mended = lake.repair(&aside).await.expect("repaired");
    assert_eq!(
        mended.iter().map(|one| (one.kept_rows, one.kept_at.is_some())).collect::<Vec<_>>(),
        [(0, true), (0, false)]
    );
    assert!(positions(&lake).is_empty());
    seal(&lake, 300_011, 5).await;
    assert_eq!(positions(&lake), (300_011..300_016).collect::<Vec<_>>());
}
