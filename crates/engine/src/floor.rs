//! The floor of free bytes: below it no events are taken, so that what else needs room on the disk goes on: seals, the registry, erasing, whoever
//! makes room.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What was seen of the disk is believed so long.
const BELIEVED: Duration = Duration::from_millis(100);

/// How much has to stay free.
pub(crate) struct Floor {
    dir: PathBuf,
    free_bytes_min: u64,
    began: Instant,
    /// When the disk was looked at, in milliseconds after the beginning; 0 before the first time.
    looked_millis: AtomicU64,
    free_bytes: AtomicU64,
}

impl Floor {
    /// Of the disk with this folder.
    pub(crate) fn new(dir: PathBuf, free_bytes_min: u64) -> Self {
        let (looked_millis, free_bytes) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Self { dir, free_bytes_min, began: Instant::now(), looked_millis, free_bytes }
    }

    /// What is missing, as a sentence.
    pub(crate) fn missing(&self) -> Option<String> {
        let free_bytes = self.free_bytes();
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        (free_bytes < self.free_bytes_min).then(|| {
            format!(
                "{:.1} MiB are free on the disk of {}, less than data.free_bytes_min, {:.1} MiB",
                mib(free_bytes),
                self.dir.display(),
                mib(self.free_bytes_min)
            )
        })
    }

    fn free_bytes(&self) -> u64 {
        let now = self.began.elapsed().as_millis() as u64 + 1;
        let looked = self.looked_millis.load(Ordering::Relaxed);
        if looked > 0 && now.saturating_sub(looked) < BELIEVED.as_millis() as u64 {
            return self.free_bytes.load(Ordering::Relaxed);
        }
        // A disk of which nothing can be told is not what the floor is about.
        let free = lake::free_bytes(&self.dir).unwrap_or(u64::MAX);
        self.free_bytes.store(free, Ordering::Relaxed);
        self.looked_millis.store(now, Ordering::Relaxed);
        free
    }
}
