//! What the registry lets go, and what it never does.

use registry::{
    Actor, AuditBounds, AuditEntry, ENDED_TOKEN_AGE_MAX, Identity, Labels, NewToken, Options, RegisterError, Registry,
    RegistryMetrics, Role,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const ADMIN: &str = "the-first-admin-token-of-this-registry";
const YEAR: Duration = Duration::from_secs(365 * 86_400);

async fn open(dir: &Path) -> Registry {
    let url = format!("sqlite://{}", dir.join("registry.db").display());
    let mut metrics = prometheus_client::registry::Registry::default();
    let options = Options { url, failures_per_minute_max: 10 };
    let registry = Registry::open(&options, RegistryMetrics::register(&mut metrics)).await.expect("opens");
    registry.ensure_admin(ADMIN).await.expect("stored");
    registry
}

/// The database beside the registry, to make things older than a test can wait for.
async fn database(dir: &Path) -> sqlx::SqlitePool {
    sqlx::SqlitePool::connect(&format!("sqlite://{}", dir.join("registry.db").display())).await.expect("opens")
}

fn by(identity: &Identity) -> Actor<'_> {
    Actor { identity, client: None, request_id: None }
}

async fn person(registry: &Registry, name: &str, role: Role) -> Arc<Identity> {
    let admin = registry.authenticate(ADMIN, None).await.expect("known");
    let new = NewToken { role, name: name.to_owned(), sensor: None, expires_at: None, uses: None };
    let (_, token) = registry.add_token(&by(&admin), &new).await.expect("made");
    registry.authenticate(token.reveal(), None).await.expect("known")
}

async fn audit(registry: &Registry) -> Vec<AuditEntry> {
    registry.audit(100_000, None, None).await.expect("read")
}

fn of(entries: &[AuditEntry]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in entries {
        *counts.entry(entry.token_name.clone().unwrap_or_default()).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn who_floods_the_audit_pushes_out_their_own_entries_and_it_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let (careful, flood) =
        (person(&registry, "careful", Role::Admin).await, person(&registry, "flood", Role::Admin).await);
    for n in 0..5 {
        registry.register(&by(&careful), &format!("careful {n}"), &Labels::new()).await.expect("registered");
    }
    for n in 0..150 {
        registry.register(&by(&flood), &format!("flood {n}"), &Labels::new()).await.expect("registered");
    }
    let before = audit(&registry).await;
    let bounds = AuditBounds { entries_max: 100, age_max: YEAR };
    registry.trim(&bounds).await.expect("trimmed");
    let after = audit(&registry).await;
    assert!(after.len() <= 100 && after.len() > 95, "{}", after.len());
    let (had, has) = (of(&before), of(&after));
    for name in ["careful", "configured"] {
        assert_eq!(had[name], has[name], "nothing of {name} went");
    }
    let told = &after[0];
    assert_eq!((told.act.as_str(), told.token_id, told.target.as_str()), ("audit.trim", None, "audit"));
    let gone = had["flood"] - has["flood"];
    assert_eq!(told.detail["entries"], gone);
    assert_eq!(told.detail["of"][0]["token_id"], flood.token_id.expect("a token"));
    let kept: Vec<&AuditEntry> = after.iter().filter(|entry| entry.token_name.as_deref() == Some("flood")).collect();
    assert_eq!(kept[0].target, "sensor/flood-149", "the newest of them stay");
    registry.trim(&bounds).await.expect("trimmed");
    assert_eq!(audit(&registry).await, after, "nothing more goes");
}

#[tokio::test]
async fn entries_go_by_age_and_numbers_are_never_given_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let admin = registry.authenticate(ADMIN, None).await.expect("known");
    for n in 0..3 {
        registry.register(&by(&admin), &format!("sensor {n}"), &Labels::new()).await.expect("registered");
    }
    let database = database(dir.path()).await;
    let age = |what: &str, days: i64| format!("UPDATE audit SET at = at - {days} * 86400000000 WHERE {what}");
    let run = |sql: String| sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&database);
    run(age("id <= 2", 366)).await.expect("older");
    run(age("id = 3", 364)).await.expect("older");
    let bounds = AuditBounds { entries_max: 1_000_000, age_max: YEAR };
    registry.trim(&bounds).await.expect("trimmed");
    let ids = |entries: Vec<AuditEntry>| entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids(audit(&registry).await), [4, 3], "what is young enough stays");
    run(age("true", 366)).await.expect("older");
    registry.trim(&bounds).await.expect("trimmed");
    assert_eq!(ids(audit(&registry).await), [4], "the newest stays, so that its number is not given again");
    registry.register(&by(&admin), "another", &Labels::new()).await.expect("registered");
    assert_eq!(ids(audit(&registry).await), [5, 4]);
}

#[tokio::test]
async fn tokens_that_ended_long_ago_go_and_those_that_hold_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let admin = registry.authenticate(ADMIN, None).await.expect("known");
    let people = ["long ago", "just now", "holds", "newest"];
    let mut ids = Vec::new();
    for name in people {
        ids.push(person(&registry, name, Role::Reader).await.token_id.expect("a token"));
    }
    for id in [ids[0], ids[1], ids[3]] {
        registry.revoke(&by(&admin), id).await.expect("revoked");
    }
    let database = database(dir.path()).await;
    let age = format!(
        "UPDATE tokens SET created_at = 1, revoked_at = revoked_at - {} WHERE id <> {}",
        ENDED_TOKEN_AGE_MAX.as_micros() + 1,
        ids[1]
    );
    sqlx::query(sqlx::AssertSqlSafe(age)).execute(&database).await.expect("older");
    registry.trim(&AuditBounds { entries_max: 1_000_000, age_max: YEAR }).await.expect("trimmed");
    let left = registry.tokens(None, 100, None).await.expect("read");
    let names: Vec<&str> = left.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["newest", "holds", "just now", "configured"], "the newest number stays known");
    assert!(registry.authenticate(ADMIN, None).await.is_ok());
}

#[tokio::test]
async fn a_sensor_whose_used_token_is_forgotten_is_not_given_to_who_registers_it_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let enrol = person(&registry, "devices", Role::Enrol).await;
    let made = registry.register(&by(&enrol), "roof", &Labels::new()).await.expect("registered");
    registry.authenticate(made.token.reveal(), None).await.expect("used");
    let admin = registry.authenticate(ADMIN, None).await.expect("known");
    registry.rotate(&by(&admin), "roof", 0).await.expect("rotated");
    registry.flush().await.expect("written");
    let database = database(dir.path()).await;
    sqlx::query("UPDATE tokens SET expires_at = 1 WHERE expires_at IS NOT NULL")
        .execute(&database)
        .await
        .expect("older");
    registry.trim(&AuditBounds { entries_max: 1_000_000, age_max: YEAR }).await.expect("trimmed");
    assert_eq!(registry.tokens(Some("roof"), 100, None).await.expect("read").len(), 1, "the used one is gone");
    let again = registry.register(&by(&enrol), "roof", &Labels::new()).await;
    assert!(matches!(again, Err(RegisterError::Taken { .. })), "{again:?}");
}

#[tokio::test]
async fn a_sensor_that_sent_with_its_certificate_is_not_given_to_who_registers_it_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let enrol = person(&registry, "devices", Role::Enrol).await;
    for when in ["at once", "written"] {
        let made = registry.register(&by(&enrol), when, &Labels::new()).await.expect("registered");
        registry.register(&by(&enrol), when, &Labels::new()).await.expect("nobody sent yet");
        registry.seen(&made.sensor_id, 1);
        if when == "written" {
            registry.flush().await.expect("written");
        }
        let again = registry.register(&by(&enrol), when, &Labels::new()).await;
        assert!(matches!(again, Err(RegisterError::Taken { .. })), "{when}: {again:?}");
    }
}
