//! The service with real servers, and without them: attached and taken away by configuration, paused, killed, back again.

mod servers;

use http::{Method, StatusCode};
use nowwhat::testkit::{TestAnswer, TestConfig, TestServer, wait_until};
use serde_json::{Value, json};
use servers::{Postgres, PostgresFiles, Redis, Way};
use std::process::Command;
use std::time::{Duration, Instant};

const READER: &str = "token-of-a-reader";
const EDITOR: &str = "token-of-an-editor";
/// What the tests give one call of Postgres, in seconds; an answer without Postgres comes soon after.
const DATABASE_SECONDS: u64 = 1;
/// No request takes longer, whatever the servers do: the time of one call of Postgres, of two calls of Redis, and of a slow machine.
const REQUEST_SECONDS_MAX: f64 = 6.0;

fn start(database: &str, cache: &str) -> TestServer {
    start_with(database, cache, |config| config)
}

fn start_with(database: &str, cache: &str, further: impl FnOnce(TestConfig) -> TestConfig) -> TestServer {
    let config = |config: TestConfig| {
        further(config)
            .set("database.url", database)
            .set("database.timeout_seconds", DATABASE_SECONDS)
            .set("cache.url", cache)
            .set("auth.reader_token", READER)
            .set("auth.editor_token", EDITOR)
    };
    TestServer::start(&notes::service(), config, notes::start)
}

fn ask(server: &TestServer, method: Method, path: &str, token: &str) -> TestAnswer {
    server.request(method, path).bearer(token).send()
}

fn read(server: &TestServer, path: &str) -> TestAnswer {
    ask(server, Method::GET, path, READER)
}

fn write(server: &TestServer, method: Method, path: &str, title: &str) -> TestAnswer {
    let draft = json!({ "title": title, "text": "…" });
    server.request(method, path).bearer(EDITOR).json(&draft).send()
}

/// A new note's path.
fn create(server: &TestServer, title: &str) -> String {
    let answer = write(server, Method::POST, "/notes", title);
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    answer.header("location").expect("a place").to_owned()
}

fn title(answer: &TestAnswer) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.json()["title"].as_str().expect("a title").to_owned()
}

/// The answer, which came in bounded time.
fn in_time(request: impl FnOnce() -> TestAnswer) -> TestAnswer {
    let began = Instant::now();
    let answer = request();
    let seconds = began.elapsed().as_secs_f64();
    assert!(seconds < REQUEST_SECONDS_MAX, "{seconds} s for {}", answer.status);
    answer
}

fn calls(server: &TestServer, dependency: &str, outcome: &str) -> f64 {
    let labels = format!("dependency=\"{dependency}\",outcome=\"{outcome}\"");
    server.metric(&format!("dependency_duration_seconds_count{{{labels}}}"))
}

fn cache_reads(server: &TestServer, found: &str) -> f64 {
    server.metric(&format!("notes_cache_reads_total{{found=\"{found}\"}}"))
}

/// Why `/readyz` says no or warns about this check.
fn reason(server: &TestServer, check: &str) -> Option<String> {
    let answer = server.admin("/readyz").send().json();
    let reasons = answer["reasons"].as_array().expect("reasons");
    let of_check = reasons.iter().find(|reason| reason["check"] == check);
    of_check.map(|reason| reason["reason"].as_str().expect("a reason").to_owned())
}

fn is_ready(server: &TestServer) -> bool {
    server.admin("/readyz").send().status == StatusCode::OK
}

/// A problem, with the status and a header.
fn assert_problem(answer: &TestAnswer, status: u16, header: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.header(header).is_some(), "{header} in {:?}", answer.headers);
}

#[test]
fn a_note_is_written_by_editors_read_by_both_roles_and_by_nobody_else() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else { return };
    let server = start(&postgres.url(), &redis.url());
    let path = create(&server, "bread");
    for token in [READER, EDITOR] {
        assert_eq!(title(&ask(&server, Method::GET, &path, token)), "bread");
    }
    assert_eq!((cache_reads(&server, "miss"), cache_reads(&server, "hit")), (1.0, 1.0));
    assert_eq!(title(&write(&server, Method::PUT, &path, "rye bread")), "rye bread");
    assert_eq!(title(&read(&server, &path)), "rye bread", "the cache forgot what was written again");
    assert_eq!(server.line(&format!("[200] GET {path} ("))["role"], "reader");

    for (method, body) in [(Method::PUT, true), (Method::DELETE, false)] {
        let request = server.request(method, &path).bearer(READER);
        let request = if body { request.json(&json!({ "title": "mine", "text": "" })) } else { request };
        assert_problem(&request.send(), 403, "www-authenticate");
    }
    assert_problem(&server.get(&path).send(), 401, "www-authenticate");
    for token in ["", "token-of-a-reade", "token-of-a-readers"] {
        let answer = server.get(&path).bearer(token).send();
        assert_problem(&answer, 401, "www-authenticate");
        assert!(answer.header("www-authenticate").is_some_and(|told| told.contains("invalid_token")), "{token:?}");
    }

    assert_eq!(ask(&server, Method::DELETE, &path, EDITOR).status, StatusCode::NO_CONTENT);
    assert_problem(&read(&server, &path), 404, "content-type");
    assert_problem(&ask(&server, Method::DELETE, &path, EDITOR), 404, "content-type");
    assert_problem(&write(&server, Method::PUT, &path, "gone"), 404, "content-type");
}

#[test]
fn changed_tokens_are_taken_over_at_a_reload_and_two_that_are_alike_are_not() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("notes.toml");
    let write = |reader: &str, editor: &str| {
        let text = format!("[auth]\nreader_token = \"{reader}\"\neditor_token = \"{editor}\"\n");
        std::fs::write(&file, text).expect("written");
    };
    write(READER, EDITOR);
    let config = |config: TestConfig| config.file(&file).set("database.url", postgres.url());
    let server = TestServer::start(&notes::service(), config, notes::start);
    let status = |token: &str| ask(&server, Method::GET, "/notes", token).status.as_u16();
    assert_eq!([READER, EDITOR, "new"].map(status), [200, 200, 401]);

    write("new", EDITOR);
    server.reload();
    wait_until("the new token", || status("new") == 200);
    assert_eq!([READER, EDITOR].map(status), [401, 200]);
    assert_eq!(server.line("reloaded")["changed"], "auth.reader_token");

    write("same", "same");
    server.reload();
    server.line("not reloaded: the configuration has problems");
    assert_eq!(["new", EDITOR, "same"].map(status), [200, 200, 401]);
}

#[test]
fn notes_come_in_pages_and_what_cannot_be_a_note_is_told() {
    let Some(postgres) = Postgres::start() else { return };
    let server = start(&postgres.url(), "");
    let written: Vec<String> = (1..=5).map(|n| format!("note {n}")).collect();
    for title in &written {
        create(&server, title);
    }
    let (mut after, mut titles, mut pages) = (0, Vec::new(), 0);
    loop {
        let page = read(&server, &format!("/notes?limit=2&after={after}")).json();
        titles.extend(page["notes"].as_array().expect("notes").iter().map(|note| note["title"].clone()));
        pages += 1;
        match page["next"].as_i64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!((titles, pages), (written.into_iter().map(Value::from).collect(), 3));
    for query in ["limit=0", "limit=101", "after=x"] {
        assert_problem(&read(&server, &format!("/notes?{query}")), 400, "content-type");
    }
    for (title, text) in [("", ""), ("x".repeat(201).as_str(), ""), ("x", "\0"), ("x", "y".repeat(10_001).as_str())] {
        let draft = json!({ "title": title, "text": text });
        assert_problem(&server.post("/notes").bearer(EDITOR).json(&draft).send(), 422, "content-type");
    }
}

#[test]
fn the_cache_is_taken_away_and_attached_by_configuration_alone() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else { return };
    let first = start(&postgres.url(), "");
    let path = create(&first, "kept in postgres");
    assert_eq!(title(&read(&first, &path)), "kept in postgres");
    let checks = first.admin("/readyz").send().json()["checks"].to_string();
    assert!(checks.contains("postgres") && !checks.contains("redis"), "{checks}");
    assert_eq!(redis.ask("DBSIZE").as_deref(), Some(":0\r\n"));
    first.stop().expect("stopped in order");

    let second = start(&postgres.url(), &redis.url());
    for _ in 0..3 {
        assert_eq!(title(&read(&second, &path)), "kept in postgres");
    }
    assert_eq!((cache_reads(&second, "miss"), cache_reads(&second, "hit")), (1.0, 2.0));
    assert_eq!(redis.ask("DBSIZE").as_deref(), Some(":1\r\n"));
    let ttl = redis.ask("TTL notes:note:1").expect("an answer");
    let ttl: i64 = ttl.trim_start_matches(':').trim_end().parse().expect("a number");
    assert!((1..=60).contains(&ttl), "{ttl}");
    assert!(second.admin("/readyz").send().json()["checks"].to_string().contains("redis"));
}

#[test]
fn while_postgres_is_paused_requests_are_answered_503_in_time_and_when_it_goes_on_so_does_the_service() {
    let Some(postgres) = Postgres::start() else { return };
    let server = start(&postgres.url(), "");
    let path = create(&server, "bread");
    postgres.pause();
    // More than there are connections: lost ones must not be waited for.
    for _ in 0..12 {
        let answer = in_time(|| read(&server, &path));
        assert_problem(&answer, 503, "retry-after");
    }
    assert_problem(&in_time(|| write(&server, Method::POST, "/notes", "rye")), 503, "retry-after");
    wait_until("not ready", || !is_ready(&server));
    let why = reason(&server, "postgres").expect("a reason");
    assert!(why.contains("postgres did not answer within 1s"), "{why}");
    assert_eq!(server.admin("/livez").send().status, StatusCode::OK);
    assert_eq!(server.get("/livez").send().status, StatusCode::OK);
    assert_eq!(server.get("/readyz").send().status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(calls(&server, "postgres", "timeout") >= 13.0);

    postgres.go_on();
    wait_until("reading", || read(&server, &path).status == StatusCode::OK);
    wait_until("ready", || is_ready(&server));
    assert_eq!(reason(&server, "postgres"), None);
    create(&server, "rye bread");
    assert!(calls(&server, "postgres", "success") >= 3.0);
}

#[test]
fn while_postgres_is_paused_notes_in_the_cache_are_still_read() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else { return };
    let server = start(&postgres.url(), &redis.url());
    let (kept, other) = (create(&server, "kept"), create(&server, "other"));
    read(&server, &kept);
    postgres.pause();
    assert_eq!(title(&in_time(|| read(&server, &kept))), "kept");
    assert_problem(&in_time(|| read(&server, &other)), 503, "retry-after");
    // So that the service can close its connections in order.
    postgres.go_on();
}

#[test]
fn a_connection_that_was_lost_in_the_middle_of_a_statement_does_not_keep_its_place_in_the_pool() {
    let Some(postgres) = Postgres::start() else { return };
    let way = Way::to(&postgres);
    let server = start_with(&way.url(), "", |config| config.set("database.connections_max", 1));
    let path = create(&server, "bread");
    let lock = postgres.lock();
    // The check of the service waits for the lock, if nothing else does.
    let waiting = "select count(*) from pg_stat_activity where application_name = 'notes' and wait_event_type = 'Lock'";
    wait_until("a statement", || postgres.sql(waiting) == "1");
    way.lose_connections();
    drop(lock);
    wait_until("reading", || in_time(|| read(&server, &path)).status == StatusCode::OK);
}

#[test]
fn after_postgres_was_killed_and_started_again_the_service_goes_on_with_what_was_written() {
    let Some(postgres) = Postgres::start() else { return };
    let server = start(&postgres.url(), "");
    let path = create(&server, "bread");
    let files = postgres.kill();
    for _ in 0..3 {
        assert_problem(&in_time(|| read(&server, &path)), 503, "retry-after");
    }
    wait_until("not ready", || !is_ready(&server));
    assert!(reason(&server, "postgres").is_some());
    assert_eq!(server.admin("/livez").send().status, StatusCode::OK);
    assert!(calls(&server, "postgres", "error") + calls(&server, "postgres", "timeout") >= 3.0);

    let _postgres = files.serve();
    wait_until("ready", || is_ready(&server));
    assert_eq!(title(&read(&server, &path)), "bread");
}

#[test]
fn the_service_starts_without_postgres_and_is_ready_when_it_comes() {
    let Some(files) = PostgresFiles::create() else { return };
    let url = files.url();
    // It returns when the service is ready.
    let starting = std::thread::spawn(move || start(&url, ""));
    let _postgres = files.serve();
    let server = starting.join().expect("it started");
    create(&server, "bread");
}

#[test]
fn services_that_start_together_make_the_table_once() {
    let Some(postgres) = Postgres::start() else { return };
    let start_one = || {
        let url = postgres.url();
        std::thread::spawn(move || start(&url, ""))
    };
    let starting = [start_one(), start_one(), start_one()];
    let servers = starting.map(|one| one.join().expect("it started"));
    let path = create(&servers[0], "bread");
    assert_eq!(servers.iter().map(|server| title(&read(server, &path))).collect::<Vec<_>>(), ["bread"; 3]);
}

#[test]
fn while_redis_is_paused_or_dead_reads_come_from_postgres_in_time_with_a_warning() {
    let (Some(postgres), Some(redis)) = (Postgres::start(), Redis::start()) else { return };
    let server = start(&postgres.url(), &redis.url());
    let path = create(&server, "bread");
    read(&server, &path);
    let without_redis = |expected: &str| {
        assert_eq!(title(&in_time(|| read(&server, &path))), expected);
        wait_until("a warning", || reason(&server, "redis").is_some());
        assert!(is_ready(&server), "traffic may come");
        assert_eq!(title(&in_time(|| read(&server, &path))), expected);
    };
    redis.pause();
    without_redis("bread");
    assert!(calls(&server, "redis", "timeout") >= 1.0);
    assert!(cache_reads(&server, "away") >= 2.0);
    assert_eq!(server.line("the cache does not answer")["severity"], "WARN");
    assert_eq!(title(&in_time(|| write(&server, Method::PUT, &path, "rye bread"))), "rye bread");
    redis.go_on();
    wait_until("no warning", || reason(&server, "redis").is_none());

    let port = redis.port();
    drop(redis);
    without_redis("rye bread");
    assert!(calls(&server, "redis", "error") >= 1.0);
    let hits = cache_reads(&server, "hit");
    let _redis = Redis::at(port);
    wait_until("no warning", || reason(&server, "redis").is_none());
    for _ in 0..2 {
        assert_eq!(title(&read(&server, &path)), "rye bread");
    }
    assert!(cache_reads(&server, "hit") > hits, "the cache is used again");
}

#[test]
fn the_api_page_is_served_from_the_program_and_describes_every_route() {
    let Some(postgres) = Postgres::start() else { return };
    let server = start(&postgres.url(), "");
    let page = server.get("/docs/").send();
    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, Some("text/html")));
    let page = page.text();
    for (_, reference) in page.match_indices("src=\"").chain(page.match_indices("href=\"")).map(|(at, start)| {
        let rest = &page[at + start.len()..];
        (at, rest.split('"').next().expect("an end"))
    }) {
        assert!(!reference.contains("//"), "{reference} is elsewhere");
        let part = server.get(&format!("/docs/{}", reference.trim_start_matches("./"))).send();
        assert_eq!(part.status, StatusCode::OK, "{reference}");
    }
    let described = server.get("/openapi.json").send().json();
    let mut operations = Vec::new();
    for (path, methods) in described["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let answer = server.request(method.clone(), &path.replace("{id}", "1")).send();
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path} is a route, and guarded");
            operations.push(format!("{method} {path}"));
        }
    }
    operations.sort_unstable();
    let expected =
        ["DELETE /notes/{id}", "GET /notes", "GET /notes/{id}", "POST /notes", "PUT /notes/{id}"].map(str::to_owned);
    assert_eq!(operations, expected);
    assert_eq!(described["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

#[test]
fn problems_of_the_configuration_are_told_all_at_once_without_a_password() {
    let output = Command::new(env!("CARGO_BIN_EXE_notes"))
        .env("NOTES_DATABASE__URL", "mysql://me:hidden@db.example/notes")
        .env("NOTES_CACHE__URL", "memcached://:hidden@cache.example")
        .env("NOTES_DATABASE__CONNECTIONS_MAX", "0")
        .output()
        .expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("database.connections_max") && told.contains("NOTES_DATABASE__CONNECTIONS_MAX"), "{told}");

    let output = Command::new(env!("CARGO_BIN_EXE_notes"))
        .env("NOTES_DATABASE__URL", "mysql://me:hidden@db.example/notes")
        .env("NOTES_CACHE__URL", "memcached://:hidden@cache.example")
        .output()
        .expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    for part in ["database.url = mysql://db.example/notes", "NOTES_CACHE__URL", "auth.editor_token"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains("hidden"), "{told}");
}

#[test]
fn an_address_without_a_server_does_not_hold_up_the_end() {
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_notes"))
        .env("NOTES_DATABASE__URL", "postgres://me:hidden@127.0.0.1:1/notes")
        .env("NOTES_CACHE__URL", "redis://127.0.0.1:1")
        .env("NOTES_AUTH__EDITOR_TOKEN", EDITOR)
        .env("NOTES_HTTP__LISTEN", "127.0.0.1:0")
        .env("NOTES_ADMIN__LISTEN", "127.0.0.1:0")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program runs");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("a pipe")));
    let pid = rustix::process::Pid::from_child(&child);
    let mut told = String::new();
    for line in lines.map_while(Result::ok) {
        if line.contains("\"ready\"") {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the child is ours");
        }
        told += &line;
        told += "\n";
    }
    let status = child.wait().expect("it ends");
    assert!(status.success() && !told.contains("hidden"), "{status} {told}");
    assert!(began.elapsed() < Duration::from_secs(20), "{told}");
}
