//! Lines of an export, read.

use super::*;
use crate::schema::events_schema;
use arrow::array::{ArrayRef, Int64Array};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const LINE: &str = r#"{"position":7,"id":"a","sensor":"roof","source":"","type":"t","time":"2026-01-31T12:00:00Z","received_at":"2026-01-31T12:00:00.5Z""#;

fn read(body: &str) -> Batch {
    read_exported(body.as_bytes(), None, &Limits::default()).expect("lines")
}

fn data_of(batch: &Batch) -> Option<&str> {
    let data = batch.columns.column_by_name("data").expect("a column").as_string::<i32>();
    data.is_valid(0).then(|| data.value(0))
}

#[test]
fn data_comes_back_byte_for_byte_as_a_value_and_as_a_text() {
    for data in [
        "null",
        "1e400",
        "{\"b\":1,\"a\" : 12345678901234567890123,\"b\":\"\\u00e4\\/\"}",
        "[ [],{} ,\t\"NaN\"]",
        "\"\"",
        "-0.0",
    ] {
        let batch = read(&format!("{LINE},\"data\":{data}}}\n"));
        assert_eq!(data_of(&batch), Some(data), "{:?}", batch.rejected);
        let batch = read(&format!("{LINE},\"data_text\":{}}}", Value::from(data)));
        assert_eq!(data_of(&batch), Some(data), "{:?}", batch.rejected);
    }
    assert_eq!(data_of(&read(&format!("{LINE},\"data_text\":\"{{\\n\\\"a\\\":\\r1}}\"}}"))), Some("{\n\"a\":\r1}"));
    assert_eq!(data_of(&read(&format!("{LINE}}}"))), None, "an event without data");
}

#[test]
fn a_line_that_would_lose_something_or_is_none_is_rejected_with_its_place() {
    let short = LINE.replace(",\"source\":\"\"", "");
    for (line, code, pointer) in [
        (format!("{LINE},\"extra\":1}}"), Code::NotExported, Some("/extra")),
        (format!("{LINE},\"id\":\"b\"}}"), Code::NotExported, Some("/id")),
        (format!("{short}}}"), Code::NotExported, Some("/source")),
        (format!("{}}}", LINE.replace("roof", "Roof 1")), Code::NotExported, Some("/sensor")),
        (format!("{}}}", LINE.replace(":7,", ":\"x\",")), Code::NotExported, Some("/position")),
        (format!("{}}}", LINE.replace("\"a\"", "\"\"")), Code::InvalidId, Some("/id")),
        (
            format!("{}}}", LINE.replace("2026-01-31T12:00:00.5Z", "1969-12-31T23:59:59Z")),
            Code::InvalidTime,
            Some("/received_at"),
        ),
        (format!("{}}}", LINE.replace("2026-01-31T12:00:00Z", "yesterday")), Code::InvalidTime, Some("/time")),
        (format!("{LINE},\"attributes\":[1]}}"), Code::NotExported, Some("/attributes")),
        (format!("{LINE},\"subject\":1}}"), Code::NotExported, Some("/subject")),
        (format!("{}}}", LINE.replace("roof", "-roof")), Code::NotExported, Some("/sensor")),
        (format!("{}}}", LINE.replace("roof", "roof-")), Code::NotExported, Some("/sensor")),
        (format!("{}}}", LINE.replace("roof", "catchment.roof")), Code::NotExported, Some("/sensor")),
        (format!("{LINE},\"data\":1,\"data_base64\":\"AA==\"}}"), Code::BothData, Some("/data_base64")),
        (format!("{LINE},\"data_base64\":\"A\"}}"), Code::InvalidBase64, Some("/data_base64")),
        (format!("{LINE},\"data_text\":\"{{\"}}"), Code::InvalidJson, None),
        (format!("{LINE},\"data_text\":\" 1\"}}"), Code::NotExported, Some("/data_text")),
        (format!("{LINE},\"data\":\"\\ud800\"}}"), Code::LoneSurrogate, Some("/data")),
        ("{\"position\":".to_owned(), Code::InvalidJson, None),
    ] {
        let batch = read(&line);
        assert_eq!((batch.received, batch.rejected_total, batch.columns.num_rows()), (1, 1, 0), "{line}");
        let rejected = &batch.rejected[0];
        assert_eq!((rejected.code, rejected.pointer.as_deref()), (code, pointer), "{line}: {}", rejected.reason);
    }
    let kept_since = crate::parse_time("2026-02-01T00:00:00Z").expect("a time");
    let old = read_exported(format!("{LINE}}}").as_bytes(), Some(kept_since), &Limits::default()).expect("lines");
    assert_eq!(old.rejected[0].code, Code::TooOld);
    let since = crate::parse_time("2026-01-31T12:00:00.5Z").expect("a time");
    let just = read_exported(format!("{LINE}}}").as_bytes(), Some(since), &Limits::default()).expect("lines");
    assert_eq!(just.rejected_total, 0, "it was received just then");
    let first = LINE.replace("2026-01-31T12:00:00.5Z", "1970-01-01T00:00:00Z");
    assert_eq!(read(&format!("{first}}}")).rejected_total, 0);
    let limits = Limits { nesting_max: 8, ..Limits::default() };
    let nested = |depth: usize| {
        let data = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        read_exported(format!("{LINE},\"data\":{data}}}").as_bytes(), None, &limits).expect("lines").rejected_total
    };
    assert_eq!((nested(8), nested(9)), (0, 1), "as deep as it was sent");
}

#[test]
fn events_of_the_collectors_own_requests_come_back() {
    let batch = read(&format!("{}}}", LINE.replace("roof", "catchment.requests")));
    assert_eq!((batch.columns.num_rows(), batch.rejected_total), (1, 0), "{:?}", batch.rejected);
}

/// Not its line: names, quotes and times of that are not the event's.
#[test]
fn an_event_may_be_as_long_as_it_was_sent_by_its_data_and_by_all_else() {
    let limits = Limits { event_bytes_max: 9, ..Limits::default() };
    let code = |more: &str| {
        let batch = read_exported(format!("{LINE}{more}}}").as_bytes(), None, &limits).expect("lines");
        batch.rejected.first().map(|rejected| rejected.code)
    };
    let too_large = Some(Code::EventTooLarge);
    assert_eq!((code(",\"data\":123456789"), code(",\"data\":1234567890")), (None, too_large));
    assert_eq!(
        (code(",\"data_base64\":\"MTIzNDU2Nzg5\""), code(",\"data_base64\":\"MTIzNDU2Nzg5MA==\"")),
        (None, too_large)
    );
    // Id, sensor and type have six bytes.
    for (name, fits, does_not) in
        [("subject", "\"abc\"", "\"abcd\""), ("content_type", "\"a/b\"", "\"a/bc\""), ("attributes", "{ }", "{  }")]
    {
        let code = |value: &str| code(&format!(",\"{name}\":{value}"));
        assert_eq!((code(fits), code(does_not)), (None, too_large), "{name}");
    }
    assert_eq!(code(",\"subject\":\"ab\",\"content_type\":\"a\""), None);
    assert_eq!(code(",\"subject\":\"ab\",\"content_type\":\"ab\""), too_large, "together");
    assert_eq!(code(",\"subject\":\"ab\",\"attributes\":{}"), too_large, "together");
}

#[test]
fn an_event_is_told_from_others_by_sensor_source_id_and_time_and_is_the_same_with_the_same_content() {
    let key = |line: &str| read(line).keys[0].expect("a key");
    let one = key(&format!("{LINE},\"data\":1}}"));
    let received_later = LINE.replace("12:00:00.5Z", "13:00:00Z").replace(":7,", ":8,");
    assert_eq!(one, key(&format!("{received_later},\"data\":1}}")), "neither the position nor the time of receipt");
    for other in
        ["\"data\":2", "\"data\":1,\"subject\":\"\"", "\"data_base64\":\"MQ==\"", "\"data\":1,\"attributes\":{\"a\":1}"]
    {
        let other = key(&format!("{LINE},{other}}}"));
        assert!(one.id == other.id && one.content != other.content, "other content");
    }
    for (from, to) in
        [("roof", "cellar"), ("\"a\"", "\"b\""), ("\"source\":\"\"", "\"source\":\"/\""), ("12:00:00Z", "12:00:01Z")]
    {
        assert_ne!(one.id, key(&format!("{},\"data\":1}}", LINE.replace(from, to))).id, "{from}");
    }
}

#[test]
fn a_batch_tells_its_identities_and_keeps_what_is_told_to_stay() {
    let line = |id: &str| format!("{}}}\n", LINE.replace("\"a\"", &format!("\"{id}\"")));
    let bad = "{}\n";
    let mut batch = read(&[&line("a"), bad, &line("b"), &line("c")].map(str::to_owned).concat());
    let time = crate::parse_time("2026-01-31T12:00:00Z").expect("a time");
    let all: Vec<_> = batch.identities().collect();
    assert_eq!(all, ["a", "b", "c"].map(|id| (id, time, "roof")));
    batch.keep(&[true, true, true]);
    assert_eq!((batch.columns.num_rows(), batch.received, &batch.keys[..]), (3, 4, &[None; 3][..]));
    batch.keep(&[true, false, true]);
    assert_eq!(batch.identities().map(|(id, ..)| id).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!((batch.received, &batch.keys[..]), (3, &[None; 2][..]), "with the one that is rejected");
}

/// A text with what is odd in JSON and in lines.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,12}", "\\PC{0,8}", Just("\n\r\t\"\\\u{0}\u{2028}ä".to_owned())]
}

proptest! {
    #[test]
    fn any_bytes_add_up_and_never_panic(bytes in any::<Vec<u8>>(), at in 0..LINE.len(), more in "[ -~]{0,20}") {
        let broken = format!("{}{more}{}}}", &LINE[..at], &LINE[at..]);
        for body in [bytes.as_slice(), broken.as_bytes(), &broken.as_bytes()[..at]] {
            let batch = read_exported(body, Some(0), &Limits::default()).expect("lines");
            prop_assert_eq!(batch.received, batch.columns.num_rows() as u64 + batch.rejected_total);
            prop_assert_eq!(batch.keys.len(), batch.columns.num_rows());
        }
    }

    #[test]
    fn whatever_an_event_is_its_line_gives_it_again(
        id in text().prop_filter("not empty", |id| !id.is_empty()), source in text(), event_type in text(),
        subject in prop::option::of(text()), content_type in prop::option::of(text()),
        site in prop::option::of(text()), data in prop::option::of(text()), bytes in any::<Vec<u8>>(),
        time in -62_135_596_800_000_000i64..253_402_300_799_999_999, received_at in 0i64..253_402_300_799_999_999,
    ) {
        let attributes = site.map(|site| json!({ "site": site }));
        let data = data.map(|text| json!({ "text": text }).to_string());
        let mut line: Map<String, Value> = Map::new();
        let mut put = |name: &str, value: Option<Value>| if let Some(value) = value { line.insert(name.to_owned(), value); };
        put("id", Some(id.clone().into()));
        put("sensor", Some("roof".into()));
        put("source", Some(source.clone().into()));
        put("type", Some(event_type.clone().into()));
        put("subject", subject.clone().map(Value::from));
        put("time", Some(time::format_time(time).into()));
        put("received_at", Some(time::format_time(received_at).into()));
        put("content_type", content_type.clone().map(Value::from));
        put("attributes", attributes.clone());
        put("data_text", data.clone().map(Value::from));
        put("data_base64", data.is_none().then(|| STANDARD.encode(&bytes).into()));
        let batch = read(&Value::Object(line).to_string());
        prop_assert_eq!(batch.rejected_total, 0, "{:?}", batch.rejected);
        let column = |name: &str| batch.columns.column_by_name(name).expect("a column");
        let texts = |name: &str| { let c = column(name).as_string::<i32>(); c.is_valid(0).then(|| c.value(0).to_owned()) };
        prop_assert_eq!(texts("id"), Some(id));
        prop_assert_eq!(texts("source"), Some(source));
        prop_assert_eq!(texts("type"), Some(event_type));
        prop_assert_eq!(texts("subject"), subject);
        prop_assert_eq!(texts("content_type"), content_type);
        prop_assert_eq!(texts("attributes"), attributes.map(|a| a.to_string()));
        prop_assert_eq!(texts("data"), data.clone());
        let binary = column("data_binary").as_binary::<i32>();
        prop_assert_eq!(binary.is_valid(0).then(|| binary.value(0).to_vec()), data.is_none().then_some(bytes));
        let times = |name: &str| column(name).as_primitive::<TimestampMicrosecondType>().value(0);
        prop_assert_eq!([times("time"), times("received_at")], [time, received_at]);
        // As it is stored, it has the same key.
        let position: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let columns = std::iter::once(position).chain(batch.columns.columns().iter().cloned()).collect();
        let stored = RecordBatch::try_new(events_schema(), columns).expect("the table's");
        prop_assert_eq!(stored_keys(&stored), vec![batch.keys[0].expect("a key")]);
    }
}
