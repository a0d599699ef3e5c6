//! Fields of `data` as numbers and as true and false.
//!
//! `field_double(data, 'a', 'b')` is `(data->'a'->>'b')::double`, and null where the text is no finite number, in one call that can be answered
//! from a column: see [`columns`](crate::columns).

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::CastOptions;
use arrow::datatypes::{DataType, Field as ArrowField, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExpressionPlacement, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_functions_json::udfs::json_as_text_udf;
use event::{Fields, Kind, data_of};
use lake::View;
use std::cell::OnceCell;
use std::sync::{Arc, LazyLock};

/// The function of a field's text.
pub(crate) const AS_TEXT: &str = "json_as_text";

static AS_DOUBLE: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| FieldAs::udf("field_double", Kind::Double));
static AS_BOOLEAN: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| FieldAs::udf("field_boolean", Kind::Boolean));

/// The call for a field as a type, in the place of a cast of the call for its text; none when there is none.
pub(crate) fn field_as(text: &Expr, kind: &DataType) -> Option<Expr> {
    let function = match kind {
        DataType::Float64 => &AS_DOUBLE,
        DataType::Boolean => &AS_BOOLEAN,
        _ => return None,
    };
    match text {
        Expr::Alias(alias) => field_as(&alias.expr, kind),
        Expr::ScalarFunction(call) if call.func.name() == AS_TEXT => Some(function.call(call.args.clone())),
        _ => None,
    }
}

/// The type of the column that can answer the calls of a function.
pub(crate) fn kind_of(function: &ScalarUDF) -> Option<Kind> {
    match function.inner().downcast_ref::<FieldAs>() {
        Some(field) => Some(field.kind),
        None => (function.name() == AS_TEXT).then_some(Kind::Text),
    }
}

/// The types of the fields of a View.
pub(crate) struct FieldTypes<'a> {
    view: &'a View,
    /// With the columns that the live rows will bring; looked for once.
    with_live: OnceCell<Fields>,
}

impl<'a> FieldTypes<'a> {
    pub(crate) fn new(view: &'a View) -> Self {
        Self { view, with_live: OnceCell::new() }
    }

    /// The type of a field, as its column has it or will have it; none when it has none and gets none, and is a text.
    pub(crate) fn of(&self, path: &[String]) -> Option<Kind> {
        let known = &self.view.lake.fields;
        let fields = if known.may_get(path) { self.with_live.get_or_init(|| self.discovered()) } else { known };
        fields.get(path).map(|(_, kind)| kind)
    }

    fn discovered(&self) -> Fields {
        // Rows of this View may be sealed since, with their columns.
        let (newest, live) = self.view.newest.with_rows();
        let mut fields = newest.lake.fields.as_ref().clone();
        fields.discover(live.iter().map(|rows| data_of(rows)));
        fields
    }
}

/// A field as a type, null where its text is none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FieldAs {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl FieldAs {
    fn udf(name: &'static str, kind: Kind) -> Arc<ScalarUDF> {
        Arc::new(Self { name, kind, signature: Signature::variadic_any(Volatility::Immutable) }.into())
    }
}

impl ScalarUDFImpl for FieldAs {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        json_as_text_udf().inner().return_type(arguments)?;
        Ok(self.kind.data_type())
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.return_field = Arc::new(ArrowField::new(AS_TEXT, DataType::Utf8, true));
        let text = json_as_text_udf().inner().invoke_with_args(args)?;
        let value =
            text.cast_to(&self.kind.data_type(), Some(&CastOptions { safe: true, ..CastOptions::default() }))?;
        Ok(match value {
            ColumnarValue::Array(array) if self.kind == Kind::Double => ColumnarValue::Array(finite(&array)),
            ColumnarValue::Scalar(ScalarValue::Float64(Some(value))) if !value.is_finite() => {
                ColumnarValue::Scalar(ScalarValue::Float64(None))
            }
            other => other,
        })
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        json_as_text_udf().inner().placement(args)
    }
}

/// Doubles, null where one is none that JSON knows: `"nan"` of one event is not to be the average of all.
fn finite(doubles: &ArrayRef) -> ArrayRef {
    let doubles = doubles.as_primitive::<Float64Type>();
    if doubles.iter().flatten().all(f64::is_finite) {
        return Arc::new(doubles.clone());
    }
    Arc::new(doubles.iter().map(|value| value.filter(|value| value.is_finite())).collect::<Float64Array>())
}
