//! The window of remembered keys: which events, given with an id, were accepted a short while ago.
//!
//! It promises that an event is called a duplicate only when sensor, source, id *and* content are those of an accepted one,
//! and that the window ends only by age or by number of keys, whichever comes first. Age is counted on the monotonic clock: a
//! wall clock set back never shortens it. It is not shared: the commit loop owns it.
//!
//! No key costs more the more there are of its kind: a thousand events with one id are a thousand look-ups. Nor does it cost a look-up
//! more that an id may come with several contents: those few have an index of their own. Each look-up misses the processor's caches,
//! and they are what the window costs.
//!
//! Memory: a ring of `keys_max` entries and those of one group, 40 bytes each, and two indexes of 5 to 10 bytes an entry each, the second
//! of which only holds the entries of ids with several contents.

use event::Key;
use hashbrown::HashTable;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Keys that are looked up side by side: what they read fits into the processor's caches.
pub(crate) const LOOK_AHEAD: usize = 1024;

/// 40 bytes: a number of 128 bits would have it take a multiple of 16.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: [u64; 2],
    content: u64,
    position: u64,
    /// Seconds on the window's own clock, which began with the process: before that they are negative. 68 years each way.
    seen_seconds: i32,
    /// How many entries before this one the last one of the same id stands, 0 when there was none; with [`SEVERAL`] when its id came with several
    /// contents, so that `contents` finds it as well.
    older_and_several: u32,
}

const _: () = assert!(size_of::<Entry>() == 40);

/// A bit that no number of entries has.
const SEVERAL: u32 = 1 << 31;

impl Entry {
    fn new(key: Key, position: u64, seen_seconds: i64) -> Self {
        let seen_seconds = seen_seconds.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        Self { id: halves(key.id), content: key.content, position, seen_seconds, older_and_several: 0 }
    }

    fn key(&self) -> Key {
        Key { id: u128::from(self.id[1]) << 64 | u128::from(self.id[0]), content: self.content }
    }

    fn has_id(&self, id: u128) -> bool {
        self.id == halves(id)
    }

    /// Where an index of ids looks for it.
    fn hash_of_id(&self) -> u64 {
        self.id[0]
    }

    fn hash(&self) -> u64 {
        hash_of(self.key())
    }

    fn older(&self) -> u32 {
        self.older_and_several & !SEVERAL
    }

    fn is_of_several(&self) -> bool {
        self.older_and_several & SEVERAL != 0
    }

    fn age_seconds(&self, now_seconds: i64) -> u64 {
        u64::try_from(now_seconds.saturating_sub(self.seen_seconds.into())).unwrap_or(0)
    }
}

/// The lower one first.
fn halves(id: u128) -> [u64; 2] {
    [id as u64, (id >> 64) as u64]
}

/// Both parts are hashes already.
fn hash_of(key: Key) -> u64 {
    key.id as u64 ^ key.content
}

/// What the window says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not seen in the window; now noted.
    New,
    /// The same id with other content was seen; noted as well.
    ReusedId,
    /// Seen; not noted again.
    Duplicate,
}

/// The remembered keys, oldest first.
#[derive(Debug)]
pub(crate) struct Window {
    ring: VecDeque<Entry>,
    /// Finds the newest entry of an id. Slots hold its running number, cut to 32 bits; `first` is the number of the oldest.
    ids: HashTable<u32>,
    /// Finds an entry by id and content, where an id came with several.
    contents: HashTable<u32>,
    first: u32,
    keys_max: usize,
    age_max: Duration,
    epoch: Instant,
}

impl Window {
    /// A window of at most `keys_max` keys, and until [`Window::keep`] those of one group, at most `group_keys_max`. The ring
    /// never grows beyond both: its room is taken now and filled as keys come.
    pub(crate) fn new(keys_max: usize, group_keys_max: usize, age_max: Duration) -> Self {
        Self {
            ring: VecDeque::with_capacity(keys_max + group_keys_max),
            ids: HashTable::new(),
            contents: HashTable::new(),
            first: 0,
            keys_max,
            age_max,
            epoch: Instant::now(),
        }
    }

    /// Notes `key` for `position`, unless it is a duplicate. Until [`Window::keep`] it can be taken back.
    pub(crate) fn note(&mut self, key: Key, position: u64, now: Instant) -> Verdict {
        self.note_aged(key, position, now, Duration::ZERO)
    }

    /// Notes a key that was accepted `age` ago, as recovery finds it.
    pub(crate) fn note_aged(&mut self, key: Key, position: u64, now: Instant, age: Duration) -> Verdict {
        let age_seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let seen_seconds = self.now_seconds(now).saturating_sub(age_seconds);
        let number = self.number_of(self.ring.len());
        let (ring, first) = (&self.ring, self.first);
        let at = |number: u32| &ring[number.wrapping_sub(first) as usize];
        let mut entry = Entry::new(key, position, seen_seconds);
        let Some(newest) = self.ids.find_mut(entry.hash_of_id(), |&n| at(n).id == entry.id) else {
            self.ids.insert_unique(entry.hash_of_id(), number, |&n| at(n).hash_of_id());
            self.ring.push_back(entry);
            return Verdict::New;
        };
        let (before, same) = (at(*newest), |&n: &u32| at(n).id == entry.id && at(n).content == entry.content);
        let is_several = before.is_of_several();
        if before.content == key.content || (is_several && self.contents.find(entry.hash(), same).is_some()) {
            return Verdict::Duplicate;
        }
        let before = (!is_several).then_some(*newest);
        entry.older_and_several = number.wrapping_sub(std::mem::replace(newest, number)) | SEVERAL;
        self.ring.push_back(entry);
        before.into_iter().chain([number]).for_each(|number| self.note_content(number));
        Verdict::ReusedId
    }

    /// Reads what noting these keys will read, [`LOOK_AHEAD`] of them at most. One note waits for memory before the next begins; these look-ups
    /// wait side by side.
    pub(crate) fn look_ahead(&self, keys: impl Iterator<Item = Key>) {
        let at = |number: u32| &self.ring[number.wrapping_sub(self.first) as usize];
        let found = keys.filter(|key| self.ids.find(key.id as u64, |&n| at(n).has_id(key.id)).is_some());
        std::hint::black_box(found.count());
    }

    /// Number of keys noted; a mark for [`Window::take_back`].
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Memory of the keys and their indexes.
    pub(crate) fn bytes(&self) -> usize {
        self.ring.len() * size_of::<Entry>() + self.ids.allocation_size() + self.contents.allocation_size()
    }

    /// Forgets what was noted after `mark`: the group failed.
    pub(crate) fn take_back(&mut self, mark: usize) {
        while self.ring.len() > mark {
            let number = self.number_of(self.ring.len() - 1);
            let entry = self.ring.pop_back().expect("longer than the mark");
            self.unindex(&entry, number);
            let older = number.wrapping_sub(entry.older());
            if entry.older() > 0 && (older.wrapping_sub(self.first) as usize) < self.ring.len() {
                let (ring, first) = (&self.ring, self.first);
                let at = |number: u32| &ring[number.wrapping_sub(first) as usize];
                self.ids.insert_unique(entry.hash_of_id(), older, |&n| at(n).hash_of_id());
            }
        }
    }

    /// Lets go of what is beyond the window, by number or by age.
    pub(crate) fn keep(&mut self, now: Instant) {
        let now_seconds = self.now_seconds(now);
        loop {
            let too_many = self.ring.len().saturating_sub(self.keys_max);
            let is_beyond =
                |n: usize, entry: &Entry| n < too_many || entry.age_seconds(now_seconds) > self.age_max.as_secs();
            let first = self.ring.iter().take(LOOK_AHEAD).enumerate();
            let beyond = first.take_while(|(n, entry)| is_beyond(*n, entry)).count();
            if beyond == 0 {
                return;
            }
            let keys = self.ring.range(..beyond).map(Entry::key);
            self.look_ahead(keys);
            for _ in 0..beyond {
                let entry = self.ring.pop_front().expect("just counted");
                let number = self.first;
                self.first = self.first.wrapping_add(1);
                self.unindex(&entry, number);
            }
        }
    }

    /// How far back the window reaches: its full age, or less when the number of keys ended it.
    pub(crate) fn seconds(&self, now: Instant) -> u64 {
        match self.ring.front() {
            Some(oldest) if self.ring.len() >= self.keys_max => {
                // Seconds were cut off when it was seen: the window is never said to be longer than it is.
                oldest.age_seconds(self.now_seconds(now)).saturating_sub(1)
            }
            _ => self.age_max.as_secs(),
        }
    }

    /// Position of the oldest key; none when nothing is remembered.
    pub(crate) fn oldest_position(&self) -> Option<u64> {
        self.ring.front().map(|e| e.position)
    }

    /// The keys of the positions `first..=last` that are still remembered, for the file that outlives their frames.
    pub(crate) fn of_positions(&self, first: u64, last: u64, now: Instant) -> Vec<AgedKey> {
        let now_seconds = self.now_seconds(now);
        let start = self.ring.partition_point(|e| e.position < first);
        self.ring
            .range(start..)
            .take_while(|e| e.position <= last)
            .map(|e| AgedKey { key: e.key(), position: e.position, age_seconds: e.age_seconds(now_seconds) })
            .collect()
    }

    fn now_seconds(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.epoch).as_secs()).unwrap_or(i64::MAX)
    }

    /// The running number of the entry at a place of the ring.
    fn number_of(&self, place: usize) -> u32 {
        self.first.wrapping_add(place as u32)
    }

    /// Lets `contents` find an entry.
    fn note_content(&mut self, number: u32) {
        let (ring, first) = (&mut self.ring, self.first);
        let entry = &mut ring[number.wrapping_sub(first) as usize];
        entry.older_and_several |= SEVERAL;
        let hash = entry.hash();
        self.contents.insert_unique(hash, number, |&n| ring[n.wrapping_sub(first) as usize].hash());
    }

    fn unindex(&mut self, entry: &Entry, number: u32) {
        // Only the newest entry of an id stands there.
        if let Ok(slot) = self.ids.find_entry(entry.hash_of_id(), |&n| n == number) {
            slot.remove();
        }
        if entry.is_of_several() {
            let slot = self.contents.find_entry(entry.hash(), |&n| n == number);
            slot.expect("each such entry of the ring has its slot").remove();
        }
    }
}

/// Version of the layout of [`encode`] without answers.
const KEYS_VERSION: u8 = 1;
/// Version of the layout with answers behind the keys.
const KEYS_VERSION_WITH_ANSWERS: u8 = 2;
/// Version and three bytes of zero, the bytes of the keys (zero in version 1: they go to the end), then the wall clock.
const KEYS_HEADER_BYTES: usize = 16;
/// Id, content, position, age.
const AGED_KEY_BYTES: usize = 36;

/// Keys as a file holds them: version, the wall clock in microseconds, 36 bytes a key, then the answers as they are encoded.
/// `docs/FORMAT.md` describes it.
pub(crate) fn encode(keys: &[AgedKey], answers: &[u8], written_micros: i64) -> Vec<u8> {
    if keys.is_empty() && answers.is_empty() {
        return Vec::new();
    }
    let keys_bytes = keys.len() * AGED_KEY_BYTES;
    let (version, told_bytes) = match answers {
        [] => (KEYS_VERSION, 0),
        _ => (KEYS_VERSION_WITH_ANSWERS, u32::try_from(keys_bytes).expect("a segment's keys are far below 4 GiB")),
    };
    let mut bytes = Vec::with_capacity(KEYS_HEADER_BYTES + keys_bytes + answers.len());
    bytes.extend([version, 0, 0, 0]);
    bytes.extend(told_bytes.to_le_bytes());
    bytes.extend(written_micros.to_le_bytes());
    for AgedKey { key, position, age_seconds } in keys {
        bytes.extend(key.id.to_le_bytes());
        bytes.extend(key.content.to_le_bytes());
        bytes.extend(position.to_le_bytes());
        bytes.extend(u32::try_from(*age_seconds).unwrap_or(u32::MAX).to_le_bytes());
    }
    bytes.extend(answers);
    bytes
}

/// What [`encode`] wrote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Remembered<'a> {
    pub(crate) keys: Vec<AgedKey>,
    pub(crate) answers: &'a [u8],
    pub(crate) written_micros: i64,
}

/// What [`encode`] wrote; none when these bytes are of another layout.
pub(crate) fn decode(bytes: &[u8]) -> Option<Remembered<'_>> {
    let (header, body) = bytes.split_at_checked(KEYS_HEADER_BYTES)?;
    let keys_bytes = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
    let (body, answers) = match header[0] {
        KEYS_VERSION => (body, &[][..]),
        KEYS_VERSION_WITH_ANSWERS => body.split_at_checked(keys_bytes)?,
        _ => return None,
    };
    if body.len() % AGED_KEY_BYTES != 0 {
        return None;
    }
    let written_micros = i64::from_le_bytes(header[8..].try_into().ok()?);
    let key = |bytes: &[u8]| {
        Some(AgedKey {
            key: Key {
                id: u128::from_le_bytes(bytes[..16].try_into().ok()?),
                content: u64::from_le_bytes(bytes[16..24].try_into().ok()?),
            },
            position: u64::from_le_bytes(bytes[24..32].try_into().ok()?),
            age_seconds: u64::from(u32::from_le_bytes(bytes[32..].try_into().ok()?)),
        })
    };
    let keys = body.chunks_exact(AGED_KEY_BYTES).map(key).collect::<Option<_>>()?;
    Some(Remembered { keys, answers, written_micros })
}

/// A remembered key with its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AgedKey {
    pub(crate) key: Key,
    pub(crate) position: u64,
    pub(crate) age_seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn key(id: u128, content: u64) -> Key {
        Key { id, content }
    }

    #[test]
    fn the_same_key_is_a_duplicate_and_the_same_id_with_other_content_is_reported() {
        let now = Instant::now();
        let mut window = Window::new(10, 5, Duration::from_secs(600));
        assert_eq!(window.note(key(1, 1), 1, now), Verdict::New);
        assert_eq!(window.note(key(1, 1), 2, now), Verdict::Duplicate);
        assert_eq!(window.note(key(1, 2), 2, now), Verdict::ReusedId);
        assert_eq!(window.note(key(1, 1), 3, now), Verdict::Duplicate, "both contents are remembered");
        assert_eq!(window.note(key(1, 2), 3, now), Verdict::Duplicate);
    }

    #[test]
    fn a_failed_group_leaves_no_key() {
        let now = Instant::now();
        let mut window = Window::new(10, 5, Duration::from_secs(600));
        window.note(key(1, 1), 1, now);
        let mark = window.len();
        window.note(key(2, 2), 2, now);
        window.take_back(mark);
        assert_eq!(window.note(key(2, 2), 2, now), Verdict::New);
        assert_eq!(window.note(key(1, 1), 3, now), Verdict::Duplicate);
        let mark = window.len();
        assert_eq!(window.note(key(1, 2), 3, now), Verdict::ReusedId);
        window.take_back(mark);
        assert_eq!(window.note(key(1, 3), 3, now), Verdict::ReusedId, "the accepted one is still known");
    }

    #[test]
    fn keys_leave_by_number_and_by_age() {
        let start = Instant::now();
        let mut window = Window::new(3, 5, Duration::from_secs(10));
        for n in 0..5 {
            window.note(key(n, 0), n as u64 + 1, start);
        }
        window.keep(start);
        assert_eq!(window.len(), 3);
        let later = start + Duration::from_secs(12);
        window.keep(later);
        assert_eq!(window.len(), 0);
        assert_eq!(window.note(key(4, 0), 9, later), Verdict::New);
    }

    #[test]
    fn recovered_keys_keep_their_age_also_over_a_second_restart() {
        let now = Instant::now();
        let mut window = Window::new(10, 5, Duration::from_secs(10));
        for (n, age) in [(1, 11), (2, 8), (3, 0)] {
            window.note_aged(key(n, 0), n as u64, now, Duration::from_secs(age));
        }
        window.keep(now);
        let ages: Vec<u64> = window.of_positions(1, 9, now).iter().map(|k| k.age_seconds).collect();
        assert_eq!(ages, [8, 0], "what was too old when it was found is gone, the others are as old as they are");
        window.keep(now + Duration::from_secs(4));
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn the_true_length_shrinks_when_the_number_of_keys_ends_the_window() {
        let mut window = Window::new(2, 5, Duration::from_secs(600));
        let start = Instant::now();
        assert_eq!(window.seconds(start), 600);
        window.note(key(1, 0), 1, start);
        window.note(key(2, 0), 2, start);
        assert_eq!(window.seconds(start + Duration::from_secs(7)), 6);
    }

    proptest! {
        #[test]
        fn keys_come_back_and_cut_bytes_are_refused(
            keys in proptest::collection::vec((any::<u128>(), any::<u64>(), any::<u64>(), 0u64..1_000_000), 1..20),
            written in any::<i64>(),
            cut in 1usize..30,
        ) {
            let keys: Vec<AgedKey> = keys
                .into_iter()
                .map(|(id, content, position, age_seconds)| AgedKey { key: Key { id, content }, position, age_seconds })
                .collect();
            let bytes = encode(&keys, &[], written);
            prop_assert_eq!(&bytes[..8], &[1, 0, 0, 0, 0, 0, 0, 0], "as it was before there were answers");
            prop_assert_eq!(decode(&bytes[..bytes.len() - cut]), None);
            let with_answers = encode(&keys, b"answers", written);
            let read = decode(&with_answers).expect("readable");
            prop_assert_eq!((read.keys, read.answers, read.written_micros), (keys.clone(), &b"answers"[..], written));
            prop_assert_eq!(decode(&bytes), Some(Remembered { keys, answers: &[], written_micros: written }));
        }

        #[test]
        fn it_agrees_with_a_plain_set(
            groups in proptest::collection::vec((proptest::collection::vec((0u128..40, 0u64..3), 0..20), any::<bool>()), 0..30),
            keys_max in 1usize..50,
        ) {
            let now = Instant::now();
            let mut window = Window::new(keys_max, 20, Duration::from_secs(600));
            let mut model: VecDeque<(u128, u64)> = VecDeque::new();
            for (group, fails) in groups {
                let mark = window.len();
                for (id, content) in group {
                    let seen = model.contains(&(id, content));
                    let ids_seen: BTreeSet<u128> = model.iter().map(|k| k.0).collect();
                    let expected = match (seen, ids_seen.contains(&id)) {
                        (true, _) => Verdict::Duplicate,
                        (false, true) => Verdict::ReusedId,
                        (false, false) => Verdict::New,
                    };
                    prop_assert_eq!(window.note(key(id, content), 1, now), expected);
                    if !seen { model.push_back((id, content)); }
                }
                if fails {
                    window.take_back(mark);
                    model.truncate(mark);
                }
                window.keep(now);
                while model.len() > keys_max { model.pop_front(); }
                prop_assert_eq!(window.len(), model.len());
            }
        }
    }
}
