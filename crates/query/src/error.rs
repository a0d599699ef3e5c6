//! Why a question has no answer.

use datafusion::error::DataFusionError;

/// Why a question has no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is not understood, or names what there is not.
    #[error("{0}")]
    Invalid(String),
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
    /// The stable code, as the API names it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_sql",
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
            return Self::Invalid(reason);
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(reason) => Self::Memory(first_line(reason)),
            DataFusionError::SQL(..)
            | DataFusionError::Plan(_)
            | DataFusionError::SchemaError(..)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Configuration(_)
            | DataFusionError::Diagnostic(..)
            | DataFusionError::Collection(_) => Self::Invalid(text()),
            DataFusionError::ArrowError(..) if error.to_string().contains("during the spilling process") => {
                Self::Memory("its rows do not fit on the disk that queries may use".to_owned())
            }
            // Casts and divisions fail on the data: the asker can mend the question.
            DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => Self::Invalid(text()),
            _ => Self::Failed(text()),
        }
    }
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
