//! `catchment query`: a question in SQL, its answer on standard output.

use crate::client::{Client, Server};
use crate::table;
use anyhow::Context;
use clap::{Args, ValueEnum};
use nowwhat::Environment;
use nowwhat::cli::print;
use serde_json::json;

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
    /// Time it may take.
    #[arg(long, value_name = "SECONDS")]
    timeout_seconds: Option<u64>,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn run(args: &QueryArgs, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&args.server, environment)?;
    let sql = match args.sql.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).context("cannot read the statement")?,
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
