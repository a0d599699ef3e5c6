//! The web page, in a real Chromium that a person's hands are played to: every view, every role, light, dark, on a phone, and what others send.

use serde_json::json;
use std::path::Path;
use std::process::Command;
use tests::{Collector, catchment, installed, said, skipped};

/// Plays a story of `tests/browser` to a collector of its own.
fn play(story: &str) {
    let Some(libraries) = installed("CATCHMENT_BROWSER_NODE", "node_modules/playwright-core/package.json") else {
        return;
    };
    if Command::new("chromium").arg("--version").output().is_err() {
        return skipped("chromium is not installed");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
    let login = catchment(dir.path(), &["login"], b"");
    let link = said(&login).split_whitespace().find(|word| word.starts_with("http")).unwrap_or_default().to_owned();
    let output = Command::new("node")
        .arg(folder.join(format!("{story}.mjs")))
        .env("CATCHMENT_BROWSER_NODE", libraries)
        .env("CATCHMENT_URL", &collector.api)
        .env("ADMIN_URL", format!("{}/metrics", collector.admin))
        .env("CATCHMENT_TOKEN", &collector.token)
        .env("LINK", link)
        .output()
        .expect("node runs");
    let told = format!("{}{}", said(&output), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("ok: "), "{story}:\n{told}");
}

#[test]
fn somebody_signs_in_registers_a_sensor_watches_filters_asks_rotates_and_signs_out() {
    play("story");
}

#[test]
fn every_view_is_readable_for_everybody_on_a_desk_and_on_a_phone() {
    play("look");
}

#[test]
fn what_others_send_is_shown_and_never_run() {
    play("injection");
}

#[test]
fn the_page_and_its_files_are_kept_by_their_version_and_run_nothing_from_elsewhere() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let get = |path: &str, headers: &[(&str, &str)]| collector.ask(("GET", path), "", headers, b"");
    let page = get("/", &[]);
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(page.header("cache-control"), Some("no-cache"), "another program has another page");
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    let etag = page.header("etag").expect("a version").to_owned();
    assert_eq!(get("/", &[("if-none-match", &etag)]).status, 304);
    let files: Vec<&str> = page.text.split('"').filter(|part| part.starts_with("page/")).collect();
    assert!(files.len() >= 4, "{}", page.text);
    for file in &files {
        let answer = get(&format!("/{file}"), &[]);
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (200, Some("public, max-age=31536000, immutable")),
            "{file}"
        );
        let packed = collector.ask(("HEAD", &format!("/{file}")), "", &[("accept-encoding", "gzip")], b"");
        assert_eq!(packed.header("content-encoding"), Some("gzip"), "{file}");
    }
    let other = get("/page/0000000000000000/main.js", &[]);
    assert_eq!(
        (other.status, other.header("cache-control")),
        (200, Some("no-cache")),
        "asked for by the page of another program"
    );
    let none = get("/page/0/none.js", &[]);
    assert_eq!((none.status, &none.json()["code"]), (404, &json!("not_found")));
}
