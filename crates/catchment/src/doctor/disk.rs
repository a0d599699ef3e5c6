//! The folder and its disk: whose it is, how much is free, how long an fsync takes and whether it can be believed.

use super::Finding;
use crate::room::Disk;
use rustix::fs::statfs;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Groups written and synced, as the wal does.
const SYNCS: usize = 200;
const SYNC_BYTES: usize = 4096;
/// No disk without a cache that outlives a power cut takes less for it.
const SYNC_MIN: Duration = Duration::from_micros(40);
/// From here on groups are held up more by the disk than by anything else.
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// Until that time is over, or all are done.
const PATIENCE: Duration = Duration::from_secs(5);
const STREAM_BYTES: usize = 64 << 20;
/// The wal and a seal find room in it for a while; with less free somebody should look.
const FREE_BYTES_MIN: u64 = 2 << 30;
const FILES_FREE_MIN: u64 = 10_000;
/// With less free a disk is not measured: it may be what others need.
const MEASURED_FREE_MIN: u64 = 1 << 30;
/// About what the databases of a new folder take. With less none starts over it, and an older one is about to turn events away.
const START_BYTES: usize = 256 << 10;

/// Numbers of file systems (`statfs`), and whether what is synced there outlives a restart of the machine.
const FILE_SYSTEMS: [(i64, &str, Keeps); 11] = [
    (0xef53, "ext4", Keeps::Yes),
    (0x5846_5342, "xfs", Keeps::Yes),
    (0x9123_683e, "btrfs", Keeps::Yes),
    (0x2fc1_2fc1, "zfs", Keeps::Yes),
    (0xf2f5_2010, "f2fs", Keeps::Yes),
    (0x0102_1994, "tmpfs", Keeps::No),
    (0x8584_58f6, "ramfs", Keeps::No),
    (0x794c_7630, "overlay", Keeps::Unsure("of a container: what is written there goes with it, use a volume")),
    (0x6969, "nfs", Keeps::Unsure("a network's: it has to be mounted `hard`, and locks have to work")),
    (0xff53_4d42, "cifs", Keeps::Unsure("a network's: whether an fsync reaches its disk is up to its server")),
    (0x6573_5546, "fuse", Keeps::Unsure("of a program: whether an fsync reaches a disk is up to it")),
];

#[derive(Clone, Copy)]
enum Keeps {
    Yes,
    No,
    Unsure(&'static str),
}

/// Of the folder, or of the nearest one above that is there.
pub(super) fn findings(dir: &Path) -> Vec<Finding> {
    let (mut findings, place) = match fs::metadata(dir) {
        Ok(found) if found.is_dir() => (vec![folder(dir, &found)], dir.to_path_buf()),
        Ok(_) => return vec![Finding::bad("folder", format!("{} is no folder", dir.display()))],
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let Some(above) = nearest(dir) else {
                return vec![Finding::bad("folder", format!("{}: {error}", dir.display()))];
            };
            if !above.is_dir() {
                let text =
                    format!("{} is a link to what is not there: make that folder, or remove the link", above.display());
                return vec![Finding::bad("folder", text)];
            }
            let text = format!("{} is not there yet: the start makes it in {}", dir.display(), above.display());
            (vec![Finding::good("folder", text)], above)
        }
        Err(error) => return vec![Finding::bad("folder", format!("{}: {error}", dir.display()))],
    };
    findings.push(file_system(&place));
    let disk = Disk::below(&place);
    findings.push(room(&disk));
    if disk.is_ok_and(|disk| disk.free_bytes < MEASURED_FREE_MIN) {
        let little = "not measured, so that what is left of it stays: less than 1 GiB is free";
        let found = synced(&place, START_BYTES).map(|()| Finding::look("disk", little));
        findings.push(found.unwrap_or_else(|error| unwritable(&place, &error)));
        return findings;
    }
    findings.extend(match measured(&place) {
        Ok((syncs, stream)) => vec![fsync(&place, syncs), throughput(stream)],
        Err(error) => vec![unwritable(&place, &error)],
    });
    findings
}

fn unwritable(place: &Path, error: &std::io::Error) -> Finding {
    Finding::bad("disk", format!("cannot write in {}: {error}", place.display()))
}

/// The nearest that is there of a folder and those above it: a folder, or a link to nowhere.
fn nearest(dir: &Path) -> Option<PathBuf> {
    let whole = std::path::absolute(dir).ok()?;
    whole.ancestors().find(|above| above.symlink_metadata().is_ok()).map(Path::to_path_buf)
}

/// A file that is gone when it is closed, however this ends.
fn passing(place: &Path) -> std::io::Result<File> {
    let path = place.join(format!(".doctor-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Whether so much can be written and synced.
fn synced(place: &Path, bytes: usize) -> std::io::Result<()> {
    let mut file = passing(place)?;
    file.write_all(&vec![0x5a; bytes])?;
    file.sync_all()
}

fn folder(dir: &Path, found: &fs::Metadata) -> Finding {
    let (mode, owner) = (found.mode() & 0o777, found.uid());
    let own = rustix::process::geteuid().as_raw();
    let text = format!("{}, mode {mode:04o}, owner {owner}", dir.display());
    if owner != own && own != 0 {
        return Finding::bad(
            "folder",
            format!("{text}, but this is user {own}: run the collector and its commands as the same user"),
        );
    }
    // Root opens everything.
    if owner != 0
        && let Some(finding) = left_by_another(dir, owner)
    {
        return finding;
    }
    if mode & 0o077 != 0 {
        return Finding::look(
            "folder",
            format!("{text}: others on this machine can look into it, `chmod 0700` keeps them out"),
        );
    }
    Finding::good("folder", text)
}

/// The first thing in the folder that is not of the folder's owner: so a run as root leaves it, and the collector cannot open it.
fn left_by_another(dir: &Path, owner: u32) -> Option<Finding> {
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            // Those are kept by commands for themselves, whoever runs them, and by a file system.
            let is_others = folder == dir && (entry.file_name() == "sensors" || entry.file_name() == "lost+found");
            let Some(found) = entry.metadata().ok().filter(|_| !is_others) else { continue };
            if found.uid() != owner {
                let (dir, path, other) = (dir.display(), entry.path(), found.uid());
                let text = format!(
                    "{dir} is of user {owner}, but {} in it of user {other}: the collector may not be able to open it; \
                     `chown -R --reference={dir} {dir}` gives all of it to the folder's owner",
                    path.display()
                );
                return Some(Finding::bad("folder", text));
            }
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    None
}

fn file_system(place: &Path) -> Finding {
    let number = match statfs(place) {
        Ok(found) => found.f_type,
        Err(error) => return Finding::look("file system", format!("cannot be told: {error}")),
    };
    match FILE_SYSTEMS.iter().find(|(known, ..)| *known == number) {
        Some((_, name, Keeps::Yes)) => Finding::good("file system", *name),
        Some((_, name, Keeps::No)) => {
            Finding::bad("file system", format!("{name}: memory, a restart of the machine loses every event"))
        }
        Some((_, name, Keeps::Unsure(why))) => Finding::look("file system", format!("{name}, {why}")),
        None => Finding::look("file system", format!("of the kind {number:#x}, which is not known here")),
    }
}

fn room(disk: &std::io::Result<Disk>) -> Finding {
    let disk = match disk {
        Ok(disk) => disk,
        Err(error) => return Finding::look("room", format!("cannot be told: {error}")),
    };
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let text = format!("{:.1} of {:.1} GiB are free", gib(disk.free_bytes), gib(disk.bytes));
    if disk.free_bytes < FREE_BYTES_MIN {
        return Finding::look(
            "room",
            format!("{text}: with less than `data.free_bytes_min` events are answered 503 `storage_full`"),
        );
    }
    match disk.files_free {
        Some(files) if files < FILES_FREE_MIN => {
            Finding::look("room", format!("{text}, but only {files} files more can be made"))
        }
        _ => Finding::good("room", text),
    }
}

/// Times of syncs after small writes, sorted; and bytes a second of a large write with its sync.
fn measured(place: &Path) -> std::io::Result<(Vec<Duration>, f64)> {
    let mut file = passing(place)?;
    let began = Instant::now();
    let mut syncs = Vec::new();
    while syncs.len() < SYNCS && began.elapsed() < PATIENCE {
        file.write_all(&[0x5a; SYNC_BYTES])?;
        let before = Instant::now();
        file.sync_data()?;
        syncs.push(before.elapsed());
    }
    syncs.sort();
    let part = vec![0x5a; 1 << 20];
    let (began, mut written) = (Instant::now(), 0);
    while written < STREAM_BYTES && began.elapsed() < PATIENCE {
        file.write_all(&part)?;
        written += part.len();
    }
    file.sync_data()?;
    Ok((syncs, written as f64 / began.elapsed().as_secs_f64()))
}

fn fsync(place: &Path, syncs: Vec<Duration>) -> Finding {
    let (median, worst) = (syncs[syncs.len() / 2], syncs[syncs.len() - 1]);
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let cache =
        write_cache(place).map(|cache| format!("; the kernel takes its cache for {cache:?}")).unwrap_or_default();
    let text = format!("{:.2} ms, {:.2} at worst, of {} groups of 4 KiB{cache}", ms(median), ms(worst), syncs.len());
    if median < SYNC_MIN {
        return Finding::look(
            "fsync",
            format!(
                "{text}: too quick for a disk. Unless its cache outlives a power cut, accepted events may not: ask who runs this machine"
            ),
        );
    }
    if median > SYNC_SLOW {
        return Finding::look("fsync", format!("{text}: slow, each answer waits as long"));
    }
    Finding::good("fsync", text)
}

/// How the kernel takes the cache of the disk below a folder: `write back` is flushed by each fsync, `write through` needs no flush.
fn write_cache(place: &Path) -> Option<String> {
    let device = fs::metadata(place).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let block = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // A partition has it in its disk.
    let queue = block.ancestors().take(2).map(|dir| dir.join("queue/write_cache")).find(|path| path.exists())?;
    Some(fs::read_to_string(queue).ok()?.trim().to_owned())
}

fn throughput(bytes_per_second: f64) -> Finding {
    let text = format!("{:.0} MiB/s written and synced", bytes_per_second / f64::from(1 << 20));
    if bytes_per_second < f64::from(20 << 20) {
        Finding::look("disk", format!("{text}: slow"))
    } else {
        Finding::good("disk", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_another_user_than_the_folder_is_found_wherever_the_collector_opens_it() {
        let dir = tempfile::tempdir().expect("a folder");
        for folder in ["lake/_delta_log", "sensors", "lost+found"] {
            fs::create_dir_all(dir.path().join(folder)).expect("made");
        }
        let own = rustix::process::geteuid().as_raw();
        fs::write(dir.path().join("lake/_delta_log/0.json"), "").expect("written");
        assert!(left_by_another(dir.path(), own).is_none());
        let told = left_by_another(dir.path(), own + 1).expect("all is of another");
        assert!(told.mark == super::super::Mark::Bad && told.text.contains("/lake in it of user"), "{told:?}");
        fs::remove_dir_all(dir.path().join("lake")).expect("removed");
        assert!(left_by_another(dir.path(), own + 1).is_none(), "commands keep tokens as whoever runs them");
    }
}
