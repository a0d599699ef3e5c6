//! `catchment rejected export`: rejected events with how they were sent, one a line, to be mended and sent again.

use crate::client::{Client, Server};
use crate::exported::{LeftOut, line_of};
use clap::Args;
use nowwhat::Environment;
use nowwhat::cli::{complain, print};
use std::collections::BTreeMap;

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Those of one sensor.
    #[arg(long, value_name = "ID")]
    sensor: Option<String>,
    /// Those rejected for one reason, such as time_without_zone.
    #[arg(long)]
    code: Option<String>,
    /// Those that came at this time or later, such as 2026-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Those that came before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// All that is known of each as the API answers it, one a line, also of those that cannot be sent again; `send` does not take these.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn export(args: &ExportArgs, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&args.server, environment)?;
    let given = [("sensor", &args.sensor), ("code", &args.code), ("since", &args.since), ("until", &args.until)];
    let given: Vec<(&str, &str)> = given.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let mut cursor = None;
    let mut left_out: BTreeMap<LeftOut, Vec<String>> = BTreeMap::new();
    loop {
        let mut parameters = given.clone();
        parameters.extend([("order", "oldest"), ("limit", "1000")]);
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let query = serde_urlencoded::to_string(&parameters)?;
        let page = client.get(&format!("/api/v1/rejected?{query}"))?;
        let none = Vec::new();
        let mut lines = String::new();
        for row in page["rejected"].as_array().unwrap_or(&none) {
            match if args.json { Ok(row.to_string()) } else { line_of(row) } {
                Ok(line) => lines.extend([&line, "\n"]),
                Err(why) => left_out.entry(why).or_default().push(row["rejected_position"].to_string()),
            }
        }
        print(lines)?;
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    for (why, positions) in left_out {
        let (count, first, why) = (positions.len(), &positions[0], why.why());
        complain(&format!("{count} left out, the first at rejected_position {first}, {why}; --json shows them"));
    }
    Ok(())
}
