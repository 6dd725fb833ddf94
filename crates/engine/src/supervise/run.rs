//! Listening to a supervisor.

use std::time::Duration;

use jiff::Timestamp;
use oncelet_shim::frame::{Decoder, Frame, Message};
use oncelet_shim::{PortState, PortTry, StartFailure, Stream, Word};

use super::voice::Voice;
use super::{SupervisedEnd, SupervisedEvent, install};
use crate::words::{shown, shown_bytes};
use crate::{ContainerId, Engine, ExecEnd, ExecEvent, FailureReason, OutputStream, RunningExec};

/// How much of what the supervisor says on stderr is kept: it says nothing there unless it dies.
const LAST_WORDS: usize = 4096;
/// How many tries to connect to a port are told; a container has few addresses.
const MOST_TRIES: usize = 16;
/// How long an address is, or what became of it.
const LONGEST_OF_TRY: usize = 100;
/// How long the supervisor may take to end once everything is stored.
const GOODBYE: Duration = Duration::from_secs(5);

/// A supervised run that is listened to. Dropping it leaves the run as it is: it can be followed again.
pub struct SupervisedRun {
    engine: Engine,
    container: ContainerId,
    frames: Frames,
    voice: Option<Voice>,
    offsets: [u64; 2],
    over: bool,
}

impl SupervisedRun {
    pub(super) fn new(
        engine: Engine,
        container: ContainerId,
        running: RunningExec,
        voice: Option<Voice>,
        offsets: [u64; 2],
    ) -> Self {
        Self { engine, container, frames: Frames::new(running), voice, offsets, over: false }
    }

    /// The next event. [`SupervisedEvent::Ended`] comes exactly once, and then `None` for ever.
    ///
    /// Cancel safe: an event is either returned or kept for the next call.
    pub async fn next(&mut self) -> Option<SupervisedEvent> {
        if self.over {
            return None;
        }
        let event = match self.frames.next().await {
            Ok(Frame::Started(started)) => SupervisedEvent::Started { at: time(started.at_us) },
            Ok(Frame::Output(stream, bytes)) => {
                let offset = self.offsets[stream as usize];
                self.offsets[stream as usize] += bytes.len() as u64;
                let stream = match stream {
                    Stream::Stdout => OutputStream::Stdout,
                    Stream::Stderr => OutputStream::Stderr,
                };
                SupervisedEvent::Output { stream, offset, bytes: bytes.into() }
            }
            Ok(frame) => {
                if matches!(frame, Frame::Unusable(_)) {
                    // What was there when it was put in place has changed: a disk that is full now, above all.
                    self.engine.forget_supervisor(&self.container);
                }
                SupervisedEvent::Ended(self.with_reason(end(frame)))
            }
            Err(end) => SupervisedEvent::Ended(self.without_frame(end)),
        };
        self.over = matches!(event, SupervisedEvent::Ended(_));
        Some(event)
    }

    /// Where the source of the program's stdin failed, that says more than how much of it arrived.
    fn with_reason(&self, end: SupervisedEnd) -> SupervisedEnd {
        match (end, self.voice.as_ref().and_then(Voice::failure)) {
            (SupervisedEnd::StdinIncomplete { message }, Some(why)) => {
                SupervisedEnd::StdinIncomplete { message: format!("{why}: {message}") }
            }
            (end, _) => end,
        }
    }

    /// A supervisor that is not where it was put must not look like a command of the user's that is missing.
    fn without_frame(&self, end: SupervisedEnd) -> SupervisedEnd {
        match end {
            SupervisedEnd::FailedToStart { message, .. } if install::is_about_supervisor(&message) => {
                self.engine.forget_supervisor(&self.container);
                SupervisedEnd::Unusable { message: format!("the supervisor is gone from the container: {message}") }
            }
            other => other,
        }
    }

    /// Tells the supervisor that so many bytes of stdout and of stderr are safe: it then removes them in the container as soon as
    /// it can.
    pub fn acknowledge(&self, safe: [u64; 2]) {
        if let Some(voice) = &self.voice {
            voice.say(Word::Ack(safe).to_string());
        }
    }

    /// Tells the supervisor that the outcome and the output are stored: it then removes the output in the container.
    pub fn stored(mut self) {
        let Some(voice) = self.voice.take() else { return };
        voice.say(Word::Stored.to_string());
        // Until it has ended: a connection that is closed too early takes the word with it.
        tokio::spawn(async move {
            let _ = tokio::time::timeout(GOODBYE, async { while self.frames.next().await.is_ok() {} }).await;
            drop(voice);
        });
    }
}

/// The first frame that comes, or what came instead.
pub(super) async fn first_frame(running: RunningExec) -> Result<Frame, SupervisedEnd> {
    Frames::new(running).next().await
}

/// The frames in what an exec writes.
pub(super) struct Frames {
    running: RunningExec,
    decoder: Decoder,
    stderr: Vec<u8>,
}

impl Frames {
    pub(super) fn new(running: RunningExec) -> Self {
        Self { running, decoder: Decoder::default(), stderr: Vec::new() }
    }

    /// The next frame, its words fit to be shown; or what came instead.
    pub(super) async fn next(&mut self) -> Result<Frame, SupervisedEnd> {
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Ok(fit(frame)),
                Ok(None) => {}
                // It may repeat a part of the frame.
                Err(error) => return Err(SupervisedEnd::Lost { message: shown(&error.to_string()) }),
            }
            match self.running.next().await {
                Some(ExecEvent::Output { stream: OutputStream::Stdout, bytes }) => self.decoder.push(&bytes),
                Some(ExecEvent::Output { stream: OutputStream::Stderr, bytes }) => {
                    let room = LAST_WORDS.saturating_sub(self.stderr.len());
                    self.stderr.extend(bytes.iter().take(room));
                }
                Some(ExecEvent::Ended(end)) => return Err(self.without_frame(end)),
                None => return Err(SupervisedEnd::Lost { message: "the stream has ended".to_owned() }),
            }
        }
    }

    /// What it means that the exec is over and the supervisor has not said so.
    fn without_frame(&self, end: ExecEnd) -> SupervisedEnd {
        let words = shown_bytes(&self.stderr);
        match end {
            ExecEnd::FailedToStart { reason, message } => SupervisedEnd::FailedToStart { reason, message },
            ExecEnd::Interrupted { message, .. } | ExecEnd::Lost { message, .. } => SupervisedEnd::Lost { message },
            ExecEnd::Exited { exit_code } if words.is_empty() => {
                SupervisedEnd::Lost { message: format!("the supervisor ended with {exit_code} and said nothing") }
            }
            ExecEnd::Exited { exit_code } => {
                SupervisedEnd::Lost { message: format!("the supervisor ended with {exit_code}: {words}") }
            }
        }
    }
}

/// A frame whose words can be shown. Whoever runs code in the container may have written it.
fn fit(frame: Frame) -> Frame {
    let message = |message: Message| Message { message: shown(&message.message) };
    match frame {
        Frame::FailedToStart(failure) => {
            Frame::FailedToStart(StartFailure { message: shown(&failure.message), ..failure })
        }
        Frame::StdinIncomplete(why) => Frame::StdinIncomplete(message(why)),
        Frame::Unusable(refusal) => Frame::Unusable(message(refusal)),
        Frame::Abandoned(words) => Frame::Abandoned(message(words)),
        Frame::Port(PortState::Closed { tries, loopback_only }) => {
            let fit = |it: PortTry| PortTry { address: brief(&it.address), problem: brief(&it.problem) };
            Frame::Port(PortState::Closed {
                tries: tries.into_iter().take(MOST_TRIES).map(fit).collect(),
                loopback_only,
            })
        }
        other => other,
    }
}

/// One of several words that are shown together.
fn brief(words: &str) -> String {
    let words = shown(words);
    words[..words.floor_char_boundary(LONGEST_OF_TRY)].to_owned()
}

fn end(frame: Frame) -> SupervisedEnd {
    match frame {
        Frame::Exited(exit) => SupervisedEnd::Exited(exit),
        Frame::Refused => SupervisedEnd::Refused,
        Frame::FailedToStart(failure) => failed_to_start(failure),
        Frame::StdinIncomplete(why) => SupervisedEnd::StdinIncomplete { message: why.message },
        Frame::Unusable(refusal) => SupervisedEnd::Unusable { message: refusal.message },
        Frame::NoClaim => SupervisedEnd::NoClaim,
        Frame::Abandoned(words) => SupervisedEnd::Abandoned { message: words.message },
        other @ (Frame::Hello(_) | Frame::Done | Frame::Port(_) | Frame::Started(_) | Frame::Output(..)) => {
            SupervisedEnd::Lost { message: format!("the supervisor answered with {}", other.name()) }
        }
    }
}

fn failed_to_start(failure: StartFailure) -> SupervisedEnd {
    let StartFailure { errno, message } = failure;
    let reason = match rustix::io::Errno::from_raw_os_error(errno) {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => FailureReason::CommandNotFound,
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM | rustix::io::Errno::NOEXEC | rustix::io::Errno::ISDIR => {
            FailureReason::NotExecutable
        }
        _ => FailureReason::Other,
    };
    SupervisedEnd::FailedToStart { reason, message }
}

/// A time in the record. One that is none says that its clock was wrong.
fn time(us: i64) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or_default()
}
