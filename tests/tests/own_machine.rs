//! Commands on the machine of a collector know it by the very certificate that it serves, whatever the names in it and whoever signed it; a
//! collector at an address that was given is known by its name and an authority alone.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use tests::{catchment, catchment_with, program, said, wait_until};

/// A collector that listens at every address, as one does that is asked from elsewhere.
struct Open {
    dir: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
    child: Option<Child>,
}

impl Open {
    fn start(settings: &[(&str, &str)]) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let mut open = Self { dir: tempfile::tempdir().expect("a folder"), ca, child: None };
        open.certify();
        open.write("ca.pem", &open.ca.pem());
        let log = std::fs::File::create(open.dir.path().join("log")).expect("the log");
        let child = Command::new(program())
            .args(["serve", "--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"])
            .env("CATCHMENT_HTTP__TLS_CERTIFICATE", "server.pem")
            .env("CATCHMENT_HTTP__TLS_KEY", "server.key")
            .envs(settings.iter().copied())
            .current_dir(&open.dir)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        open.child = Some(child.expect("the program starts"));
        wait_until("the addresses", || open.addresses().is_some());
        open
    }

    /// Another certificate, for a name that nobody asks here.
    fn certify(&self) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["events.example.com".to_owned()]).expect("a name");
        self.write("server.pem", &params.signed_by(&key, &self.ca).expect("signed").pem());
        self.write("server.key", &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).expect("written");
    }

    fn addresses(&self) -> Option<Value> {
        let text = std::fs::read(self.dir.path().join("data/addresses.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn url(&self) -> String {
        let addresses = self.addresses().expect("it runs");
        format!("https://127.0.0.1:{}", addresses["api"].as_str().expect("text").rsplit(':').next().expect("a port"))
    }

    fn run(&self, args: &[&str]) -> Output {
        catchment(self.dir.path(), args, b"")
    }

    /// What a command says that works.
    #[track_caller]
    fn said(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        said(&output)
    }

    /// What `doctor` finds about the API.
    fn found(&self) -> (String, String) {
        let answer: Value = serde_json::from_str(&said(&self.run(&["doctor", "--json"]))).expect("JSON");
        let found = answer["findings"].as_array().expect("a list").iter().find(|finding| finding["about"] == "API");
        let text = |name: &str| found.expect("it is asked")[name].as_str().expect("text").to_owned();
        (text("mark"), text("text"))
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().expect("it was started");
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("ours");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).expect("the log")
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[track_caller]
fn assert_failed(output: &Output, parts: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && parts.iter().all(|part| told.contains(part)), "{parts:?} in {output:?}");
}

#[test]
fn commands_work_with_a_certificate_of_another_name_and_an_unknown_authority() {
    let open = Open::start(&[]);
    assert!(open.said(&["sensor", "add", "roof"]).contains("roof"));
    assert!(open.said(&["sensor", "list"]).contains("roof"));
    let sent = catchment(open.dir.path(), &["send", "--sensor", "roof"], b"{\"n\":1}\n");
    assert_eq!(said(&sent), "1 accepted, 0 duplicates, 0 rejected\n", "{sent:?}");
    assert_eq!(open.said(&["query", "SELECT count(*) AS n FROM events", "--format", "csv"]), "n\r\n1\r\n");
    let audit: Value = serde_json::from_str(&open.said(&["audit", "--json"])).expect("JSON");
    let id = audit["entries"][0]["request_id"].as_str().expect("text");
    assert!(open.said(&["request", id]).contains("audit"));
    let (mark, text) = open.found();
    assert!(mark == "good" && text.contains(&format!("answers at {}", open.url())), "{mark} {text}");

    // An authority that is named helps, and is not needed.
    let with_ca = [("CATCHMENT_CA_FILE", "ca.pem")];
    let listed = catchment_with(open.dir.path(), &["sensor", "list"], b"", &with_ca);
    assert!(said(&listed).contains("roof"), "{listed:?}");
}

#[test]
fn an_address_that_was_given_is_held_to_its_name_and_an_authority() {
    let open = Open::start(&[]);
    let (url, place) = (open.url(), format!("no answer from {}", open.url()));
    assert_failed(&open.run(&["sensor", "list", "--url", &url]), &[&place]);
    assert_failed(&open.run(&["sensor", "list", "--url", &url, "--data-dir", "data"]), &[&place]);
    let variable = catchment_with(open.dir.path(), &["query", "SELECT 1"], b"", &[("CATCHMENT_URL", &url)]);
    assert_failed(&variable, &[&place]);
    let other_name = open.run(&["sensor", "list", "--url", &url, "--ca-file", "ca.pem"]);
    assert_failed(&other_name, &[&place, "certificate not valid for name"]);
}

#[test]
fn after_a_reload_commands_know_the_newer_certificate_and_no_other_is_believed() {
    let open = Open::start(&[]);
    let before = open.addresses();
    open.certify();
    open.signal(rustix::process::Signal::HUP);
    wait_until("the reload", || open.log().contains("\"changed\":\"http.tls_certificate\""));
    assert_ne!(open.addresses(), before);
    assert!(open.run(&["sensor", "list"]).status.success());

    // In the same file, which the collector holds.
    std::fs::write(open.dir.path().join("data/addresses.json"), before.expect("it ran").to_string()).expect("written");
    assert_failed(&open.run(&["sensor", "list"]), &["no answer from", "shows another certificate"]);
    let (mark, text) = open.found();
    assert!(mark == "bad" && text.contains("shows another certificate"), "{mark} {text}");
    open.signal(rustix::process::Signal::TERM);
    let file = open.dir.path().join("data/addresses.json");
    wait_until("the end", || !Path::new(&file).exists());
    assert_failed(&open.run(&["sensor", "list"]), &["no running collector found"]);
}

#[test]
fn where_certificates_of_clients_are_required_commands_say_what_to_do() {
    let required =
        [("CATCHMENT_HTTP__TLS_CLIENT_CA", "ca.pem"), ("CATCHMENT_HTTP__TLS_CLIENT_CERTIFICATES", "required")];
    let open = Open::start(&required);
    let advice = "set http.tls_client_certificates = \"optional\"";
    assert_failed(&open.run(&["sensor", "list"]), &[advice, "curl --cert"]);
    let (mark, text) = open.found();
    assert!(mark == "look" && text.contains(advice), "{mark} {text}");
    drop(open);

    let optional = Open::start(&required[..1]);
    assert!(optional.run(&["sensor", "list"]).status.success());
}
