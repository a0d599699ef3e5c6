//! Errors of the API, as tests look at them.

use crate::Answer;

/// Checks that an answer is an error with this status and code.
#[track_caller]
pub fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{answer:?}");
}
