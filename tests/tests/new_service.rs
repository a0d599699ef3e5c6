//! A service that `nowwhat new` writes is whole: it passes its own `make check test package`, and the program it packs runs.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tests::{blocks, program, skipped};

const NAME: &str = "shop-window";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// Runs a command to its end, which has to be good.
fn done(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {told}{}", String::from_utf8_lossy(&output.stderr));
    told
}

/// Where crates are compiled.
fn targets() -> PathBuf {
    program().parent().and_then(Path::parent).expect("a folder of builds").to_owned()
}

/// A command in the service's folder, with nothing of this test's own build around it but the folder that crates are compiled in.
fn inside(folder: &Path, name: &str) -> Command {
    let own = |name: &std::ffi::OsString| {
        let name = name.to_string_lossy();
        name == "CARGO_HOME"
            || !["CARGO", "NEXTEST", "RUST_", "LD_", "MAKE", "MFLAGS"].iter().any(|p| name.starts_with(p))
    };
    let mut command = Command::new(name);
    let kept = std::env::vars_os().filter(|(name, _)| own(name));
    command.env_clear().envs(kept).env("CARGO_TARGET_DIR", targets());
    command.envs([("CARGO_NET_OFFLINE", "true"), ("CARGO_PROFILE_DEV_DEBUG", "false")]).current_dir(folder);
    command
}

/// What the program of a package says and answers.
struct Running {
    child: Child,
    api: String,
    admin: String,
}

impl Running {
    fn start(program: &Path) -> Self {
        let mut child = Command::new(program)
            .env("SHOP_WINDOW_HTTP__LISTEN", "127.0.0.1:0")
            .env("SHOP_WINDOW_ADMIN__LISTEN", "127.0.0.1:0")
            .env("SHOP_WINDOW_LOG__FORMAT", "json")
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let ready = lines.find(|line| line["message"] == "ready").expect("it gets ready");
        // So that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let address = |name: &str| format!("http://{}", ready[name].as_str().expect("an address"));
        Self { api: address("address"), admin: address("admin_address"), child }
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing to do for one that was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: &str) -> String {
    let mut answer = ureq::get(address).call().unwrap_or_else(|error| panic!("{address}: {error}"));
    answer.body_mut().read_to_string().expect("a text")
}

fn json(address: &str) -> Value {
    serde_json::from_str(&get(address)).expect("JSON")
}

/// `make deny` where cargo-deny is at hand, without the database that is fetched; and what an update would change.
fn held_to_licences(folder: &Path) {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let places = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&places).chain([home.join(".cache/nowwhat/tools/bin")]);
    if places.any(|place| place.join("cargo-deny").is_file()) {
        done(inside(folder, "make").args(["deny", "DENY=licenses bans sources"]));
    } else {
        skipped("cargo-deny is not at hand: `make deny` installs it");
    }
    done(inside(folder, "make").arg("outdated"));
}

/// A commit of all that is in the folder, with the same crates as here, which are on this machine.
fn committed(folder: &Path) {
    std::fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("copied");
    done(inside(folder, "cargo").args(["update", "--workspace", "--quiet"]));
    for arguments in [["init", "--quiet"].as_slice(), &["add", "."], &["commit", "--quiet", "--message", "Begin"]] {
        let by = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "init.defaultBranch=main"];
        done(inside(folder, "git").args(by).args(arguments));
    }
}

/// Packs the program of the dev build, and tells the checksums.
fn packed(folder: &Path, name: &str, parts: &str) -> String {
    let built = format!("PROGRAM={}", targets().join("debug").join(name).display());
    done(inside(folder, "make").args(["package", &built, &format!("PARTS={parts}")]));
    std::fs::read_to_string(folder.join("dist/SHA256SUMS")).expect("it is there")
}

/// One can go back to a package of before, also when the next one cannot be made.
fn assert_older_packages_stay(folder: &Path, parts: &str, sums: &str) {
    let dist = folder.join("dist");
    let names = || {
        let entries = std::fs::read_dir(&dist).expect("a folder").flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    std::fs::write(dist.join("shop-window_0.0.1_amd64.deb"), "a package of before").expect("written");
    let older = done(inside(&dist, "sha256sum").arg("shop-window_0.0.1_amd64.deb"));
    std::fs::write(dist.join("SHA256SUMS"), older.clone() + sums).expect("written");
    let before = names();
    let failed = inside(folder, "deploy/package/build").envs([("PROGRAM", "/bin/false"), ("PARTS", "tar")]).output();
    assert!(!failed.expect("it runs").status.success());
    assert_eq!(names(), before, "what fails leaves all as it was");
    let again = packed(folder, NAME, parts);
    assert!(names() == before && again.lines().count() == sums.lines().count() + 1, "{again}");
    assert!(again.contains(older.trim()) && sums.lines().all(|line| again.contains(line)), "{again}");
}

#[test]
fn a_new_service_passes_its_own_checks_and_tests_and_the_program_it_packs_runs() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join(NAME);
    let nowwhat = program().with_file_name("nowwhat");
    let from = root().join("crates/nowwhat");
    done(Command::new(nowwhat).args(["new", NAME, "--nowwhat-path"]).arg(from).current_dir(dir.path()));
    committed(&folder);

    held_to_licences(&folder);
    // In the profile that `make check` has built the dependencies of nowwhat alone with.
    for target in ["check", "test", "build"] {
        done(inside(&folder, "make").args([target, "PROFILE=dev"]));
    }
    let parts = "tar deb sbom";
    let sums = packed(&folder, NAME, parts);
    let dist = folder.join("dist");
    done(inside(&dist, "sha256sum").args(["--check", "--strict", "SHA256SUMS"]));
    let archive = sums.split_whitespace().find(|word| word.ends_with(".tar.gz")).expect("a tar file");
    let unpacked = dir.path().join("unpacked");
    std::fs::create_dir(&unpacked).expect("made");
    done(inside(&unpacked, "tar").arg("--extract").arg("--file").arg(dist.join(archive)));
    for file in ["etc/shop-window/shop-window.toml", "usr/share/doc/shop-window/LICENSE-MIT"] {
        assert!(unpacked.join(file).is_file(), "{file} is packed");
    }
    let of = |ending: &str| sums.split_whitespace().find(|word| word.ends_with(ending)).expect("packed").to_owned();
    let control = done(inside(&dist, "dpkg-deb").args(["--info", &of(".deb")]));
    assert!(
        control.contains("Package: shop-window\n") && control.contains("Description: A service on nowwhat\n"),
        "{control}"
    );
    let made_of = std::fs::read(dist.join(of(".cdx.json"))).expect("it is there");
    let made_of: Value = serde_json::from_slice(&made_of).expect("JSON");
    let crates = made_of["components"].as_array().expect("a list");
    assert!(crates.iter().any(|component| component["name"] == "nowwhat"), "{made_of}");
    assert_eq!(packed(&folder, NAME, parts), sums, "the same to the bit");
    assert_older_packages_stay(&folder, parts, &sums);
    let unknown = inside(&folder, "deploy/package/build").env("PARTS", "deb zip").output().expect("it runs");
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(told.contains("there is no zip; it is of: deb tar image sbom"), "{told}");

    let service = Running::start(&unpacked.join("usr/bin").join(NAME));
    assert_eq!(json(&format!("{}/hello/moon", service.api))["text"], "Hello, moon!");
    assert_eq!(json(&format!("{}/readyz", service.admin))["status"], "ready");
    let version = json(&format!("{}/version", service.admin));
    assert_eq!((&version["name"], &version["version"]), (&NAME.into(), &"0.1.0".into()));
    let commit = done(inside(&folder, "git").args(["rev-parse", "HEAD"]));
    assert_eq!(version["commit"], commit.trim());
    let metrics = get(&format!("{}/metrics", service.admin));
    let counted = "http_requests_total{method=\"GET\",route=\"/hello/{name}\",status=\"200\"} 1";
    for line in ["shop_window_greetings_total 1", counted] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    service.stop();

    // A clone that does not know how many commits there are, as CI makes them.
    done(
        inside(dir.path(), "git")
            .args(["clone", "--quiet", "--depth", "1"])
            .arg(format!("file://{}", folder.display()))
            .arg("shallow"),
    );
    let output = inside(&dir.path().join("shallow"), "deploy/package/build").output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("this clone is shallow"), "{told}");
}

#[test]
fn a_service_that_moved_as_the_page_says_is_packed_with_its_own_targets() {
    let page = std::fs::read_to_string(root().join("docs/ADOPT.md")).expect("the page");
    let block = |kind: &str, sign: &str| {
        let found = blocks(&page, kind).into_iter().find(|block| block.contains(sign));
        found.unwrap_or_else(|| panic!("{sign} is on the page"))
    };
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("stock");
    for name in ["src", "deploy"] {
        std::fs::create_dir_all(folder.join(name)).expect("made");
    }
    let write = |file: &str, text: &str| std::fs::write(folder.join(file), text).expect("written");
    write("src/main.rs", &block("rust,no_run", "fn main() -> ExitCode"));
    write("deploy/nowwhat.toml", &block("toml", "name = "));
    let begins = "[package]\nname = \"stock\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n[dependencies]\n";
    let foreign = "axum = { version = \"0.8\", default-features = false, features = [\"json\"] }\n\
                   tracing = { version = \"0.1\", default-features = false }\n";
    let nowwhat = format!("nowwhat = {{ path = {:?} }}\n\n", root().join("crates/nowwhat"));
    write("Cargo.toml", &(begins.to_owned() + foreign + &nowwhat + &block("toml", "[profile.shipped]")));
    let program = program().with_file_name("nowwhat").display().to_string();
    for command in blocks(&page, "sh") {
        done(inside(&folder, "bash").args([
            "-euo",
            "pipefail",
            "-c",
            &command.replace("nowwhat ", &format!("{program} ")),
        ]));
    }
    committed(&folder);
    // It refuses a profile that is not there.
    done(inside(&folder, "cargo").args(["clean", "--dry-run", "--profile", "shipped"]));
    done(inside(&folder, "make").args(["build", "PROFILE=dev"]));
    let sums = packed(&folder, "stock", "tar");
    assert!(sums.contains(" stock-1.0.0+1.g") && sums.lines().count() == 1, "{sums}");
    assert_eq!(done(inside(&folder, "git").args(["status", "--porcelain"])), "");
}
