//! Tokens that were verified, kept in memory.
//!
//! A token that is verified while another request revokes it must not be remembered: so what is forgotten is counted, and an answer of
//! the database from before counts no more.

use crate::identity::Identity;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Verified tokens kept in memory; beyond it they are verified again.
const REMEMBERED_MAX: usize = 100_000;

type Digest = [u8; 32];

/// The verified tokens by their digests.
#[derive(Default)]
pub(crate) struct Remembered {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    generation: u64,
    identities: HashMap<Digest, Arc<Identity>>,
}

impl Remembered {
    /// Who a digest belongs to, when that is known and has not expired.
    pub(crate) fn get(&self, digest: &Digest, now: i64) -> Option<Arc<Identity>> {
        let inner = self.read();
        let identity = inner.identities.get(digest)?;
        identity.expires_at.is_none_or(|at| at > now).then(|| identity.clone())
    }

    /// To be read before the database is asked.
    pub(crate) fn generation(&self) -> u64 {
        self.read().generation
    }

    /// Remembers what the database said, unless something was forgotten since `generation`.
    pub(crate) fn keep(&self, digest: Digest, identity: Arc<Identity>, generation: u64) {
        let mut inner = self.write();
        if inner.generation != generation {
            return;
        }
        if inner.identities.len() >= REMEMBERED_MAX {
            inner.identities.clear();
        }
        inner.identities.insert(digest, identity);
    }

    /// Forgets those that changed; to be called after the change is committed and before it is answered.
    pub(crate) fn forget(&self, changed: impl Fn(&Identity) -> bool) {
        let mut inner = self.write();
        inner.generation += 1;
        inner.identities.retain(|_, identity| !changed(identity));
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;

    fn identity(token_id: i64) -> Arc<Identity> {
        let name = String::new();
        Arc::new(Identity { token_id, name, role: Role::Reader, sensor: None, time_zone: None, expires_at: Some(10) })
    }

    #[test]
    fn what_is_read_before_something_is_forgotten_is_not_remembered() {
        let remembered = Remembered::default();
        let before = remembered.generation();
        remembered.forget(|_| false);
        remembered.keep([1; 32], identity(1), before);
        assert_eq!(remembered.get(&[1; 32], 0), None);
        remembered.keep([1; 32], identity(1), remembered.generation());
        remembered.keep([2; 32], identity(2), remembered.generation());
        assert!(remembered.get(&[1; 32], 9).is_some() && remembered.get(&[1; 32], 10).is_none(), "it expires");
        remembered.forget(|identity| identity.token_id == 1);
        assert!(remembered.get(&[1; 32], 0).is_none() && remembered.get(&[2; 32], 0).is_some());
    }
}
