//! The operating system's disk does what the simulated one does, by which everything else is tested.

use std::io::ErrorKind;
use std::path::Path;
use wal::{Disk, DiskFile, RealDisk};

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn folders_and_names_are_made_listed_and_removed_and_synced() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("a/b");
    let (one, two) = (dir.join("one"), dir.join("two"));
    RealDisk.create_dir(&dir).expect("made");
    RealDisk.create_dir(&dir).expect("there already");
    RealDisk.create(&two, 0).expect("made");
    RealDisk.create(&one, 0).expect("made");
    assert_eq!(RealDisk.list(&dir).expect("listed"), ["one", "two"]);
    RealDisk.rename(&one, &two).expect("renamed");
    assert_eq!(RealDisk.list(&dir).expect("listed"), ["two"]);
    RealDisk.sync_dir(&dir).expect("synced");
    assert_eq!(kind(RealDisk.sync_dir(&one)), Some(ErrorKind::NotFound));
    assert_eq!(kind(RealDisk.sync_dir(&two)), Some(ErrorKind::NotADirectory));
    RealDisk.remove(&two).expect("removed");
    assert_eq!(RealDisk.list(&dir).expect("listed"), Vec::<String>::new());
    assert_eq!(kind(RealDisk.remove(&two)), Some(ErrorKind::NotFound));
}

#[test]
fn a_file_has_the_bytes_that_were_written_its_length_and_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let file = RealDisk.create(&path, 4096).expect("made");
    assert_eq!(file.bytes().expect("told"), 4096, "space is taken at once");
    file.write_at(b"some bytes", 100).expect("written");
    file.sync_data().expect("synced");
    let mut read = [1; 12];
    assert_eq!(RealDisk.open_to_read(&path).expect("opened").read_at(&mut read, 99).expect("read"), 12);
    assert_eq!(&read, b"\0some bytes\0");
    file.set_bytes(105).expect("cut");
    assert_eq!(RealDisk.open(&path).expect("opened").read_at(&mut read, 100).expect("read"), 5, "up to the end");
    assert_eq!((&read[..5], file.bytes().expect("told")), (&b"some "[..], 105));
    assert!(file.has_name().expect("told"));
    RealDisk.remove(&path).expect("removed");
    assert!(!file.has_name().expect("told"));
    assert_eq!(kind(RealDisk.open(&path)), Some(ErrorKind::NotFound), "opened is not made");
}

#[test]
fn a_lock_is_held_by_one_and_told_to_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lock");
    let is_locked = |path: &Path| RealDisk.is_locked(path).expect("told");
    assert!(!is_locked(&path), "there is none");
    let lock = RealDisk.lock(&path).expect("locked");
    assert!(is_locked(&path));
    assert_eq!(kind(RealDisk.lock(&path)), Some(ErrorKind::WouldBlock));
    assert_eq!(std::fs::read_to_string(&path).expect("read"), std::process::id().to_string());
    assert_eq!(kind(RealDisk.is_locked(&path.join("below a file"))), Some(ErrorKind::NotADirectory));
    drop(lock);
    assert!(!is_locked(&path), "it is there, and nobody has it");
    std::fs::write(&path, "1234567890123").expect("written");
    let _lock = RealDisk.lock(&path).expect("locked");
    assert_eq!(
        std::fs::read_to_string(&path).expect("read"),
        std::process::id().to_string(),
        "nothing is left of before"
    );
}

#[test]
fn a_folder_in_the_place_of_the_name_of_the_newest_segment_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    RealDisk.create_dir(&folder.path().join("newest")).expect("made");
    let options = wal::Options { segment_bytes: 8192, frame_bytes_max: 4096 };
    match wal::Wal::open(folder.path(), options, RealDisk).err() {
        Some(wal::OpenError::NotAFile { path }) => assert_eq!(path, folder.path().join("newest")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_is_made_takes_the_place_of_a_link_and_not_of_what_it_leads_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let (other, path) = (folder.path().join("other"), folder.path().join("file"));
    std::fs::write(&other, b"somebody's").expect("written");
    for link_to in [&other, &folder.path().join("nowhere")] {
        std::os::unix::fs::symlink(link_to, &path).expect("linked");
        RealDisk.create(&path, 0).expect("made").write_at(b"ours", 0).expect("written");
        assert!(!path.is_symlink() && std::fs::read(&path).expect("read") == b"ours");
        std::fs::remove_file(&path).expect("removed");
    }
    std::os::unix::fs::symlink(&other, &path).expect("linked");
    assert!(RealDisk.lock(&path).is_err(), "a lock that leads elsewhere is none");
    assert_eq!(std::fs::read(&other).expect("read"), b"somebody's");
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(&path).expect("made");
    assert_eq!(kind(RealDisk.create(&path, 0)), Some(ErrorKind::IsADirectory));
}
