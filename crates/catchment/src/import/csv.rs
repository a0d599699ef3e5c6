//! Records of CSV (RFC 4180) as they come, in which an empty field is null and `""` an empty text.

use crate::config::BODY_BYTES_MAX;
use anyhow::{Context, anyhow, bail, ensure};
use std::io::{self, BufRead};

/// Reads records. A record may have line ends in its quoted fields.
pub(super) struct Records<R> {
    input: R,
    /// The line on which the next record begins, from 1.
    line: u64,
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The line on which it begins.
    pub(super) line: u64,
    pub(super) fields: Vec<Option<String>>,
    /// What was read for it.
    pub(super) bytes: u64,
}

/// Whether a field stands in quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoted {
    No,
    Yes,
}

/// Where in a field the next byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Begin,
    Plain,
    Quoted,
    /// Behind a quote that ends the field, or is the first one of two.
    Quote,
    /// Behind a carriage return.
    Return,
}

impl<R: BufRead> Records<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, line: 1 }
    }

    /// The next record; none at the end.
    ///
    /// # Errors
    /// It is no CSV; the place is told by line and column.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Record>> {
        let begin = self.line;
        let mut record = Record { line: begin, fields: Vec::new(), bytes: 0 };
        let (mut place, mut field, mut was_quoted, mut column) = (Place::Begin, Vec::new(), Quoted::No, 0u64);
        loop {
            let byte = self.byte().with_context(|| format!("cannot read line {}", self.line))?;
            record.bytes += u64::from(byte.is_some());
            column += 1;
            ensure!(
                record.bytes <= BODY_BYTES_MAX.0,
                "line {begin}: the record is longer than {BODY_BYTES_MAX}, or a quote is missing"
            );
            let (line, at_column) = (self.line, column);
            let at = || format!("line {line}, column {at_column}");
            place = match (place, byte) {
                (Place::Quoted, None) => bail!("line {begin}: a field begins with a quote that nothing ends"),
                (Place::Begin, None) if record.fields.is_empty() && record.bytes == 0 => return Ok(None),
                (Place::Begin, Some(b'"')) => {
                    was_quoted = Quoted::Yes;
                    Place::Quoted
                }
                (Place::Quoted, Some(b'"')) => Place::Quote,
                (Place::Quote, Some(b'"')) => {
                    field.push(b'"');
                    Place::Quoted
                }
                (Place::Begin | Place::Plain | Place::Quote, Some(b',')) => {
                    record.fields.push(whole(std::mem::take(&mut field), was_quoted, at)?);
                    was_quoted = Quoted::No;
                    Place::Begin
                }
                (Place::Begin | Place::Plain | Place::Quote, Some(b'\r')) => Place::Return,
                (Place::Begin | Place::Plain | Place::Quote | Place::Return, Some(b'\n') | None) => {
                    self.line += u64::from(byte.is_some());
                    record.fields.push(whole(field, was_quoted, at)?);
                    return Ok(Some(record));
                }
                (Place::Return, _) => bail!("{}: a carriage return that ends no line stands outside of quotes", at()),
                (Place::Quote, _) => {
                    bail!("{}: a comma or the end of the line is to follow the quote that ends a field", at())
                }
                (Place::Plain, Some(b'"')) => bail!("{}: a quote in a field that does not begin with one", at()),
                (Place::Quoted, Some(byte)) => {
                    if byte == b'\n' {
                        (self.line, column) = (self.line + 1, 0);
                    }
                    field.push(byte);
                    Place::Quoted
                }
                (Place::Begin | Place::Plain, Some(byte)) => {
                    field.push(byte);
                    Place::Plain
                }
            };
        }
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let byte = self.input.fill_buf()?.first().copied();
        self.input.consume(usize::from(byte.is_some()));
        Ok(byte)
    }
}

/// A field that has come.
fn whole(field: Vec<u8>, was_quoted: Quoted, at: impl Fn() -> String) -> anyhow::Result<Option<String>> {
    let text = String::from_utf8(field).map_err(|_| anyhow!("{}: the field before is no UTF-8", at()))?;
    Ok((was_quoted == Quoted::Yes || !text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::{COLUMNS, Line};
    use proptest::prelude::*;

    fn read(text: &str) -> anyhow::Result<Vec<(u64, Vec<Option<String>>)>> {
        let mut records = Records::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(record) = records.next()? {
            all.push((record.line, record.fields));
        }
        Ok(all)
    }

    #[test]
    fn fields_are_null_empty_or_text_and_lines_are_counted() {
        let some = |text: &str| Some(text.to_owned());
        let all = read("a,,\"\"\r\n\"b\r\n\"\"c\"\",\",x\n,\nlast").expect("records");
        let expected = vec![
            (1, vec![some("a"), None, some("")]),
            (2, vec![some("b\r\n\"c\","), some("x")]),
            (4, vec![None, None]),
            (5, vec![some("last")]),
        ];
        assert_eq!(all, expected);
        assert_eq!(read("").expect("nothing"), []);
    }

    #[test]
    fn what_is_no_csv_is_told_by_line_and_column() {
        for (text, place) in [
            ("a,b\nc,\"d", "line 2: a field begins with a quote"),
            ("a,b\nc,\"d\"e\n", "line 2, column 6: a comma or the end of the line"),
            ("a,b\nc,d\"\n", "line 2, column 4: a quote in a field"),
            ("a\rb\n", "line 1, column 3: a carriage return"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(place), "{error}");
        }
        let mut bytes = Records::new(&b"a,\xff,b\n"[..]);
        assert!(bytes.next().expect_err("no UTF-8").to_string().contains("line 1, column 4"));
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_again(fields in prop::array::uniform12(prop::option::of("[a,\"\r\n \\PC]{0,6}"))) {
            prop_assume!(fields.iter().any(Option::is_some));
            let mut line = Line::default();
            for (value, field) in line.0.iter_mut().zip(&fields) {
                *value = field.as_deref().map(Into::into);
            }
            let mut text = Vec::new();
            line.csv(&mut text);
            let record = Records::new(text.as_slice()).next().expect("it is CSV").expect("a record");
            prop_assert_eq!((record.fields.len(), record.fields), (COLUMNS.len(), fields.to_vec()));
        }
    }
}
