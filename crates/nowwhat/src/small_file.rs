//! Files that are read whole: settings, secrets, certificates.
//!
//! None is read beyond [`FILE_BYTES_MAX`], so that a wrong name, `/dev/zero` or a log, costs no memory. What is no file at all, such as a
//! pipe that nobody writes to, is refused before it is opened, or read for [`READ_TIMEOUT`] at most. A file system that hangs can still hold
//! up whoever reads.

use std::fs::{File, metadata};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Largest file that is read, in bytes: 1 MiB.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;

/// How long reading may take where it can wait for somebody: a pipe at the start, all files at a reload.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// What may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readable {
    /// A regular file, also behind symbolic links.
    Regular,
    /// What says the same each time: anything but pipes and sockets.
    Again,
    /// Also a pipe, such as the shell makes of `<(…)`.
    Once,
}

/// Reads a file.
///
/// # Errors
/// The operating system's, or that it is none of what may be read, or that it is too large. The name is for the caller to say.
pub(crate) fn read(path: &Path, readable: Readable) -> Result<Vec<u8>> {
    let kind = metadata(path)?.file_type();
    let refused = |why: &str| Err(Error::new(ErrorKind::InvalidInput, why));
    match readable {
        Readable::Regular if !kind.is_file() => return refused("it is no regular file"),
        Readable::Again if kind.is_fifo() || kind.is_socket() => {
            return refused("it is a pipe, which can be read at the start only");
        }
        Readable::Once if !kind.is_file() => return within(READ_TIMEOUT, path),
        _ => {}
    }
    whole(path)
}

/// What somebody may still have to write. A reading that is given up goes on in a thread of its own until the program ends.
fn within(limit: Duration, path: &Path) -> Result<Vec<u8>> {
    let (tell, told) = sync_channel(1);
    let theirs = path.to_owned();
    // Nobody listens any more when it comes too late.
    std::thread::Builder::new().spawn(move || drop(tell.send(whole(&theirs))))?;
    let late = |_| {
        let text = format!("it did not come to its end within {limit:?}: somebody has to write to it and close it");
        Err(Error::new(ErrorKind::TimedOut, text))
    };
    told.recv_timeout(limit).unwrap_or_else(late)
}

fn whole(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!("it is larger than {FILE_BYTES_MAX} bytes, the most that is read");
        return Err(Error::new(ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Reads a file of text.
///
/// # Errors
/// Those of [`read`], and that it is not UTF-8.
pub(crate) fn read_text(path: &Path, readable: Readable) -> Result<String> {
    let text = String::from_utf8(read(path, readable)?);
    text.map_err(|_| Error::new(ErrorKind::InvalidData, "it is no text of UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_read_up_to_the_limit_also_behind_a_link_and_not_beyond_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        symlink(&file, &link).expect("a link");
        std::fs::write(&file, vec![b'x'; FILE_BYTES_MAX as usize]).expect("written");
        assert_eq!(read(&link, Readable::Regular).expect("read").len() as u64, FILE_BYTES_MAX);
        std::fs::write(&file, vec![b'x'; FILE_BYTES_MAX as usize + 1]).expect("written");
        let error = read(&link, Readable::Regular).expect_err("too large").to_string();
        assert!(error.contains("larger than 1048576 bytes"), "{error}");
    }

    #[test]
    fn what_is_endless_ends_at_the_limit_and_what_would_wait_is_not_opened() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
        assert!(made.success());
        for readable in [Readable::Regular, Readable::Again] {
            read(&pipe, readable).expect_err("nobody writes");
        }
        read(Path::new("/dev/zero"), Readable::Once).expect_err("endless");
        read(Path::new("/dev/zero"), Readable::Regular).expect_err("no file");
        assert_eq!(read_text(Path::new("/dev/null"), Readable::Again).expect("empty"), "");
        let (file, writer) = (pipe.clone(), std::thread::spawn(move || std::fs::write(&pipe, "once")));
        assert_eq!(read_text(&file, Readable::Once).expect("read"), "once");
        writer.join().expect("no panic").expect("written");
        // The last to read it: it would take what is written later.
        let error = within(Duration::from_millis(20), &file).expect_err("nobody writes").to_string();
        assert!(error.contains("within 20ms: somebody has to write to it"), "{error}");
    }
}
