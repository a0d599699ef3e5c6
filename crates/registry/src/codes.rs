//! Codes of links to sign in: each is good for one session, once and soon.
//!
//! **Promises:** of two that show the same code at once, one gets it. Codes are kept as their SHA-256, in memory alone, of a bounded number;
//! a start forgets them. Of one token, or of all, the oldest goes when there is no room.

use crate::error::RegistryError;
use crate::identity::Identity;
use crate::registry::{Registry, now_micros};
use crate::token::{Token, digest, is_random};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a code can be used.
pub const CODE_AGE_MAX: Duration = Duration::from_secs(300);
/// Codes of one token that wait to be used.
pub const CODES_OF_TOKEN_MAX: usize = 10;
/// Codes of all tokens that wait to be used.
pub const CODES_MAX: usize = 1000;

/// The codes that wait to be used.
#[derive(Default)]
pub(crate) struct Codes {
    waiting: Mutex<HashMap<[u8; 32], Waiting>>,
}

#[derive(Clone)]
struct Waiting {
    identity: Arc<Identity>,
    made: Instant,
}

/// A code that was taken: nobody else gets it, unless it is [put back](Registry::put_code_back).
pub struct TakenCode {
    digest: [u8; 32],
    waiting: Waiting,
}

impl TakenCode {
    /// Whose token made it.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.waiting.identity
    }
}

impl Codes {
    fn add(&self, digest: [u8; 32], waiting: Waiting) {
        let (mut codes, token) = (self.codes(), waiting.identity.token_id);
        codes.retain(|_, code| waiting.made.saturating_duration_since(code.made) < CODE_AGE_MAX);
        if codes.values().filter(|code| code.identity.token_id == token).count() >= CODES_OF_TOKEN_MAX {
            remove_oldest(&mut codes, |code| code.identity.token_id == token);
        }
        if codes.len() >= CODES_MAX {
            remove_oldest(&mut codes, |_| true);
        }
        codes.insert(digest, waiting);
    }

    fn take(&self, digest: [u8; 32], now: Instant) -> Option<TakenCode> {
        let waiting = self.codes().remove(&digest)?;
        let is_good = now.saturating_duration_since(waiting.made) < CODE_AGE_MAX;
        is_good.then_some(TakenCode { digest, waiting })
    }

    fn codes(&self) -> MutexGuard<'_, HashMap<[u8; 32], Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove_oldest(codes: &mut HashMap<[u8; 32], Waiting>, of: impl Fn(&Waiting) -> bool) {
    let oldest = codes.iter().filter(|(_, code)| of(code)).min_by_key(|(_, code)| code.made);
    if let Some(digest) = oldest.map(|(digest, _)| *digest) {
        codes.remove(&digest);
    }
}

impl Registry {
    /// Makes a code that stands for a token once, and says when it ends, in microseconds since the epoch.
    ///
    /// # Errors
    /// [`RegistryError`] when there is no randomness.
    pub fn make_code(&self, identity: Arc<Identity>) -> Result<(Token, i64), RegistryError> {
        let code = Token::random().map_err(sqlx::Error::Io)?;
        self.shared.codes.add(digest(code.reveal()), Waiting { identity, made: Instant::now() });
        Ok((code, now_micros() + CODE_AGE_MAX.as_micros() as i64))
    }

    /// Takes a code; none when it is not known, was taken before, or is too old.
    pub fn take_code(&self, code: &str) -> Option<TakenCode> {
        is_random(code).then(|| self.shared.codes.take(digest(code), Instant::now())).flatten()
    }

    /// Gives back a code that could not be used, so that the same request can succeed later.
    pub fn put_code_back(&self, taken: TakenCode) {
        self.shared.codes.codes().insert(taken.digest, taken.waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;
    use crate::quota::Quota;

    fn code(n: u32) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&n.to_be_bytes());
        digest
    }

    fn made(token_id: i64, made: Instant) -> Waiting {
        let (name, quota) = (String::new(), Quota::default());
        let (token_id, role, sensor) = (Some(token_id), Role::Reader, None);
        let identity = Identity { token_id, name, role, sensor, time_zone: None, quota, expires_at: None };
        Waiting { identity: Arc::new(identity), made }
    }

    #[test]
    fn a_code_is_taken_once_and_within_its_time() {
        let (codes, now) = (Codes::default(), Instant::now());
        (0..2).for_each(|n| codes.add(code(n), made(7, now)));
        let taken = codes.take(code(0), now).expect("it is there");
        assert_eq!(taken.identity().token_id, Some(7));
        assert!(codes.take(code(0), now).is_none() && codes.take(code(9), now).is_none());
        let last = now + CODE_AGE_MAX - Duration::from_millis(1);
        assert!(codes.take(code(1), last).is_some());
        codes.add(code(2), made(7, now));
        assert!(codes.take(code(2), now + CODE_AGE_MAX).is_none(), "it is too old");
        assert!(codes.codes().is_empty());
    }

    #[test]
    fn of_many_that_show_one_code_at_once_one_gets_it() {
        let (codes, now) = (Codes::default(), Instant::now());
        for n in 0..100 {
            codes.add(code(n), made(1, now));
            let got = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| codes.take(code(n), now).is_some())).collect();
                threads.into_iter().map(|t| u32::from(t.join().expect("no panic"))).sum::<u32>()
            });
            assert_eq!(got, 1);
        }
    }

    #[test]
    fn codes_are_bounded_and_who_makes_many_loses_their_own() {
        let (codes, now) = (Codes::default(), Instant::now());
        codes.add(code(0), made(1, now));
        let later = |n: u32| now + Duration::from_micros(n.into());
        (1..100).for_each(|n| codes.add(code(n), made(2, later(n))));
        assert_eq!(codes.codes().len(), 1 + CODES_OF_TOKEN_MAX);
        assert!(codes.take(code(89), now).is_none() && codes.take(code(90), now).is_some(), "the newest stay");
        (100..1200).for_each(|n| codes.add(code(n), made(n.into(), later(n))));
        assert_eq!(codes.codes().len(), CODES_MAX);
        assert!(codes.take(code(0), now).is_none(), "the oldest of all goes");
        codes.add(code(1200), made(1, now + CODE_AGE_MAX * 2));
        assert_eq!(codes.codes().len(), 1, "those that ended are gone");
    }
}
