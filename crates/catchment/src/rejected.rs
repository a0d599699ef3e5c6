//! `catchment rejected export`: rejected events with how they were sent, one a line, to be mended and sent again.
//!
//! It ends with what was rejected when it began: else one that `catchment send` reads would be given anew what is rejected again.

use crate::client::{Client, Server};
use crate::exported::{LeftOut, line_of};
use crate::sensor;
use clap::Args;
use nowwhat::Environment;
use nowwhat::cli::{complain, print};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Those of one sensor, by its id or its name.
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
    let sensor = sensor::id_of(args.sensor.as_deref())?;
    let client = Client::find(&args.server, environment)?;
    let given = [("sensor", &sensor), ("code", &args.code), ("since", &args.since), ("until", &args.until)];
    let given: Vec<(&str, &str)> = given.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let page = |parameters: &[(&str, &str)]| {
        let query = serde_urlencoded::to_string([&given[..], parameters].concat())?;
        client.get(&format!("/api/v1/rejected?{query}"))
    };
    let position = |row: &Value| row["rejected_position"].as_i64();
    let begun = Extent::of(&page(&[("limit", "1")])?);
    let (mut cursor, mut came): (Option<String>, i64) = (None, 0);
    let mut left_out: BTreeMap<LeftOut, Vec<String>> = BTreeMap::new();
    let ended = loop {
        let mut parameters = vec![("order", "oldest"), ("limit", "1000")];
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = page(&parameters)?;
        let (rows, mut lines) = (page["rejected"].as_array().map_or(&[][..], Vec::as_slice), String::new());
        for row in rows.iter().filter(|row| position(row) <= Some(begun.last_position)) {
            came += 1;
            match if args.json { Ok(row.to_string()) } else { line_of(row) } {
                Ok(line) => lines.extend([&line, "\n"]),
                Err(why) => left_out.entry(why).or_default().push(row["rejected_position"].to_string()),
            }
        }
        print(lines)?;
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() || rows.last().and_then(position) >= Some(begun.last_position) {
            break Extent::of(&page);
        }
    };
    let missed = missed(begun, ended, given.is_empty().then_some(came));
    if missed > 0 {
        complain(&format!(
            "up to {missed} left out: pushed out or expired while the others were exported, see rejected.bytes_max and rejected.age_seconds"
        ));
    }
    for (why, positions) in left_out {
        let (count, first, why) = (positions.len(), &positions[0], why.why());
        complain(&format!("{count} left out, the first at rejected_position {first}, {why}; --json shows them"));
    }
    Ok(())
}

/// What a page says of the table: how many rows it had, and how many came until then.
#[derive(Clone, Copy)]
struct Extent {
    kept: i64,
    last_position: i64,
}

impl Extent {
    fn of(page: &Value) -> Self {
        let number = |name: &str| page[name].as_i64().unwrap_or(0);
        Self { kept: number("kept_total"), last_position: number("last_position") }
    }

    fn gone(self) -> i64 {
        self.last_position - self.kept
    }
}

/// How many went, at most, between the beginning and the end of an export before they were read; where no parameter left some out, so many `came`.
fn missed(begun: Extent, ended: Extent, came: Option<i64>) -> i64 {
    let gone = ended.gone() - begun.gone();
    came.map_or(gone, |came| gone.min(begun.kept - came))
}
