//! The checksum of a file of lines, in a file beside it as `sha256sum` writes it: `NAME.sha256`. It is read before any line is: gzip and zstd tell only at
//! their end that they are damaged. Parquet has checksums inside.

use crate::data_dir::opened;
use crate::target::folder_of;
use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// What is made of the bytes of a file.
#[derive(Clone, Default)]
pub(crate) struct Checksum(Sha256);

impl Checksum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn text(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Writes it beside the file, in the place of one that is there.
    pub(crate) fn write(self, of: &Path) -> io::Result<()> {
        let name = of.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        // It has its name when it is whole: an empty one would tell that the file is not what was exported.
        let (beside, staged) = (beside(of), folder_of(of).join(format!(".{name}.sha256.part")));
        drop(fs::remove_file(&staged));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&staged)?;
            file.write_all(format!("{}  {name}\n", self.text()).as_bytes())?;
            file.sync_all()?;
            fs::rename(&staged, &beside)
        };
        write().inspect_err(|_| drop(fs::remove_file(&staged)))
    }
}

/// Removes the one of a file of before, if there is one.
pub(crate) fn remove(of: &Path) -> io::Result<()> {
    match fs::remove_file(beside(of)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Reads a file to its end, where its checksum lies beside it.
///
/// # Errors
/// It is not what was written.
pub(crate) fn check(of: &Path) -> anyhow::Result<()> {
    let beside = beside(of);
    let told = match opened(&beside).and_then(io::read_to_string) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        told => told.with_context(|| format!("cannot read {}", beside.display()))?,
    };
    let unread = || format!("cannot read {}", of.display());
    let (mut file, mut block, mut found) =
        (File::open(of).with_context(unread)?, vec![0; 1 << 20], Checksum::default());
    loop {
        match file.read(&mut block).with_context(unread)? {
            0 => break,
            read => found.add(&block[..read]),
        }
    }
    ensure!(
        told.split_ascii_whitespace().next().is_some_and(|told| told.eq_ignore_ascii_case(&found.text())),
        "{} is not what was exported, nothing was imported: its SHA-256 is another one than {} says. Export it again; if it was changed on purpose, \
         remove that file",
        of.display(),
        beside.display()
    );
    Ok(())
}

fn beside(of: &Path) -> PathBuf {
    let mut name = OsString::from(of);
    name.push(".sha256");
    name.into()
}
