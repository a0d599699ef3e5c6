//! What comes from anyone, events and labels, cannot command the terminal of who reads it; a file or a pipe gets it as it came.

use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use tests::{Collector, catchment, program, said, skipped};

/// Sets the title of a terminal, and clears it.
const ODD: &str = "\u{1b}]0;odd\u{7}\u{1b}[2J";
const SHOWN: &str = "\\u{1b}]0;odd\\u{7}\\u{1b}[2J";

/// What a command says on a terminal; none without the program that makes one.
fn on_a_terminal(dir: &Path, args: &str) -> Option<String> {
    let command = format!("{} {args}", program().display());
    let mut script = Command::new("script");
    let script = script.args(["-qec", &command, "/dev/null"]).current_dir(dir).stdin(Stdio::null());
    match script.output() {
        Ok(output) => Some(said(&output)),
        Err(_) => {
            skipped("script (util-linux) is not installed");
            None
        }
    }
}

#[test]
fn events_and_labels_cannot_command_the_terminal_of_who_reads_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let body =
        json!({ "name": format!("Roof{ODD}"), "labels": { ODD: ODD, "site": format!("a\ndisabled    no{ODD}") } });
    let made = collector.post("/api/v1/sensor", &collector.token, body.to_string().as_bytes(), &[]).json();
    let (id, token) = (made["sensorId"].as_str().expect("an id"), made["token"].as_str().expect("a token"));
    let broken = format!("{{oops {ODD}");
    let events = format!("{}\n{broken}\n", json!({ "type": ODD, "data": 1 }));
    assert_eq!(collector.send(token, events.as_bytes()).json()["accepted"], 1);

    let run = |args: &[&str]| said(&catchment(dir.path(), args, b""));
    let shown = run(&["sensor", "show", id]);
    assert_eq!(shown.matches(SHOWN).count(), 4, "{shown}");
    assert_eq!(shown.lines().filter(|line| line.starts_with("disabled ")).count(), 1, "{shown}");
    for text in [shown, run(&["sensor", "list"]), run(&["query", "SELECT type FROM events"])] {
        assert!(!text.contains('\u{1b}') && text.contains("\\u{1b}]0;odd"), "{text}");
    }
    let complaint = catchment(dir.path(), &["send", "--sensor", ODD], b"{}\n");
    assert!(!complaint.stderr.contains(&b'\x1b'), "{complaint:?}");

    // JSON has no raw control characters.
    let exported = run(&["rejected", "export"]);
    assert!(!exported.contains('\u{1b}') && exported.contains("\\u001b]0;odd"), "{exported}");

    let args = "query 'SELECT type FROM events' --format csv";
    let piped =
        Command::new("sh").args(["-c", &format!("{} {args}", program().display())]).current_dir(dir.path()).output();
    assert!(said(&piped.expect("it runs")).contains(ODD), "{args}: as it came");
    let Some(text) = on_a_terminal(dir.path(), args) else { return };
    assert!(!text.contains('\u{1b}') && text.contains(SHOWN), "{args}: {text:?}");
}
