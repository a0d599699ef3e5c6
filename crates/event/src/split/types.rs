//! The types of the events whose texts are gone through.

use crate::seen::TYPE_BYTES_MAX;
use std::collections::HashMap;
use std::sync::Arc;

/// Most types of events whose fields are told apart; those of further ones are not told.
const TYPES_MAX: usize = 256;

/// The types of events, each with a number.
#[derive(Debug, Default)]
pub(super) struct Types {
    pub(super) names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, usize>,
    /// That of the row; none when there are too many, or its name is too long.
    pub(super) current: Option<usize>,
}

impl Types {
    pub(super) fn turn_to(&mut self, name: &str) {
        if self.current.is_some_and(|number| *self.names[number] == *name) {
            return;
        }
        self.current = self.numbers.get(name).copied();
        if self.current.is_none() && self.names.len() < TYPES_MAX && name.len() <= TYPE_BYTES_MAX {
            let name: Arc<str> = name.into();
            self.current = Some(self.names.len());
            self.numbers.insert(name.clone(), self.names.len());
            self.names.push(name);
        }
    }
}
