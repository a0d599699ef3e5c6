//! W3C Trace Context: the headers `traceparent` and `tracestate`, by which services tell which trace a request belongs
//! to.
//!
//! It follows <https://www.w3.org/TR/trace-context/>: a header that the standard refuses counts as absent, and a
//! version newer than `00` is read as far as it is known. Nothing here needs an exporter: a service continues the
//! traces of its callers also when it exports none. `tracestate` is passed on as it came, never changed.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use std::fmt;

/// The header of the trace and of the caller's place in it.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header of what tracing systems tell each other.
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Characters of a `tracestate` that is passed on; the standard asks for at least this many. A longer one is dropped
/// whole.
pub const TRACESTATE_CHARS_MAX: usize = 512;

/// Characters of a header of version 00.
const CHARS: usize = 55;

/// Whether the caller says that it records this trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// It does, and asks everyone below to do it too.
    Yes,
    /// It does not.
    No,
}

/// A place in a trace: what `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole trace; not all zero.
    pub trace_id: [u8; 16],
    /// The one request or span in it that the receiver's work belongs under; not all zero.
    pub parent_id: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: Sampled,
}

impl TraceContext {
    /// The beginning of a new trace.
    pub fn random(sampled: Sampled) -> Self {
        let ids = RandomIdGenerator::default();
        Self { trace_id: ids.new_trace_id().to_bytes(), parent_id: ids.new_span_id().to_bytes(), sampled }
    }

    /// A new place in the same trace.
    pub fn child(&self) -> Self {
        Self { parent_id: RandomIdGenerator::default().new_span_id().to_bytes(), ..*self }
    }

    /// Reads a header. None when the standard says to go on as if there were none.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let [version] = bytes(traceparent.get(0..2)?)?;
        let length_is_right = match version {
            0xff => false,
            0 => traceparent.len() == CHARS,
            _ => traceparent.len() == CHARS || traceparent.as_bytes().get(CHARS) == Some(&b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| traceparent.as_bytes().get(*at) == Some(&b'-'));
        if !length_is_right || !dashes {
            return None;
        }
        let trace_id: [u8; 16] = bytes(traceparent.get(3..35)?)?;
        let parent_id: [u8; 8] = bytes(traceparent.get(36..52)?)?;
        let [flags] = bytes(traceparent.get(53..CHARS)?)?;
        // The other flags are not known here and are not passed on, as the standard asks.
        let sampled = if flags & 1 == 1 { Sampled::Yes } else { Sampled::No };
        let usable = trace_id != [0; 16] && parent_id != [0; 8];
        usable.then_some(Self { trace_id, parent_id, sampled })
    }

    /// Reads the headers of a request, with the `tracestate` to pass on. Two `traceparent` headers count as none, and a
    /// `tracestate` without a `traceparent` too. Several `tracestate` headers are one list.
    pub fn from_headers(headers: &HeaderMap) -> Option<(Self, Option<HeaderValue>)> {
        let mut given = headers.get_all(&TRACEPARENT).iter();
        let (first, None) = (given.next()?, given.next()) else { return None };
        let context = Self::parse(first.to_str().ok()?)?;
        let states: Vec<&str> = headers.get_all(&TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let state = states.join(",");
        let usable = (1..=TRACESTATE_CHARS_MAX).contains(&state.len());
        Some((context, usable.then(|| HeaderValue::try_from(state).ok()).flatten()))
    }

    /// The header, as [`fmt::Display`] writes it.
    pub fn header(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("hexadecimal digits and dashes are allowed in a header")
    }

    /// The trace's id as 32 hexadecimal digits.
    pub fn trace_id_hex(&self) -> String {
        hex(&self.trace_id)
    }

    /// The parent's id as 16 hexadecimal digits.
    pub fn parent_id_hex(&self) -> String {
        hex(&self.parent_id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.sampled == Sampled::Yes { 1 } else { 0 };
        write!(f, "00-{}-{}-{flags:02x}", self.trace_id_hex(), self.parent_id_hex())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lower-case hexadecimal digits, two for every byte; the standard refuses upper-case ones.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: &u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(&pair[0])? << 4 | digit(&pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_header_is_read_as_the_standard_says() {
        let sampled = |flags: &str| TraceContext::parse(&format!("00-{TRACE}-{PARENT}-{flags}")).map(|c| c.sampled);
        assert_eq!(sampled("01"), Some(Sampled::Yes));
        assert_eq!(sampled("00"), Some(Sampled::No));
        assert_eq!(
            (sampled("03"), sampled("02")),
            (Some(Sampled::Yes), Some(Sampled::No)),
            "unknown flags are ignored"
        );
        let newer = [format!("01-{TRACE}-{PARENT}-01"), format!("cc-{TRACE}-{PARENT}-01-what-the-future-brings")];
        for header in newer {
            let read = TraceContext::parse(&header).unwrap_or_else(|| panic!("{header} is readable"));
            assert_eq!(read.to_string(), format!("00-{TRACE}-{PARENT}-01"));
        }
    }

    #[test]
    fn what_the_standard_refuses_counts_as_absent() {
        let (zero_trace, zero_parent, upper) = ("0".repeat(32), "0".repeat(16), TRACE.to_uppercase());
        let refused = [
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{zero_trace}-{PARENT}-01"),
            format!("00-{TRACE}-{zero_parent}-01"),
            format!("00-{upper}-{PARENT}-01"),
            format!("00-{TRACE}-{}-01", PARENT.to_uppercase()),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("cc-{TRACE}-{PARENT}-01.what"),
            format!("cc-{TRACE}-{PARENT}-0"),
            format!("00-{TRACE}-{PARENT}-0"),
            format!("00-{TRACE}-{PARENT}-0x"),
            format!("00-{TRACE}-{PARENT}"),
            format!("0-{TRACE}-{PARENT}-011"),
            format!("CC-{TRACE}-{PARENT}-01"),
            format!("00_{TRACE}_{PARENT}_01"),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("00-{}é-{PARENT}-01", &TRACE[..30]),
            "00".to_owned(),
            String::new(),
        ];
        for header in refused {
            assert_eq!(TraceContext::parse(&header), None, "{header:?}");
        }
    }

    #[test]
    fn headers_that_contradict_each_other_count_as_absent() {
        let header = format!("00-{TRACE}-{PARENT}-01");
        let with = |parents: &[&str], states: &[&str]| {
            let mut headers = HeaderMap::new();
            let mut add =
                |name: &HeaderName, text: &str| headers.append(name, HeaderValue::try_from(text).expect("ASCII"));
            for parent in parents {
                add(&TRACEPARENT, parent);
            }
            for state in states {
                add(&TRACESTATE, state);
            }
            TraceContext::from_headers(&headers).map(|(context, state)| (context.to_string(), state))
        };
        let state = |text: &str| Some(HeaderValue::try_from(text).expect("ASCII"));
        assert_eq!(with(&[&header], &["a=1", "b=2"]), Some((header.clone(), state("a=1,b=2"))));
        assert_eq!(with(&[&header], &[]), Some((header.clone(), None)));
        assert_eq!(with(&[&header], &[&"a".repeat(513)]), Some((header.clone(), None)), "too long");
        assert_eq!(with(&[&header, &header], &[]), None);
        assert_eq!(with(&[], &["a=1"]), None);
    }

    #[test]
    fn a_child_is_another_place_in_the_same_trace() {
        let parent = TraceContext::random(Sampled::Yes);
        let child = parent.child();
        assert_eq!((child.trace_id, child.sampled), (parent.trace_id, Sampled::Yes));
        assert_ne!(child.parent_id, parent.parent_id);
        assert_ne!(TraceContext::random(Sampled::No).trace_id, parent.trace_id);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace_id: [u8; 16], parent_id: [u8; 8], recorded: bool) {
            prop_assume!(trace_id != [0; 16] && parent_id != [0; 8]);
            let sampled = if recorded { Sampled::Yes } else { Sampled::No };
            let context = TraceContext { trace_id, parent_id, sampled };
            prop_assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
            let header = context.header();
            prop_assert_eq!(header.to_str().expect("ASCII"), context.to_string());
        }

        #[test]
        fn no_text_makes_it_fail_and_what_it_accepts_it_keeps(
            text in "\\PC{0,60}|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?"
        ) {
            if let Some(read) = TraceContext::parse(&text) {
                prop_assert_eq!(&read.to_string()[3..53], &text[3..53]);
            }
        }
    }
}
