//! The bytes of segments and frames, as `docs/FORMAT.md` describes them. All numbers are little endian.

use uuid::Uuid;

/// Version of the segment format.
pub(crate) const VERSION: u32 = 1;
/// Version of a segment that tells of lost positions: a program that does not know them turns it away.
pub(crate) const VERSION_WITH_LOST: u32 = 2;
/// A segment begins with this many bytes of header; frames follow.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
/// A frame begins with this many bytes of header; its payload follows, padded to 8.
pub const FRAME_HEADER_BYTES: u64 = 32;

const SEGMENT_MAGIC: [u8; 8] = *b"CATCHWAL";
/// Positions count from 1 to here: the table has them as signed numbers of 64 bits.
pub(crate) const POSITION_MAX: u64 = i64::MAX as u64;
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"CWF1";

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u32,
    pub(crate) wal_id: Uuid,
    pub(crate) segment_id: Uuid,
    pub(crate) first_position: u64,
}

/// Why a segment header is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Version(u32),
    Damaged(&'static str),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0u8; SEGMENT_HEADER_BYTES as usize];
        bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..32].copy_from_slice(self.wal_id.as_bytes());
        bytes[32..48].copy_from_slice(self.segment_id.as_bytes());
        bytes[48..56].copy_from_slice(&self.first_position.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..SEGMENT_HEADER_BYTES as usize - 4]);
        bytes[SEGMENT_HEADER_BYTES as usize - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        if bytes.len() < SEGMENT_HEADER_BYTES as usize {
            return Err(BadHeader::Damaged("the file is shorter than a segment header"));
        }
        if bytes[0..8] != SEGMENT_MAGIC {
            return Err(BadHeader::Damaged("the file does not begin as a segment does"));
        }
        let (body, crc) = bytes.split_at(SEGMENT_HEADER_BYTES as usize - 4);
        let version = u32_at(bytes, 8);
        if crc32c::crc32c(body) != u32_at(crc, 0) {
            return Err(BadHeader::Damaged("the checksum of the segment header does not hold"));
        }
        if !(VERSION..=VERSION_WITH_LOST).contains(&version) {
            return Err(BadHeader::Version(version));
        }
        let (wal_id, segment_id) = (uuid_at(bytes, 16), uuid_at(bytes, 32));
        Ok(Self { version, wal_id, segment_id, first_position: u64_at(bytes, 48) })
    }

    /// The header as it was before one of its bits flipped, if that is what happened to it.
    pub(crate) fn mended(bytes: &[u8]) -> Option<Self> {
        let mut bytes = bytes.get(..SEGMENT_HEADER_BYTES as usize)?.to_vec();
        (0..8 * bytes.len()).find_map(|bit| {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mended = Self::decode(&bytes).ok();
            bytes[bit / 8] ^= 1 << (bit % 8);
            mended
        })
    }

    /// With what the checksums of the frames begin.
    pub(crate) fn seed(&self) -> u32 {
        seed_of(self.segment_id)
    }
}

/// With what the checksums of the frames begin: the segment's uuid, so that bytes of an older segment in reused blocks are never taken for ours.
pub(crate) fn seed_of(segment: Uuid) -> u32 {
    crc32c::crc32c(segment.as_bytes())
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One group.
    Group = 1,
    /// A clean stop: no torn tail is believed after it.
    End = 2,
    /// Positions that a repair found no events of.
    Lost = 3,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: Kind,
    pub(crate) first_position: u64,
    pub(crate) event_count: u32,
    pub(crate) payload_bytes: u32,
}

impl FrameHeader {
    /// The whole frame into `out`: header, payload, padding.
    pub(crate) fn encode(&self, seed: u32, payload: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&FRAME_MAGIC);
        out.extend_from_slice(&[self.kind as u8, 0, 0, 0]);
        out.extend_from_slice(&self.first_position.to_le_bytes());
        out.extend_from_slice(&self.event_count.to_le_bytes());
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc_of(seed, out, payload);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(payload);
        out.resize(self.frame_bytes() as usize, 0);
    }

    /// Reads a header; the checksum is checked with the payload, by [`FrameHeader::holds`].
    pub(crate) fn decode(bytes: &[u8; FRAME_HEADER_BYTES as usize]) -> Option<Self> {
        let kind = match bytes[4] {
            1 => Kind::Group,
            2 => Kind::End,
            3 => Kind::Lost,
            _ => return None,
        };
        let zeros = bytes[5..8] == [0; 3] && bytes[24..28] == [0; 4];
        (bytes[..4] == FRAME_MAGIC && zeros).then(|| Self {
            kind,
            first_position: u64_at(bytes, 8),
            event_count: u32_at(bytes, 16),
            payload_bytes: u32_at(bytes, 20),
        })
    }

    /// Whether the checksum holds.
    pub(crate) fn holds(header: &[u8; FRAME_HEADER_BYTES as usize], seed: u32, payload: &[u8]) -> bool {
        crc_of(seed, &header[..28], payload) == u32_at(header, 28)
    }

    /// The seed with which the checksum holds: there is exactly one for any bytes, so two frames of a segment have to agree on it.
    pub(crate) fn seed(header: &[u8; FRAME_HEADER_BYTES as usize], payload: &[u8]) -> Option<u32> {
        let bytes = 28 + payload.len();
        // What a seed adds to the checksum depends on the number of bytes alone, and is linear in its bits.
        let mut rows: Vec<(u32, u32)> =
            (0..32).map(|bit| (crc32c::crc32c_combine(1 << bit, 0, bytes), 1 << bit)).collect();
        let mut wanted = u32_at(header, 28) ^ crc_of(0, &header[..28], payload);
        let mut seed = 0;
        for bit in 0..32 {
            let at = rows.iter().position(|(adds, _)| adds >> bit & 1 == 1)?;
            let (adds, of) = rows.swap_remove(at);
            for (other, combined) in rows.iter_mut().filter(|(other, _)| other >> bit & 1 == 1) {
                (*other, *combined) = (*other ^ adds, *combined ^ of);
            }
            if wanted >> bit & 1 == 1 {
                (wanted, seed) = (wanted ^ adds, seed ^ of);
            }
        }
        Some(seed)
    }

    /// Bytes of the whole frame in the file.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(u64::from(self.payload_bytes))
    }

    /// The position after this frame.
    pub(crate) fn next_position(&self) -> u64 {
        self.first_position.saturating_add(u64::from(self.event_count))
    }
}

/// Bytes of a frame with a payload of this size.
pub(crate) fn frame_bytes(payload_bytes: u64) -> u64 {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(8)
}

fn crc_of(seed: u32, header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, header), payload)
}

pub(crate) fn uuid_at(bytes: &[u8], at: usize) -> Uuid {
    Uuid::from_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
