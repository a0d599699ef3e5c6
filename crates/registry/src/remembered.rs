//! Tokens that were verified, and sessions and names in certificates that were looked up, kept in memory.
//!
//! A token that is verified while another request revokes it must not be remembered: so what is forgotten is counted, and an answer of
//! the database from before counts no more.

use crate::identity::Identity;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Verified tokens, sessions and names kept in memory; beyond it they are verified again.
pub(crate) const REMEMBERED_MAX: usize = 50_000;
/// Memory of one of them: the identity with a name of up to 256 bytes and the id of a sensor of up to 128, and an entry in a map that is
/// half empty at worst.
pub(crate) const REMEMBERED_BYTES: usize = 768;

/// What somebody showed. None can be taken for one of another kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shown {
    /// A token, by its digest.
    Token([u8; 32]),
    /// A certificate, by the name in it.
    Certificate(String),
    /// A session, by the digest of its secret.
    Session([u8; 32]),
}

/// Who was verified, by what they showed.
#[derive(Default)]
pub(crate) struct Remembered {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    generation: u64,
    identities: HashMap<Shown, Arc<Identity>>,
}

impl Remembered {
    /// Who it belongs to, when that is known and has not expired.
    pub(crate) fn get(&self, shown: &Shown, now: i64) -> Option<Arc<Identity>> {
        let inner = self.read();
        let identity = inner.identities.get(shown)?;
        identity.expires_at.is_none_or(|at| at > now).then(|| identity.clone())
    }

    /// To be read before the database is asked.
    pub(crate) fn generation(&self) -> u64 {
        self.read().generation
    }

    /// Remembers what the database said, unless something was forgotten since `generation`.
    pub(crate) fn keep(&self, shown: Shown, identity: Arc<Identity>, generation: u64) {
        let mut inner = self.write();
        if inner.generation != generation {
            return;
        }
        if inner.identities.len() >= REMEMBERED_MAX {
            inner.identities.clear();
        }
        inner.identities.insert(shown, identity);
    }

    /// Forgets those that changed; to be called after the change is committed and before it is answered.
    pub(crate) fn forget(&self, changed: impl Fn(&Shown, &Identity) -> bool) {
        let mut inner = self.write();
        inner.generation += 1;
        inner.identities.retain(|shown, identity| !changed(shown, identity));
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
    use crate::quota::Quota;

    fn identity(token_id: i64) -> Arc<Identity> {
        let (name, quota) = (String::new(), Quota::default());
        let (token_id, expires_at) = (Some(token_id), Some(10));
        Arc::new(Identity { token_id, name, role: Role::Reader, sensor: None, time_zone: None, quota, expires_at })
    }

    #[test]
    fn what_is_counted_for_an_identity_holds_the_largest() {
        // The map doubles at seven eighths; allocations have 16 bytes of their own, shared ones 16 more.
        let entry = (size_of::<(Shown, Arc<Identity>)>() + 1) * 16 / 7;
        let texts = (crate::tokens::TOKEN_NAME_BYTES_MAX + 16) + (128 + 32);
        let largest = entry + size_of::<Identity>() + 32 + texts;
        assert!((REMEMBERED_BYTES / 2..=REMEMBERED_BYTES).contains(&largest), "{largest}");
    }

    #[test]
    fn what_is_read_before_something_is_forgotten_is_not_remembered() {
        let (remembered, [one, other]) = (Remembered::default(), [[1; 32], [2; 32]].map(Shown::Token));
        let before = remembered.generation();
        remembered.forget(|_, _| false);
        remembered.keep(one.clone(), identity(1), before);
        assert_eq!(remembered.get(&one, 0), None);
        remembered.keep(one.clone(), identity(1), remembered.generation());
        remembered.keep(other.clone(), identity(2), remembered.generation());
        assert!(remembered.get(&one, 9).is_some() && remembered.get(&one, 10).is_none(), "it expires");
        remembered.forget(|_, identity| identity.token_id == Some(1));
        assert!(remembered.get(&one, 0).is_none() && remembered.get(&other, 0).is_some());
        let session = Shown::Session([2; 32]);
        remembered.keep(session.clone(), identity(2), remembered.generation());
        remembered.forget(|shown, _| *shown == session);
        assert!(
            remembered.get(&session, 0).is_none() && remembered.get(&other, 0).is_some(),
            "of one token, one of two"
        );
    }
}
