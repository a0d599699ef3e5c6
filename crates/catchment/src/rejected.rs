//! `catchment rejected export`: rejected events as they came, one a line, to be mended and sent again.

use crate::client::{Client, Server};
use clap::Args;
use nowwhat::Environment;
use nowwhat::cli::{complain, print};
use serde_json::Value;

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
    /// All that is known of each as JSON, one a line, also of those that are no text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn export(args: &ExportArgs, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::find(&args.server, environment)?;
    let given = [("sensor", &args.sensor), ("code", &args.code), ("since", &args.since), ("until", &args.until)];
    let given: Vec<(&str, &str)> = given.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let (mut cursor, mut left_out) = (None, Vec::new());
    loop {
        let mut parameters = given.clone();
        parameters.extend([("order", "oldest"), ("limit", "1000")]);
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let query = serde_urlencoded::to_string(&parameters)?;
        let page = client.get(&format!("/api/v1/rejected?{query}"))?;
        let none = Vec::new();
        let mut lines = String::new();
        for row in page["rejected"].as_array().unwrap_or(&none) {
            match if args.json { Some(row.to_string()) } else { line_of(row) } {
                Some(line) => lines.extend([&line, "\n"]),
                None => left_out.push(row["rejected_position"].to_string()),
            }
        }
        print(lines)?;
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if let Some(first) = left_out.first() {
        let count = left_out.len();
        complain(&format!(
            "{count} left out: cut, no text, or broken on several lines, the first at rejected_position {first}; --json shows them"
        ));
    }
    Ok(())
}

/// The event on one line; none when it is not whole, no text, or has line ends that may not become blanks.
fn line_of(row: &Value) -> Option<String> {
    let text = row["data"].as_str().filter(|_| row["cut"] == Value::Bool(false))?;
    if !text.contains(['\n', '\r']) {
        return Some(text.to_owned());
    }
    // Between the values of JSON a line end is a blank; in a text it may not stand at all.
    serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok().then(|| text.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line_or_left_out() {
        let line = |data: Value, cut: bool| line_of(&json!({ "data": data, "cut": cut }));
        assert_eq!(line(json!("{oops"), false), Some("{oops".to_owned()));
        assert_eq!(line(json!("{\n  \"time\": \"x\"\r\n}"), false), Some("{   \"time\": \"x\"  }".to_owned()));
        assert_eq!(line(json!("{\n oops"), false), None, "broken on several lines");
        assert_eq!(line(json!("{\"a\":"), true), None, "cut");
        assert_eq!(line(Value::Null, false), None, "no text");
    }
}
