//! CloudEvents 1.0 over HTTP: the conformance files of the project, requests as its SDKs make them, and those SDKs themselves.

use serde_json::{Map, Value, json};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;
use tests::{Answer, Collector, as_read_by, corpus, skipped};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCHED: &str = "application/cloudevents-batch+json; charset=UTF-8";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn send(collector: &Collector, token: &str, content_type: &str, body: &str) -> Answer {
    collector.post("/api/v1/events", token, body.as_bytes(), &[("content-type", content_type)])
}

/// Sends a request as it stands here, so that no client mends its headers; gives the whole answer.
fn raw(collector: &Collector, head: &str, body: &[u8]) -> String {
    let mut stream = collector.connect();
    let head = format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The tests of one conformance file.
fn conformance(name: &str) -> Option<Vec<Value>> {
    let text = std::fs::read_to_string(corpus(&format!("cloudevents/format-json/{name}.json"))?).expect("the file");
    let file: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).expect("JSON");
    Some(file["tests"].as_array().expect("tests").clone())
}

/// What a row must hold for an event in the JSON format.
fn expected(event: &Value) -> Value {
    let known = ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"];
    let others = event.as_object().expect("an object").iter();
    let others: Map<_, _> = others
        .filter(|(name, value)| !known.contains(&name.as_str()) && !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let attributes = if others.is_empty() { Value::Null } else { others.into() };
    json!([event["source"], event["type"], event["subject"], event["datacontenttype"], attributes])
}

fn found(collector: &Collector, id: &str) -> Vec<Vec<Value>> {
    let sql = format!(
        "SELECT source, type, subject, content_type, attributes, time, data, data_binary FROM events \
         WHERE id = '{id}' ORDER BY position DESC"
    );
    let mut rows = collector.rows(&sql);
    for row in &mut rows {
        if let Some(text) = row[4].as_str() {
            row[4] = serde_json::from_str(text).expect("attributes are JSON");
        }
    }
    rows
}

#[test]
fn the_valid_events_and_batches_of_the_conformance_files_are_kept() {
    let (Some(events), Some(batches)) = (conformance("valid-events"), conformance("valid-batches")) else { return };
    let dir = folder();
    let collector = Collector::start(dir.path());
    for (n, test) in events.iter().enumerate() {
        let event = &test["event"];
        let token = collector.sensor(&format!("event-{n}"));
        let answer = send(&collector, &token, STRUCTURED, &event.to_string());
        assert_eq!(answer.json()["accepted"], 1, "{test}: {answer:?}");
        let row = &found(&collector, event["id"].as_str().expect("an id"))[0];
        assert_eq!(json!(row[..5]), expected(event), "{test}");
        if !event["time"].is_null() {
            assert_eq!(row[5], "2018-04-05T17:31:00Z", "{test}");
        }
        let text = event["data"].as_str().map(|text| text.bytes().map(|b| format!("{b:02x}")).collect::<String>());
        assert_eq!((row[6].clone(), row[7].as_str()), (Value::Null, text.as_deref()), "{test}");
    }
    for (n, test) in batches.iter().enumerate() {
        let token = collector.sensor(&format!("batch-{n}"));
        let answer = send(&collector, &token, BATCHED, &test["batch"].to_string());
        let ends = answer.json();
        let events = test["batch"].as_array().expect("a batch");
        let kept = ends["accepted"].as_u64().zip(ends["duplicates"].as_u64()).map(|(a, d)| a + d);
        assert_eq!((answer.status, kept), (200, Some(events.len() as u64)), "{test}: {answer:?}");
        for event in events {
            assert_eq!(
                json!(found(&collector, event["id"].as_str().expect("an id"))[0][..5]),
                expected(event),
                "{test}"
            );
        }
    }
    collector.assert_adds_up();
}

#[test]
fn the_invalid_events_and_batches_of_the_conformance_files_are_rejected() {
    let (Some(events), Some(batches)) = (conformance("invalid-events"), conformance("invalid-batches")) else { return };
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let rejected = |answer: &Answer, test: &Value| {
        let json = answer.json();
        for rejected in json["rejected"].as_array().expect("rejected") {
            let code = format!("| `{}` |", rejected["code"].as_str().expect("a code"));
            assert!(include_str!("../../docs/API.md").contains(&code), "{code} is documented");
            assert!(rejected["reason"].as_str().is_some_and(|r| r.len() > 10), "{test}: {json}");
        }
        json["rejected_total"].as_u64()
    };
    for test in &events {
        let answer = send(&collector, &token, STRUCTURED, &test["event"].to_string());
        assert_eq!((answer.status, rejected(&answer, test)), (400, Some(1)), "{test}: {}", answer.text);
    }
    for test in &batches {
        let answer = send(&collector, &token, BATCHED, &test["batch"].to_string());
        assert_eq!(rejected(&answer, test), Some(1), "{test}: {}", answer.text);
    }
    assert_eq!(events.len() + batches.len(), 28, "all files were read");
    collector.assert_adds_up();
}

/// The text between two lines of `"""` after a line, its indentation taken away.
fn quoted_block(lines: &[&str], after: &str) -> String {
    let from = lines.iter().position(|l| l.trim() == after).expect("the step");
    let block = lines[from + 2..].iter().take_while(|l| l.trim() != "\"\"\"");
    block.map(|l| l.strip_prefix("        ").unwrap_or(l)).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_scenarios_of_the_http_binding_behave_as_it_says() {
    let Some(path) = corpus("cloudevents/http-protocol-binding.feature") else { return };
    let text = std::fs::read_to_string(path).expect("the file");
    let dir = folder();
    let collector = Collector::start(dir.path());
    let mut ran = 0;
    for scenario in text.split("Scenario Outline:").skip(1) {
        let lines: Vec<&str> = scenario.lines().collect();
        let request = quoted_block(&lines, "Given an HTTP request");
        let data: Value =
            serde_json::from_str(&quoted_block(&lines, "And the data is equal to the following JSON:")).expect("JSON");
        let cells =
            |line: &str| line.split('|').map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect::<Vec<_>>();
        let examples = lines.iter().skip_while(|l| l.trim() != "Examples:").skip(2);
        for example in examples.filter(|l| l.contains('|')).map(|l| cells(l)[0].clone()) {
            let token = collector.sensor(&format!("scenario-{ran}"));
            let (head, body) = request.split_once("\n\n").expect("a head and a body");
            let kept = head.lines().skip(1).filter(|l| !l.starts_with("Host") && !l.starts_with("Content-Length"));
            let headers = kept.collect::<Vec<_>>().join("\r\n").replace("<contentType>", &example);
            let head = format!("POST /api/v1/events HTTP/1.1\r\nAuthorization: Bearer {token}\r\n{headers}");
            let answer = raw(&collector, &head, body.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"accepted\":1"), "{scenario}: {answer}");
            let sql = "SELECT id, type, source, time, content_type, data FROM events ORDER BY position DESC LIMIT 1";
            let row = collector.rows(sql).remove(0);
            for (n, key) in ["id", "type", "source", "time", "datacontenttype"].iter().enumerate() {
                let wanted =
                    lines.iter().map(|l| cells(l)).find(|c| c.first().is_some_and(|c| c == key)).expect("told");
                assert_eq!(row[n], wanted[1].replace("<contentType>", &example), "{key}");
            }
            assert_eq!(serde_json::from_str::<Value>(row[5].as_str().expect("data")).expect("JSON"), data);
            ran += 1;
        }
    }
    assert_eq!(ran, 4, "every example");
}

#[test]
fn events_are_shown_with_all_they_came_with_live_and_at_rest() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nauthorization: Bearer {token}\r\nCE-SpecVersion: 1.0\r\nCe-Id: b1\r\nce-source: /s\r\n\
         CE-TYPE: photo\r\nce-subject: \"Gr\\\"%C3%BCn\"\r\nce-time: 2026-01-31T12:00:00+01:00\r\nCe-Site: a%20b\r\n\
         content-type: image/png"
    );
    assert!(raw(&collector, &head, b"\xff\x00\x01PNG").starts_with("HTTP/1.1 200"));
    let json = r#"{"specversion":"1.0","id":"s1","source":"/s","type":"t","n":7,"data":{"v": 1e2}}"#;
    assert_eq!(send(&collector, &token, STRUCTURED, json).status, 200);
    let again = send(&collector, &token, STRUCTURED, json).json();
    assert_eq!((&again["accepted"], &again["duplicates"]), (&json!(0), &json!(1)));
    let changed = send(&collector, &token, STRUCTURED, &json.replace("\"n\":7", "\"n\":8")).json();
    assert_eq!((&changed["accepted"], &changed["reused_ids"]), (&json!(1), &json!(1)));
    collector.assert_adds_up();

    let shown = |collector: &Collector| {
        let photo = collector.get("/api/v1/events/b1", &collector.token);
        let event = photo.json();
        let expected = json!({
            "position": 1, "id": "b1", "sensor": "roof", "source": "/s", "type": "photo", "subject": "Gr\"\u{fc}n",
            "time": "2026-01-31T11:00:00Z", "received_at": event["received_at"], "content_type": "image/png",
            "attributes": {"site": "a b"}, "data": null, "data_base64": "/wABUE5H"
        });
        assert_eq!(event, expected, "{}", photo.text);
        let page = collector.get("/api/v1/events?type=t&limit=1", &collector.token);
        assert!(page.text.contains(r#""attributes":{"n":8},"data":{"v": 1e2},"data_base64":null"#), "{}", page.text);
        let sql = "SELECT data_binary, attributes->>'site', encode(data_binary, 'base64pad') FROM events WHERE source = '/s' AND type = 'photo'";
        assert_eq!(collector.rows(sql), [[json!("ff0001504e47"), json!("a b"), json!("/wABUE5H")]]);
    };
    shown(&collector);
    assert_eq!(collector.terminate(), 0);
    shown(&Collector::start(dir.path()));
    let Some(python) = tests::readers_python() else {
        return skipped("no Python with deltalake: set CATCHMENT_READERS_PYTHON");
    };
    let program = "import sys, json, deltalake
rows = deltalake.DeltaTable(sys.argv[1]).to_pyarrow_table().sort_by('position').to_pylist()
print(json.dumps([[r['source'], r['content_type'], r['attributes'], r['data'], r['data_binary'] and r['data_binary'].hex()] for r in rows]))";
    let rows = as_read_by(&python, ("deltalake", program), dir.path());
    assert_eq!(rows[0], json!(["/s", "image/png", "{\"site\":\"a b\"}", null, "ff0001504e47"]));
    assert_eq!(rows[1], json!(["/s", null, "{\"n\":7}", "{\"v\": 1e2}", null]));
}

#[test]
fn pages_of_events_with_large_bytes_or_attributes_fit_into_a_querys_memory() {
    for member in ["data_base64", "ext"] {
        let dir = folder();
        let settings = [("CATCHMENT_QUERY__MEMORY_BYTES_MAX", "16MiB"), ("CATCHMENT_SEAL__AGE_SECONDS", "1s")];
        let collector = Collector::start_with(dir.path(), &settings);
        let token = collector.sensor("roof");
        let event = |id: usize| {
            let text = format!("{id:04}").repeat(225_000);
            let four = "\"specversion\":\"1.0\",\"source\":\"/s\",\"type\":\"t\"";
            format!("{{{four},\"id\":\"{id}\",\"{member}\":\"{text}\"}}")
        };
        for first in [0, 10, 20, 30] {
            let batch: Vec<String> = (first..first + 10).map(event).collect();
            let answer = send(&collector, &token, BATCHED, &format!("[{}]", batch.join(",")));
            assert_eq!(answer.json()["accepted"], 10, "{answer:?}");
        }
        collector.wait_for("a seal", |c| c.metric("catchment_engine_sealed_position") == 40.0);
        let (mut path, mut seen) = ("/api/v1/events?limit=40".to_owned(), Vec::new());
        loop {
            let page = collector.get(&path, &collector.token);
            assert_eq!(page.status, 200, "{member}: {:.300}", page.text);
            let page = page.json();
            for event in page["events"].as_array().expect("events") {
                let large = event["data_base64"].as_str().or(event["attributes"]["ext"].as_str());
                assert_eq!(large.map(str::len), Some(900_000));
                seen.push(event["position"].as_u64());
            }
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/api/v1/events?limit=40&cursor={cursor}");
        }
        assert_eq!(seen, (1..=40).rev().map(Some).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_no_cloudevent_is_told_apart() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    for content_type in [
        "application/cloudevents+xml",
        "application/cloudevents+json; charset=utf-16",
        "application/cloudevents-batch+avro",
    ] {
        let answer = send(&collector, &token, content_type, "{}");
        assert_eq!((answer.status, &answer.json()["code"]), (415, &json!("unsupported_media_type")));
        assert!(answer.text.contains("application/cloudevents-batch+json"), "{}", answer.text);
    }
    let answer = send(&collector, &token, BATCHED, "{}");
    assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_body")));
    let empty = send(&collector, &token, BATCHED, "[]");
    assert_eq!((empty.status, &empty.json()["accepted"]), (200, &json!(0)));
    let post = format!(
        "POST /api/v1/events HTTP/1.1\r\nauthorization: Bearer {token}\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-type: t"
    );
    let twice = raw(&collector, &format!("{post}\r\nce-source: /a\r\nce-source: /b"), b"");
    assert!(twice.starts_with("HTTP/1.1 400") && twice.contains("\"pointer\":\"ce-source\""), "{twice}");
    let types = raw(&collector, &format!("{post}\r\nce-source: /a\r\ncontent-type: a/b\r\ncontent-type: c/d"), b"x");
    assert!(types.starts_with("HTTP/1.1 415"), "{types}");
    let missing = raw(&collector, &post, b"1");
    assert!(missing.contains("missing_attribute") && missing.contains("\"pointer\":\"ce-source\""), "{missing}");
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(0)]]);
    collector.assert_adds_up();
}

#[test]
fn senders_of_webhooks_may_ask_whether_they_may_send() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let ask = |headers: &str| raw(&collector, &format!("OPTIONS /api/v1/events HTTP/1.1{headers}"), b"");
    let validated = ask("\r\nWebHook-Request-Origin: eventemitter.example.com\r\nWebHook-Request-Rate: 120");
    assert!(validated.starts_with("HTTP/1.1 200"), "{validated}");
    for header in
        ["webhook-allowed-origin: eventemitter.example.com", "webhook-allowed-rate: 120", "allow: POST,GET,HEAD"]
    {
        assert!(validated.contains(&format!("{header}\r\n")), "{header} in {validated}");
    }
    for rate in ["", "\r\nWebHook-Request-Rate: much", "\r\nWebHook-Request-Rate: 0"] {
        let answer = ask(&format!("\r\nWebHook-Request-Origin: a.example{rate}"));
        assert!(answer.contains("webhook-allowed-rate: *\r\n"), "{answer}");
    }
    let preflight = "\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST";
    for other in [String::new(), preflight.to_owned(), format!("{preflight}\r\nWebHook-Request-Origin: a.example")] {
        let answer = ask(&other);
        assert!(answer.starts_with("HTTP/1.1 405") && !answer.contains("webhook"), "{answer}");
        assert!(answer.contains("allow: POST,GET,HEAD\r\n") && answer.contains("method_not_allowed"), "{answer}");
    }
    let delete = raw(&collector, "DELETE /api/v1/events HTTP/1.1\r\nWebHook-Request-Origin: a.example", b"");
    assert!(delete.starts_with("HTTP/1.1 405"), "{delete}");
}

/// Sends four events in both modes with the package `cloudevents` of PyPI; their ids say which.
const PYTHON: &str = r#"
import sys, http.client
from datetime import datetime, timedelta, timezone
from cloudevents.core.v1.event import CloudEvent
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
address, token = sys.argv[1:]
when = datetime(2026, 1, 31, 12, 30, tzinfo=timezone(timedelta(hours=1)))
kinds = {"json": (None, {"v": [1, "\u00fc"]}), "text": ("text/plain", "Gr\u00fc\u00dfe"), "bytes": ("image/png", b"\xff\x00"), "none": (None, None)}
for mode, convert in [("binary", to_binary), ("structured", to_structured)]:
    for kind, (content_type, data) in kinds.items():
        attributes = {"id": f"{mode}-{kind}", "source": "/py", "type": "t", "specversion": "1.0", "time": when, "subject": "S\u00fcd 1 100%", "site": "a \"b\""}
        if content_type:
            attributes["datacontenttype"] = content_type
        message = convert(CloudEvent(attributes, data), JSONFormat())
        connection = http.client.HTTPConnection(address)
        connection.request("POST", "/api/v1/events", message.body, {**message.headers, "Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        assert answer.status == 200, (mode, kind, answer.read())
"#;

/// The same with the package `cloudevents` of npm, which encodes no headers.
const NODE: &str = r#"
const { HTTP, CloudEvent } = require("cloudevents");
const [url, token] = process.argv.slice(1);
const kinds = { json: [undefined, { v: [1, "\u00fc"] }], text: ["text/plain", "Gr\u00fc\u00dfe"], bytes: ["image/png", new Uint8Array([255, 0])], none: [undefined, undefined] };
(async () => {
  for (const mode of ["binary", "structured"]) {
    for (const [kind, [datacontenttype, data]] of Object.entries(kinds)) {
      const event = new CloudEvent({ id: `${mode}-${kind}`, source: "/node", type: "t", time: "2026-01-31T12:30:00+01:00", subject: "Room 1 100%", site: 7, datacontenttype, data });
      const message = HTTP[mode](event);
      const answer = await fetch(`${url}/api/v1/events`, { method: "POST", body: message.body, headers: { ...message.headers, authorization: `Bearer ${token}` } });
      if (answer.status !== 200) throw new Error(`${mode} ${kind}: ${await answer.text()}`);
    }
  }
})().catch((error) => { console.error(error); process.exit(1); });
"#;

#[track_caller]
fn run(mut client: Command) {
    let output = client.output().expect("the client runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Checks the data of the eight events of a client, however it spells JSON.
#[track_caller]
fn assert_data(collector: &Collector, subject: &str) {
    for mode in ["binary", "structured"] {
        for (kind, data, binary) in [
            ("json", Some(json!({"v": [1, "\u{fc}"]})), None),
            ("text", None, Some("4772c3bcc39f65")),
            ("bytes", None, Some("ff00")),
            ("none", None, None),
        ] {
            let rows = found(collector, &format!("{mode}-{kind}"));
            let [row] = rows.as_slice() else { panic!("{mode}-{kind}: {rows:?}") };
            let json = row[6].as_str().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
            assert_eq!((json, row[7].as_str()), (data, binary), "{mode}-{kind}");
            assert_eq!(
                (row[2].as_str(), row[5].as_str()),
                (Some(subject), Some("2026-01-31T11:30:00Z")),
                "{mode}-{kind}"
            );
        }
    }
    collector.assert_adds_up();
}

#[test]
fn the_python_sdk_sends_in_both_modes() {
    let python = std::env::var_os("CATCHMENT_READERS_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let imports = Command::new(&python).args(["-c", "import cloudevents.core.bindings.http"]).output();
    if !imports.is_ok_and(|output| output.status.success()) {
        return skipped("no Python with cloudevents: set CATCHMENT_READERS_PYTHON");
    }
    let dir = folder();
    let collector = Collector::start(dir.path());
    let mut client = Command::new(python);
    client.args(["-c", PYTHON, collector.api.trim_start_matches("http://"), &collector.sensor("py")]);
    run(client);
    assert_data(&collector, "S\u{fc}d 1 100%");
    assert_eq!(found(&collector, "binary-json")[0][4], json!({"site": "a \"b\""}));
    assert_eq!(found(&collector, "structured-text")[0][4], json!({"site": "a \"b\""}));
}

#[test]
fn the_javascript_sdk_sends_in_both_modes() {
    let folder_of_clients = std::env::var_os("CATCHMENT_CLIENTS_NODE").map(PathBuf::from);
    let Some(modules) = folder_of_clients.map(|f| f.join("node_modules")).filter(|m| m.join("cloudevents").exists())
    else {
        return skipped("no node package cloudevents: set CATCHMENT_CLIENTS_NODE to the folder it is installed in");
    };
    let dir = folder();
    let collector = Collector::start(dir.path());
    let mut client = Command::new("node");
    client.env("NODE_PATH", modules).args(["-e", NODE, &collector.api, &collector.sensor("node")]);
    run(client);
    assert_data(&collector, "Room 1 100%");
    assert_eq!(found(&collector, "binary-json")[0][4], json!({"site": "7"}), "headers have no types");
    assert_eq!(found(&collector, "structured-json")[0][4], json!({"site": 7}));
}
