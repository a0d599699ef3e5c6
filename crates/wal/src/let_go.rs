//! Letting go of what is kept elsewhere: segments, with what stays in their place, and leftovers.

use crate::disk::Disk;
use crate::error::AppendError;
use crate::keys::{self, KeyFile};
use crate::log::Wal;
use std::io;

impl<D: Disk> Wal<D> {
    /// Begins a new segment when the last one has frames, so that all frames there are can be let go.
    ///
    /// # Errors
    /// [`AppendError`]; nothing has changed, but after [`AppendError::Poisoned`].
    pub fn begin_segment(&mut self) -> Result<(), AppendError> {
        if let Some(reason) = &self.poisoned {
            return Err(AppendError::Poisoned { reason: reason.clone() });
        }
        match &self.active {
            Some(active) if active.header.first_position == self.next_position => Ok(()),
            _ => self.roll(0),
        }
    }

    /// First position whose frame is there; the next one when there is none.
    pub fn first_position(&self) -> u64 {
        let active = self.active.as_ref().map(|active| active.header.first_position);
        self.closed.first().map(|closed| closed.first).or(active).unwrap_or(self.next_position)
    }

    /// Closed segments that hold nothing after `sealed`, oldest first, as ranges of positions. The last one stays while there is no other that
    /// says where the next position is.
    pub fn trimmable(&self, sealed: u64) -> Vec<(u64, u64)> {
        let stays = usize::from(self.active.is_none());
        let closed = &self.closed[..self.closed.len().saturating_sub(stays)];
        closed.iter().take_while(|s| s.last <= sealed).map(|s| (s.first, s.last)).collect()
    }

    /// Lets the oldest closed segment go and leaves `keys` in its place; none when they are empty.
    ///
    /// # Errors
    /// As the operating system says; the segment may then still be there, or come back, which harms nothing. It can be tried again.
    pub fn trim_oldest(&mut self, keys: Vec<u8>) -> io::Result<()> {
        let Some(oldest) = self.closed.first_mut() else {
            return Ok(());
        };
        let (first, last) = (oldest.first, oldest.last);
        if !keys.is_empty() {
            keys::write(&self.disk, &self.dir, &KeyFile { first, last, bytes: keys })?;
            if self.key_files.last() != Some(&(first, last)) {
                self.key_files.push((first, last));
            }
        }
        // Otherwise it went before, and the sync failed.
        if !oldest.is_removed {
            self.disk.remove(&oldest.path)?;
            oldest.is_removed = true;
        }
        self.disk.sync_dir(&self.dir)?;
        // Known until it is gone for good: one that stayed behind, or came back, would look like a gap to the next start.
        self.closed.remove(0);
        Ok(())
    }

    /// Writes the key files again with what `keys` gives for their ranges; those that have none go.
    ///
    /// # Errors
    /// As the operating system says; each file is as before, or as it is to be.
    pub fn rewrite_keys(&mut self, keys: impl Fn(u64, u64) -> Vec<u8>) -> io::Result<()> {
        for (first, last) in self.key_files.clone() {
            let bytes = keys(first, last);
            if bytes.is_empty() {
                self.disk.remove(&self.dir.join(keys::name(first, last)))?;
                self.key_files.retain(|range| *range != (first, last));
            } else {
                keys::write(&self.disk, &self.dir, &KeyFile { first, last, bytes })?;
            }
        }
        Ok(())
    }

    /// Removes the torn tails that openings moved aside, and files that were not finished.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn forget_leftovers(&mut self) -> io::Result<()> {
        let is_leftover = |name: &&String| name.ends_with(".torn") || name.ends_with(".new");
        for name in self.disk.list(&self.dir)?.iter().filter(is_leftover) {
            self.disk.remove(&self.dir.join(name))?;
        }
        self.disk.sync_dir(&self.dir)
    }

    /// Removes the key files that end before `position`.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn forget_keys_before(&mut self, position: u64) -> io::Result<()> {
        while let Some(&(first, last)) = self.key_files.first()
            && last < position
        {
            self.disk.remove(&self.dir.join(keys::name(first, last)))?;
            self.key_files.remove(0);
        }
        Ok(())
    }
}
