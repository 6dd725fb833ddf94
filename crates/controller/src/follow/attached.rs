//! Starts one attached exec and stays with it until its end is in the store.
//!
//! The engine's stream is the only witness: when it breaks, how the program ended cannot be known.

use jiff::Timestamp;
use oncelet_core::{Outcome, RunEvent, RunState, Verdict, judge};
use oncelet_engine::{ErrorKind, ExecEnd, ExecEvent, ExecId, ExecState, OutputStream, RunningExec};
use oncelet_store::{Logs, Store, Stream};

use super::output::{FLUSH, Outputs};
use super::{LOOK, Run, finish, hint, record};
use crate::context::{Ctx, one_line};

/// Starts `exec_id`, follows it and records its end. `asked_before` tells whether a start of it was asked for before, by a
/// daemon that is gone, and may still be under way.
///
/// # Assumptions
/// The exec ID is in the store. The engine starts an exec at most once, so this may run again after a crash.
pub(crate) async fn start(ctx: Ctx, store: Store, run: Run, exec_id: ExecId, mut asked_before: bool) {
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
                finish(&ctx, &store, &run, (ctx.now)(), outcome, Logs::default()).await;
                return;
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
    let Some(record) = record("start", || store.advance(&run.lease, started.clone())).await else { return };
    ctx.wake(&record.key.name);
    let (end, logs) = drain(&store, &run, ctx.now, running).await;
    let outcome = match end {
        ExecEnd::Exited { exit_code } => Outcome::Finished { exit_code },
        // After an earlier request, a failed start may be that of an exec which the earlier one still starts.
        ExecEnd::FailedToStart { reason, message } if !asked_before => {
            Outcome::FailedToStart { reason: format!("{reason:?}"), message }
        }
        ExecEnd::Interrupted { exit_code, message } => {
            Outcome::Interrupted { by: oncelet_core::EndedBy::Container, message, exit_code }
        }
        ExecEnd::FailedToStart { message, .. } | ExecEnd::Lost { message, .. } => {
            return await_end(ctx, store, run, exec_id, message, logs).await;
        }
    };
    finish(&ctx, &store, &run, (ctx.now)(), outcome, logs).await;
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
            finish(&ctx, &store, &run, (ctx.now)(), because(&why, outcome), logs).await;
            return;
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

/// Reads all output into the logs, until the end.
async fn drain(store: &Store, run: &Run, now: fn() -> Timestamp, mut running: RunningExec) -> (ExecEnd, Logs) {
    let mut outputs = Outputs::open(store, run, now).await;
    let mut flush = tokio::time::interval(FLUSH);
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            // Cancel-safe: `next` keeps a half-read event in `running`.
            event = running.next() => match event {
                Some(ExecEvent::Output { stream, bytes }) => {
                    let stream = match stream {
                        OutputStream::Stdout => Stream::Stdout,
                        OutputStream::Stderr => Stream::Stderr,
                    };
                    outputs.get_mut(stream).write(bytes).await;
                }
                Some(ExecEvent::Ended(end)) => break end,
                None => break ExecEnd::Lost {
                    reason: oncelet_engine::LostReason::NotFollowed,
                    message: "the engine's stream ended without an end".to_owned(),
                },
            },
            // Cancel-safe: a tick that is not taken comes again.
            _ = flush.tick() => outputs.flush().await,
        }
    };
    (end, outputs.finish().await)
}
