//! Stays with a supervised run until its end is in the store.
//!
//! ```text
//!  Start ──▶ its frames ──▶ its end ──▶ stored, and the supervisor told so
//!    │           │
//!    └───────────┴─ the stream broke, somebody else has the gate, a daemon is gone
//!                ▼
//!  Examine: the container's disk, its life, the exec ──▶ Start · Follow ──▶ its frames … · over
//! ```
//!
//! The container's disk is the witness, the stream only the fast way: whatever happens to this process or to the engine,
//! the next look finds there what became of the program.

mod evidence;
mod fetch;

use std::time::Duration;

use jiff::Timestamp;
use oncelet_core::{Finding, Life, Outcome, RunEvent, RunRecord, RunState, abandoned};
use oncelet_engine::supervise::{Exit, Record, StdinSource, SupervisedEnd, SupervisedEvent, SupervisedRun};
use oncelet_engine::{ContainerId, Error as EngineError, ExecId, OutputStream};
use oncelet_faults::gives_up;
use oncelet_store::{Store, Stream};
use tokio::time::Instant;

use super::output::{FLUSH, Outputs};
use super::{GRACE, LOOK, Run, finish, record};
use crate::context::{Ctx, one_line};
use crate::lives;
use evidence::{Seen, described, witnessed};
pub(crate) use evidence::{container_of, exec_id, look};
use fetch::{Fetched, MUCH, SOME};

/// How long before something is looked at again that settles within moments.
const SHORTLY: Duration = Duration::from_millis(100);
/// How long before the objects of a run are told that its program has started: most that end sooner show only their end,
/// and have cost one look less.
const TELLING: Duration = Duration::from_millis(50);

/// What to do about the run next.
pub(crate) enum Step {
    /// Start its exec, and give the program these bytes.
    Start(ExecId, Option<StdinSource>),
    /// Find out what became of it.
    Examine,
    /// Listen to its supervisor.
    Follow,
}

/// Looks after `run` from `step` on.
///
/// # Flow
/// See the module.
///
/// # Guarantees
/// It may be dropped or killed at any point: the next look goes on from the store and the container's disk.
pub(crate) async fn watch(ctx: Ctx, store: Store, run: Run, record: RunRecord, step: Step) {
    let container = match container_of(&record) {
        Ok(container) => container,
        Err(error) => return tracing::error!(run = %record.id, "{}", one_line(&error)),
    };
    let life = ctx.lives.of(&ctx.engine, &container, None);
    let outputs = Outputs::open(&store, &run, ctx.now).await;
    let watch = Watch {
        digest: record.key.digest(),
        ctx,
        store,
        run,
        record,
        container,
        life,
        outputs,
        acknowledged: 0,
        pause: SHORTLY,
    };
    Box::pin(watch.run(step)).await;
}

struct Watch {
    ctx: Ctx,
    store: Store,
    run: Run,
    /// The run as the store has it.
    record: RunRecord,
    container: ContainerId,
    /// The life of the container in which it goes on.
    life: lives::Life,
    digest: String,
    outputs: Outputs,
    /// How many bytes of output were made safe.
    acknowledged: u64,
    /// How long before the next look, where nothing tells when to look.
    pause: Duration,
}

/// What a step came to.
enum Came {
    /// To another step.
    Next(Step),
    /// To an end that somebody saw.
    Saw(Box<Exit>, Option<SupervisedRun>),
    /// To an end that nobody saw.
    Unseen { started_at: Option<Timestamp>, finished_at: Option<Timestamp>, outcome: Outcome },
    /// To nothing: the program was not started, and the claim goes away.
    NotStarted,
    /// The run is no longer ours.
    Lost,
}

impl Watch {
    async fn run(mut self, mut step: Step) {
        loop {
            let came = match step {
                Step::Start(exec_id, stdin) => {
                    match self.ctx.engine.start_supervised(&self.container, &exec_id, stdin).await {
                        Ok(_) if gives_up("start-asked") => return,
                        Ok(stream) => self.listen(stream, true).await,
                        Err(error) => self.look_after(&error).await,
                    }
                }
                Step::Follow => {
                    let (from, limit) = (self.outputs.offsets(), self.run.log_limit);
                    match self
                        .ctx
                        .engine
                        .follow_supervised(&self.container, &self.digest, self.user(), from, limit)
                        .await
                    {
                        Ok(stream) => {
                            tracing::info!(run = %self.record.id, key = %self.record.key, "listening to its supervisor again");
                            self.listen(stream, false).await
                        }
                        Err(error) => self.look_after(&error).await,
                    }
                }
                Step::Examine => match look(&self.ctx, &self.record).await {
                    Ok(seen) => self.judge(seen).await,
                    Err(error) => self.look_after(&error).await,
                },
            };
            step = match came {
                Came::Next(step) => step,
                Came::Saw(exit, stream) => return Box::pin(self.complete(&exit, stream)).await,
                Came::Unseen { started_at, finished_at, outcome } => {
                    return Box::pin(self.end_unseen(started_at, finished_at, outcome)).await;
                }
                Came::NotStarted => return self.give_back().await,
                Came::Lost => return,
            };
        }
    }

    /// Asks for a look at the run's objects.
    fn wake(&self) {
        self.ctx.wake(&self.record.key.name);
    }

    /// When the program was started or, where that is not known yet, claimed.
    fn begun_at(&self) -> Timestamp {
        match self.record.state {
            RunState::Running { started_at, .. } => started_at,
            _ => self.record.claimed_at,
        }
    }

    fn user(&self) -> Option<&str> {
        self.record.program.user.as_deref()
    }

    /// Something did not work that leaves the run as it is: look at it again after a while.
    async fn look_after(&mut self, error: &EngineError) -> Came {
        tracing::warn!(run = %self.record.id, "the run is looked at again: {}", one_line(error));
        self.look_again().await
    }

    /// Looks again after a while, which grows as long as nothing comes of it: most things settle within moments, but a
    /// container may stay paused for days.
    async fn look_again(&mut self) -> Came {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LOOK);
        Came::Next(Step::Examine)
    }

    /// Takes what the supervisor says, to its end. `starts` tells whether it was to start the program, or to tell of it.
    async fn listen(&mut self, mut stream: SupervisedRun, starts: bool) -> Came {
        let mut flush = tokio::time::interval(FLUSH);
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // When the start is told of, while it is not.
        let mut telling = None;
        // Until when the stream may go on, once the container's life is over.
        let mut deadline = None;
        let end = loop {
            tokio::select! {
                // Cancel-safe: `next` keeps a half-read event in `stream`.
                event = stream.next() => match event {
                    Some(SupervisedEvent::Started { at }) => {
                        self.pause = SHORTLY;
                        if gives_up("started") || !self.started(at).await || gives_up("start-recorded") {
                            return Came::Lost;
                        }
                        telling = Some(Instant::now() + TELLING);
                    }
                    Some(SupervisedEvent::Output { stream: output, offset, bytes }) => {
                        if gives_up("output") {
                            return Came::Lost;
                        }
                        self.outputs.get_mut(stored(output)).write_at(offset, bytes).await;
                        self.acknowledge(&stream, MUCH).await;
                    }
                    Some(SupervisedEvent::Ended(end)) => break end,
                    None => return Came::Next(Step::Examine),
                },
                // Cancel-safe: a tick that is not taken comes again.
                _ = flush.tick() => {
                    self.outputs.flush().await;
                    self.acknowledge(&stream, SOME).await;
                }
                // Cancel-safe: the moment stays the same.
                () = tokio::time::sleep_until(telling.unwrap_or_else(Instant::now)), if telling.is_some() => {
                    telling = None;
                    self.wake();
                }
                // Cancel-safe. The stream may stay open although the container has ended.
                () = self.life.may_be_over(), if deadline.is_none() => {
                    if self.life.end(Some(self.begun_at())).await.is_some() {
                        deadline = Some(Instant::now() + GRACE);
                    }
                }
                // Cancel-safe: the moment stays the same.
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    break SupervisedEnd::Lost { message: "the container has ended, and the stream has not".to_owned() };
                }
            }
        };
        self.outputs.flush().await;
        if telling.is_some() && !matches!(end, SupervisedEnd::Exited(_)) {
            self.wake();
        }
        match end {
            SupervisedEnd::Exited(exit) => Came::Saw(Box::new(exit), Some(stream)),
            SupervisedEnd::FailedToStart { reason, message } if starts => {
                let outcome = Outcome::FailedToStart { reason: format!("{reason:?}"), message };
                Came::Unseen { started_at: None, finished_at: None, outcome }
            }
            // Nothing was started, and the gate is open: the look finds that, and the input is sent again.
            SupervisedEnd::StdinIncomplete { message } => {
                tracing::warn!(run = %self.record.id, "the program's stdin is sent again: {message}");
                self.pause = LOOK;
                self.look_again().await
            }
            SupervisedEnd::Unusable { message } if starts => {
                let outcome = Outcome::FailedToStart { reason: "NotSupervisable".to_owned(), message };
                Came::Unseen { started_at: None, finished_at: None, outcome }
            }
            // Somebody else has the gate: an earlier exec of this run or, where the store was lost, the run that it remembered.
            SupervisedEnd::Refused => Came::Next(Step::Examine),
            SupervisedEnd::Abandoned { message } => match look(&self.ctx, &self.record).await {
                Ok(seen) => {
                    let finding = abandoned(&seen.gate, &seen.life, &message);
                    self.judge(Seen { finding, ..seen }).await
                }
                Err(error) => self.look_after(&error).await,
            },
            SupervisedEnd::NoClaim => self.look_again().await,
            SupervisedEnd::Lost { message } => {
                tracing::warn!(run = %self.record.id, "the supervisor's stream is lost: {message}");
                Came::Next(Step::Examine)
            }
            // It was asked to tell of a run and could not: that says nothing of the run.
            SupervisedEnd::FailedToStart { message, .. } | SupervisedEnd::Unusable { message } => {
                tracing::warn!(run = %self.record.id, "the supervisor cannot tell of the run: {message}");
                self.look_again().await
            }
        }
    }

    async fn judge(&mut self, seen: Seen) -> Came {
        if !self.take_back(seen.record.as_ref()).await {
            return Came::Lost;
        }
        match seen.finding {
            Finding::Release => Came::NotStarted,
            Finding::StartExec => {
                // A program that reads from stdin is launched afresh instead.
                exec_id(&self.record.state).map_or(Came::NotStarted, |id| Came::Next(Step::Start(id, None)))
            }
            Finding::Withdraw if self.advance(RunEvent::Withdrawn).await => Came::NotStarted,
            Finding::Withdraw => Came::Lost,
            Finding::LookAgain => self.look_again().await,
            Finding::Follow => {
                if let Life::Runs { since: Some(since) } = seen.life {
                    self.life.began(since);
                }
                Came::Next(Step::Follow)
            }
            Finding::Witnessed(_) => match seen.record.and_then(|record| record.exit) {
                Some(exit) => Came::Saw(Box::new(exit), None),
                None => Came::Next(Step::Examine),
            },
            Finding::Ended { started_at, finished_at, outcome } => Came::Unseen { started_at, finished_at, outcome },
        }
    }

    /// Where the container holds a run that the store has lost, the store gets back what it had. False where the run is no
    /// longer ours.
    async fn take_back(&mut self, found: Option<&Record>) -> bool {
        if !matches!(self.record.state, RunState::Starting { .. }) {
            return true;
        }
        let description = found.and_then(|record| record.claim.as_ref()).and_then(described);
        let other = description.filter(|it| it.key == self.record.key && !it.is_of(&self.record));
        let Some(mut description) = other else { return true };
        description.log_limit = description.log_limit_within(self.run.log_limit);
        tracing::warn!(
            run = %self.record.id,
            "the container remembers a run that the store does not: its record is taken, and nothing is started"
        );
        match record("record", || self.store.adopt(&self.run.lease, &description)).await {
            Some(record) => {
                self.run.log_limit = record.log_limit;
                self.outputs = Outputs::open(&self.store, &self.run, self.ctx.now).await;
                self.record = record;
                self.wake();
                true
            }
            None => false,
        }
    }

    /// Stores the start, where it is not stored yet. False where the run is no longer ours.
    async fn started(&mut self, at: Timestamp) -> bool {
        match self.record.state {
            RunState::Starting { .. } => self.advance(RunEvent::Started { at }).await,
            _ => true,
        }
    }

    async fn advance(&mut self, event: RunEvent) -> bool {
        match record("state", || self.store.advance(&self.run.lease, event.clone())).await {
            Some(record) => {
                self.record = record;
                true
            }
            None => false,
        }
    }

    /// Stores an end that the supervisor saw, with all the output, and lets it remove the output.
    async fn complete(mut self, exit: &Exit, stream: Option<SupervisedRun>) {
        let witnessed = witnessed(exit);
        if gives_up("ended") || !self.started(witnessed.started_at).await {
            return;
        }
        let fetched = self.fetch_output([exit.stdout.kept, exit.stderr.kept]).await;
        self.outputs.get_mut(Stream::Stdout).close(&exit.stdout);
        self.outputs.get_mut(Stream::Stderr).close(&exit.stderr);
        let logs = self.outputs.finish().await;
        if gives_up("logs-written") {
            return;
        }
        let stored =
            finish(&self.ctx, &self.store, &self.run, witnessed.finished_at, witnessed.outcome(), logs).await.is_some();
        // Output that the store could not take stays in the container.
        if gives_up("finished") || !(stored && fetched == Fetched::All) {
            return;
        }
        if let Some(stream) = stream {
            return stream.stored();
        }
        let user = self.record.program.user.as_deref();
        if let Err(error) = self.ctx.engine.clean_output(&self.container, &[self.digest], user).await {
            tracing::debug!(run = %self.record.id, "the output stays in the container: {}", one_line(&error));
        }
    }

    /// Stores an end that nobody saw, with the output that there is.
    async fn end_unseen(mut self, started_at: Option<Timestamp>, finished_at: Option<Timestamp>, outcome: Outcome) {
        if let Some(at) = started_at
            && !self.started(at).await
        {
            return;
        }
        if !matches!(outcome, Outcome::FailedToStart { .. }) {
            self.fetch_output([u64::MAX; 2]).await;
        }
        let finished_at = match outcome {
            Outcome::Interrupted { .. } => self.life.ended_at(self.begun_at(), finished_at).await,
            _ => finished_at,
        };
        let at = finished_at.unwrap_or_else(|| (self.ctx.now)());
        let logs = self.outputs.finish().await;
        finish(&self.ctx, &self.store, &self.run, at, outcome, logs).await;
    }

    async fn give_back(self) {
        if let Err(error) = self.store.release(self.run.lease).await {
            // The claim stays and is recovered: nothing was started under it.
            tracing::warn!(run = %self.record.id, "a claim could not be given back: {}", one_line(&error));
        }
        self.ctx.wake(&self.record.key.name);
    }
}

fn stored(stream: OutputStream) -> Stream {
    match stream {
        OutputStream::Stdout => Stream::Stdout,
        OutputStream::Stderr => Stream::Stderr,
    }
}
