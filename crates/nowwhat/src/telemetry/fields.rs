//! What a log line says besides its message: named values, in order, each name once. Values bound to a span are on every line under it.
//!
//! A name keeps one type in what reads the lines: a whole number beyond [`i64`] is a text, as OpenTelemetry has it, since no column
//! takes it; what is no number is left out; a long text is cut.

use std::fmt::{self, Write};
use std::ops::Range;
use tracing::field::{Field, Visit};
use tracing_subscriber::Registry;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// The longest text of one value, in bytes: what Elasticsearch can index as one term even when each of them is a character of four.
pub const TEXT_BYTES_MAX: usize = 8191;
/// What stands where a text was cut.
const CUT: char = '…';
/// The field that is the line's message.
const MESSAGE: &str = "message";
/// Room for texts that is kept for the next line.
const ROOM_BYTES_MAX: usize = 16 << 10;

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

impl Value {
    pub(super) fn seen(&self) -> Seen<'_> {
        match self {
            Self::Text(text) => Seen::Text(text),
            Self::Signed(number) => Seen::Signed(*number),
            Self::Unsigned(number) => Seen::Unsigned(*number),
            Self::Float(number) => Seen::Float(*number),
            Self::Bool(yes) => Seen::Bool(*yes),
        }
    }
}

/// A value that lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Seen<'a> {
    Text(&'a str),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
}

/// Fields of a span or of a line. Their texts lie in one buffer, so that a line costs no allocation when its fields are used again.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    texts: String,
    kept: Vec<(&'static str, Kept)>,
    message: Range<usize>,
    /// So many came from the spans around; a line's own names are different from each other.
    inherited: usize,
}

#[derive(Clone, Debug)]
enum Kept {
    Text(Range<usize>),
    Signed(i64),
    Float(f64),
    Bool(bool),
}

impl Fields {
    /// Forgets everything but the room it took, when that is not large.
    pub(super) fn clear(&mut self) {
        self.texts.clear();
        self.texts.shrink_to(ROOM_BYTES_MAX);
        self.kept.clear();
        self.message = 0..0;
        self.inherited = 0;
    }

    /// Takes over what is bound to a span.
    pub(super) fn inherit(&mut self, span: &Self) {
        if self.kept.is_empty() {
            // What was not kept may have left its text.
            self.texts.clear();
            self.texts.push_str(&span.texts);
            self.kept.extend_from_slice(&span.kept);
        } else {
            for (name, value) in span.iter() {
                self.inherited = self.kept.len();
                self.set(name, value);
            }
        }
        self.inherited = self.kept.len();
    }

    /// The later value of a name takes the place of the earlier one.
    pub(super) fn set(&mut self, name: &'static str, value: Seen<'_>) {
        let kept = match value {
            Seen::Text(text) => return self.write(name, |texts| texts.push_str(text)),
            Seen::Unsigned(number) => match i64::try_from(number) {
                Ok(number) => Kept::Signed(number),
                Err(_) => return self.set(name, Seen::Text(&number.to_string())),
            },
            Seen::Float(number) if !number.is_finite() => return self.kept.retain(|(known, _)| *known != name),
            Seen::Float(number) => Kept::Float(number),
            Seen::Signed(number) => Kept::Signed(number),
            Seen::Bool(yes) => Kept::Bool(yes),
        };
        self.keep(name, kept);
    }

    /// A text that is written in place, and cut when it is too long.
    fn write(&mut self, name: &'static str, write: impl FnOnce(&mut String)) {
        if is_for_traces(name) {
            return;
        }
        let start = self.texts.len();
        write(&mut self.texts);
        if self.texts.len() - start > TEXT_BYTES_MAX {
            self.texts.truncate(self.texts.floor_char_boundary(start + TEXT_BYTES_MAX - CUT.len_utf8()));
            self.texts.push(CUT);
        }
        self.keep(name, Kept::Text(start..self.texts.len()));
    }

    fn keep(&mut self, name: &'static str, value: Kept) {
        if is_for_traces(name) {
            return;
        }
        if let (MESSAGE, Kept::Text(message)) = (name, &value) {
            self.message = message.clone();
            self.let_go();
            return;
        }
        let same = |(known, _): &&mut (&'static str, Kept)| *known == name;
        match self.kept[..self.inherited].iter_mut().find(same) {
            Some((_, known)) => {
                *known = value;
                self.let_go();
            }
            None => self.kept.push((name, value)),
        }
    }

    /// Lets texts go whose values were replaced, when they are the most of what is held: what is bound again and again must not grow.
    fn let_go(&mut self) {
        let texts = self
            .kept
            .iter()
            .filter_map(|(_, value)| if let Kept::Text(text) = value { Some(text.len()) } else { None });
        let held = self.message.len() + texts.sum::<usize>();
        if self.texts.len() <= 2 * held + TEXT_BYTES_MAX {
            return;
        }
        let all = std::mem::replace(&mut self.texts, String::with_capacity(held));
        let mut moved = |text: &mut Range<usize>| {
            let start = self.texts.len();
            self.texts.push_str(&all[text.clone()]);
            *text = start..self.texts.len();
        };
        moved(&mut self.message);
        for (_, value) in &mut self.kept {
            if let Kept::Text(text) = value {
                moved(text);
            }
        }
    }

    /// Fields of a span: each name may come again.
    pub(super) fn of_span(&mut self) -> &mut Self {
        self.inherited = self.kept.len();
        self
    }

    /// The message, empty when there is none.
    pub(super) fn message(&self) -> &str {
        &self.texts[self.message.clone()]
    }

    /// All texts, the message among them.
    pub(super) fn texts(&self) -> &str {
        &self.texts
    }

    /// Names and values in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, Seen<'_>)> {
        self.kept.iter().map(|(name, value)| {
            let value = match value {
                Kept::Text(range) => Seen::Text(&self.texts[range.clone()]),
                Kept::Signed(number) => Seen::Signed(*number),
                Kept::Float(number) => Seen::Float(*number),
                Kept::Bool(yes) => Seen::Bool(*yes),
            };
            (*name, value)
        })
    }
}

/// Whether a field is for exported traces only.
fn is_for_traces(name: &str) -> bool {
    // The place of the dot spares most names the rest.
    name.as_bytes().get(4) == Some(&b'.') && (name.starts_with("otel.") || name.starts_with("http."))
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), Seen::Float(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), Seen::Signed(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), Seen::Unsigned(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), Seen::Bool(value));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), Seen::Text(value));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.set(field.name(), Seen::Text(&crate::error_chain(value)));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field.name(), |texts| write!(texts, "{value:?}").expect("writing to a text does not fail"));
    }
}

/// Binds a value to the current span: it is on every line written under it from now on. In a handler it is bound to the request too,
/// so that it is also on the request's own line and on those outside of spans that the handler opened. Without a span, or where no
/// [`Lines`](super::Lines) write on a [`Registry`], nothing happens.
///
/// ```
/// # async fn handler() {
/// nowwhat::bind("customer", "c-17");
/// tracing::info!(loaves = 3, "ordered"); // has customer, loaves and request_id
/// # }
/// ```
pub fn bind(name: &'static str, value: impl Into<Value>) {
    let value = value.into();
    tracing::Span::current().with_subscriber(|(id, dispatch)| {
        let Some(span) = dispatch.downcast_ref::<Registry>().and_then(|registry| registry.span(id)) else {
            return;
        };
        let is_request = |around: &SpanRef<'_, Registry>| around.metadata().target() == crate::request::TARGET;
        let request = span.scope().skip(1).find(is_request);
        for span in [Some(span), request].into_iter().flatten() {
            if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
                fields.of_span().set(name, value.seen());
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_no_column_takes_is_a_text_or_left_out_and_a_long_one_is_cut() {
        let mut fields = Fields::default();
        let mut set = |name, value: Value| fields.of_span().set(name, value.seen());
        set("ratio", 0.5.into());
        set("ratio", f64::NAN.into());
        set("load", f64::INFINITY.into());
        set("rows", (i64::MAX as u64).into());
        set("hash", u64::MAX.into());
        set("guest", "ß".repeat(5000).into());
        set("name", "x".repeat(TEXT_BYTES_MAX).into());
        let found: Vec<_> = fields.iter().collect();
        let Seen::Text(guest) = found[2].1 else { panic!("{found:?}") };
        assert!((TEXT_BYTES_MAX - 4..=TEXT_BYTES_MAX).contains(&guest.len()) && guest.ends_with("ß…"), "{guest}");
        let name = "x".repeat(TEXT_BYTES_MAX);
        let kept = [
            ("rows", Seen::Signed(i64::MAX)),
            ("hash", Seen::Text("18446744073709551615")),
            ("guest", Seen::Text(guest)),
            ("name", Seen::Text(&name)),
        ];
        assert_eq!(found, kept);
    }

    #[test]
    fn the_later_value_of_a_name_holds_within_a_span_between_spans_and_on_the_line() {
        let (mut outer, mut inner, mut line) = (Fields::default(), Fields::default(), Fields::default());
        outer.of_span().set("guest", Seen::Text("sun"));
        outer.of_span().set("guest", Seen::Text("moon"));
        outer.of_span().set("room", Seen::Signed(1));
        inner.of_span().set("room", Seen::Signed(2));
        for _ in 0..2 {
            line.clear();
            line.inherit(&outer);
            line.inherit(&inner);
            line.set("message", Seen::Text("came"));
            line.set("guest", Seen::Text("mars"));
            assert_eq!(line.message(), "came");
            let found: Vec<_> = line.iter().collect();
            assert_eq!(found, [("guest", Seen::Text("mars")), ("room", Seen::Signed(2))]);
        }
    }

    #[test]
    fn what_is_bound_again_and_again_does_not_grow() {
        let mut span = Fields::default();
        span.of_span().set("guest", Seen::Text("sun"));
        for round in 0..10_000 {
            span.of_span().set("round", Seen::Text(&format!("the round {round} of many")));
            span.of_span().set("otel.name", Seen::Text("for traces"));
            assert!(span.texts.len() < 2 * TEXT_BYTES_MAX, "{} bytes", span.texts.len());
        }
        let found: Vec<_> = span.iter().collect();
        assert_eq!(found, [("guest", Seen::Text("sun")), ("round", Seen::Text("the round 9999 of many"))]);
    }

    #[test]
    fn what_an_outer_span_does_not_keep_moves_no_text_of_an_inner_one() {
        let (mut outer, mut inner, mut line) = (Fields::default(), Fields::default(), Fields::default());
        outer.of_span().set("otel.name", Seen::Text("nächtlich"));
        inner.of_span().set("customer", Seen::Text("c-17"));
        line.inherit(&outer);
        line.inherit(&inner);
        assert_eq!(line.iter().collect::<Vec<_>>(), [("customer", Seen::Text("c-17"))]);
    }
}
