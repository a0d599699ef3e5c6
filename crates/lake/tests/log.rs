//! The log of the table with files that are damaged, cut, empty or gone: each is named before anything is passed over, and what the table can be
//! read without is moved aside.

mod common;

use common::{DAY, event, open, positions, sealing_of};
use lake::{Flaw, Lake};
use std::fs;
use std::path::{Path, PathBuf};

async fn seal(lake: &Lake, first: i64) {
    let events = (first..first + 10).map(|n| event(n, "roof", DAY + n, DAY + n));
    lake.seal(sealing_of(events.collect())).await.expect("sealed");
}

/// A lake of 50 events in versions 1 to 5, with a checkpoint of version 2, and with one of version 4 when the history is kept.
async fn filled(dir: &Path) -> Lake {
    let lake = open(dir).await;
    for first in [1, 11] {
        seal(&lake, first).await;
    }
    lake.forget_history().await.expect("a checkpoint of version 2");
    for first in [21, 31, 41] {
        seal(&lake, first).await;
    }
    lake
}

fn of_log(dir: &Path, name: &str) -> PathBuf {
    dir.join("_delta_log").join(name)
}

fn commit(dir: &Path, version: u64) -> PathBuf {
    of_log(dir, &format!("{version:020}.json"))
}

fn checkpoint(dir: &Path) -> PathBuf {
    of_log(dir, "00000000000000000002.checkpoint.parquet")
}

/// What is told of the log, and that a look says the same of its first.
async fn named(dir: &Path) -> Vec<(String, String)> {
    let flaws: Vec<Flaw> = lake::flaws(dir).expect("it can be looked at");
    let looked = lake::look(dir).await.map(|snapshot| snapshot.version).map_err(|error| error.to_string());
    match flaws.iter().find(|flaw| flaw.is_needed) {
        None => assert!(looked.is_ok(), "{looked:?}"),
        Some(flaw) => {
            let told = looked.expect_err("it cannot be read");
            let begin = format!("{} is damaged: {}", flaw.path.display(), flaw.what);
            assert!(told.starts_with(&begin) && told.contains("`catchment inspect repair`"), "{told}");
        }
    }
    let name = |flaw: &Flaw| flaw.path.file_name().expect("a name").to_string_lossy().into_owned();
    flaws.iter().map(|flaw| (name(flaw), flaw.what.clone())).collect()
}

#[tokio::test]
async fn a_commit_that_is_gone_cut_or_empty_is_named_whatever_is_behind_it() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(filled(dir.path()).await);
    assert_eq!(named(dir.path()).await, []);
    for version in [3, 4, 5] {
        let path = commit(dir.path(), version);
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let whole = fs::read(&path).expect("a commit");
        let lines: Vec<usize> = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(n, _)| n).collect();
        for length in [0, 10, lines[0], lines[0] + 1, lines[1], whole.len() - 1] {
            fs::write(&path, &whole[..length]).expect("cut");
            let named = named(dir.path()).await;
            assert!(named.len() == 1 && named[0].0 == name, "{length} of {version}: {named:?}");
        }
        fs::write(&path, &whole).expect("whole");
    }
    fs::rename(commit(dir.path(), 4), dir.path().join("aside")).expect("moved");
    assert_eq!(named(dir.path()).await, [("00000000000000000004.json".to_owned(), "it is gone".to_owned())]);
    let mended = lake::mend_log(dir.path(), &dir.path().join("kept"));
    assert!(mended.expect_err("it is needed").to_string().contains("00000000000000000004.json"));
    fs::rename(commit(dir.path(), 3), dir.path().join("other")).expect("moved");
    let gone = "it is gone, and so are all up to version 4".to_owned();
    assert_eq!(named(dir.path()).await, [("00000000000000000003.json".to_owned(), gone)]);
}

#[tokio::test]
async fn a_table_without_its_log_is_no_new_one() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(filled(dir.path()).await);
    fs::rename(dir.path().join("_delta_log"), dir.path().join("aside")).expect("moved");
    let named = named(dir.path()).await;
    let (name, what) = named.first().expect("a flaw");
    assert!(named.len() == 1 && name == "00000000000000000000.json" && what.contains("with all of the log"), "{what}");
    assert!(!dir.path().join("_delta_log").exists());
}

#[tokio::test]
async fn a_damaged_checkpoint_is_named_and_moved_aside_when_all_before_it_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    for first in (1..400).step_by(10) {
        seal(&lake, first).await;
        lake.checkpoint().await.expect("a checkpoint now and then");
    }
    let expected = positions(&lake);
    drop(lake);
    let checkpoint = of_log(dir.path(), "00000000000000000032.checkpoint.parquet");
    let whole = fs::read(&checkpoint).expect("a checkpoint");
    for length in [0, 3, whole.len() / 2, whole.len() - 1] {
        fs::write(&checkpoint, &whole[..length]).expect("cut");
        let named = named(dir.path()).await;
        assert!(named.len() == 1 && named[0].0.ends_with("32.checkpoint.parquet"), "{named:?}");
    }
    let kept = dir.path().join("kept");
    let moved = lake::mend_log(dir.path(), &kept).expect("mended");
    assert_eq!(moved.len(), 2, "with what names it: {moved:?}");
    assert_eq!(fs::read(kept.join(checkpoint.file_name().expect("a name"))).expect("kept").len(), whole.len() - 1);
    assert_eq!(named(dir.path()).await, []);
    assert_eq!(positions(&open(dir.path()).await), expected);
}

#[tokio::test]
async fn a_checkpoint_without_which_nothing_can_be_read_stays_and_one_that_is_gone_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(filled(dir.path()).await);
    let whole = fs::read(checkpoint(dir.path())).expect("a checkpoint");
    fs::write(checkpoint(dir.path()), &whole[..100]).expect("cut");
    let kept = dir.path().join("kept");
    let refused = lake::mend_log(dir.path(), &kept).expect_err("it is needed").to_string();
    assert!(refused.contains("00000000000000000002.checkpoint.parquet"), "{refused}");
    assert!(checkpoint(dir.path()).exists() && !kept.exists(), "nothing was changed");
    fs::remove_file(checkpoint(dir.path())).expect("removed");
    let named = named(dir.path()).await;
    assert_eq!(named.len(), 2, "{named:?}");
    assert_eq!(named[0].1, "it is gone, and so are all up to version 1");
    assert_eq!(
        named[1],
        ("_last_checkpoint".to_owned(), "it names the checkpoint of version 2, which is not there".to_owned())
    );
}

#[tokio::test]
async fn what_is_damaged_and_nothing_needs_is_told_and_moved_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let lake = open(dir.path()).await;
    for first in (1..400).step_by(10) {
        seal(&lake, first).await;
        lake.checkpoint().await.expect("a checkpoint now and then");
    }
    drop(lake);
    fs::write(commit(dir.path(), 7), "").expect("emptied");
    fs::write(of_log(dir.path(), "_last_checkpoint"), "{").expect("cut");
    let flaws = lake::flaws(dir.path()).expect("looked at");
    assert_eq!(flaws.iter().map(|flaw| flaw.is_needed).collect::<Vec<_>>(), [false, true], "{flaws:?}");
    assert_eq!(lake::mend_log(dir.path(), &dir.path().join("kept")).expect("mended").len(), 2);
    assert_eq!(positions(&open(dir.path()).await), (1..=400).collect::<Vec<_>>());
}

#[tokio::test]
async fn events_of_a_newest_version_that_is_gone_are_told_kept_and_taken_in_again() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(filled(dir.path()).await);
    fs::remove_file(commit(dir.path(), 5)).expect("removed");
    fs::remove_file(commit(dir.path(), 4)).expect("removed");
    let unnamed = lake::unnamed(&lake::look(dir.path()).await.expect("version 3")).expect("listed");
    assert_eq!(unnamed.iter().map(|(_, first, last)| (*first, *last)).collect::<Vec<_>>(), [(31, 40), (41, 50)]);
    let lake = open(dir.path()).await;
    assert_eq!(positions(&lake), (1..=30).collect::<Vec<_>>());
    let taken = lake.take_in().await.expect("taken in");
    assert_eq!(taken.iter().map(|taken| taken.positions).collect::<Vec<_>>(), [(31, 40), (41, 50)]);
    assert_eq!(positions(&lake), (1..=50).collect::<Vec<_>>());
    assert_eq!(lake.snapshot().sealed, 50);
    drop(lake);
    // Of a seal that cannot be read as a whole nothing is taken in.
    let lake = open(dir.path()).await;
    seal(&lake, 51).await;
    let version = lake.snapshot().version;
    let file = lake.snapshot().root.join(&lake.snapshot().files.last().expect("a file").path);
    drop(lake);
    fs::remove_file(commit(dir.path(), version)).expect("removed");
    let whole = fs::read(&file).expect("a file");
    fs::write(&file, &whole[..whole.len() / 2]).expect("cut");
    let lake = open(dir.path()).await;
    assert!(lake.take_in().await.expect("nothing").is_empty() && file.exists());
    assert_eq!(positions(&lake), (1..=50).collect::<Vec<_>>());
}
