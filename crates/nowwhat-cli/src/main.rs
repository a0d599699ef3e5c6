//! `nowwhat`: writes a service on nowwhat, and what it takes to deploy one, from one set of templates.
//!
//! Exit codes: 0 done, 1 failed or, with `--check`, out of date, 2 usage.

mod deploy;
mod files;
mod new;
mod templates;
mod variables;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// Writes a service on nowwhat, and what it takes to deploy one.
#[derive(Parser)]
#[command(name = "nowwhat", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a new service into a folder of its own: it builds, is tested, packaged and deployed with what is in it.
    New(new::NewArgs),
    /// Write deploy/ of the service in this folder, as its deploy/nowwhat.toml says; what is yours there is begun where it is missing.
    Deploy(deploy::DeployArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::New(args) => new::run(&args).map_err(Into::into),
        Command::Deploy(args) => deploy::run(&args).map_err(Into::into),
    };
    end(done)
}

/// Tells what was done, or what failed.
fn end(done: Result<String, Box<dyn Error>>) -> ExitCode {
    match done {
        Ok(text) => {
            // That nobody reads it is no failure.
            let _ = std::io::stdout().lock().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let (mut text, mut cause) = (error.to_string(), error.source());
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            let _ = writeln!(std::io::stderr().lock(), "nowwhat: {text}");
            ExitCode::FAILURE
        }
    }
}
