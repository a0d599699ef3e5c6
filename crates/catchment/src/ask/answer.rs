//! Answers: their forms, asking for them, and where they go.

use super::TABLE_ROWS;
use crate::client::{ANSWER_BYTES_MAX, Client};
use crate::table;
use crate::target::{Sink, Target};
use anyhow::Context;
use clap::ValueEnum;
use nowwhat::cli::{Usage, print};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    Table,
    Json,
    Ndjson,
    Csv,
    Arrow,
    Parquet,
}

impl Form {
    /// The form that is asked for, or that the ending of the file's name tells.
    ///
    /// # Errors
    /// It tells none.
    pub(super) fn of(asked: Option<Self>, output: Option<&Path>) -> Result<Self, Usage> {
        let path = match (asked, output) {
            (Some(form), _) => return Ok(form),
            (None, Some(path)) if path.as_os_str() != "-" => path,
            (None, _) => return Ok(Self::Table),
        };
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("json") => Ok(Self::Json),
            Some("ndjson" | "jsonl") => Ok(Self::Ndjson),
            Some("csv") => Ok(Self::Csv),
            Some("arrow" | "arrows") => Ok(Self::Arrow),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(Usage(format!(
                "the ending of {} tells no form: end it with .csv, .ndjson, .json, .parquet or .arrows, or say --format",
                path.display()
            ))),
        }
    }

    /// As it is named by those who use it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Json => "JSON",
            Self::Ndjson => "NDJSON",
            Self::Csv => "CSV",
            Self::Arrow => "Arrow IPC",
            Self::Parquet => "Parquet",
        }
    }

    /// Whether it is none for people's eyes.
    pub(super) fn is_binary(self) -> bool {
        matches!(self, Self::Arrow | Self::Parquet)
    }

    fn accept(self) -> &'static str {
        match self {
            Self::Table | Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// How the rows of a table are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Table,
    /// A line for each column.
    Expanded,
}

/// How questions are asked.
#[derive(Clone, Copy)]
pub(super) struct Asking {
    pub(super) form: Form,
    pub(super) layout: Layout,
    pub(super) limit: Option<u64>,
    pub(super) timeout_seconds: Option<u64>,
}

impl Asking {
    /// Asks a statement, and gives the answer to `take` as it comes. Dropped before its end, the collector stops it.
    pub(super) async fn ask(
        &self,
        client: &Client,
        sql: &str,
        mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let limit = self.limit.or((self.form == Form::Table).then_some(TABLE_ROWS));
        let body = json!({ "sql": sql, "limit": limit, "timeout_seconds": self.timeout_seconds });
        let mut arriving = client.answered("/api/v1/query", &body, self.form.accept()).await?;
        let broken = "the answer broke off: what came before is not all of it";
        if self.form == Form::Table {
            let answer: Value = arriving.whole(ANSWER_BYTES_MAX).await.context(broken)?.json()?;
            let text = match self.layout {
                Layout::Table => table::of_answer(&answer),
                Layout::Expanded => table::expanded(&answer),
            };
            return take(format!("{text}\n").as_bytes());
        }
        while let Some(part) = arriving.next().await.context(broken)? {
            take(&part)?;
        }
        Ok(())
    }
}

/// Where an answer is written. A file is begun with the first bytes: an error before leaves none.
pub(super) struct Out<'a> {
    target: &'a Target,
    sink: Option<Sink>,
}

impl<'a> Out<'a> {
    pub(super) fn of(target: &'a Target) -> Self {
        Self { target, sink: None }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let Some(part) = self.target.part() else { return Ok(print(bytes)?) };
        let cannot = || format!("cannot write {}", part.display());
        self.sink()?.write_all(bytes).with_context(cannot)
    }

    fn sink(&mut self) -> anyhow::Result<&mut Sink> {
        Ok(match self.sink.take() {
            Some(sink) => self.sink.insert(sink),
            None => self.sink.insert(self.target.open()?),
        })
    }

    /// Whether something of a file is there.
    pub(super) fn has_begun(&self) -> bool {
        self.sink.is_some()
    }

    /// Gives the file its name, also one without a byte; returns its size.
    pub(super) fn finish(mut self) -> anyhow::Result<u64> {
        self.sink()?;
        let Some(sink) = self.sink else { return Ok(0) };
        let written = sink.written();
        self.target.finish(sink)?;
        Ok(written.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_a_name_tells_the_form_of_an_answer() {
        let of = |name: &str, asked: Option<Form>| Form::of(asked, Some(Path::new(name))).map_err(|e| e.to_string());
        assert_eq!(of("a.d/b.NDJSON", None), Ok(Form::Ndjson));
        assert_eq!(of("b.json", None), Ok(Form::Json));
        assert_eq!(of("b.arrows", None), Ok(Form::Arrow));
        assert_eq!(of("b.parquet", None), Ok(Form::Parquet));
        assert_eq!(of("b.parquet", Some(Form::Csv)), Ok(Form::Csv));
        assert_eq!(of("-", None), Ok(Form::Table));
        assert!(of("b.csv.gz", None).expect_err("none").contains("--format"));
        assert_eq!(Form::of(None, None).map_err(|e| e.to_string()), Ok(Form::Table));
    }
}
