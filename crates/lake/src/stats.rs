//! Statistics of a data file, as the Delta protocol writes them ("Per-file Statistics"): what a reader can skip a file by.
//!
//! Times are rounded outwards to milliseconds, because readers cut them there; long texts only bound from below.

use arrow::array::{Array, AsArray};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use event::REST;
use serde_json::{Map, Value, json};

/// The columns with statistics. Never ids or data: statistics outlive an erasure in the Delta log.
pub(crate) const STATS_COLUMNS: &str = "position,sensor,type,time,received_at";

/// Longer texts are no bound from above.
const TEXT_CHARS_MAX: usize = 64;

/// The smallest and the largest value of a column, both inclusive; none where it is not known.
#[derive(Clone, Debug, PartialEq)]
pub struct Range<T> {
    /// No value is smaller.
    pub min: Option<T>,
    /// No value is larger.
    pub max: Option<T>,
}

impl<T> Default for Range<T> {
    fn default() -> Self {
        Self { min: None, max: None }
    }
}

impl<T: PartialOrd> Range<T> {
    fn widen(&mut self, min: Option<T>, max: Option<T>) {
        if let Some(min) = min
            && self.min.as_ref().is_none_or(|m| min < *m)
        {
            self.min = Some(min);
        }
        if let Some(max) = max
            && self.max.as_ref().is_none_or(|m| max > *m)
        {
            self.max = Some(max);
        }
    }
}

/// What a data file holds. Times are microseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileStats {
    /// Number of events.
    pub rows: u64,
    /// Positions.
    pub position: Range<i64>,
    /// Times of the events.
    pub time: Range<i64>,
    /// Times of receipt.
    pub received_at: Range<i64>,
    /// Senders.
    pub sensor: Range<String>,
    /// Types.
    pub event_type: Range<String>,
    /// The smallest value of [`event::REST`]: of the columns of fields with smaller numbers, the text need not be read. 0 where it is not known.
    pub whole: i32,
}

impl FileStats {
    /// Counts a batch in.
    pub(crate) fn add(&mut self, rows: &RecordBatch) {
        self.rows += rows.num_rows() as u64;
        let column = |name: &str| rows.column_by_name(name).expect("a column of the table");
        let position = column("position").as_primitive::<Int64Type>();
        self.position.widen(min(position), max(position));
        for (name, range) in [("time", &mut self.time), ("received_at", &mut self.received_at)] {
            let times = column(name).as_primitive::<TimestampMicrosecondType>();
            range.widen(min(times), max(times));
        }
        for (name, range) in [("sensor", &mut self.sensor), ("type", &mut self.event_type)] {
            let texts = column(name).as_string::<i32>();
            debug_assert_eq!(texts.null_count(), 0, "{name} is never null");
            range.widen(min_string(texts).map(str::to_owned), max_string(texts).map(str::to_owned));
        }
    }

    /// As the Delta log holds them.
    pub(crate) fn to_json(&self) -> String {
        let mut least = Map::new();
        let mut most = Map::new();
        let mut put = |name: &str, min: Option<Value>, max: Option<Value>| {
            least.extend(min.map(|v| (name.to_owned(), v)));
            most.extend(max.map(|v| (name.to_owned(), v)));
        };
        put("position", self.position.min.map(Value::from), self.position.max.map(Value::from));
        for (name, range) in [("time", &self.time), ("received_at", &self.received_at)] {
            let floor = range.min.map(|m| m.div_euclid(1000));
            let ceiling = range.max.map(|m| m.div_euclid(1000) + i64::from(m.rem_euclid(1000) != 0));
            put(name, floor.and_then(millis_text), ceiling.and_then(millis_text));
        }
        for (name, range) in [("sensor", &self.sensor), ("type", &self.event_type)] {
            let floor = range.min.as_ref().map(|t| Value::from(t.chars().take(TEXT_CHARS_MAX).collect::<String>()));
            let ceiling =
                range.max.as_ref().filter(|t| t.chars().count() <= TEXT_CHARS_MAX).map(|t| Value::from(t.as_str()));
            put(name, floor, ceiling);
        }
        put(REST, (self.whole > 0).then(|| Value::from(self.whole)), None);
        let nulls: Map<String, Value> = STATS_COLUMNS.split(',').map(|c| (c.to_owned(), Value::from(0))).collect();
        json!({ "numRecords": self.rows, "minValues": least, "maxValues": most, "nullCount": nulls }).to_string()
    }

    /// From what the Delta log holds.
    ///
    /// # Errors
    /// A sentence, when it is not JSON with a number of records.
    pub(crate) fn from_json(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let rows = json["numRecords"].as_u64().ok_or("numRecords is missing")?;
        let (least, most) = (&json["minValues"], &json["maxValues"]);
        let number = |name: &str| Range { min: least[name].as_i64(), max: most[name].as_i64() };
        let time = |name: &str| Range { min: micros_of(&least[name], 0), max: micros_of(&most[name], 999) };
        let text = |name: &str| Range { min: text_of(&least[name]), max: text_of(&most[name]) };
        Ok(Self {
            rows,
            position: number("position"),
            time: time("time"),
            received_at: time("received_at"),
            sensor: text("sensor"),
            event_type: text("type"),
            whole: least[REST].as_i64().and_then(|whole| i32::try_from(whole).ok()).unwrap_or(0),
        })
    }
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn millis_text(millis: i64) -> Option<Value> {
    let time = jiff::Timestamp::from_millisecond(millis).ok()?;
    Some(Value::from(format!("{time:.3}")))
}

/// Microseconds of a time in the log; `slack` is added, because another writer may have cut it to milliseconds.
fn micros_of(value: &Value, slack: i64) -> Option<i64> {
    let time: jiff::Timestamp = value.as_str()?.parse().ok()?;
    time.as_microsecond().checked_add(slack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_outwards_and_long_texts_bound_only_from_below() {
        let stats = FileStats {
            rows: 2,
            position: Range { min: Some(1), max: Some(2) },
            time: Range { min: Some(-1), max: Some(1_700_000_000_000_001) },
            received_at: Range { min: Some(5), max: Some(5) },
            sensor: Range { min: Some("a".into()), max: Some("b".into()) },
            event_type: Range { min: Some("x".repeat(100)), max: Some("x".repeat(100)) },
            whole: 7,
        };
        let json: Value = serde_json::from_str(&stats.to_json()).expect("JSON");
        assert_eq!(json["minValues"]["time"], "1969-12-31T23:59:59.999Z");
        assert_eq!(json["maxValues"]["time"], "2023-11-14T22:13:20.001Z");
        assert_eq!(json["minValues"]["type"], "x".repeat(64));
        assert_eq!(json["maxValues"].get("type"), None);
        let back = FileStats::from_json(&stats.to_json()).expect("our own");
        assert!(back.time.min <= stats.time.min && back.time.max >= stats.time.max, "{back:?}");
        assert_eq!((back.rows, back.position, back.sensor, back.whole), (2, stats.position, stats.sensor, 7));
        assert!(FileStats::from_json("{}").is_err());
    }
}
