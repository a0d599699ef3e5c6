//! Data files as this program reads them: what is damaged is an error that names the file, and never rows.

use crate::sums::{BLOCK_BYTES, ReadAt, Sums};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Checksums that are remembered: 4 MiB of them, of 32 GiB of data files. When more files are read, all are forgotten.
const BLOCKS_KNOWN_MAX: usize = 1 << 20;

/// What a file is known by: device, inode, bytes, and when it was last changed.
type Identity = (u64, u64, u64, i64, i64);

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// The checksums of files that were opened.
#[derive(Default)]
struct Known {
    files: HashMap<Identity, Option<Arc<Sums>>>,
    blocks: usize,
}

/// A data file that is checked as it is read.
#[derive(Clone, Debug)]
pub struct CheckedFile {
    file: Arc<File>,
    path: Arc<Path>,
    bytes: u64,
    sums: Option<Arc<Sums>>,
}

impl ReadAt for File {
    fn read_range(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        // Not filled with zeros before.
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = range.start + bytes.len() as u64;
            match rustix::io::pread(self, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(length);
        Ok(bytes.into())
    }
}

impl CheckedFile {
    /// Opens a file.
    ///
    /// # Errors
    /// As the operating system says; [`io::ErrorKind::InvalidData`] when it is damaged, here and in all that follows.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path).map_err(|error| named(&path.into(), error))?;
        let found = file.metadata()?;
        let (bytes, changed) = (found.len(), (found.mtime(), found.mtime_nsec()));
        let identity = (found.dev(), found.ino(), bytes, changed.0, changed.1);
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).files.get(&identity).cloned();
        let mut checked = Self { file: Arc::new(file), path: path.into(), bytes, sums: None };
        checked.sums = match known {
            Some(sums) => sums,
            None => {
                let sums = Sums::read(checked.file.as_ref(), bytes).map_err(|e| checked.named(e))?.map(Arc::new);
                remember(identity, sums.clone());
                sums
            }
        };
        Ok(checked)
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads a range of the file.
    ///
    /// # Errors
    /// See [`CheckedFile::open`].
    pub fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let Some(sums) = &self.sums else {
            return self.file.read_range(range).map_err(|error| self.named(error));
        };
        let body = sums.body_bytes();
        let read = || -> io::Result<Bytes> {
            if range.end <= body {
                return sums.read_body(self.file.as_ref(), range.clone());
            }
            // The tail is one: it is checked again, as it may have changed since.
            if Sums::read(self.file.as_ref(), self.bytes)?.as_ref() != Some(sums.as_ref()) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it changed while it was read"));
            }
            if range.start >= body {
                return self.file.read_range(range.clone());
            }
            let mut bytes = sums.read_body(self.file.as_ref(), range.start..body)?.to_vec();
            bytes.extend(self.file.read_range(body..range.end)?);
            Ok(bytes.into())
        };
        read().map_err(|error| self.named(error))
    }

    /// Reads all of it, to check it. Whether it has checksums at all.
    ///
    /// # Errors
    /// See [`CheckedFile::open`].
    pub fn check(&self) -> io::Result<bool> {
        let Some(sums) = &self.sums else {
            return Ok(false);
        };
        for at in (0..sums.body_bytes()).step_by(32 * BLOCK_BYTES as usize) {
            self.read(at..(at + 32 * BLOCK_BYTES).min(sums.body_bytes()))?;
        }
        Ok(true)
    }

    /// Whether it is of a program of before, that wrote no checksums.
    pub(crate) fn has_no_sums(&self) -> bool {
        self.sums.is_none()
    }

    fn named(&self, error: io::Error) -> io::Error {
        named(&self.path, error)
    }
}

/// What keeps a file from being read, with its name where the file itself is the reason.
fn named(path: &Arc<Path>, error: io::Error) -> io::Error {
    let (kind, what) = match error.kind() {
        io::ErrorKind::InvalidData => (io::ErrorKind::InvalidData, error.to_string()),
        io::ErrorKind::UnexpectedEof => (io::ErrorKind::InvalidData, "it is shorter than it was".to_owned()),
        io::ErrorKind::NotFound => (io::ErrorKind::NotFound, "it is gone".to_owned()),
        _ => return error,
    };
    io::Error::new(kind, Damaged { path: path.clone(), what })
}

/// A data file whose bytes are not what was written.
#[derive(Debug, thiserror::Error)]
#[error(
    "the data file {} is damaged: {what}; `catchment inspect lake` names all that are, and `catchment inspect repair` keeps what can be \
     read of them",
    .path.display()
)]
struct Damaged {
    path: Arc<Path>,
    what: String,
}

/// What is wrong with a file, when it is that its bytes are not what was written.
pub fn damage(error: &io::Error) -> Option<String> {
    Some(error.get_ref()?.downcast_ref::<Damaged>()?.what.clone())
}

fn remember(identity: Identity, sums: Option<Arc<Sums>>) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    // An entry without checksums takes room, too.
    let blocks = sums.as_ref().map_or(0, |sums| sums.blocks()) + 32;
    if known.blocks + blocks > BLOCKS_KNOWN_MAX {
        *known = Known::default();
    }
    known.blocks += blocks;
    known.files.insert(identity, sums);
}

impl Length for CheckedFile {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for CheckedFile {
    type T = Reading;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Reading> {
        Ok(Reading { file: self.clone(), at: start, block: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.read(start..start + length as u64).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// Reads on from a place in a file.
#[derive(Debug)]
pub struct Reading {
    file: CheckedFile,
    at: u64,
    block: Bytes,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() {
            let end = (self.at + 1).next_multiple_of(BLOCK_BYTES).min(self.file.bytes);
            if self.at >= end {
                return Ok(0);
            }
            self.block = self.file.read(self.at..end)?;
            self.at = end;
        }
        let read = buffer.len().min(self.block.len());
        buffer[..read].copy_from_slice(&self.block.split_to(read));
        Ok(read)
    }
}

/// The lake's data files for a reader of an object store.
#[derive(Debug)]
pub struct CheckedStore {
    root: PathBuf,
    local: LocalFileSystem,
}

impl CheckedStore {
    /// The files below the folder of a lake.
    ///
    /// # Errors
    /// There is no such folder.
    pub fn new(root: &Path) -> Result<Self> {
        Ok(Self { root: root.to_path_buf(), local: LocalFileSystem::new_with_prefix(root)? })
    }

    /// Files by their absolute paths.
    pub(crate) fn of_all() -> Self {
        Self { root: PathBuf::from("/"), local: LocalFileSystem::new() }
    }

    async fn read(&self, location: &StorePath, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        let path = self.local.path_to_filesystem(location)?;
        let work = move || {
            let file = CheckedFile::open(&path)?;
            ranges.into_iter().map(|range| file.read(range)).collect::<io::Result<Vec<_>>>()
        };
        let read = tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?;
        read.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotFound { path: location.to_string(), source: Box::new(error) },
            _ => Error::Generic { store: "lake", source: Box::new(error) },
        })
    }
}

impl std::fmt::Display for CheckedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lake in {}", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for CheckedStore {
    async fn get_opts(&self, location: &StorePath, options: GetOptions) -> Result<GetResult> {
        let (is_head, asked) = (options.head, options.range.clone());
        let head = GetOptions { head: true, range: None, ..options };
        let path = self.local.path_to_filesystem(location)?;
        let found = self.local.get_opts(location, head).await.map_err(|error| match error {
            Error::NotFound { path: of, .. } => {
                Error::NotFound { path: of, source: named(&path.into(), io::ErrorKind::NotFound.into()).into() }
            }
            other => other,
        })?;
        if is_head {
            return Ok(found);
        }
        let GetResult { meta, attributes, .. } = found;
        let wrong = |e| Error::Generic { store: "lake", source: Box::new(e) };
        let range = asked.map_or(Ok(0..meta.size), |asked| asked.as_range(meta.size)).map_err(wrong)?;
        let bytes = self.read(location, vec![range.clone()]).await?;
        let payload = GetResultPayload::Stream(stream::iter(bytes.into_iter().map(Ok)).boxed());
        Ok(GetResult { payload, meta, range, attributes })
    }

    async fn get_ranges(&self, location: &StorePath, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.read(location, ranges.to_vec()).await
    }

    async fn put_opts(&self, _: &StorePath, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(Error::NotImplemented { operation: "put".to_owned(), implementer: self.to_string() })
    }

    async fn put_multipart_opts(&self, _: &StorePath, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "put".to_owned(), implementer: self.to_string() })
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<StorePath>>) -> BoxStream<'static, Result<StorePath>> {
        let refused = Error::NotImplemented { operation: "delete".to_owned(), implementer: self.to_string() };
        stream::iter([Err(refused)]).boxed()
    }

    fn list(&self, prefix: Option<&StorePath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.local.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&StorePath>) -> Result<ListResult> {
        self.local.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &StorePath, _: &StorePath, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".to_owned(), implementer: self.to_string() })
    }
}
