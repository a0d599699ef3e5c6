//! What was answered, and what must be found.

use std::collections::{BTreeMap, BTreeSet};

/// One event: its number is in its data, so that it is known without an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) number: u64,
    pub(crate) sensor: String,
    pub(crate) id: Option<String>,
    pub(crate) data: String,
    /// When it was received, by the clock of then.
    pub(crate) received_at: i64,
}

/// One row found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) sensor: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

/// When is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// After a start: what was in doubt is there for good or gone for good.
    Started,
    Running,
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// By number: the event and its position.
    accepted: BTreeMap<u64, (Sent, u64)>,
    /// Sent without an answer that says what became of them: not there before the next start, then there once or not at all. What was answered
    /// with another error is neither here nor accepted: it may never be there.
    doubtful: BTreeMap<u64, Sent>,
    /// Events that retention may let go: a leap of the clock since they came may be believed.
    old: BTreeSet<u64>,
    /// Those of them that went. None comes back.
    expired: BTreeSet<u64>,
    /// The last position answered.
    pub(crate) last_position: u64,
    /// Sensors whose events go up to a position, and whether that was done.
    erased: Vec<(String, u64, bool)>,
}

impl Oracle {
    pub(crate) fn accepted(&mut self, sent: &[Sent], first_position: u64) {
        for (i, event) in sent.iter().enumerate() {
            let position = first_position + i as u64;
            self.doubtful.remove(&event.number);
            self.accepted.insert(event.number, (event.clone(), position));
            self.last_position = self.last_position.max(position);
        }
    }

    pub(crate) fn in_doubt(&mut self, sent: &[Sent]) {
        self.doubtful.extend(sent.iter().map(|event| (event.number, event.clone())));
    }

    /// Events that are known to be there, with ids, to send again.
    pub(crate) fn known(&self) -> Vec<Sent> {
        self.accepted.values().map(|(event, _)| event).filter(|event| event.id.is_some()).cloned().collect()
    }

    /// Enough time has passed: what came so far may go.
    pub(crate) fn all_are_old(&mut self) {
        self.old.extend(self.accepted.keys().chain(self.doubtful.keys()));
    }

    /// A start goes by the newest event that it finds: what is older by this much may go.
    pub(crate) fn started(&mut self, age_micros: i64) {
        let all = || self.accepted.values().map(|(sent, _)| sent).chain(self.doubtful.values());
        let newest = all().map(|sent| sent.received_at).max().unwrap_or(0);
        let old = all().filter(|sent| sent.received_at < newest - age_micros).map(|sent| sent.number);
        let old: Vec<u64> = old.collect();
        self.old.extend(old);
    }

    /// Number of events that retention let go.
    pub(crate) fn expired(&self) -> usize {
        self.expired.len()
    }

    /// Number of erasures that were done.
    pub(crate) fn erasures(&self) -> usize {
        self.erased.iter().filter(|(.., done)| *done).count()
    }

    pub(crate) fn erasing(&mut self, sensor: &str, until: u64) {
        self.erased.push((sensor.to_owned(), until, false));
    }

    /// What was asked to be erased and is not done.
    pub(crate) fn to_erase(&self) -> Option<(String, u64)> {
        self.erased.iter().find(|(.., done)| !done).map(|(sensor, until, _)| (sensor.clone(), *until))
    }

    pub(crate) fn erased(&mut self) {
        if let Some((.., done)) = self.erased.iter_mut().find(|(.., done)| !done) {
            *done = true;
        }
    }

    fn erasure_of(&self, sensor: &str, position: u64) -> Option<bool> {
        let mut all = self.erased.iter().filter(|(of, until, _)| of == sensor && position <= *until);
        let first = all.next()?.2;
        Some(all.fold(first, |done, erasure| done || erasure.2))
    }

    /// Compares with all rows.
    pub(crate) fn check(&mut self, rows: &[Found], when: When) -> Result<(), String> {
        let mut positions = BTreeSet::new();
        let mut numbers = BTreeMap::new();
        for row in rows {
            if !positions.insert(row.position) {
                return Err(format!("two events at position {}", row.position));
            }
            let number = number_of(&row.data).ok_or_else(|| format!("an event that nobody sent: {row:?}"))?;
            if let Some(before) = numbers.insert(number, row) {
                return Err(format!("an event is there twice: {before:?} and {row:?}"));
            }
            let sent = match (self.accepted.get(&number), self.doubtful.get(&number)) {
                (Some((sent, position)), _) if *position == row.position => sent,
                (Some((_, position)), _) => return Err(format!("answered at position {position}, found: {row:?}")),
                (None, Some(_)) if when == When::Running => return Err(format!("in doubt, and shown: {row:?}")),
                (None, Some(sent)) => sent,
                (None, None) => return Err(format!("an event that was not accepted: {row:?}")),
            };
            if sent.data != row.data || sent.sensor != row.sensor || sent.id.as_ref().is_some_and(|id| *id != row.id) {
                return Err(format!("sent {sent:?}, found {row:?}"));
            }
            if self.expired.contains(&number) {
                return Err(format!("an expired event is there again: {row:?}"));
            }
            if self.erasure_of(&row.sensor, row.position) == Some(true) {
                return Err(format!("an erased event is there: {row:?}"));
            }
        }
        let missing = self.accepted.values().filter(|(sent, position)| {
            !numbers.contains_key(&sent.number) && self.erasure_of(&sent.sensor, *position).is_none()
        });
        let (expired, missing): (Vec<_>, Vec<_>) = missing.partition(|(sent, _)| self.old.contains(&sent.number));
        self.expired.extend(expired.iter().map(|(sent, _)| sent.number));
        let missing = missing.first();
        if let Some((sent, position)) = missing {
            return Err(format!("accepted at position {position} and gone: {sent:?}"));
        }
        if when == When::Started {
            for (number, sent) in std::mem::take(&mut self.doubtful) {
                if let Some(row) = numbers.get(&number) {
                    self.accepted.insert(number, (sent, row.position));
                }
            }
        }
        Ok(())
    }

    /// The last position that any answer or any row told.
    pub(crate) fn positions_seen(&mut self, rows: &[Found]) {
        self.last_position = rows.iter().map(|row| row.position).fold(self.last_position, u64::max);
    }
}

fn number_of(data: &str) -> Option<u64> {
    let rest = data.strip_prefix("{\"n\":")?;
    rest.split([',', '}']).next()?.parse().ok()
}
