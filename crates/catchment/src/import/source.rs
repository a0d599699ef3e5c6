//! What is imported: the lines of an export, or lines made of its CSV or its Parquet.
//!
//! What it is, its first bytes tell. It is read once, event by event; nothing is held but the event at hand, or some rows of Parquet.

use super::csv::Records;
use super::pages::row_bytes_max;
use crate::checksum;
use crate::line::{COLUMNS, Json, Line};
use crate::progress;
use crate::rows::{Rows, of_table};
use crate::send::input;
use anyhow::{Context, anyhow, bail, ensure};
use arrow::array::RecordBatch;
use indicatif::ProgressBar;
use lake::CheckedFile;
use nowwhat::cli::Usage;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::value::RawValue;
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// Rows of Parquet that are read at once, or as many as have so many bytes.
const ROWS: usize = 1024;
const ROWS_BYTES: u64 = 64 << 20;
const PARQUET: &[u8] = b"PAR1";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Columns without which there is no event.
const NEEDED: [&str; 6] = ["id", "sensor", "source", "type", "time", "received_at"];

/// The events of an export, one after another.
pub(super) enum Source {
    Lines { input: Box<dyn BufRead>, line: u64 },
    Csv { records: Records<Box<dyn BufRead>>, columns: Vec<usize> },
    Parquet { batches: Box<ParquetRecordBatchReader>, batch: Option<RecordBatch>, row: usize, done: u64 },
}

/// Where an event was read.
pub(super) struct Place {
    /// What is counted, `line` or `row`, and its number from 1.
    pub(super) number: u64,
    /// How far the progress went with it.
    pub(super) step: u64,
}

impl Source {
    /// Opens it, with a bar for its progress.
    pub(super) fn open(path: &PathBuf) -> anyhow::Result<(Self, ProgressBar)> {
        if path.as_os_str() != "-" {
            checksum::check(path)?;
        }
        let (mut input, bytes) = input::open(Some(path))?;
        let head = input.fill_buf().context("cannot read the input")?;
        if head.starts_with(PARQUET) {
            if path.as_os_str() == "-" || bytes.is_none() {
                bail!(Usage(
                    "Parquet is read from its end: name its file, as it is, not compressed once more".to_owned()
                ));
            }
            return Self::parquet(path);
        }
        // A copy that failed is no export without events.
        if head.is_empty() && path.extension().is_some_and(|ending| ending == "parquet") {
            bail!("{} is empty: Parquet never is", path.display());
        }
        if head.starts_with(BYTE_ORDER_MARK) {
            input.consume(BYTE_ORDER_MARK.len());
        }
        let progress = progress::of_bytes(bytes);
        let first = input.fill_buf().context("cannot read the input")?.trim_ascii_start().first().copied();
        match first {
            Some(b'{') | None => Ok((Self::Lines { input, line: 0 }, progress)),
            Some(_) => Ok((Self::csv(input)?, progress)),
        }
    }

    fn csv(input: Box<dyn BufRead>) -> anyhow::Result<Self> {
        let mut records = Records::new(input);
        let no_export = "it is no export: neither lines of JSON, nor CSV with its names in the first line, nor Parquet";
        let head = records.next().context(no_export)?.context(no_export)?;
        let mut columns = Vec::new();
        for name in head.fields {
            let name = name.unwrap_or_default();
            let at = COLUMNS.iter().position(|column| *column == name);
            let at = at.ok_or_else(|| {
                anyhow!("the column {:?} is none of an export's", shortened(&name)).context(no_export)
            })?;
            ensure!(!columns.contains(&at), "the column {name:?} is there twice");
            columns.push(at);
        }
        for name in NEEDED {
            ensure!(columns.iter().any(|at| COLUMNS[*at] == name), "the column {name:?} is missing");
        }
        Ok(Self::Csv { records, columns })
    }

    fn parquet(path: &Path) -> anyhow::Result<(Self, ProgressBar)> {
        let unreadable = || format!("cannot read {} as Parquet", path.display());
        let file = whole(path)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone()).with_context(unreadable)?;
        let metadata = builder.metadata();
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let row_bytes = row_bytes_max(&file, metadata).with_context(unreadable)?;
        let at_once = usize::try_from(ROWS_BYTES / row_bytes.max(1)).unwrap_or(ROWS).clamp(1, ROWS);
        let batches = builder.with_batch_size(at_once).build().with_context(unreadable)?;
        Ok((Self::Parquet { batches: Box::new(batches), batch: None, row: 0, done: 0 }, progress::of_events(rows)))
    }

    /// What its places are called.
    pub(super) fn unit(&self) -> &'static str {
        match self {
            Self::Lines { .. } | Self::Csv { .. } => "line",
            Self::Parquet { .. } => "row",
        }
    }

    /// Adds the line of the next event to `out`; none at the end.
    ///
    /// # Errors
    /// It cannot be read from here on; the place is told.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> anyhow::Result<Option<Place>> {
        match self {
            Self::Lines { input, line } => next_line(input, line, out),
            Self::Csv { records, columns } => {
                let Some(record) = records.next()? else { return Ok(None) };
                let number = record.line;
                let (fields, expected) = (record.fields.len(), columns.len());
                ensure!(
                    fields == expected,
                    "line {number}: it has {fields} fields, and the first line names {expected}"
                );
                let mut line = Line::default();
                for (at, field) in columns.iter().zip(record.fields) {
                    line.0[*at] = field.map(Into::into);
                }
                write(&line, out).with_context(|| format!("line {number}"))?;
                Ok(Some(Place { number, step: record.bytes }))
            }
            Self::Parquet { batches, batch, row, done } => {
                while batch.as_ref().is_none_or(|batch| *row >= batch.num_rows()) {
                    let unreadable = || format!("cannot read the rows after row {done}");
                    let Some(next) = batches.next() else { return Ok(None) };
                    *batch = Some(of_table(&next.with_context(unreadable)?)?);
                    *row = 0;
                }
                let Some(rows) = batch else { return Ok(None) };
                *done += 1;
                let number = *done;
                let line = Rows::of(rows).line(*row);
                *row += 1;
                write(&line, out).with_context(|| format!("row {number}"))?;
                Ok(Some(Place { number, step: 1 }))
            }
        }
    }
}

/// A Parquet file, after all of it was checked when it has checksums: of a damaged one nothing is imported.
fn whole(path: &Path) -> anyhow::Result<CheckedFile> {
    let checked = CheckedFile::open(path).and_then(|file| file.check().map(|_| file));
    checked.map_err(|error| match lake::damage(&error) {
        Some(what) => anyhow!("{} is damaged, nothing was imported: {what}. Export it again", path.display()),
        None => anyhow!(error).context(format!("cannot read {}", path.display())),
    })
}

fn next_line(input: &mut dyn BufRead, number: &mut u64, out: &mut Vec<u8>) -> anyhow::Result<Option<Place>> {
    let (mut line, mut step) = (Vec::new(), 0);
    loop {
        *number += 1;
        let read = input::read_line(input, &mut line).with_context(|| format!("cannot read line {number}"))?;
        step += read as u64;
        if read == 0 {
            return Ok(None);
        }
        if !line.trim_ascii().is_empty() {
            out.extend(line.trim_ascii());
            out.push(b'\n');
            return Ok(Some(Place { number: *number, step }));
        }
    }
}

/// Adds a line of values that nobody has read yet: none of them may break it.
fn write(line: &Line<'_>, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let value = |name: &str| COLUMNS.iter().position(|column| *column == name).and_then(|at| line.0[at].as_deref());
    if let Some(position) = value("position") {
        ensure!(position.parse::<u64>().is_ok(), "{:?} is no position", shortened(position));
    }
    if let Some(attributes) = value("attributes") {
        let is_object = attributes.starts_with('{') && !attributes.contains(['\n', '\r']);
        let read = serde_json::from_str::<&RawValue>(attributes).is_ok();
        ensure!(is_object && read, "{:?} is no JSON object on one line, as attributes are", shortened(attributes));
    }
    line.ndjson(Json::Text, out);
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// All of an input of which nothing but its being read matters.
#[cfg(test)]
fn all(mut source: Source) -> anyhow::Result<(Vec<u64>, String)> {
    let (mut numbers, mut out) = (Vec::new(), Vec::new());
    while let Some(place) = source.next(&mut out)? {
        numbers.push(place.number);
    }
    Ok((numbers, String::from_utf8(out)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> anyhow::Result<(Vec<u64>, String)> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("export");
        std::fs::write(&path, content).expect("written");
        all(Source::open(&path)?.0)
    }

    #[test]
    fn lines_are_taken_as_they_are_and_csv_becomes_lines() {
        let (numbers, lines) = read(b"{\"id\":1}\r\n\n  {\"id\" : 2}").expect("lines");
        assert_eq!((numbers, lines.as_str()), (vec![1, 3], "{\"id\":1}\n{\"id\" : 2}\n"));
        let csv = "\u{feff}sensor,id,source,type,time,received_at,data,attributes\r\nroof,\"a\nb\",\"\",t,x,y,\"{\"\"a\"\":1}\",\r\n";
        let (numbers, lines) = read(csv.as_bytes()).expect("CSV");
        let line = "{\"id\":\"a\\nb\",\"sensor\":\"roof\",\"source\":\"\",\"type\":\"t\",\"time\":\"x\",\"received_at\":\"y\",\"data_text\":\"{\\\"a\\\":1}\"}\n";
        assert_eq!((numbers, lines.as_str()), (vec![2], line));
        assert_eq!(read(b"").expect("nothing"), (vec![], String::new()));
    }

    #[test]
    fn what_is_no_export_is_said_to_be_none_with_its_place() {
        let refused = |content: &[u8]| format!("{:#}", read(content).expect_err("refused"));
        assert!(refused(b"hello\n").contains("it is no export"));
        assert!(refused(b"[{\"id\":1}]").contains("it is no export"));
        assert!(refused(b"PAR1 and nothing else").contains("as Parquet"));
        assert!(refused(b"id,sensor,source,type,time\n").contains("\"received_at\" is missing"));
        let head = "id,sensor,source,type,time,received_at,attributes\n";
        assert!(refused(format!("{head}a,b\n").as_bytes()).contains("line 2: it has 2 fields"));
        let injected = refused(format!("{head}a,b,c,d,e,f,\"{{}},\"\"id\"\":1\"\n").as_bytes());
        assert!(injected.starts_with("line 2:") && injected.contains("is no JSON object"), "{injected}");
    }
}
