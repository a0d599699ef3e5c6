//! `catchment sensor`: registering sensors and listing them.

use crate::client::{Client, Server};
use crate::table;
use clap::Args;
use nowwhat::Environment;
use nowwhat::cli::{Usage, print};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Args)]
pub(crate) struct AddArgs {
    /// Its name; its id is made from it.
    name: String,
    /// A label, such as site=roof; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Answer as JSON: {"sensorId": ..., "token": ...}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn add(args: &AddArgs, environment: &Environment) -> anyhow::Result<()> {
    let mut labels = BTreeMap::new();
    for label in &args.labels {
        let pair = label.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| Usage(format!("--label {label}: write KEY=VALUE")))?;
        labels.insert(key, value);
    }
    let client = Client::find(&args.server, environment)?;
    let made = client.post_json("/api/v1/sensor", &json!({ "name": args.name, "labels": labels }))?;
    let text = |name: &str| made[name].as_str().unwrap_or_default();
    let shown = match args.json {
        true => format!("{made}\n"),
        false => format!(
            "sensor  {}\ntoken   {}\n\nThe token is shown only now. Send with it:\n\n  curl -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' -d '{{\"temperature\": 21.5}}' {}/api/v1/events\n",
            text("sensorId"),
            text("token"),
            text("token"),
            client.url
        ),
    };
    if let Some(dir) = &client.dir {
        // So that `catchment send --sensor NAME` on this machine needs no token.
        crate::data_dir::DataDir::keep_token(&dir.sensor_token_path(text("sensorId")), text("token"))?;
    }
    Ok(print(shown)?)
}

pub(crate) fn list(args: &ListArgs, environment: &Environment) -> anyhow::Result<()> {
    let answer = Client::find(&args.server, environment)?.get("/api/v1/sensors")?;
    if args.json {
        return Ok(print(format!("{answer}\n"))?);
    }
    let none = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or("never").to_owned();
    let labels = |sensor: &Value| {
        let pairs = sensor["labels"].as_object().into_iter().flatten();
        pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect::<Vec<_>>().join(" ")
    };
    let rows: Vec<Vec<String>> = answer["sensors"]
        .as_array()
        .unwrap_or(&none)
        .iter()
        .map(|s| vec![text(&s["sensorId"]), labels(s), text(&s["created_at"]), text(&s["last_seen_at"])])
        .collect();
    let names = ["sensor", "labels", "registered", "last seen"].map(str::to_owned).to_vec();
    Ok(print(format!("{}\n", table::of_rows(names, &rows)))?)
}
