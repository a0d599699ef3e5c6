//! `catchment query`: questions in SQL, their answers on standard output or in a file; without a statement, at a terminal, a shell.

mod answer;
mod complete;
mod describe;
mod flaw;
mod history;
mod names;
mod shell;
mod statements;

use crate::client::{Client, Server};
use crate::target::{Existing, Target};
use answer::{Asking, Form, Layout, Out};
use anyhow::{Context, bail, ensure};
use clap::{Args, value_parser};
use nowwhat::Environment;
use nowwhat::cli::{Usage, complain, print};
use nowwhat::config::ByteSize;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

/// Largest text that is read; a collector takes less by default.
const SQL_BYTES_MAX: ByteSize = ByteSize(1 << 20);
/// Most rows of a table when none are named.
const TABLE_ROWS: u64 = 1000;

#[derive(Args)]
pub(crate) struct QueryArgs {
    /// The statement; - reads statements, each with a semicolon at its end, from standard input. Without it: the same, or a shell at a terminal.
    sql: Option<String>,
    /// The form of the answer [default: what the name of the file ends with, else table].
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// File to write the answer to, such as answer.csv, answer.ndjson, answer.parquet or answer.arrows (a stream of Arrow IPC).
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write over the file when it is there.
    #[arg(long, requires = "output")]
    overwrite: bool,
    /// Most rows wanted [default: 1000 as a table, else the server's limit].
    #[arg(long, value_name = "ROWS")]
    limit: Option<u64>,
    /// Time it may take, from 1; the collector gives at most its query.timeout_seconds_max.
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(1..))]
    timeout_seconds: Option<u64>,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn run(args: &QueryArgs, environment: &Environment) -> anyhow::Result<()> {
    let form = Form::of(args.format, args.output.as_deref())?;
    let existing = if args.overwrite { Existing::Replaced } else { Existing::Kept };
    let target = args.output.as_deref().map_or(Ok(Target::Output), |path| Target::of(path, existing))?;
    let is_shell = args.sql.is_none() && io::stdin().is_terminal() && io::stdout().is_terminal();
    if is_shell && args.output.is_some() {
        return Err(Usage("--output takes the answer to one statement: name the statement too".to_owned()).into());
    }
    if form.is_binary() && target.part().is_none() && io::stdout().is_terminal() {
        let advice = format!("{} is nothing to be read on a terminal: name a file with --output", form.name());
        return Err(Usage(advice).into());
    }
    let client = Client::find(&args.server, environment)?;
    let (limit, timeout_seconds) = (args.limit, args.timeout_seconds);
    let asking = Asking { form, layout: Layout::Table, limit, timeout_seconds };
    if is_shell {
        return shell::run(client, asking, &args.server, environment);
    }
    match args.sql.as_deref() {
        None | Some("-") => {
            let text = text(io::stdin()).context("cannot read the statement")?;
            let split = statements::split(&text);
            let mut statements = split.whole;
            // The server says what is wrong with nothing.
            if !split.rest.is_empty() || statements.is_empty() {
                statements.push(split.rest);
            }
            if statements.len() > 1 && (form.is_binary() || target.part().is_some()) {
                let what = if form.is_binary() { form.name() } else { "--output" };
                let advice = format!("{what} takes the answer to one statement: the input has {}", statements.len());
                return Err(Usage(advice).into());
            }
            statements.iter().try_for_each(|sql| to(&target, &client, &asking, sql))
        }
        Some(sql) => to(&target, &client, &asking, sql),
    }
}

/// Asks a statement; the answer goes to `target`.
fn to(target: &Target, client: &Client, asking: &Asking, sql: &str) -> anyhow::Result<()> {
    let mut out = Out::of(target);
    let asked = client.runtime.block_on(asking.ask(client, sql, |bytes| out.write(bytes)));
    if let Err(error) = &asked
        && let Some(marked) = flaw::marked(error, sql)
    {
        complain(&marked);
    }
    match (asked, target.part()) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(_)) => Ok(print(format!("{} bytes\n", out.finish()?))?),
        (Err(error), Some(part)) if out.has_begun() => {
            bail!("{error:#}: {} is a part of the answer and no whole one", part.display())
        }
        (Err(error), _) => Err(error),
    }
}

/// All of `input`.
fn text(input: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    input.take(SQL_BYTES_MAX.0 + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= SQL_BYTES_MAX.0, "it is larger than {SQL_BYTES_MAX}: shorten it, or ask in parts");
    Ok(String::from_utf8(bytes)?)
}
