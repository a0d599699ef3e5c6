//! Lists that come a page at a time: `limit` and where to go on.

use crate::code::Code;
use nowwhat::Problem;

const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 1000;

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

/// Leaves a page of at most `limit` of what was found, which may be one more: then there is a next page, told by its last entry.
pub(crate) fn cut<T, K>(found: &mut Vec<T>, limit: u32, key: impl Fn(&T) -> K) -> Option<K> {
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    found.last().filter(|_| has_more).map(key)
}
