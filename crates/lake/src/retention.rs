//! How long events stay: by age, and by how much room they take.
//!
//! Whole files go, the oldest first, by when their events were received: an event that came late stays as long as any other. A file goes when
//! the last of its events is old enough, so that events stay up to an hour longer than they have to.

use crate::error::LakeError;
use crate::lake::Lake;
use crate::replace::{Replaced, Replacing};
use crate::snapshot::{LakeFile, Snapshot};
use deltalake_core::protocol::DeltaOperation;
use std::sync::Arc;

/// What is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Events that were received longer ago go.
    pub age_seconds: Option<u64>,
    /// The oldest go while the data files take more.
    pub bytes_max: Option<u64>,
}

impl Retention {
    /// The files that go at this time.
    fn gone(self, files: &[Arc<LakeFile>], now_micros: i64) -> Vec<Arc<LakeFile>> {
        let mut oldest: Vec<_> = files.iter().filter_map(|f| f.stats.received_at.max.map(|last| (last, f))).collect();
        oldest.sort_by_key(|(last, _)| *last);
        let age_micros = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let since = self.age_seconds.map_or(i64::MIN, |seconds| now_micros.saturating_sub(age_micros(seconds)));
        let bytes_max = self.bytes_max.unwrap_or(u64::MAX);
        let mut bytes: u64 = files.iter().map(|f| f.bytes).sum();
        let goes = |(last, file): &(i64, &Arc<LakeFile>)| {
            let goes = *last < since || bytes > bytes_max;
            bytes -= if goes { file.bytes } else { 0 };
            goes
        };
        oldest.into_iter().take_while(goes).map(|(_, file)| file.clone()).collect()
    }
}

impl Lake {
    /// Takes out what is not kept any longer. Returns the lake afterwards; none when nothing goes.
    ///
    /// # Errors
    /// [`LakeError`]; nothing has changed, and it can be tried again.
    pub async fn expire(&self, retention: Retention, now_micros: i64) -> Result<Option<Arc<Snapshot>>, LakeError> {
        let gone = retention.gone(&self.snapshot().files, now_micros);
        if gone.is_empty() {
            return Ok(None);
        }
        let expired_rows = gone.iter().map(|f| f.stats.rows).sum();
        let operation = DeltaOperation::Delete { predicate: None };
        let replacing = Replacing { gone: &gone, made: &[], expired_rows, erased_rows: 0, lost_rows: 0, operation };
        let replaced = self.replace(replacing).await?;
        match replaced {
            Replaced::Done(snapshot) => {
                tracing::info!(files = gone.len(), events = expired_rows, ?retention, "events expired");
                Ok(Some(snapshot))
            }
            Replaced::NotThere(snapshot) => Ok(Some(snapshot)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{FileStats, Range};
    use std::sync::OnceLock;

    fn file(last_seconds: i64, bytes: u64) -> Arc<LakeFile> {
        let received_at = Range { min: Some(0), max: Some(last_seconds * 1_000_000) };
        let stats = FileStats { rows: 1, received_at, ..FileStats::default() };
        Arc::new(LakeFile { path: last_seconds.to_string(), bytes, modified_millis: 0, stats, known: OnceLock::new() })
    }

    fn gone(retention: Retention, now_seconds: i64) -> Vec<String> {
        let files = [file(30, 3), file(10, 1), file(20, 2)];
        retention.gone(&files, now_seconds * 1_000_000).iter().map(|f| f.path.clone()).collect()
    }

    #[test]
    fn the_oldest_files_go_by_age_or_by_bytes_whichever_takes_more() {
        let (age, bytes) = (|seconds| Some(seconds), |most| Some(most));
        assert!(gone(Retention::default(), 1_000_000).is_empty(), "everything stays unless it is said");
        assert!(gone(Retention { age_seconds: age(90), bytes_max: None }, 100).is_empty(), "exactly as old");
        assert_eq!(gone(Retention { age_seconds: age(79), bytes_max: None }, 100), ["10", "20"]);
        assert!(gone(Retention { age_seconds: None, bytes_max: bytes(6) }, 100).is_empty());
        assert_eq!(gone(Retention { age_seconds: None, bytes_max: bytes(5) }, 100), ["10"]);
        assert_eq!(gone(Retention { age_seconds: age(79), bytes_max: bytes(5) }, 100), ["10", "20"]);
        assert_eq!(gone(Retention { age_seconds: age(1), bytes_max: bytes(0) }, 0), ["10", "20", "30"]);
        assert_eq!(gone(Retention { age_seconds: Some(u64::MAX), bytes_max: None }, 0), Vec::<String>::new());
    }
}
