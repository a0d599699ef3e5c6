//! What the registry promises.

use registry::{AuthError, OpenError, RegisterError, Registry, RegistryMetrics, Role};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

async fn open(dir: &Path) -> Registry {
    let url = format!("sqlite://{}", dir.join("registry.db").display());
    let mut metrics = prometheus_client::registry::Registry::default();
    Registry::open(&url, RegistryMetrics::register(&mut metrics)).await.expect("opens")
}

fn no_labels() -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[tokio::test]
async fn a_registered_sensor_comes_in_with_its_token_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let made = registry.register("Roof 1", &no_labels()).await.expect("registered");
    assert_eq!(&*made.sensor_id, "roof-1");
    registry.close().await.expect("closed");
    let registry = open(dir.path()).await;
    for _ in 0..2 {
        let identity = registry.authenticate(made.token.reveal()).await.expect("known");
        assert_eq!((identity.role, identity.sensor.as_deref()), (Role::Sensor, Some("roof-1")));
    }
    assert!(matches!(registry.authenticate("cat_wrong").await, Err(AuthError::Refused)));
}

#[tokio::test]
async fn the_database_holds_no_token_in_clear_and_is_the_owners_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let made = registry.register("roof", &no_labels()).await.expect("registered");
    registry.ensure_admin("a-long-enough-admin-token").await.expect("stored");
    registry.close().await.expect("closed");
    let bytes = std::fs::read(dir.path().join("registry.db")).expect("the file");
    for secret in [made.token.reveal(), "a-long-enough-admin-token"] {
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
    let (a, b) = tokio::join!(registry.register("roof", &labels), registry.register("ROOF", &labels));
    assert_eq!([a.is_ok(), b.is_ok()].iter().filter(|ok| **ok).count(), 1);
    let lost = a.err().or(b.err()).expect("one lost");
    assert!(matches!(lost, RegisterError::Taken { sensor_id } if sensor_id == "roof"));
}

#[tokio::test]
async fn bad_names_and_labels_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    assert!(matches!(registry.register("???", &no_labels()).await, Err(RegisterError::Name(_))));
    let labels = BTreeMap::from([("k".to_owned(), "v".repeat(257))]);
    assert!(matches!(registry.register("roof", &labels).await, Err(RegisterError::Labels)));
    assert_eq!(registry.sensors().await.expect("read"), []);
}

#[tokio::test]
async fn a_new_configured_admin_token_takes_the_place_of_the_old_one_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    assert!(matches!(registry.ensure_admin("short").await, Err(OpenError::WeakAdminToken)));
    registry.ensure_admin("the-first-admin-token").await.expect("stored");
    assert_eq!(registry.authenticate("the-first-admin-token").await.expect("known").role, Role::Admin);
    registry.ensure_admin("the-second-admin-token").await.expect("stored");
    assert!(registry.authenticate("the-first-admin-token").await.is_err());
    assert!(registry.authenticate("the-second-admin-token").await.is_ok());
}

#[tokio::test]
async fn last_seen_shows_at_once_and_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let registry = open(dir.path()).await;
    let labels = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
    let id = registry.register("roof", &labels).await.expect("registered").sensor_id;
    registry.seen(&id, 7);
    assert_eq!(registry.sensor("roof").await.expect("read").expect("there").last_seen_at, Some(7));
    registry.close().await.expect("closed");
    let sensors = open(dir.path()).await.sensors().await.expect("read");
    assert_eq!((sensors.len(), sensors[0].last_seen_at, &sensors[0].labels), (1, Some(7), &labels));
}

#[tokio::test]
async fn foreign_urls_and_newer_schemas_are_refused_with_a_sentence() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut metrics = prometheus_client::registry::Registry::default();
    let metrics = RegistryMetrics::register(&mut metrics);
    assert!(matches!(Registry::open("mysql://x", metrics.clone()).await, Err(OpenError::Scheme(_))));
    let path = dir.path().join("newer.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("opens");
    sqlx::query("PRAGMA user_version = 99").execute(&pool).await.expect("set");
    pool.close().await;
    let refused = Registry::open(&format!("sqlite://{}", path.display()), metrics).await;
    assert!(matches!(refused, Err(OpenError::Newer { found: 99, .. })));
}
