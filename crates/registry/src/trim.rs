//! What is let go: old entries of the audit, sessions that ended, and tokens that ended long ago.
//!
//! **Promises:** by age, nothing goes that is younger than it is to be kept. By number, the oldest entries of the token that has most go: who
//! floods the audit pushes out the traces of others least, and an entry `audit.trim` tells how many of whose went. Numbers are never given twice:
//! the newest row of a table stays.

use crate::audit::{self, Done};
use crate::error::RegistryError;
use crate::registry::{Registry, now_micros};
use serde_json::json;
use sqlx::{Row, SqliteConnection};
use std::time::Duration;

/// How long a token is listed after it has ended: 90 days.
pub const ENDED_TOKEN_AGE_MAX: Duration = Duration::from_secs(90 * 86_400);
/// Ended tokens that are listed; of more, those that ended first go.
pub const ENDED_TOKENS_MAX: i64 = 100_000;
/// Tokens that one `audit.trim` names.
const TOLD_MAX: usize = 20;
/// Rows of one transaction, so that others need not wait for long.
const ROWS_MAX: i64 = 1000;

/// How much of the audit is kept.
#[derive(Clone, Copy, Debug)]
pub struct AuditBounds {
    /// Entries.
    pub entries_max: u64,
    /// For how long.
    pub age_max: Duration,
}

/// The entries of one token.
struct Share {
    token_id: Option<i64>,
    entries: i64,
}

impl Registry {
    /// Lets go what is beyond the bounds.
    ///
    /// # Errors
    /// [`RegistryError`]; what was not let go is so the next time.
    pub async fn trim(&self, bounds: &AuditBounds) -> Result<(), RegistryError> {
        self.trim_audit_by_age(bounds.age_max).await?;
        self.trim_audit_by_number(i64::try_from(bounds.entries_max).unwrap_or(i64::MAX)).await?;
        self.trim_sessions().await?;
        self.trim_tokens().await
    }

    async fn trim_audit_by_age(&self, age_max: Duration) -> Result<(), RegistryError> {
        // Entries are in the order of their times: all before the first that is young enough are too old.
        let sql = "DELETE FROM audit WHERE id IN (SELECT id FROM audit ORDER BY id LIMIT ?1) \
                   AND id < coalesce((SELECT id FROM audit WHERE at >= ?2 ORDER BY id LIMIT 1), (SELECT max(id) FROM audit))";
        loop {
            let asked = sqlx::query(sql).bind(ROWS_MAX).bind(before(age_max));
            let gone = asked.execute(&self.shared.pool).await?.rows_affected() as i64;
            self.shared.metrics.audit_trimmed.inc_by(gone as u64);
            if gone < ROWS_MAX {
                return Ok(());
            }
        }
    }

    async fn trim_audit_by_number(&self, entries_max: i64) -> Result<(), RegistryError> {
        loop {
            let mut change = self.begin().await?;
            let all: i64 = sqlx::query("SELECT count(*) FROM audit").fetch_one(&mut *change).await?.try_get(0)?;
            self.shared.metrics.audit_entries.set(all);
            if all <= entries_max {
                return Ok(());
            }
            // A little more than needed, so that there is not one entry about each entry that goes.
            let beyond = all - entries_max + entries_max / 100 + 1;
            let gone = trim_largest(&mut change, beyond.min(ROWS_MAX)).await?;
            change.commit().await?;
            self.shared.metrics.audit_trimmed.inc_by(gone as u64);
        }
    }

    async fn trim_tokens(&self) -> Result<(), RegistryError> {
        // Until it is used, a token shows that its sensor may be registered again; then no more.
        let forget = "UPDATE sensors SET enrolled_by = NULL WHERE enrolled_by IS NOT NULL AND id IN \
                      (SELECT sensor_id FROM tokens WHERE id IN (SELECT id FROM ended) AND last_used_at IS NOT NULL)";
        let delete = "DELETE FROM tokens WHERE id IN (SELECT id FROM ended)";
        let ended = "WITH by_end AS (SELECT id, coalesce(revoked_at, expires_at) AS ended_at FROM tokens \
                         WHERE configured = 0 AND coalesce(revoked_at, expires_at) <= ?1 AND id < (SELECT max(id) FROM tokens)), \
                     ended AS (SELECT id FROM by_end WHERE ended_at <= ?2 OR id IN \
                         (SELECT id FROM by_end ORDER BY ended_at DESC, id DESC LIMIT -1 OFFSET ?3) ORDER BY ended_at LIMIT ?4)";
        loop {
            let mut change = self.begin().await?;
            let mut gone = 0;
            for step in [forget, delete] {
                let asked = sqlx::query(sqlx::AssertSqlSafe(format!("{ended} {step}")));
                let asked = asked.bind(now_micros()).bind(before(ENDED_TOKEN_AGE_MAX));
                gone = asked.bind(ENDED_TOKENS_MAX).bind(ROWS_MAX).execute(&mut *change).await?.rows_affected();
            }
            change.commit().await?;
            self.shared.metrics.tokens_trimmed.inc_by(gone);
            if (gone as i64) < ROWS_MAX {
                return Ok(());
            }
        }
    }
}

/// Takes `beyond` entries of the tokens that have most, the oldest of each, and tells it in one entry; how many went.
async fn trim_largest(change: &mut SqliteConnection, beyond: i64) -> Result<i64, sqlx::Error> {
    let sql = "SELECT token_id, count(*) FROM audit GROUP BY token_id ORDER BY count(*) DESC, min(id)";
    let rows = sqlx::query(sql).fetch_all(&mut *change).await?;
    let shares = rows.iter().map(|row| Ok(Share { token_id: row.try_get(0)?, entries: row.try_get(1)? }));
    let shares = shares.collect::<Result<Vec<_>, sqlx::Error>>()?;
    let level = level(&shares, beyond);
    let (mut gone, mut of) = (0, Vec::new());
    for share in shares.iter().take_while(|share| share.entries > level) {
        let taken = (share.entries - level).min(beyond - gone);
        let sql = "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE token_id IS ?1 ORDER BY id LIMIT ?2)";
        sqlx::query(sql).bind(share.token_id).bind(taken).execute(&mut *change).await?;
        gone += taken;
        if of.len() < TOLD_MAX {
            of.push(json!({ "token_id": share.token_id, "entries": taken }));
        }
        if gone == beyond {
            break;
        }
    }
    let detail = json!({ "entries": gone, "of": of });
    audit::write(change, None, Done { act: "audit.trim", target: "audit".to_owned(), detail }).await?;
    Ok(gone)
}

/// How many entries each token may keep so that `beyond` of all go; the shares come with the largest first.
fn level(shares: &[Share], beyond: i64) -> i64 {
    let mut sum = 0;
    for (n, share) in shares.iter().enumerate() {
        sum += share.entries;
        let (count, next) = (n as i64 + 1, shares.get(n + 1).map_or(0, |share| share.entries));
        if sum - count * next >= beyond {
            return (sum - beyond) / count;
        }
    }
    0
}

/// The time that long ago, in microseconds since the epoch.
fn before(age: Duration) -> i64 {
    now_micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_most_gives_most() {
        let level = |entries: &[i64], beyond| {
            let shares: Vec<Share> = entries.iter().map(|n| Share { token_id: Some(*n), entries: *n }).collect();
            super::level(&shares, beyond)
        };
        assert_eq!(level(&[100, 10, 1], 50), 50, "one gives all");
        assert_eq!(level(&[100, 10, 1], 90), 10);
        assert_eq!(level(&[100, 10, 1], 92), 9, "two give");
        assert_eq!(level(&[1, 1, 1], 2), 0, "and the oldest go first");
        assert_eq!((level(&[], 5), level(&[2], 5)), (0, 0));
    }
}
