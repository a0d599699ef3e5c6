//! The senders of `docs/SENDING.md`, taken from there and run: each sends as the document says, and those that promise it lose nothing and
//! double nothing while the collector is away, turns away or its answers get lost.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tests::{Collector, Door, Fate, blocks, said, skipped, wait_until};

/// What goes wrong before a batch gets through.
const TROUBLE: [Fate; 4] = [Fate::AnswerLost, Fate::TurnedAway(503), Fate::TurnedAway(429), Fate::AnswerLost];
/// What `Retry-After` in it adds up to.
const WAITS: Duration = Duration::from_secs(2);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The document's block `index` of one kind, for this collector and sensor.
fn block(kind: &str, index: usize, url: &str, token: &str) -> String {
    let document = include_str!("../../docs/SENDING.md");
    let block = blocks(document, kind).into_iter().nth(index).unwrap_or_else(|| panic!("no block {index} of {kind}"));
    let block = block.replace("http://127.0.0.1:4711", url).replace("\"TOKEN\"", &format!("\"{token}\""));
    block.replace("=TOKEN", &format!("={token}")).replace("Bearer TOKEN", &format!("Bearer {token}"))
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
}

#[track_caller]
fn run(dir: &Path, command: &[&str]) -> Output {
    let output = Command::new(command[0]).args(&command[1..]).current_dir(dir).output().expect("the sender runs");
    assert!(output.status.success(), "{command:?}: {}{}", said(&output), String::from_utf8_lossy(&output.stderr));
    output
}

/// A collector, a sensor's token and a door that leads nowhere yet.
fn world(dir: &Path) -> (Collector, String, Door) {
    let collector = Collector::start(dir);
    let token = collector.sensor("sender");
    (collector, token, Door::to_nowhere())
}

/// Checks that the events with the numbers below `count` are there once each, in the order of their numbers.
#[track_caller]
fn assert_whole_and_in_order(collector: &Collector, count: usize) {
    let rows = collector.rows("SELECT (data->>'n')::bigint FROM events WHERE type = 'reading' ORDER BY position");
    let numbers: Vec<u64> = rows.iter().filter_map(|row| row[0].as_u64()).collect();
    assert_eq!(numbers.len(), count);
    assert!(numbers.iter().enumerate().all(|(n, number)| n as u64 == *number), "in order, none twice: {numbers:?}");
    collector.assert_adds_up();
}

fn duplicates(collector: &Collector) -> f64 {
    collector.metric("catchment_engine_events_total{end=\"duplicate\"}")
}

/// A process of a test; asked to end when it goes out of scope.
struct Running(Child);

impl Running {
    fn start(program: &str, args: &[&str], dir: &Path) -> Self {
        let log = std::fs::File::create(dir.join(format!("{program}.log"))).expect("a file");
        let mut command = Command::new(program);
        command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(log.try_clone().expect("a handle")).stderr(log);
        Self(command.spawn().expect("it starts"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM);
        drop(self.0.wait());
    }
}

/// The Python sender as a module in `dir`, within the 100 lines it promises.
fn python_sender(dir: &Path) {
    let module = block("python", 0, "", "");
    assert!(module.lines().count() <= 100, "it has {} lines", module.lines().count());
    std::fs::write(dir.join("catchment.py"), module).expect("written");
}

#[test]
fn the_python_sender_sends_events_and_log_records() {
    let dir = folder();
    let (collector, token, _door) = world(dir.path());
    python_sender(dir.path());
    let output = run(dir.path(), &["python3", "-c", &block("python", 1, &collector.api, &token)]);
    assert_eq!(said(&output), "{'accepted': 2, 'duplicates': 0, 'rejected_total': 0}\n");
    let rows = collector.rows("SELECT type, subject, data FROM events ORDER BY position");
    assert_eq!(rows[0], [json!("reading"), json!("roof"), json!("{\"temperature\": 21.5}")]);
    let log: Value = serde_json::from_str(rows[1][2].as_str().expect("data")).expect("JSON");
    let expected = json!({"severity": "WARNING", "logger": "root", "message": "the pump is dry", "exception": null});
    assert_eq!((&rows[1][0], log), (&json!("log"), expected));
    let when = "SELECT count(*) FROM events WHERE abs(date_part('epoch', received_at - time)) < 60";
    assert_eq!(collector.rows(when), [[json!(2)]], "times are read");
}

#[test]
fn what_the_python_sender_kept_outlives_it_and_is_stored_once_when_the_collector_is_back() {
    let dir = folder();
    let (collector, token, door) = world(dir.path());
    python_sender(dir.path());
    let program = "import sys, time, catchment
sender = catchment.Sender(*sys.argv[1:], seconds=0.02)
for n in range(20_000):
    sender.put('reading', {'n': n})
print('kept', flush=True)
time.sleep(600)";
    let mut first = Command::new("python3")
        .args(["-c", program, &door.url, &token, "spool"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let mut line = String::new();
    BufReader::new(first.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert_eq!(line, "kept\n");
    first.kill().expect("ours");
    first.wait().expect("it ends");
    let spooled = || {
        let names = std::fs::read_dir(dir.path().join("spool")).expect("the spool").flatten().map(|entry| entry.path());
        let mut names: Vec<_> = names.filter(|path| !path.ends_with("rejected.ndjson")).collect();
        names.sort();
        names
    };
    let files = spooled();
    assert!(files.len() > 2, "{files:?}");
    // As if it had died inside `put`.
    let mut last = std::fs::OpenOptions::new().append(true).open(&files[files.len() - 1]).expect("a file");
    last.write_all(b"{\"id\":\"torn\",\"type\":\"rea").expect("written");

    door.lead_to(&collector.api, &TROUBLE);
    let program = "import sys, catchment
sender = catchment.Sender(*sys.argv[1:])
sender.put('reading', {'n': 20_000})
sender.send()
sender.close()
print(sender.totals['accepted'] + sender.totals['duplicates'])";
    let start = Instant::now();
    let second = run(dir.path(), &["python3", "-c", program, &door.url, &token, "spool"]);
    assert_eq!((said(&second).as_str(), door.fates_left()), ("20001\n", 0));
    assert!(start.elapsed() >= WAITS, "it waits as Retry-After says");
    assert!(duplicates(&collector) >= 1.0, "a batch was sent again");
    assert_whole_and_in_order(&collector, 20_001);
    assert_eq!(spooled(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn the_python_sender_keeps_what_is_rejected_and_is_not_held_up_by_it() {
    let dir = folder();
    let (collector, token, _door) = world(dir.path());
    python_sender(dir.path());
    let program = "import sys, catchment
url, token = sys.argv[1:]
sender = catchment.Sender(url, token, 'spool', seconds=600)
sender.put('reading', {'n': -1}, at='yesterday')
sender.send()
sender.put('reading', {'n': 0})
sender.put('reading', {'n': -2}, at='tomorrow', id='bad')
sender.send()
print(sender.totals)
refused = catchment.Sender(url, 'no-token', 'other', seconds=600)
refused.put('reading', {'n': 1})
try:
    refused.send()
except OSError as error:
    print(error)
catchment.Sender(url, token, 'other').send()";
    let output = said(&run(dir.path(), &["python3", "-c", program, &collector.api, &token]));
    assert!(output.starts_with("{'accepted': 1, 'duplicates': 0, 'rejected_total': 2}\n401 {"), "{output}");
    let kept = std::fs::read_to_string(dir.path().join("spool/rejected.ndjson")).expect("the file");
    let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&kept[0]["code"], &kept[0]["event"]["data"]), (&json!("invalid_time"), &json!({"n": -1})));
    assert_eq!((&kept[1]["index"], &kept[1]["event"]["id"]), (&json!(1), &json!("bad")));
    assert_whole_and_in_order(&collector, 2);
}

#[test]
fn the_python_sender_keeps_a_whole_batch_when_more_is_rejected_than_is_listed() {
    let dir = folder();
    let (collector, token, _door) = world(dir.path());
    python_sender(dir.path());
    let program = "import sys, catchment
sender = catchment.Sender(*sys.argv[1:], 'spool', seconds=600)
sender.put('reading', {'n': 0}, at=0, id=0)
for n in range(3000):
    sender.put('reading', {'n': -1 - n}, at='yesterday')
sender.send()
print(sender.totals)";
    let output = run(dir.path(), &["python3", "-c", program, &collector.api, &token]);
    assert_eq!(said(&output), "{'accepted': 1, 'duplicates': 0, 'rejected_total': 3000}\n");
    let kept = |name: &str| std::fs::read_to_string(dir.path().join("spool").join(name)).expect("kept").lines().count();
    assert_eq!((kept("rejected.ndjson"), kept("0000000000000001.rejected")), (1000, 3001));
    assert_eq!(std::fs::read_dir(dir.path().join("spool")).expect("the spool").count(), 2, "and is not sent again");
    let first = collector.rows("SELECT id, time FROM events");
    assert_eq!(first, [[json!("0"), json!("1970-01-01T00:00:00Z")]], "0 is an id and a time");
}

#[test]
fn the_javascript_sender_sends_and_tries_until_it_is_taken() {
    if !is_installed("node") {
        return skipped("node is not installed");
    }
    let dir = folder();
    let (collector, token, door) = world(dir.path());
    std::fs::write(dir.path().join("catchment.mjs"), block("javascript", 0, "", "")).expect("written");
    let script = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    script("use.mjs", &block("javascript", 1, &collector.api, &token));
    let output = run(dir.path(), &["node", "use.mjs"]);
    assert_eq!(said(&output), "{ accepted: 1, duplicates: 0, rejected_total: 0 }\n");
    let rows = collector.rows("SELECT type, subject, data FROM events");
    assert_eq!(rows, [[json!("click"), json!("/welcome"), json!("{\"button\":\"start\"}")]]);

    door.lead_to(&collector.api, &TROUBLE);
    script(
        "trouble.mjs",
        "import { Sender } from './catchment.mjs';
const [url, token] = process.argv.slice(2);
const told = [];
const sender = new Sender(url, token, (...what) => told.push(what));
for (let n = 0; n < 2500; n++) sender.put('reading', { n });
await sender.flush();
sender.put('reading', { n: -1 }, { id: 'bad', time: 'yesterday' });
await sender.flush();
sender.put('reading', { n: 2500 });
while (sender.totals.accepted + sender.totals.duplicates < 2501) await new Promise((resolve) => setTimeout(resolve, 10));
console.log(JSON.stringify([sender.totals, told.length, told[0][0].code, JSON.parse(told[0][1]).id]));
const refused = new Sender(url, 'no-token');
refused.put('reading', {});
await refused.flush().catch((error) => console.log(error.message.slice(0, 14)));
process.exit();",
    );
    let start = Instant::now();
    let output = run(dir.path(), &["node", "trouble.mjs", &door.url, &token]);
    let expected = r#"[{"accepted":1501,"duplicates":1000,"rejected_total":1},1,"invalid_time","bad"]"#;
    assert_eq!(said(&output), format!("{expected}\ncatchment: 401\n"));
    assert!(start.elapsed() >= WAITS, "it waits as Retry-After says");
    assert_eq!((door.fates_left(), duplicates(&collector)), (0, 2000.0), "the first batch came three times");
    assert_whole_and_in_order(&collector, 2501);
}

#[test]
fn the_shell_sender_keeps_what_it_cannot_send_and_sends_it_once() {
    let dir = folder();
    let (collector, token, door) = world(dir.path());
    std::fs::write(dir.path().join("catchment.sh"), block("sh", 0, "", "")).expect("written");
    let output = run(dir.path(), &["sh", "-euc", &block("sh", 1, &collector.api, &token)]);
    assert!(said(&output).starts_with("{\"accepted\":2,"), "{}", said(&output));
    let rows = collector.rows("SELECT data->>'temperature' FROM events ORDER BY position");
    assert_eq!(rows, [[json!("21.5")], [json!("21.6")]]);

    let shell = |args: &[&str]| {
        let mut shell = Command::new("sh");
        shell.arg("catchment.sh").args(args).current_dir(dir.path()).env("CATCHMENT_SPOOL", "other");
        shell.env("CATCHMENT_URL", &door.url).env("CATCHMENT_TOKEN", &token).output().expect("sh runs")
    };
    for n in 0..20 {
        assert!(shell(&["put", "reading", &format!("{{\"n\": {n}}}")]).status.success());
    }
    assert!(!shell(&["send"]).status.success(), "the collector is away");
    door.lead_to(&collector.api, &[Fate::TurnedAway(503), Fate::TurnedAway(429), Fate::AnswerLost]);
    assert!(!shell(&["send"]).status.success(), "the answer is lost");
    let sent = shell(&["send"]);
    assert!(sent.status.success(), "{sent:?}");
    assert!(said(&sent).starts_with("{\"accepted\":0,\"duplicates\":20,"), "{sent:?}");
    assert!(shell(&["put", "reading", "no JSON"]).status.success());
    assert!(shell(&["send"]).status.success(), "what is rejected holds nothing up");
    assert_eq!(std::fs::read_dir(dir.path().join("other/rejected")).expect("a folder").count(), 1);
    let rest = std::fs::read_dir(dir.path().join("other")).expect("the spool").flatten();
    assert!(!rest.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".json")), "all is sent");
    let wrong: [&[&str]; 7] = [
        &[],
        &["put"],
        &["put", "reading"],
        &["put", "reading", ""],
        &["put", "a\"b", "1"],
        &["put", "a", "1", "2"],
        &["send", "all"],
    ];
    for args in wrong {
        let told = shell(args);
        assert!(
            told.status.code() == Some(2) && String::from_utf8_lossy(&told.stderr).contains("usage"),
            "{args:?}: {told:?}"
        );
    }
    assert!(shell(&["send"]).status.success(), "nothing of these is in the spool");
    assert_whole_and_in_order(&collector, 20);
}

/// syslog-ng in `dir` with the document's configuration under one of the test's.
fn syslog_ng(dir: &Path, url: &str, token: &str) -> Running {
    let at = |name: &str| dir.join(name).display().to_string();
    // The folder that Debian gives to buffers is not for tests.
    let own = format!("reliable(yes) dir(\"{}\")", dir.display());
    let given = block("syslog-ng", 0, url, token).replace("reliable(yes)", &own);
    assert!(given.contains(&own), "the buffer is in the test's folder");
    std::fs::write(at("catchment.conf"), given).expect("written");
    let main = format!(
        "@version: 3.38\nsource s_src {{ unix-dgram(\"{}\"); }};\n@include \"{}\"\n",
        at("log.sock"),
        at("catchment.conf")
    );
    std::fs::write(at("main.conf"), main).expect("written");
    let files = [at("main.conf"), at("persist"), at("pid"), at("control")];
    let args = ["-F", "--no-caps", "-f", &files[0], "-R", &files[1], "-p", &files[2], "-c", &files[3]];
    Running::start("syslog-ng", &args, dir)
}

/// Logs a message, as soon as there is somebody who takes it.
fn log(dir: &Path, priority: u8, text: &str) {
    let line = format!("<{priority}>pump[42]: {text}");
    let socket = UnixDatagram::unbound().expect("a socket");
    wait_until("a message", || socket.send_to(line.as_bytes(), dir.join("log.sock")).is_ok());
}

#[test]
fn syslog_ng_keeps_messages_and_sends_them_until_they_are_taken() {
    if !is_installed("syslog-ng") {
        return skipped("the packages syslog-ng-core and syslog-ng-mod-http are not installed");
    }
    let dir = folder();
    let (collector, token, door) = world(dir.path());
    let mut first = syslog_ng(dir.path(), &door.url, &token);
    for n in 0..500 {
        log(dir.path(), 14, &format!("round {n}."));
    }
    let is_buffered = |text: &str| {
        let files = std::fs::read_dir(dir.path()).expect("the folder").flatten();
        let buffers = files.filter(|entry| entry.file_name().to_string_lossy().ends_with(".rqf"));
        let mut bytes = buffers.map(|buffer| std::fs::read(buffer.path()).expect("the buffer"));
        bytes.any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    wait_until("the last message on disk", || is_buffered("round 499."));
    first.0.kill().expect("ours");
    first.0.wait().expect("it ends");
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(0)]], "the collector is away");

    door.lead_to(&collector.api, &TROUBLE);
    let _second = syslog_ng(dir.path(), &door.url, &token);
    let odd = "\"Gr\u{fc}\u{df}e\" \\ {} 100% \u{1f600}";
    log(dir.path(), 11, odd);
    let all = "SELECT count(*), count(DISTINCT data->>'message') FROM events";
    let arrived = || collector.rows(all) == [[json!(501), json!(501)]];
    wait_until("all messages", || arrived() && door.fates_left() == 0 && duplicates(&collector) >= 1.0);
    let errors = collector.rows(&block("sql", 0, "", ""));
    assert_eq!((errors.len(), &errors[0][2..]), (1, [json!("pump"), json!(odd)].as_slice()));
    let whole = "SELECT count(*) FROM events WHERE data->>'pid' = '42' AND subject IS NOT NULL AND time > now() - interval '1 hour'";
    assert_eq!(collector.rows(whole), [[json!(501)]]);
    assert!(arrived(), "what was sent again is not stored twice");
    collector.assert_adds_up();
}

#[test]
fn collectd_sends_values_with_their_times_hosts_and_plugins() {
    let has_program = Command::new("collectd").arg("-h").output().is_ok();
    if !has_program {
        return skipped("the packages collectd-core and libyajl2 are not installed");
    }
    let dir = folder();
    let (collector, token, _door) = world(dir.path());
    let given = block("collectd", 0, &collector.api, &token);
    std::fs::write(dir.path().join("catchment.conf"), given).expect("written");
    let at = dir.path().display();
    let main = format!(
        "Hostname \"roof\"\nFQDNLookup false\nInterval 1\nBaseDir \"{at}\"\nPIDFile \"{at}/pid\"\nPluginDir \"/usr/lib/collectd\"\n\
         TypesDB \"/usr/share/collectd/types.db\"\nLoadPlugin load\nLoadPlugin memory\nInclude \"{at}/catchment.conf\"\n"
    );
    std::fs::write(dir.path().join("main.conf"), main).expect("written");
    let main = dir.path().join("main.conf").display().to_string();
    let _collectd = Running::start("collectd", &["-f", "-C", &main], dir.path());
    let count = "SELECT count(*) FROM events WHERE type = 'load'";
    collector.wait_for("values", |c| c.rows(count)[0][0].as_u64() > Some(0));
    let minutes = collector.rows(&block("sql", 1, "", ""));
    assert_eq!(minutes[0][1], "roof");
    assert!(minutes[0][2].as_f64().is_some_and(|load| load >= 0.0), "{minutes:?}");
    let memory = "SELECT count(DISTINCT data->>'type_instance') FROM events WHERE type = 'memory' AND time > now() - interval '5 minutes' AND time < now()";
    // They come in a request of their own.
    collector.wait_for("used, free, cached, …", |c| c.rows(memory)[0][0].as_u64() > Some(3));
    collector.assert_adds_up();
}
