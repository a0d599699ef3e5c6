//! `catchment sensor`: registering sensors, listing them, changing what is known of them.

use crate::client::{Client, Server};
use crate::data_dir::DataDir;
use crate::table;
use anyhow::ensure;
use clap::{Args, Subcommand};
use http::Method;
use nowwhat::Environment;
use nowwhat::cli::{Usage, complain, print, printable};
use nowwhat::config::{self, ByteSize, Seconds, Value as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often it is asked whether events are erased.
const ERASURE_LOOK: Duration = Duration::from_millis(200);

#[derive(Subcommand)]
pub(crate) enum SensorCommand {
    /// Register a sensor and show its token, once.
    Add(AddArgs),
    /// List all sensors.
    List(ListArgs),
    /// Show one sensor.
    Show(OneArgs),
    /// Change a sensor's labels, the zone of its times or its quota.
    Change(ChangeArgs),
    /// Refuse a sensor's tokens; its events stay.
    Disable(OneArgs),
    /// Take a disabled sensor's tokens again.
    Enable(OneArgs),
    /// Erase the events that a sensor has sent so far: from the lake, the wal and the rejected ones.
    Erase(EraseArgs),
    /// Make another token for a sensor, show it once, and let the old ones end.
    Rotate(RotateArgs),
}

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

#[derive(Args)]
pub(crate) struct OneArgs {
    /// Its id, or its name.
    sensor: String,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// A label, such as site=roof; may be repeated. All others go.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// The zone in which its times without one are read, such as Europe/Berlin; empty removes it.
    #[arg(long, value_name = "NAME")]
    time_zone: Option<String>,
    /// Events that it may send in a second; default is what all sensors have.
    #[arg(long, value_name = "NUMBER", value_parser = amount::<u64>)]
    events_per_second: Option<Amount>,
    /// Bytes that it may send in a second, such as 64KiB; default is what all sensors have.
    #[arg(long, value_name = "BYTES", value_parser = amount::<ByteSize>)]
    bytes_per_second: Option<Amount>,
    /// How much may come at once: what comes in this time, such as 10s; default is what all sensors have.
    #[arg(long, value_name = "DURATION", value_parser = burst)]
    burst: Option<Amount>,
}

/// A part of a quota.
#[derive(Clone, Copy)]
enum Amount {
    Default,
    Of(u64),
}

#[derive(Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    one: OneArgs,
    /// How long the old tokens are still taken; 0s ends them at once.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    overlap: Seconds,
}

#[derive(Args)]
pub(crate) struct EraseArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Wait until nothing of them is left.
    #[arg(long)]
    wait: bool,
}

pub(crate) fn run(command: &SensorCommand, environment: &Environment) -> anyhow::Result<()> {
    match command {
        SensorCommand::Add(args) => add(args, environment),
        SensorCommand::List(args) => list(args, environment),
        SensorCommand::Show(args) => ask(args, Method::GET, None, environment),
        SensorCommand::Change(args) => change(args, environment),
        SensorCommand::Disable(args) => ask(args, Method::PATCH, Some(&json!({ "disabled": true })), environment),
        SensorCommand::Enable(args) => ask(args, Method::PATCH, Some(&json!({ "disabled": false })), environment),
        SensorCommand::Erase(args) => erase(args, environment),
        SensorCommand::Rotate(args) => rotate(args, environment),
    }
}

/// A part of a quota of the command line; the range is the collector's affair.
fn amount<T: config::Value>(text: &str) -> Result<Amount, String> {
    if text == "default" {
        return Ok(Amount::Default);
    }
    let amount = T::parse(text).and_then(|value| u64::try_from(value.amount()?).ok());
    amount.map(Amount::Of).ok_or_else(|| format!("write {}, or default", T::EXPECTED))
}

/// The burst of a quota of the command line.
fn burst(text: &str) -> Result<Amount, String> {
    match text {
        "default" => Ok(Amount::Default),
        _ => duration(text).map(|burst| Amount::Of(burst.0)).map_err(|expected| format!("{expected}, or default")),
    }
}

/// A duration of the command line. It has its unit: a bare number is seconds to one and days to another.
pub(crate) fn duration(text: &str) -> Result<Seconds, String> {
    let seconds = Seconds::parse(text).filter(|_| text.ends_with(|sign: char| sign.is_ascii_alphabetic()));
    seconds.ok_or_else(|| "write a number with its unit, s, m, h or d, such as 30s, 10m or 7d".to_owned())
}

fn add(args: &AddArgs, environment: &Environment) -> anyhow::Result<()> {
    let labels = labels(&args.labels)?;
    let client = Client::find(&args.server, environment)?;
    let made = client.post_json("/api/v1/sensor", &json!({ "name": args.name, "labels": labels }))?;
    let shown = match args.json {
        true => format!("{made}\n"),
        false => format!(
            "sensor  {}\ntoken   {}\n\nThe token is shown only now. Send with it:\n\n  curl -H 'Authorization: Bearer {}' -H 'Content-Type: application/json' -d '{{\"temperature\": 21.5}}' {}/api/v1/events\n",
            text(&made["sensorId"]),
            text(&made["token"]),
            text(&made["token"]),
            client.url
        ),
    };
    show_and_keep(&client, &made, &shown)
}

fn list(args: &ListArgs, environment: &Environment) -> anyhow::Result<()> {
    let sensors = Client::find(&args.server, environment)?.get_pages("/api/v1/sensors", "sensors", "after")?;
    if args.json {
        return Ok(print(format!("{}\n", json!({ "sensors": sensors })))?);
    }
    let or_never = |value: &Value| value.as_str().unwrap_or("never").to_owned();
    let name = |sensor: &Value| match sensor["disabled_at"].is_null() {
        true => text(&sensor["sensorId"]).to_owned(),
        false => format!("{} (disabled)", text(&sensor["sensorId"])),
    };
    let rows: Vec<Vec<String>> = sensors
        .as_array()
        .into_iter()
        .flatten()
        .map(|s| {
            let rates = &s["rates"];
            vec![
                name(s),
                shown_labels(s),
                or_never(&s["created_at"]),
                or_never(&s["last_seen_at"]),
                rates["events_per_second"].to_string(),
                rates["bytes_per_second"].to_string(),
            ]
        })
        .collect();
    let names = ["sensor", "labels", "registered", "last seen", "events/s", "bytes/s"].map(str::to_owned).to_vec();
    Ok(print(format!("{}\n", table::of_rows(names, &rows)))?)
}

fn change(args: &ChangeArgs, environment: &Environment) -> anyhow::Result<()> {
    let mut body = json!({});
    if !args.labels.is_empty() {
        body["labels"] = json!(labels(&args.labels)?);
    }
    if let Some(zone) = &args.time_zone {
        body["time_zone"] = if zone.is_empty() { Value::Null } else { zone.as_str().into() };
    }
    let quota = [
        ("events_per_second", args.events_per_second),
        ("bytes_per_second", args.bytes_per_second),
        ("burst_seconds", args.burst),
    ];
    for (field, amount) in quota {
        match amount {
            None => {}
            Some(Amount::Default) => body["quota"][field] = Value::Null,
            Some(Amount::Of(amount)) => body["quota"][field] = amount.into(),
        }
    }
    if body == json!({}) {
        let options = "--label, --time-zone, --events-per-second, --bytes-per-second or --burst";
        return Err(Usage(format!("nothing is to change: give {options}")).into());
    }
    ask(&args.one, Method::PATCH, Some(&body), environment)
}

fn rotate(args: &RotateArgs, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&args.one.server, environment)?;
    let path = format!("{}/token", path(&client, &args.one)?);
    let made = client.post_json(&path, &json!({ "overlap_seconds": args.overlap.0 }))?;
    let shown = match args.one.json {
        true => format!("{made}\n"),
        false => format!(
            "sensor  {}\ntoken   {}\n\nThe token is shown only now. The old ones end at {}.\n",
            text(&made["sensorId"]),
            text(&made["token"]),
            text(&made["old_tokens_expire_at"])
        ),
    };
    show_and_keep(&client, &made, &shown)
}

/// Erases without a question: who gives the command means it.
fn erase(args: &EraseArgs, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&args.one.server, environment)?;
    let path = format!("{}/events", path(&client, &args.one)?);
    let mut erasure = client.ask(Method::DELETE, &path, None)?;
    while args.wait && erasure["state"] == "running" {
        std::thread::sleep(ERASURE_LOOK);
        erasure = client.get(&path)?;
    }
    let (id, until) = (text(&erasure["sensorId"]), &erasure["until_position"]);
    let shown = match (args.one.json, text(&erasure["state"])) {
        (true, _) => format!("{erasure}\n"),
        (false, "finished") => {
            format!("erased the events of {id} up to position {until}: {} were accepted\n", erasure["erased_events"])
        }
        (false, _) => {
            format!("erasing the events of {id} up to position {until}: --wait waits until nothing of them is left\n")
        }
    };
    let has_failed = args.wait && !erasure["failure"].is_null();
    if args.one.json || !has_failed {
        print(shown)?;
    }
    ensure!(!has_failed, "not erased yet, it is tried again: {}", text(&erasure["failure"]));
    Ok(())
}

/// Asks about one sensor, and shows it.
fn ask(args: &OneArgs, method: Method, body: Option<&Value>, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&args.server, environment)?;
    let sensor = client.ask(method, &path(&client, args)?, body)?;
    if args.json {
        return Ok(print(format!("{sensor}\n"))?);
    }
    let or = |value: &Value, none: &str| value.as_str().unwrap_or(none).to_owned();
    let rows = [
        ("sensor", text(&sensor["sensorId"]).to_owned()),
        ("name", text(&sensor["name"]).to_owned()),
        ("labels", shown_labels(&sensor)),
        ("time zone", or(&sensor["time_zone"], "")),
        ("registered", or(&sensor["created_at"], "")),
        ("last seen", or(&sensor["last_seen_at"], "never")),
        ("quota", shown_quota(&sensor["quota_in_force"])),
        ("rates", shown_rates(&sensor["rates"])),
        ("disabled", or(&sensor["disabled_at"], "no")),
    ];
    let line = |(name, value): (&str, String)| format!("{name:<11} {}", table::on_one_line(&value));
    let lines = rows.map(|row| line(row).trim_end().to_owned() + "\n");
    Ok(print(lines.concat())?)
}

/// Shows a token, and keeps it so that `catchment send --sensor NAME` on this machine needs none. It is shown first and whatever becomes of the
/// keeping: nobody else has it. One that cannot be kept is no failure, because a script that ends at one would lose what it was shown.
fn show_and_keep(client: &Client, made: &Value, shown: &str) -> anyhow::Result<()> {
    let printed = print(printable(shown));
    let id = registry::sensor_id_from(text(&made["sensorId"]));
    if let (Some(dir), Ok(id)) = (&client.dir, &id)
        && let Err(error) = DataDir::keep_token(&dir.sensor_token_path(id), text(&made["token"]))
    {
        complain(&format!(
            "the token is made and shown, but not kept for `catchment send --sensor {id}` on this machine: {error:#}"
        ));
    }
    Ok(printed?)
}

/// The id of the sensor whose events are asked for, by its id or its name.
pub(crate) fn id_of(given: Option<&str>) -> Result<Option<String>, Usage> {
    given.map(registry::sensor_id_from).transpose().map_err(|e| Usage(e.to_string()))
}

fn path(client: &Client, args: &OneArgs) -> anyhow::Result<String> {
    let given = args.sensor.as_str();
    let made = registry::sensor_id_from(given);
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    if made.as_deref() != Ok(given) && given.bytes().all(is_plain) {
        // An import of a program of before registered ids that no name gives: who is named exactly is meant, and not who has such a name.
        let exactly = format!("/api/v1/sensors/{given}");
        if client.get(&exactly).is_ok() {
            return Ok(exactly);
        }
    }
    Ok(format!("/api/v1/sensors/{}", made.map_err(|e| Usage(e.to_string()))?))
}

fn labels(given: &[String]) -> Result<BTreeMap<&str, &str>, Usage> {
    let pair = |label: &'_ String| Usage(format!("--label {label}: write KEY=VALUE"));
    given
        .iter()
        .map(|label| label.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| pair(label)))
        .collect()
}

fn shown_labels(sensor: &Value) -> String {
    let pairs = sensor["labels"].as_object().into_iter().flatten();
    pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect::<Vec<_>>().join(" ")
}

fn shown_quota(quota: &Value) -> String {
    let parts = [("events_per_second", "events/s"), ("bytes_per_second", "bytes/s")];
    let parts = parts.into_iter().filter(|(field, _)| !quota[field].is_null());
    let parts: Vec<String> = parts.map(|(field, unit)| format!("{} {unit}", quota[field])).collect();
    match parts[..] {
        [] => "none".to_owned(),
        _ => format!("{}, at once those of {} s", parts.join(", "), quota["burst_seconds"]),
    }
}

fn shown_rates(rates: &Value) -> String {
    format!("{} events/s, {} bytes/s", rates["events_per_second"], rates["bytes_per_second"])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
