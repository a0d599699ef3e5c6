//! Erasures are kept, go on where they were, and count what went.

use registry::{Actor, Identity, Labels, Options, Registry, RegistryMetrics, SensorError, Until};
use std::path::Path;
use std::sync::Arc;

const ADMIN: &str = "the-first-admin-token-of-a-test-1";

async fn open(dir: &Path) -> (Registry, Arc<Identity>) {
    let url = format!("sqlite://{}", dir.join("registry.db").display());
    let mut metrics = prometheus_client::registry::Registry::default();
    let options = Options { url, failures_per_minute_max: 10 };
    let registry = Registry::open(&options, RegistryMetrics::register(&mut metrics)).await.expect("opens");
    registry.ensure_admin(ADMIN).await.expect("stored");
    let admin = registry.authenticate(ADMIN, None).await.expect("known");
    (registry, admin)
}

fn by(identity: &Identity) -> Actor<'_> {
    Actor { identity, client: None, request_id: None }
}

fn until(position: u64) -> Until {
    Until { position, rejected_position: 7 }
}

#[tokio::test]
async fn an_erasure_is_kept_goes_up_to_the_later_place_and_ends_once_all_of_it_is_done() {
    let dir = tempfile::tempdir().expect("a folder");
    let (registry, admin) = open(dir.path()).await;
    assert!(matches!(registry.erase(&by(&admin), "roof", until(1)).await, Err(SensorError::Unknown(_))));
    registry.register(&by(&admin), "roof", &Labels::new()).await.expect("registered");
    assert_eq!(registry.erasure("roof").await.expect("asked"), None);
    let first = registry.erase(&by(&admin), "roof", until(10)).await.expect("stored");
    registry.begin_erasure("roof", 100).await.expect("noted");
    registry.close().await.expect("closed");

    let (registry, admin) = open(dir.path()).await;
    let resumed = registry.unfinished_erasures().await.expect("asked").remove(0);
    assert_eq!((resumed.until, resumed.turn_since, resumed.erased_events(103)), (until(10), Some(100), 3));
    // It goes on counting from where it began, and more is asked for meanwhile.
    registry.begin_erasure("roof", 103).await.expect("noted");
    let second = registry.erase(&by(&admin), "roof", until(20)).await.expect("stored");
    assert!(second.until == until(20) && second.requested_at > first.requested_at, "{second:?}");
    registry.end_erasure(&resumed, 104, None).await.expect("noted");
    let more = registry.unfinished_erasures().await.expect("asked").remove(0);
    assert_eq!((more.until, more.erased_events, more.turn_since), (until(20), 4, None));

    registry.begin_erasure("roof", 150).await.expect("noted");
    registry.end_erasure(&more, 152, Some("no room")).await.expect("noted");
    let failed = registry.erasure("roof").await.expect("asked").expect("one");
    assert_eq!((failed.failure.as_deref(), failed.finished_at, failed.erased_events(999)), (Some("no room"), None, 6));
    registry.begin_erasure("roof", 152).await.expect("noted");
    registry.end_erasure(&failed, 152, None).await.expect("noted");
    let done = registry.erasure("roof").await.expect("asked").expect("one");
    assert!(done.finished_at.is_some() && done.failure.is_none() && done.erased_events == 6, "{done:?}");
    assert_eq!(registry.unfinished_erasures().await.expect("asked"), []);

    // Another one begins anew, and an earlier place changes nothing.
    let again = registry.erase(&by(&admin), "roof", until(5)).await.expect("stored");
    assert_eq!((again.until, again.erased_events, again.finished_at), (until(20), 0, None));
    let acts: Vec<_> = registry.audit(10, None, None).await.expect("asked").into_iter().map(|e| e.act).collect();
    assert_eq!(acts.iter().filter(|act| *act == "sensor.erase").count(), 3, "{acts:?}");
}
