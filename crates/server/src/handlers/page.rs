//! Lists that come a page at a time: `limit` and where to go on.

use crate::code::Code;
use nowwhat::Problem;
use serde_json::{Value, json};

const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 1000;

/// What a list is of, and what the next page is asked by.
pub(crate) struct List {
    /// The name of the list in the answer.
    pub(crate) name: &'static str,
    /// The field of an entry that says where it stands.
    pub(crate) key: &'static str,
    /// The name in the answer for the key of the last entry, when more follow.
    pub(crate) next: &'static str,
}

/// How many are asked for.
///
/// # Errors
/// 400 when it is out of bounds.
pub(crate) fn limit_of(given: Option<u64>) -> Result<u32, Problem> {
    match given.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit as u32),
        other => Err(Code::InvalidParameter.problem(format!("limit is {other}; it goes from 1 to {LIMIT_MAX}"))),
    }
}

impl List {
    /// A page of at most `limit` of what was found, which may be one more: then there is a next page.
    pub(crate) fn page(&self, mut found: Vec<Value>, limit: u32) -> Value {
        let has_more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next = found.last().filter(|_| has_more).map(|last| last[self.key].clone());
        json!({ self.name: found, self.next: next })
    }
}
