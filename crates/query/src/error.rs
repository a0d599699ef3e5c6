//! Why a question has no answer.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::Span;

/// A place in the text of a statement, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Lines end with a line feed.
    pub line: u64,
    /// In characters.
    pub column: u64,
}

impl Place {
    /// Behind the last word or sign of a text.
    fn end_of(text: &str) -> Self {
        let text = text.trim_end();
        let (before, last) = text.rsplit_once('\n').map_or((0, text), |(before, last)| (before.lines().count(), last));
        Self { line: before as u64 + 1, column: last.chars().count() as u64 + 1 }
    }
}

/// Why a question has no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is not understood, or names what there is not.
    #[error("{reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
        /// Where in the text of the statement, when that is known.
        place: Option<Place>,
    },
    /// Something other than reading was asked.
    #[error("{0}: only one reading statement is allowed, SELECT, EXPLAIN or SHOW, over the table events")]
    NotAllowed(String),
    /// A parameter is missing or cannot be used.
    #[error("{0}")]
    Parameter(String),
    /// Too many questions at once.
    #[error("{concurrent_max} queries are running and none ended within {wait_seconds} s: ask again later")]
    TooMany {
        /// How many may run.
        concurrent_max: usize,
        /// How long this one waited.
        wait_seconds: u64,
    },
    /// It took too long.
    #[error("the query took longer than {timeout_seconds} s: ask for less, or for more time with timeout_seconds")]
    Timeout {
        /// Its limit.
        timeout_seconds: u64,
    },
    /// It needed more memory, or more disk, than there is for queries.
    #[error(
        "the query needs more memory than it may: ask for fewer groups, fewer columns or a shorter range of time ({0})"
    )]
    Memory(String),
    /// The answer has more rows than it may, in a format that cannot say so.
    #[error("the answer has more than {rows_max} rows: ask with a LIMIT, or page by position")]
    TooManyRows {
        /// The bound.
        rows_max: u64,
    },
    /// It met a data file that is gone, or whose bytes are not what was written.
    #[error("{0}")]
    Damaged(String),
    /// It failed in itself.
    #[error("the query failed: {0}")]
    Failed(String),
}

impl QueryError {
    /// The text is not understood.
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into(), place: None }
    }

    /// The same, with the place where it is written, when it is written.
    pub(crate) fn at(self, span: Span) -> Self {
        match self {
            Self::Invalid { reason, .. } if span != Span::empty() => {
                Self::Invalid { reason, place: Some(Place { line: span.start.line, column: span.start.column }) }
            }
            other => other,
        }
    }

    /// Why a text cannot be parsed.
    pub(crate) fn of_text(error: &DataFusionError, text: &str) -> Self {
        match Self::of(error) {
            // The end has no place of its own.
            Self::Invalid { reason, place: None } if reason.contains("found: EOF") => {
                Self::Invalid { reason, place: Some(Place::end_of(text)) }
            }
            other => other,
        }
    }

    /// The place in the statement that is to be mended, when it is known.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Invalid { place, .. } => *place,
            _ => None,
        }
    }

    /// The stable code, as the API names it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid_sql",
            Self::NotAllowed(_) => "statement_not_allowed",
            Self::Parameter(_) => "invalid_parameter",
            Self::TooMany { .. } => "too_many_queries",
            Self::Timeout { .. } => "query_timeout",
            Self::Memory(_) => "query_too_large",
            Self::TooManyRows { .. } => "too_many_rows",
            Self::Damaged(_) => "damaged_file",
            Self::Failed(_) => "internal",
        }
    }

    /// Sorts what DataFusion says.
    pub(crate) fn of(error: &DataFusionError) -> Self {
        let text = || {
            if let DataFusionError::SQL(flaw, _) = error.find_root()
                && let ParserError::ParserError(text) | ParserError::TokenizerError(text) = &**flaw
            {
                return text.replace('\n', " ");
            }
            let text = error.strip_backtrace();
            let end =
                text.find(". This issue was likely caused by a bug").or_else(|| text.find(". This was likely caused"));
            let text = &text[..end.unwrap_or(text.len())];
            text.strip_prefix("Internal error: ").unwrap_or(text).replace('\n', " ")
        };
        if let Some(sentence) = damage(&error.to_string()) {
            return Self::Damaged(sentence);
        }
        if let Some(reason) = hidden_flaw(error) {
            return Self::Invalid { reason, place: place(error) };
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(reason) => Self::Memory(first_line(reason)),
            DataFusionError::SQL(..)
            | DataFusionError::Plan(_)
            | DataFusionError::SchemaError(..)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Configuration(_)
            | DataFusionError::Diagnostic(..)
            | DataFusionError::Collection(_) => Self::Invalid { reason: text(), place: place(error) },
            DataFusionError::ArrowError(..) if error.to_string().contains("during the spilling process") => {
                Self::Memory("its rows do not fit on the disk that queries may use".to_owned())
            }
            // Casts and divisions fail on the data: the asker can mend the question.
            DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => {
                Self::Invalid { reason: text(), place: place(error) }
            }
            _ => Self::Failed(text()),
        }
    }
}

/// Where in the statement as it was sent DataFusion sees the flaw: names keep their places through all that is done to them.
fn place(error: &DataFusionError) -> Option<Place> {
    if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        return Some(Place { line: span.start.line, column: span.start.column });
    }
    match error.find_root() {
        DataFusionError::SchemaError(flaw, _) => match &**flaw {
            SchemaError::FieldNotFound { field, .. } | SchemaError::AmbiguousReference { field } => {
                let span = field.spans().first()?;
                Some(Place { line: span.start.line, column: span.start.column })
            }
            _ => None,
        },
        DataFusionError::SQL(flaw, _) => match &**flaw {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => told(text),
            ParserError::RecursionLimitExceeded => None,
        },
        _ => None,
    }
}

/// The parser tells the place at the end of its sentence alone: ` at Line: 1, Column: 8`.
fn told(text: &str) -> Option<Place> {
    let (_, place) = text.rsplit_once(" at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some(Place { line: line.parse().ok()?, column: column.parse().ok()? })
}

/// What the lake says of a damaged file, which arrives as a text inside texts.
fn damage(text: &str) -> Option<String> {
    const LAST: &str = "keeps what can be read of them";
    let from = text.find("the data file ")?;
    let until = from + text[from..].find(LAST)? + LAST.len();
    Some(text[from..until].to_owned())
}

/// What is wrong with a question whose error DataFusion does not sort as the asker's: an aggregate that it lacks, and a condition
/// that failed on the rows of a file, whose own error arrives as a text inside a text.
fn hidden_flaw(error: &DataFusionError) -> Option<String> {
    let text = error.to_string();
    if text.contains("Min/Max accumulator not implemented") {
        return Some("min and max take texts, numbers and times: data->>'field', not data->'field'".to_owned());
    }
    if text.contains("does not support logical expression ScalarSubquery") || text.contains("OuterReferenceColumn") {
        return Some(
            "a subquery may compare a column with the query around it, but compute nothing of it: name the fields in a subquery of their own, \
             group it, and join it"
                .to_owned(),
        );
    }
    if let Some((_, reason)) = text.split_once("regex parse error:") {
        let reason = reason.rsplit_once("error: ").map_or(reason, |(_, reason)| reason);
        // Of a condition on the rows of a file it is a text inside a text.
        let reason = reason.split_once("\\n").map_or(reason, |(reason, _)| reason);
        return Some(format!("a pattern is no regular expression: {}", first_line(reason)));
    }
    if text.contains("CompiledTooBig") || text.contains("Compiled regex exceeds size limit") {
        return Some("a pattern is too large a regular expression: repeat less in it".to_owned());
    }
    if let Some((_, types)) = text.split_once("Failed to coerce types ") {
        let types = types.split('.').next().unwrap_or_default();
        return Some(format!("{types}: these types cannot be compared, cast one of them"));
    }
    let (_, reason) = text.split_once("Error evaluating filter predicate: ")?;
    // `ArrowError(CastError("Cannot cast ..."), Some(""))` or `ArrowError(DivideByZero, Some(""))`.
    let reason = reason.split_once(", Some(").map_or(reason, |(reason, _)| reason);
    let inner = reason.split_once("(\"").and_then(|(_, rest)| rest.rsplit_once("\")")).map(|(inner, _)| inner);
    Some(match inner {
        Some(inner) => inner.replace("\\'", "'"),
        None if reason.contains("DivideByZero") => "Divide by zero error".to_owned(),
        None => reason.to_owned(),
    })
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
