//! The remembered answers: what requests that came with a key of their own (`Idempotency-Key`) were answered, so that the same
//! request gets the same answer again.
//!
//! It promises that of two requests with one key the second never runs beside the first, also when the first one's caller has gone
//! away; and that an answer is remembered only once its group is durable. Answers end by age or by bytes, whichever comes first,
//! the oldest first. Age is counted on the monotonic clock: a wall clock set back never shortens it.
//!
//! It does not know what a request or an answer looks like: the caller gives the parts that tell one from another as a hash, and
//! keeps what it needs to answer again as bytes.

use crate::batch::Outcome;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most bytes that a caller keeps with one answer.
pub const TOLD_BYTES_MAX: usize = 4096;
/// The longest key with its sensor.
const KEY_BYTES_MAX: usize = 1024;
/// What an answer takes beside its key and what is told: itself, two slots, their headers.
const ANSWER_BYTES: usize = 256;
/// The most memory that one answer takes.
pub const ANSWER_BYTES_MAX: usize = ANSWER_BYTES + KEY_BYTES_MAX + TOLD_BYTES_MAX;

/// The key of a request, within those of its sensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey(Arc<[u8]>);

impl RequestKey {
    /// The key that `sensor` gave its request; neither holds a NUL.
    ///
    /// # Panics
    /// When both together are longer than 1 KiB.
    pub fn new(sensor: &str, key: &str) -> Self {
        assert!(sensor.len() + key.len() < KEY_BYTES_MAX, "names and keys are bounded where they come in");
        Self([sensor.as_bytes(), &[0], key.as_bytes()].concat().into())
    }
}

/// What a request was answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub(crate) key: RequestKey,
    pub(crate) content: u128,
    pub(crate) outcome: Outcome,
    pub(crate) told: Box<[u8]>,
}

impl Answer {
    /// What was asked: the hash that the request came with.
    pub fn content(&self) -> u128 {
        self.content
    }

    /// What became of its events.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What the caller keeps to answer again.
    pub fn told(&self) -> &[u8] {
        &self.told
    }

    fn bytes(&self) -> u64 {
        (ANSWER_BYTES + self.key.0.len() + self.told.len()) as u64
    }
}

/// A request with a key, on its way in.
#[derive(Debug)]
pub struct Request {
    /// The key, claimed.
    pub claim: Claim,
    /// Hash of all that makes it this request.
    pub content: u128,
    /// What the caller needs beside the outcome to answer again, at most [`TOLD_BYTES_MAX`].
    pub told: Vec<u8>,
}

impl Request {
    pub(crate) fn answer(&self, outcome: Outcome) -> Answer {
        assert!(self.told.len() <= TOLD_BYTES_MAX, "the caller keeps to the bound");
        Answer { key: self.claim.key.clone(), content: self.content, outcome, told: self.told.as_slice().into() }
    }
}

/// What is known of a key that a request comes with.
#[derive(Debug)]
pub enum Claimed {
    /// Nothing: the request may run, and no other with this key until the claim is dropped.
    First(Claim),
    /// A request with this key was answered.
    Answered(Arc<Answer>),
}

/// A request with this key is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request with this key is running")]
pub struct InUse;

/// A key that a running request has; given back on drop.
#[derive(Debug)]
pub struct Claim {
    key: RequestKey,
    answers: Arc<Answers>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.answers.lock().running.remove(&self.key);
    }
}

/// An answer with its age, as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgedAnswer {
    pub(crate) answer: Arc<Answer>,
    pub(crate) age_seconds: u64,
}

/// The remembered answers and the keys of running requests.
#[derive(Debug)]
pub(crate) struct Answers {
    kept: Mutex<Kept>,
    bytes_max: u64,
    age_max: Duration,
    epoch: Instant,
}

#[derive(Debug, Default)]
struct Kept {
    running: HashSet<RequestKey>,
    known: HashMap<RequestKey, Arc<Answer>>,
    /// Oldest first, with the second of the own clock at which it was given; before the process began they are negative.
    order: VecDeque<(Arc<Answer>, i64)>,
    bytes: u64,
}

impl Answers {
    /// Remembers at most `bytes_max` bytes of answers, each for `age_max`.
    pub(crate) fn new(bytes_max: u64, age_max: Duration) -> Self {
        Self { kept: Mutex::default(), bytes_max, age_max, epoch: Instant::now() }
    }

    /// Claims a key for a request whose head has come.
    pub(crate) fn claim(self: &Arc<Self>, key: RequestKey, now: Instant) -> Result<Claimed, InUse> {
        let mut kept = self.lock();
        self.keep(&mut kept, now);
        if let Some(answer) = kept.known.get(&key) {
            return Ok(Claimed::Answered(answer.clone()));
        }
        if !kept.running.insert(key.clone()) {
            return Err(InUse);
        }
        Ok(Claimed::First(Claim { key, answers: self.clone() }))
    }

    /// Remembers an answer, which was given `age` ago. Of two with one key the one with the higher position stays: the log is
    /// read in order, and a key file beside the frames it was made of.
    pub(crate) fn remember(&self, answer: Arc<Answer>, now: Instant, age: Duration) {
        let mut kept = self.lock();
        if let Some(before) = kept.known.get(&answer.key).cloned() {
            if before.outcome.last_position >= answer.outcome.last_position {
                return;
            }
            kept.bytes -= before.bytes();
            kept.order.retain(|(other, _)| !Arc::ptr_eq(other, &before));
        }
        let age_seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let seen_seconds = self.now_seconds(now).saturating_sub(age_seconds);
        kept.bytes += answer.bytes();
        kept.known.insert(answer.key.clone(), answer.clone());
        kept.order.push_back((answer, seen_seconds));
        self.keep(&mut kept, now);
    }

    /// Keeps of the answers to a sensor's requests up to a position what may stay of what is told with them.
    pub(crate) fn redact(&self, sensor: &str, until: u64, without_texts: impl Fn(&[u8]) -> Vec<u8>) {
        let of_sensor = [sensor.as_bytes(), &[0]].concat();
        let mut kept = self.lock();
        let Kept { known, order, bytes, .. } = &mut *kept;
        for (answer, _) in order.iter_mut() {
            if !answer.key.0.starts_with(&of_sensor) || answer.outcome.last_position > until {
                continue;
            }
            let told = without_texts(&answer.told);
            assert!(told.len() <= TOLD_BYTES_MAX, "the caller keeps to the bound");
            let Answer { key, content, outcome, .. } = &**answer;
            let redacted =
                Arc::new(Answer { key: key.clone(), content: *content, outcome: *outcome, told: told.into() });
            *bytes = *bytes + redacted.bytes() - answer.bytes();
            known.insert(redacted.key.clone(), redacted.clone());
            *answer = redacted;
        }
    }

    /// Number of answers and their bytes.
    pub(crate) fn size(&self) -> (usize, u64) {
        let kept = self.lock();
        (kept.order.len(), kept.bytes)
    }

    /// How far back answers are remembered: their full age, or less when their bytes end it.
    pub(crate) fn seconds(&self, now: Instant) -> u64 {
        let kept = self.lock();
        match kept.order.front() {
            // Full is where one more may push one out. Seconds were cut off when it was seen.
            Some((_, seen)) if kept.bytes + ANSWER_BYTES_MAX as u64 > self.bytes_max => {
                self.age_seconds(*seen, now).saturating_sub(1).min(self.age_max.as_secs())
            }
            _ => self.age_max.as_secs(),
        }
    }

    /// Position of the oldest answer that is not too old now; none when nothing is remembered.
    pub(crate) fn oldest_position(&self, now: Instant) -> Option<u64> {
        let mut kept = self.lock();
        self.keep(&mut kept, now);
        kept.order.front().map(|(answer, _)| answer.outcome.last_position)
    }

    /// The answers to the groups that end in `first..=last`, for the file that outlives their frames.
    pub(crate) fn of_positions(&self, first: u64, last: u64, now: Instant) -> Vec<AgedAnswer> {
        let mut kept = self.lock();
        self.keep(&mut kept, now);
        let within = |(answer, _): &&(Arc<Answer>, i64)| (first..=last).contains(&answer.outcome.last_position);
        let aged = |(answer, seen): &(Arc<Answer>, i64)| AgedAnswer {
            answer: answer.clone(),
            age_seconds: self.age_seconds(*seen, now),
        };
        kept.order.iter().filter(within).map(aged).collect()
    }

    /// Lets go of what is too old or too much.
    fn keep(&self, kept: &mut Kept, now: Instant) {
        while let Some((answer, seen)) = kept.order.front() {
            if kept.bytes <= self.bytes_max && self.age_seconds(*seen, now) <= self.age_max.as_secs() {
                break;
            }
            kept.bytes -= answer.bytes();
            let (answer, _) = kept.order.pop_front().expect("just seen");
            kept.known.remove(&answer.key);
        }
    }

    fn age_seconds(&self, seen_seconds: i64, now: Instant) -> u64 {
        u64::try_from(self.now_seconds(now).saturating_sub(seen_seconds)).unwrap_or(0)
    }

    fn now_seconds(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.epoch).as_secs()).unwrap_or(i64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Length of the key, of what is told; age; content; last position of the group; accepted, duplicates, reused ids.
const ENTRY_BYTES: usize = 2 + 2 + 4 + 16 + 4 * 8;

/// Answers as a frame or a file holds them: the wall clock in microseconds, then the answers; nothing when there are none.
/// `docs/FORMAT.md` describes it.
pub(crate) fn encode(answers: &[AgedAnswer], written_micros: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !answers.is_empty() {
        bytes.extend(written_micros.to_le_bytes());
    }
    for AgedAnswer { answer, age_seconds } in answers {
        let length = |part: &[u8]| u16::try_from(part.len()).expect("keys and what is told are bounded").to_le_bytes();
        let Outcome { accepted, duplicates, reused_ids, last_position, first_position: _ } = answer.outcome;
        bytes.extend(length(&answer.key.0));
        bytes.extend(length(&answer.told));
        bytes.extend(u32::try_from(*age_seconds).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(answer.content.to_le_bytes());
        for number in [last_position, accepted, duplicates, reused_ids] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(&*answer.key.0);
        bytes.extend(&*answer.told);
    }
    bytes
}

/// What [`encode`] wrote, as old as it is by the wall clock; none when these bytes are of another layout.
pub(crate) fn decode(bytes: &[u8], now_micros: i64) -> Option<Vec<AgedAnswer>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (written, mut bytes) = bytes.split_first_chunk()?;
    let since_micros = now_micros.saturating_sub(i64::from_le_bytes(*written));
    let since_seconds = u64::try_from(since_micros / 1_000_000).unwrap_or(0);
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let (entry, rest) = bytes.split_at_checked(ENTRY_BYTES)?;
        let short = |at: usize| usize::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
        let number = |n: usize| Some(u64::from_le_bytes(entry[24 + n * 8..32 + n * 8].try_into().ok()?));
        let (key, rest) = rest.split_at_checked(short(0))?;
        let (told, rest) = rest.split_at_checked(short(2))?;
        let [last_position, accepted, duplicates, reused_ids] = [number(0)?, number(1)?, number(2)?, number(3)?];
        let outcome = Outcome { accepted, duplicates, reused_ids, last_position, first_position: None };
        let content = u128::from_le_bytes(entry[8..24].try_into().ok()?);
        let answer = Answer { key: RequestKey(key.into()), content, outcome, told: told.into() };
        let age_seconds = u64::from(u32::from_le_bytes(entry[4..8].try_into().ok()?));
        answers.push(AgedAnswer { answer: Arc::new(answer), age_seconds: age_seconds + since_seconds });
        bytes = rest;
    }
    Some(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answers(bytes_max: u64, age_max_seconds: u64) -> Arc<Answers> {
        Arc::new(Answers::new(bytes_max, Duration::from_secs(age_max_seconds)))
    }

    fn key(name: &str) -> RequestKey {
        RequestKey::new("roof", name)
    }

    fn answer(name: &str, last_position: u64) -> Arc<Answer> {
        let outcome = Outcome { accepted: 1, last_position, ..Outcome::default() };
        Arc::new(Answer { key: key(name), content: 7, outcome, told: Box::default() })
    }

    #[test]
    fn a_key_belongs_to_one_running_request_until_its_claim_is_dropped() {
        let (answers, now) = (answers(1 << 20, 600), Instant::now());
        let Ok(Claimed::First(claim)) = answers.claim(key("a"), now) else { panic!("nothing is known of it") };
        assert_eq!(answers.claim(key("a"), now).expect_err("it runs"), InUse);
        assert!(
            matches!(answers.claim(RequestKey::new("cellar", "a"), now), Ok(Claimed::First(_))),
            "another sensor's"
        );
        drop(claim);
        assert!(matches!(answers.claim(key("a"), now), Ok(Claimed::First(_))), "it stored nothing");
    }

    #[test]
    fn an_answer_is_known_while_its_claim_is_still_held() {
        let (answers, now) = (answers(1 << 20, 600), Instant::now());
        let Ok(Claimed::First(_claim)) = answers.claim(key("a"), now) else { panic!("nothing is known of it") };
        answers.remember(answer("a", 3), now, Duration::ZERO);
        let Ok(Claimed::Answered(known)) = answers.claim(key("a"), now) else { panic!("it is answered") };
        assert_eq!((known.outcome().accepted, known.content()), (1, 7));
    }

    #[test]
    fn answers_leave_by_age_and_by_bytes_and_the_true_length_says_so() {
        let start = Instant::now();
        let answers = answers(ANSWER_BYTES_MAX as u64 * 2, 600);
        assert_eq!(answers.seconds(start), 600);
        answers.remember(answer("old", 1), start, Duration::ZERO);
        let later = start + Duration::from_secs(100);
        for n in 0..200 {
            answers.remember(answer(&n.to_string(), n + 2), later, Duration::ZERO);
        }
        let (count, bytes) = answers.size();
        assert!(bytes <= ANSWER_BYTES_MAX as u64 * 2 && count < 200, "{count} answers of {bytes} bytes");
        assert!(matches!(answers.claim(key("old"), later), Ok(Claimed::First(_))), "the oldest went first");
        assert!(matches!(answers.claim(key("199"), later), Ok(Claimed::Answered(_))));
        assert_eq!(answers.seconds(later + Duration::from_secs(7)), 6);
        let end = later + Duration::from_secs(601);
        assert!(matches!(answers.claim(key("199"), end), Ok(Claimed::First(_))), "too old");
        assert_eq!((answers.size(), answers.oldest_position(end)), ((0, 0), None));
    }

    #[test]
    fn an_answer_that_is_too_old_holds_back_no_file_although_no_request_with_a_key_comes_again() {
        let (answers, now) = (answers(1 << 20, 600), Instant::now());
        answers.remember(answer("a", 5), now, Duration::ZERO);
        assert_eq!(answers.oldest_position(now + Duration::from_secs(600)), Some(5));
        let later = now + Duration::from_secs(601);
        assert_eq!((answers.of_positions(1, 9, later), answers.oldest_position(later)), (vec![], None));
        assert_eq!(answers.size(), (0, 0));
    }

    #[test]
    fn what_is_read_back_twice_is_remembered_once_and_a_key_used_again_has_its_last_answer() {
        let (answers, now) = (answers(1 << 20, 600), Instant::now());
        answers.remember(answer("a", 5), now, Duration::from_secs(30));
        answers.remember(answer("a", 5), now, Duration::from_secs(30));
        assert_eq!(answers.size().0, 1);
        answers.remember(answer("a", 9), now, Duration::ZERO);
        assert_eq!((answers.size().0, answers.oldest_position(now)), (1, Some(9)));
        assert_eq!(answers.of_positions(1, 8, now), []);
        assert_eq!(answers.of_positions(9, 9, now).len(), 1);
        answers.remember(answer("b", 10), now, Duration::from_secs(601));
        assert_eq!(answers.size().0, 2, "behind a younger one it stays until that one goes");
    }

    #[test]
    fn what_is_told_of_a_sensors_requests_goes_up_to_a_position_and_their_answers_stay() {
        let (answers, now) = (answers(1 << 20, 600), Instant::now());
        let told = |key: RequestKey, last_position| {
            let outcome = Outcome { accepted: 1, last_position, ..Outcome::default() };
            let answer = Answer { key, content: 7, outcome, told: (*b"secret").into() };
            answers.remember(Arc::new(answer), now, Duration::ZERO);
        };
        told(key("a"), 5);
        told(key("b"), 6);
        told(RequestKey::new("roof-2", "a"), 4);
        let bytes = answers.size().1;
        answers.redact("roof", 5, |_| b"x".to_vec());
        let known = |key: RequestKey| match answers.claim(key, now) {
            Ok(Claimed::Answered(answer)) => String::from_utf8_lossy(answer.told()).into_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            [known(key("a")), known(key("b")), known(RequestKey::new("roof-2", "a"))],
            ["x", "secret", "secret"]
        );
        assert_eq!(answers.size(), (3, bytes - 5));
        assert_eq!(
            &*answers.of_positions(5, 5, now)[0].answer.told,
            b"x",
            "also for the file that outlives the frames"
        );
    }

    proptest! {
        #[test]
        fn answers_come_back_and_cut_bytes_are_refused(
            given in proptest::collection::vec(("[a-z]{1,20}", any::<u128>(), any::<[u64; 4]>(), proptest::collection::vec(any::<u8>(), 0..50), any::<u32>()), 1..10),
            cut in 1usize..40,
        ) {
            let given: Vec<AgedAnswer> = given
                .into_iter()
                .map(|(name, content, [accepted, duplicates, reused_ids, last_position], told, age)| AgedAnswer {
                    answer: Arc::new(Answer {
                        key: key(&name),
                        content,
                        outcome: Outcome { accepted, duplicates, reused_ids, last_position, first_position: None },
                        told: told.into(),
                    }),
                    age_seconds: u64::from(age),
                })
                .collect();
            let (written, second) = (1_700_000_000_000_000, 1_000_000);
            let bytes = encode(&given, written);
            prop_assert_eq!(decode(&bytes, written - 60 * second), Some(given.clone()), "a clock set back makes nothing younger");
            let later = decode(&bytes, written + 60 * second).expect("readable");
            prop_assert_eq!(later[0].age_seconds, given[0].age_seconds + 60);
            prop_assert_eq!(decode(&bytes[..bytes.len() - cut], written), None);
        }
    }
}
