//! Reading a segment: its frames in order, and what to make of the place where they end.

use crate::disk::DiskFile;
use crate::error::OpenError;
use crate::format::{
    BadHeader, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, Kind, POSITION_MAX, SEGMENT_HEADER_BYTES, SegmentHeader,
    VERSION,
};
use std::io;
use std::path::{Path, PathBuf};

const BLOCK_BYTES: usize = 1 << 20;

/// A segment being read, one frame in memory at a time.
pub(crate) struct Scan<'f, F: DiskFile> {
    file: &'f F,
    path: PathBuf,
    file_bytes: u64,
    pub(crate) header: SegmentHeader,
    pub(crate) offset: u64,
    pub(crate) next_position: u64,
    /// Whether the last frame read was a clean end.
    pub(crate) ended: bool,
    buffer: Vec<u8>,
}

impl<'f, F: DiskFile> Scan<'f, F> {
    /// Reads the segment's header.
    pub(crate) fn new(file: &'f F, path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { action: "read", path: path.to_owned(), source };
        let mut bytes = vec![0u8; SEGMENT_HEADER_BYTES as usize];
        let read = file.read_at(&mut bytes, 0).map_err(io)?;
        let header = SegmentHeader::decode(&bytes[..read]).map_err(|bad| match bad {
            BadHeader::Version(found) => OpenError::Version { file: path.to_owned(), found, known: VERSION },
            BadHeader::Damaged(what) => OpenError::Corrupt { file: path.to_owned(), offset: 0, what: what.to_owned() },
        })?;
        // A segment can begin after the last position, when it has no frame.
        if !(1..=POSITION_MAX + 1).contains(&header.first_position) {
            let what = format!("the segment begins at position {}, which no event can have", header.first_position);
            return Err(OpenError::Corrupt { file: path.to_owned(), offset: 0, what });
        }
        let file_bytes = file.bytes().map_err(io)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            file_bytes,
            header,
            offset: SEGMENT_HEADER_BYTES,
            next_position: header.first_position,
            ended: false,
            buffer: Vec::new(),
        })
    }

    /// The next frame and its payload; `None` where no valid frame begins.
    pub(crate) fn next(&mut self) -> Result<Option<(FrameHeader, &[u8])>, OpenError> {
        let Some(header) = self.frame_at(self.offset)? else {
            return Ok(None);
        };
        if header.first_position != self.next_position {
            return Err(self.corrupt(
                self.offset,
                format!("a frame begins at position {}, expected {}", header.first_position, self.next_position),
            ));
        }
        if header.next_position() - 1 > POSITION_MAX {
            return Err(self.corrupt(self.offset, format!("a frame ends beyond the last position, {POSITION_MAX}")));
        }
        if header.kind == Kind::End && header.event_count > 0 {
            return Err(self.corrupt(self.offset, "an end frame counts events".to_owned()));
        }
        self.offset += header.frame_bytes();
        self.next_position = header.next_position();
        self.ended = header.kind == Kind::End;
        Ok(Some((header, &self.buffer[..header.payload_bytes as usize])))
    }

    /// Reads and checks the frame at an offset; its payload is then in the buffer.
    fn frame_at(&mut self, offset: u64) -> Result<Option<FrameHeader>, OpenError> {
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
        let (payload, padding) = self.buffer.split_at(header.payload_bytes as usize);
        let holds = read == padded
            && padding.iter().all(|b| *b == 0)
            && FrameHeader::holds(&bytes, self.header.segment_id, payload);
        Ok(holds.then_some(header))
    }

    /// Where the last byte that is not zero lies, seen from the end of the frames; `None` when only zeros follow.
    pub(crate) fn rest(&mut self) -> Result<Option<u64>, OpenError> {
        let mut last = None;
        self.blocks(self.offset, |at, block| {
            if let Some(i) = block.iter().rposition(|b| *b != 0) {
                last = Some(at + i as u64);
            }
            Ok(true)
        })?;
        Ok(last)
    }

    /// The offset of a valid frame after the end of the frames, which tells damage from tearing.
    pub(crate) fn valid_frame_after(&mut self) -> Result<Option<u64>, OpenError> {
        let mut candidates = Vec::new();
        self.blocks(self.offset, |at, block| {
            let words = block.chunks_exact(8).enumerate();
            candidates.extend(words.filter(|(_, w)| w[..4] == FRAME_MAGIC).map(|(i, _)| at + 8 * i as u64));
            Ok(true)
        })?;
        for offset in candidates {
            if self.frame_at(offset)?.is_some() {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    /// The bytes from an offset to the last that is not zero.
    pub(crate) fn bytes_up_to(&mut self, last: u64) -> Result<Vec<u8>, OpenError> {
        let mut bytes = vec![0; (last + 1 - self.offset) as usize];
        let read = self.read(&mut bytes, self.offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    pub(crate) fn corrupt(&self, offset: u64, what: String) -> OpenError {
        OpenError::Corrupt { file: self.path.clone(), offset, what }
    }

    fn blocks(&self, from: u64, mut each: impl FnMut(u64, &[u8]) -> Result<bool, OpenError>) -> Result<(), OpenError> {
        let mut block = vec![0u8; BLOCK_BYTES];
        let mut at = from;
        while at < self.file_bytes {
            let read = self.read(&mut block, at)?;
            if read == 0 || !each(at, &block[..read])? {
                break;
            }
            at += read as u64;
        }
        Ok(())
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, OpenError> {
        let io = |source: io::Error| OpenError::Io { action: "read", path: self.path.clone(), source };
        self.file.read_at(buffer, offset).map_err(io)
    }
}
