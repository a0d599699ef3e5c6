//! What a log line says besides its message: named values, in order, each name once. Values bound to a span are on every line under it.
//!
//! A name keeps one type in what reads the lines: a whole number beyond [`i64`] is a text, as OpenTelemetry has it, since no column
//! takes it; what is no number is left out; a long text is cut.

use std::fmt;
use tracing::field::{Field, Visit};
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan;

/// The longest text of one value, in bytes: what Elasticsearch can index as one term even when each of them is a character of four.
pub const TEXT_BYTES_MAX: usize = 8191;

/// One value of a log line.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number with a sign.
    Signed(i64),
    /// A number without one.
    Unsigned(u64),
    /// A number with a fraction.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

macro_rules! made_from {
    ($($kind:ty: $value:ident => $made:expr;)*) => {$(
        impl From<$kind> for Value {
            fn from($value: $kind) -> Self {
                $made
            }
        }
    )*};
}

made_from! {
    &str: text => Self::Text(text.to_owned());
    String: text => Self::Text(text);
    i64: number => Self::Signed(number);
    u64: number => Self::Unsigned(number);
    f64: number => Self::Float(number);
    bool: yes => Self::Bool(yes);
}

/// Fields of a span or of a line.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(pub(super) Vec<(&'static str, Value)>);

impl Fields {
    /// Whether a field is for exported traces only.
    fn is_for_traces(name: &str) -> bool {
        name.starts_with("otel.") || name.starts_with("http.")
    }

    /// The later value of a name takes the place of the earlier one.
    pub(super) fn set(&mut self, name: &'static str, value: Value) {
        if Self::is_for_traces(name) {
            return;
        }
        let value = match value {
            Value::Text(text) => Value::Text(shortened(text)),
            Value::Unsigned(number) if i64::try_from(number).is_err() => Value::Text(number.to_string()),
            Value::Float(number) if !number.is_finite() => return self.0.retain(|(known, _)| *known != name),
            value => value,
        };
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    /// Takes a text field out.
    pub(super) fn take_text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, value)| *known == name && matches!(value, Value::Text(_)))?;
        match self.0.remove(at).1 {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

fn shortened(mut text: String) -> String {
    const CUT: char = '…';
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX - CUT.len_utf8()));
        text.push(CUT);
    }
    text
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), Value::Float(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), Value::Signed(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), Value::Unsigned(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), Value::Bool(value));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field.name(), crate::error_chain(value).into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), format!("{value:?}").into());
    }
}

/// Binds a value to the current span: it is on every line written under it from now on. In a handler that is the request, so also
/// the request's own line. Without a span, or under another subscriber than this crate's, nothing happens.
///
/// ```
/// # async fn handler() {
/// nowwhat::bind("customer", "c-17");
/// tracing::info!(loaves = 3, "ordered"); // has customer, loaves and request_id
/// # }
/// ```
pub fn bind(name: &'static str, value: impl Into<Value>) {
    tracing::Span::current().with_subscriber(|(id, dispatch)| {
        let Some(span) = dispatch.downcast_ref::<Registry>().and_then(|registry| registry.span(id)) else {
            return;
        };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            fields.set(name, value.into());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_no_column_takes_is_a_text_or_left_out_and_a_long_one_is_cut() {
        let mut fields = Fields::default();
        fields.set("ratio", 0.5.into());
        fields.set("ratio", f64::NAN.into());
        fields.set("load", f64::INFINITY.into());
        fields.set("rows", (i64::MAX as u64).into());
        fields.set("hash", u64::MAX.into());
        fields.set("guest", "ß".repeat(5000).into());
        fields.set("name", "x".repeat(TEXT_BYTES_MAX).into());
        let Value::Text(guest) = &fields.0[2].1 else { panic!("{fields:?}") };
        assert!((TEXT_BYTES_MAX - 4..=TEXT_BYTES_MAX).contains(&guest.len()) && guest.ends_with("ß…"), "{guest}");
        let kept = [
            ("rows", Value::Unsigned(i64::MAX as u64)),
            ("hash", "18446744073709551615".into()),
            ("guest", guest.clone().into()),
            ("name", "x".repeat(TEXT_BYTES_MAX).into()),
        ];
        assert_eq!(fields.0, kept);
    }
}
