//! What an event is: each rule of `docs/API.md` as a test.

use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::TimestampMicrosecondType;
use event::{Batch, Code, FieldNames, Framing, Limits, ReadError, ReadOptions, read, time_zone};
use proptest::prelude::*;
use serde_json::Value;

fn options() -> ReadOptions<'static> {
    ReadOptions {
        sensor: "s",
        received_at: 1_000_000,
        fields: FieldNames::default(),
        time_zone: None,
        limits: Limits::default(),
    }
}

fn json(body: &str) -> Batch {
    read(body.as_bytes(), Framing::Json, &options()).expect("the body reads")
}

fn lines(body: &[u8]) -> Batch {
    read(body, Framing::Ndjson, &options()).expect("lines never fail as a whole")
}

fn texts<'b>(batch: &'b Batch, column: &str) -> &'b StringArray {
    batch.columns.column_by_name(column).expect("a column").as_string()
}

fn text(batch: &Batch, column: &str) -> String {
    texts(batch, column).value(0).to_owned()
}

fn time(batch: &Batch) -> i64 {
    batch.columns.column_by_name("time").expect("a column").as_primitive::<TimestampMicrosecondType>().value(0)
}

fn codes(batch: &Batch) -> Vec<(u64, &'static str)> {
    batch.rejected.iter().map(|r| (r.index, r.code.name())).collect()
}

#[test]
fn plain_json_is_kept_byte_for_byte() {
    let body = "{ \"temperature\":21.50, \"big\":12345678901234567890123,\"a\":1,\"a\":2,\"nul\":\"\\u0000\" }";
    let batch = json(&format!("\n {body}\r\n"));
    assert_eq!(text(&batch, "data"), body);
    assert_eq!((text(&batch, "type"), text(&batch, "sensor"), time(&batch)), ("event".into(), "s".into(), 1_000_000));
    assert!(texts(&batch, "id").is_null(0) && batch.keys == [None]);
}

#[test]
fn plain_json_gives_its_type_and_time_and_keeps_them_in_data() {
    let body = r#"{"type":"weather","time":"1970-01-01T00:00:02Z","id":"device-7"}"#;
    let batch = json(body);
    assert_eq!((text(&batch, "type"), time(&batch), text(&batch, "data")), ("weather".into(), 2_000_000, body.into()));
    assert!(texts(&batch, "id").is_null(0), "an id in plain JSON is not the event's identity");
    assert_eq!(text(&json(r#"{"type":7}"#), "type"), "event");
}

#[test]
fn an_envelope_keeps_only_its_data() {
    let batch = json(r#"{"id":"a\u0062","type":"reading","time":3,"subject":"room 1","data": [1, 2] }"#);
    assert_eq!(text(&batch, "data"), "[1, 2]");
    let found = (text(&batch, "id"), text(&batch, "type"), text(&batch, "subject"), time(&batch));
    assert_eq!(found, ("ab".into(), "reading".into(), "room 1".into(), 3_000_000));
    assert!(batch.keys[0].is_some());
}

#[test]
fn what_only_looks_like_an_envelope_is_plain() {
    for body in [r#"{"type":"t","data":1,"more":2}"#, r#"{"type":1,"data":1}"#, r#"{"data":1}"#, r#"{"type":"t"}"#] {
        assert_eq!(text(&json(body), "data"), body);
    }
}

#[test]
fn an_object_that_has_a_key_of_an_envelope_twice_is_plain_so_that_nothing_of_it_is_lost() {
    for body in [
        r#"{"type":"a","data":1,"data":2}"#,
        r#"{"type":"a","type":"b","data":1}"#,
        r#"{"type":"a","id":"1","id":"2","data":1}"#,
    ] {
        assert_eq!(text(&json(body), "data"), body);
    }
}

#[test]
fn no_reason_and_no_place_is_longer_the_longer_the_names_of_the_sender_are() {
    let long = "x".repeat(100_000);
    let fields = FieldNames { time_field: format!("/{long}"), ..FieldNames::default() };
    let plain = |body: String| {
        read(body.as_bytes(), Framing::Json, &ReadOptions { fields: fields.clone(), ..options() })
            .expect("the body reads")
    };
    let cloud = |more: String| {
        let body = format!("{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",{more}}}");
        read(body.as_bytes(), Framing::CloudEvent, &options()).expect("the body reads")
    };
    let version = format!("{{\"specversion\":\"{long}\"}}");
    let batches = [
        plain(format!("{{\"{long}\":\"{long}\"}}")),
        plain(format!("{{\"{long}\":true}}")),
        read(version.as_bytes(), Framing::CloudEvent, &options()).expect("the body reads"),
        cloud(format!("\"X{long}\":\"1\"")),
        cloud(format!("\"{long}\":{{}}")),
        cloud(format!("\"{long}\":1,\"{long}\":2")),
        cloud(format!("\"time\":\"{long}\"")),
        cloud(format!("\"data_base64\":\"{long}!\"")),
    ];
    for batch in batches {
        let [rejection] = &batch.rejected[..] else { panic!("one is rejected: {batch:?}") };
        let bytes = rejection.reason.len() + rejection.pointer.as_ref().map_or(0, String::len);
        assert!(bytes < 400, "{bytes} bytes: {:.300}", rejection.reason);
    }
    let bad =
        ReadOptions { fields: FieldNames { id_field: format!("/~{long}"), ..FieldNames::default() }, ..options() };
    let refusals = [
        read(b"{}", Framing::Json, &bad).expect_err("no pointer").to_string(),
        time_zone(&long).expect_err("no zone"),
        event::framing_of(Some(&long), std::iter::empty()).expect_err("no type").to_string(),
        event::encodings_of(Some(&long)).expect_err("no encoding").to_string(),
    ];
    assert!(refusals.iter().all(|text| text.len() < 500), "{refusals:.300?}");
}

#[test]
fn field_parameters_name_other_keys() {
    let body = r#"{"dev":{"eui":"0a"},"ts":"1970-01-01T00:00:05Z","n":7,"kind":"uplink"}"#;
    let mut options = options();
    options.fields = FieldNames {
        type_field: "kind".into(),
        time_field: "/ts".into(),
        id_field: "/n".into(),
        subject_field: "/dev/eui".into(),
    };
    let batch = read(body.as_bytes(), Framing::Json, &options).expect("reads");
    let found = (text(&batch, "type"), time(&batch), text(&batch, "id"), text(&batch, "subject"), text(&batch, "data"));
    assert_eq!(found, ("uplink".into(), 5_000_000, "7".into(), "0a".into(), body.into()));
    let escaped = body.replace("\"ts\"", r#""t\u0073""#).replace("\"kind\"", r#""k\u0069nd""#);
    let batch = read(escaped.as_bytes(), Framing::Json, &options).expect("reads");
    assert_eq!((text(&batch, "type"), time(&batch)), ("uplink".into(), 5_000_000), "however they are written");
    options.fields.time_field = String::new();
    let body = br#"{"time":"no time at all"}"#;
    assert_eq!(read(body, Framing::Json, &options).expect("reads").rejected_total, 0, "an empty value switches it off");
    options.fields.id_field = "/a~2".into();
    assert!(matches!(read(b"{}", Framing::Json, &options), Err(ReadError::Pointer(_))));
}

/// A type, a subject and an id are strings, and numbers where a key was named for them; other values are refused, never kept as text.
#[test]
fn values_of_other_kinds_are_no_type_no_subject_and_no_id() {
    let mut named = options();
    named.fields = FieldNames {
        type_field: "kind".into(),
        time_field: "at".into(),
        id_field: "n".into(),
        subject_field: "of".into(),
    };
    let read_one = |body: &str| read(body.as_bytes(), Framing::Json, &named).expect("reads");
    let batch = read_one(r#"{"kind": -7.5, "n": 12, "of": 3, "at": 4}"#);
    let found = (text(&batch, "type"), text(&batch, "id"), text(&batch, "subject"), time(&batch));
    assert_eq!(found, ("-7.5".into(), "12".into(), "3".into(), 4_000_000));
    let batch = read_one(r#"{"kind": null, "n": null, "of": null, "at": null}"#);
    assert_eq!((text(&batch, "type"), time(&batch)), ("event".into(), 1_000_000));
    assert!(texts(&batch, "id").is_null(0) && texts(&batch, "subject").is_null(0));
    for other in ["{}", "[1]", "true", "false"] {
        for (key, code, at) in [
            ("kind", "invalid_type", "/kind"),
            ("of", "invalid_subject", "/of"),
            ("n", "invalid_id", "/n"),
            ("at", "invalid_time", "/at"),
        ] {
            let batch = read_one(&format!(r#"{{"{key}": {other}}}"#));
            assert_eq!(codes(&batch), [(0, code)], "{key}: {other}");
            assert_eq!(batch.rejected[0].pointer.as_deref(), Some(at));
        }
        let batch = json(&format!(r#"{{"time": {other}}}"#));
        let kind = [("{", "an object"), ("[", "an array"), ("", "true or false")];
        let kind = kind.into_iter().find(|(begin, _)| other.starts_with(begin)).expect("one").1;
        assert!(batch.rejected[0].reason.contains(kind), "{}", batch.rejected[0].reason);
        let batch = json(&format!(r#"{{"type": {other}}}"#));
        assert_eq!(text(&batch, "type"), "event", "nobody asked for it");
        for (member, code) in [("id", "invalid_id"), ("subject", "invalid_subject")] {
            let batch = json(&format!(r#"{{"type": "t", "data": 1, "{member}": {other}}}"#));
            assert_eq!(codes(&batch), [(0, code)], "{member}: {other}");
        }
    }
    let batch = json(r#"{"type": "t", "data": 1, "subject": 7}"#);
    assert_eq!(codes(&batch), [(0, "invalid_subject")], "nobody named a key for it");
}

#[test]
fn halves_of_a_pair_are_one_character() {
    for (escaped, character) in [
        ("\\ud83d\\ude00", "\u{1f600}"),
        ("\\ud800\\udc00", "\u{10000}"),
        ("\\uDBFF\\uDFFF", "\u{10ffff}"),
        ("\\ud801\\udc37", "\u{10437}"),
        ("\\u00e9\\b\\f\\n\\r\\t\\/\\\\", "\u{e9}\u{8}\u{c}\n\r\t/\\"),
    ] {
        let batch = json(&format!(r#"{{"type": "t", "data": 1, "id": "a{escaped}z"}}"#));
        assert_eq!(text(&batch, "id"), format!("a{character}z"));
    }
}

#[test]
fn a_time_that_cannot_be_read_rejects_its_event() {
    let body =
        b"{\"time\":\"2026-01-01T00:00:00\"}\n{\"time\":\"soon\"}\n{\"time\":true}\n{\"time\":null}\n{\"time\":1e30}\n";
    let batch = lines(body);
    let expected = [(0, "time_without_zone"), (1, "invalid_time"), (2, "invalid_time"), (4, "invalid_time")];
    assert_eq!(codes(&batch), expected);
    assert_eq!(batch.rejected[0].pointer.as_deref(), Some("/time"));
    assert!(batch.rejected[0].reason.contains("time_zone="), "the reason names the fix");
    let mut zoned = options();
    zoned.time_zone = Some(time_zone("Europe/Berlin").expect("known"));
    let batch = read(b"{\"time\":\"1970-01-01 01:00:09\"}", Framing::Json, &zoned).expect("reads");
    assert_eq!(time(&batch), 9_000_000);
}

#[test]
fn what_is_not_json_is_told_with_its_byte_and_a_byte_order_mark_by_its_name() {
    for (body, told) in [
        (r#"{"a": "\q"}"#, "expected an escape that JSON knows at byte 8"),
        (r#"{"a": "\u12g4"}"#, "expected four hexadecimal digits at byte 7"),
        ("\u{feff}{}", "begins with a byte order mark"),
        ("{\u{feff}}", "at byte 1"),
        ("oops", "at byte 0"),
    ] {
        let batch = lines(body.as_bytes());
        assert_eq!(codes(&batch), [(0, "invalid_json")], "{body}");
        assert!(batch.rejected[0].reason.contains(told), "{body}: {}", batch.rejected[0].reason);
    }
}

#[test]
fn bad_lines_are_rejected_one_by_one() {
    let mut body = b"{\"a\":1}\n\n{\"a\":}\r\n[1]\n7\n{\"s\":\"\\ud800\"}\n{\"s\":\"".to_vec();
    body.extend(b"\xff\"}\n{\"a\":2} x\n{\"s\":\"\\ud83d\\ude00\"}");
    let batch = lines(&body);
    let expected = [
        (1, "invalid_json"),
        (2, "not_an_object"),
        (3, "not_an_object"),
        (4, "lone_surrogate"),
        (5, "invalid_utf8"),
        (6, "invalid_json"),
    ];
    assert_eq!(codes(&batch), expected);
    assert_eq!((batch.received, batch.columns.num_rows()), (8, 2));
}

#[test]
fn elements_of_an_array_are_rejected_one_by_one_but_broken_syntax_refuses_the_body() {
    let batch = json(r#"[{"a":1}, 7, {"s":"\udc00"}, {"type":"t","data":{},"id":""}, {"b":2}]"#);
    assert_eq!(codes(&batch), [(1, "not_an_object"), (2, "lone_surrogate"), (3, "invalid_id")]);
    assert_eq!(json("[]").received, 0);
    for broken in ["", " \n", "[{\"a\":1}", "[{\"a\":1},]", "[{\"a\":1}]]", "[{\"a\":1} {\"a\":2}]", "[{\"a\":01}]"] {
        let error = read(broken.as_bytes(), Framing::Json, &options());
        assert!(matches!(error, Err(ReadError::Syntax { .. })), "{broken}");
    }
}

#[test]
fn several_objects_in_a_json_body_are_read_as_lines() {
    assert_eq!(json("{\"a\":1}\n{\"a\":2}\n").columns.num_rows(), 2);
    assert_eq!(json("{\n \"a\": 1\n}\n").columns.num_rows(), 1, "one object over several lines is one event");
    assert_eq!(codes(&json("7")), [(0, "not_an_object")]);
    for (body, received, accepted) in [
        ("oops\n{\"a\":1}\n", 1, 0),
        ("{\"a\":1\n oops}", 1, 0),
        ("{\"a\":1}\noops", 2, 1),
        ("{\"a\":\n\n{\"b\":1}", 2, 1),
        ("{\"a\":\n{\"b\":1}}", 1, 1),
        ("{\"a\":oops}\n", 1, 0),
    ] {
        let batch = json(body);
        assert_eq!((batch.received, batch.columns.num_rows()), (received, accepted), "{body}");
    }
}

#[test]
fn too_large_and_too_deep_events_are_rejected_alone() {
    let mut options = options();
    options.limits = Limits { event_bytes_max: 100, nesting_max: 4, ..Limits::default() };
    let body = format!("{{\"a\":1}}\n{{\"a\":\"{}\"}}\n{{\"a\":[[[1]]]}}\n{{\"a\":[[[[1]]]]}}\n", "x".repeat(100));
    let batch = read(body.as_bytes(), Framing::Ndjson, &options).expect("reads");
    assert_eq!(codes(&batch), [(1, "event_too_large"), (3, "nesting_too_deep")]);
    let deep = [vec![b'['; 1 << 20], vec![b']'; 1 << 20]].concat();
    assert_eq!(lines(&deep).rejected[0].code, Code::EventTooLarge, "deep nesting costs no stack");
}

#[test]
fn a_batch_of_too_many_events_is_refused() {
    let mut options = options();
    options.limits.batch_events_max = 2;
    assert!(read(b"{}\n{}\n", Framing::Ndjson, &options).is_ok());
    assert!(matches!(read(b"{}\n{}\n{}", Framing::Ndjson, &options), Err(ReadError::TooManyEvents { events_max: 2 })));
}

#[test]
fn only_the_first_rejections_are_told_but_all_are_counted() {
    let mut options = options();
    options.limits.rejected_kept_max = 3;
    let batch = read(&b"1\n".repeat(10), Framing::Ndjson, &options).expect("reads");
    assert_eq!((batch.rejected.len(), batch.rejected_total, batch.received), (3, 10, 10));
}

#[test]
fn a_rejection_tells_which_bytes_of_the_body_it_is_about() {
    let told = |body: &'static str, framing: Framing<'_>| {
        let batch = read(body.as_bytes(), framing, &options()).expect("reads");
        batch.rejected.iter().map(|r| &body[r.text.clone()]).collect::<Vec<_>>()
    };
    assert_eq!(told("{\"a\":1}\n  {oops\n\n[1] \n", Framing::Ndjson), ["{oops", "[1]"]);
    assert_eq!(told(" [ {\"a\":1}, 2 ,\n [3]]", Framing::Json), ["2", "[3]"]);
    assert_eq!(told(" {\"a\": oops}\n", Framing::Json), ["{\"a\": oops}"]);
    assert_eq!(told(" {\"id\": \"1\"} ", Framing::CloudEvent), ["{\"id\": \"1\"}"]);
}

#[test]
fn a_flaw_inside_an_event_is_told_with_its_place() {
    let place = |body: &[u8], framing: Framing<'_>| {
        let batch = read(body, framing, &options()).expect("reads");
        batch.rejected[0].pointer.clone()
    };
    let surrogate = r#"{"a":{"x":[1],"b~/\u0063":[0,{"\"":"ok"},"\ud800"]},"z":1}"#;
    assert_eq!(place(surrogate.as_bytes(), Framing::Ndjson).as_deref(), Some("/a/b~0~1c/2"));
    assert_eq!(place(b"[{\"a\":[[],{},\"\\\\\",\"\\udc00\"]}]", Framing::Json).as_deref(), Some("/a/3"));
    assert_eq!(place(br#"{"a":{"\ud800":1}}"#, Framing::Json).as_deref(), Some("/a"), "a key is of its object");
    assert_eq!(place(br#"{"\ud800":1}"#, Framing::Json), None);
    let deep = format!(r#"{{"a":1,"b":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let at = format!("/b{}", "/0".repeat(Limits::default().nesting_max - 1));
    assert_eq!(place(deep.as_bytes(), Framing::Json).as_deref(), Some(at.as_str()), "what is too deep is in this");
    assert_eq!(place(b"{\"a\":1,\"b\":{\"c\":\"\xff\"}}", Framing::Ndjson).as_deref(), Some("/b/c"));
    assert_eq!(
        place(b"{\"b\\u00\xc3\xa9\":[\"\xff\"]}", Framing::Ndjson).as_deref(),
        Some("/b\\u00\u{e9}/0"),
        "no JSON at all"
    );
    let long = format!("{{\"{}\":\"\\ud800\"}}", "k".repeat(2000));
    assert_eq!(place(long.as_bytes(), Framing::Json), None, "a very long place is not told");
}

#[test]
fn a_key_follows_content_and_given_time_but_not_the_time_of_receipt() {
    let key = |body: &str, received_at| {
        let options = ReadOptions { received_at, ..options() };
        read(body.as_bytes(), Framing::Json, &options).expect("reads").keys[0].expect("an id was given")
    };
    let first = key(r#"{"id":"1","type":"t","data":{"v":1}}"#, 1);
    assert_eq!(first, key(r#"{"data":{"v":1},"type":"t","id":"1"}"#, 2), "a retry is the same event");
    let other = key(r#"{"id":"1","type":"t","data":{"v":2}}"#, 1);
    assert_eq!((first.id, first.content == other.content), (other.id, false));
    assert_ne!(first.content, key(r#"{"id":"1","type":"t","time":1,"data":{"v":1}}"#, 1).content);
}

#[test]
fn the_json_test_suite_behaves_as_it_expects() {
    let named = std::env::var_os("CATCHMENT_CORPORA").map(std::path::PathBuf::from);
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let path =
        named.clone().unwrap_or_else(|| here.join("../../../shared/corpora")).join("json_test_suite/cases.ndjson");
    let Ok(cases) = std::fs::read_to_string(&path) else {
        assert!(named.is_none(), "CATCHMENT_CORPORA is set, but {} is missing", path.display());
        return;
    };
    let mut counted = 0;
    for case in cases.lines() {
        let case: Value = serde_json::from_str(case).expect("the corpus is JSON");
        let bytes = base64(case["b64"].as_str().expect("base64"));
        let body = [b"{\"type\":\"t\",\"data\":".as_slice(), &bytes, b"}"].concat();
        let batch = read(&body, Framing::Json, &options());
        let kept = batch.as_ref().is_ok_and(|b| b.rejected_total == 0 && b.received == 1);
        match case["expect"].as_str() {
            Some("accept") => {
                assert!(kept, "{} is JSON: {batch:?}", case["name"]);
                let data = text(&batch.expect("kept"), "data");
                assert_eq!(data.as_bytes(), bytes.trim_ascii(), "{}", case["name"]);
            }
            Some("reject") => assert!(!kept, "{} is not JSON", case["name"]),
            Some("either") => {}
            other => panic!("expect is {other:?}"),
        }
        if case["toplevel"] == "object" && case["expect"] == "accept" {
            let batch = read(&bytes, Framing::Json, &options()).expect("an object is a body");
            assert_eq!(text(&batch, "data").as_bytes(), bytes.trim_ascii());
        }
        counted += 1;
    }
    assert!(counted > 300, "{counted}");
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |b: u8| match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text.bytes().filter(|b| *b != b'=').map(|b| u32::from(digit(b))).collect();
    let mut bytes = Vec::new();
    for chunk in digits.chunks(4) {
        let word = chunk.iter().fold(0, |w, d| w << 6 | d) << (6 * (4 - chunk.len()));
        bytes.extend(&word.to_be_bytes()[1..chunk.len()]);
    }
    bytes
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(".{0,8}", inner, 0..5).prop_map(|m| m.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn every_value_comes_back_byte_for_byte(values in proptest::collection::vec(value(), 1..6)) {
        let texts: Vec<String> = values.iter().map(Value::to_string).collect();
        let envelopes: Vec<String> = texts.iter().map(|t| format!("{{\"type\":\"t\",\"data\":{t}}}")).collect();
        let ndjson = lines(envelopes.join("\n").as_bytes());
        let array = json(&format!("[{}]", envelopes.join(" , ")));
        for batch in [&ndjson, &array] {
            prop_assert_eq!(batch.rejected_total, 0, "{:?}", batch.rejected);
            let found: Vec<_> = (0..texts.len()).map(|i| self::texts(batch, "data").value(i)).collect();
            prop_assert_eq!(&found, &texts);
        }
    }

    #[test]
    fn any_bytes_add_up_and_never_panic(body in proptest::collection::vec(prop_oneof![
        Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'), Just(b':'), Just(b','), Just(b'\n'), Just(b'u'), Just(b'1'), any::<u8>(),
    ], 0..200)) {
        for framing in [Framing::Json, Framing::Ndjson] {
            if let Ok(batch) = read(&body, framing, &options()) {
                prop_assert_eq!(batch.received, batch.columns.num_rows() as u64 + batch.rejected_total);
            }
        }
    }

    #[test]
    fn it_agrees_with_a_strict_parser(text in "[\\[\\]{}\":,0-9a-z.eE+ \\\\-]{0,24}") {
        let body = format!("{{\"type\":\"t\",\"data\":{text}}}");
        let ours = read(body.as_bytes(), Framing::Json, &options()).is_ok_and(|b| b.columns.num_rows() == 1);
        let strict = serde_json::from_str::<&serde_json::value::RawValue>(&body).is_ok();
        let no_newline_in_it = !body.contains('\n');
        prop_assert!(no_newline_in_it);
        prop_assert_eq!(ours, strict, "{}", body);
    }
}
