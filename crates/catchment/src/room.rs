//! How much room there is: on the disk of the data folder, and in memory.

use crate::data_dir::DataDir;
use nowwhat::config::ByteSize;
use nowwhat::metrics::{Gauge, Registry};
use std::path::Path;
use std::time::Duration;

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How much room there is on a disk.
pub(crate) struct Disk {
    /// That this process may still take.
    pub(crate) free_bytes: u64,
    pub(crate) bytes: u64,
    /// How many files more can be made; none where the file system does not count them.
    pub(crate) files_free: Option<u64>,
}

impl Disk {
    /// The disk below a folder.
    pub(crate) fn below(folder: &Path) -> std::io::Result<Self> {
        let disk = rustix::fs::statvfs(folder)?;
        let files_free = (disk.f_files > 0).then_some(disk.f_favail);
        Ok(Self { free_bytes: disk.f_bavail * disk.f_frsize, bytes: disk.f_blocks * disk.f_frsize, files_free })
    }
}

/// What the metrics tell of room. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoomMetrics {
    disk_free_bytes: Gauge,
    disk_bytes: Gauge,
    memory_bound_bytes: Gauge,
}

impl RoomMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let r = registry.sub_registry_with_prefix("catchment");
        let free = "Bytes of the disk with the data folder that this process may still take";
        r.register("disk_free_bytes", free, metrics.disk_free_bytes.clone());
        r.register("disk_bytes", "Size of the disk with the data folder", metrics.disk_bytes.clone());
        let bound = "Memory that this process takes at most, computed from the configuration";
        r.register("memory_bound_bytes", bound, metrics.memory_bound_bytes.clone());
        metrics
    }

    /// Tells the bound of memory.
    pub(crate) fn memory_bound(&self, bound: ByteSize) {
        self.memory_bound_bytes.set(bound.0 as i64);
    }

    /// Looks how much room there is on the disk, now.
    pub(crate) fn look(&self, dir: &DataDir) -> std::io::Result<()> {
        let disk = Disk::below(dir.path())?;
        self.disk_free_bytes.set(disk.free_bytes as i64);
        self.disk_bytes.set(disk.bytes as i64);
        Ok(())
    }

    /// Looks again and again.
    pub(crate) async fn follow(self, dir: DataDir) {
        loop {
            if let Err(error) = self.look(&dir) {
                tracing::warn!(error = error.to_string(), "room on the disk not known, will be looked at again");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_has_the_size_and_the_room_that_it_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let metrics = RoomMetrics::default();
        metrics.look(&DataDir::of(folder.path())).expect("looked");
        let (free, size) = (metrics.disk_free_bytes.get(), metrics.disk_bytes.get());
        assert!(0 < free && free <= size, "{free} of {size}");
        metrics.look(&DataDir::of(&folder.path().join("gone"))).expect_err("there is none");
    }
}
