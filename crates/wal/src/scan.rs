//! Reading a segment: its frames in order, and what to make of the place where they end.

use crate::disk::DiskFile;
use crate::error::OpenError;
use crate::format::{
    BadHeader, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, Kind, POSITION_MAX, SEGMENT_HEADER_BYTES, SegmentHeader,
    VERSION_WITH_LOST,
};
use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

const BLOCK_BYTES: usize = 1 << 20;
/// Of what a disk cannot read, so many bytes are left out at once.
const PIECE_BYTES: u64 = 4096;

type RawHeader = [u8; FRAME_HEADER_BYTES as usize];

/// A segment being read, one frame in memory at a time.
pub(crate) struct Scan<'f, F: DiskFile> {
    file: &'f F,
    path: PathBuf,
    file_bytes: u64,
    pub(crate) header: SegmentHeader,
    seed: u32,
    pub(crate) offset: u64,
    pub(crate) next_position: u64,
    /// Whether the last frame read was a clean end.
    pub(crate) ended: bool,
    buffer: Vec<u8>,
    /// What the disk could not read, taken for zeros; none when such an error ends the scan.
    unreadable: Option<RefCell<Vec<Range<u64>>>>,
}

impl<'f, F: DiskFile> Scan<'f, F> {
    /// Reads the segment's header.
    pub(crate) fn new(file: &'f F, path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { action: "read", path: path.to_owned(), source };
        let mut bytes = vec![0u8; SEGMENT_HEADER_BYTES as usize];
        let read = file.read_at(&mut bytes, 0).map_err(io)?;
        let header = SegmentHeader::decode(&bytes[..read]).map_err(|bad| match bad {
            BadHeader::Version(found) => OpenError::Version { file: path.to_owned(), found, known: VERSION_WITH_LOST },
            BadHeader::Damaged(what) => {
                OpenError::Corrupt { file: path.to_owned(), offset: 0, what: what.to_owned(), saved: None }
            }
        })?;
        // A segment can begin after the last position, when it has no frame.
        if !(1..=POSITION_MAX + 1).contains(&header.first_position) {
            let what = format!("the segment begins at position {}, which no event can have", header.first_position);
            return Err(OpenError::Corrupt { file: path.to_owned(), offset: 0, what, saved: None });
        }
        Self::with(file, path, header.seed(), header)
    }

    /// A segment whose header is this one, whatever the file says, and whose frames have checksums that begin so.
    pub(crate) fn with(file: &'f F, path: &Path, seed: u32, header: SegmentHeader) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { action: "read", path: path.to_owned(), source };
        let file_bytes = file.bytes().map_err(io)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            file_bytes,
            header,
            seed,
            offset: SEGMENT_HEADER_BYTES,
            next_position: header.first_position,
            ended: false,
            buffer: Vec::new(),
            unreadable: None,
        })
    }

    /// Goes on behind what the disk cannot read.
    pub(crate) fn around_what_is_unreadable(mut self) -> Self {
        self.unreadable = Some(RefCell::default());
        self
    }

    /// Whether something of these bytes could not be read.
    pub(crate) fn is_unreadable(&self, bytes: &Range<u64>) -> bool {
        let unreadable = self.unreadable.as_ref().map(RefCell::borrow);
        unreadable.is_some_and(|ranges| ranges.iter().any(|range| range.start < bytes.end && bytes.start < range.end))
    }

    /// The next frame and its payload; `None` where no valid frame begins.
    pub(crate) fn next(&mut self) -> Result<Option<(FrameHeader, &[u8])>, OpenError> {
        let Some(header) = self.frame_at(self.offset)? else {
            return Ok(None);
        };
        if header.first_position > self.next_position {
            let (first, expected) = (header.first_position, self.next_position);
            return Err(self.corrupt(self.offset, format!("a frame begins at position {first}, expected {expected}")));
        }
        if let Some(what) = self.flaw(&header) {
            return Err(self.corrupt(self.offset, what));
        }
        self.take(&header);
        Ok(Some((header, self.payload(&header))))
    }

    /// What is wrong with a frame whose checksum holds, as it lies here.
    pub(crate) fn flaw(&self, header: &FrameHeader) -> Option<String> {
        let (first, expected) = (header.first_position, self.next_position);
        if first < expected {
            return Some(format!("a frame begins at position {first}, expected {expected}"));
        }
        if first == 0 {
            return Some("a frame begins at position 0, which no event can have".to_owned());
        }
        if header.next_position() > POSITION_MAX + 1 {
            return Some(format!("a frame ends beyond the last position, {POSITION_MAX}"));
        }
        (header.kind == Kind::End && header.event_count > 0).then(|| "an end frame counts events".to_owned())
    }

    /// Goes on behind a frame.
    pub(crate) fn take(&mut self, header: &FrameHeader) {
        self.offset += header.frame_bytes();
        self.next_position = header.next_position();
        self.ended = header.kind == Kind::End;
    }

    /// The payload of the frame that was read last.
    pub(crate) fn payload(&self, header: &FrameHeader) -> &[u8] {
        &self.buffer[..header.payload_bytes as usize]
    }

    /// The seed on which the frames at these offsets agree, when two of them do.
    pub(crate) fn seed_of_frames(&mut self) -> Result<Option<u32>, OpenError> {
        let mut seen = Vec::new();
        for offset in self.candidates()? {
            let Some((bytes, header)) = self.unchecked_frame_at(offset)? else {
                continue;
            };
            let seed = FrameHeader::seed(&bytes, self.payload(&header));
            if let Some(seed) = seed.filter(|seed| seen.contains(seed)) {
                return Ok(Some(seed));
            }
            seen.extend(seed);
        }
        Ok(None)
    }

    /// Reads and checks the frame at an offset; its payload is then in the buffer.
    pub(crate) fn frame_at(&mut self, offset: u64) -> Result<Option<FrameHeader>, OpenError> {
        let Some((bytes, header)) = self.unchecked_frame_at(offset)? else {
            return Ok(None);
        };
        Ok(FrameHeader::holds(&bytes, self.seed, self.payload(&header)).then_some(header))
    }

    /// Reads what lies at an offset as a frame does; whether its checksum holds is not asked.
    fn unchecked_frame_at(&mut self, offset: u64) -> Result<Option<(RawHeader, FrameHeader)>, OpenError> {
        let mut bytes = [0u8; FRAME_HEADER_BYTES as usize];
        if self.read(&mut bytes, offset)? < bytes.len() {
            return Ok(None);
        }
        let Some(header) = FrameHeader::decode(&bytes) else {
            return Ok(None);
        };
        // Only the file bounds what is read back: it may have been written under larger limits than today's.
        if offset + header.frame_bytes() > self.file_bytes {
            return Ok(None);
        }
        let padded = (header.frame_bytes() - FRAME_HEADER_BYTES) as usize;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(padded, 0);
        let read = self.read(&mut buffer, offset + FRAME_HEADER_BYTES)?;
        self.buffer = buffer;
        let padding = &self.buffer[header.payload_bytes as usize..];
        Ok((read == padded && padding.iter().all(|b| *b == 0)).then_some((bytes, header)))
    }

    /// Where the last byte that is not zero, or cannot be read, lies, seen from the end of the frames; `None` when only zeros follow.
    pub(crate) fn rest(&mut self) -> Result<Option<u64>, OpenError> {
        let mut last = None;
        self.blocks(self.offset, |at, block| {
            if let Some(i) = block.iter().rposition(|b| *b != 0) {
                last = Some(at + i as u64);
            }
        })?;
        let unreadable = self.unreadable.as_ref().map(RefCell::borrow);
        let unreadable = unreadable.and_then(|ranges| ranges.iter().map(|range| range.end - 1).max());
        Ok(last.max(unreadable.filter(|last| *last >= self.offset)))
    }

    /// The offset of a valid frame after the end of the frames, which tells damage from tearing.
    pub(crate) fn valid_frame_after(&mut self) -> Result<Option<u64>, OpenError> {
        for offset in self.candidates()? {
            if self.frame_at(offset)?.is_some() {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    /// Where a frame may begin, from the end of the frames on.
    fn candidates(&self) -> Result<Vec<u64>, OpenError> {
        let mut candidates = Vec::new();
        self.blocks(self.offset, |at, block| {
            let words = block.chunks_exact(8).enumerate();
            candidates.extend(words.filter(|(_, w)| w[..4] == FRAME_MAGIC).map(|(i, _)| at + 8 * i as u64));
        })?;
        Ok(candidates)
    }

    /// The bytes from an offset to the last that is not zero.
    pub(crate) fn bytes_up_to(&mut self, last: u64) -> Result<Vec<u8>, OpenError> {
        let mut bytes = vec![0; (last + 1 - self.offset) as usize];
        let read = self.read(&mut bytes, self.offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    pub(crate) fn corrupt(&self, offset: u64, what: String) -> OpenError {
        OpenError::Corrupt { file: self.path.clone(), offset, what, saved: None }
    }

    /// The bytes from an offset to the end of the file.
    fn blocks(&self, from: u64, mut each: impl FnMut(u64, &[u8])) -> Result<(), OpenError> {
        let mut block = vec![0u8; BLOCK_BYTES];
        let mut at = from;
        while at < self.file_bytes {
            let read = self.read(&mut block, at)?;
            if read == 0 {
                break;
            }
            each(at, &block[..read]);
            at += read as u64;
        }
        Ok(())
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, OpenError> {
        let io = |source: io::Error| OpenError::Io { action: "read", path: self.path.clone(), source };
        match (self.file.read_at(buffer, offset), &self.unreadable) {
            (Err(_), Some(unreadable)) => {
                let (read, ranges) = read_around(self.file, buffer, offset).map_err(io)?;
                unreadable.borrow_mut().extend(ranges);
                Ok(read)
            }
            (read, _) => read.map_err(io),
        }
    }
}

/// Reads what the disk can read; the rest is zeros, and told.
pub(crate) fn read_around<F: DiskFile>(
    file: &F,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<(usize, Vec<Range<u64>>)> {
    let end = file.bytes()?.min(offset + buffer.len() as u64).max(offset);
    let (mut at, mut unreadable) = (offset, Vec::new());
    while at < end {
        let next = (at + 1).next_multiple_of(PIECE_BYTES).min(end);
        let piece = &mut buffer[(at - offset) as usize..(next - offset) as usize];
        if file.read_at(piece, at).is_err() {
            piece.fill(0);
            unreadable.push(at..next);
        }
        at = next;
    }
    Ok(((end - offset) as usize, unreadable))
}
