//! Notes as the API and the cache write them. What a note may hold is said by its types, so that no handler has to ask.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Characters of a title.
const TITLE_CHARACTERS_MAX: usize = 200;
/// Characters of a text.
const TEXT_CHARACTERS_MAX: usize = 10_000;
/// Notes of one page.
const PAGE_NOTES_MAX: u16 = 100;

/// A note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Note {
    /// Its number.
    pub(crate) id: i64,
    /// What it is about.
    pub(crate) title: String,
    /// What it says.
    pub(crate) text: String,
    /// When it was written last, RFC 3339 in UTC.
    pub(crate) changed_at: String,
}

/// A note to be written.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    /// What it is about.
    #[schema(value_type = String, min_length = 1, max_length = 200)]
    pub(crate) title: Title,
    /// What it says.
    #[schema(value_type = String, max_length = 10_000)]
    pub(crate) text: Text,
}

/// A title: not empty, not too long.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Title(pub(crate) String);

impl TryFrom<String> for Title {
    type Error = String;

    fn try_from(title: String) -> Result<Self, String> {
        if title.trim().is_empty() {
            return Err("a title must not be empty".to_owned());
        }
        storable(title, TITLE_CHARACTERS_MAX).map(Self)
    }
}

/// A text: not too long.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Text(pub(crate) String);

impl TryFrom<String> for Text {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        storable(text, TEXT_CHARACTERS_MAX).map(Self)
    }
}

fn storable(text: String, characters_max: usize) -> Result<String, String> {
    // Postgres keeps every character of Unicode but this one.
    if text.contains('\0') {
        return Err("the character U+0000 cannot be kept".to_owned());
    }
    if text.chars().count() > characters_max {
        return Err(format!("more than {characters_max} characters"));
    }
    Ok(text)
}

/// Which notes are asked for.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Window {
    /// Those with a greater number than this: `next` of the page before.
    #[serde(default)]
    pub(crate) after: i64,
    /// At most this many.
    #[serde(default)]
    #[param(value_type = u16, minimum = 1, maximum = 100, default = 20)]
    pub(crate) limit: Limit,
}

/// Notes of one page, at least 1.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u16")]
pub(crate) struct Limit(pub(crate) u16);

impl Default for Limit {
    fn default() -> Self {
        Self(20)
    }
}

impl TryFrom<u16> for Limit {
    type Error = String;

    fn try_from(limit: u16) -> Result<Self, String> {
        let allowed = (1..=PAGE_NOTES_MAX).contains(&limit).then_some(Self(limit));
        allowed.ok_or_else(|| format!("limit must be 1 to {PAGE_NOTES_MAX}"))
    }
}

/// Notes in the order of their numbers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Page {
    /// The notes.
    pub(crate) notes: Vec<Note>,
    /// `after` of the next page; none on the last one.
    pub(crate) next: Option<i64>,
}
