//! `catchment send` over a bad line: a batch whose answer is lost is asked for again with its key, and every event is stored once, also those
//! without an id.

use serde_json::json;
use tests::{Collector, Door, Fate, catchment, catchment_with, said};

#[test]
fn events_without_ids_are_stored_once_each_when_answers_get_lost() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let token = collector.sensor("roof");
    let door = Door::to_nowhere();
    // The first batch of all, one behind a batch that went well, and one that is turned away on its way.
    let fates =
        [Fate::AnswerLost, Fate::AnswerLost, Fate::Passed, Fate::AnswerLost, Fate::TurnedAway(503), Fate::Passed];
    door.lead_to(&collector.api, &fates);
    let mut lines: String = (0..2499).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    lines += "[2499]\n";
    let elsewhere = tempfile::tempdir().expect("a folder");
    let sent = catchment_with(
        elsewhere.path(),
        &["send", "--url", &door.url],
        lines.as_bytes(),
        &[("CATCHMENT_TOKEN", &token)],
    );
    assert_eq!(said(&sent), "2499 accepted, 0 duplicates, 1 rejected\n", "{sent:?}");
    assert_eq!(door.fates_left(), 0);
    let counts = collector.rows("SELECT count(*), count(DISTINCT data->>'n') FROM events");
    assert_eq!(counts, [[json!(2499), json!(2499)]]);
    assert_eq!(collector.metric("catchment_engine_replayed_requests_total"), 3.0);
    collector.assert_adds_up();
}

#[test]
fn events_with_ids_that_come_again_in_another_run_are_duplicates() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start(dir.path());
    let lines = b"{\"id\":\"1\",\"n\":1}\n{\"id\":\"2\",\"n\":2}\n";
    let send = || said(&catchment(dir.path(), &["send", "--id-field", "id"], lines));
    assert_eq!(send(), "2 accepted, 0 duplicates, 0 rejected\n");
    assert_eq!(send(), "0 accepted, 2 duplicates, 0 rejected\n", "another run has other keys");
    collector.assert_adds_up();
}
