//! Why an event was rejected: one table of codes, and the rejection itself.

use std::ops::Range;

/// One rejected event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its index in the batch, from 0.
    pub index: u64,
    /// Why, by a name that never changes.
    pub code: Code,
    /// The field at fault, as a JSON pointer (RFC 6901); a header at fault by its name, such as `ce-time`.
    pub pointer: Option<String>,
    /// Why, and what to do.
    pub reason: String,
    /// Where its bytes are in the body, decompressed.
    pub text: Range<usize>,
}

macro_rules! codes {
    ($($variant:ident $name:literal $meaning:literal, $advice:literal;)*) => {
        /// Why an event was rejected.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $meaning] $variant,)* }

        impl Code {
            /// All codes, in the order of the documentation.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];
            /// The name in answers; it never changes.
            pub fn name(self) -> &'static str { match self { $(Code::$variant => $name,)* } }
            /// What it means.
            pub fn meaning(self) -> &'static str { match self { $(Code::$variant => $meaning,)* } }
            /// What to do.
            pub fn advice(self) -> &'static str { match self { $(Code::$variant => $advice,)* } }
        }
    };
}

codes! {
    InvalidJson "invalid_json" "The event is not JSON by RFC 8259", "Mend the syntax at the place the reason names.";
    InvalidUtf8 "invalid_utf8" "The event is not valid UTF-8", "Send text as UTF-8.";
    LoneSurrogate "lone_surrogate" "A string has a lone surrogate such as \\ud800", "Send both halves of the pair, or U+FFFD in its place.";
    NotAnObject "not_an_object" "The event is not a JSON object", "Wrap the value: {\"value\": 1}.";
    EventTooLarge "event_too_large" "The event is larger than an event may be", "Split it, or raise `events.event_bytes_max`.";
    NestingTooDeep "nesting_too_deep" "The event is nested deeper than it may be", "Flatten it, or raise `events.nesting_max`.";
    InvalidTime "invalid_time" "The time is there and cannot be read", "Send RFC 3339 with a zone, or an epoch number; in a CloudEvent RFC 3339 alone.";
    TimeWithoutZone "time_without_zone" "The time has no zone and none is set", "Add Z or an offset, or set time_zone=Europe/Berlin.";
    InvalidId "invalid_id" "The id cannot be used", "Send a string that is not empty, or a number.";
    InvalidType "invalid_type" "The type cannot be used", "Send a string.";
    InvalidSubject "invalid_subject" "The subject cannot be used", "Send a string; in a CloudEvent one that is not empty.";
    MissingAttribute "missing_attribute" "The CloudEvent lacks an attribute that it needs", "Send `specversion`, `id`, `source` and `type`.";
    InvalidSpecversion "invalid_specversion" "The CloudEvent is not of version 1.0", "Send `specversion` as the string 1.0.";
    InvalidSource "invalid_source" "The source of the CloudEvent cannot be used", "Send a URI reference that is not empty, such as /sensors/roof.";
    InvalidContentType "invalid_datacontenttype" "The content type of the data is no media type", "Send one such as application/json, or leave it out.";
    InvalidDataschema "invalid_dataschema" "The schema of the data is no URI", "Send an absolute URI such as https://example.com/schema, or leave it out.";
    InvalidAttribute "invalid_attribute" "A name or value of an attribute is none that CloudEvents allow", "Name attributes in lower-case letters and digits, once each; send texts without control characters, true, false, or integers of 32 bits.";
    BothData "both_data" "The CloudEvent has both `data` and `data_base64`", "Send one of them.";
    InvalidBase64 "invalid_data_base64" "The field `data_base64` is not Base64", "Send a string in Base64 by RFC 4648, section 4, with its padding.";
    NotExported "not_exported" "The line is none of an export", "Import what `catchment export` wrote, as it wrote it.";
    TooOld "too_old" "The event of an export is older than events are kept here", "Leave it out, or raise `retention.age_seconds`.";
}
