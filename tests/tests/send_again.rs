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
    // The first batch of all, behind which it is asked how long keys are known, and one behind a batch that went well, turned away on its way.
    let asked = [Fate::TurnedAway(503), Fate::AnswerLost, Fate::Passed];
    let fates = [
        &[Fate::AnswerLost][..],
        &asked,
        &[Fate::AnswerLost, Fate::Passed, Fate::AnswerLost, Fate::TurnedAway(503), Fate::Passed],
    ]
    .concat();
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
fn where_keys_are_forgotten_soon_the_first_batch_is_not_sent_again_and_the_user_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_WINDOW__SECONDS", "1s")]);
    let token = collector.sensor("roof");
    let door = Door::to_nowhere();
    door.lead_to(&collector.api, &[Fate::AnswerLost]);
    let sent =
        catchment_with(dir.path(), &["send", "--url", &door.url], b"{\"n\":1}\n", &[("CATCHMENT_TOKEN", &token)]);
    let told = String::from_utf8_lossy(&sent.stderr).into_owned();
    assert!(sent.status.code() == Some(1) && told.contains("lines 1 to 1 may be stored or not"), "{told}");
    assert_eq!(collector.rows("SELECT count(*) FROM events"), [[json!(1)]]);
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
