//! Values that a column can hold.

use crate::field::Kind;
use crate::json::unescaped;

/// A longer text is not put into a column.
const TEXT_BYTES_MAX: usize = 256;
/// A value that fits a column.
pub(crate) enum Value<'a> {
    Double(f64),
    Boolean(bool),
    Text(&'a str),
}

impl Value<'_> {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Double(_) => Kind::Double,
            Self::Boolean(_) => Kind::Boolean,
            Self::Text(_) => Kind::Text,
        }
    }
}

/// The value of a text of JSON that is no list and no object, if a column can hold just that.
pub(crate) fn fitting<'a>(text: &'a str, scratch: &'a mut String) -> Option<Value<'a>> {
    match text.as_bytes()[0] {
        b't' => Some(Value::Boolean(true)),
        b'f' => Some(Value::Boolean(false)),
        b'"' => {
            let plain = &text[1..text.len() - 1];
            if plain.len() > TEXT_BYTES_MAX {
                return None;
            }
            if memchr::memchr(b'\\', plain.as_bytes()).is_none() {
                return Some(Value::Text(plain));
            }
            *scratch = unescaped(text).into_owned();
            Some(Value::Text(scratch))
        }
        _ => exact(text).map(Value::Double),
    }
}

/// The double that a number is; none when it is another number.
pub(crate) fn exact(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    // Every number of so few digits has a double of its own, whose shortest text is the number's.
    if text.len() <= 15 && !text.bytes().any(|b| b == b'e' || b == b'E') {
        return Some(value);
    }
    if !value.is_finite() {
        return None;
    }
    (decimal(text)? == decimal(&format!("{value:e}"))?).then_some(value)
}

/// A number as its digits without zeros around them, and the power of ten of the first of them.
fn decimal(text: &str) -> Option<(String, i64)> {
    let text = text.trim_start_matches('-');
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    let exponent: i64 = exponent.trim_start_matches('+').parse().ok()?;
    let all = format!("{before}{after}");
    let zeros = all.len() - all.trim_start_matches('0').len();
    let digits = all.trim_matches('0');
    if digits.is_empty() {
        return Some((String::new(), 0));
    }
    Some((digits.to_owned(), exponent.checked_add(before.len() as i64 - zeros as i64)?))
}
