//! The bytes of segments and frames, as `docs/FORMAT.md` describes them. All numbers are little endian.

use uuid::Uuid;

/// Version of the segment format.
pub(crate) const VERSION: u32 = 1;
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
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
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
        if version != VERSION {
            return Err(BadHeader::Version(version));
        }
        let uuid = |at: usize| Uuid::from_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"));
        Ok(Self { wal_id: uuid(16), segment_id: uuid(32), first_position: u64_at(bytes, 48) })
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One group.
    Group = 1,
    /// A clean stop: no torn tail is believed after it.
    End = 2,
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
    pub(crate) fn encode(&self, segment: Uuid, payload: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&FRAME_MAGIC);
        out.extend_from_slice(&[self.kind as u8, 0, 0, 0]);
        out.extend_from_slice(&self.first_position.to_le_bytes());
        out.extend_from_slice(&self.event_count.to_le_bytes());
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let crc = crc_of(segment, out, payload);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(payload);
        out.resize(self.frame_bytes() as usize, 0);
    }

    /// Reads a header; the checksum is checked with the payload, by [`FrameHeader::holds`].
    pub(crate) fn decode(bytes: &[u8; FRAME_HEADER_BYTES as usize]) -> Option<Self> {
        let kind = match bytes[4] {
            1 => Kind::Group,
            2 => Kind::End,
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
    pub(crate) fn holds(header: &[u8; FRAME_HEADER_BYTES as usize], segment: Uuid, payload: &[u8]) -> bool {
        crc_of(segment, &header[..28], payload) == u32_at(header, 28)
    }

    /// Bytes of the whole frame in the file.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(u64::from(self.payload_bytes))
    }

    /// The position after this frame.
    pub(crate) fn next_position(&self) -> u64 {
        self.first_position + u64::from(self.event_count)
    }
}

/// Bytes of a frame with a payload of this size.
pub(crate) fn frame_bytes(payload_bytes: u64) -> u64 {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(8)
}

/// The checksum is seeded with the segment's uuid, so that bytes of an older segment in reused blocks are never taken for ours.
fn crc_of(segment: Uuid, header: &[u8], payload: &[u8]) -> u32 {
    let seeded = crc32c::crc32c(segment.as_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(seeded, header), payload)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
