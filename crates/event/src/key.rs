//! Identity: the key of an event that came with an id, and ids for those that did not.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// What tells an event given with an id from others. Two events are the same when both hashes agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Hash of sensor, source and id.
    pub id: u128,
    /// Hash of what was sent: type, subject, time when given, data; for CloudEvents the other attributes too.
    pub content: u64,
}

impl Key {
    /// The key of an event. `time` is none when it was not given: a retry would have another time of receipt.
    pub(crate) fn of(identity: [&str; 3], content: &[&[u8]], time: Option<i64>) -> Self {
        let mut hash = xxh3_64(&time.unwrap_or(i64::MIN).to_le_bytes());
        for part in content {
            hash = hash.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ xxh3_64(part);
        }
        Self { id: content_hash(&identity.map(str::as_bytes)), content: hash }
    }
}

/// Tells what was sent from anything else, by its parts.
pub fn content_hash(parts: &[&[u8]]) -> u128 {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.digest128()
}

/// Bytes that are no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes are no keys of {rows} rows")]
pub struct BadKeys {
    /// Bytes given.
    pub bytes: usize,
    /// Rows expected.
    pub rows: usize,
}

const KEY_BYTES: usize = 24;

/// Writes the keys of a batch: nothing when there are none, 24 bytes a row otherwise. A row without a key is all zeros.
pub fn keys_to_bytes(keys: &[Option<Key>]) -> Vec<u8> {
    if keys.iter().all(Option::is_none) {
        return Vec::new();
    }
    let mut bytes = Vec::with_capacity(keys.len() * KEY_BYTES);
    for key in keys {
        bytes.extend_from_slice(&key.map_or(0, |k| k.id).to_le_bytes());
        bytes.extend_from_slice(&key.map_or(0, |k| k.content).to_le_bytes());
    }
    bytes
}

/// Reads the keys of a batch of `rows`.
///
/// # Errors
/// [`BadKeys`] when the length does not fit.
pub fn keys_from_bytes(bytes: &[u8], rows: usize) -> Result<Vec<Option<Key>>, BadKeys> {
    if bytes.is_empty() {
        return Ok(vec![None; rows]);
    }
    if bytes.len() != rows * KEY_BYTES {
        return Err(BadKeys { bytes: bytes.len(), rows });
    }
    let key = |chunk: &[u8]| Key {
        id: u128::from_le_bytes(chunk[..16].try_into().expect("sixteen bytes")),
        content: u64::from_le_bytes(chunk[16..].try_into().expect("eight bytes")),
    };
    Ok(bytes.chunks_exact(KEY_BYTES).map(key).map(|k| (k.id != 0 || k.content != 0).then_some(k)).collect())
}

/// The id of an event that came without one: a UUIDv7 (RFC 9562) of the time of receipt, whose lower bits are 26 bits of `salt`
/// and 48 bits of the position. Within one wal no two are equal.
pub fn made_id(received_at: i64, salt: u64, position: u64) -> [u8; 36] {
    let millis = u128::from(received_at.max(0) as u64 / 1000) & 0xffff_ffff_ffff;
    let low = (u128::from(salt & 0x3ff_ffff) << 48) | u128::from(position & 0xffff_ffff_ffff);
    let (rand_a, rand_b) = (low >> 62, low & ((1 << 62) - 1));
    let bits = (millis << 80) | (0x7 << 76) | (rand_a << 64) | (0b10 << 62) | rand_b;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[at + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
        at += 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_made_id_is_a_uuid_of_version_7() {
        let id = made_id(1_700_000_000_123_456, 0x2ff_ffff, 0x1234_5678_9abc);
        assert_eq!(std::str::from_utf8(&id), Ok("018bcfe5-687b-7bff-bfff-123456789abc"));
    }

    #[test]
    fn the_parts_of_an_identity_do_not_run_together() {
        let key = |sensor, source, id| Key::of([sensor, source, id], &[], None).id;
        assert_ne!(key("ab", "", "c"), key("a", "b", "c"));
        assert_ne!(key("a", "", "bc"), key("a", "b", "c"));
    }

    #[test]
    fn a_hash_of_contents_uses_all_of_its_bits() {
        let of = |n: u32| Key::of(["", "", ""], &[&n.to_le_bytes(), b"", &(n / 7).to_le_bytes()], None).content;
        for bit in 0..64 {
            let ones = (0..1000).filter(|n| of(*n) >> bit & 1 == 1).count();
            assert!((400..600).contains(&ones), "bit {bit}: {ones} of 1000");
        }
    }

    #[test]
    fn a_key_is_none_only_when_all_of_it_is_zero() {
        let keys = [Some(Key { id: 0, content: 1 }), Some(Key { id: 1, content: 0 }), None];
        assert_eq!(keys_from_bytes(&keys_to_bytes(&keys), 3), Ok(keys.to_vec()));
        assert_eq!(keys_from_bytes(&[0; 47], 2), Err(BadKeys { bytes: 47, rows: 2 }));
    }

    proptest! {
        #[test]
        fn keys_come_back(keys in proptest::collection::vec(proptest::option::of((1u128.., any::<u64>())), 0..20)) {
            let keys: Vec<_> = keys.into_iter().map(|k| k.map(|(id, content)| Key { id, content })).collect();
            prop_assert_eq!(keys_from_bytes(&keys_to_bytes(&keys), keys.len()), Ok(keys));
        }
    }
}
