//! A collector of a command's own: started on free ports, ended with the command.

use crate::data_dir::DataDir;
use anyhow::{Context, bail};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to start.
const START: Duration = Duration::from_secs(60);

/// The running collector.
pub(crate) struct OwnCollector(Child);

impl OwnCollector {
    /// Starts one over `dir` and waits until it answers; its log lies there as `serve.log`.
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the program itself")?;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        if DataDir::of(dir).addresses().is_some() {
            bail!("a collector runs over {} already: stop it, or choose another folder", dir.display());
        }
        let log = dir.join("serve.log");
        let file = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let started = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn();
        let mut collector = Self(started.context("cannot start the collector")?);
        let deadline = Instant::now() + START;
        while DataDir::of(dir).addresses().is_none() {
            if let Some(status) = collector.0.try_wait().context("cannot watch the collector")? {
                bail!("the collector ended with {status}: see {}", log.display());
            }
            if Instant::now() > deadline {
                bail!("the collector did not start in time: see {}", log.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(collector)
    }
}

impl Drop for OwnCollector {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // A child that has ended already needs no signal.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        drop(self.0.wait());
    }
}
