//! CloudEvents: each rule of `docs/SCHEMA.md` about them as a test.

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use event::{Batch, FieldNames, Framing, Headers, Key, Limits, ReadError, ReadOptions, columns_bytes_max, read};
use proptest::prelude::*;

fn options() -> ReadOptions<'static> {
    ReadOptions {
        sensor: "s",
        received_at: 1_000_000,
        fields: FieldNames::default(),
        time_zone: None,
        limits: Limits::default(),
    }
}

fn structured(body: &str) -> Batch {
    read(body.as_bytes(), Framing::CloudEvent, &options()).expect("the body reads")
}

/// An event in the JSON format with more members.
fn with(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!("{{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"{comma}{more}}}")
}

/// An event as headers beside the four that every event has.
fn binary(content_type: Option<&str>, more: &[(&str, &[u8])], body: &[u8]) -> Batch {
    let four: [(&str, &[u8]); 4] = [("specversion", b"1.0"), ("id", b"1"), ("source", b"/s"), ("type", b"t")];
    let attributes = four.iter().chain(more).copied().collect();
    read(body, Framing::Binary(Headers { content_type, attributes }), &options())
        .expect("binary mode never fails as a whole")
}

#[track_caller]
fn text<'b>(batch: &'b Batch, column: &str) -> Option<&'b str> {
    assert_eq!((batch.columns.num_rows(), &batch.rejected[..]), (1, &[][..]));
    let column = batch.columns.column_by_name(column).expect("a column").as_string::<i32>();
    column.is_valid(0).then(|| column.value(0))
}

fn bytes(batch: &Batch) -> Option<&[u8]> {
    let column = batch.columns.column_by_name("data_binary").expect("a column").as_binary::<i32>();
    column.is_valid(0).then(|| column.value(0))
}

fn time(batch: &Batch) -> i64 {
    batch.columns.column_by_name("time").expect("a column").as_primitive::<TimestampMicrosecondType>().value(0)
}

fn key(batch: &Batch) -> Key {
    batch.keys[0].expect("a CloudEvent has an id")
}

/// Code and place of the one rejection.
#[track_caller]
fn rejected(batch: &Batch) -> (&'static str, Option<&str>) {
    assert_eq!((batch.received, batch.rejected_total, batch.columns.num_rows()), (1, 1, 0));
    (batch.rejected[0].code.name(), batch.rejected[0].pointer.as_deref())
}

#[test]
fn every_attribute_has_its_column_or_stays_in_attributes_as_it_was_sent() {
    let batch = structured(&with(
        r#""zz":"\u00fc \"q\"","time":"1970-01-01T00:00:02.5Z","subject":"room","dataschema":"urn:x:y","n":-7,"yes":true,
           "none":null,"datacontenttype":"application/json","data":{ "v" : 1e2 }"#,
    ));
    assert_eq!(text(&batch, "attributes"), Some(r#"{"zz":"\u00fc \"q\"","dataschema":"urn:x:y","n":-7,"yes":true}"#));
    assert_eq!((text(&batch, "id"), text(&batch, "source"), text(&batch, "type")), (Some("1"), Some("/s"), Some("t")));
    assert_eq!((text(&batch, "subject"), text(&batch, "content_type")), (Some("room"), Some("application/json")));
    assert_eq!((text(&batch, "data"), bytes(&batch), time(&batch)), (Some("{ \"v\" : 1e2 }"), None, 2_500_000));
    let least = structured(&with(""));
    assert_eq!((text(&least, "attributes"), text(&least, "content_type"), text(&least, "data")), (None, None, None));
    assert_eq!((bytes(&least), time(&least)), (None, 1_000_000));
}

#[test]
fn headers_are_decoded_and_give_the_same_row() {
    let more: [(&str, &[u8]); 5] = [
        ("time", b"1970-01-01T02:00:02+02:00"),
        ("subject", b"\"R\\\"%C3%BC\""),
        ("dataschema", b"urn:x:y"),
        ("n", b"-7"),
        ("zz", b"back\\slash"),
    ];
    let batch = binary(Some("application/json; charset=utf-8"), &more, b" {\"v\": 1}\n");
    assert_eq!((text(&batch, "subject"), time(&batch)), (Some("R\"\u{fc}"), 2_000_000));
    assert_eq!(text(&batch, "attributes"), Some(r#"{"dataschema":"urn:x:y","n":"-7","zz":"back\\slash"}"#));
    assert_eq!(text(&batch, "content_type"), Some("application/json; charset=utf-8"));
    assert_eq!((text(&batch, "data"), bytes(&batch)), (Some(" {\"v\": 1}\n"), None), "byte for byte");
}

#[test]
fn data_that_is_json_is_kept_as_text_and_all_else_as_bytes() {
    for (more, data, binary) in [
        (r#""data":null"#, Some("null"), None),
        (r#""data":"a\nb""#, Some(r#""a\nb""#), None),
        (r#""datacontenttype":"x/y+json","data":"a""#, Some("\"a\""), None),
        (r#""datacontenttype":"text/plain","data":"a\n\u00fc""#, None, Some("a\n\u{fc}")),
        (r#""datacontenttype":"text/xml","data":[1]"#, Some("[1]"), None),
        (r#""data_base64":"eyJ4IjoxfQ==""#, None, Some("{\"x\":1}")),
        (r#""data_base64":"TWE\/""#, None, Some("Ma?")),
        (r#""data_base64":"""#, None, Some("")),
        (r#""data":1,"data_base64":null"#, Some("1"), None),
    ] {
        let batch = structured(&with(more));
        assert_eq!((text(&batch, "data"), bytes(&batch)), (data, binary.map(str::as_bytes)), "{more}");
    }
    for (content_type, body, data, kept) in [
        (None, b"[1, 2]".as_slice(), Some("[1, 2]"), None),
        (None, b"plain", None, Some(b"plain".as_slice())),
        (None, b"\xff\x00", None, Some(b"\xff\x00")),
        (None, b"", None, None),
        (Some("application/json"), b"", None, None),
        (Some("text/json"), b"1", Some("1"), None),
        (Some("application/json; charset=latin1"), b"1", None, Some(b"1")),
        (Some("application/x-ndjson"), b"{}\n{}", None, Some(b"{}\n{}")),
        (Some("image/png"), b"\x89PNG", None, Some(b"\x89PNG")),
    ] {
        let batch = binary(content_type, &[], body);
        assert_eq!((text(&batch, "data"), bytes(&batch)), (data, kept), "{content_type:?} {body:?}");
        assert_eq!(text(&batch, "content_type"), content_type);
    }
    assert_eq!(rejected(&binary(Some("application/json"), &[], b"Hello")), ("invalid_json", None));
    assert_eq!(rejected(&binary(Some("application/json"), &[], b"\"\\ud800\"")), ("lone_surrogate", None));
}

#[test]
fn what_the_specification_forbids_is_rejected_by_its_place() {
    for (more, code, place) in [
        (r#""time":"2018-04-05 17:31:00Z""#, "invalid_time", "/time"),
        (r#""time":1700000000"#, "invalid_time", "/time"),
        (r#""subject":"""#, "invalid_subject", "/subject"),
        (r#""subject":"a\u0007""#, "invalid_subject", "/subject"),
        (r#""datacontenttype":"xyz""#, "invalid_datacontenttype", "/datacontenttype"),
        (r#""dataschema":"/relative""#, "invalid_dataschema", "/dataschema"),
        (r#""Upper":1"#, "invalid_attribute", "/Upper"),
        (r#""a/b":1"#, "invalid_attribute", "/a~1b"),
        (r#""":1"#, "invalid_attribute", "/"),
        (r#""n":1.0"#, "invalid_attribute", "/n"),
        (r#""n":2147483648"#, "invalid_attribute", "/n"),
        (r#""n":{}"#, "invalid_attribute", "/n"),
        (r#""n":"\ufdd0""#, "invalid_attribute", "/n"),
        (r#""n":1,"\u006e":2"#, "invalid_attribute", "/n"),
        (r#""id":"2""#, "invalid_attribute", "/id"),
        (r#""data":1,"data":2"#, "invalid_attribute", "/data"),
        (r#""data":null,"data_base64":"TWE=""#, "both_data", "/data_base64"),
        (r#""data_base64":"TWE""#, "invalid_data_base64", "/data_base64"),
        (r#""data_base64":7"#, "invalid_data_base64", "/data_base64"),
    ] {
        assert_eq!(rejected(&structured(&with(more))), (code, Some(place)), "{more}");
    }
    for (from, to, code, place) in [
        ("\"1.0\"", "\"0.3\"", "invalid_specversion", "/specversion"),
        ("\"1.0\"", "1.0", "invalid_specversion", "/specversion"),
        ("\"id\":\"1\"", "\"id\":1", "invalid_id", "/id"),
        ("\"id\":\"1\"", "\"id\":null", "missing_attribute", "/id"),
        ("\"type\":\"t\"", "\"type\":\"\"", "invalid_type", "/type"),
        ("\"/s\"", "\"two words\"", "invalid_source", "/source"),
        ("\"/s\"", "\"%zz\"", "invalid_source", "/source"),
        ("\"specversion\":\"1.0\",", "", "missing_attribute", "/specversion"),
    ] {
        assert_eq!(rejected(&structured(&with("").replace(from, to))), (code, Some(place)), "{to}");
    }
    let many: Vec<String> = (0..1001).map(|n| format!("\"a{n}\":1")).collect();
    assert_eq!(rejected(&structured(&with(&many.join(",")))), ("invalid_attribute", None));
}

#[test]
fn an_event_may_have_a_thousand_attributes_and_no_more() {
    let others = |count: usize| (0..count).map(|n| format!("\"a{n}\":1")).collect::<Vec<_>>().join(",");
    assert!(text(&structured(&with(&others(996))), "attributes").is_some_and(|all| all.ends_with("\"a995\":1}")));
    assert_eq!(rejected(&structured(&with(&others(997)))), ("invalid_attribute", None));
}

#[test]
fn no_attribute_has_a_character_that_is_never_assigned() {
    for (character, is_allowed) in [
        ('\u{fdcf}', true),
        ('\u{fdd0}', false),
        ('\u{fdef}', false),
        ('\u{fdf0}', true),
        ('\u{fffd}', true),
        ('\u{fffe}', false),
        ('\u{1ffff}', false),
        ('\u{20000}', true),
        ('\u{80}', false),
    ] {
        let batch = structured(&with(&format!("\"site\":\"a{character}\"")));
        let told = batch.rejected.first().map(|rejected| rejected.code.name());
        assert_eq!(told, (!is_allowed).then_some("invalid_attribute"), "{character:?}");
    }
}

#[test]
fn headers_that_the_binding_forbids_are_rejected_by_their_name() {
    for (name, value, code) in [
        ("time", b"yesterday".as_slice(), "invalid_time"),
        ("subject", b"", "invalid_subject"),
        ("subject", b"%C0%A0", "invalid_utf8"),
        ("ext", b"\xff", "invalid_utf8"),
        ("ext", b"%0a", "invalid_attribute"),
        ("my-ext", b"1", "invalid_attribute"),
        ("data", b"1", "invalid_attribute"),
        ("data_base64", b"TWE=", "invalid_attribute"),
        ("id", b"2", "invalid_attribute"),
    ] {
        let batch = binary(None, &[(name, value)], b"1");
        assert_eq!(rejected(&batch), (code, Some(format!("ce-{name}").as_str())));
    }
    assert_eq!(rejected(&binary(Some("xyz"), &[], b"1")), ("invalid_datacontenttype", Some("content-type")));
    let twice = binary(Some("text/plain"), &[("datacontenttype", b"text/plain")], b"1");
    assert_eq!(rejected(&twice), ("invalid_attribute", Some("content-type")));
}

#[test]
fn sources_are_uri_references() {
    for source in [
        "#fragment",
        "1-555-123-4567",
        "mailto:a@b.c",
        "urn:uuid:6e8bc430",
        "//h/p?q",
        "cloudevents/spec/pull/123",
        "/\u{fc}",
    ] {
        let batch = structured(&with("").replace("/s", source));
        assert_eq!(text(&batch, "source"), Some(source));
    }
}

#[test]
fn events_of_a_batch_stand_for_themselves_and_a_body_that_is_none_is_refused() {
    let read_batch = |body: &str| read(body.as_bytes(), Framing::CloudEvents, &options());
    let body = format!("[{}, 7, {}, {}]", with(""), with("\"time\":\"x\""), with("\"data\":[[]]"));
    let batch = read_batch(&body).expect("an array");
    let codes: Vec<_> = batch.rejected.iter().map(|r| (r.index, r.code.name())).collect();
    assert_eq!((codes, batch.received), (vec![(1, "not_an_object"), (2, "invalid_time")], 4));
    assert_eq!((batch.columns.num_rows(), batch.keys.len()), (2, 2));
    assert_eq!(read_batch(" [] ").expect("an array").received, 0);
    for body in ["", "{}", &with(""), "[{}", "[{}] x"] {
        assert!(matches!(read_batch(body), Err(ReadError::Syntax { .. })), "{body}");
    }
    assert!(matches!(read(b"  ", Framing::CloudEvent, &options()), Err(ReadError::Syntax { .. })));
    assert_eq!(rejected(&structured("[]")), ("not_an_object", None));
    assert_eq!(rejected(&structured(&format!("{0}\n{0}", with("")))), ("invalid_json", None));
}

#[test]
fn the_limits_of_events_hold() {
    let mut options = options();
    options.limits = Limits { event_bytes_max: 100, nesting_max: 3, ..Limits::default() };
    let long = with(&format!("\"data\":\"{}\"", "x".repeat(100)));
    let code = |body: &str, framing| {
        read(body.as_bytes(), framing, &options).expect("reads").rejected.first().map(|r| r.code.name())
    };
    assert_eq!(code(&long, Framing::CloudEvent), Some("event_too_large"));
    assert_eq!(code(&with("\"data\":[[[1]]]"), Framing::CloudEvent), Some("nesting_too_deep"));
    let attributes: Vec<(&str, &[u8])> = vec![("specversion", b"1.0"), ("id", b"1"), ("source", b"/s"), ("type", b"t")];
    let headers = |content_type| Framing::Binary(Headers { content_type, attributes: attributes.clone() });
    assert_eq!(code(&"1".repeat(101), headers(None)), Some("event_too_large"));
    assert_eq!(code("[[[[1]]]]", headers(Some("application/json"))), Some("nesting_too_deep"));
    assert_eq!(code(&"1".repeat(100), headers(None)), None);
}

#[test]
fn a_key_follows_everything_that_was_sent_and_not_its_order() {
    let first = key(&structured(&with(r#""a":1,"b":"x","data":{"v":1},"datacontenttype":"application/json""#)));
    let same = r#"{"data":{"v":1},"b":"x","type":"t","datacontenttype":"application/json","source":"/s","a":1,"id":"1","specversion":"1.0"}"#;
    assert_eq!(first, key(&structured(same)));
    for changed in [
        r#""a":2,"b":"x","data":{"v":1},"datacontenttype":"application/json""#,
        r#""a":"1","b":"x","data":{"v":1},"datacontenttype":"application/json""#,
        r#""b":"x","data":{"v":1},"datacontenttype":"application/json""#,
        r#""a":1,"b":"x","data":{"v":2},"datacontenttype":"application/json""#,
        r#""a":1,"b":"x","data_base64":"eyJ2IjoxfQ==","datacontenttype":"application/json""#,
        r#""a":1,"b":"x","data":{"v":1},"datacontenttype":"text/json""#,
        r#""a":1,"b":"x","data":{"v":1},"datacontenttype":"application/json","subject":"s""#,
        r#""a":1,"b":"x","data":{"v":1},"datacontenttype":"application/json","dataschema":"u:v""#,
        r#""a":1,"b":"x","data":{"v":1},"datacontenttype":"application/json","time":"2026-01-01T00:00:00Z""#,
    ] {
        let other = key(&structured(&with(changed)));
        assert_eq!((first.id, first.content == other.content), (other.id, false), "{changed}");
    }
    assert_ne!(first.id, key(&structured(&with("").replace("/s", "/t"))).id, "the source is a part of the identity");
    let none = key(&structured(&with("")));
    assert_ne!(none.content, key(&structured(&with("\"data_base64\":\"\""))).content, "no data is not empty data");
}

proptest! {
    #[test]
    fn texts_come_back_through_both_modes(value in "[a-zA-Z0-9 \"\\\\%\u{e4}\u{20ac}\u{1f600}]{1,20}") {
        let json = serde_json::to_string(&value).expect("a string");
        let batch = structured(&with(&format!("\"subject\":{json},\"datacontenttype\":\"text/plain\",\"data\":{json}")));
        prop_assert_eq!((text(&batch, "subject"), bytes(&batch)), (Some(value.as_str()), Some(value.as_bytes())));
        let encoded: String = value.bytes().map(|b| format!("%{b:02x}")).collect();
        let batch = binary(Some("text/plain"), &[("subject", encoded.as_bytes()), ("ext", encoded.as_bytes())], value.as_bytes());
        prop_assert_eq!((text(&batch, "subject"), bytes(&batch)), (Some(value.as_str()), Some(value.as_bytes())));
        let attributes: serde_json::Value = serde_json::from_str(text(&batch, "attributes").expect("there")).expect("JSON");
        prop_assert_eq!(&attributes["ext"], &value);
    }

    #[test]
    fn memory_stays_inside_what_was_told_before(count in 1..300usize, size in 0..500usize, kind in 0..4usize) {
        let filler = "x".repeat(size / 4 * 4);
        let member = match kind {
            0 => format!("\"data\":\"{filler}\""),
            1 => format!("\"data_base64\":\"{filler}\""),
            2 => format!("\"datacontenttype\":\"text/plain\",\"data\":\"{filler}\""),
            _ => format!("\"ext\":\"{filler}\""),
        };
        let body = format!("[{}]", vec![with(&member); count].join(","));
        let told = columns_bytes_max(body.as_bytes(), &Framing::CloudEvents, 1, &Limits::default());
        let batch = read(body.as_bytes(), Framing::CloudEvents, &options()).expect("reads");
        prop_assert_eq!(batch.columns.num_rows(), count, "{:?}", batch.rejected);
        // A batch has some hundred bytes for each of its eleven columns besides.
        prop_assert!(batch.memory_bytes() <= told + 4096, "{} of {told}", batch.memory_bytes());
    }

    #[test]
    fn so_it_does_for_headers(value in "[a-z\\\\]{0,2000}", body in "[x1]{0,2000}") {
        let attributes = vec![
            ("specversion", b"1.0".as_slice()), ("id", b"1"), ("source", b"/"), ("type", value.as_bytes()), ("ext", value.as_bytes()),
        ];
        let framing = Framing::Binary(Headers { content_type: Some("text/plain"), attributes });
        let told = columns_bytes_max(body.as_bytes(), &framing, 1, &Limits::default());
        let batch = read(body.as_bytes(), framing, &options()).expect("reads");
        prop_assert!(batch.memory_bytes() <= told + 4096, "{} of {told}", batch.memory_bytes());
    }

    #[test]
    fn any_bytes_add_up_and_never_panic(
        body in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b':'), Just(b','), any::<u8>()], 0..100),
        name in "[a-z]{0,3}",
        value in proptest::collection::vec(any::<u8>(), 0..20),
        content_type in proptest::option::of("[a-z/;+]{0,12}"),
    ) {
        let attributes = vec![("specversion", b"1.0".as_slice()), ("id", b"1"), ("source", b"/"), ("type", &value), (&name, &value)];
        let headers = Headers { content_type: content_type.as_deref(), attributes };
        for framing in [Framing::CloudEvent, Framing::CloudEvents, Framing::Binary(headers)] {
            if let Ok(batch) = read(&body, framing, &options()) {
                prop_assert_eq!(batch.received, batch.columns.num_rows() as u64 + batch.rejected_total);
            }
        }
    }
}
