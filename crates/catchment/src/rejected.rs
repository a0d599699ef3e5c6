//! `catchment rejected export`: rejected events with how they were sent, one a line, to be mended and sent again.
//!
//! It ends with what was rejected when it began: else one that `catchment send` reads would be given anew what is rejected again.

use crate::client::{Client, Server};
use crate::exported::{LeftOut, line_of};
use clap::Args;
use nowwhat::Environment;
use nowwhat::cli::{Usage, complain, print};
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
    let sensor = args.sensor.as_deref().map(registry::sensor_id_from).transpose().map_err(|e| Usage(e.to_string()))?;
    let client = Client::find(&args.server, environment)?;
    let given = [("sensor", &sensor), ("code", &args.code), ("since", &args.since), ("until", &args.until)];
    let given: Vec<(&str, &str)> = given.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let page = |parameters: &[(&str, &str)]| {
        let query = serde_urlencoded::to_string([&given[..], parameters].concat())?;
        client.get(&format!("/api/v1/rejected?{query}"))
    };
    let position = |row: &Value| row["rejected_position"].as_i64();
    let newest = page(&[("order", "newest"), ("limit", "1")])?;
    let last = position(&newest["rejected"][0]);
    let mut gone = Gone::when(&newest);
    let mut cursor: Option<String> = None;
    let mut left_out: BTreeMap<LeftOut, Vec<String>> = BTreeMap::new();
    loop {
        let mut parameters = vec![("order", "oldest"), ("limit", "1000")];
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = page(&parameters)?;
        let (rows, mut lines) = (page["rejected"].as_array().map_or(&[][..], Vec::as_slice), String::new());
        for row in rows.iter().filter(|row| position(row) <= last) {
            match if args.json { Ok(row.to_string()) } else { line_of(row) } {
                Ok(line) => lines.extend([&line, "\n"]),
                Err(why) => left_out.entry(why).or_default().push(row["rejected_position"].to_string()),
            }
        }
        print(lines)?;
        gone.see(&page, rows.iter().filter_map(position).filter(|position| Some(*position) <= last));
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() || rows.last().and_then(position) >= last {
            break;
        }
    }
    if let Some(complaint) = gone.complaint(last, &given) {
        complain(&complaint);
    }
    for (why, positions) in left_out {
        let (count, first, why) = (positions.len(), &positions[0], why.why());
        complain(&format!("{count} left out, the first at rejected_position {first}, {why}; --json shows them"));
    }
    Ok(())
}

/// What was pushed out or expired before its page was read.
struct Gone {
    /// The last position that was gone when the export began: beyond it all rows were there.
    before: i64,
    /// How many of those beyond it came.
    came: i64,
    /// The last position that came or would have come.
    read: i64,
    /// Positions between which rows went before they were read.
    lost: Option<(i64, i64)>,
}

impl Gone {
    fn when(first: &Value) -> Self {
        let before = first["gone_position"].as_i64().unwrap_or(0);
        Self { before, came: 0, read: before, lost: None }
    }

    /// Sees the positions of the next page.
    fn see(&mut self, page: &Value, positions: impl Iterator<Item = i64>) {
        let gone = page["gone_position"].as_i64().unwrap_or(0);
        if gone > self.read {
            let (from, _) = self.lost.unwrap_or((self.read + 1, gone));
            self.lost = Some((from, gone));
        }
        for position in positions.filter(|position| *position > self.before) {
            self.came += 1;
            self.read = self.read.max(position);
        }
    }

    /// What to say of an export up to `last`, with the number of rows where no parameter left some out.
    fn complaint(&self, last: Option<i64>, given: &[(&str, &str)]) -> Option<String> {
        let asks_for_all = given.is_empty();
        let (from, to) = self.lost?;
        let (to, missed) = (to.min(last?), last? - self.before - self.came);
        if asks_for_all && missed <= 0 || from > to {
            return None;
        }
        let how_many = if asks_for_all { missed.to_string() } else { format!("up to {}", to - from + 1) };
        Some(format!(
            "{how_many} left out between rejected_position {from} and {to}: pushed out or expired while the others were exported, see \
             rejected.bytes_max and rejected.age_seconds"
        ))
    }
}
