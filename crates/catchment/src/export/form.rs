//! The form of an export: lines of JSON, CSV or Parquet, the lines also compressed.

use crate::line::{COLUMNS, Json};
use crate::rows::{Rows, schema};
use crate::target::Sink;
use anyhow::Context;
use arrow::array::RecordBatch;
use clap::ValueEnum;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use lake::{Summed, finish_summed};
use nowwhat::cli::Usage;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Bytes that a row group of Parquet may take while it is written.
const ROW_GROUP_BYTES: usize = 32 << 20;
const BUFFER_BYTES: usize = 256 << 10;

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    Ndjson,
    Csv,
    Parquet,
}

/// How lines are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
}

/// The form that is asked for, or that the ending of the name tells, and the compression that it tells.
///
/// # Errors
/// It tells none, or what cannot be.
pub(super) fn of(path: &Path, asked: Option<Form>) -> Result<(Form, Packing), Usage> {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let (stem, packing) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Packing::Gzip),
        Some((stem, "zst")) => (stem, Packing::Zstd),
        _ => (&*name, Packing::None),
    };
    let told = match stem.rsplit_once('.').map(|(_, ending)| ending) {
        Some("ndjson" | "jsonl" | "json") => Some(Form::Ndjson),
        Some("csv") => Some(Form::Csv),
        Some("parquet") => Some(Form::Parquet),
        _ => None,
    };
    let form = match asked.or(told) {
        Some(form) => form,
        None if stem == "-" => Form::Ndjson,
        None => {
            return Err(Usage(format!(
                "the ending of {} tells no form: end it with .ndjson, .csv or .parquet, or say --format",
                path.display()
            )));
        }
    };
    if form == Form::Parquet && packing != Packing::None {
        return Err(Usage("Parquet is compressed in itself: leave .gz or .zst away".to_owned()));
    }
    Ok((form, packing))
}

/// Writes events in one form.
pub(super) enum Writer {
    Lines { form: Form, out: Box<Packed>, text: Vec<u8> },
    Parquet(Box<ArrowWriter<Summed<Sink>>>),
}

impl Writer {
    pub(super) fn new(form: Form, packing: Packing, sink: Sink) -> anyhow::Result<Self> {
        if form == Form::Parquet {
            let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default()));
            // Without the Arrow schema in the file, every reader sees the plain Parquet types.
            let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
            return Ok(Self::Parquet(Box::new(ArrowWriter::try_new_with_options(
                Summed::new(sink),
                schema(),
                options,
            )?)));
        }
        let mut writer = Self::Lines { form, out: Box::new(Packed::new(packing, sink)?), text: Vec::new() };
        if let (Form::Csv, Self::Lines { out, .. }) = (form, &mut writer) {
            out.write_all(format!("{}\r\n", COLUMNS.join(",")).as_bytes())?;
        }
        Ok(writer)
    }

    /// Writes rows with the columns of the table.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        match self {
            Self::Parquet(writer) => {
                writer.write(&RecordBatch::try_new(schema(), batch.columns().to_vec())?)?;
                if writer.memory_size() > ROW_GROUP_BYTES {
                    writer.flush()?;
                }
            }
            Self::Lines { form, out, text } => {
                let rows = Rows::of(batch);
                for row in 0..batch.num_rows() {
                    text.clear();
                    let line = rows.line(row);
                    match form {
                        Form::Csv => line.csv(text),
                        _ => line.ndjson(Json::Value, text),
                    }
                    out.write_all(text)?;
                }
            }
        }
        Ok(())
    }

    /// Ends it: nothing of it is in memory any more.
    pub(super) fn finish(self) -> anyhow::Result<Sink> {
        match self {
            Self::Parquet(writer) => Ok(finish_summed(*writer)?),
            Self::Lines { out, .. } => out.finish().context("cannot write the last bytes"),
        }
    }
}

/// Lines on their way.
pub(super) enum Packed {
    None(BufWriter<Sink>),
    Gzip(GzEncoder<BufWriter<Sink>>),
    Zstd(zstd::Encoder<'static, BufWriter<Sink>>),
}

impl Packed {
    fn new(packing: Packing, sink: Sink) -> std::io::Result<Self> {
        let out = BufWriter::with_capacity(BUFFER_BYTES, sink);
        Ok(match packing {
            Packing::None => Self::None(out),
            Packing::Gzip => Self::Gzip(GzEncoder::new(out, Level::default())),
            Packing::Zstd => {
                let mut encoder = zstd::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                // As gzip has it.
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::None(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
            Self::Zstd(out) => out.write_all(bytes),
        }
    }

    fn finish(self) -> std::io::Result<Sink> {
        let out = match self {
            Self::None(out) => out,
            Self::Gzip(out) => out.finish()?,
            Self::Zstd(out) => out.finish()?,
        };
        let mut sink = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        sink.flush()?;
        Ok(sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_a_name_tells_the_form_and_how_it_is_compressed() {
        let of = |name: &str, asked: Option<Form>| of(Path::new(name), asked).map_err(|error| error.to_string());
        assert_eq!(of("a/b.ndjson", None), Ok((Form::Ndjson, Packing::None)));
        assert_eq!(of("b.JSONL.gz", None), Ok((Form::Ndjson, Packing::Gzip)));
        assert_eq!(of("b.csv.zst", None), Ok((Form::Csv, Packing::Zstd)));
        assert_eq!(of("b.parquet", None), Ok((Form::Parquet, Packing::None)));
        assert_eq!(of("-", None), Ok((Form::Ndjson, Packing::None)));
        assert_eq!(of("b.txt.gz", Some(Form::Csv)), Ok((Form::Csv, Packing::Gzip)));
        assert!(of("b.txt", None).expect_err("none").contains("--format"));
        assert!(of("b.parquet.gz", None).expect_err("twice").contains("in itself"));
    }
}
