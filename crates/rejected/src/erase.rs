//! Erasing the rows of one sensor, so that nothing of them stays in the file or in the files beside it.
//!
//! Rows that go are overwritten whenever they go (`secure_delete`). A file that a program of before wrote may have bytes of such rows all over: it
//! is written anew once.

use crate::table::{BUSY, RejectedError, VERSION, VERSION_BEFORE};
use crate::writer::{Erasing, STEP_ROWS, Share, Writer};
use sqlx::{Executor as _, Row as _};
use std::collections::VecDeque;

/// What is left of rows that were erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erased {
    /// Nothing.
    Wholly,
    /// Who reads the table since before has them still, and so the file: nothing is left once it is erased again after they have ended.
    ReadersLeft,
}

/// How many of the rows are gone.
enum Gone {
    Some,
    All,
}

impl Writer {
    /// Erases a step of the rows of the first that waits, and tells when all of it is done.
    pub(crate) async fn erase_next(&mut self, erasing: &mut VecDeque<Erasing>) {
        let Some(first) = erasing.front() else { return };
        let ended = match self.erase(first).await {
            Ok(Gone::Some) => return,
            Ok(Gone::All) => self.overwrite().await,
            Err(error) => Err(error),
        };
        if let Some(Erasing { done, .. }) = erasing.pop_front() {
            // Who asked may be gone.
            let _ = done.send(ended.map_err(RejectedError::of));
        }
    }

    async fn erase(&mut self, Erasing { sensor, until, .. }: &Erasing) -> Result<Gone, sqlx::Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let delete = "DELETE FROM rejected WHERE position IN \
                      (SELECT position FROM rejected WHERE sensor = ?1 AND position <= ?2 ORDER BY position LIMIT ?3) RETURNING bytes";
        let rows =
            sqlx::query(delete).bind(sensor).bind(until).bind(STEP_ROWS as i64).fetch_all(&mut *transaction).await?;
        let mut gone = Share { rows: rows.len() as i64, bytes: 0 };
        for row in &rows {
            gone.bytes += row.try_get::<i64, _>("bytes")?;
        }
        let all_gone = if rows.len() < STEP_ROWS { Gone::All } else { Gone::Some };
        if matches!(all_gone, Gone::All) {
            let delete = "DELETE FROM requests WHERE of_sensor = ? AND last_position <= ?";
            sqlx::query(delete).bind(sensor).bind(until).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        self.metrics.expired.inc_by(rows.len() as u64);
        self.held.add(sensor, gone.gone());
        self.tell();
        Ok(all_gone)
    }

    /// Lets nothing stay of rows that are gone: in the file, and in the write-ahead log of the database.
    async fn overwrite(&self) -> Result<Erased, sqlx::Error> {
        let version: i64 = sqlx::query("PRAGMA user_version").fetch_one(&self.pool).await?.try_get(0)?;
        if version == VERSION_BEFORE {
            sqlx::query("VACUUM").execute(&self.pool).await?;
            let version = format!("PRAGMA user_version = {VERSION}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(version)).execute(&self.pool).await?;
        }
        let mut connection = self.pool.acquire().await?;
        // No request waits for who reads.
        connection.execute("PRAGMA busy_timeout = 0").await?;
        let checkpoint = connection.fetch_one("PRAGMA wal_checkpoint(TRUNCATE)").await;
        let patient = format!("PRAGMA busy_timeout = {}", BUSY.as_millis());
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(patient))).await?;
        Ok(if checkpoint?.try_get::<i64, _>(0)? == 0 { Erased::Wholly } else { Erased::ReadersLeft })
    }
}
