//! A Postgres of its own for a test, from Debian's package: in a folder that goes away with it, on a free port.

use crate::{skipped, wait_until};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const PASSWORD: &str = "of-the-test";

/// A running server with an empty database; stopped when it goes out of scope.
pub struct Postgres {
    child: Option<Child>,
    dir: TempDir,
    bin: PathBuf,
    port: u16,
}

impl Postgres {
    /// Starts one; none, with a word on the terminal, when Postgres is not installed.
    pub fn start() -> Option<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let bin = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
        let Some(bin) = bin else {
            skipped("the package postgresql is not installed");
            return None;
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let mut postgres = Self { child: None, dir: tempfile::tempdir().expect("a folder"), bin, port };
        if let Some((uid, gid)) = owner() {
            chown(postgres.dir.path(), Some(uid), Some(gid)).expect("root gives a folder away");
        }
        let password = postgres.dir.path().join("password");
        fs::write(&password, PASSWORD).expect("a file");
        let made = postgres
            .command("initdb")
            .args(["--username=collector", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
            .arg(format!("--pwfile={}", password.display()))
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let log = fs::File::create(postgres.dir.path().join("log")).expect("a log file");
        let mut server = postgres.command("postgres");
        server.arg(format!("--port={port}")).arg("-k").arg(postgres.dir.path());
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        server.stdin(Stdio::null()).stdout(log.try_clone().expect("a file handle")).stderr(log);
        postgres.child = Some(server.spawn().expect("the server starts"));
        let mut ask = Command::new(postgres.bin.join("pg_isready"));
        ask.args(["--quiet", "--host=127.0.0.1", &format!("--port={port}")]);
        wait_until("postgres", move || {
            Command::new(ask.get_program()).args(ask.get_args()).status().is_ok_and(|s| s.success())
        });
        Some(postgres)
    }

    /// The variables by which `psql` and its kin find it.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", "collector".to_owned()),
            ("PGPASSWORD", PASSWORD.to_owned()),
            ("PGDATABASE", "postgres".to_owned()),
        ]
    }

    /// What it answers to statements: a row a line, columns between commas.
    pub fn sql(&self, statements: &str) -> String {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-qAtXF,", "-v", "ON_ERROR_STOP=1", "-c", statements]).envs(self.variables());
        let output = psql.output().expect("psql runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.arg("-D").arg(self.dir.path().join("data")).current_dir(self.dir.path());
        // Postgres refuses to run as root.
        if let Some((uid, gid)) = owner() {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // It ends its own processes and does not wait for clients.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT);
        drop(child.wait());
    }
}

/// The user for whom the package was installed, when this is root.
fn owner() -> Option<(u32, u32)> {
    let of_package = fs::metadata("/var/lib/postgresql").expect("the package makes it");
    rustix::process::getuid().is_root().then(|| (of_package.uid(), of_package.gid()))
}
