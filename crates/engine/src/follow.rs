//! Following a started program to its end, and judging what the end was.
//!
//! ```text
//! opening: output is held ──▶ it has a pid: release, stream on ──▶ end of stream ──▶ judged
//!                        └──▶ end of stream ────────────────────────────────────────▶ judged: release, or it was
//!                                                                                     the engine's error text
//! ```
//!
//! The task reads at the engine's pace into a small queue, so that a reader's short pause does not stall the engine.

mod verdict;

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bollard::{container::LogOutput, errors::Error as BollardError};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    ContainerId, ContainerState, Engine, Error, ExecEnd, ExecEvent, ExecId, ExecState, LostReason, OutputStream,
    exec::Inspected, pace::Pace, start_failure, starts::Turn,
};

/// Frames between the engine and the reader, of 32 KiB at most each.
const QUEUE: usize = 64;
/// More output than this comes from a program, not from an engine that explains itself.
const LONGEST_EXPLANATION: usize = 64 * 1024;

/// When to ask for the first time whether a program runs: a start takes some 40 ms.
const SOON: Duration = Duration::from_millis(15);
/// The same for a supervisor, whose first word mostly says so.
const LATE: Duration = Duration::from_millis(250);

pub(crate) type RawOutput = Pin<Box<dyn Stream<Item = Result<LogOutput, BollardError>> + Send>>;

/// A program that has been started, and its output. From [`Engine::start_exec`].
///
/// Dropping it lets the program go on, its further output be discarded and its outcome be lost.
#[derive(Debug)]
pub struct RunningExec {
    events: mpsc::Receiver<ExecEvent>,
    over: bool,
    incomplete: Arc<AtomicBool>,
    container_started_at: Option<Timestamp>,
    _follower: Option<AbortOnDropHandle<()>>,
}

impl RunningExec {
    /// The next event. [`ExecEvent::Ended`] comes exactly once, and then `None` for ever.
    ///
    /// Cancel safe: an event is either returned or kept for the next call.
    pub async fn next(&mut self) -> Option<ExecEvent> {
        if self.over {
            return None;
        }
        let event = self.events.recv().await.unwrap_or_else(|| {
            ExecEvent::Ended(ExecEnd::Lost {
                reason: LostReason::NotFollowed,
                message: "following the program was given up before its end".to_owned(),
            })
        });
        self.over = matches!(event, ExecEvent::Ended(_));
        Some(event)
    }

    /// Whether output may be missing although the program's exit code is known. Meaningful after
    /// [`ExecEvent::Ended`]; `true` means "may be", never "is".
    ///
    /// # Caveats
    ///
    /// An engine drains a program's output for 2 seconds after the program's end, then cuts it off and says nothing.
    /// A queue of 2 MiB covers a reader's short pauses, and a reader that was too slow shows here; whoever takes long to
    /// store output should put it elsewhere first. It also shows here if the output ended well before the program did:
    /// mostly because the program closed it, but something between here and the engine may have cut the connection.
    pub fn output_may_be_incomplete(&self) -> bool {
        self.incomplete.load(Ordering::Relaxed)
    }

    /// When the container was started in the life in which the program runs, where the engine says so.
    pub fn container_started_at(&self) -> Option<Timestamp> {
        self.container_started_at
    }

    /// One that is over already.
    pub(crate) fn ended(end: ExecEnd) -> Self {
        let (sender, events) = mpsc::channel(1);
        // There is room for one.
        let _ = sender.try_send(ExecEvent::Ended(end));
        Self { events, over: false, incomplete: Arc::default(), container_started_at: None, _follower: None }
    }
}

/// One life of a container, from a start to its stop.
#[derive(Debug)]
pub(crate) struct Life {
    started_at: Option<Timestamp>,
}

impl Life {
    pub(crate) async fn observe(engine: &Engine, container: &ContainerId) -> Result<Self, Error> {
        let found = engine.container(container.as_str()).await?;
        let found = found.ok_or_else(|| Error::NotFound { what: format!("container {container}") })?;
        let started_at = match found.state {
            ContainerState::Running { started_at } => started_at,
            _ => None,
        };
        Ok(Self { started_at })
    }

    /// What ended this life of `container`, if it is over.
    async fn end(&self, engine: &Engine, container: &ContainerId) -> Option<String> {
        let Ok(found) = engine.container(container.as_str()).await else {
            // Not knowing is not an end.
            return None;
        };
        let Some(found) = found else {
            return Some(format!("the container {container} was removed while the program ran"));
        };
        let what = match found.state {
            ContainerState::Running { started_at } => {
                let restarted = self.started_at.is_some() && started_at.is_some() && started_at != self.started_at;
                return restarted.then(|| format!("the container {} was restarted while the program ran", found.name));
            }
            ContainerState::Paused => return None,
            ContainerState::Exited { exit_code, .. } => {
                format!("stopped (exit code {exit_code})")
            }
            ContainerState::Created => "stopped".to_owned(),
            ContainerState::Restarting => "restarted".to_owned(),
            ContainerState::Removing | ContainerState::Dead => "removed".to_owned(),
        };
        Some(format!("the container {} was {what} while the program ran", found.name))
    }
}

/// How the engine's stream ended.
#[derive(Debug)]
enum StreamEnd {
    Clean,
    Broken(String),
    /// The engine refused a second start.
    Refused(String),
}

/// What came before it was known whether the program runs.
#[derive(Debug, Default)]
struct Held {
    frames: Vec<(OutputStream, Bytes)>,
    /// How many bytes they take, each with what it takes to hold it.
    size: usize,
}

impl Held {
    fn push(&mut self, frame: (OutputStream, Bytes)) {
        self.size += size_of_val(&frame) + frame.1.len();
        self.frames.push(frame);
    }

    fn text(&self, wanted: OutputStream) -> String {
        let bytes: Vec<u8> = self
            .frames
            .iter()
            .filter(|(stream, _)| *stream == wanted)
            .flat_map(|(_, bytes)| bytes.iter().copied())
            .collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

enum Opening {
    /// The engine has named a pid, or more came than an engine has to say.
    Ran(Held),
    Over(Held, StreamEnd),
}

/// The reader is gone.
struct Unread;

/// What is being followed, and all that is needed to judge its end.
struct Case {
    engine: Engine,
    exec: ExecId,
    container: ContainerId,
    /// `None` of a supervisor, which tells itself how it fares: whoever listens to it asks for the rest where it does not.
    life: Option<Life>,
    begun: Instant,
    /// Whether output may be missing.
    incomplete: Arc<AtomicBool>,
}

struct Follower {
    case: Case,
    output: RawOutput,
    /// Whether anything has come yet.
    silent: bool,
    events: mpsc::Sender<ExecEvent>,
    pace: Pace,
}

/// Follows in a task of its own, which ends with the stream or with the returned value. `turn` is given back as
/// soon as the program runs or has failed to. `life` is `None` of a supervisor.
pub(crate) fn spawn(
    engine: Engine,
    exec: ExecId,
    container: ContainerId,
    life: Option<Life>,
    output: RawOutput,
    turn: Turn,
) -> RunningExec {
    let (sender, events) = mpsc::channel(QUEUE);
    let incomplete = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let container_started_at = life.as_ref().and_then(|life| life.started_at);
    let follower = Follower {
        case: Case { engine, exec, container, life, begun, incomplete: Arc::clone(&incomplete) },
        output,
        silent: true,
        events: sender,
        pace: Pace::new(begun),
    };
    let task = tokio::spawn(async move {
        // A reader that has gone needs no outcome.
        let _: Result<(), Unread> = follower.run(turn).await;
    });
    RunningExec { events, over: false, incomplete, container_started_at, _follower: Some(AbortOnDropHandle::new(task)) }
}

impl Follower {
    async fn run(mut self, turn: Turn) -> Result<(), Unread> {
        let opening = self.opening(turn).await;
        let end = match opening {
            Opening::Over(held, stream_end) => {
                let end = self.case.judge(Some(&held), stream_end).await;
                if !matches!(end, ExecEnd::FailedToStart { .. }) {
                    self.release(held).await?;
                }
                end
            }
            Opening::Ran(held) => {
                self.release(held).await?;
                let stream_end = loop {
                    match self.frame().await {
                        Ok((stream, bytes)) => self.deliver(stream, bytes).await?,
                        Err(end) => break end,
                    }
                };
                if self.pace.fell_behind(Instant::now()) {
                    self.case.incomplete.store(true, Ordering::Relaxed);
                }
                if self.case.life.is_some() {
                    self.case.judge(None, stream_end).await
                } else {
                    // It has said how it ended, or else only its record can tell.
                    verdict::lost(LostReason::NotFollowed, "the stream has ended".to_owned())
                }
            }
        };
        self.events.send(ExecEvent::Ended(end)).await.map_err(|_| Unread)
    }

    /// Holds output back until it is known to be the program's. Gives `turn` back once the engine is through with the
    /// start, whatever came of it.
    async fn opening(&mut self, turn: Turn) -> Opening {
        let (engine, exec) = (self.case.engine.clone(), self.case.exec.clone());
        let is_supervisor = self.case.life.is_none();
        let mut turn = Some(turn);
        // Kept across rounds: Podman answers only once the start is through, and asking anew with each frame would
        // never get an answer.
        let mut pid = pin!(has_pid(&engine, &exec, if is_supervisor { LATE } else { SOON }));
        let mut asking = true;
        let mut held = Held::default();
        loop {
            tokio::select! {
                // Cancel safe: the future is kept.
                ran = &mut pid, if asking => {
                    if ran {
                        return Opening::Ran(held);
                    }
                    asking = false;
                    drop(turn.take());
                }
                // Cancel safe: the stream keeps a partial frame in its own buffer.
                frame = self.frame() => match frame {
                    Ok(frame) => {
                        let speaks = is_supervisor && oncelet_shim::frame::begins(&frame.1);
                        held.push(frame);
                        if speaks || held.size > LONGEST_EXPLANATION {
                            return Opening::Ran(held);
                        }
                    }
                    Err(end) => return Opening::Over(held, end),
                },
            }
        }
    }

    async fn frame(&mut self) -> Result<(OutputStream, Bytes), StreamEnd> {
        let frame = match self.output.next().await {
            None => return Err(StreamEnd::Clean),
            Some(Err(error)) => return Err(StreamEnd::Broken(error.to_string())),
            Some(Ok(LogOutput::StdOut { message })) => (OutputStream::Stdout, message),
            Some(Ok(LogOutput::StdErr { message })) => (OutputStream::Stderr, message),
            // What the decoder makes of bytes without a frame, or of a frame that was cut off.
            Some(Ok(LogOutput::Console { .. } | LogOutput::StdIn { .. })) => {
                return Err(StreamEnd::Broken("the stream was cut off in the middle".to_owned()));
            }
        };
        if self.silent {
            self.silent = false;
            let text = String::from_utf8_lossy(&frame.1);
            if start_failure::is_second_start(&text, &self.case.exec) {
                return Err(StreamEnd::Refused(text.trim().to_owned()));
            }
        }
        Ok(frame)
    }

    async fn release(&mut self, held: Held) -> Result<(), Unread> {
        for (stream, bytes) in held.frames {
            self.deliver(stream, bytes).await?;
        }
        Ok(())
    }

    async fn deliver(&mut self, stream: OutputStream, bytes: Bytes) -> Result<(), Unread> {
        let size = bytes.len();
        let offered = Instant::now();
        self.events.send(ExecEvent::Output { stream, bytes }).await.map_err(|_| Unread)?;
        self.pace.delivered(size, offered, Instant::now());
        Ok(())
    }
}

/// Asks until the engine names a pid, which it does only for what has really been started: `true`. `false` once it
/// will not do so any more.
async fn has_pid(engine: &Engine, exec: &ExecId, first: Duration) -> bool {
    let mut wait = first;
    loop {
        sleep(wait).await;
        match engine.inspect(exec).await {
            Ok(inspected) if inspected.pid != 0 => return true,
            Ok(Inspected { state: ExecState::Exited { .. } | ExecState::Gone, .. }) => return false,
            // Being started; or not to be asked just now, which is no answer.
            Ok(_) | Err(_) => {}
        }
        wait = (wait * 2).min(first * 8);
    }
}
