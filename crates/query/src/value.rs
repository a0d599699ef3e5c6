//! One value of an answer as JSON, and the name of its type.

use arrow::array::{Array, AsArray, UnionArray};
use arrow::datatypes::{
    DataType, Date32Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// How bytes are written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BytesAs {
    /// Two digits a byte, as in PostgreSQL.
    Hexadecimal,
    /// RFC 4648, section 4, padded.
    Base64,
}

/// The name of a column's type, as `docs/API.md` lists them.
pub(crate) fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => "bigint".into(),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => "bigint".into(),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double".into(),
        DataType::Decimal128(..) | DataType::Decimal256(..) => "decimal".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes".into(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::List(_) | DataType::LargeList(_) => "array".into(),
        DataType::Struct(_) => "object".into(),
        DataType::Union(..) => "json".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Duration(_) | DataType::Interval(_) => "interval".into(),
        DataType::Null => "null".into(),
        DataType::Dictionary(_, values) => type_name(values),
        other => other.to_string().to_lowercase(),
    }
}

/// The value at `row`. Times are RFC 3339 with `Z`; what JSON cannot say is text.
pub(crate) fn value(array: &dyn Array, row: usize, bytes_as: BytesAs) -> Result<Value, ArrowError> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Union(..) => json_of(array, row, bytes_as)?,
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float16 => f64::from(array.as_primitive::<Float16Type>().value(row)).into(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Binary => bytes_as.text(array.as_binary::<i32>().value(row)).into(),
        DataType::BinaryView => bytes_as.text(array.as_binary_view().value(row)).into(),
        DataType::Timestamp(unit, zone) => time(array, row, *unit, zone.as_deref()),
        DataType::Date32 => {
            array.as_primitive::<Date32Type>().value_as_date(row).map_or(Value::Null, |d| d.to_string().into())
        }
        DataType::List(_) => list(&array.as_list::<i32>().value(row), bytes_as)?,
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row), bytes_as)?,
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            let pairs = fields.iter().zip(columns.columns());
            let object: Result<Map<_, _>, ArrowError> =
                pairs.map(|(f, c)| Ok((f.name().clone(), value(c, row, bytes_as)?))).collect();
            Value::Object(object?)
        }
        _ => ArrayFormatter::try_new(array, &FormatOptions::default())?.value(row).try_to_string()?.into(),
    })
}

/// A value of `data->'field'`: what it is in the event.
fn json_of(array: &dyn Array, row: usize, bytes_as: BytesAs) -> Result<Value, ArrowError> {
    let union = array.as_any().downcast_ref::<UnionArray>();
    let union = union.ok_or_else(|| ArrowError::CastError("a union that is none".to_owned()))?;
    let kind = union.type_id(row);
    let inner = value(union.child(kind), union.value_offset(row), bytes_as)?;
    let DataType::Union(fields, _) = array.data_type() else {
        return Ok(inner);
    };
    // Lists and objects are kept as their text.
    let nested = fields.iter().any(|(id, field)| id == kind && matches!(field.name().as_str(), "array" | "object"));
    Ok(match inner {
        Value::String(text) if nested => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        other => other,
    })
}

fn list(items: &dyn Array, bytes_as: BytesAs) -> Result<Value, ArrowError> {
    (0..items.len()).map(|row| value(items, row, bytes_as)).collect()
}

fn time(array: &dyn Array, row: usize, unit: TimeUnit, zone: Option<&str>) -> Value {
    let micros = match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row).checked_mul(1_000_000),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row).checked_mul(1000),
        TimeUnit::Microsecond => Some(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        TimeUnit::Nanosecond => Some(array.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1000)),
    };
    let text = event::format_time(micros.unwrap_or(i64::MAX));
    Value::from(if zone.is_some() { text } else { text.trim_end_matches('Z').to_owned() })
}

impl BytesAs {
    fn text(self, bytes: &[u8]) -> String {
        use std::fmt::Write;
        match self {
            Self::Base64 => STANDARD.encode(bytes),
            Self::Hexadecimal => bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
                write!(text, "{byte:02x}").expect("writing to a text does not fail");
                text
            }),
        }
    }
}
