//! The shell: statements are typed and answered, until it is left.

use super::answer::{Asking, Form, Layout};
use super::complete::Typing;
use super::history::{ENTRIES_MAX, History};
use super::names::Names;
use super::statements::{self, Within};
use super::{describe, flaw};
use crate::client::{Client, Ended, Server};
use anyhow::{Context, bail};
use nowwhat::Environment;
use nowwhat::cli::{PrintError, complain, print};
use rustyline::config::CompletionType;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// The commands, what may follow them, and what they do.
pub(super) const COMMANDS: [(&str, &str, &str); 7] = [
    ("\\d", "[TABLE]", "show the tables, or the columns of one and the fields of data"),
    ("\\x", "[on|off]", "show each row with a line for each column, or no longer"),
    ("\\timing", "[on|off]", "show no longer how long an answer took, or again: it is on at the beginning"),
    ("\\format", "FORM", "answers as table, json, ndjson or csv; as a table they have at most 1,000 rows"),
    ("\\h", "", "show this"),
    ("\\?", "", "show this"),
    ("\\q", "", "leave, as Ctrl-D does"),
];

const PROMPT: &str = "catchment> ";
/// While a statement goes on.
const PROMPT_ON: &str = "        -> ";
/// While something between quotation marks goes on.
const PROMPT_QUOTED: &str = "        '> ";

/// Runs it. What fails is told, and the next statement can be typed.
pub(super) fn run(client: Client, asking: Asking, server: &Server, environment: &Environment) -> anyhow::Result<()> {
    let config = Config::builder()
        .max_history_size(ENTRIES_MAX)
        .and_then(|config| config.history_ignore_dups(true))
        .context("cannot keep what is typed")?
        .completion_type(CompletionType::List)
        .build();
    let mut editor: Editor<Typing, FileHistory> = Editor::with_config(config).context("cannot use the terminal")?;
    let names = Names::default();
    editor.set_helper(Some(Typing { names: names.clone(), before: String::new() }));
    let mut history = History::open(&mut editor, environment);
    print(format!("Asking {}. A statement ends with a semicolon; \\? shows what else there is.\n", client.url))?;
    let mut shell = Shell { client: Arc::new(client), server, environment, asking, timing: true };
    let mut input = String::new();
    loop {
        names.refresh(&shell.client);
        if let Some(typing) = editor.helper_mut() {
            typing.before.clone_from(&input);
        }
        let within = statements::end(&input);
        let prompt = match within {
            _ if input.is_empty() => PROMPT,
            Within::Statement => PROMPT_ON,
            Within::Quoted => PROMPT_QUOTED,
        };
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted | ReadlineError::Signal(rustyline::error::Signal::Interrupt)) => {
                input.clear();
                continue;
            }
            Err(ReadlineError::Signal(_)) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            // A byte of another encoding: what was typed is gone, the shell is not.
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                print("what was typed is no UTF-8, and was left out\n")?;
                input.clear();
                continue;
            }
            Err(error) => return Err(error).context("cannot read from the terminal"),
        };
        let command = line.trim().trim_end_matches(';').trim_end();
        if within == Within::Statement && (command.starts_with('\\') || (input.is_empty() && WORDS.contains(&command)))
        {
            history.add(&mut editor, line.trim());
            match shell.command(command)? {
                After::Next => continue,
                After::Leave => return Ok(()),
            }
        }
        input += &line;
        input.push('\n');
        let split = statements::split(&input);
        if !split.rest.is_empty() {
            continue;
        }
        if !split.whole.is_empty() {
            history.add(&mut editor, input.trim());
        }
        split.whole.iter().try_for_each(|sql| shell.statement(sql))?;
        input.clear();
    }
}

/// What other shells are left by, or asked for help.
const WORDS: [&str; 3] = ["exit", "quit", "help"];

enum After {
    Next,
    Leave,
}

struct Shell<'a> {
    client: Arc<Client>,
    server: &'a Server,
    environment: &'a Environment,
    asking: Asking,
    timing: bool,
}

impl Shell<'_> {
    fn statement(&mut self, sql: &str) -> anyhow::Result<()> {
        let (asking, began) = (self.asking, Instant::now());
        let asked = self.attempt(async |client| asking.ask(client, sql, |bytes| Ok(print(bytes)?)).await);
        let marked = asked.as_ref().err().and_then(|error| flaw::marked(error, sql));
        told(asked)?;
        if let Some(marked) = marked {
            complain(&marked);
        }
        if self.timing { Ok(print(format!("Time: {}\n", shown(began.elapsed())))?) } else { Ok(()) }
    }

    fn command(&mut self, line: &str) -> anyhow::Result<After> {
        let mut words = line.split_whitespace();
        let (name, argument) = (words.next().unwrap_or_default(), words.next());
        let done = match (name, argument) {
            ("\\q" | "exit" | "quit", _) => return Ok(After::Leave),
            ("\\?" | "\\h" | "help", _) => Ok(help()),
            ("\\d", None) => return self.describe(async |client| describe::tables(client).await),
            ("\\d", Some(table)) => return self.describe(async |client| describe::table(client, table).await),
            ("\\x", _) => self.expand(argument),
            ("\\timing", _) => wanted(argument).map(|is_on| {
                self.timing = is_on.unwrap_or(!self.timing);
                format!("Timing is {}.\n", if self.timing { "on" } else { "off" })
            }),
            ("\\format", _) => self.form(argument.unwrap_or_default()),
            _ => {
                let names: Vec<&str> = COMMANDS.iter().map(|(name, ..)| *name).collect();
                Err(anyhow::anyhow!("{name} is no command here: there are {}", names.join(", ")))
            }
        };
        told(done.and_then(|text| Ok(Some(print(text)?))))?;
        Ok(After::Next)
    }

    fn describe(&mut self, what: impl AsyncFn(&Client) -> anyhow::Result<String>) -> anyhow::Result<After> {
        told(self.attempt(async |client| Ok(print(what(client).await?)?)))?;
        Ok(After::Next)
    }

    fn expand(&mut self, argument: Option<&str>) -> anyhow::Result<String> {
        let is_expanded = wanted(argument)?.unwrap_or(self.asking.layout == Layout::Table);
        self.asking.layout = if is_expanded { Layout::Expanded } else { Layout::Table };
        Ok(format!("Rows are shown {}.\n", if is_expanded { "with a line for each column" } else { "as a table" }))
    }

    fn form(&mut self, name: &str) -> anyhow::Result<String> {
        self.asking.form = match name {
            "table" => Form::Table,
            "json" => Form::Json,
            "ndjson" => Form::Ndjson,
            "csv" => Form::Csv,
            _ => bail!(
                "\\format takes table, json, ndjson or csv; --output of the command writes files, also Parquet and Arrow"
            ),
        };
        Ok(format!("Answers come as {}.\n", self.asking.form.name()))
    }

    /// Does it, unless Ctrl-C comes first: then none. A collector that was started anew is looked for again.
    fn attempt<T>(&mut self, work: impl AsyncFn(&Client) -> anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        match unless_interrupted(&self.client, work(&self.client)) {
            Err(error) if error.is::<Ended>() => {
                self.client = Arc::new(Client::find(self.server, self.environment)?);
                unless_interrupted(&self.client, work(&self.client))
            }
            done => done,
        }
    }
}

fn unless_interrupted<T>(client: &Client, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Option<T>> {
    client.runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
        tokio::select! {
            biased;
            _ = interrupt.recv() => Ok(None),
            done = work => done.map(Some),
        }
    })
}

/// Tells what failed; only a terminal that is gone ends the shell.
fn told<T>(done: anyhow::Result<Option<T>>) -> anyhow::Result<()> {
    match done {
        Ok(Some(_)) => {}
        Ok(None) => complain("cancelled"),
        Err(error) if error.is::<PrintError>() => return Err(error),
        Err(error) => complain(&format!("ERROR: {error:#}")),
    }
    Ok(())
}

/// What is said behind a switch; none to turn it over.
fn wanted(argument: Option<&str>) -> anyhow::Result<Option<bool>> {
    match argument {
        None => Ok(None),
        Some("on") => Ok(Some(true)),
        Some("off") => Ok(Some(false)),
        Some(other) => bail!("{other} is neither on nor off"),
    }
}

fn help() -> String {
    let mut text = String::from("A statement ends with a semicolon, and may have several lines.\n\n");
    for (name, argument, what) in COMMANDS {
        text += &format!("  {:18}{what}\n", format!("{name} {argument}"));
    }
    text += "\n  Tab completes words of SQL, functions, tables, columns and fields.\n  Up, Down and Ctrl-R find what was typed before.\n  \
             Ctrl-C clears what is typed, and cancels a question that runs.\n";
    text
}

fn shown(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1000.0),
        seconds => format!("{seconds:.2} s"),
    }
}
