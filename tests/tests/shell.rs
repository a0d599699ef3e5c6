//! `catchment query`: the shell, on a real terminal, and answers in files.

use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tests::{Collector, PATIENCE, as_read_by, catchment, program, readers_python, said, skipped};

const ENTER: &str = "\r";
const TAB: &str = "\t";
const UP: &str = "\u{1b}[A";
const CTRL_C: &str = "\u{3}";
const CTRL_D: &str = "\u{4}";
const CTRL_R: &str = "\u{12}";
/// Would set the title of a terminal.
const ODD: &str = "\u{1b}]0;odd\u{7}";

/// The program on a terminal of its own, and somebody who types.
struct Session {
    terminal: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
    /// So much of it was looked at.
    seen: usize,
}

impl Session {
    /// None without the program that makes terminals.
    fn start(dir: &Path, args: &str) -> Option<Self> {
        let command = format!("stty cols 120 rows 40; exec {} query {args}", program().display());
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).current_dir(dir).env("TERM", "xterm");
        script.env("XDG_STATE_HOME", dir.join("state")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut terminal) = script.spawn() else {
            skipped("script (util-linux) is not installed");
            return None;
        };
        let (keys, mut out) = (terminal.stdin.take().expect("piped"), terminal.stdout.take().expect("piped"));
        let shown = Arc::new(Mutex::new(Vec::new()));
        let kept = shown.clone();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut part) {
                kept.lock().expect("not poisoned").extend(&part[..count]);
            }
        });
        Some(Self { terminal, keys, shown, seen: 0 })
    }

    fn press(&mut self, keys: &[&str]) {
        self.keys.write_all(keys.concat().as_bytes()).expect("the terminal takes keys");
    }

    /// What the terminal shows, without what steers it.
    fn text(&self) -> String {
        let bytes = self.shown.lock().expect("not poisoned").clone();
        let (mut text, shown) = (String::new(), String::from_utf8_lossy(&bytes).replace("\r\n", "\n"));
        let mut rest = &*shown;
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            text += before;
            let end = after.find(|c: char| c.is_ascii_alphabetic()).map_or(after.len(), |at| at + 1);
            rest = &after[end..];
        }
        text + rest
    }

    /// Waits until this is shown behind what was waited for before.
    #[track_caller]
    fn sees(&mut self, wanted: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            let from = (self.seen..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            if let Some(at) = text[from..].find(wanted) {
                self.seen = from + at + wanted.len();
                return;
            }
            assert!(Instant::now() < until, "{wanted:?} is not shown behind {from}: {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it can be typed: what comes before is the terminal's own to read.
    #[track_caller]
    fn asks(&mut self) {
        self.sees("catchment> ");
    }

    /// Waits for its end; the exit code.
    fn end(mut self) -> (Option<i32>, String) {
        let until = Instant::now() + PATIENCE;
        while self.terminal.try_wait().expect("it can be asked").is_none() {
            if Instant::now() > until {
                drop(self.terminal.kill());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        (self.terminal.wait().expect("it ends").code(), self.text())
    }
}

fn filled(dir: &Path) -> Collector {
    let collector = Collector::start(dir);
    let events =
        [json!({ "type": "weather", "temperature": 21.5, "room": { "door": true } }), json!({ "type": ODD, "n": 1 })];
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    assert_eq!(collector.send(&collector.sensor("roof"), lines.as_bytes()).json()["accepted"], 2);
    collector
}

#[test]
fn statements_of_several_lines_are_answered_and_what_is_wrong_is_marked_at_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = filled(dir.path());
    let Some(mut shell) = Session::start(dir.path(), "") else { return };
    shell.asks();
    shell.press(&["SELECT", ENTER]);
    shell.sees("        -> ");
    shell.press(&["41 + 1 AS answer; SELECT 'one;' AS other;", ENTER]);
    for text in ["│     42 │", "1 row", "Time: ", " ms", "│ one;  │", "Time: ", "catchment> "] {
        shell.sees(text);
    }
    shell.press(&["SELECT data.temperature,", ENTER, " nothing FROM events;", ENTER]);
    for text in
        ["ERROR: ", "No field named nothing", "invalid_sql", "LINE 2:  nothing FROM events\n         ^", "Time: "]
    {
        shell.sees(text);
    }
    shell.press(&["SELECT 'it", ENTER]);
    shell.sees("        '> ");
    shell.press(&["s' AS two_lines FROM events WHERE;", ENTER]);
    shell.sees("LINE 2: s' AS two_lines FROM events WHERE\n");
    // What events contain is shown, and steers nothing.
    shell.press(&["SELECT type FROM events ORDER BY position;", ENTER]);
    for text in ["weather", "\\u{1b}]0;odd\\u{7}", "2 rows"] {
        shell.sees(text);
    }
    shell.press(&["\\timing off", ENTER, "\\x", ENTER, "SELECT sensor, data.temperature FROM events LIMIT 1;", ENTER]);
    for text in ["Timing is off", "──[ 1 ]──\nsensor           │ roof\ndata.temperature │ 21.5\n1 row\n"] {
        shell.sees(text);
    }
    shell.press(&["\\format csv", ENTER, "SELECT 1 AS one, 'a,b' AS two;", ENTER]);
    shell.sees("one,two\n1,\"a,b\"\n");
    shell.press(&["DROP TABLE events;", ENTER]);
    shell.sees("statement_not_allowed");
    shell.press(&["\\q", ENTER]);
    let (code, text) = shell.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains(ODD), "{text:?}");
    drop(collector);
}

#[test]
fn commands_of_the_shell_show_tables_columns_and_fields_and_an_unknown_one_what_there_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = filled(dir.path());
    let Some(mut shell) = Session::start(dir.path(), "--limit 1") else { return };
    shell.asks();
    shell.press(&["\\d", ENTER]);
    for text in ["│ events   │", "│ rejected │"] {
        shell.sees(text);
    }
    shell.press(&["\\d events;", ENTER]);
    for text in
        ["│ received_at  ┆ timestamptz │", "\\u{1b}]0;odd", "data.room.door", "boolean", "data.temperature", "number"]
    {
        shell.sees(text);
    }
    shell.press(&["\\d rejected", ENTER]);
    shell.sees("│ reason            ┆ text        │");
    shell.press(&["\\d nowhere", ENTER]);
    shell.sees("nowhere' not found");
    shell.press(&["\\dt", ENTER]);
    shell.sees("\\dt is no command here: there are \\d, \\x, ");
    shell.press(&["\\?", ENTER]);
    shell.sees("Ctrl-R");
    shell.press(&["SELECT id FROM events;", ENTER]);
    shell.sees("1 row, more were left out");
    // Nobody is asked any more, and then another one at another address.
    assert_eq!(collector.terminate(), 0);
    shell.press(&["SELECT 1;", ENTER]);
    shell.sees("ERROR: no running collector found");
    let collector = Collector::start(dir.path());
    shell.press(&["SELECT 6 * 7 AS again;", ENTER]);
    shell.sees("│    42 │");
    shell.press(&["quit", ENTER]);
    let (code, text) = shell.end();
    assert!(code == Some(0) && !text.contains(ODD), "{code:?} {text:?}");
    drop(collector);
}

#[test]
fn tab_completes_a_field_and_what_was_typed_is_found_in_the_next_session() {
    let dir = tempfile::tempdir().expect("a folder");
    let _collector = filled(dir.path());
    let Some(mut shell) = Session::start(dir.path(), "") else { return };
    shell.asks();
    shell.press(&["SELECT avg(data.te", TAB, ") AS mean", ENTER, "FROM ev", TAB, " WHERE data.ro", TAB, ";", ENTER]);
    for text in ["│ mean │", "│ 21.5 │", "Time: "] {
        shell.sees(text);
    }
    shell.asks();
    shell.press(&["\\ti", TAB, " off", ENTER]);
    shell.sees("Timing is off");
    shell.asks();
    shell.press(&[CTRL_D]);
    let (code, text) = shell.end();
    assert_eq!(code, Some(0), "{text}");
    let history = dir.path().join("state/catchment/history");
    let kept = std::fs::read_to_string(&history).expect("a history");
    let statement = "SELECT avg(data.temperature) AS mean\\nFROM events WHERE data.room.door;";
    assert!(kept.contains(statement), "{kept}");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&history), mode(history.parent().expect("a folder"))), (0o600, 0o700));

    let mut next = Session::start(dir.path(), "").expect("a terminal");
    next.asks();
    next.press(&[UP, UP, ENTER]);
    for text in ["│ 21.5 │", "Time: "] {
        next.sees(text);
    }
    next.asks();
    next.press(&["SELECT 1;", ENTER]);
    for text in ["1 row", "Time: "] {
        next.sees(text);
    }
    next.asks();
    next.press(&[CTRL_R, "mean", ENTER]);
    for text in ["│ 21.5 │", "Time: "] {
        next.sees(text);
    }
    next.asks();
    next.press(&[CTRL_D]);
    assert_eq!(next.end().0, Some(0));
}

#[test]
fn ctrl_c_clears_what_is_typed_and_cancels_a_question_that_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    collector.send(&collector.sensor("roof"), "{\"n\":1}\n".repeat(300).as_bytes());
    let Some(mut shell) = Session::start(dir.path(), "") else { return };
    shell.asks();
    shell.press(&["SELECT 'open", ENTER]);
    shell.sees("        '> ");
    shell.press(&["more", CTRL_C]);
    shell.asks();
    // The names that Tab knows are there then, and nothing else is asked beside.
    shell.press(&["SELECT count(*) AS cou", "nted FROM ev", TAB, ";", ENTER]);
    for text in ["│     300 │", "Time: "] {
        shell.sees(text);
    }
    shell.asks();
    shell.press(&["SELECT count(*) FROM events a, events b, events c, events d WHERE a.position + b.position + c.position + d.position = -1;"]);
    shell.press(&[ENTER]);
    collector.wait_for("the question runs", |c| c.metric("catchment_query_running") == 1.0);
    let asked = Instant::now();
    shell.press(&[CTRL_C]);
    shell.sees("cancelled");
    collector.wait_for("it ends there too", |c| c.metric("catchment_query_running") == 0.0);
    assert!(asked.elapsed() < Duration::from_secs(20), "a question may take 30 s");
    shell.press(&["SELECT 40 + 2 AS answer;", ENTER]);
    for text in ["│     42 │", "Time: "] {
        shell.sees(text);
    }
    shell.asks();
    shell.press(&[CTRL_D]);
    let (code, text) = shell.end();
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn answers_in_files_have_their_names_when_they_are_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_QUERY__ROWS_MAX", "150")]);
    let line = format!("{}\n", json!({ "text": "x".repeat(4000), "v": 1.5 }));
    collector.send(&collector.sensor("roof"), line.repeat(200).as_bytes());
    let to = |sql: &str, args: &[&str]| {
        let output = catchment(dir.path(), &[&["query", sql], args].concat(), b"");
        (output.status.code(), said(&output), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let is_there = |name: &str| dir.path().join(name).exists();
    let few = "SELECT position, data.v FROM events ORDER BY position LIMIT 2";
    let (code, told, _) = to(few, &["--output", "few.csv"]);
    assert_eq!((code, told.as_str()), (Some(0), "31 bytes\n"));
    assert_eq!(
        std::fs::read(dir.path().join("few.csv")).expect("it is there"),
        b"position,data.v\r\n1,1.5\r\n2,1.5\r\n"
    );
    let (code, _, error) = to(few, &["--output", "few.csv"]);
    assert!(code == Some(2) && error.contains("--overwrite"), "{error}");
    assert_eq!(to("SELECT 1 AS one", &["--output", "few.csv", "--overwrite"]).0, Some(0));
    assert_eq!(std::fs::read(dir.path().join("few.csv")).expect("it is there"), b"one\r\n1\r\n");
    assert_eq!(to("SELECT 1 WHERE false", &["--output", "none", "--format", "ndjson"]).0, Some(0));
    assert!(is_there("none"), "also a file without a byte");
    let (code, _, error) = to(few, &["--output", "few.txt"]);
    assert!(code == Some(2) && error.contains("--format"), "{error}");

    let (code, _, error) = to("SELECT nothing", &["--output", "flawed.csv"]);
    assert!(code == Some(1) && error.starts_with("LINE 1: SELECT nothing\n               ^\n"), "{error}");
    assert!(!is_there("flawed.csv") && !is_there("flawed.csv.part"));
    // More rows than the collector gives: it breaks off after the first of them.
    let (code, _, error) = to("SELECT data FROM events", &["--output", "cut.csv"]);
    assert!(code == Some(1) && error.contains("broke off") && error.contains("cut.csv.part is a part"), "{error}");
    assert!(!is_there("cut.csv") && is_there("cut.csv.part"));

    for name in ["parquet", "arrow.stream"] {
        let form = if name == "parquet" { "parquet" } else { "arrow" };
        assert_eq!(to(few, &["--format", form, "--output", name]).0, Some(0), "{form}");
    }
    let piped = catchment(dir.path(), &["query", few, "--format", "arrow"], b"").stdout;
    assert_eq!(piped, std::fs::read(dir.path().join("arrow.stream")).expect("it is there"));
    let Some(python) = readers_python() else { return skipped("there is no Python with the readers") };
    let read = "import sys, json, pyarrow.ipc, pyarrow.parquet
dir = sys.argv[1][:-len('/data/lake')]
tables = [pyarrow.ipc.open_stream(dir + '/arrow.stream').read_all(), pyarrow.parquet.read_table(dir + '/parquet')]
print(json.dumps([t.to_pylist() for t in tables]))";
    let rows = json!([{ "position": 1, "data.v": 1.5 }, { "position": 2, "data.v": 1.5 }]);
    assert_eq!(as_read_by(&python, ("pyarrow", read), dir.path()), json!([rows, rows]));
}

#[test]
fn statements_come_from_a_pipe_and_what_is_not_for_eyes_goes_to_no_terminal() {
    let dir = tempfile::tempdir().expect("a folder");
    let _collector = Collector::start(dir.path());
    let piped = |args: &[&str], input: &str| catchment(dir.path(), &[&["query"], args].concat(), input.as_bytes());
    let two = piped(&["--format", "ndjson"], "SELECT 1 AS one; -- ;\nSELECT ';' AS two");
    assert_eq!((two.status.code(), said(&two).as_str()), (Some(0), "{\"one\":1}\n{\"two\":\";\"}\n"));
    let failed = piped(&["-", "--format", "ndjson"], "SELECT 1 AS one;\nSELECT\n  nope; SELECT 3 AS three;");
    assert_eq!((failed.status.code(), said(&failed).as_str()), (Some(1), "{\"one\":1}\n"));
    assert!(String::from_utf8_lossy(&failed.stderr).starts_with("LINE 2:   nope\n          ^\n"), "{failed:?}");
    let two = piped(&["--format", "parquet"], "SELECT 1; SELECT 2");
    assert!(two.status.code() == Some(2) && two.stdout.is_empty(), "{two:?}");
    let none = piped(&[], " -- nothing\n");
    assert!(none.status.code() == Some(1) && String::from_utf8_lossy(&none.stderr).contains("empty"), "{none:?}");

    for (args, says) in [
        ("'SELECT 1' --format parquet", "Parquet is nothing to be read on a terminal: name a file with --output"),
        ("--format arrow", "Arrow IPC is nothing to be read on a terminal"),
        ("--output answer.csv", "name the statement too"),
    ] {
        let Some(mut session) = Session::start(dir.path(), args) else { return };
        session.sees(says);
        assert_eq!(session.end().0, Some(2), "{args}");
    }
    assert!(!dir.path().join("answer.csv").exists());
}

#[test]
fn what_is_no_file_is_not_written_over_and_of_a_link_the_file_that_it_leads_to() {
    let dir = tempfile::tempdir().expect("a folder");
    let _collector = Collector::start(dir.path());
    let ask = |to: &str| {
        let arguments = ["query", "SELECT 1 AS a", "--format", "csv", "--output", to, "--overwrite"];
        catchment(dir.path(), &arguments, b"")
    };
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("target.csv"), "before").expect("written");
    std::os::unix::fs::symlink("target.csv", path("link.csv")).expect("linked");
    std::os::unix::fs::symlink("nowhere", path("broken.csv")).expect("linked");
    assert!(ask("link.csv").status.success());
    assert!(path("link.csv").is_symlink(), "the link is still one");
    assert_eq!(std::fs::read_to_string(path("target.csv")).expect("read"), "a\r\n1\r\n");
    for name in ["broken.csv", "/dev/null"] {
        let output = ask(name);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
    }
    assert!(path("broken.csv").is_symlink());
    assert!(!std::fs::metadata("/dev/null").expect("it is there").is_file());
}
