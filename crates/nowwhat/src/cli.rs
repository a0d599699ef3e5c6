//! The command line: what every service answers, and its parts for callers who have a command line of their own.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or configuration. A reader of the output that goes away is no failure. This is the one module
//! that writes to standard output; everything else logs.

use crate::config::{Sources, prefix};
use crate::environment::Environment;
use crate::service::{Boot, BoxError, Service, ServiceError};
use axum::Router;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Where settings come from.
#[derive(Args, Clone, Debug, Default)]
pub struct SettingsArgs {
    /// Configuration file [default: $NAME_CONFIG, else /etc/NAME/NAME.toml; NAME is the program].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of the environment: dev, qa, staging, prod [default: $NAME_ENV, else prod].
    #[arg(long, value_name = "NAME")]
    pub env: Option<String>,
}

impl SettingsArgs {
    /// The sources of a service's settings.
    pub fn sources(&self, service: &Service) -> Sources {
        Sources { config: self.config.clone(), env: self.env.clone(), ..service.sources() }
    }
}

/// What can be done with the configuration.
#[derive(Subcommand, Clone, Debug)]
pub enum ConfigCommand {
    /// Show every value and where it came from; secrets are masked.
    Show(SettingsArgs),
    /// Report all problems of the configuration.
    Check(SettingsArgs),
    /// Write the file of all defaults with comments to standard output.
    Default,
}

impl ConfigCommand {
    /// Does it, and returns what is to be shown.
    ///
    /// # Errors
    /// [`ServiceError::Configuration`]: all problems.
    pub fn run(&self, service: &Service, environment: &Environment) -> Result<String, ServiceError> {
        match self {
            Self::Show(args) => Ok(service.load(&args.sources(service), environment)?.show()),
            Self::Check(args) => {
                let loaded = service.load(&args.sources(service), environment)?;
                Ok(format!("the configuration is valid; environment {}\n", loaded.env))
            }
            Self::Default => Ok(service.default_file(&heading(service))),
        }
    }
}

fn heading(service: &Service) -> String {
    let name = service.version.name;
    let prefix = prefix(name);
    format!(
        "The settings of {name} with their defaults, as `{name} config default` writes them.\n\
         Each can also be given in the environment: http.listen is {prefix}HTTP__LISTEN."
    )
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Show, check or write the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

impl Service {
    /// All of `main`: reads the command line, and runs or answers it.
    pub fn main(self, start: impl AsyncFnOnce(&mut Boot) -> Result<Router, BoxError>) -> ExitCode {
        let version = self.version;
        let long: &'static str = Box::leak(format!("{} ({})", version.version, version.commit).into_boxed_str());
        // The parts would tell their own purpose as that of the program.
        let command = Cli::command().about(None::<&str>).name(version.name).version(long).max_term_width(120);
        let matches = command.args_conflicts_with_subcommands(true).get_matches();
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let environment = Environment::of_process();
        let done = match cli.command {
            None => self.run(cli.settings.sources(&self), environment, start),
            Some(Command::Config { command }) => command.run(&self, &environment).and_then(|text| Ok(print(&text)?)),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format!("{}: {error}\n", version.name));
                ExitCode::from(if matches!(error, ServiceError::Configuration(_)) { 2 } else { 1 })
            }
        }
    }
}

/// Writes to standard output; a reader that went away has read enough.
pub(crate) fn print(text: &str) -> Result<(), BoxError> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}").into())
        }
        _ => Ok(()),
    }
}

/// Writes to standard error. Nobody can be told when it is gone.
fn complain(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}
