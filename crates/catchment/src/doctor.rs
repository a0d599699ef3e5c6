//! `catchment doctor`: what an operator looks at before a collector starts, and when it is slow or silent.
//!
//! It changes nothing: files that it writes to measure the disk are gone when it ends. Each finding is good, worth a look, or has to be mended;
//! with one of the last kind the command fails.

mod disk;
mod machine;
mod unit;

use crate::client;
use crate::config;
use crate::data_dir::{Addresses, DataDir};
use crate::memory;
use crate::settings::Settings;
use anyhow::bail;
use clap::Args;
use nowwhat::cli::{SettingsArgs, print, printable};
use nowwhat::client::{CallLimits, Client};
use nowwhat::config::{Loaded, Sources};
use nowwhat::dependency::DependencyMetrics;
use nowwhat::metrics::Registry;
use nowwhat::{Environment, Foundation};
use serde::Serialize;
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

/// A collector that does not answer in this time is not well.
const LIMITS: CallLimits = CallLimits { timeout: Duration::from_secs(5), body_bytes_max: 1 << 20 };

#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Folder of all data [default: data.dir of the configuration].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    Good,
    /// Works, and may not be as it is meant.
    Look,
    /// Has to be mended.
    Bad,
}

impl Mark {
    fn text(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Look => "LOOK",
            Self::Bad => "BAD",
        }
    }
}

/// What was found about one thing.
#[derive(Debug, Serialize)]
struct Finding {
    about: &'static str,
    mark: Mark,
    text: String,
}

impl Finding {
    fn good(about: &'static str, text: impl Into<String>) -> Self {
        Self { about, mark: Mark::Good, text: text.into() }
    }

    fn look(about: &'static str, text: impl Into<String>) -> Self {
        Self { about, mark: Mark::Look, text: text.into() }
    }

    fn bad(about: &'static str, text: impl Into<String>) -> Self {
        Self { about, mark: Mark::Bad, text: text.into() }
    }
}

pub(crate) fn run(args: &DoctorArgs, environment: &Environment) -> anyhow::Result<()> {
    let findings = findings(args, environment);
    let bad = findings.iter().filter(|f| f.mark == Mark::Bad).count();
    print(if args.json { as_json(&findings) } else { as_lines(&findings) })?;
    match bad {
        0 => Ok(()),
        1 => bail!("1 finding has to be mended"),
        _ => bail!("{bad} findings have to be mended"),
    }
}

fn as_json(findings: &[Finding]) -> String {
    format!("{}\n", serde_json::json!({ "findings": findings }))
}

fn as_lines(findings: &[Finding]) -> String {
    let width = findings.iter().map(|f| f.about.len()).max().unwrap_or_default();
    findings.iter().map(|f| format!("{:4}  {:width$}  {}\n", f.mark.text(), f.about, printable(&f.text))).collect()
}

fn findings(args: &DoctorArgs, environment: &Environment) -> Vec<Finding> {
    let mut findings = vec![Finding::good("program", nowwhat::cli::long_version(config::VERSION))];
    let service = config::service();
    let flags = match config::data_dir_flag(args.data_dir.as_deref()) {
        Ok(flag) => flag.into_iter().collect(),
        Err(usage) => {
            findings.push(Finding::bad("data folder", usage.to_string()));
            return findings;
        }
    };
    let loaded = match service.load(&Sources { flags, ..args.settings.sources(&service) }, environment) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let text =
                format!("{problems}; nothing else was looked at, since all of it follows from the configuration");
            findings.push(Finding::bad("configuration", text));
            return findings;
        }
    };
    let (settings, foundation) = (Settings::from_loaded(&loaded), Foundation::from_loaded(&loaded));
    findings.push(configuration(&loaded));
    findings.extend(disk::findings(&settings.data.dir));
    let unit = unit::over(&settings.data.dir);
    findings.push(machine::descriptors(foundation.http.connections_max as u64, unit.as_ref()));
    findings.push(machine::memory(memory::bound(&settings, &foundation), unit.as_ref()));
    findings.push(machine::clock());
    let data_dir = DataDir::of(&settings.data.dir);
    findings.extend(data_dir.is_whole().err().map(|error| Finding::bad("folder", format!("{error:#}"))));
    match (data_dir.addresses(), data_dir.kept_from_us()) {
        (Some(addresses), _) => findings.extend(collector(&data_dir, &addresses)),
        // Its ports may be taken by itself.
        (None, Some(error)) => {
            let text = format!("whether one runs cannot be told: {error:#}; run this as the user of the collector");
            findings.push(Finding::look("collector", text));
        }
        (None, None) => {
            findings.push(Finding::look("collector", "none runs over this folder"));
            findings.push(port("port", foundation.http.listen, "catchment.socket"));
            findings.push(port("admin port", foundation.admin.listen, "catchment-admin.socket"));
        }
    }
    findings
}

fn configuration(loaded: &Loaded) -> Finding {
    let text = format!("valid, environment {}", loaded.env);
    let misspelt = loaded.ignored.iter().filter_map(|ignored| Some((&ignored.name, ignored.meant.as_ref()?)));
    let notes: Vec<String> =
        misspelt.map(|(name, meant)| format!("{name} is no setting, meant may be {meant}")).collect();
    match notes.as_slice() {
        [] => Finding::good("configuration", text),
        notes => Finding::look("configuration", format!("{text}; {}", notes.join("; "))),
    }
}

/// Whether a collector could listen there, or is given the socket of systemd that does.
fn port(about: &'static str, address: SocketAddr, socket: &str) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(about, format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && unit::is_active(socket) => {
            Finding::good(about, format!("{socket} of systemd is active, and starts the collector when somebody comes"))
        }
        Err(error) => {
            Finding::bad(about, format!("{address} cannot be listened at: {error}; `ss -ltnp` shows who does"))
        }
    }
}

/// What a running collector says of itself.
fn collector(dir: &DataDir, addresses: &Addresses) -> Vec<Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread that runs");
    let client = Client::new("the collector", LIMITS, &DependencyMetrics::register(&mut Registry::default()));
    let client = client::knowing(client, dir);
    let ask = |url: String| runtime.block_on(client.get(&url)).map_err(|error| nowwhat::error_chain(&error));
    let (url, admin) = (addresses.url(), addresses.admin_url());
    let mut findings = Vec::new();
    findings.push(match ask(format!("{admin}/readyz")) {
        Err(error) => Finding::bad("collector", format!("it does not answer at {admin}: {error}")),
        Ok(answer) if answer.status.is_success() => Finding::good("collector", format!("ready at {url}")),
        Ok(answer) => {
            Finding::bad("collector", format!("not ready: {}", String::from_utf8_lossy(&answer.bytes).trim()))
        }
    });
    findings.push(match client::lets_commands_in(dir, addresses) {
        Err(error) => Finding::look("API", error.to_string()),
        Ok(()) => match ask(format!("{url}/livez")) {
            Err(error) => Finding::bad("API", format!("it does not answer at {url}: {error}")),
            Ok(answer) if answer.status.is_success() => Finding::good("API", format!("answers at {url}")),
            Ok(answer) => Finding::bad("API", format!("answers {} at {url}/livez", answer.status)),
        },
    });
    if let Ok(answer) = ask(format!("{admin}/version")) {
        findings.push(version(&answer.json::<Value>().unwrap_or_default()));
    }
    findings
}

fn version(running: &Value) -> Finding {
    let told = |name: &str| running[name].as_str().unwrap_or("unknown").to_owned();
    let running = format!("{} ({})", told("version"), told("commit"));
    match nowwhat::cli::long_version(config::VERSION) {
        own if own == running => Finding::good("version", format!("{running} runs, as this program")),
        own => Finding::look(
            "version",
            format!("{running} runs, this program is {own}: restart the collector after an upgrade"),
        ),
    }
}
