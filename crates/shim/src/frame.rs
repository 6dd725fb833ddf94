//! The supervisor's answers: `kind` (1 byte), length (4 bytes, big endian), payload.
//!
//! Output is raw bytes, everything else JSON. A kind that is not known is skipped, so that a newer supervisor can say more.

use serde::{Deserialize, Serialize};

use crate::{Exit, PortState, StartFailure, Started, Stream};

/// Longer frames are not written, and are an error where they are read.
pub const LONGEST: usize = 1024 * 1024;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// It can run here.
    Hello(Hello),
    /// The program runs, or ran.
    Started(Started),
    /// Bytes of one of its outputs, in order.
    Output(Stream, Vec<u8>),
    /// It is over, and that stands in its record. Output beyond what was sent is in the log's file.
    Exited(Exit),
    /// Somebody else had claimed the run: this supervisor has started nothing. Ask with [`crate::Task::Follow`].
    Refused,
    /// The program could not be started, and never ran. The gate is open again.
    FailedToStart(StartFailure),
    /// What came for the program's stdin is not what the order announces. Nothing was started, and the gate is open.
    StdinIncomplete(Message),
    /// The order could not be carried out here, and nothing was started: no place to write, another version.
    Unusable(Message),
    /// Nobody has claimed the run.
    NoClaim,
    /// The supervisor and the program are gone, and nothing says how the program ended.
    Abandoned(Message),
    /// What connections to a port come to now.
    Port(PortState),
    /// It is done.
    Done,
}

/// What a supervisor says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// [`crate::VERSION`].
    pub version: u32,
    /// The number of its user.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// What is wrong with the directory of its user's runs, where something is: no run can be started until that is made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Words for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The words.
    pub message: String,
}

/// Bytes that are no frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`LONGEST`].
    #[error("a frame of {0} bytes is longer than any that a supervisor writes")]
    TooLong(usize),
    /// Not the JSON that its kind has.
    #[error("a frame of kind {kind:?} cannot be understood")]
    Payload {
        /// The kind.
        kind: char,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

const HEAD: usize = 5;

impl Frame {
    /// What it is, for people who do not expect it. Never its contents: output may be long, and is not ours.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "a greeting",
            Self::Started(_) => "a start",
            Self::Output(..) => "output",
            Self::Exited(_) => "an end",
            Self::Refused => "a refusal",
            Self::FailedToStart(_) => "a failed start",
            Self::StdinIncomplete(_) => "an incomplete stdin",
            Self::Unusable(_) => "its inability",
            Self::NoClaim => "the absence of a claim",
            Self::Abandoned(_) => "an abandoned run",
            Self::Port(_) => "the state of a port",
            Self::Done => "success",
        }
    }

    /// The frame as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload) = match self {
            Self::Hello(hello) => (b'H', json(hello)),
            Self::Started(started) => (b'S', json(started)),
            Self::Output(Stream::Stdout, bytes) => (b'o', bytes.clone()),
            Self::Output(Stream::Stderr, bytes) => (b'e', bytes.clone()),
            Self::Exited(exit) => (b'X', json(exit)),
            Self::Refused => (b'R', Vec::new()),
            Self::FailedToStart(failure) => (b'F', json(failure)),
            Self::StdinIncomplete(message) => (b'I', json(message)),
            Self::Unusable(message) => (b'U', json(message)),
            Self::NoClaim => (b'N', Vec::new()),
            Self::Abandoned(message) => (b'A', json(message)),
            Self::Port(state) => (b'P', json(state)),
            Self::Done => (b'D', Vec::new()),
        };
        let mut bytes = head(kind, payload.len()).to_vec();
        bytes.extend_from_slice(&payload);
        bytes
    }
}

/// The head of a frame, for whoever has its payload elsewhere.
pub fn head(kind: u8, length: usize) -> [u8; HEAD] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind, length[0], length[1], length[2], length[3]]
}

/// Whether bytes begin as a frame does. Text never does: it has no zeros.
pub fn begins(bytes: &[u8]) -> bool {
    matches!(bytes, [kind, 0, ..] if kind.is_ascii_alphabetic())
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Plain structs of numbers and text always have a form in JSON.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Takes frames out of bytes that come cut anywhere.
///
/// # Guarantees
/// Its work is linear in what comes, however that is cut. Where all whole frames are taken out after each [`Decoder::push`], it
/// holds less than one frame. A frame that is too long is refused by its head.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
    /// Where the next frame begins in it.
    begin: usize,
}

impl Decoder {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        // Once for each piece, and what is moved then is a part of the piece before.
        self.pending.drain(..self.begin);
        self.begin = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// Nothing that follows can be understood: the decoder is of no more use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            let Some((head, rest)) = self.pending[self.begin..].split_first_chunk::<HEAD>() else { return Ok(None) };
            let [kind, length @ ..] = *head;
            let length = u32::from_be_bytes(length) as usize;
            if length > LONGEST {
                return Err(FrameError::TooLong(length));
            }
            let Some(payload) = rest.get(..length) else { return Ok(None) };
            let frame = decode(kind, payload)?;
            self.begin += HEAD + length;
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    /// Whether a part of a frame is left.
    pub fn is_in_the_middle(&self) -> bool {
        self.begin < self.pending.len()
    }

    /// How many bytes it holds.
    pub fn held(&self) -> usize {
        self.pending.len() - self.begin
    }
}

fn decode(kind: u8, payload: &[u8]) -> Result<Option<Frame>, FrameError> {
    let wrong = |source| FrameError::Payload { kind: kind.into(), source };
    Ok(Some(match kind {
        b'H' => Frame::Hello(serde_json::from_slice(payload).map_err(wrong)?),
        b'S' => Frame::Started(serde_json::from_slice(payload).map_err(wrong)?),
        b'o' => Frame::Output(Stream::Stdout, payload.to_vec()),
        b'e' => Frame::Output(Stream::Stderr, payload.to_vec()),
        b'X' => Frame::Exited(serde_json::from_slice(payload).map_err(wrong)?),
        b'R' => Frame::Refused,
        b'F' => Frame::FailedToStart(serde_json::from_slice(payload).map_err(wrong)?),
        b'I' => Frame::StdinIncomplete(serde_json::from_slice(payload).map_err(wrong)?),
        b'U' => Frame::Unusable(serde_json::from_slice(payload).map_err(wrong)?),
        b'N' => Frame::NoClaim,
        b'A' => Frame::Abandoned(serde_json::from_slice(payload).map_err(wrong)?),
        b'P' => Frame::Port(serde_json::from_slice(payload).map_err(wrong)?),
        b'D' => Frame::Done,
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_bytes_are_cut() {
        let frames = [
            Frame::Hello(Hello { version: 1, uid: 0, gid: 0, problem: None }),
            Frame::Output(Stream::Stdout, b"a\0b".to_vec()),
            Frame::Output(Stream::Stderr, Vec::new()),
            Frame::Refused,
            Frame::Abandoned(Message { message: "gone".into() }),
        ];
        let mut bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        // Of a kind from the future.
        bytes.splice(0..0, [b'?', 0, 0, 0, 2, 9, 9]);
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames, "in pieces of {size}");
            assert!(!decoder.is_in_the_middle());
        }
    }

    /// An engine that cannot start a supervisor says so in its place.
    #[test]
    fn frames_are_told_from_an_engines_words() {
        for frame in [
            Frame::Refused,
            Frame::Hello(Hello { version: 1, uid: 0, gid: 0, problem: None }),
            Frame::Output(Stream::Stdout, vec![b'x'; 70_000]),
        ] {
            assert!(begins(&frame.encode()));
        }
        for words in ["OCI runtime exec failed: exec failed", "", "S"] {
            assert!(!begins(words.as_bytes()));
        }
    }

    #[test]
    fn a_frame_that_would_never_end_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&head(b'o', LONGEST + 1));
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong(_))));
    }
}
