//! `catchment query`: a question in SQL, its answer on standard output.

use crate::client::{Client, Server};
use crate::table;
use anyhow::{Context, ensure};
use clap::{Args, ValueEnum, value_parser};
use nowwhat::Environment;
use nowwhat::cli::print;
use nowwhat::config::ByteSize;
use serde_json::json;
use std::io::Read;

/// Largest statement that is read; a collector takes less by default.
const SQL_BYTES_MAX: ByteSize = ByteSize(1 << 20);

/// The form of the answer.
#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Table,
    Json,
    Ndjson,
    Csv,
}

impl Form {
    fn accept(self) -> &'static str {
        match self {
            Self::Table | Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }
}

#[derive(Args)]
pub(crate) struct QueryArgs {
    /// The statement; - reads it from standard input.
    sql: String,
    /// The form of the answer.
    #[arg(long, value_enum, default_value = "table")]
    format: Form,
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
    let client = Client::find(&args.server, environment)?;
    let sql = match args.sql.as_str() {
        "-" => statement(std::io::stdin()).context("cannot read the statement")?,
        sql => sql.to_owned(),
    };
    let limit = args.limit.or(if matches!(args.format, Form::Table) { Some(1000) } else { None });
    let body = json!({ "sql": sql, "limit": limit, "timeout_seconds": args.timeout_seconds });
    match args.format {
        Form::Table => Ok(print(format!("{}\n", table::of_answer(&client.post_json("/api/v1/query", &body)?)))?),
        Form::Json | Form::Ndjson | Form::Csv => {
            client.post_json_for_parts("/api/v1/query", &body, args.format.accept(), |part| Ok(print(part)?))
        }
    }
}

/// All of `input`.
fn statement(input: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    input.take(SQL_BYTES_MAX.0 + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= SQL_BYTES_MAX.0, "it is larger than {SQL_BYTES_MAX}: shorten it, or ask in parts");
    Ok(String::from_utf8(bytes)?)
}
