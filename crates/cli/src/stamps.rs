//! The time before each line of a log.

use std::ops::Range;

use bytes::Bytes;
use oncelet_store::Chunk;

/// Puts times before the lines of one stream, whose chunks may be cut anywhere.
///
/// A time is when oncelet received the first byte of the line: what a program wrote while no daemon lived has the time at
/// which the next one read it.
pub(crate) struct Stamps {
    wanted: bool,
    /// The last byte did not end its line.
    inside: bool,
}

impl Stamps {
    /// Where they are not `wanted`, everything passes as it is.
    pub(crate) fn new(wanted: bool) -> Self {
        Self { wanted, inside: false }
    }

    /// A `part` of `chunk`, with the time before each line that begins in it; `-` where it is not known.
    pub(crate) fn stamp(&mut self, chunk: &Chunk, part: Range<usize>) -> Bytes {
        if !self.wanted {
            return chunk.bytes.slice(part);
        }
        let mut stamped = Vec::with_capacity(part.len() * 2);
        let mut begin = part.start;
        for line in chunk.bytes[part].split_inclusive(|byte| *byte == b'\n') {
            if !self.inside {
                match chunk.received(begin) {
                    Some(at) => stamped.extend(format!("{at:.6} ").into_bytes()),
                    None => stamped.extend(b"- "),
                }
            }
            stamped.extend_from_slice(line);
            self.inside = line.last() != Some(&b'\n');
            begin += line.len();
        }
        stamped.into()
    }
}
