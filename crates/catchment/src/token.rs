//! `catchment token`: tokens of people and programs.

use crate::client::{Client, Server};
use crate::sensor::duration;
use crate::table;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, value_parser};
use http::Method;
use nowwhat::Environment;
use nowwhat::cli::{Usage, print};
use nowwhat::config::Seconds;
use registry::Role;
use serde_json::{Value, json};

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and show it, once.
    Add(AddArgs),
    /// List all tokens, without the tokens themselves.
    List(ListArgs),
    /// Refuse a token from now on.
    Revoke(RevokeArgs),
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// What it is called: who has it, or for what.
    name: String,
    /// What it is for: reader asks, operator changes sensors, enrol registers sensors, send_only and sensor send as --sensor, admin does all.
    #[arg(long, value_parser = PossibleValuesParser::new(Role::ALL.map(Role::name)))]
    role: String,
    /// Whose events it sends; for the roles sensor and send_only.
    #[arg(long, value_name = "ID")]
    sensor: Option<String>,
    /// When it ends, such as 30d [default: never].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires_in: Option<Seconds>,
    /// How many sensors it may register; for the role enrol [default: any number].
    #[arg(long, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// Answer as JSON: {"id": ..., "token": ..., ...}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Only those of this sensor.
    #[arg(long, value_name = "ID")]
    sensor: Option<String>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
pub(crate) struct RevokeArgs {
    /// Its id, as `catchment token list` shows it.
    id: u64,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn run(command: &TokenCommand, environment: &Environment) -> anyhow::Result<()> {
    match command {
        TokenCommand::Add(args) => add(args, environment),
        TokenCommand::List(args) => list(args, environment),
        TokenCommand::Revoke(args) => revoke(args, environment),
    }
}

fn add(args: &AddArgs, environment: &Environment) -> anyhow::Result<()> {
    let mut body = json!({ "name": args.name, "role": args.role });
    let fields = [
        ("sensor", args.sensor.as_deref().map(Value::from)),
        ("expires_in_seconds", args.expires_in.map(|seconds| seconds.0.into())),
        ("uses", args.uses.map(Value::from)),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    let made = Client::find(&args.server, environment)?.post_json("/api/v1/tokens", &body)?;
    let shown = match args.json {
        true => format!("{made}\n"),
        false => format!(
            "id     {}\nrole   {}\ntoken  {}\n\nThe token is shown only now. Commands take it from CATCHMENT_TOKEN.\n",
            made["id"],
            args.role,
            made["token"].as_str().unwrap_or_default()
        ),
    };
    Ok(print(shown)?)
}

fn list(args: &ListArgs, environment: &Environment) -> anyhow::Result<()> {
    let path = match &args.sensor {
        Some(name) => {
            format!("/api/v1/tokens?sensor={}", registry::sensor_id_from(name).map_err(|e| Usage(e.to_string()))?)
        }
        None => "/api/v1/tokens".to_owned(),
    };
    let tokens = Client::find(&args.server, environment)?.get_pages(&path, "tokens", "before")?;
    if args.json {
        return Ok(print(format!("{}\n", json!({ "tokens": tokens })))?);
    }
    let columns = ["id", "name", "role", "sensor", "last_used_at", "expires_at", "uses_left", "revoked_at"];
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let tokens = tokens.as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = tokens.map(|t| columns.iter().map(|c| cell(&t[*c])).collect()).collect();
    let names = columns.map(|name| name.trim_end_matches("_at").replace('_', " ")).to_vec();
    Ok(print(format!("{}\n", table::of_rows(names, &rows)))?)
}

fn revoke(args: &RevokeArgs, environment: &Environment) -> anyhow::Result<()> {
    Client::find(&args.server, environment)?.ask(Method::DELETE, &format!("/api/v1/tokens/{}", args.id), None)?;
    Ok(print(format!("token {} is refused from now on\n", args.id))?)
}
