//! What Splunk makes of a stream of lines under a `props.conf`: events, their times, their fields.
//!
//! A setting that this does not know is refused, so that nothing in the file stays unchecked.

use super::elastic::Fields;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

/// Settings of one sourcetype.
pub(crate) struct Props {
    line_breaker: Regex,
    time_prefix: Regex,
    time_format: String,
    lookahead_chars: usize,
    truncate_bytes: usize,
    /// Existing field, further name.
    aliases: Vec<(String, String)>,
    /// New field, fields that are added up.
    sums: Vec<(String, Vec<String>)>,
}

fn settings(text: &str, sourcetype: &str) -> Result<BTreeMap<String, String>, String> {
    let mut stanza = "";
    let mut settings = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            stanza = name;
        } else if stanza == sourcetype {
            let (name, value) = line.split_once('=').ok_or_else(|| format!("{line:?} is no setting"))?;
            if settings.insert(name.trim().to_owned(), value.trim().to_owned()).is_some() {
                return Err(format!("{name} is set twice"));
            }
        }
    }
    Ok(settings)
}

fn aliases(text: &str) -> Result<Vec<(String, String)>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pair = |words: &[&str]| match words {
        [field, "AS", alias] => Ok(((*field).to_owned(), (*alias).to_owned())),
        _ => Err(format!("{words:?} is no alias")),
    };
    words.chunks(3).map(pair).collect()
}

impl Props {
    /// The settings of a sourcetype.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn read(text: &str, sourcetype: &str) -> Result<Self, String> {
        let mut settings = settings(text, sourcetype)?;
        let mut take = |name: &str| settings.remove(name).ok_or_else(|| format!("{name} is missing"));
        let pattern = |text: String| Regex::new(&text).map_err(|error| error.to_string());
        let number = |text: String| text.parse::<usize>().map_err(|_| format!("{text} is no number"));
        let (line_breaker, time_prefix) = (pattern(take("LINE_BREAKER")?)?, pattern(take("TIME_PREFIX")?)?);
        let (lookahead_chars, truncate_bytes) = (number(take("MAX_TIMESTAMP_LOOKAHEAD")?)?, number(take("TRUNCATE")?)?);
        let time_format = take("TIME_FORMAT")?;
        // Fields are those of the object, and by one of the two ways that Splunk has.
        for (name, value) in [("SHOULD_LINEMERGE", "false"), ("TZ", "UTC"), ("KV_MODE", "json"), ("CHARSET", "UTF-8")] {
            let set = take(name)?;
            if set != value {
                return Err(format!("{name} is {set}, not {value}"));
            }
        }
        let (mut all_aliases, mut sums) = (Vec::new(), Vec::new());
        for (name, value) in settings {
            if name.starts_with("FIELDALIAS-") {
                all_aliases.extend(aliases(&value)?);
            } else if let Some(field) = name.strip_prefix("EVAL-") {
                sums.push((field.to_owned(), value.split('+').map(|name| name.trim().to_owned()).collect()));
            } else {
                return Err(format!("{name} is not known"));
            }
        }
        let aliases = all_aliases;
        Ok(Self { line_breaker, time_prefix, time_format, lookahead_chars, truncate_bytes, aliases, sums })
    }

    /// The events of a stream: what the first group of the breaker matches lies between two and is dropped.
    pub(crate) fn events<'a>(&self, stream: &'a str) -> Vec<&'a str> {
        let mut events = Vec::new();
        let mut begin = 0;
        for groups in self.line_breaker.captures_iter(stream) {
            let between = groups.get(1).expect("LINE_BREAKER has a group");
            events.push(&stream[begin..between.start()]);
            begin = between.end();
        }
        events.push(&stream[begin..]);
        events.retain(|event| !event.is_empty());
        events
    }

    /// The time of an event.
    ///
    /// # Errors
    /// Why it has none.
    pub(crate) fn time(&self, event: &str) -> Result<Timestamp, String> {
        let prefix = self.time_prefix.find(event).ok_or_else(|| format!("no TIME_PREFIX in {event:.80}"))?;
        let seen: String = event[prefix.end()..].chars().take(self.lookahead_chars).collect();
        read_time(&self.time_format, &seen).ok_or_else(|| format!("{seen:?} is not {}", self.time_format))
    }

    /// The fields of an event, with aliases and sums.
    ///
    /// # Errors
    /// Why Splunk would miss some.
    pub(crate) fn fields(&self, event: &str) -> Result<BTreeMap<String, Value>, String> {
        if event.len() > self.truncate_bytes {
            return Err(format!("{} bytes are beyond TRUNCATE", event.len()));
        }
        let Fields(own) = serde_json::from_str(event).map_err(|error| format!("{error} in {event:.80}"))?;
        let mut fields: BTreeMap<String, Value> = own.into_iter().collect();
        for (field, alias) in &self.aliases {
            if let Some(value) = fields.get(field).cloned()
                && fields.insert(alias.clone(), value).is_some()
            {
                return Err(format!("the alias {alias} is a field already"));
            }
        }
        for (sum, parts) in &self.sums {
            let parts: Option<Vec<&Value>> = parts.iter().map(|part| fields.get(part)).collect();
            if let Some(parts) = parts {
                let numbers: Option<f64> = parts.iter().map(|part| part.as_f64()).sum();
                let number = numbers.ok_or_else(|| format!("{sum} adds up what is no number: {parts:?}"))?;
                if fields.insert(sum.clone(), number.into()).is_some() {
                    return Err(format!("the sum {sum} is a field already"));
                }
            }
        }
        Ok(fields)
    }

    /// The fields that aliases and sums make.
    pub(crate) fn made(&self) -> impl Iterator<Item = &str> {
        self.aliases.iter().map(|(_, alias)| alias.as_str()).chain(self.sums.iter().map(|(sum, _)| sum.as_str()))
    }
}

/// Reads a time in UTC by the directives that the file uses; what stands after it is not looked at.
fn read_time(format: &str, text: &str) -> Option<Timestamp> {
    fn number(rest: &mut &str, digits: usize) -> Option<i32> {
        let (number, after) = rest.split_at_checked(digits)?;
        *rest = after;
        number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok())?
    }
    let (mut format, mut rest) = (format.chars(), text);
    // Year, month, day, hour, minute, second.
    let mut parts = [0, 1, 1, 0, 0, 0];
    let mut micros = 0;
    while let Some(c) = format.next() {
        if c != '%' {
            rest = rest.strip_prefix(c)?;
            continue;
        }
        match format.next()? {
            'Y' => parts[0] = number(&mut rest, 4)?,
            '6' if format.next()? == 'N' => micros = number(&mut rest, 6)?,
            part => parts[1 + "mdHMS".find(part)?] = number(&mut rest, 2)?,
        }
    }
    let [year, month, day, hour, minute, second] = parts;
    let [month, day, hour, minute, second] = [month, day, hour, minute, second].map(|part| part as i8);
    let time = DateTime::new(year as i16, month, day, hour, minute, second, micros * 1000).ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}
