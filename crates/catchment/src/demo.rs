//! `catchment demo`: a collector, and a real sensor: this machine itself.

use crate::client::{Client, Server};
use crate::own::OwnCollector;
use crate::table;
use anyhow::Context;
use clap::Args;
use nowwhat::Environment;
use nowwhat::cli::print;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use sysinfo::{Disks, Networks, System};

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// How long to send readings, one of each kind a second.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    /// Data folder of the demo's own collector.
    #[arg(long, value_name = "DIR", default_value = "data/demo")]
    data_dir: PathBuf,
}

const QUESTIONS: [(&str, &str); 3] = [
    (
        "How many readings of each kind, and until when?",
        "SELECT type, count(*) AS readings, max(time) AS last FROM events GROUP BY type ORDER BY type",
    ),
    (
        "How busy was the machine, second by second?",
        "SELECT date_trunc('second', time) AS second, (data->>'cpu_percent')::double AS cpu_percent, \
         (data->>'load_1m')::double AS load_1m FROM events WHERE type = 'load' ORDER BY position DESC LIMIT 5",
    ),
    (
        "How much memory was in use?",
        "SELECT round(min((data->>'used_bytes')::double) / 1048576) AS min_mib, \
         round(avg((data->>'used_bytes')::double) / 1048576) AS avg_mib, \
         round(max((data->>'used_bytes')::double) / 1048576) AS max_mib FROM events WHERE type = 'memory'",
    ),
];

pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let say = |text: String| print(text + "\n");
    let _collector = OwnCollector::start(&args.data_dir)?;
    let server = Server { data_dir: Some(args.data_dir.clone()), ..Server::default() };
    let client = Client::find(&server, &Environment::default())?;
    let token = sensor(&client)?;
    say(format!("a collector runs on {}; this machine sends its readings for {} seconds", client.url, args.seconds))?;
    let sent = send(&client, &token, args.seconds)?;
    say(format!("{sent} readings accepted\n"))?;
    for (question, sql) in QUESTIONS {
        let answer = client.post_json("/api/v1/query", &json!({ "sql": sql }))?;
        say(format!("{question}\n{sql}\n{}\n", table::of_answer(&answer)))?;
    }
    say(format!("the readings stay in {}", args.data_dir.display()))?;
    Ok(())
}

fn sensor(client: &Client) -> anyhow::Result<String> {
    let dir = client.dir.as_ref().context("the demo's own folder")?;
    let path = dir.sensor_token_path("this-machine");
    if let Some(token) = crate::data_dir::DataDir::token(&path)? {
        return Ok(token);
    }
    let made = client.post_json("/api/v1/sensor", &json!({ "name": "this-machine" }))?;
    let token = made["token"].as_str().context("the answer holds no token")?;
    crate::data_dir::DataDir::keep_token(&path, token)?;
    Ok(token.to_owned())
}

fn send(client: &Client, token: &str, seconds: u64) -> anyhow::Result<u64> {
    let mut system = System::new_all();
    let mut networks = Networks::new_with_refreshed_list();
    let disks = Disks::new_with_refreshed_list();
    let mut accepted = 0;
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        system.refresh_cpu_usage();
        system.refresh_memory();
        networks.refresh(true);
        let body = Value::from(readings(&system, &disks, &networks)).to_string();
        let answer = client.post("/api/v1/events", token, body, &[("content-type", "application/json")])?;
        let answer: Value = crate::client::good(answer)?.json()?;
        accepted += answer["accepted"].as_u64().unwrap_or(0);
    }
    Ok(accepted)
}

fn readings(system: &System, disks: &Disks, networks: &Networks) -> Vec<Value> {
    let load = System::load_average();
    let mut readings = vec![
        json!({ "type": "load", "data": { "cpu_percent": system.global_cpu_usage(), "load_1m": load.one, "load_5m": load.five } }),
        json!({ "type": "memory", "data": { "used_bytes": system.used_memory(), "total_bytes": system.total_memory() } }),
    ];
    for disk in disks.iter() {
        let place = disk.mount_point().to_string_lossy();
        readings.push(json!({ "type": "disk", "subject": place, "data": { "free_bytes": disk.available_space(), "total_bytes": disk.total_space() } }));
    }
    for (name, network) in networks {
        readings.push(json!({ "type": "network", "subject": name, "data": { "received_bytes": network.received(), "sent_bytes": network.transmitted() } }));
    }
    readings
}
