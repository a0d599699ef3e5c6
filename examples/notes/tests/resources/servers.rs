//! Real servers from Debian's packages, each with a folder and a port of its own: started, paused, killed by the test that needs them.
//!
//! It promises that a test leaves no process behind: a server that goes out of scope is killed with all of its processes. It never
//! touches a server that runs on this machine otherwise.

use nowwhat::testkit::wait_until;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const PASSWORD: &str = "of-the-test";

/// Says that a test was skipped, and why.
///
/// # Panics
/// When `REQUIRE_SERVERS` says that nothing may be missing.
fn skipped(why: &str) {
    assert!(std::env::var_os("REQUIRE_SERVERS").is_none(), "REQUIRE_SERVERS is set, but {why}");
    drop(writeln!(std::io::stderr(), "skipped: {why}"));
}

/// A process with those it started. Killed, as a power cut does, when it goes out of scope.
struct Running {
    child: Child,
}

impl Running {
    /// The process and those it started.
    fn pids(&self) -> Vec<Pid> {
        let own = self.child.id();
        let children = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // pid (name) state parent
            let parent: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            (parent == own).then_some(pid)
        });
        // The parent first: then no more children come.
        [own.cast_signed()].into_iter().chain(children).filter_map(Pid::from_raw).collect()
    }

    fn signal(&self, signal: Signal) {
        // The parent alone first, so that the list of its children is complete.
        kill_process(Pid::from_child(&self.child), signal).expect("the child is ours");
        for pid in self.pids().into_iter().skip(1) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        // The children become this process's, to be waited for.
        set_child_subreaper(Some(getpid())).expect("Linux can");
        self.signal(Signal::STOP);
        let pids = self.pids();
        for pid in &pids {
            // It may have ended meanwhile.
            let _ = kill_process(*pid, Signal::KILL);
        }
        drop(self.child.wait());
        for pid in pids.into_iter().skip(1) {
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn start(command: &mut Command, dir: &Path) -> Running {
    let log = fs::File::create(dir.join("log")).expect("a log file");
    let copy = log.try_clone().expect("a file handle");
    let child = command.stdin(Stdio::null()).stdout(log).stderr(copy).spawn().expect("the server starts");
    Running { child }
}

/// A database server.
pub(crate) struct Postgres {
    running: Running,
    files: PostgresFiles,
}

/// A database that no server serves at the moment.
pub(crate) struct PostgresFiles {
    dir: TempDir,
    bin: PathBuf,
    port: u16,
}

impl PostgresFiles {
    /// An empty database; none, with a word on the terminal, when Postgres is not installed.
    pub(crate) fn create() -> Option<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let bin = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
        let Some(bin) = bin else {
            skipped("the package postgresql is not installed");
            return None;
        };
        let files = Self { dir: tempfile::tempdir().expect("a folder"), bin, port: free_port() };
        if let Some((uid, gid)) = owner() {
            chown(files.dir.path(), Some(uid), Some(gid)).expect("root gives a folder away");
        }
        let password = files.dir.path().join("password");
        fs::write(&password, PASSWORD).expect("a file");
        let made = files
            .command("initdb")
            .args(["--username=notes", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"])
            .arg(format!("--pwfile={}", password.display()))
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(files)
    }

    /// Where the service finds it, once it is served.
    pub(crate) fn url(&self) -> String {
        format!("postgres://notes:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    /// Serves it.
    pub(crate) fn serve(self) -> Postgres {
        let mut command = self.command("postgres");
        command.arg(format!("--port={}", self.port)).arg("-k").arg(self.dir.path());
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        let running = start(&mut command, self.dir.path());
        let postgres = Postgres { running, files: self };
        wait_until("postgres", || postgres.answers());
        postgres
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

/// The user for whom the package was installed, when this is root.
fn owner() -> Option<(u32, u32)> {
    let of_package = fs::metadata("/var/lib/postgresql").expect("the package makes it");
    rustix::process::getuid().is_root().then(|| (of_package.uid(), of_package.gid()))
}

impl Postgres {
    /// A server with an empty database; none when Postgres is not installed.
    pub(crate) fn start() -> Option<Self> {
        Some(PostgresFiles::create()?.serve())
    }

    /// Where the service finds it.
    pub(crate) fn url(&self) -> String {
        self.files.url()
    }

    /// Stops all of its processes where they are; what is sent to it is not answered.
    pub(crate) fn pause(&self) {
        self.running.signal(Signal::STOP);
    }

    /// Lets them go on.
    pub(crate) fn go_on(&self) {
        self.running.signal(Signal::CONT);
    }

    /// Kills all of its processes.
    pub(crate) fn kill(self) -> PostgresFiles {
        let Self { running, files } = self;
        drop(running);
        files
    }

    /// What the server itself answers to a statement.
    pub(crate) fn sql(&self, statement: &str) -> String {
        let output = self.psql().args(["-c", statement]).output().expect("psql runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Locks the table, so that every statement waits, until the end of what is returned.
    pub(crate) fn lock(&self) -> Lock {
        let mut child = self.psql().stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("psql runs");
        let stdin = child.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"begin; lock table notes;\n").expect("psql reads");
        let held = "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted \
                    and relation = 'notes'::regclass";
        wait_until("the lock", || self.sql(held) == "1");
        Lock { child }
    }

    fn psql(&self) -> Command {
        let mut command = Command::new(self.files.bin.join("psql"));
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        command.arg("--dbname").arg(self.url());
        command
    }

    fn answers(&self) -> bool {
        let mut command = Command::new(self.files.bin.join("pg_isready"));
        command.args(["--quiet", "--host=127.0.0.1", &format!("--port={}", self.files.port)]);
        command.status().expect("pg_isready runs").success()
    }
}

/// A session that holds a lock until it goes out of scope.
pub(crate) struct Lock {
    child: Child,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// A way to a server on which connections can be lost as a network loses them: both ends stay open and hear nothing more.
pub(crate) struct Way {
    port: u16,
    losses: Arc<AtomicUsize>,
}

impl Way {
    /// A way to Postgres.
    pub(crate) fn to(postgres: &Postgres) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (losses, far) = (Arc::new(AtomicUsize::new(0)), postgres.files.port);
        let counted = losses.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", far)) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                    let (losses, before) = (counted.clone(), counted.load(Ordering::SeqCst));
                    std::thread::spawn(move || carry(from, to, || losses.load(Ordering::SeqCst) == before));
                }
            }
        });
        Self { port, losses }
    }

    /// Where the service finds the server at the other end.
    pub(crate) fn url(&self) -> String {
        format!("postgres://notes:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    /// Loses the connections that there are; new ones work.
    pub(crate) fn lose_connections(&self) {
        self.losses.fetch_add(1, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, works: impl Fn() -> bool) {
    let mut bytes = [0; 4096];
    while let Ok(length) = from.read(&mut bytes) {
        while !works() {
            // Holds both ends open as long as the test runs.
            std::thread::park();
        }
        if length == 0 || to.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    // The other direction ends too.
    drop(to.shutdown(Shutdown::Both));
}

/// A cache server.
pub(crate) struct Redis {
    running: Running,
    /// Removed after the process, because it stands after it.
    _dir: TempDir,
    port: u16,
}

impl Redis {
    /// An empty one; none, with a word on the terminal, when Redis is not installed.
    pub(crate) fn start() -> Option<Self> {
        if !Command::new("redis-server").arg("--version").output().is_ok_and(|output| output.status.success()) {
            skipped("the package redis-server is not installed");
            return None;
        }
        Some(Self::at(free_port()))
    }

    /// An empty one at this port.
    pub(crate) fn at(port: u16) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()]);
        command.arg("--dir").arg(dir.path());
        let redis = Self { running: start(&mut command, dir.path()), _dir: dir, port };
        wait_until("redis", || redis.ask("PING").is_some_and(|answer| answer.starts_with("+PONG")));
        redis
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where the service finds it.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The answer to a command, as the protocol writes it.
    pub(crate) fn ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// Stops it where it is; what is sent to it is not answered.
    pub(crate) fn pause(&self) {
        self.running.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        self.running.signal(Signal::CONT);
    }
}
