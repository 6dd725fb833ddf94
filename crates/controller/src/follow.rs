//! Starts one exec and stays with it until its end is in the store.

use std::time::Duration;

use oncelet_core::{ExecHint, Outcome, RunEvent, RunState, Verdict, judge};
use oncelet_engine::{ErrorKind, ExecEnd, ExecEvent, ExecId, ExecState, OutputStream, RunningExec};
use oncelet_store::{Advance, Lease, LogWriter, Logs, Store, StoreError, Stream};

use crate::context::{Ctx, one_line};
use crate::runs::Care;

/// How long output may wait before followers of the log see it.
const FLUSH: Duration = Duration::from_millis(200);
/// How long between two looks at a program whose stream is lost.
const LOOK: Duration = Duration::from_secs(2);

/// A run that this task looks after.
pub(crate) struct Run {
    /// The right to move it.
    pub(crate) lease: Lease,
    /// The care for it in this process; held for the task's life.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) care: Care,
    /// Whether a start of its exec was asked for before, by a daemon that is gone, and may still be under way.
    pub(crate) asked_before: bool,
    /// How many bytes of each stream are kept.
    pub(crate) log_limit: Option<u64>,
}

/// Starts `exec_id`, follows it and records its end.
///
/// # Assumptions
/// The exec ID is in the store. The engine starts an exec at most once, so this may run again after a crash.
pub(crate) async fn start_and_follow(ctx: Ctx, store: Store, run: Run, exec_id: ExecId) {
    let mut asked_before = run.asked_before;
    let running = loop {
        let error = match ctx.engine.start_exec(&exec_id).await {
            Ok(running) => break running,
            Err(error) => error,
        };
        let why = one_line(&error);
        tracing::warn!(exec = %exec_id, "the start was not confirmed: {why}");
        let refused = matches!(error.kind(), ErrorKind::ContainerNotRunning | ErrorKind::Rejected);
        match inspect(&ctx, &exec_id).await {
            // The answer to this request settles it only where no earlier one may still be under way.
            ExecState::NeverStarted if refused && !asked_before => {
                let outcome = Outcome::FailedToStart { reason: "StartRefused".to_owned(), message: why };
                return finish(&ctx, &store, &run, outcome, Logs::default()).await;
            }
            // A new exec could become a second run. This one cannot: the engine starts an exec at most once.
            ExecState::NeverStarted => {
                asked_before |= !refused;
                tokio::time::sleep(LOOK).await;
            }
            _ => return await_end(ctx, store, run, exec_id, why, Logs::default()).await,
        }
    };
    let started = RunEvent::Started { at: (ctx.now)() };
    if !record(&ctx, "start", || store.advance(&run.lease, started.clone())).await {
        return;
    }
    let (end, logs) = drain(&store, &run, running).await;
    let outcome = match end {
        ExecEnd::Exited { exit_code } => Outcome::Finished { exit_code },
        // After an earlier request, a failed start may be that of an exec which the earlier one still starts.
        ExecEnd::FailedToStart { reason, message } if !asked_before => {
            Outcome::FailedToStart { reason: format!("{reason:?}"), message }
        }
        ExecEnd::Interrupted { exit_code, message } => Outcome::Interrupted { message, exit_code },
        ExecEnd::FailedToStart { message, .. } | ExecEnd::Lost { message, .. } => {
            return await_end(ctx, store, run, exec_id, message, logs).await;
        }
    };
    finish(&ctx, &store, &run, outcome, logs).await;
}

/// Asks the engine about an exec until it answers.
async fn inspect(ctx: &Ctx, exec_id: &ExecId) -> ExecState {
    loop {
        match ctx.engine.inspect_exec(exec_id).await {
            Ok(state) => return state,
            Err(error) => tracing::debug!(exec = %exec_id, "the engine cannot be asked: {}", one_line(&error)),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until a program that nobody listens to is over, and records that its outcome is not known.
pub(crate) async fn await_end(ctx: Ctx, store: Store, run: Run, exec_id: ExecId, why: String, logs: Logs) {
    let state = RunState::Running { exec_id: exec_id.to_string(), started_at: (ctx.now)() };
    loop {
        if let Verdict::Ended(outcome) = judge(&state, Some(hint(inspect(&ctx, &exec_id).await))) {
            return finish(&ctx, &store, &run, because(&why, outcome), logs).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// `outcome`, with what took away its witness.
pub(crate) fn because(why: &str, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Unknown { message } => Outcome::Unknown { message: format!("{why}: {message}") },
        outcome => outcome,
    }
}

/// What the engine says of an exec, in the core's words.
pub(crate) fn hint(state: ExecState) -> ExecHint {
    match state {
        ExecState::NeverStarted => ExecHint::NeverStarted,
        ExecState::Running { .. } => ExecHint::Running,
        ExecState::Exited { exit_code } => ExecHint::Exited(exit_code),
        ExecState::Gone => ExecHint::Gone,
    }
}

/// Reads all output into the logs, until the end.
async fn drain(store: &Store, run: &Run, mut running: RunningExec) -> (ExecEnd, Logs) {
    let mut stdout = Sink::open(store, run, Stream::Stdout).await;
    let mut stderr = Sink::open(store, run, Stream::Stderr).await;
    let mut flush = tokio::time::interval(FLUSH);
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            // Cancel-safe: `next` keeps a half-read event in `running`.
            event = running.next() => match event {
                Some(ExecEvent::Output { stream: OutputStream::Stdout, bytes }) => stdout.write(bytes).await,
                Some(ExecEvent::Output { stream: OutputStream::Stderr, bytes }) => stderr.write(bytes).await,
                Some(ExecEvent::Ended(end)) => break end,
                None => break ExecEnd::Lost {
                    reason: oncelet_engine::LostReason::NotFollowed,
                    message: "the engine's stream ended without an end".to_owned(),
                },
            },
            // Cancel-safe: a tick that is not taken comes again.
            _ = flush.tick() => {
                stdout.flush().await;
                stderr.flush().await;
            }
        }
    };
    (end, Logs { stdout: stdout.finish().await, stderr: stderr.finish().await })
}

/// Where one stream goes. A log that cannot be written must not block the program: its output is then dropped,
/// and the summary says so.
struct Sink {
    writer: Option<LogWriter>,
    dirty: bool,
}

impl Sink {
    async fn open(store: &Store, run: &Run, stream: Stream) -> Self {
        let writer = store.log_writer(&run.lease, stream, run.log_limit).await;
        Self { writer: writer.map_err(complain).ok(), dirty: false }
    }

    async fn write(&mut self, bytes: bytes::Bytes) {
        if let Some(writer) = &mut self.writer {
            self.dirty = true;
            if let Err(error) = writer.write(bytes).await {
                complain(error);
            }
        }
    }

    async fn flush(&mut self) {
        if let (true, Some(writer)) = (std::mem::take(&mut self.dirty), &mut self.writer)
            && let Err(error) = writer.flush().await
        {
            complain(error);
        }
    }

    async fn finish(self) -> oncelet_store::LogSummary {
        match self.writer {
            Some(writer) => writer.finish().await.map_err(complain).unwrap_or_default(),
            None => oncelet_store::LogSummary::default(),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "to be called by map_err")]
fn complain(error: StoreError) {
    tracing::error!("output is lost: {}", one_line(&error));
}

/// Records the end of a run.
async fn finish(ctx: &Ctx, store: &Store, run: &Run, outcome: Outcome, logs: Logs) {
    let at = (ctx.now)();
    record(ctx, "outcome", || store.finish(&run.lease, at, outcome.clone(), logs.clone())).await;
}

/// Writes to the store until it is written, for an outcome is never dropped, and wakes the run's objects. False where the
/// run is no longer ours.
async fn record<F>(ctx: &Ctx, what: &str, mut write: impl FnMut() -> F) -> bool
where
    F: Future<Output = Result<Advance, StoreError>>,
{
    let mut pause = Duration::from_millis(100);
    loop {
        match write().await {
            Ok(Advance::Done(record)) => {
                tracing::info!(run = %record.id, key = %record.key, "{}", record.state.name());
                ctx.wake(&record.key.name);
                return true;
            }
            Ok(Advance::Lost) => {
                tracing::warn!("another daemon has taken over a run; its {what} is not ours to write");
                return false;
            }
            Err(error) => {
                tracing::error!("the {what} of a run is not stored yet: {}", one_line(&error));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(10));
            }
        }
    }
}
