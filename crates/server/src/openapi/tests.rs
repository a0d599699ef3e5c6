//! What the description promises.

use super::*;
use crate::authorisation::roles_table;
use serde_json::Value;
use std::collections::BTreeSet;
use utoipa::openapi::path::Operation;

/// The operations by method and path.
fn operations_of(document: &OpenApi) -> BTreeMap<String, &Operation> {
    let mut all = BTreeMap::new();
    for (path, item) in &document.paths.paths {
        let methods = [
            ("GET", &item.get),
            ("POST", &item.post),
            ("PUT", &item.put),
            ("PATCH", &item.patch),
            ("DELETE", &item.delete),
            ("OPTIONS", &item.options),
        ];
        for (method, operation) in methods {
            all.extend(operation.as_ref().map(|operation| (format!("{method} {path}"), operation)));
        }
    }
    all
}

fn as_json() -> Value {
    serde_json::from_str(openapi()).expect("JSON")
}

#[test]
fn every_route_of_the_table_is_described_with_its_roles_and_no_other_is() {
    let document = document();
    let mut described = operations_of(&document);
    for act in Act::ALL {
        let route = format!("{} {}", act.method_name(), act.path());
        let operation = described.remove(&route).unwrap_or_else(|| panic!("{route} is not described"));
        let security = serde_json::to_value(&operation.security).expect("JSON");
        let roles = act.roles().unwrap_or_default().iter().map(|role| role.name());
        let by_token = roles.clone().map(|role| json!({ "token": [role] }));
        let of_sensors = roles.filter(|role| *role == "sensor").map(|role| json!({ "certificate": [role] }));
        let of_people = act.roles().unwrap_or_default().iter().filter(|role| act.takes_session_of(**role));
        let by_session = of_people.map(|role| json!({ "session": [role.name()] }));
        assert_eq!(security, by_token.chain(of_sensors).chain(by_session).collect::<Value>(), "{route}");
        assert!(roles_table().contains(&format!("| `{route}` |")), "{route}");
    }
    // Those of nowwhat, which are also on the public listener.
    assert_eq!(described.into_keys().collect::<Vec<_>>(), ["GET /livez", "GET /readyz"]);
}

#[test]
fn every_error_is_described_where_it_is_answered_and_nowhere_with_another_status() {
    let document = as_json();
    let mut told = BTreeSet::new();
    for (route, operation) in operations_of(&super::document()) {
        for (status, answer) in &operation.responses.responses {
            let answer = serde_json::to_value(answer).expect("JSON");
            let named = answer.get("$ref").and_then(Value::as_str);
            let answer = named.and_then(|name| document.pointer(&name[1..])).unwrap_or(&answer);
            let Some(problem) = answer["content"].get("application/problem+json") else { continue };
            for code in problem["schema"]["allOf"][1]["properties"]["code"]["enum"].as_array().expect("codes") {
                let known = Code::ALL.iter().find(|known| known.name() == code).expect("a code of the table");
                assert_eq!(known.status().as_str(), status, "{route}: {code}");
                assert!(document["components"]["examples"].get(known.name()).is_some(), "{code}");
                told.insert(known.name());
            }
        }
    }
    let missing: Vec<_> = Code::ALL.iter().map(|code| code.name()).filter(|name| !told.contains(name)).collect();
    assert!(missing.is_empty(), "no operation tells of {missing:?}: name it in operations.rs");
}

#[test]
fn what_a_sensor_is_told_of_its_quota_is_described_on_every_answer_that_it_can_get() {
    let document = as_json();
    for act in Act::ALL {
        let (path, method) = (act.path(), act.method_name().to_lowercase());
        let answers = document["paths"][path][method].get("responses").and_then(Value::as_object).expect("answers");
        let of_sensors = matches!(act, Act::SendEvents | Act::ReadRejected | Act::SeeItself);
        for (status, answer) in answers {
            let named = answer.get("$ref").and_then(Value::as_str);
            let answer = named.and_then(|name| document.pointer(&name[1..])).unwrap_or(answer);
            let names = |code: &str| answer["description"].as_str().is_some_and(|text| text.contains(code));
            // Some are answered to nobody in particular, all others to a sensor whose token may ask; 403 also to one whose token may not.
            let told = match status.as_str() {
                "401" => false,
                "408" => of_sensors && names("`body_timeout`"),
                "429" => of_sensors && names("`quota_exceeded`"),
                "403" => act.roles().is_some(),
                _ => of_sensors,
            };
            for name in ["RateLimit", "RateLimit-Policy"] {
                let is_there = answer["headers"].get(name).is_some();
                assert_eq!(is_there, told, "{name} of {status} of {path}");
            }
        }
    }
}

#[test]
fn operations_have_ids_of_their_own_and_every_reference_leads_somewhere() {
    let document = as_json();
    let ids: Vec<_> = operations_of(&super::document()).values().map(|o| o.operation_id.clone()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    assert_eq!(operation_id(Act::SendEvents), "send_events");
    let mut unread = vec![&document];
    while let Some(value) = unread.pop() {
        match value {
            Value::Object(members) => {
                if let Some(target) = members.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} is not there");
                }
                unread.extend(members.values());
            }
            Value::Array(items) => unread.extend(items),
            _ => {}
        }
    }
}

#[test]
fn names_in_the_code_are_those_of_the_description() {
    let schemas = as_json()["components"]["schemas"].as_object().expect("schemas").keys().cloned().collect::<Vec<_>>();
    for name in
        ["Accepted", "CloudEvent", "Event", "Events", "PlainEvent", "Problem", "Question", "RejectedEvent", "Sensor"]
    {
        assert!(schemas.iter().any(|schema| schema == name), "{name} is not among {schemas:?}");
    }
}
