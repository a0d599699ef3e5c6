//! An object store over a folder in which what is written is on stable storage before it is visible.
//!
//! `LocalFileSystem` syncs nothing: after a power cut a committed version can be an empty file that no reader opens. Here a put
//! writes beside its place, syncs, links or renames into place, and syncs the folders. Reading is `LocalFileSystem`'s.

use crate::checked::CheckedStore;
use crate::history::{self, Kind};
use crate::versions::LOG;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The durable store; paths are absolute, as `LocalFileSystem` without a prefix has them.
#[derive(Clone, Debug)]
pub(crate) struct DurableStore {
    local: Arc<LocalFileSystem>,
    checked: Arc<CheckedStore>,
    staged: Arc<AtomicU64>,
}

impl DurableStore {
    pub(crate) fn new() -> Self {
        let (local, checked) = (Arc::new(LocalFileSystem::new()), Arc::new(CheckedStore::of_all()));
        Self { local, checked, staged: Arc::new(AtomicU64::new(0)) }
    }

    async fn store(&self, location: &Path, payload: PutPayload, mode: PutMode) -> Result<PutResult> {
        let path = self.local.path_to_filesystem(location)?;
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let name = location.to_string();
        let payload = match history::kind(location) {
            Kind::Other => payload,
            kind => history::with_checksums(kind, Bytes::from(payload).to_vec()).into(),
        };
        let stored = tokio::task::spawn_blocking(move || put_durable(&path, &payload, &mode, number)).await;
        match stored {
            Ok(Ok(())) => Ok(PutResult { e_tag: None, version: None }),
            Ok(Err(e)) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: name, source: Box::new(e) })
            }
            Ok(Err(e)) => Err(Error::Generic { store: "durable folder", source: Box::new(e) }),
            Err(source) => Err(Error::JoinError { source }),
        }
    }
}

impl std::fmt::Display for DurableStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("durable folder")
    }
}

fn put_durable(path: &FsPath, payload: &PutPayload, mode: &PutMode, number: u64) -> io::Result<()> {
    let mut staged = Staged::create(path, number)?;
    for part in payload.iter() {
        staged.write_all(part)?;
    }
    match mode {
        PutMode::Create => staged.place(|staged, place| fs::hard_link(staged, place)),
        PutMode::Overwrite => staged.place(|staged, place| fs::rename(staged, place)),
        PutMode::Update(_) => Err(io::ErrorKind::Unsupported.into()),
    }
    .map(drop)
}

/// A file that is written beside its place, and seen there once it is whole and synced. What is dropped before is removed.
pub(crate) struct Staged {
    file: File,
    staged: PathBuf,
    place: PathBuf,
}

impl Staged {
    /// Beside `place`, where nobody else stages with this number.
    pub(crate) fn create(place: &FsPath, number: u64) -> io::Result<Self> {
        let folder = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
        // The log of a table is made with it: one that is gone is not begun anew.
        if folder.ends_with(LOG) && !folder.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is gone", folder.display())));
        }
        create_durable(folder)?;
        // Names that end in `#` and a number are passed over when the folder is listed.
        let staged = PathBuf::from(format!("{}#{number}", place.display()));
        Ok(Self { file: File::create(&staged)?, staged, place: place.to_path_buf() })
    }

    /// Puts it into its place, by a link or a new name. Returns its size.
    pub(crate) fn place(self, put: impl FnOnce(&FsPath, &FsPath) -> io::Result<()>) -> io::Result<u64> {
        self.file.sync_all()?;
        put(&self.staged, &self.place)?;
        // Of a link the other name goes before the folder is synced.
        drop(fs::remove_file(&self.staged));
        sync_name(&self.place)?;
        Ok(self.file.metadata()?.len())
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Not there any more when it was renamed. What is left over is passed over by readers and removed at the next start.
        drop(fs::remove_file(&self.staged));
    }
}

/// Folders whose names this process has synced.
static DURABLE: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// Makes a folder, durably: also one that is there, whose name may never have been synced. Nobody goes on before it is.
pub(crate) fn create_durable(folder: &FsPath) -> io::Result<()> {
    let mut durable = DURABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut new = Vec::new();
    let mut above = folder;
    while !above.is_dir() {
        durable.remove(above);
        new.push(above);
        above = above.parent().ok_or(io::ErrorKind::InvalidInput)?;
    }
    for folder in new.iter().rev() {
        match fs::create_dir(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        if let Err(error) = sync_name(folder) {
            // A name whose sync failed is never durable: the next try makes it anew.
            drop(fs::remove_dir(folder));
            return Err(error);
        }
        durable.insert(folder.to_path_buf());
    }
    if !durable.contains(folder) {
        sync_name(folder)?;
        durable.insert(folder.to_path_buf());
    }
    Ok(())
}

/// Syncs the name that something has in its folder.
fn sync_name(place: &FsPath) -> io::Result<()> {
    File::open(place.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store(location, payload, options.mode).await
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Upload { store: self.clone(), location: location.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match history::kind(location) {
            Kind::Checkpoint => self.checked.get_opts(location, options).await,
            Kind::Commit if !options.head => {
                let found = self.local.get_opts(location, GetOptions { range: None, ..options.clone() }).await?;
                let (meta, attributes) = (found.meta.clone(), found.attributes.clone());
                let bytes = found.bytes().await?;
                history::check(&bytes).map_err(|error| damaged(location, &error))?;
                let wrong = |e| Error::Generic { store: "durable folder", source: Box::new(e) };
                let range = options.range.map_or(Ok(0..meta.size), |asked| asked.as_range(meta.size)).map_err(wrong)?;
                let bytes = bytes.slice(range.start as usize..range.end as usize);
                let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
                Ok(GetResult { payload, meta, range, attributes })
            }
            Kind::Commit | Kind::Other => self.local.get_opts(location, options).await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        match history::kind(location) {
            Kind::Checkpoint => self.checked.get_ranges(location, ranges).await,
            Kind::Commit => {
                let all = self.get_opts(location, GetOptions::default()).await?.bytes().await?;
                Ok(ranges.iter().map(|range| all.slice(range.start as usize..range.end as usize)).collect())
            }
            Kind::Other => self.local.get_ranges(location, ranges).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.local.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.local.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.local.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.local.copy_opts(from, to, options).await?;
        let path = self.local.path_to_filesystem(to)?;
        let folder = path.parent().map(FsPath::to_path_buf).unwrap_or_default();
        let synced = tokio::task::spawn_blocking(move || File::open(folder)?.sync_all()).await;
        match synced {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(Error::Generic { store: "durable folder", source: Box::new(e) }),
            Err(source) => Err(Error::JoinError { source }),
        }
    }
}

fn damaged(location: &Path, error: &io::Error) -> Error {
    let what = format!("/{location} is damaged: {error}; bring the folder of the lake back from a copy");
    Error::Generic { store: "durable folder", source: what.into() }
}

/// A file given in parts: gathered in memory, stored as one. Only checkpoints come this way.
#[derive(Debug)]
struct Upload {
    store: DurableStore,
    location: Path,
    parts: Vec<Bytes>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.extend(data);
        Box::pin(std::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload = std::mem::take(&mut self.parts).into_iter().collect();
        self.store.store(&self.location, payload, PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;

    #[tokio::test]
    async fn a_put_that_must_create_does_not_replace_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = DurableStore::new();
        let path = Path::from_absolute_path(dir.path().join("a/b")).expect("a path");
        let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(&path, PutPayload::from("one"), create()).await.expect("created");
        let again = store.put_opts(&path, PutPayload::from("two"), create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
        store.put(&path, PutPayload::from("three")).await.expect("overwritten");
        let bytes = store.get(&path).await.expect("found").bytes().await.expect("read");
        assert_eq!(bytes, "three");
        let names: Vec<_> =
            fs::read_dir(dir.path().join("a")).expect("a folder").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["b"]);
    }

    #[tokio::test]
    async fn parts_become_one_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = DurableStore::new();
        let path = Path::from_absolute_path(dir.path().join("parts")).expect("a path");
        let mut upload = store.put_multipart(&path).await.expect("begun");
        upload.put_part(PutPayload::from("ab")).await.expect("taken");
        upload.put_part(PutPayload::from("c")).await.expect("taken");
        upload.complete().await.expect("stored");
        assert_eq!(store.get(&path).await.expect("found").bytes().await.expect("read"), "abc");
    }
}
