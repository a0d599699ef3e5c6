//! `catchment audit`: who changed what.

use crate::client::{Client, Server};
use crate::table;
use clap::{Args, value_parser};
use nowwhat::Environment;
use nowwhat::cli::{print, printable};
use serde_json::{Value, json};

/// Most entries of one page.
const PAGE_MAX: u64 = 1000;

#[derive(Args)]
pub(crate) struct AuditArgs {
    /// How many entries, the newest first.
    #[arg(long, value_name = "NUMBER", default_value = "100", value_parser = value_parser!(u64).range(1..))]
    limit: u64,
    /// Those before this one: the id of an entry.
    #[arg(long, value_name = "ID")]
    before: Option<u64>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn run(args: &AuditArgs, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&args.server, environment)?;
    let (mut entries, mut before) = (Vec::new(), args.before.map(Value::from).unwrap_or_default());
    loop {
        let limit = PAGE_MAX.min(args.limit - entries.len() as u64);
        let from = if before.is_null() { String::new() } else { format!("&before={before}") };
        let page = client.get(&format!("/api/v1/audit?limit={limit}{from}"))?;
        entries.extend(page["entries"].as_array().into_iter().flatten().cloned());
        before = page["next_before"].clone();
        if before.is_null() || entries.len() as u64 >= args.limit {
            break;
        }
    }
    if args.json {
        return Ok(print(format!("{}\n", json!({ "entries": entries, "next_before": before })))?);
    }
    let columns = ["id", "at", "act", "target", "token_name", "role", "client", "request_id", "detail"];
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    };
    let rows: Vec<Vec<String>> = entries.iter().map(|e| columns.iter().map(|c| cell(&e[*c])).collect()).collect();
    let names = columns.map(|name| name.replace('_', " ")).to_vec();
    let more = if before.is_null() { String::new() } else { format!("older ones: --before {before}\n") };
    Ok(print(format!("{}\n{more}", table::of_rows(names, &rows)))?)
}
