//! What the registry promises.

use registry::{
    Actor, AuthError, Identity, Labels, NewToken, OpenError, Options, RegisterError, Registered, Registry,
    RegistryMetrics, Role, SensorChange,
};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

const ADMIN: &str = "the-first-admin-token-of-a-test-1";

fn options(url: &str) -> Options {
    Options { url: url.to_owned(), failures_per_minute_max: 10 }
}

async fn open(dir: &Path) -> Registry {
    let url = format!("sqlite://{}", dir.join("registry.db").display());
    let mut metrics = prometheus_client::registry::Registry::default();
    Registry::open(&options(&url), RegistryMetrics::register(&mut metrics)).await.expect("opens")
}

async fn admin(registry: &Registry) -> Arc<Identity> {
    registry.ensure_admin(ADMIN).await.expect("stored");
    registry.authenticate(ADMIN, None).await.expect("known")
}

async fn register(registry: &Registry, name: &str, labels: &Labels) -> Result<Registered, RegisterError> {
    let identity = admin(registry).await;
    registry.register(&Actor { identity: &identity, client: None, request_id: None }, name, labels).await
}

fn no_labels() -> Labels {
    Labels::new()
}

#[tokio::test]
async fn a_registered_sensor_comes_in_with_its_token_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let made = register(&registry, "Roof 1", &no_labels()).await.expect("registered");
    assert_eq!(&*made.sensor_id, "roof-1");
    registry.close().await.expect("closed");
    let registry = open(dir.path()).await;
    for _ in 0..2 {
        let identity = registry.authenticate(made.token.reveal(), None).await.expect("known");
        assert_eq!((identity.role, identity.sensor.as_deref()), (Role::Sensor, Some("roof-1")));
    }
    assert!(matches!(registry.authenticate("cat_wrong", None).await, Err(AuthError::Refused)));
}

#[tokio::test]
async fn the_database_holds_no_token_in_clear_and_is_the_owners_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let made = register(&registry, "roof", &no_labels()).await.expect("registered");
    registry.ensure_admin("a-long-enough-admin-token-of-a-test").await.expect("stored");
    registry.close().await.expect("closed");
    let bytes = std::fs::read(dir.path().join("registry.db")).expect("the file");
    for secret in [made.token.reveal(), "a-long-enough-admin-token-of-a-test"] {
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()));
    }
    let mode = std::fs::metadata(dir.path().join("registry.db")).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn of_two_that_register_one_name_one_wins() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let labels = no_labels();
    let (a, b) = tokio::join!(register(&registry, "roof", &labels), register(&registry, "ROOF", &labels));
    assert_eq!([a.is_ok(), b.is_ok()].iter().filter(|ok| **ok).count(), 1);
    let lost = a.err().or(b.err()).expect("one lost");
    assert!(matches!(lost, RegisterError::Taken { sensor_id } if sensor_id == "roof"));
}

#[tokio::test]
async fn bad_names_and_labels_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    assert!(matches!(register(&registry, "???", &no_labels()).await, Err(RegisterError::Name(_))));
    let labels = Labels::from([("k".to_owned(), "v".repeat(257))]);
    assert!(matches!(register(&registry, "roof", &labels).await, Err(RegisterError::Labels)));
    assert_eq!(registry.sensors(10, None).await.expect("read"), []);
}

#[tokio::test]
async fn a_new_configured_admin_token_takes_the_place_of_the_old_one_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    assert!(matches!(registry.ensure_admin("short").await, Err(OpenError::WeakAdminToken)));
    assert_eq!(admin(&registry).await.role, Role::Admin);
    registry.ensure_admin("the-second-admin-token-of-a-test").await.expect("stored");
    assert!(registry.authenticate(ADMIN, None).await.is_err());
    assert!(registry.authenticate("the-second-admin-token-of-a-test", None).await.is_ok());
    assert!(registry.authenticate(ADMIN, None).await.is_err());
    admin(&registry).await;
    assert!(
        registry.authenticate("the-second-admin-token-of-a-test", None).await.is_err(),
        "the first one is configured again"
    );
}

/// A database as the first version of the schema made it.
#[tokio::test]
async fn a_registry_of_an_older_program_is_taken_over_with_its_sensors_and_tokens() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("registry.db");
    let connect = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(connect).await.expect("opens");
    let script = "
        CREATE TABLE sensors (
            id TEXT PRIMARY KEY, name TEXT NOT NULL, labels TEXT NOT NULL, created_at INTEGER NOT NULL,
            last_seen_at INTEGER, disabled_at INTEGER
        ) STRICT;
        CREATE TABLE tokens (
            id INTEGER PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE, role TEXT NOT NULL, sensor_id TEXT REFERENCES sensors(id),
            created_at INTEGER NOT NULL, expires_at INTEGER, revoked_at INTEGER, configured INTEGER NOT NULL DEFAULT 0
        ) STRICT;
        INSERT INTO sensors (id, name, labels, created_at) VALUES ('roof', 'Roof', '{}', 1);
        INSERT INTO tokens (sha256, role, sensor_id, created_at)
            VALUES (x'88d2b4b8a925cfdcc1b4ba8fbb8f2f9abd8a08dbf1a3f8c9d3b1f7d2d0a5c6e7', 'sensor', 'roof', 1);
        PRAGMA user_version = 1;";
    sqlx::raw_sql(script).execute(&pool).await.expect("made");
    pool.close().await;
    let registry = open(dir.path()).await;
    let sensor = registry.sensor("roof").await.expect("read").expect("there");
    assert_eq!((sensor.name.as_str(), sensor.time_zone), ("Roof", None));
    let tokens = registry.tokens(None, 10, None).await.expect("read");
    assert_eq!((tokens.len(), tokens[0].role, tokens[0].sensor.as_deref()), (1, Role::Sensor, Some("roof")));
}

#[tokio::test]
async fn last_seen_shows_at_once_and_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let labels = Labels::from([("site".to_owned(), "north".to_owned())]);
    let id = register(&registry, "roof", &labels).await.expect("registered").sensor_id;
    registry.seen(&id, 7);
    assert_eq!(registry.sensor("roof").await.expect("read").expect("there").last_seen_at, Some(7));
    registry.close().await.expect("closed");
    let sensors = open(dir.path()).await.sensors(10, None).await.expect("read");
    assert_eq!((sensors.len(), sensors[0].last_seen_at, &sensors[0].labels), (1, Some(7), &labels));
}

#[tokio::test]
async fn those_silent_the_longest_come_first_and_neither_disabled_nor_never_seen_ones_count() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    for (name, at) in [("roof", Some(30)), ("cellar", Some(10)), ("attic", Some(20)), ("shed", Some(5)), ("new", None)]
    {
        let made = register(&registry, name, &no_labels()).await.expect("registered");
        if let Some(at) = at {
            registry.seen(&made.sensor_id, at);
        }
    }
    registry.flush().await.expect("written");
    let identity = admin(&registry).await;
    let actor = Actor { identity: &identity, client: None, request_id: None };
    registry.change(&actor, "attic", &SensorChange::disable()).await.expect("disabled");
    assert_eq!(registry.seen_since(10).await.expect("counted"), 2);
    assert_eq!(registry.seen_since(11).await.expect("counted"), 1);
    let silent = registry.silent_longest(6, 20).await.expect("listed");
    assert_eq!(silent, [("cellar".to_owned(), 10), ("roof".to_owned(), 30)]);
    assert_eq!(registry.silent_longest(0, 1).await.expect("listed"), [("shed".to_owned(), 5)]);
}

#[tokio::test]
async fn foreign_urls_and_newer_schemas_are_refused_with_a_sentence() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut metrics = prometheus_client::registry::Registry::default();
    let metrics = RegistryMetrics::register(&mut metrics);
    assert!(matches!(Registry::open(&options("mysql://x"), metrics.clone()).await, Err(OpenError::Scheme(_))));
    let path = dir.path().join("newer.db");
    let connect = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(connect).await.expect("opens");
    sqlx::query("PRAGMA user_version = 99").execute(&pool).await.expect("set");
    let options = options(&format!("sqlite://{}", path.display()));
    let opened = || Registry::open(&options, metrics.clone());
    let other = opened().await.err().expect("it has none of its tables").to_string();
    assert!(other.contains("it is the database of something else"), "{other}");
    sqlx::query("CREATE TABLE tokens (id INTEGER)").execute(&pool).await.expect("made");
    assert!(matches!(opened().await, Err(OpenError::Newer { found: 99, .. })));
}

/// A device may use the token that it got while somebody with the same enrolment token repeats the registration: one of them is told no.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_token_is_used_or_taken_back_but_never_both() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let admin = admin(&registry).await;
    let by_admin = Actor { identity: &admin, client: None, request_id: None };
    let (role, name) = (Role::Enrol, "field".to_owned());
    let new = NewToken { role, name, sensor: None, expires_at: None, uses: None };
    let (_, enrol) = registry.add_token(&by_admin, &new).await.expect("made");
    let enrol = registry.authenticate(enrol.reveal(), None).await.expect("known");
    let labels = Labels::new();
    let (mut used, mut taken_back) = (0, 0);
    for round in 0..100 {
        let name = format!("meter {round}");
        let by_device = Actor { identity: &enrol, client: None, request_id: None };
        let first = registry.register(&by_device, &name, &labels).await.expect("registered").token;
        let (other, token) = (registry.clone(), first.reveal().to_owned());
        let using = tokio::spawn(async move { other.authenticate(&token, Some([192, 0, 2, round].into())).await });
        let again = registry.register(&by_device, &name, &labels).await;
        let was_used = using.await.expect("no panic").is_ok();
        assert_ne!(was_used, again.is_ok(), "round {round}");
        assert_eq!(registry.authenticate(first.reveal(), Some([198, 51, 100, round].into())).await.is_ok(), was_used);
        used += u32::from(was_used);
        taken_back += u32::from(again.is_ok());
    }
    assert_eq!(used + taken_back, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn of_many_guesses_at_once_no_more_are_told_than_one_after_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let guess = |n: usize| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.authenticate(&format!("cat_{n}"), Some([192, 0, 2, 1].into())).await })
    };
    let guesses: Vec<_> = (0..200).map(guess).collect();
    let (mut refused, mut turned_away) = (0, 0);
    for guess in guesses {
        match guess.await.expect("no panic") {
            Err(AuthError::Refused) => refused += 1,
            Err(AuthError::TooManyFailures { wait_seconds: 1..=61 }) => turned_away += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((refused, turned_away), (10, 190));
}

#[tokio::test]
async fn what_sqlite_takes_back_by_itself_holds_up_nothing_that_comes_later() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    admin(&registry).await;
    let beside = format!("sqlite:{}", dir.path().join("registry.db").display());
    let beside = sqlx::sqlite::SqlitePool::connect(&beside).await.expect("opens");
    // As a full disk does.
    let trouble = "CREATE TRIGGER trouble BEFORE INSERT ON sensors BEGIN SELECT RAISE(ROLLBACK, 'trouble'); END";
    sqlx::query(trouble).execute(&beside).await.expect("made");
    for _ in 0..5 {
        register(&registry, "roof", &no_labels()).await.expect_err("the trouble");
    }
    sqlx::query("DROP TRIGGER trouble").execute(&beside).await.expect("gone");
    for name in ["roof", "cellar", "attic", "garden", "street"] {
        register(&registry, name, &no_labels()).await.expect("registered");
    }
}
