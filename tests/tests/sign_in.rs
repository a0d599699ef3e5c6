//! Signing in: sessions of browsers, by a token or by the code of a link; what they may do, what pages of other origins cannot, and how they end.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use tests::{Answer, Collector, assert_problem, catchment, said};

/// What a browser says of a request that a page of the collector makes.
const HERE: (&str, &str) = ("sec-fetch-site", "same-origin");
const SESSION: &str = "/api/v1/session";
const CODE: (&str, &str) = ("POST", "/api/v1/session/code");

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn token(collector: &Collector, role: &str) -> String {
    text(&collector.add_token(&json!({ "role": role, "name": format!("ann the {role}") }))["token"])
}

fn sign_in(collector: &Collector, with: &Value, headers: &[(&str, &str)]) -> Answer {
    collector.post(SESSION, "", with.to_string().as_bytes(), headers)
}

/// The cookie that an answer sets, as a browser sends it back.
#[track_caller]
fn cookie(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let set = answer.header("set-cookie").expect("a cookie");
    set.split(';').next().expect("a name and a value").to_owned()
}

fn signed_in(collector: &Collector, token: &str) -> String {
    cookie(&sign_in(collector, &json!({ "token": token }), &[HERE]))
}

fn code(collector: &Collector, token: &str) -> String {
    let made = collector.ask(CODE, token, &[], b"");
    assert_eq!((made.status, made.header("cache-control")), (201, Some("no-store")), "{made:?}");
    text(&made.json()["code"])
}

fn who(collector: &Collector, cookie: &str) -> Answer {
    collector.ask(("GET", SESSION), "", &[("cookie", cookie)], b"")
}

fn sign_out(collector: &Collector, cookie: &str) -> Answer {
    collector.ask(("DELETE", SESSION), "", &[("cookie", cookie), HERE], b"")
}

fn port(collector: &Collector) -> &str {
    collector.api.rsplit(':').next().expect("a port")
}

fn acts(collector: &Collector) -> Vec<Value> {
    collector.get("/api/v1/audit", &collector.token).json()["entries"].as_array().expect("entries").clone()
}

#[test]
fn a_token_signs_in_by_a_cookie_that_no_script_reads_and_no_other_site_sends() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    for role in ["reader", "operator", "admin"] {
        let token = token(&collector, role);
        let answer = sign_in(&collector, &json!({ "token": format!(" {token}\n") }), &[HERE]);
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
        let body = answer.json();
        assert_eq!((&body["role"], &body["name"]), (&json!(role), &json!(format!("ann the {role}"))));
        assert!(text(&body["expires_at"]).ends_with('Z'), "{body}");
        let set = answer.header("set-cookie").expect("a cookie").to_owned();
        let (name, rest) = set.split_once('=').expect("a name");
        let (secret, attributes) = rest.split_once("; ").expect("attributes");
        assert_eq!(name, format!("catchment_session_{}", port(&collector)));
        let attributes: BTreeSet<&str> = attributes.split("; ").collect();
        let wanted = ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Strict"];
        assert_eq!(attributes, BTreeSet::from(wanted), "without TLS it is not Secure");
        // 43 characters of base64url are 256 bits and 2 that are nought.
        assert!(secret.len() == 47 && !answer.text.contains(secret) && secret != token, "{set}");
        let cookie = cookie(&answer);
        let me = who(&collector, &format!("theme=dark; {cookie}; other=\"1\""));
        assert_eq!((me.status, me.json()), (200, body), "{me:?}");
        let status = |path: &str| {
            let answer = collector.ask(("GET", path), "", &[("cookie", &cookie)], b"");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}: no cache keeps it");
            answer.status
        };
        let allowed = |roles: &[&str]| if roles.contains(&role) { 200 } else { 403 };
        assert_eq!(status("/api/v1/events"), allowed(&["reader", "admin"]), "its role is that of the token");
        assert_eq!(status("/api/v1/sensors"), allowed(&["operator", "admin"]));
        assert_eq!(status("/api/v1/tokens"), allowed(&["admin"]));
    }
    let [begun, ..] = &acts(&collector)[..] else { panic!("no audit") };
    assert_eq!((&begun["act"], &begun["token_name"]), (&json!("session.begin"), &json!("ann the admin")));
    assert_eq!((&begun["client"], &begun["detail"]["by"]), (&json!("127.0.0.1"), &json!("token")));
    let me = collector.get(SESSION, &collector.token).json();
    assert_eq!(me, json!({ "role": "admin", "name": "configured", "expires_at": null }), "a bearer has no session");
}

#[test]
fn the_cookie_is_for_encrypted_connections_alone_when_the_client_spoke_over_one() {
    let dir = folder();
    let collector = Collector::start_with(dir.path(), &[("CATCHMENT_HTTP__TRUSTED_PROXIES", "127.0.0.1")]);
    let with = json!({ "token": collector.token });
    let told =
        [("x-forwarded-proto", "https"), ("x-forwarded-host", "shop.example"), ("origin", "https://shop.example")];
    let answer = sign_in(&collector, &with, &told);
    let set = answer.header("set-cookie").expect("a cookie");
    assert!(
        set.starts_with("__Host-catchment_session=") && set.ends_with("; Secure"),
        "the proxy's word, no port: {set}"
    );
    let cookie = cookie(&answer);
    let ask = |headers: &[(&str, &str)]| {
        let headers = [headers, &[("cookie", &cookie)]].concat();
        collector.ask(("POST", "/api/v1/query"), "", &headers, b"{\"sql\":\"SELECT 1\"}")
    };
    assert_eq!(ask(&told).status, 200);
    let plain = ("origin", "http://shop.example");
    assert_problem(&ask(&[told[0], told[1], plain]), 403, "cross_site");
    let out = collector.ask(("DELETE", SESSION), "", &[told[0], told[1], told[2], ("cookie", &cookie)], b"");
    assert!(out.header("set-cookie").is_some_and(|set| set.ends_with("; Secure")), "{out:?}");
}

#[test]
fn over_tls_and_http_2_a_browser_signs_in_the_same_way() {
    let dir = folder();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
    let files = [("pem", made.cert.pem()), ("key", made.signing_key.serialize_pem())].map(|(name, content)| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    });
    let settings = [("CATCHMENT_HTTP__TLS_CERTIFICATE", &*files[0]), ("CATCHMENT_HTTP__TLS_KEY", &files[1])];
    let collector = Collector::start_with(dir.path(), &settings);
    let url = collector.api.replace("http://", "https://");
    let curl = |arguments: &[&str]| {
        let jar = ["-sS", "--cacert", "pem", "-b", "jar", "-c", "jar", "-w", "\n%{http_version}"];
        let output =
            Command::new("curl").args(jar).args(arguments).current_dir(dir.path()).output().expect("curl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        said(&output)
    };
    let (api, query) = (format!("{url}{SESSION}"), format!("{url}/api/v1/query"));
    let signed_in = curl(&[&api, "-i", "-d", &json!({ "token": collector.token }).to_string()]);
    let name = format!("__Host-catchment_session_{}=", port(&collector));
    assert!(signed_in.contains(&name) && signed_in.contains("; Secure"), "{signed_in}");
    assert!(signed_in.ends_with("\n2"), "HTTP/2, where the host is in :authority: {signed_in}");
    for version in ["--http1.1", "--http2"] {
        assert!(curl(&[version, &api]).contains("configured"), "{version}");
        let ask =
            |origin: &str| curl(&[version, "-H", &format!("Origin: {origin}"), "-d", "{\"sql\":\"SELECT 1\"}", &query]);
        assert!(ask(&url).contains("rows"), "{version}");
        assert!(ask(&collector.api).contains("cross_site"), "{version}: not from plain http");
    }
    let shown = said(&catchment(dir.path(), &["login", "--json"], b""));
    let link: Value = serde_json::from_str(&shown).expect("JSON");
    assert!(text(&link["url"]).starts_with(&format!("{url}/#/sign-in?code=")), "{link}");
}

#[test]
fn the_link_of_the_command_signs_in_once_and_the_code_stands_where_no_server_sees_it() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let shown = said(&catchment(dir.path(), &["login"], b""));
    let begin = format!("{}/#/sign-in?code=", collector.api);
    assert!(shown.starts_with(&begin) && shown.contains("works once") && shown.contains("5 minutes"), "{shown}");
    let link: Value = serde_json::from_str(&said(&catchment(dir.path(), &["login", "--json"], b""))).expect("JSON");
    let code = text(&link["code"]);
    assert_eq!(text(&link["url"]), format!("{begin}{code}"));
    let answer = sign_in(&collector, &json!({ "code": code }), &[HERE]);
    assert_eq!(who(&collector, &cookie(&answer)).json()["name"], "configured", "as the command's token");
    assert_eq!(acts(&collector)[0]["detail"]["by"], "code");
    for code in [&*code, "cat_of_nobody", "", &collector.token] {
        let refused = sign_in(&collector, &json!({ "code": code }), &[HERE]);
        assert_problem(&refused, 401, "invalid_code");
        assert!(text(&refused.json()["detail"]).contains("catchment login") && refused.header("set-cookie").is_none());
        assert!(refused.header("www-authenticate").is_some(), "{refused:?}");
    }
    let sent = ["login", "--url", &collector.api];
    let sent = tests::catchment_with(dir.path(), &sent, b"", &[("CATCHMENT_TOKEN", &token(&collector, "enrol"))]);
    assert_eq!(sent.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&sent.stderr).contains("reader or operator or admin"), "{sent:?}");
}

#[test]
fn of_many_that_show_one_code_at_once_one_is_signed_in() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    for _ in 0..20 {
        let code = json!({ "code": code(&collector, &collector.token) });
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| sign_in(&collector, &code, &[HERE]).status)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 3, "{statuses:?}");
    }
}

#[test]
fn only_people_sign_in_and_what_is_no_token_is_told_as_for_any_request() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let sensor = collector.sensor("roof");
    for token in [&sensor, &token(&collector, "enrol")] {
        let refused = sign_in(&collector, &json!({ "token": token }), &[HERE]);
        assert_problem(&refused, 403, "insufficient_scope");
        assert!(text(&refused.json()["detail"]).contains("reader or operator or admin"), "{refused:?}");
        assert!(refused.header("set-cookie").is_none());
        assert_problem(&collector.ask(CODE, token, &[], b""), 403, "insufficient_scope");
    }
    for body in [json!({}), json!({ "token": "a", "code": "b" }), json!({ "token": null })] {
        assert_problem(&sign_in(&collector, &body, &[HERE]), 400, "invalid_field");
    }
    assert_problem(&sign_in(&collector, &json!({ "password": "x" }), &[HERE]), 400, "invalid_body");
    for _ in 0..10 {
        assert_problem(&sign_in(&collector, &json!({ "token": "a guess" }), &[HERE]), 401, "invalid_token");
    }
    let turned_away = sign_in(&collector, &json!({ "token": "a guess" }), &[HERE]);
    assert_problem(&turned_away, 429, "too_many_failures");
    assert!(turned_away.header("retry-after").is_some());
    let made = token(&collector, "reader");
    assert_eq!(sign_in(&collector, &json!({ "token": made }), &[]).status, 200, "who has one is never told to wait");
}

/// Every route that changes something and may be let in by a cookie, as `docs/API.md` lists them, but for those of sessions.
fn unsafe_routes() -> Vec<(String, String)> {
    let document = include_str!("../../docs/API.md").split_once("<!-- generated: roles -->\n").expect("the table").1;
    let rows = document.split_once("<!-- end -->").expect("its end").0.lines().skip(2);
    let routes = rows.filter_map(|row| row.split('`').nth(1)?.split_once(' '));
    routes
        .filter(|(method, path)| !["GET", "OPTIONS"].contains(method) && !path.starts_with(SESSION))
        .map(|(method, path)| (method.to_owned(), path.replace("{id}", "roof")))
        .collect()
}

#[test]
fn no_request_with_a_cookie_changes_anything_unless_a_page_of_this_origin_made_it() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    collector.sensor("roof");
    let cookie = signed_in(&collector, &collector.token);
    let before = acts(&collector);
    let own = collector.api.as_str();
    let other_port = own.replace(port(&collector), "1");
    let elsewhere: [&[(&str, &str)]; 10] = [
        &[],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("origin", own)],
        &[("sec-fetch-site", "none")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("origin", &other_port)],
        &[("origin", own), ("sec-fetch-site", "same-site")],
        &[("referer", own)],
        &[("x-forwarded-host", "evil.example"), ("origin", "http://evil.example")],
    ];
    let routes = unsafe_routes();
    assert!(routes.len() >= 12, "{routes:?}");
    for (method, path) in &routes {
        for headers in elsewhere {
            let headers = [headers, &[("cookie", &cookie)]].concat();
            let body: &[u8] =
                if method == "DELETE" { b"" } else { b"{\"name\":\"x\",\"role\":\"admin\",\"sql\":\"SELECT 1\"}" };
            let answer = collector.ask((method, path), "", &headers, body);
            let case = format!("{method} {path} with {headers:?}: {answer:?}");
            assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("cross_site")), "{case}");
            assert!(answer.header("access-control-allow-origin").is_none(), "{case}");
        }
    }
    for headers in elsewhere {
        let headers = [headers, &[("cookie", &cookie)]].concat();
        assert_problem(&collector.ask(("DELETE", SESSION), "", &headers, b""), 403, "cross_site");
        if headers.iter().any(|(name, _)| ["origin", "sec-fetch-site"].contains(name)) {
            assert_problem(&sign_in(&collector, &json!({ "token": collector.token }), &headers), 403, "cross_site");
        }
    }
    assert_eq!(acts(&collector), before, "nothing was done, and the session goes on");
    for here in [HERE, ("origin", own)] {
        let body = json!({ "name": here.0 }).to_string();
        let made = collector.ask(("POST", "/api/v1/sensor"), "", &[("cookie", &cookie), here], body.as_bytes());
        assert_eq!(made.status, 201, "{made:?}");
    }
    let by: Vec<Value> = acts(&collector)[..2].iter().map(|entry| entry["token_name"].clone()).collect();
    assert_eq!(by, ["configured", "configured"], "the audit names the token of the session");
}

#[test]
fn no_page_of_elsewhere_learns_by_the_cookie_what_would_be_answered() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let cookie = signed_in(&collector, &collector.token);
    for path in ["/api/v1/query?sql=SELECT%201", "/api/v1/events", "/api/v1/overview", "/api/v1/tokens"] {
        for method in ["GET", "HEAD"] {
            let ask =
                |site: &str| collector.ask((method, path), "", &[("cookie", &cookie), ("sec-fetch-site", site)], b"");
            for here in ["same-origin", "none"] {
                let answer = ask(here);
                assert_eq!(answer.status, 200, "{method} {path} from {here}: {answer:?}");
                let kept = ["cache-control", "x-content-type-options", "cross-origin-resource-policy"];
                let kept = kept.map(|name| answer.header(name).unwrap_or_default());
                assert_eq!(kept, ["no-store", "nosniff", "same-origin"], "{method} {path}");
            }
            for elsewhere in ["same-site", "cross-site", "", "same-origin, none"] {
                assert_eq!(ask(elsewhere).status, 403, "{method} {path} from {elsewhere:?}");
            }
        }
    }
}

#[test]
fn who_signs_in_again_at_the_same_browser_ends_the_session_before() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let before = signed_in(&collector, &collector.token);
    let with = json!({ "token": token(&collector, "reader") });
    let again = sign_in(&collector, &with, &[HERE, ("cookie", &before)]);
    assert_eq!((again.status, who(&collector, &cookie(&again)).status), (200, 200));
    assert_problem(&who(&collector, &before), 401, "invalid_session");
}

#[test]
fn a_token_goes_before_a_cookie_and_no_session_begins_another() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let reader = token(&collector, "reader");
    let cookie = signed_in(&collector, &collector.token);
    let both = |headers: &[(&str, &str)], path: &str| {
        let headers = [headers, &[("cookie", &cookie)]].concat();
        collector.ask(("GET", path), "", &headers, b"")
    };
    let bearer = format!("Bearer {reader}");
    assert_eq!(both(&[("authorization", &bearer)], SESSION).json()["role"], "reader");
    assert_problem(&both(&[("authorization", &bearer)], "/api/v1/tokens"), 403, "insufficient_scope");
    assert_problem(&both(&[("authorization", "Bearer cat_of_nobody")], SESSION), 401, "invalid_token");
    assert_problem(&both(&[("authorization", "Bearer ")], SESSION), 401, "missing_token");
    assert_eq!(both(&[("authorization", "Basic YTpi")], SESSION).json()["role"], "admin", "a proxy's own");
    let body = json!({ "sql": "SELECT 1" }).to_string();
    let asked = collector.post("/api/v1/query", &reader, body.as_bytes(), &[("cookie", &cookie)]);
    assert_eq!(asked.status, 200, "what a token lets in comes from anywhere");
    let secret = cookie.split_once('=').expect("a value").1;
    assert_problem(&collector.get(SESSION, secret), 401, "invalid_token");
    assert_problem(&collector.ask(CODE, "", &[("cookie", &cookie), HERE], b""), 401, "missing_token");
    let other = format!("catchment_session_1={secret}; catchment_session={secret}");
    assert_problem(&who(&collector, &other), 401, "missing_token");
    assert_problem(&who(&collector, &format!("{cookie}; {cookie}x")), 401, "invalid_session");
    assert_eq!(who(&collector, &format!("{cookie}; {cookie}")).status, 200);
    let name = cookie.split_once('=').expect("a name").0;
    for nobody in ["", "x", "cat_of_nobody", &collector.token] {
        let refused = who(&collector, &format!("{name}={nobody}"));
        assert_problem(&refused, 401, "invalid_session");
        assert!(text(&refused.json()["detail"]).contains("sign in again"), "{refused:?}");
    }
}

#[test]
fn signing_out_ends_the_session_for_whoever_has_its_cookie_and_can_be_done_again() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let [one, other] = [(); 2].map(|()| signed_in(&collector, &collector.token));
    assert_eq!([who(&collector, &one).status, who(&collector, &other).status], [200, 200]);
    let out = sign_out(&collector, &one);
    let removed = out.header("set-cookie").expect("a cookie");
    let name = one.split_once('=').expect("a name").0;
    assert_eq!((out.status, removed), (204, &*format!("{name}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0")));
    assert_problem(&who(&collector, &one), 401, "invalid_session");
    assert_eq!(who(&collector, &other).status, 200, "another one goes on");
    assert_eq!(sign_out(&collector, &one).status, 204, "again");
    let without = collector.ask(("DELETE", SESSION), "", &[], b"");
    assert_eq!((without.status, without.header("set-cookie")), (204, None), "without a session there is nothing to do");
    let names: Vec<Value> = acts(&collector).iter().map(|entry| entry["act"].clone()).collect();
    assert_eq!(names, ["session.end", "session.begin", "session.begin", "token.configure"]);
}

#[test]
fn a_session_ends_with_its_token_at_the_next_request() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let revoked = collector.add_token(&json!({ "role": "reader", "name": "ann" }));
    let short = collector.add_token(&json!({ "role": "reader", "name": "short", "expires_in_seconds": 3 }));
    let cookies = [&revoked, &short].map(|made| signed_in(&collector, &text(&made["token"])));
    let link = json!({ "code": code(&collector, &text(&revoked["token"])) });
    assert_eq!(cookies.each_ref().map(|cookie| who(&collector, cookie).status), [200, 200]);
    let path = format!("/api/v1/tokens/{}", revoked["id"]);
    assert_eq!(collector.ask(("DELETE", &path), &collector.token, &[], b"").status, 204);
    assert_problem(&who(&collector, &cookies[0]), 401, "invalid_session");
    assert_problem(&sign_in(&collector, &link, &[HERE]), 401, "invalid_token");
    let me = who(&collector, &cookies[1]).json();
    assert_eq!(me["expires_at"], short["expires_at"], "it ends with its token");
    collector.wait_for("its end", |collector| who(collector, &cookies[1]).status == 401);
}

#[test]
fn a_session_outlives_a_restart_and_a_configured_token_that_changes_does_not_bring_it_back() {
    let dir = folder();
    let own = [("CATCHMENT_AUTH__ADMIN_TOKEN", "a-configured-token-of-this-test-1")];
    let other = [("CATCHMENT_AUTH__ADMIN_TOKEN", "a-configured-token-of-this-test-2")];
    let run = |settings: &[(&str, &str)], cookie: &str| {
        let collector = Collector::start_with(dir.path(), settings);
        // Each start has another port, and the cookie's name with it.
        let secret = cookie.split_once('=').map_or("", |(_, secret)| secret);
        let status = who(&collector, &format!("catchment_session_{}={secret}", port(&collector))).status;
        (collector, status)
    };
    // One that was made first: the tests read it.
    let (collector, _) = run(&[], "");
    drop(collector);
    let (collector, _) = run(&own, "");
    let cookie = signed_in(&collector, own[0].1);
    collector.kill();
    for (settings, status) in [(&own, 200), (&own, 200), (&other, 401), (&own, 401)] {
        let (collector, found) = run(settings, &cookie);
        assert_eq!(found, status, "{settings:?}");
        drop(collector);
    }
}

/// The files below a folder that hold a text.
fn holding(folder: &Path, text: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            holding(&path, text, found);
        } else if std::fs::read(&path).expect("read").windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn a_backup_has_no_session_whether_the_collector_runs_or_not() {
    let dir = folder();
    let collector = Collector::start(dir.path());
    let cookie = signed_in(&collector, &collector.token);
    let secret = cookie.split_once('=').expect("a value").1.to_owned();
    let backup = |to: &str| {
        let made = catchment(dir.path(), &["backup", to], b"");
        assert!(made.status.success(), "{made:?}");
        let back = catchment(dir.path(), &["restore", to, "--data-dir", &format!("{to}-back/data")], b"");
        assert!(back.status.success(), "{back:?}");
    };
    backup("running");
    assert_eq!(who(&collector, &cookie).status, 200, "the backup changes nothing here");
    assert_eq!(collector.terminate(), 0);
    backup("stopped");
    for back in ["running-back", "stopped-back"] {
        let back = Collector::start(&dir.path().join(back));
        let cookie = format!("catchment_session_{}={secret}", port(&back));
        assert_problem(&who(&back, &cookie), 401, "invalid_session");
    }
    let again = Collector::start(dir.path());
    let cookie = format!("catchment_session_{}={secret}", port(&again));
    assert_eq!(who(&again, &cookie).status, 200, "in its own folder it is there");
}

#[test]
fn neither_token_nor_code_nor_cookie_is_written_anywhere_or_shown() {
    let dir = folder();
    let settings =
        [("CATCHMENT_ENV", "dev"), ("CATCHMENT_LOG__LEVEL", "trace"), ("CATCHMENT_REQUEST_LOG__COLLECT", "true")];
    let collector = Collector::start_with(dir.path(), &settings);
    let made = token(&collector, "reader");
    let link = code(&collector, &made);
    let cookies = [
        signed_in(&collector, &made),
        cookie(&sign_in(&collector, &json!({ "code": link }), &[("origin", &collector.api)])),
    ];
    let mut secrets = vec![made.clone(), link.clone()];
    for cookie in &cookies {
        assert_eq!(who(&collector, cookie).status, 200);
        secrets.push(cookie.split_once('=').expect("a value").1.to_owned());
    }
    sign_in(&collector, &json!({ "code": link }), &[]);
    sign_out(&collector, &cookies[1]);
    let pages = ["/debug/requests", "/metrics"].map(|path| collector.get_admin(path).text);
    assert!(pages[0].contains("/api/v1/session"), "{}", pages[0]);
    let requests = "SELECT count(*) FROM events WHERE data->>'token_name' = 'ann the reader' AND data->>'path' = '/api/v1/session'";
    collector.wait_for("the request log", |c| c.rows(requests)[0][0].as_u64().is_some_and(|n| n >= 5));
    for secret in &secrets {
        assert!(!pages.iter().any(|page| page.contains(secret)), "{secret} is shown");
    }
    let audit = collector.get("/api/v1/audit", &collector.token).text;
    assert_eq!(collector.terminate(), 0);
    for secret in &secrets {
        let mut found = Vec::new();
        holding(dir.path(), secret, &mut found);
        assert!(found.is_empty() && !audit.contains(secret), "{secret} is in {found:?}");
    }
}
