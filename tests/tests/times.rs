//! Time: with a zone, in a zone that was set, or as a number; kept in microseconds, or rejected with what mends it.

use serde_json::{Value, json};
use tests::Collector;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Sends one event for each time, in a zone if one is given; they all are accepted, and these are their times.
fn times(collector: &Collector, token: &str, zone: &str, values: &[&str]) -> Vec<String> {
    let before = collector.metric("catchment_engine_last_position");
    let lines: Vec<String> = values.iter().map(|value| format!("{{\"time\":{value}}}")).collect();
    let zone = zone.replace('+', "%2B");
    let path = format!("/api/v1/events{}{zone}", if zone.is_empty() { "" } else { "?time_zone=" });
    let answer = collector.post(&path, token, lines.join("\n").as_bytes(), &[("content-type", "application/x-ndjson")]);
    assert_eq!((answer.status, &answer.json()["rejected_total"]), (200, &json!(0)), "{}", answer.text);
    let rows = collector.rows(&format!("SELECT time FROM events WHERE position > {before} ORDER BY position"));
    rows.iter().map(|row| row[0].as_str().expect("a time").to_owned()).collect()
}

/// Sends one event that is rejected: the answer's code and reason.
fn rejected(collector: &Collector, token: &str, path: &str, event: &str) -> (String, String) {
    let answer = collector.post(path, token, event.as_bytes(), &[]);
    let told = &answer.json()["rejected"][0];
    assert_eq!((answer.status, &told["pointer"]), (400, &json!("/time")), "{event}: {}", answer.text);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&told["code"]), text(&told["reason"]))
}

#[test]
fn numbers_are_seconds_milli_micro_or_nanoseconds_by_their_size() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let sent = [
        ("1700000000", "2023-11-14T22:13:20Z"),
        ("1700000000123", "2023-11-14T22:13:20.123Z"),
        ("1700000000123456", "2023-11-14T22:13:20.123456Z"),
        ("1700000000123456789", "2023-11-14T22:13:20.123456Z"),
        ("1700000000.25", "2023-11-14T22:13:20.25Z"),
        ("1.7e9", "2023-11-14T22:13:20Z"),
        ("0", "1970-01-01T00:00:00Z"),
        ("-0", "1970-01-01T00:00:00Z"),
        ("-1.5", "1969-12-31T23:59:58.5Z"),
        // The last of one unit and the first of the next.
        ("99999999999", "5138-11-16T09:46:39Z"),
        ("100000000000", "1973-03-03T09:46:40Z"),
        ("99999999999999", "5138-11-16T09:46:39.999Z"),
        ("100000000000000", "1973-03-03T09:46:40Z"),
        ("99999999999999999", "5138-11-16T09:46:39.999999Z"),
        ("100000000000000000", "1973-03-03T09:46:40Z"),
    ];
    assert_eq!(times(&collector, &token, "", &sent.map(|(value, _)| value)), sent.map(|(_, time)| time));
}

#[test]
fn the_ends_of_the_calendar_leap_seconds_and_offsets_are_read() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let sent = [
        ("\"0001-01-01T00:00:00Z\"", "0001-01-01T00:00:00Z"),
        ("\"9999-12-31T23:59:59.999999Z\"", "9999-12-31T23:59:59.999999Z"),
        ("\"9999-12-31T23:59:59.999999999Z\"", "9999-12-31T23:59:59.999999Z"),
        ("\"2016-12-31T23:59:60Z\"", "2017-01-01T00:00:00Z"),
        ("\"2016-12-31T23:59:60.5Z\"", "2017-01-01T00:00:00.5Z"),
        ("\"2017-01-01T00:59:60+01:00\"", "2017-01-01T00:00:00Z"),
        ("\"2024-02-29T12:00:00-00:00\"", "2024-02-29T12:00:00Z"),
        ("\"2026-01-31 12:00:00+0530\"", "2026-01-31T06:30:00Z"),
        ("\"2026-01-31T12:00:00+05:45\"", "2026-01-31T06:15:00Z"),
        ("\"2026-01-31T12:00:00.123456789-12:00\"", "2026-02-01T00:00:00.123456Z"),
    ];
    assert_eq!(times(&collector, &token, "", &sent.map(|(value, _)| value)), sent.map(|(_, time)| time));
    // All of them are there when the lake is asked, and in the order of time.
    assert_eq!(collector.rows("SELECT min(time), max(time) FROM events"), [[json!(sent[0].1), json!(sent[1].1)]]);
}

#[test]
fn in_a_zone_skipped_times_go_on_and_those_that_occur_twice_are_the_earlier_ones() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    for (zone, local, time) in [
        ("Europe/Berlin", "2026-07-01T12:00:00", "2026-07-01T10:00:00Z"),
        // Between two and three in the morning, when summer time begins and ends.
        ("Europe/Berlin", "2026-03-29T02:30:00", "2026-03-29T01:30:00Z"),
        ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),
        ("America/New_York", "2026-03-08 02:30:00", "2026-03-08T07:30:00Z"),
        ("America/New_York", "2026-11-01 01:30:00", "2026-11-01T05:30:00Z"),
        // Half an hour at a time, quarters of an hour, and a day that never was.
        ("Australia/Lord_Howe", "2026-04-05T01:45:00", "2026-04-04T14:45:00Z"),
        ("Asia/Kathmandu", "2026-01-01T00:00:00.5", "2025-12-31T18:15:00.5Z"),
        ("Pacific/Apia", "2011-12-30T12:00:00", "2011-12-30T22:00:00Z"),
        // A zone of the request does not change what has one of its own.
        ("Asia/Kathmandu", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("UTC", "2016-12-31T23:59:60", "2017-01-01T00:00:00Z"),
        ("Etc/GMT+5", "2026-01-01T00:00:00", "2026-01-01T05:00:00Z"),
        // At the ends of the calendar.
        ("UTC", "0001-01-01T00:00:00", "0001-01-01T00:00:00Z"),
        ("UTC", "9999-12-31T23:59:59.999999", "9999-12-31T23:59:59.999999Z"),
        ("Etc/GMT+5", "9999-12-31T18:59:59", "9999-12-31T23:59:59Z"),
        ("Etc/GMT-5", "0001-01-01T05:00:00", "0001-01-01T00:00:00Z"),
    ] {
        assert_eq!(times(&collector, &token, zone, &[&format!("\"{local}\"")]), [time], "{local} in {zone}");
    }
}

#[test]
fn a_time_that_cannot_be_read_rejects_its_event_and_the_reason_names_what_mends_it() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let path = "/api/v1/events";
    for (value, code, says) in [
        ("\"2026-01-31T12:00:00\"", "time_without_zone", "time_zone=Europe/Berlin"),
        ("\"2026-01-31 12:00:00.5\"", "time_without_zone", "add Z or an offset"),
        ("\"31.01.2026 12:00\"", "invalid_time", "2026-01-31T12:00:00Z"),
        ("\"2026-02-29T12:00:00Z\"", "invalid_time", "RFC 3339"),
        ("\"2026-01-31T12:00:61Z\"", "invalid_time", "RFC 3339"),
        ("\"2026-01-31T24:00:00Z\"", "invalid_time", "RFC 3339"),
        ("\"2026-01-31T12:00Z\"", "invalid_time", "RFC 3339"),
        ("\"1700000000\"", "invalid_time", "epoch number"),
        ("\"\"", "invalid_time", "RFC 3339"),
        ("\"0000-12-31T23:59:59Z\"", "invalid_time", "RFC 3339"),
        ("\"0001-01-01T00:00:00+00:01\"", "invalid_time", "0001 to 9999"),
        ("\"9999-12-31T23:59:59-00:01\"", "invalid_time", "0001 to 9999"),
        ("\"9999-12-31T23:59:60Z\"", "invalid_time", "0001 to 9999"),
        ("-62135596801", "invalid_time", "0001 to 9999"),
        ("1e300", "invalid_time", "0001 to 9999"),
        ("true", "invalid_time", "a string or a number"),
        ("[2026,1,31]", "invalid_time", "a string or a number"),
        ("{\"$date\":1}", "invalid_time", "a string or a number"),
    ] {
        let (found, reason) = rejected(&collector, &token, path, &format!("{{\"time\":{value}}}"));
        assert_eq!(found, code, "{value}: {reason}");
        assert!(reason.contains(says), "{says:?} is not in the reason for {value}: {reason}");
    }
    for (zone, value) in [("Etc/GMT-5", "0001-01-01T04:59:59"), ("Etc/GMT+5", "9999-12-31T19:00:00")] {
        let path = format!("/api/v1/events?time_zone={}", zone.replace('+', "%2B"));
        let (code, reason) = rejected(&collector, &token, &path, &format!("{{\"time\":\"{value}\"}}"));
        assert!(code == "invalid_time" && reason.contains("0001 to 9999"), "{value} in {zone}: {reason}");
    }
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(0)]]);
}
