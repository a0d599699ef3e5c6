//! What the registry promises of sessions and of the codes that begin them.

use registry::{
    Actor, AuditBounds, AuthError, Begun, Identity, NewToken, Options, Registry, RegistryMetrics, Role,
    SESSION_AGE_MAX, SESSIONS_OF_TOKEN_MAX, SessionError, SignedInBy,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const ADMIN: &str = "the-first-admin-token-of-this-registry";

async fn open(dir: &Path) -> Registry {
    let url = format!("sqlite://{}", dir.join("registry.db").display());
    let mut metrics = prometheus_client::registry::Registry::default();
    let options = Options { url, failures_per_minute_max: 10 };
    let registry = Registry::open(&options, RegistryMetrics::register(&mut metrics)).await.expect("opens");
    registry.ensure_admin(ADMIN).await.expect("stored");
    registry
}

/// The database beside the registry, to make things older than a test can wait for.
async fn database(file: &Path) -> sqlx::SqlitePool {
    sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.expect("opens")
}

async fn count(database: &sqlx::SqlitePool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM sessions").fetch_one(database).await.expect("counted")
}

fn by(identity: &Identity) -> Actor<'_> {
    Actor { identity, client: None, request_id: None }
}

async fn admin(registry: &Registry) -> Arc<Identity> {
    registry.authenticate(ADMIN, None).await.expect("known")
}

async fn person(registry: &Registry, name: &str, expires_at: Option<i64>) -> Arc<Identity> {
    let admin = admin(registry).await;
    let new = NewToken { role: Role::Reader, name: name.to_owned(), sensor: None, expires_at, uses: None };
    let (_, token) = registry.add_token(&by(&admin), &new).await.expect("made");
    registry.authenticate(token.reveal(), None).await.expect("known")
}

async fn begin(registry: &Registry, identity: &Identity) -> Begun {
    registry.begin_session(&by(identity), SignedInBy::Token).await.expect("begun")
}

async fn is_known(registry: &Registry, begun: &Begun) -> bool {
    match registry.session(begun.secret.reveal()).await {
        Ok(_) => true,
        Err(SessionError::Ended) => false,
        Err(error) => panic!("{error}"),
    }
}

fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as i64
}

#[tokio::test]
async fn a_session_is_the_identity_of_its_token_also_after_a_restart_and_the_database_holds_its_digest() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let ann = person(&registry, "ann", None).await;
    let begun = begin(&registry, &ann).await;
    let life = begun.expires_at - now_micros();
    assert!((SESSION_AGE_MAX.as_micros() as i64 - life) < 60_000_000, "{life}");
    for _ in 0..2 {
        let identity = registry.session(begun.secret.reveal()).await.expect("known");
        assert_eq!((identity.token_id, identity.name.as_str(), identity.role), (ann.token_id, "ann", Role::Reader));
        assert_eq!(identity.expires_at, Some(begun.expires_at));
    }
    registry.close().await.expect("closed");
    let bytes = std::fs::read(dir.path().join("registry.db")).expect("the file");
    let secret = begun.secret.reveal().as_bytes();
    assert!(!bytes.windows(secret.len()).any(|part| part == secret));
    assert!(is_known(&open(dir.path()).await, &begun).await);
}

#[tokio::test]
async fn a_session_ends_when_it_is_ended_expires_or_its_token_does() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let [ann, bob, short] = [
        person(&registry, "ann", None).await,
        person(&registry, "bob", None).await,
        person(&registry, "short", Some(now_micros() + 1_500_000)).await,
    ];
    let [ended, goes_on] = [begin(&registry, &ann).await, begin(&registry, &ann).await];
    let [of_bob, of_short] = [begin(&registry, &bob).await, begin(&registry, &short).await];
    assert_eq!(Some(of_short.expires_at), short.expires_at);
    for begun in [&ended, &goes_on, &of_bob, &of_short] {
        assert!(is_known(&registry, begun).await, "and remembered from here on");
    }
    registry.end_session(&by(&ann), ended.secret.reveal()).await.expect("ended");
    registry.end_session(&by(&ann), ended.secret.reveal()).await.expect("a second time changes nothing");
    let admin = admin(&registry).await;
    registry.revoke(&by(&admin), bob.token_id.expect("a token")).await.expect("revoked");
    assert!(!is_known(&registry, &ended).await && !is_known(&registry, &of_bob).await);
    let refused = registry.begin_session(&by(&bob), SignedInBy::Code).await;
    assert!(matches!(refused, Err(AuthError::Refused)));
    while now_micros() < of_short.expires_at {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!is_known(&registry, &of_short).await && is_known(&registry, &goes_on).await);
    let entries = registry.audit(100, None, None).await.expect("read");
    let acts: Vec<&str> = entries.iter().map(|entry| entry.act.as_str()).filter(|act| act.starts_with("se")).collect();
    assert_eq!(acts, ["session.end", "session.begin", "session.begin", "session.begin", "session.begin"]);
    let database = database(&dir.path().join("registry.db")).await;
    registry.trim(&AuditBounds { entries_max: 1000, age_max: Duration::from_secs(86_400) }).await.expect("trimmed");
    assert_eq!(count(&database).await, 1, "those that ended are gone");
    sqlx::query("UPDATE sessions SET expires_at = 1").execute(&database).await.expect("older");
    registry.trim(&AuditBounds { entries_max: 1000, age_max: Duration::from_secs(86_400) }).await.expect("trimmed");
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn of_one_token_the_oldest_session_goes_and_of_others_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let [ann, bob] = [person(&registry, "ann", None).await, person(&registry, "bob", None).await];
    let of_bob = begin(&registry, &bob).await;
    let mut begun = Vec::new();
    for _ in 0..SESSIONS_OF_TOKEN_MAX {
        begun.push(begin(&registry, &ann).await);
        assert!(is_known(&registry, &begun[begun.len() - 1]).await);
    }
    assert!(is_known(&registry, &begun[0]).await);
    begun.push(begin(&registry, &ann).await);
    assert!(
        !is_known(&registry, &begun[0]).await && is_known(&registry, &begun[1]).await,
        "although it was remembered"
    );
    assert!(is_known(&registry, &of_bob).await);
    assert_eq!(count(&database(&dir.path().join("registry.db")).await).await, SESSIONS_OF_TOKEN_MAX + 1);
}

#[tokio::test]
async fn a_configured_token_that_comes_back_does_not_bring_its_sessions_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let admin = admin(&registry).await;
    let begun = begin(&registry, &admin).await;
    registry.ensure_admin(ADMIN).await.expect("the same");
    assert!(is_known(&registry, &begun).await, "nothing changed");
    registry.ensure_admin("the-second-admin-token-of-this-registry").await.expect("stored");
    assert!(!is_known(&registry, &begun).await);
    registry.ensure_admin(ADMIN).await.expect("stored");
    assert!(!is_known(&registry, &begun).await && registry.authenticate(ADMIN, None).await.is_ok());
}

#[tokio::test]
async fn copies_have_no_sessions_nor_their_digests_also_of_a_database_that_has_no_such_table() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let admin = admin(&registry).await;
    let begun = begin(&registry, &admin).await;
    let own = dir.path().join("registry.db");
    let database_of_own = database(&own).await;
    let digest: Vec<u8> =
        sqlx::query_scalar("SELECT sha256 FROM sessions").fetch_one(&database_of_own).await.expect("one");
    let copy = dir.path().join("copy.db");
    registry.copy_to(&copy).await.expect("copied");
    assert!(is_known(&registry, &begun).await, "nothing changes here");
    registry.close().await.expect("closed");
    let other = dir.path().join("other.db");
    Registry::copy_of(&own, &other).await.expect("copied");
    for copy in [&copy, &other] {
        let bytes = std::fs::read(copy).expect("read");
        assert!(!bytes.windows(digest.len()).any(|part| part == digest), "nor the bytes");
        assert_eq!(count(&database(copy).await).await, 0);
    }
    sqlx::query("DROP TABLE sessions").execute(&database(&other).await).await.expect("as of a program before");
    let again = dir.path().join("again.db");
    Registry::copy_of(&other, &again).await.expect("copied");
}

#[tokio::test]
async fn a_code_is_taken_once_and_can_be_put_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let ann = person(&registry, "ann", None).await;
    let (code, ends) = registry.make_code(ann.clone()).expect("made");
    assert!((ends - now_micros()) / 1_000_000 <= 300);
    let taken = registry.take_code(code.reveal()).expect("there");
    assert!(registry.take_code(code.reveal()).is_none() && registry.take_code("cat_of_nobody").is_none());
    assert_eq!(taken.identity(), &ann);
    registry.put_code_back(taken);
    assert!(registry.take_code(code.reveal()).is_some() && registry.take_code(code.reveal()).is_none());
}
