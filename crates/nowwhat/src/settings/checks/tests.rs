//! What is found before a start, all at once.

use crate::config::Loaded;
use crate::{Environment, Service};
use std::path::PathBuf;

fn service() -> Service {
    Service::new(crate::version!("bakery"), Vec::new()).check(|_: &Loaded| vec!["the flour is out".to_owned()])
}

/// Everything that is found, but for what the service itself always says.
fn problems(settings: &[(&str, &str)]) -> Vec<String> {
    let environment: Environment = settings.iter().copied().collect();
    let mut found = service().load(&service().sources(), &environment).expect_err("it has problems").0;
    assert_eq!(found.pop().as_deref(), Some("the flour is out"));
    found
}

/// A certificate and its key in files.
fn pair(dir: &tempfile::TempDir, name: &str) -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let texts = [("pem", made.cert.pem()), ("key", made.signing_key.serialize_pem())];
    texts.map(|(ending, text)| {
        let path: PathBuf = dir.path().join(format!("{name}.{ending}"));
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a path").to_owned()
    })
}

#[test]
fn what_a_start_would_meet_is_found_with_all_other_problems() {
    let dir = tempfile::tempdir().expect("a folder");
    let [certificate, _] = pair(&dir, "one");
    let found = problems(&[
        ("BAKERY_HTTP__LISTEN", "127.0.0.1:4000"),
        ("BAKERY_ADMIN__LISTEN", "127.0.0.1:4000"),
        ("BAKERY_HTTP__TLS_CERTIFICATE", "/nowhere/chain.pem"),
        ("BAKERY_HTTP__TLS_KEY", &certificate),
        ("BAKERY_LOG__FORMAT", "xml"),
        ("BAKERY_OTLP__ENDPOINT", "ftp://me:hidden@collector"),
        ("BAKERY_OTLP__AUTHORIZATION", "hidden\nline"),
        ("BAKERY_OTLP__CA", "/dev/zero"),
        ("BAKERY_STOP__GRACE_SECONDS", "soon"),
    ]);
    let expected = [
        ("stop.grace_seconds = \"soon\": expected a duration", "BAKERY_STOP__GRACE_SECONDS"),
        ("http.listen = \"127.0.0.1:4000\" takes the address of admin.listen", "BAKERY_ADMIN__LISTEN"),
        ("http.tls_certificate: cannot read the certificate in /nowhere/chain.pem", "BAKERY_HTTP__TLS_CERTIFICATE"),
        ("http.tls_key: cannot read the private key in ", "BAKERY_HTTP__TLS_KEY"),
        ("log.format = \"xml\": allowed are", "BAKERY_LOG__FORMAT"),
        ("otlp.endpoint: cannot export to ftp://collector/", "BAKERY_OTLP__ENDPOINT"),
        ("otlp.authorization: cannot export with the header \"authorization\"", "BAKERY_OTLP__AUTHORIZATION"),
        ("otlp.ca: cannot read the certificate authorities in /dev/zero", "BAKERY_OTLP__CA"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (problem, (begin, origin)) in found.iter().zip(expected) {
        assert!(problem.starts_with(begin) && problem.contains(origin), "{begin} {origin} in {found:#?}");
        assert!(!problem.contains("hidden"), "{problem}");
    }
}

#[test]
fn a_key_of_another_certificate_is_found() {
    let dir = tempfile::tempdir().expect("a folder");
    let ([certificate, key], [_, other]) = (pair(&dir, "one"), pair(&dir, "other"));
    let with = |key: &str| problems(&[("BAKERY_HTTP__TLS_CERTIFICATE", &certificate), ("BAKERY_HTTP__TLS_KEY", key)]);
    assert_eq!(with(&key), Vec::<String>::new());
    let found = with(&other);
    assert!(found.len() == 1 && found[0].contains("cannot be used with the key in"), "{found:?}");
    assert!(found[0].contains("BAKERY_HTTP__TLS_KEY, environment BAKERY_HTTP__TLS_CERTIFICATE"), "{found:?}");
}

#[test]
fn certificates_of_clients_need_tls_and_an_authority() {
    let dir = tempfile::tempdir().expect("a folder");
    let [certificate, key] = pair(&dir, "one");
    let tls = [("BAKERY_HTTP__TLS_CERTIFICATE", certificate.as_str()), ("BAKERY_HTTP__TLS_KEY", &key)];
    let (ca, crl) = ("BAKERY_HTTP__TLS_CLIENT_CA", "BAKERY_HTTP__TLS_CLIENT_CRL");
    let required = ("BAKERY_HTTP__TLS_CLIENT_CERTIFICATES", "required");
    assert_eq!(problems(&[&tls[..], &[(ca, &certificate), required]].concat()), Vec::<String>::new());
    for (given, begin, origin) in [
        (vec![(ca, certificate.as_str())], "http.tls_client_ca = ", ca),
        (vec![required], "http.tls_client_certificates = \"required\" is given without http.tls_client_ca", required.0),
        ([&tls[..], &[(crl, &key)]].concat(), "http.tls_client_crl = ", crl),
        ([&tls[..], &[(ca, &key)]].concat(), "http.tls_client_ca: cannot read the authorities of clients' ", ca),
        (
            [&tls[..], &[(ca, &certificate), (crl, "/nowhere")]].concat(),
            "http.tls_client_crl: cannot read the rev",
            crl,
        ),
    ] {
        let found = problems(&given);
        assert!(found.len() == 1 && found[0].starts_with(begin) && found[0].contains(origin), "{begin}: {found:?}");
    }
}

#[test]
fn two_listeners_may_both_take_a_free_port_and_https_needs_authorities() {
    let free = [("BAKERY_HTTP__LISTEN", "127.0.0.1:0"), ("BAKERY_ADMIN__LISTEN", "127.0.0.1:0")];
    assert_eq!(problems(&free), Vec::<String>::new());
    let found = problems(&[("BAKERY_OTLP__ENDPOINT", "https://collector:4318")]);
    assert!(found.len() == 1 && found[0].contains("give otlp.ca"), "{found:?}");
}

#[test]
fn what_only_follows_from_a_flawed_setting_is_not_told() {
    let found = problems(&[("BAKERY_HTTP__LISTEN", "0.0.0.0:80"), ("BAKERY_HTTP__INSECURE", "treu")]);
    assert!(found.len() == 1 && found[0].starts_with("http.insecure = \"treu\""), "{found:?}");
}

#[test]
fn what_is_made_of_a_secret_is_not_told_and_why_it_is_refused_is() {
    let found = problems(&[
        ("BAKERY_OTLP__AUTHORIZATION", "hidden"),
        ("BAKERY_OTLP__CA", "/${otlp.authorization}"),
        ("BAKERY_OTLP__ENDPOINT", "ftp://${otlp.authorization}/x"),
        ("BAKERY_LOG__FORMAT", "${otlp.authorization}"),
        ("BAKERY_LOG__LEVEL", "${otlp.authorization}=="),
    ]);
    let expected = [
        ("log.level = ***: allowed are off, error, warn,", "BAKERY_LOG__LEVEL"),
        ("log.format = ***: allowed are text,", "BAKERY_LOG__FORMAT"),
        ("otlp.endpoint: cannot export to ***: give an address with http or https", "BAKERY_OTLP__ENDPOINT"),
        ("otlp.ca: *** cannot be used: ", "BAKERY_OTLP__CA"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (problem, (begin, origin)) in found.iter().zip(expected) {
        assert!(problem.starts_with(begin) && problem.contains(origin), "{begin} {origin} in {found:#?}");
        assert!(!problem.contains("hidden"), "{problem}");
    }
    assert!(found[3].contains("No such file"), "{found:?}");
}

#[test]
fn addresses_that_take_each_other_in_are_found() {
    let told = |http: &str, admin: &str| {
        let listeners = [("BAKERY_HTTP__LISTEN", http), ("BAKERY_ADMIN__LISTEN", admin)];
        let found = problems(&[&listeners[..], &[("BAKERY_HTTP__INSECURE", "true")]].concat());
        assert!(found.iter().all(|problem| problem.contains("a port of its own")), "{found:?}");
        found.len()
    };
    let pairs = [
        ("0.0.0.0:4000", "127.0.0.1:4000", 1),
        ("127.0.0.1:4000", "0.0.0.0:4000", 1),
        ("[::]:4000", "[::1]:4000", 1),
        ("127.0.0.1:4000", "127.0.0.2:4000", 0),
        ("0.0.0.0:4000", "127.0.0.1:4001", 0),
        ("0.0.0.0:0", "127.0.0.1:0", 0),
        ("127.0.0.1:4000", "[::1]:4000", 0),
    ];
    for (http, admin, count) in pairs {
        assert_eq!(told(http, admin), count, "{http} {admin}");
    }
}

#[test]
fn what_is_set_is_shown_without_opening_what_is_not_shown() {
    let service = service();
    let args = crate::cli::SettingsArgs::default();
    let environment: Environment = [
        ("BAKERY_HTTP__TLS_CERTIFICATE", "/nowhere/chain.pem"),
        ("BAKERY_OTLP__AUTHORIZATION_FILE", "/nowhere/token"),
        ("BAKERY_OTLP__ENDPOINT", "http://collector/${otlp.authorization}"),
        ("BAKERY_STOP__GRACE_SECONDS", "${otlp.authorization}"),
        ("BAKERY_LOG__LEVEL", "loud"),
    ]
    .into_iter()
    .collect();
    let shown = crate::cli::ConfigCommand::Show(args.clone()).run(&service, &environment).expect("shown");
    for line in [
        "tls_certificate = \"/nowhere/chain.pem\"",
        "authorization = \"***\"",
        "endpoint = \"***\"",
        "grace_seconds = \"***\"",
        "level = \"loud\"",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    let origin = "# environment BAKERY_OTLP__AUTHORIZATION_FILE";
    assert!(shown.contains(origin) && !shown.contains("unread") && !shown.contains("collector"), "{shown}");
    let checked = crate::cli::ConfigCommand::Check(args).run(&service, &environment).expect_err("flawed").to_string();
    assert!(checked.contains("chain.pem") && checked.contains("cannot read /nowhere/token"), "{checked}");
}
