//! The API as its users see it, written as documentation: the whole service on free ports, asked as a sensor and as an operator.

use axum::Router;
use engine::{Engine, EngineMetrics};
use nowwhat::testkit::TestServer;
use nowwhat::{Boot, BoxError, Service};
use query::{Queries, QueryMetrics};
use registry::{Options, Registry, RegistryMetrics};
use rejected::{Rejected, RejectedMetrics};
use serde_json::{Value, json};
use tempfile::TempDir;

const ADMIN_TOKEN: &str = "an admin token of a test, and long";
const MIB: u64 = 1 << 20;

/// The collector over a folder of its own, and the folder.
fn collector() -> (TestServer, TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().to_path_buf();
    let service = Service::new(nowwhat::version!("collector"), Vec::new());
    let start = async move |boot: &mut Boot| start(boot, &path).await;
    (TestServer::start(&service, |config| config, start), dir)
}

fn engine_options(dir: &std::path::Path) -> engine::Options {
    engine::Options {
        wal_dir: dir.join("wal"),
        lake_dir: dir.join("lake"),
        free_bytes_min: 0,
        segment_bytes: MIB,
        in_flight_bytes_max: 8 * MIB,
        group_bytes_max: MIB,
        payload_bytes_max: 16 << 20,
        live_bytes_max: 8 * MIB,
        seal_bytes: 4 * MIB,
        fields: engine::FieldRules::default(),
        seal_age_seconds: 3600,
        retention: engine::Retention::default(),
        clock: engine::Clock::default(),
        room_wait_seconds: 1,
        window_keys_max: 10_000,
        answers_bytes_max: MIB,
        group_keys_max: 10_000,
        window_seconds: 600,
        schema: server::events_schema(),
    }
}

async fn start(boot: &mut Boot, dir: &std::path::Path) -> Result<Router, BoxError> {
    let url = format!("sqlite://{}", dir.join("registry.sqlite").display());
    let options = Options { url, failures_per_minute_max: 10 };
    let registry = Registry::open(&options, boot.metrics(RegistryMetrics::register)).await?;
    registry.ensure_admin(ADMIN_TOKEN).await?;
    let options = engine_options(dir);
    let lake = boot.metrics(lake::LakeMetrics::register);
    let (engine, _) = Engine::start(options, boot.metrics(EngineMetrics::register), lake).await?;
    let options = query::Options {
        lake_dir: dir.join("lake"),
        spill_dir: dir.join("spill"),
        threads: 2,
        memory_bytes_max: 256 * MIB,
        spill_bytes_max: 256 * MIB,
        concurrent_max: 2,
        wait_seconds: 2,
        timeout_seconds: 60,
        timeout_seconds_max: 60,
        rows_max: 1000,
    };
    let table = rejected::Options {
        path: dir.join("rejected.sqlite"),
        bytes_max: MIB,
        event_bytes_max: 1000,
        age_max: std::time::Duration::from_secs(60),
    };
    let rejected = Rejected::open(table, boot.metrics(RejectedMetrics::register)).await?;
    let queries = Queries::new(options, rejected.clone(), boot.metrics(QueryMetrics::register))?;
    let limits = server::Limits {
        body_bytes_max: MIB,
        event: server::EventLimits::default(),
        query_bytes_max: MIB,
        kept_seconds: None,
    };
    let (closing, ending) = (registry.clone(), engine.clone());
    boot.on_stop("registry", async move { Ok(closing.close().await?) });
    boot.on_stop("engine", async move { Ok(ending.close().await?) });
    let quotas = server::Quotas::new(server::Quota::default());
    let metrics = boot.metrics(server::ServerMetrics::register);
    let held = (registry.clone(), rejected.clone());
    let backups = server::Backups::new(dir.join("snapshot"), engine.clone(), held, &metrics)?;
    let erasures = server::Erasures::new(engine.clone(), registry.clone(), rejected.clone(), backups.clone(), &metrics);
    let erasures = erasures.await?;
    let health = nowwhat::health::Health::default();
    let version = nowwhat::Version { name: "catchment", version: "0.0.0", commit: "unknown" };
    let about = server::About { version, environment: "dev".to_owned() };
    let overview = server::Overview::new(about, boot.registry(), health.clone());
    let app = server::App::new(server::Parts {
        engine,
        queries,
        registry,
        rejected,
        erasures,
        backups,
        quotas,
        health,
        overview,
        metrics,
        limits,
    });
    Ok(server::routes(app, None))
}

/// Registers a sensor as an operator does; the answer has its id and its token, which is shown only here.
fn register(collector: &TestServer, name: &str) -> Value {
    let answer = collector.post("/api/v1/sensor").bearer(ADMIN_TOKEN).json(&json!({ "name": name })).send();
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

#[test]
fn as_a_sensor_fetch_info_about_itself() {
    let (collector, _dir) = collector();
    let registered = register(&collector, "roof");

    let answer = collector.get("/api/v1/sensor").bearer(registered["token"].as_str().expect("a token")).send();

    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let sensor = answer.json();
    assert_eq!(sensor["sensorId"], registered["sensorId"]);
    assert_eq!(sensor["name"], "roof");
    assert_eq!(sensor["disabled_at"], Value::Null);

    let line = collector.line("[200] GET /api/v1/sensor (sensors#get_sensor)");
    assert!(line["db"].as_f64().expect("milliseconds") > 0.0, "the registry was asked: {line}");
    assert!(!line.to_string().contains(registered["token"].as_str().expect("a token")), "no token in the log");
}

#[test]
fn without_a_token_a_sensor_is_told_what_to_send() {
    let (collector, _dir) = collector();

    let answer = collector.get("/api/v1/sensor").header("x-request-id", "roof-1").send();

    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"catchment\""));
    let problem = answer.json();
    assert_eq!((&problem["code"], &problem["request_id"]), (&json!("missing_token"), &json!("roof-1")));
    assert_eq!(problem["detail"], "send the header `Authorization: Bearer TOKEN`");
    assert_eq!(collector.line("[401] GET /api/v1/sensor")["code"], "missing_token");
}

#[test]
fn the_time_of_a_slow_query_is_the_lines_db() {
    let (collector, _dir) = collector();
    let token = register(&collector, "roof")["token"].as_str().expect("a token").to_owned();
    let events: String = (0..4000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let sent = collector.post("/api/v1/events").bearer(&token).header("content-type", "application/x-ndjson");
    assert_eq!(sent.body(events).send().json()["accepted"], 4000);

    // 16 million pairs, which no index shortens.
    let sql =
        "SELECT sum(CASE WHEN a.position % 7 < b.position % 5 THEN 1 ELSE 0 END) FROM events a CROSS JOIN events b";
    let asked = collector.post("/api/v1/query").bearer(ADMIN_TOKEN).json(&json!({ "sql": sql })).send();
    assert_eq!(asked.status, 200, "{}", asked.text());

    let line = collector.line("[200] POST /api/v1/query (query#post_query)");
    let ms = |name: &str| line[name].as_f64().unwrap_or_else(|| panic!("{name} in {line}"));
    assert!(ms("db") > ms("duration") / 2.0, "the query is most of it: {line}");
    assert!(ms("view") < ms("db"), "{line}");
}
