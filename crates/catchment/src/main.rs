//! The executable: `catchment serve` and the commands that talk to it.
//!
//! Exit codes are those of [`nowwhat::cli`].

mod ask;
mod audit;
mod backup;
mod bench;
mod checksum;
mod client;
mod config;
mod data_dir;
mod demo;
mod doctor;
mod export;
mod exported;
mod import;
mod inspect;
mod line;
mod login;
mod memory;
mod own;
mod progress;
mod rejected;
mod request;
mod restore;
mod room;
mod rows;
mod send;
mod sensor;
mod serve;
mod settings;
mod table;
mod tail;
mod target;
mod token;

use clap::{Args, CommandFactory, Parser, Subcommand};
use nowwhat::Environment;
use nowwhat::cli::{self, ConfigCommand, PackageFiles, SettingsArgs};
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Keeps every event it has accepted and answers SQL about them at once.
#[derive(Parser)]
#[command(name = "catchment", version = cli::long_version(config::VERSION), max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the collector.
    Serve(ServeArgs),
    /// Register sensors, list and change them.
    Sensor {
        #[command(subcommand)]
        command: sensor::SensorCommand,
    },
    /// Make tokens of people and programs, list and revoke them.
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Show a link that signs a browser in to the page of the collector: it works once, for 5 minutes.
    Login(login::LoginArgs),
    /// Read who changed what: sensors, tokens, from where and in which request.
    Audit(audit::AuditArgs),
    /// Tell all that is known of one request: what came with it, what was rejected of it, what it changed, its lines in a log.
    Request(request::RequestArgs),
    /// Send events from a file or standard input: one a line, an array, or one object on several lines; plain or with gzip or zstd.
    Send(send::SendArgs),
    /// Read rejected events again, to mend and send them.
    Rejected {
        #[command(subcommand)]
        command: RejectedCommand,
    },
    /// Ask a question in SQL.
    Query(ask::QueryArgs),
    /// Show events as they come.
    Tail(tail::TailArgs),
    /// Write events into a file, as lines of JSON, CSV or Parquet: for another collector, or a warehouse.
    Export(export::ExportArgs),
    /// Store the events of an export, with their sensors, ids and times; those that are there already are not stored twice.
    Import(import::ImportArgs),
    /// Show, check or write the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Start a collector of its own, send this machine's readings to it, ask about them.
    Demo(demo::DemoArgs),
    /// Look at the folder, the disk, the machine, the configuration and the running collector, and say what has to be mended.
    Doctor(doctor::DoctorArgs),
    /// Show what lies in the data folder, whether a collector runs over it or not.
    Inspect {
        #[command(subcommand)]
        command: inspect::InspectCommand,
    },
    /// Copy all that is there to a folder, while the collector runs or when it is stopped; again into the same folder, only what is new.
    Backup(backup::BackupArgs),
    /// Make a data folder of a backup, after every byte of it was checked.
    Restore(restore::RestoreArgs),
    /// Load a running collector, then prove that nothing was lost or doubled.
    Bench(bench::BenchArgs),
    #[command(hide = true)]
    PackageFiles(PackageFiles),
}

#[derive(Subcommand)]
enum RejectedCommand {
    /// Write the rejected events as they came, one a line, the oldest first: mend them and give them to `catchment send`.
    Export(rejected::ExportArgs),
}

#[derive(Args)]
struct ServeArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Folder of all data [default: data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the API; port 0 takes a free one [default: 127.0.0.1:4711].
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Address of the admin listener; port 0 takes a free one [default: 127.0.0.1:4712].
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let environment = Environment::of_process();
    let done = match cli.command {
        Command::Serve(args) => serve::run(&args, environment),
        Command::Sensor { command } => sensor::run(&command, &environment),
        Command::Token { command } => token::run(&command, &environment),
        Command::Login(args) => login::run(&args, &environment),
        Command::Audit(args) => audit::run(&args, &environment),
        Command::Request(args) => request::run(&args, &environment),
        Command::Send(args) => send::run(&args, &environment),
        Command::Rejected { command: RejectedCommand::Export(args) } => rejected::export(&args, &environment),
        Command::Query(args) => ask::run(&args, &environment),
        Command::Tail(args) => tail::run(&args, &environment),
        Command::Export(args) => export::run(&args, &environment),
        Command::Import(args) => import::run(&args, &environment),
        Command::Config { command } => configuration(&command, &environment),
        Command::Demo(args) => demo::run(&args),
        Command::Doctor(args) => doctor::run(&args, &environment),
        Command::Inspect { command } => inspect::run(&command, &environment),
        Command::Backup(args) => backup::run(&args, &environment),
        Command::Restore(args) => restore::run(&args, &environment),
        Command::Bench(args) => bench::run(&args, &environment),
        Command::PackageFiles(files) => files.write(Cli::command()).map_err(Into::into),
    };
    cli::end("catchment", done)
}

/// `catchment config`.
fn configuration(command: &ConfigCommand, environment: &Environment) -> anyhow::Result<()> {
    Ok(cli::print(command.run(&config::service(), environment)?)?)
}
