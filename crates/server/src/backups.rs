//! Backups: all that was answered before one moment, held in a folder inside the data folder while a command copies it.
//!
//! The folder has second names of the files of lake and wal, and copies of the two databases, so it takes little room when it is made, and
//! ingest goes on. It is held by who copies, who says so again and again: when nothing is heard for [`HELD_SECONDS`], it is removed. One is held
//! at a time, and none while events are erased: what is erased would live on under its second name.
//!
//! The registry is copied last: it knows every sensor that has an event in the copy, and every erasure that was asked for until then.

use crate::metrics::BackupMetrics;
use engine::{Engine, LinkError, Linked};
use registry::{Registry, RegistryError};
use rejected::{Rejected, RejectedError};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex as Turns, OwnedMutexGuard};

/// So long a copy is held after its command was heard.
pub(crate) const HELD_SECONDS: u64 = 30;
/// And so long while nothing more of it is copied, however often the command is heard: a disk that hangs holds up no erasure for ever.
const WITHOUT_PROGRESS: Duration = Duration::from_secs(15 * 60);

/// What is held, and who may hold. Cheap to clone.
#[derive(Clone)]
pub struct Backups {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    engine: Engine,
    registry: Registry,
    rejected: Rejected,
    metrics: BackupMetrics,
    /// Who has the turn makes a copy, or erases.
    turns: Arc<Turns<()>>,
    held: Mutex<Option<Held>>,
}

/// What is held.
struct Held {
    id: u64,
    hold: Hold,
    turn: OwnedMutexGuard<()>,
}

/// How long something is held.
struct Hold {
    until: Instant,
    /// How much of it was copied, and when that was first said.
    copied: (u64, Instant),
}

impl Hold {
    fn begin(now: Instant) -> Self {
        Self { until: now + Duration::from_secs(HELD_SECONDS), copied: (0, now) }
    }

    /// So many bytes of it are copied.
    fn heard(&mut self, now: Instant, bytes: u64) {
        if bytes > self.copied.0 {
            self.copied = (bytes, now);
        }
        self.until = (now + Duration::from_secs(HELD_SECONDS)).min(self.copied.1 + WITHOUT_PROGRESS);
    }
}

/// A copy that was made.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Its number.
    pub(crate) id: u64,
    /// What it has of lake and wal.
    pub(crate) linked: Linked,
}

/// Why no copy was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// Another is held, or events are erased.
    #[error("another backup is being copied, or events are being erased")]
    Busy,
    /// Files of lake or wal have no second name.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The registry was not copied.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The rejected events were not copied.
    #[error("rejected events: {0}")]
    Rejected(#[from] RejectedError),
    /// The folder cannot be made.
    #[error("the folder of the copy: {0}")]
    Folder(#[from] io::Error),
    /// The program is stopping, or a task panicked.
    #[error("interrupted")]
    Interrupted,
}

/// What a command says of its copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It goes on, and so many bytes are copied.
    Copying(u64),
    /// All is copied.
    Done,
    /// It gave up.
    Failed,
}

impl Backups {
    /// Copies of these parts are held in `folder`, which is on the disk of wal and lake. What a run of before held there is removed.
    ///
    /// # Errors
    /// When that cannot be removed.
    pub fn new(
        folder: PathBuf,
        engine: Engine,
        (registry, rejected): (Registry, Rejected),
        metrics: &crate::ServerMetrics,
    ) -> io::Result<Self> {
        remove(&folder)?;
        let (metrics, turns, held) = (metrics.backups.clone(), Arc::default(), Mutex::default());
        Ok(Self { shared: Arc::new(Shared { folder, engine, registry, rejected, metrics, turns, held }) })
    }

    /// Waits until nobody holds a copy, and lets nobody take one while what is returned is there.
    ///
    /// # Errors
    /// When what was held is on the disk still.
    pub(crate) async fn none(&self) -> io::Result<OwnedMutexGuard<()>> {
        let turn = self.shared.turns.clone().lock_owned().await;
        remove(&self.shared.folder)?;
        Ok(turn)
    }

    /// Makes a copy and holds it. It is made to its end also when the caller goes away.
    ///
    /// # Errors
    /// [`TakeError`]; then nothing is held.
    pub(crate) async fn take(&self) -> Result<Taken, TakeError> {
        let turn = self.shared.turns.clone().try_lock_owned().map_err(|_| TakeError::Busy)?;
        let backups = self.clone();
        tokio::spawn(async move { backups.make(turn).await }).await.map_err(|_| TakeError::Interrupted)?
    }

    async fn make(self, turn: OwnedMutexGuard<()>) -> Result<Taken, TakeError> {
        let (id, folder) = (now_micros(), self.shared.folder.clone());
        let made = self.fill(&folder).await;
        let linked = match made {
            Ok(linked) => linked,
            Err(error) => {
                remove_away(folder).await;
                return Err(error);
            }
        };
        *self.held() = Some(Held { id, hold: Hold::begin(Instant::now()), turn });
        self.shared.metrics.held.set(1);
        tokio::spawn(self.clone().watch(id));
        Ok(Taken { id, linked })
    }

    async fn fill(&self, folder: &Path) -> Result<Linked, TakeError> {
        let Shared { engine, registry, rejected, .. } = &*self.shared;
        remove(folder)?;
        private(folder)?;
        let linked = engine.link_into(folder).await?;
        rejected.copy_to(&folder.join("rejected.sqlite")).await?;
        registry.copy_to(&folder.join("registry.sqlite")).await?;
        Ok(linked)
    }

    /// Lets go of a copy of which nothing is heard any more.
    async fn watch(self, id: u64) {
        loop {
            let until = match &*self.held() {
                Some(held) if held.id == id => held.hold.until,
                _ => return,
            };
            if until <= Instant::now() {
                tracing::warn!(
                    backup_id = id,
                    "a backup's copying was not heard of, or got no further: what was held for it is let go"
                );
                self.end(id).await;
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// What the command says that copies. False when its copy is not held any more.
    pub(crate) async fn hear(&self, id: u64, said: Said) -> bool {
        match said {
            Said::Copying(bytes) => match &mut *self.held() {
                Some(held) if held.id == id => {
                    held.hold.heard(Instant::now(), bytes);
                    true
                }
                _ => false,
            },
            Said::Failed => self.end(id).await,
            Said::Done => {
                let was_held = self.end(id).await;
                if was_held {
                    self.shared.metrics.last_success.set((now_micros() / 1_000_000) as i64);
                }
                was_held
            }
        }
    }

    /// Lets go of a copy. False when it is not held.
    async fn end(&self, id: u64) -> bool {
        let Some(held) = self.held().take_if(|held| held.id == id) else { return false };
        remove_away(self.shared.folder.clone()).await;
        self.shared.metrics.held.set(0);
        drop(held.turn);
        true
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes the folder, which may have thousands of files; when it stays, the next one who needs it away tries again, and says why.
async fn remove_away(folder: PathBuf) {
    let removed = tokio::task::spawn_blocking(move || remove(&folder)).await;
    if let Ok(Err(error)) = removed {
        tracing::error!(error = error.to_string(), "what was held for a backup is not removed, will be tried again");
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(folder);
    if found.is_ok_and(|found| !found.is_dir()) {
        let what = "is no folder, and the folder of what is held for a backup belongs there: move it away";
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} {what}", folder.display())));
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("cannot remove {}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// Makes the folder for its owner alone.
fn private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(folder)
}

fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_held_while_it_is_heard_of_and_gets_further() {
        let (began, seconds) = (Instant::now(), Duration::from_secs);
        let mut hold = Hold::begin(began);
        assert_eq!(hold.until, began + seconds(HELD_SECONDS));
        hold.heard(began + seconds(20), 1);
        assert_eq!(hold.until, began + seconds(20 + HELD_SECONDS));
        let stuck = began + seconds(20) + WITHOUT_PROGRESS;
        hold.heard(stuck - seconds(5), 1);
        assert_eq!(hold.until, stuck, "nothing more is copied");
        hold.heard(stuck - seconds(1), 2);
        assert_eq!(hold.until, stuck + seconds(HELD_SECONDS - 1));
    }

    #[test]
    fn what_is_no_folder_is_named_and_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("snapshot");
        remove(&path).expect("nothing there");
        fs::write(&path, "letter").expect("written");
        let error = remove(&path).expect_err("a file").to_string();
        assert!(error.contains("snapshot is no folder") && error.contains("move it away"), "{error}");
        assert!(path.exists());
    }
}
