//! Starts one attached exec and stays with it until its end is in the store.
//!
//! The engine's stream is the only witness: when it breaks, how the program ended cannot be known.

use std::time::Duration;

use jiff::Timestamp;
use oncelet_core::{EndedBy, ExecHint, Outcome, RunEvent, RunState, Verdict, judge};
use oncelet_engine::{ContainerId, ErrorKind, ExecEnd, ExecEvent, ExecId, ExecState, OutputStream, RunningExec};
use oncelet_store::{Logs, Store, Stream};
use tokio::time::Instant;

use super::output::{FLUSH, Outputs};
use super::{GRACE, LOOK, Run, finish, hint, record};
use crate::context::{Ctx, one_line};
use crate::lives::{End, Life};

/// Starts `exec_id`, follows it and records its end. `asked_before` tells whether a start of it was asked for before, by a
/// daemon that is gone, and may still be under way.
///
/// # Assumptions
/// The exec ID is in the store. The engine starts an exec at most once, so this may run again after a crash.
pub(crate) async fn start(
    ctx: Ctx,
    store: Store,
    run: Run,
    container: ContainerId,
    exec_id: ExecId,
    mut asked_before: bool,
) {
    let mut life = ctx.lives.of(&ctx.engine, &container, None);
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
            _ => return await_end(ctx, store, run, life, exec_id, why, Logs::default()).await,
        }
    };
    if let Some(at) = running.container_started_at() {
        life.began(at);
    }
    let started_at = (ctx.now)();
    let started = RunEvent::Started { at: started_at };
    let Some(record) = record("start", || store.advance(&run.lease, started.clone())).await else { return };
    ctx.wake(&record.key.name);
    let (end, logs) = drain(&store, &run, ctx.now, running, &mut life).await;
    let outcome = match end {
        ExecEnd::Exited { exit_code } => Outcome::Finished { exit_code },
        // After an earlier request, a failed start may be that of an exec which the earlier one still starts.
        ExecEnd::FailedToStart { reason, message } if !asked_before => {
            Outcome::FailedToStart { reason: format!("{reason:?}"), message }
        }
        ExecEnd::Interrupted { exit_code, message } => {
            Outcome::Interrupted { by: EndedBy::Container, message, exit_code }
        }
        ExecEnd::FailedToStart { message, .. } | ExecEnd::Lost { message, .. } => {
            return await_end(ctx, store, run, life, exec_id, message, logs).await;
        }
    };
    let mut at = (ctx.now)();
    if let Outcome::Interrupted { .. } = outcome {
        let end = life.end(None).await;
        at = life.ended_at(started_at, end.and_then(|end| end.at)).await.unwrap_or(at);
    }
    finish(&ctx, &store, &run, at, outcome, logs).await;
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

/// Waits until a program that nobody listens to is over, and records that its outcome is not known, or that the container's life
/// ended under it.
pub(crate) async fn await_end(
    ctx: Ctx,
    store: Store,
    run: Run,
    mut life: Life,
    exec_id: ExecId,
    why: String,
    logs: Logs,
) {
    let begun = (ctx.now)();
    let state = RunState::Running { exec_id: exec_id.to_string(), started_at: begun };
    let mut was_running = false;
    loop {
        let hint = hint(inspect(&ctx, &exec_id).await);
        was_running |= hint == ExecHint::Running;
        let verdict = judge(&state, Some(hint));
        let is_over = matches!(verdict, Verdict::Ended(_));
        if was_running && let Some(end) = end_of_life(&mut life, is_over).await {
            let at = life.ended_at(begun, end.at).await.unwrap_or_else(|| (ctx.now)());
            let message = format!("{why}: {}", while_it_ran(&end));
            let outcome = Outcome::Interrupted { by: EndedBy::Container, message, exit_code: None };
            finish(&ctx, &store, &run, at, outcome, logs).await;
            return;
        }
        if let Verdict::Ended(outcome) = verdict {
            finish(&ctx, &store, &run, (ctx.now)(), because(&why, outcome), logs).await;
            return;
        }
        // Cancel-safe, both.
        tokio::select! {
            () = life.may_be_over() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// How the container's life has ended, if it has. Docker tells the end of a container's programs up to half a second before its
/// own: after such an end it is given time.
async fn end_of_life(life: &mut Life, is_over: bool) -> Option<End> {
    let waits: &[u64] = if is_over { &[0, 100, 200, 400, 400] } else { &[0] };
    for wait in waits {
        tokio::time::sleep(Duration::from_millis(*wait)).await;
        if let Some(end) = life.end(None).await {
            return Some(end);
        }
    }
    None
}

fn while_it_ran(end: &End) -> String {
    format!("the container {} while the program ran", end.what)
}

/// `outcome`, with what took away its witness.
pub(crate) fn because(why: &str, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Unknown { message } => Outcome::Unknown { message: format!("{why}: {message}") },
        outcome => outcome,
    }
}

/// Reads all output into the logs, until the end.
async fn drain(
    store: &Store,
    run: &Run,
    now: fn() -> Timestamp,
    mut running: RunningExec,
    life: &mut Life,
) -> (ExecEnd, Logs) {
    // Until when the stream may go on, once the container's life is over, and how that ended.
    let mut over: Option<(Instant, End)> = None;
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
            // Cancel-safe. The stream may stay open although the container has ended.
            () = life.may_be_over(), if over.is_none() => {
                over = life.end(None).await.map(|end| (Instant::now() + GRACE, end));
            }
            // Cancel-safe: the moment stays the same.
            () = tokio::time::sleep_until(deadline(over.as_ref())), if over.is_some() => {
                let message = over.as_ref().map(|(_, end)| while_it_ran(end)).unwrap_or_default();
                break ExecEnd::Interrupted { exit_code: None, message };
            }
        }
    };
    (end, outputs.finish().await)
}

fn deadline(over: Option<&(Instant, End)>) -> Instant {
    over.map_or_else(Instant::now, |(deadline, _)| *deadline)
}
