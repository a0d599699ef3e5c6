//! The command line: what every service answers, and its parts for callers who have a command line of their own.
//!
//! Exit codes: 0 done, 1 failed, 2 usage or configuration. A reader of the output that goes away is no failure. This is the one module
//! that writes to standard output; everything else logs.

mod package_files;

pub use package_files::PackageFiles;

use crate::config::{Ignored, Problems, Sources, Turn, prefix};
use crate::environment::Environment;
use crate::service::{Boot, BoxError, Service, ServiceError};
use crate::version::Version;
use axum::Router;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::error::Error;
use std::io::{ErrorKind, IsTerminal, Write};
use std::iter::successors;
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
    /// Show every value and where it came from; secrets are masked, and files that hold them or are named are not opened.
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
            Self::Show(args) => Ok(service.read(&args.sources(service), environment, Turn::Shown)?.show()),
            Self::Check(args) => {
                let loaded = service.load(&args.sources(service), environment)?;
                let notes = loaded.ignored.iter().filter_map(Ignored::note);
                let notes: String = notes.map(|note| note + "\n").collect();
                Ok(format!("{notes}the configuration is valid; environment {}\n", loaded.env))
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
    #[command(hide = true)]
    PackageFiles(PackageFiles),
}

impl Service {
    /// All of `main`: reads the command line, and runs or answers it.
    pub fn main(self, start: impl AsyncFnOnce(&mut Boot) -> Result<Router, BoxError>) -> ExitCode {
        let name = self.version.name;
        // The parts would tell their own purpose as that of the program.
        let command = Cli::command().about(None::<&str>).name(name).version(long_version(self.version));
        let command = command.max_term_width(120).args_conflicts_with_subcommands(true);
        let cli = Cli::from_arg_matches(&command.clone().get_matches()).unwrap_or_else(|error| error.exit());
        let environment = Environment::of_process();
        let done = match cli.command {
            None => self.run(cli.settings.sources(&self), environment, start).map_err(BoxError::from),
            Some(Command::Config { command }) => self.configuration(&command, &environment),
            Some(Command::PackageFiles(files)) => files.write(command).map_err(BoxError::from),
        };
        end(name, done)
    }

    fn configuration(&self, command: &ConfigCommand, environment: &Environment) -> Result<(), BoxError> {
        Ok(print(command.run(self, environment)?)?)
    }
}

/// What `--version` tells of a program: `0.1.0 (commit)`. To be asked once; the text stays until the process ends.
pub fn long_version(version: Version) -> &'static str {
    Box::leak(format!("{} ({})", version.version, version.commit).into_boxed_str())
}

/// The command line asks for what cannot be; a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Standard output takes no more. When that is because its reader went away, as `head` does, [`end`] sees no failure in it.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub struct PrintError(#[from] std::io::Error);

/// Writes to standard output: the bytes as they are, but to a terminal without those that could command it.
///
/// # Errors
/// [`PrintError`]: nobody reads any more what would come, too.
pub fn print(text: impl AsRef<[u8]>) -> Result<(), PrintError> {
    let mut out = std::io::stdout().lock();
    let written = match out.is_terminal() {
        true => out.write_all(&for_terminal(text.as_ref())),
        false => out.write_all(text.as_ref()),
    };
    Ok(written.and_then(|()| out.flush())?)
}

/// Bytes with what [`printable`] writes out, but line ends and tabs; they may begin and end within a character.
fn for_terminal(bytes: &[u8]) -> Vec<u8> {
    let mut shown = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        rest = match rest {
            [] => return shown,
            [b'\r', b'\n', after @ ..] => {
                shown.push(b'\n');
                after
            }
            // Those beyond ASCII have two bytes in UTF-8.
            [0xc2, c @ 0x80..=0x9f, after @ ..] | [c @ (0..=8 | 11..=31 | 127), after @ ..] => {
                shown.extend(format!("\\u{{{c:x}}}").bytes());
                after
            }
            // Whatever else steers has two or three bytes.
            [byte @ (0xd8 | 0xe2 | 0xef), after @ ..] => {
                let length = if *byte == 0xd8 { 2 } else { 3 };
                let text = rest.get(..length).and_then(|bytes| str::from_utf8(bytes).ok());
                match text.and_then(|text| text.chars().next()).filter(|c| steers(*c)) {
                    Some(c) => {
                        shown.extend(c.escape_default().map(|c| c as u8));
                        &rest[length..]
                    }
                    None => {
                        shown.push(*byte);
                        after
                    }
                }
            }
            [byte, after @ ..] => {
                shown.push(*byte);
                after
            }
        };
    }
}

/// Writes a line to standard error, [`printable`]. Nobody can be told when it is gone.
pub fn complain(line: &str) {
    drop(std::io::stderr().write_all(format!("{}\n", printable(line)).as_bytes()));
}

/// A text without characters that could command the terminal, begin a line or turn its direction: it may come from anyone. Line ends and tabs
/// stay.
pub fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if steers(c) => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// Whether a character would change how the others of its line are shown.
pub(crate) fn steers(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    c.is_control() || turns
}

/// The end of `main`: says on standard error why the program `name` failed, with all causes, and returns the exit code. What failed is
/// looked for among the causes too, below what a caller said around it.
pub fn end(name: &str, done: Result<(), impl AsRef<dyn Error + Send + Sync>>) -> ExitCode {
    let Err(error) = done else { return ExitCode::SUCCESS };
    let error: &(dyn Error + 'static) = error.as_ref();
    let causes = || successors(Some(error), |cause| (*cause).source());
    let unread = |cause: &PrintError| cause.0.kind() == ErrorKind::BrokenPipe;
    if causes().filter_map(|cause| cause.downcast_ref()).any(unread) {
        return ExitCode::SUCCESS;
    }
    complain(&format!("{name}: {}", crate::error_chain(error)));
    let mendable = |cause: &(dyn Error + 'static)| {
        cause.is::<Usage>()
            || cause.is::<Problems>()
            || matches!(cause.downcast_ref(), Some(ServiceError::Configuration(_)))
    };
    ExitCode::from(if causes().any(mendable) { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_anyone_cannot_command_the_terminal() {
        let odd = "\u{1b}]0;title\u{7}\tü\u{9b}2J\u{7f}\r\n";
        assert_eq!(printable(odd), "\\u{1b}]0;title\\u{7}\tü\\u{9b}2J\\u{7f}\\r\n");
        let shown = for_terminal(odd.as_bytes());
        assert_eq!(String::from_utf8_lossy(&shown), "\\u{1b}]0;title\\u{7}\tü\\u{9b}2J\\u{7f}\n");
        let (begin, end) = "ü\rü".as_bytes().split_at(1);
        assert_eq!([for_terminal(begin), for_terminal(end)].concat(), "ü\\u{d}ü".as_bytes(), "in parts");
    }

    #[test]
    fn what_comes_from_anyone_cannot_turn_a_line_round_or_begin_another() {
        let turned = "a\u{202e}b\u{2028}c\u{feff}d\u{2069}e\u{61c}f\u{200f}";
        let shown = r"a\u{202e}b\u{2028}c\u{feff}d\u{2069}e\u{61c}f\u{200f}";
        assert_eq!(printable(turned), shown);
        assert_eq!(String::from_utf8_lossy(&for_terminal(turned.as_bytes())), shown);
        // Letters with the same first bytes, emoji of several characters, and bytes that are cut.
        let usual = "ش€👩\u{200d}💻ﬁ\u{ff01}";
        assert_eq!((&*printable(usual), &*for_terminal(usual.as_bytes())), (usual, usual.as_bytes()));
        for cut in [&b"\xe2\x80"[..], b"\xef", b"\xd8", b"\xe2\x28\xa1"] {
            assert_eq!(for_terminal(cut), cut);
        }
    }

    fn ended(error: impl Into<BoxError>) -> String {
        format!("{:?}", end("hello", Err(error.into())))
    }

    #[test]
    fn the_exit_code_tells_what_can_be_mended_and_a_reader_that_went_away_from_a_broken_connection() {
        #[derive(Debug, thiserror::Error)]
        #[error("around")]
        struct Around(#[source] BoxError);
        let around = |error: BoxError| Around(error);
        let code = |code| format!("{:?}", ExitCode::from(code));
        let broken = || std::io::Error::from(ErrorKind::BrokenPipe);

        assert_eq!(format!("{:?}", end("hello", Ok::<(), BoxError>(()))), code(0));
        assert_eq!(ended("it broke"), code(1));
        assert_eq!(ended(Usage("say less".to_owned())), code(2));
        assert_eq!(ended(around(Usage("say less".to_owned()).into())), code(2));
        let problems = Problems(vec!["no".to_owned()]);
        assert_eq!(ended(around(problems.clone().into())), code(2));
        assert_eq!(ended(ServiceError::Configuration(problems)), code(2));
        assert_eq!(ended(around(PrintError(broken()).into())), code(0));
        assert_eq!(ended(PrintError(ErrorKind::StorageFull.into())), code(1));
        assert_eq!(ended(around(broken().into())), code(1), "of a connection");
    }
}
