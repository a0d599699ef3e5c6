//! Values of the headers `ce-…`, as the HTTP binding of CloudEvents has them: quotes taken away, then percent-encoding, once.
//!
//! A percent sign without two digits after it stays as it is: senders of older versions encode nothing. What is no UTF-8 then is an
//! error.

use percent_encoding::percent_decode;
use std::borrow::Cow;

/// A value that is no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header is not UTF-8 once it is percent-decoded: encode each byte of the text's UTF-8 as %xy")]
pub(crate) struct NotUtf8;

/// The text of a header's value.
pub(crate) fn decoded(value: &[u8]) -> Result<Cow<'_, str>, NotUtf8> {
    match unquoted(value) {
        Some(inner) => percent_decode(&inner).decode_utf8().map(|text| text.into_owned().into()).map_err(|_| NotUtf8),
        None => percent_decode(value).decode_utf8().map_err(|_| NotUtf8),
    }
}

/// The inside of a quoted string (RFC 7230, section 3.2.6); none when the value is not one.
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let [b'"', inner @ .., b'"'] = value else {
        return None;
    };
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => text.push(*bytes.next()?),
            byte => text.push(byte),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    use proptest::prelude::*;

    /// What the binding says must be encoded; all that is not ASCII always is.
    const MUST: AsciiSet = CONTROLS.add(b' ').add(b'"').add(b'%');

    #[test]
    fn values_are_unquoted_then_decoded_once() {
        for (value, text) in [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro \u{20ac} \u{1f600}"),
            ("%e2%82%ac", "\u{20ac}"),
            ("%41%2541", "A%41"),
            ("\"a \\\"b\\\" \\\\ %20c\"", "a \"b\" \\  c"),
            ("a+b", "a+b"),
            ("", ""),
            ("\"\"", ""),
            ("Gr\u{fc}n", "Gr\u{fc}n"),
        ] {
            assert_eq!(decoded(value.as_bytes()), Ok(text.into()), "{value}");
        }
    }

    #[test]
    fn what_is_not_encoded_right_stays_as_it_is() {
        for value in ["100%", "%zz", "%2", "\"", "\"open", "say \"hi\"", "\"a\"b\"", "\"a\\\""] {
            assert_eq!(decoded(value.as_bytes()), Ok(value.into()), "{value}");
        }
    }

    #[test]
    fn what_is_no_utf_8_is_refused() {
        for value in [b"%C0%A0".as_slice(), b"%ff", b"\xff", b"\"%ED%A0%80\""] {
            assert_eq!(decoded(value), Err(NotUtf8), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in "\\PC{0,40}", slashes in any::<bool>()) {
            let encoded = utf8_percent_encode(&text, &MUST).to_string();
            prop_assert_eq!(decoded(encoded.as_bytes()), Ok(text.as_str().into()));
            let escaped = if slashes { text.replace('\\', "\\\\").replace('"', "\\\"") } else { encoded };
            let escaped = escaped.replace('%', "%25");
            let quoted = format!("\"{}\"", if slashes { escaped } else { escaped.replace("%25", "%").replace('\\', "\\\\") });
            prop_assert_eq!(decoded(quoted.as_bytes()), Ok(text.as_str().into()));
        }

        #[test]
        fn it_never_panics(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            drop(decoded(&value));
        }
    }
}
