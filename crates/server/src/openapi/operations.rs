//! What each act takes and answers, beside what the table of acts says.

use super::operation::{Described, text};
use super::parts::{header, of, path, required_header};
use super::{batch, files, overview, parts};
use crate::authorisation::Act;
use crate::code::Code;
use crate::handlers::{
    audit, backups, erasures, events, fields, ingest, query, rejected, sensors, sessions, tail, tokens,
};
use serde_json::{Value, json};
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::KnownFormat;
use utoipa::openapi::{SchemaFormat, Type};

/// An act as it is described.
pub(super) fn described(act: Act) -> Described {
    match act {
        Act::ValidateWebhook => validate_webhook(act),
        Act::SendEvents => send_events(act),
        Act::ListEvents | Act::TailEvents | Act::ReadEvent => of_events(act),
        Act::ImportEvents => import_events(act),
        Act::Query | Act::QueryByAddress => ask(act),
        Act::ReadOverview | Act::FollowOverview | Act::ReadHistory => overview::described(act),
        Act::ListFields => list_fields(act),
        Act::ReadRejected => read_rejected(act),
        Act::RegisterSensor | Act::SeeItself | Act::ListSensors => of_all_sensors(act),
        Act::ReadSensor | Act::ChangeSensor | Act::DisableSensor | Act::RotateToken => of_one_sensor(act),
        Act::EraseEvents | Act::ReadErasure => of_erasures(act),
        Act::AddToken | Act::ListTokens | Act::ReadToken | Act::RevokeToken => of_tokens(act),
        Act::BeginSession | Act::ReadSession | Act::EndSession | Act::MakeSignInCode => of_sessions(act),
        Act::MakeBackup | Act::FollowBackup => of_backups(act),
        Act::ReadAudit => read_audit(act),
        Act::ShowPage | Act::ReadPageFile | Act::Describe | Act::ShowDocs | Act::ReadDocsFile => files::described(act),
    }
}

/// The probes of every service on nowwhat that are also on the public listener.
pub(super) fn probes() -> [(&'static str, Described); 2] {
    let live = Described::probe("live", "Whether the process answers").answer(200, "It does.", []);
    let ready = Described::probe("ready", "Whether requests are taken").answer(200, "They are.", []);
    let ready =
        ready.answer(503, "They are not: it starts, stops, or a check fails. The admin listener says which.", []);
    [("/livez", live), ("/readyz", ready)]
}

fn validate_webhook(act: Act) -> Described {
    let text = "Section 4 of the HTTP webhooks of CloudEvents. Every origin that asks is allowed: who sends needs a token. \
                `WebHook-Request-Callback` is not called.";
    let origin = of(Type::String).min_length(Some(1)).examples(["eventemitter.example.com"]);
    let rate = of(Type::String).examples(["120"]);
    Described::of(act, text)
        .parameter(required_header("WebHook-Request-Origin", "Who wants to send.", origin))
        .parameter(header(
            "WebHook-Request-Rate",
            "How many requests a minute it wants to send; passed over when it is no number.",
            rate,
        ))
        .answer(200, "It may send.", [])
        .headers(200, &["Allow", "WebHook-Allowed-Origin", "WebHook-Allowed-Rate"])
        .error(Code::MethodNotAllowed)
}

fn send_events(act: Act) -> Described {
    let text = "One object, an array, lines of JSON (NDJSON) or CloudEvents in their three modes. A 200 says that what was accepted is on stable \
                storage. An event that cannot be read is rejected alone; only when all were, or with `atomic=true`, the answer is 400 and nothing is \
                stored. Events with an id are not stored twice; for all others send an `Idempotency-Key`. An admin sends nothing: an event has a sender.";
    let key = of(Type::String).pattern(Some(r#"^("([!#-\[\]-~]|\\["\\]){1,255}"|[!#-~][!-~]{0,254})$"#));
    let key = key.examples(["\"8e03978e-40d5-43dd-bc93-6894a57f9324\""]);
    let mut described = Described::of(act, text).query::<ingest::Parameters>().parameter(header(
        "Idempotency-Key",
        "The same key with the same request gets the same answer again (draft-ietf-httpapi-idempotency-key-header): 1 to 255 visible ASCII \
         characters, in double quotes or bare.",
        key,
    ));
    for (name, about) in batch::cloudevent_headers() {
        described = described.parameter(header(name, about, of(Type::String)));
    }
    let contents = batch::contents(&mut described);
    let example = json!({
        "accepted": 2, "duplicates": 1,
        "rejected": [{ "index": 1, "code": "invalid_time", "pointer": "/time", "reason": "\"yesterday\" is not a time: send RFC 3339 with a zone, such as 2026-01-31T12:00:00Z, or an epoch number" }],
        "rejected_total": 1,
    });
    described
        .body(batch::ABOUT, contents)
        .json_answer::<ingest::Answer<'_>>(200, "What became of each event.", example)
        .headers(
            200,
            &[
                "Catchment-Rejected",
                "Catchment-Duplicate-Window",
                "Catchment-Idempotency-Window",
                "Idempotency-Replayed",
            ],
        )
        .error(Code::QuotaExceeded)
        .errors(&[Code::AllRejected, Code::AtomicRejected, Code::InvalidIdempotencyKey, Code::IdempotencyKeyInUse])
        .errors(&[Code::IdempotencyKeyReused, Code::TooManyEvents, Code::SealBehind, Code::StorageFull])
        .errors(&[Code::LogPoisoned, Code::Stopping, Code::RejectedUnavailable])
}

fn import_events(act: Act) -> Described {
    let about = "Lines as `catchment export` writes them, one event each. Sensor, id and times are kept, positions are given anew; a sensor that is not \
                 there is registered, disabled and without a token. An event that is stored already, with the same sensor, source, id, time and \
                 content, is a duplicate, however long ago it came: an import can be repeated.";
    let line = "{\"position\":42,\"id\":\"0199cafe-7d2a-7c33-9a51-6f1c8f8d2b10\",\"sensor\":\"roof\",\"source\":\"\",\"type\":\"reading\",\
                \"time\":\"2026-01-31T12:00:00Z\",\"received_at\":\"2026-01-31T12:00:00.123456Z\",\"data\":{\"temperature\":21.5}}\n";
    let example = json!({ "accepted": 2, "duplicates": 1, "rejected": [], "rejected_total": 0 });
    Described::of(act, about)
        .body("Plain or with `Content-Encoding`.", vec![("application/x-ndjson", text(line))])
        .json_answer::<ingest::Answer<'_>>(200, "What became of each event.", example)
        .headers(200, &["Catchment-Rejected"])
        .errors(&OF_QUERIES[..5])
        .errors(&[Code::AllRejected, Code::TooManyEvents, Code::SealBehind, Code::StorageFull, Code::LogPoisoned])
        .error(Code::Stopping)
}

/// What reading the tables can fail with.
const OF_QUERIES: [Code; 7] = [
    Code::DamagedFile,
    Code::QueryTooLarge,
    Code::TooManyRows,
    Code::TooManyQueries,
    Code::QueryTimeout,
    Code::InvalidSql,
    Code::StatementNotAllowed,
];

fn of_events(act: Act) -> Described {
    let event = events::example();
    match act {
        Act::ListEvents => {
            Described::of(act, "A page ends early beyond 8 MiB.")
                .query::<events::Filter>()
                .json_answer::<events::Events>(200, "A page.", json!({ "events": [event], "next_cursor": "41" }))
        }
        Act::TailEvents => {
            let about = "Server-sent events, without an end: each event when it is visible, in the order of positions, with its position as `id`. A client \
                         that comes back with `Last-Event-ID` goes on behind it, in what is stored too. A client that is more than 10,000 events behind \
                         is told `event: missed` with `{\"missed\", \"after\", \"until\"}`, how many between which positions, and goes on with the newest. `event: reset` with `{\"asked\", \"after\"}` says that the \
                         position asked for was never given here: it begins with what comes from now on.";
            let told = format!("id: 42\ndata: {event}\n\n");
            Described::of(act, about)
                .query::<tail::Parameters>()
                .parameter(header(
                    "Last-Event-ID",
                    "Begin behind this position: it goes before `after`.",
                    of(Type::String).pattern(Some("^[0-9]{1,19}$")),
                ))
                .answer(200, "The events, as they come.", [("text/event-stream", text(&told))])
                .error(Code::NotFound)
        }
        _ => Described::of(act, "The newest with this id.")
            .parameter(path("id", "The id of an event.", of(Type::String).min_length(Some(1)).examples(["a-1"])))
            .json_answer::<events::Event>(200, "The event.", event)
            .error(Code::NotFound),
    }
    .errors(&OF_QUERIES[..5])
    .error(Code::InFlightFull)
}

fn ask(act: Act) -> Described {
    let about = "PostgreSQL's dialect, one statement that only reads. A question that starts after an answer sees what that accepted. `Accept` \
                 chooses the format. An error after the answer began ends it abnormally, never as a body that looks complete.";
    let question = json!({
        "sql": "SELECT type, count(*) AS events FROM events WHERE sensor = $1 GROUP BY 1", "params": ["roof"], "limit": 1000, "timeout_seconds": 30,
    });
    let answer = json!({
        "columns": [{ "name": "type", "type": "text" }, { "name": "events", "type": "bigint" }], "rows": [["reading", 2]], "truncated": false,
    });
    let mut described = match act {
        Act::Query => Described::of(act, about).json_body::<query::Question>(question),
        _ => Described::of(act, &format!("{about} `format` goes before it.")).query::<query::Parameters>(),
    };
    let schema = described.named_schema("QueryAnswer", parts::query_answer());
    let json = ContentBuilder::new().schema(Some(schema)).example(Some(answer)).build();
    let lines = text("{\"type\":\"reading\",\"events\":2}\n");
    let csv = text("type,events\r\nreading,2\r\n");
    // Bytes: OpenAPI 3.1 describes them by their media type alone.
    let [arrow, parquet] = ["application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"]
        .map(|kind| (kind, ContentBuilder::new().build()));
    described
        .answer(
            200,
            "The rows.",
            [("application/json", json), ("application/x-ndjson", lines), ("text/csv", csv), arrow, parquet],
        )
        .errors(&OF_QUERIES)
        .errors(&[Code::InvalidParameter, Code::NotAcceptable])
}

fn list_fields(act: Act) -> Described {
    let text = "Fields whose names are letters, digits and underscores, lists and what lies under objects included; live events too. A file is asked \
                once for its fields; those of events that went since may be told until the next start.";
    let field = json!({ "name": "data.temperature", "type": "double", "column": true, "values": ["number", "text"] });
    let example = json!({ "types": [{ "type": "reading", "fields": [field] }], "partial": false });
    Described::of(act, text)
        .query::<fields::Parameters>()
        .json_answer::<fields::Fields>(200, "The fields.", example)
        .errors(&[Code::TooManyQueries, Code::QueryTimeout, Code::InFlightFull])
}

fn read_rejected(act: Act) -> Described {
    let example = json!({
        "rejected": [{
            "rejected_position": 7, "received_at": "2026-01-31T12:00:00.123456Z", "sensor": "roof",
            "request_id": "0199cafe-7d2a-7c33-9a51-6f1c8f8d2b10", "index": 1, "code": "invalid_time", "pointer": "/time",
            "reason": "\"yesterday\" is not a time: send RFC 3339 with a zone, such as 2026-01-31T12:00:00Z, or an epoch number",
            "mode": "plain", "parameters": null, "content_type": "application/json", "headers": null, "data": "{\"temperature\": 19.4, \"time\": \"yesterday\"}",
            "data_base64": null, "bytes": 42, "cut": false,
        }],
        "next_cursor": null, "kept_total": 1, "last_position": 7,
    });
    Described::of(act, "A page ends early beyond 8 MiB.")
        .query::<rejected::Parameters>()
        .json_answer::<rejected::RejectedEvents>(200, "A page.", example)
        .errors(&[Code::NotFound, Code::RejectedUnavailable, Code::InFlightFull])
}

fn sensor() -> Value {
    json!({
        "sensorId": "roof-1", "name": "Roof 1", "labels": { "site": "a" }, "time_zone": "Europe/Berlin",
        "quota": { "events_per_second": 100, "bytes_per_second": null, "burst_seconds": 10 },
        "quota_in_force": { "events_per_second": 100, "bytes_per_second": null, "burst_seconds": 10 },
        "rates": { "events_per_second": 2.5, "bytes_per_second": 310.2 },
        "created_at": "2026-01-31T12:00:00.123456Z", "last_seen_at": null, "disabled_at": null,
    })
}

fn of_all_sensors(act: Act) -> Described {
    match act {
        Act::RegisterSensor => {
            let about = "A device that lost its answer repeats the request: as long as no token of the sensor was used, the same enrolment token \
                         and the same name get a fresh one.";
            let token = "cat_wm0vRlTS8i7Xv1rYb7cQ1uH0aZ3y5k2n4p6q8s9t0w1";
            Described::of(act, about)
                .json_body::<sensors::Registration>(json!({ "name": "Roof 1", "labels": { "site": "a" } }))
                .json_answer::<sensors::RegisteredSensor<'_>>(
                    201,
                    "It is registered; the token is shown only here.",
                    json!({ "sensorId": "roof-1", "token": token }),
                )
                .headers(201, &["Location", "Cache-Control"])
                .errors(&[Code::InvalidName, Code::NameTaken, Code::EnrolmentUsedUp])
        }
        Act::SeeItself => Described::of(act, "An admin sees any.")
            .query::<sensors::Which>()
            .json_answer::<sensors::Sensor>(200, "The sensor.", sensor())
            .error(Code::NotFound),
        _ => Described::of(act, "By id.")
            .query::<sensors::Parameters>()
            .json_answer::<sensors::Page>(200, "A page.", json!({ "sensors": [sensor()], "next_after": null }))
            .error(Code::InFlightFull),
    }
}

fn of_one_sensor(act: Act) -> Described {
    let id = path("id", "The id of a sensor.", of(Type::String).min_length(Some(1)).examples(["roof-1"]));
    let described = |text| Described::of(act, text).parameter(id).error(Code::NotFound);
    match act {
        Act::ReadSensor => described("").json_answer::<sensors::Sensor>(200, "The sensor.", sensor()),
        Act::ChangeSensor => described("`labels` replaces all of them. What is not named stays.")
            .json_body::<sensors::Change>(
                json!({ "labels": { "site": "a" }, "time_zone": "Europe/Berlin", "disabled": false }),
            )
            .json_answer::<sensors::Sensor>(200, "The sensor as it is now.", sensor())
            .error(Code::InvalidField),
        Act::DisableSensor => described("").answer(204, "It is disabled.", []),
        _ => {
            let example = json!({
                "sensorId": "roof-1", "id": 8, "token": "cat_wm0vRlTS8i7Xv1rYb7cQ1uH0aZ3y5k2n4p6q8s9t0w1",
                "old_tokens_expire_at": "2026-01-31T13:00:00.123456Z",
            });
            described("Its old tokens of the role `sensor` are taken for a while yet.")
                .json_body_or_none::<sensors::Rotation>(json!({ "overlap_seconds": 3600 }))
                .json_answer::<sensors::RotatedToken<'_>>(201, "The token, which is shown only here.", example)
                .headers(201, &["Location", "Cache-Control"])
                .error(Code::InvalidField)
        }
    }
}

fn of_erasures(act: Act) -> Described {
    let id = path("id", "The id of a sensor.", of(Type::String).min_length(Some(1)).examples(["roof-1"]));
    let described = |text| Described::of(act, text).parameter(id).error(Code::NotFound);
    let erasure = json!({
        "sensorId": "roof-1", "until_position": 41, "requested_at": "2026-01-31T12:00:00.123456Z", "finished_at": null, "erased_events": 0,
        "state": "running", "failure": null,
    });
    match act {
        Act::EraseEvents => described("What it sends afterwards stays. Asked again while it runs, it goes further.")
            .json_answer::<erasures::Erasure>(202, "They are being erased.", erasure)
            .headers(202, &["Location"])
            .error(Code::RejectedUnavailable),
        _ => described("").json_answer::<erasures::Erasure>(200, "How far it is.", erasure),
    }
}

fn token() -> Value {
    json!({
        "id": 7, "role": "reader", "name": "report", "sensor": null, "created_at": "2026-01-31T12:00:00.123456Z",
        "expires_at": "2026-03-02T12:00:00.123456Z", "uses_left": null, "last_used_at": null, "revoked_at": null,
    })
}

fn of_tokens(act: Act) -> Described {
    let numbered = |text| Described::of(act, text).parameter(token_id()).error(Code::NotFound);
    match act {
        Act::AddToken => {
            let mut made = token();
            made["token"] = json!("cat_wm0vRlTS8i7Xv1rYb7cQ1uH0aZ3y5k2n4p6q8s9t0w1");
            Described::of(act, "")
                .json_body::<tokens::Wanted>(
                    json!({ "role": "reader", "name": "report", "expires_in_seconds": 2_592_000 }),
                )
                .json_answer::<tokens::MadeToken<'_>>(201, "The token, which is shown only here.", made)
                .headers(201, &["Location", "Cache-Control"])
                .error(Code::InvalidField)
        }
        Act::ListTokens => Described::of(act, "Newest first, never the tokens themselves.")
            .query::<tokens::Parameters>()
            .json_answer::<tokens::Page>(200, "A page.", json!({ "tokens": [token()], "next_before": null }))
            .error(Code::InFlightFull),
        Act::ReadToken => numbered("").json_answer::<tokens::Token>(200, "The token.", token()),
        _ => {
            numbered("The next request with it is 401.").answer(204, "It is revoked.", []).error(Code::TokenConfigured)
        }
    }
}

fn token_id() -> Parameter {
    let number = of(Type::Integer).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
    path("id", "The number of a token.", number.examples([7]))
}

fn of_sessions(act: Act) -> Described {
    const FAILS: [Code; 3] = [Code::CrossSite, Code::RegistryBusy, Code::RegistryDamaged];
    let session = json!({ "role": "operator", "name": "ann", "expires_at": "2026-02-01T00:00:00.123456Z" });
    let code = "cat_Yk3nD0pQ7sW2xZ9vB4mH6tL1cR8fJ5gA_eU0iO3qK7w";
    match act {
        Act::BeginSession => {
            let about = "One of the two, of a token of the role reader, operator or admin. The answer sets the cookie of a session, which ends after \
                         12 hours, with its token or with `DELETE`. A browser sends it from a page of this origin; a program needs no session.";
            Described::of(act, about)
                .json_body::<sessions::SignIn>(json!({ "code": code }))
                .json_answer::<sessions::Session>(200, "Who signed in.", session)
                .headers(200, &["Set-Cookie", "Cache-Control"])
                .errors(&FAILS)
                .errors(&[Code::InvalidField, Code::InvalidToken, Code::InvalidCode, Code::InsufficientScope])
                .error(Code::TooManyFailures)
        }
        Act::ReadSession => Described::of(act, "")
            .json_answer::<sessions::Session>(200, "Who it is, and when the session or the token ends.", session)
            .headers(200, &["Cache-Control"]),
        Act::EndSession => Described::of(
            act,
            "Ends the session of the cookie, and removes that. Without a session there is nothing to do.",
        )
        .answer(204, "There is no session any more.", [])
        .headers(204, &["Set-Cookie"])
        .errors(&FAILS)
        .error(Code::InvalidSession),
        _ => {
            let about = "For `#/sign-in?code=…` behind the address of the page: good for one session of this token, once, for 5 minutes. A session \
                         makes none.";
            let example = json!({ "code": code, "expires_at": "2026-01-31T12:05:00.123456Z" });
            Described::of(act, about)
                .json_answer::<sessions::SignInCode<'_>>(201, "The code, which is shown only here.", example)
                .headers(201, &["Cache-Control"])
        }
    }
}

fn of_backups(act: Act) -> Described {
    match act {
        Act::MakeBackup => {
            let about = "What `catchment backup` asks: files of the data folder get second names in one folder inside of it, and are not sent. It is \
                         let go when nothing is said of it for `held_seconds`. Erasures wait meanwhile.";
            let example = json!({
                "id": 1_769_860_800_123_456_u64, "folder": "snapshot", "wal_id": "0199cafe-7d2a-7c33-9a51-6f1c8f8d2b10", "last_position": 41,
                "sealed_position": 40, "lake_version": 12, "events": 41, "wal": [{ "name": "00000000000000000041.wal", "bytes": 4504 }],
                "held_seconds": 30,
            });
            Described::of(act, about)
                .json_answer::<backups::Backup>(201, "It is held.", example)
                .headers(201, &["Location"])
                .errors(&[Code::BackupBusy, Code::BackupFailed])
        }
        _ => {
            let id = of(Type::Integer).format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
            let id = path("id", "The number of a backup.", id.examples([1_769_860_800_123_456_u64]));
            Described::of(act, "")
                .parameter(id)
                .json_body::<backups::Progress>(json!({ "state": "copying" }))
                .json_answer::<backups::Heard>(
                    200,
                    "It was heard.",
                    json!({ "id": 1_769_860_800_123_456_u64, "state": "copying" }),
                )
                .errors(&[Code::NotFound, Code::InvalidField])
        }
    }
}

fn read_audit(act: Act) -> Described {
    let example = json!({
        "entries": [{
            "id": 3, "at": "2026-01-31T12:00:00.123456Z", "token_id": 1, "token_name": "configured", "role": "admin", "client": "127.0.0.1",
            "act": "sensor.register", "target": "sensor/roof-1", "detail": { "name": "Roof 1" },
            "request_id": "0199cafe-7d2a-7c33-9a51-6f1c8f8d2b10",
        }],
        "next_before": null,
    });
    let described = Described::of(act, "Newest first. An entry is stored with its change, all of it or nothing.");
    described.query::<audit::Parameters>().json_answer::<audit::Page>(200, "A page.", example).error(Code::InFlightFull)
}
