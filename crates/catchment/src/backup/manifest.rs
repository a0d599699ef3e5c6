//! `backup.json`: what a backup is made of, with a checksum of each file and of itself. `docs/FORMAT.md` describes it.

use super::lineage::Restored;
use crate::data_dir::opened;
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Component, Path, PathBuf};

/// Its name.
pub(crate) const NAME: &str = "backup.json";
/// Its name until it is whole.
pub(crate) const STAGED: &str = "backup.json.new";
/// Its format.
const FORMAT: u32 = 1;
/// What is read of a file at once.
const BLOCK_BYTES: usize = 1 << 20;

/// A backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    /// The program that wrote it.
    pub(crate) program: String,
    /// The identity of the wal.
    pub(crate) wal_id: String,
    /// When it was made; none as long as no backup into this folder has ended.
    pub(crate) taken_at: Option<String>,
    pub(crate) last_position: u64,
    pub(crate) sealed_position: u64,
    pub(crate) lake_version: u64,
    pub(crate) events: u64,
    /// The restores that made its events, as its data folder has them.
    #[serde(default)]
    pub(crate) restores: Vec<Restored>,
    pub(crate) files: Vec<Entry>,
}

/// A file of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Where it is in the data folder.
    pub(crate) path: String,
    /// Where it is in the backup.
    pub(crate) stored: String,
    pub(crate) bytes: u64,
    pub(crate) crc32c: u32,
    /// When the file that was copied was last written, in nanoseconds since the epoch.
    pub(crate) modified_nanos: u64,
}

/// The manifest as the file holds it.
#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    /// Of the text of `backup`.
    crc32c: u32,
    #[serde(borrow)]
    backup: &'a RawValue,
}

impl Manifest {
    /// One that has nothing yet.
    pub(crate) fn begun(program: String, wal_id: String) -> Self {
        let (last_position, sealed_position, lake_version, events) = (0, 0, 0, 0);
        let (format, taken_at, restores, files) = (FORMAT, None, Vec::new(), Vec::new());
        Self {
            format,
            program,
            wal_id,
            taken_at,
            last_position,
            sealed_position,
            lake_version,
            events,
            restores,
            files,
        }
    }

    /// The one in a folder; none when there is none.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(NAME);
        let text = match opened(&path).and_then(io::read_to_string) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let damaged = || format!("{} is damaged: this backup cannot be used", path.display());
        let sealed: Sealed<'_> = serde_json::from_str(&text).with_context(damaged)?;
        if crc32c::crc32c(sealed.backup.get().as_bytes()) != sealed.crc32c {
            bail!("{}: its checksum does not hold", damaged());
        }
        let format: Format = serde_json::from_str(sealed.backup.get()).with_context(damaged)?;
        ensure!(
            format.format == FORMAT,
            "{} has format {}, and this program knows {FORMAT}: use the version of the program that wrote it, {}",
            path.display(),
            format.format,
            format.program
        );
        let manifest: Self = serde_json::from_str(sealed.backup.get()).with_context(damaged)?;
        for entry in &manifest.files {
            ensure!(is_below(&entry.path) && is_below(&entry.stored), "{}: {:?}", damaged(), entry.path);
        }
        Ok(Some(manifest))
    }

    /// Puts it into its place in a folder, whole and durable, instead of the one before.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let (path, staged) = (folder.join(NAME), folder.join(STAGED));
        let backup = serde_json::value::to_raw_value(self)?;
        let sealed = Sealed { crc32c: crc32c::crc32c(backup.get().as_bytes()), backup: &backup };
        let text = serde_json::to_string(&sealed)? + "\n";
        let write = || -> io::Result<()> {
            let mut file = File::create(&staged)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&staged, &path)?;
            sync_folder(folder)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The files of the backup in `folder` that are not as they were, each with what is wrong; `each` is told the bytes that were read.
    pub(crate) fn damaged(&self, folder: &Path, each: impl Fn(u64)) -> Vec<(&str, String)> {
        let damage = |entry: &'_ Entry| entry.damage(folder, &each);
        self.files.iter().filter_map(|entry| Some((entry.stored.as_str(), damage(entry)?))).collect()
    }
}

/// The part of a manifest that every version has.
#[derive(Deserialize)]
struct Format {
    format: u32,
    #[serde(default)]
    program: String,
}

impl Entry {
    fn damage(&self, folder: &Path, each: impl Fn(u64)) -> Option<String> {
        let mut crc = 0;
        let mut read = || {
            let mut bytes = 0;
            let file = opened(&folder.join(&self.stored))?;
            blocks(file, u64::MAX, |block| {
                crc = crc32c::crc32c_append(crc, block);
                bytes += block.len() as u64;
                each(block.len() as u64);
                Ok(())
            })?;
            Ok::<u64, io::Error>(bytes)
        };
        match read() {
            Err(error) if error.kind() == ErrorKind::NotFound => Some("it is gone".to_owned()),
            Err(error) => Some(error.to_string()),
            Ok(bytes) if bytes != self.bytes => {
                Some(format!("it has {bytes} bytes, and the backup says {}", self.bytes))
            }
            Ok(_) => (crc != self.crc32c).then(|| "its checksum does not hold".to_owned()),
        }
    }
}

/// Whether a path leads to somewhere below, whatever it is joined to.
pub(crate) fn is_below(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Reads up to `bytes_max` bytes, a block at a time.
pub(crate) fn blocks(from: impl Read, bytes_max: u64, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let (mut from, mut block) = (from.take(bytes_max), vec![0; BLOCK_BYTES]);
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(read) => each(&block[..read])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The files below a folder, as paths from there.
pub(crate) fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut files, mut unread) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = unread.pop() {
        for entry in fs::read_dir(folder.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() { unread.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(path: &str) -> Manifest {
        let bytes = b"bytes";
        let entry = Entry {
            path: path.to_owned(),
            stored: "set/file".to_owned(),
            bytes: bytes.len() as u64,
            crc32c: crc32c::crc32c(bytes),
            modified_nanos: 7,
        };
        Manifest { files: vec![entry], ..Manifest::begun("catchment 0".to_owned(), "wal".to_owned()) }
    }

    #[test]
    fn what_is_written_is_read_and_every_flipped_byte_of_it_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Manifest::read(folder.path()).expect("nothing there").is_none());
        let written = manifest("wal/file");
        written.write(folder.path()).expect("written");
        let read = Manifest::read(folder.path()).expect("read").expect("there");
        assert_eq!((read.files, read.wal_id), (written.files, written.wal_id));
        let path = folder.path().join(NAME);
        let whole = fs::read(&path).expect("read");
        // The last one ends the line.
        for place in 0..whole.len() - 1 {
            let mut flipped = whole.clone();
            flipped[place] ^= 1;
            fs::write(&path, flipped).expect("written");
            Manifest::read(folder.path()).expect_err("it is damaged");
        }
        fs::write(&path, &whole[..whole.len() / 2]).expect("written");
        Manifest::read(folder.path()).expect_err("it is cut");
    }

    #[test]
    fn a_path_that_leads_elsewhere_and_a_later_format_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        for path in ["../wal", "/etc/passwd", "", "wal/../../x"] {
            manifest(path).write(folder.path()).expect("written");
            Manifest::read(folder.path()).expect_err("it leads elsewhere");
        }
        Manifest { format: 2, ..manifest("wal/file") }.write(folder.path()).expect("written");
        let error = Manifest::read(folder.path()).expect_err("of a later program").to_string();
        assert!(error.contains("format 2") && error.contains("catchment 0"), "{error}");
    }

    #[test]
    fn a_file_that_is_gone_cut_or_changed_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let (manifest, file) = (manifest("wal/file"), folder.path().join("set/file"));
        let damage = || manifest.damaged(folder.path(), |_| ());
        assert_eq!(damage(), [("set/file", "it is gone".to_owned())]);
        fs::create_dir(folder.path().join("set")).expect("made");
        for (bytes, what) in
            [("byte", "it has 4 bytes, and the backup says 5"), ("bytez", "its checksum does not hold")]
        {
            fs::write(&file, bytes).expect("written");
            assert_eq!(damage(), [("set/file", what.to_owned())]);
        }
        fs::write(&file, "bytes").expect("written");
        assert!(damage().is_empty());
    }
}
