//! What is copied: of a running collector what it holds for it, of a stopped one the data folder itself, whose lock is taken meanwhile.

use super::interrupt::Interrupt;
use super::manifest::{files_below, is_below};
use super::target::Wanted;
use crate::client::{Client, Server};
use crate::data_dir::{DataDir, OF_PACKAGE};
use anyhow::{Context, bail, ensure};
use nowwhat::Environment;
use nowwhat::cli::complain;
use registry::Registry;
use rejected::Rejected;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long it is asked again while another backup is held or events are erased: longer than one that nobody copies any more is held.
const BUSY_MAX: Duration = Duration::from_secs(90);
const BUSY_LOOK: Duration = Duration::from_secs(1);

/// The databases, by name.
const REGISTRY: &str = "registry.sqlite";
const REJECTED: &str = "rejected.sqlite";

/// Where it comes from.
pub(crate) enum Place {
    /// The collector that runs over a folder.
    Running(Box<Client>, DataDir),
    /// A folder over which none runs.
    Stopped(DataDir),
}

/// All that is copied.
pub(crate) struct Source {
    pub(crate) about: About,
    pub(crate) files: Vec<Wanted>,
    /// What the copy depends on.
    pub(crate) held: Held,
}

/// What is known of it.
#[derive(Debug, Deserialize)]
pub(crate) struct About {
    pub(crate) wal_id: String,
    pub(crate) last_position: u64,
    pub(crate) sealed_position: u64,
    pub(crate) lake_version: u64,
    pub(crate) events: u64,
    wal: Vec<WalFile>,
}

#[derive(Debug, Deserialize)]
struct WalFile {
    name: String,
    bytes: u64,
}

/// Who holds it.
pub(crate) enum Held {
    /// The collector, as long as it hears of it.
    ByCollector { client: Box<Client>, id: u64, every: Duration },
    /// We, by the lock of the wal.
    ByLock(#[allow(dead_code, reason = "the lock ends with it")] wal::Kept),
}

impl Place {
    /// The running collector, or the first folder that has a wal.
    pub(crate) fn find(server: &Server, environment: &Environment) -> anyhow::Result<Self> {
        let known = [PathBuf::from("data"), PathBuf::from(OF_PACKAGE)];
        let folders: Vec<&Path> = match &server.data_dir {
            Some(dir) => vec![dir],
            None => known.iter().map(PathBuf::as_path).collect(),
        };
        let is_named = server.url.is_some() || server.data_dir.is_none() && environment.get("CATCHMENT_URL").is_some();
        let runs = |dir: &&Path| DataDir::of(dir).addresses().is_some();
        if !is_named
            && !folders.iter().any(runs)
            && let Some(dir) = folders.iter().find(|dir| dir.join("wal").exists())
        {
            return Ok(Self::Stopped(DataDir::of(dir)));
        }
        let client = Client::find(server, environment)?;
        match client.dir.clone() {
            Some(dir) => Ok(Self::Running(Box::new(client), dir)),
            None => bail!(
                "a backup copies files of the data folder of {}: run this on its machine, and name that folder with --data-dir",
                client.url
            ),
        }
    }

    pub(crate) fn dir(&self) -> &DataDir {
        let (Self::Running(_, dir) | Self::Stopped(dir)) = self;
        dir
    }

    /// Holds what is to be copied. `scratch` is a folder that is made for what is in the way of it, where there is something.
    pub(crate) fn hold(self, scratch: &Path, interrupt: &Interrupt) -> anyhow::Result<Source> {
        match self {
            Self::Running(client, dir) => held_by_collector(client, &dir, interrupt),
            Self::Stopped(dir) => stopped(&dir, scratch),
        }
    }
}

fn held_by_collector(client: Box<Client>, dir: &DataDir, interrupt: &Interrupt) -> anyhow::Result<Source> {
    #[derive(Deserialize)]
    struct Answer {
        id: u64,
        folder: String,
        held_seconds: u64,
        #[serde(flatten)]
        about: About,
    }
    let token = client.token()?;
    let since = Instant::now();
    let mut has_complained = false;
    let answer = loop {
        let answer = client.post("/api/v1/backups", token.text(), Vec::new(), &[])?;
        let is_busy = answer.status == http::StatusCode::CONFLICT && since.elapsed() < BUSY_MAX;
        if !is_busy {
            break token.good(answer)?;
        }
        if !has_complained {
            complain("another backup is being copied, or events are being erased: waiting for the end of it");
            has_complained = true;
        }
        std::thread::sleep(BUSY_LOOK);
        interrupt.check()?;
    };
    let Answer { id, folder, held_seconds, about } = answer.json().context("the answer is not understood")?;
    let every = Duration::from_secs(held_seconds / 6).max(Duration::from_secs(1));
    let held = Held::ByCollector { client, id, every };
    ensure!(is_below(&folder), "the collector names a folder that is not its own: {folder}");
    let root = dir.path().join(folder);
    let wal: Vec<_> = about.wal.iter().map(|file| (format!("wal/{}", file.name), file.bytes)).collect();
    let listed = files_below(&root).with_context(|| {
        format!("cannot read {}: run this on the machine and as the user of the collector", root.display())
    });
    let files = listed.and_then(|listed| {
        let paths = listed.iter().map(|path| path.to_string_lossy().into_owned());
        let is_wal = |path: &String| path.starts_with("wal/");
        let others = paths.filter(|path| !is_wal(path)).map(|path| (path, None));
        let wal = wal.into_iter().map(|(path, bytes)| (path, Some(bytes)));
        let files: Vec<_> =
            wal.chain(others).map(|(path, bytes)| Wanted { source: root.join(&path), path, bytes }).collect();
        ensure!(files.iter().all(|file| is_below(&file.path)), "the collector names files that are not its own");
        ensure!(files.iter().any(|file| file.path == REGISTRY), "{} is not what is held", root.display());
        // Data files and the checkpoint are checked as they are copied.
        let flaws = lake::flaws(&root.join("lake")).context("lake")?;
        let needed = |flaw: &&lake::Flaw| flaw.is_needed;
        if let Some(lake::Flaw { path, what, .. }) = flaws.iter().find(needed) {
            let path = path.strip_prefix(&root).map_or(path.clone(), |path| dir.path().join(path));
            bail!("{} is damaged: {what}; `catchment inspect lake` tells what can be done", path.display());
        }
        Ok(files)
    });
    match files {
        Ok(files) => Ok(Source { about, files, held }),
        Err(error) => {
            held.end("failed");
            Err(error)
        }
    }
}

fn stopped(dir: &DataDir, scratch: &Path) -> anyhow::Result<Source> {
    dir.is_whole()?;
    let lock = wal::Kept::of(&dir.wal()).map_err(|error| match error {
        wal::OpenError::InUse { .. } => anyhow::Error::new(error)
            .context("a collector runs over the folder and does not say where: name it with --url, beside --data-dir"),
        error => error.into(),
    })?;
    let wal::Parts { wal_id, last_position, files } = wal::parts(&dir.wal())?;
    let wal_id = wal_id.with_context(|| format!("there is nothing in {} yet", dir.wal().display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let lake = runtime.block_on(lake::copy_of(&dir.lake(), wal_id)).context("lake")?;
    let mut wanted: Vec<_> = files
        .iter()
        .map(|file| Wanted {
            source: dir.wal().join(&file.name),
            path: format!("wal/{}", file.name),
            bytes: Some(file.bytes),
        })
        .collect();
    wanted.extend(lake.files.into_iter().map(|path| Wanted {
        source: dir.lake().join(&path),
        path: format!("lake/{path}"),
        bytes: None,
    }));
    for name in [REJECTED, REGISTRY] {
        if let Some(source) = database(dir, name, scratch)? {
            let copy = scratch.join(format!("whole-{name}"));
            let copied = runtime.block_on(async {
                match name {
                    REGISTRY => Registry::copy_of(&source, &copy).await.map_err(anyhow::Error::from),
                    _ => Rejected::copy_of(&source, &copy).await.map_err(anyhow::Error::from),
                }
            });
            copied.with_context(|| format!("{} cannot be copied", dir.path().join(name).display()))?;
            wanted.push(Wanted { source: copy, path: name.to_owned(), bytes: None });
        }
    }
    let about = About {
        wal_id: wal_id.to_string(),
        last_position,
        sealed_position: lake.sealed,
        lake_version: lake.version,
        events: lake.events + last_position.saturating_sub(lake.sealed),
        wal: Vec::new(),
    };
    Ok(Source { about, files: wanted, held: Held::ByLock(lock) })
}

/// A database with the log that a killed collector left beside it, copied to where taking it over writes nothing into the data folder.
fn database(dir: &DataDir, name: &str, scratch: &Path) -> anyhow::Result<Option<PathBuf>> {
    let from = dir.path().join(name);
    if !from.exists() {
        ensure!(name != REGISTRY, "{} is gone: start the collector, which makes it, or bring it back", from.display());
        return Ok(None);
    }
    fs::create_dir_all(scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    for end in ["", "-wal"] {
        let named = format!("{name}{end}");
        let (from, to) = (dir.path().join(&named), scratch.join(&named));
        if from.exists() {
            fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
    }
    Ok(Some(scratch.join(name)))
}

impl Held {
    /// Says again and again that it is being copied, until it is told the end.
    pub(crate) fn keep(&self, ended: &Receiver<()>, copied: &AtomicU64) {
        let Self::ByCollector { every, .. } = self else { return };
        while matches!(ended.recv_timeout(*every), Err(RecvTimeoutError::Timeout)) {
            // When the collector has let go of it, the copying finds that files are gone.
            drop(self.say(&json!({ "state": "copying", "bytes": copied.load(Ordering::Relaxed) })));
        }
    }

    /// Lets go of it.
    pub(crate) fn end(&self, state: &str) {
        drop(self.say(&json!({ "state": state })));
    }

    fn say(&self, body: &Value) -> anyhow::Result<()> {
        let Self::ByCollector { client, id, .. } = self else { return Ok(()) };
        client.ask(http::Method::PATCH, &format!("/api/v1/backups/{id}"), Some(body)).map(drop)
    }
}
