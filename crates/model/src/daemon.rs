//! What a daemon does next: the steps of `oncelet-controller`.

use oncelet_core::{ExecHint, Ownership, RunEvent};

use crate::code::{self, Plan};
use crate::store::Moved;
use crate::world::{At, DaemonNo, Earlier, End, Exec, ExecNo, Phase, Program, Queued, Seen, Stream, Todo, World};
use crate::{Mutant, Protocol};

impl Protocol {
    /// Makes the next step of daemon `me`, which its phase names. False where it does nothing.
    pub(crate) fn step(&self, world: &mut World, me: DaemonNo) -> bool {
        let synced = self.synced();
        let next = match world.daemons[me].phase {
            Phase::Idle => return self.look(world, me, false),
            Phase::Claim => {
                world.flush(&self.code, me, synced);
                if world.claim(&self.code, me, synced) {
                    world.acknowledged = true;
                    Phase::CreateExec
                } else {
                    Phase::Idle
                }
            }
            Phase::CreateExec => {
                let Some(exec) = world.free_exec() else { return false };
                world.set_exec(exec, Exec::Created { stray: false });
                if self.starts_before_recording() {
                    Phase::Start { exec, earlier: Earlier::None }
                } else {
                    Phase::RecordExec { exec }
                }
            }
            Phase::RecordExec { exec } => {
                self.advance_to(world, me, code::exec_created(exec), Phase::Start { exec, earlier: Earlier::None })
            }
            // `start_exec` looks before it asks.
            Phase::Start { exec, earlier } if matches!(world.exec(exec), Exec::Created { .. }) => {
                Phase::AwaitAnswer { exec, earlier }
            }
            Phase::Start { exec, earlier } => Phase::AskAfterStart { exec, earlier, refused: false },
            Phase::RecordStart { exec, earlier, stream } => {
                let follow = Phase::Follow { exec, earlier, stream };
                self.record_late(world, me, exec);
                self.advance_to(world, me, code::started(), follow)
            }
            Phase::RecordEnd { end } => self.advance_to(world, me, code::ended(end), Phase::Idle),
            Phase::CheckSeen { seen, todo } => {
                let expired = self.leases_expire();
                if world.is_as_seen(seen, me, expired) {
                    Phase::TakeOver { seen, todo, fresh: true }
                } else {
                    Phase::Idle
                }
            }
            Phase::TakeOver { seen, todo, .. } => {
                world.flush(&self.code, me, synced);
                // As it is now: the flushed change may have been an acquisition.
                let fresh = matches!(world.daemons[me].phase, Phase::TakeOver { fresh: true, .. });
                if world.take_over(me, fresh, synced) { self.carry_out(world, seen, todo) } else { Phase::Idle }
            }
            Phase::Release => {
                world.flush(&self.code, me, synced);
                world.give_back(me, synced);
                Phase::Idle
            }
            Phase::Dead
            | Phase::AwaitAnswer { .. }
            | Phase::AskAfterStart { .. }
            | Phase::Follow { .. }
            | Phase::AwaitEnd { .. }
            | Phase::Examine { .. } => return false,
        };
        world.daemons[me].phase = next;
        true
    }

    /// Looks at the object, and decides. `expired`: the clock says that another owner's lease is over.
    pub(crate) fn look(&self, world: &mut World, me: DaemonNo, expired: bool) -> bool {
        let found = world.row.map(|row| {
            let ownership = match World::ownership(&row, me) {
                Ownership::Other if expired => Ownership::Gone,
                ownership => ownership,
            };
            (row, ownership)
        });
        let phase = &mut world.daemons[me].phase;
        match (self.code.decide(found), found) {
            (Plan::Launch, Some((row, _))) if row.attempt >= self.tries => return false,
            (Plan::Launch, _) if self.mutant == Some(Mutant::StartBeforeClaim) => *phase = Phase::CreateExec,
            (Plan::Launch, _) => *phase = Phase::Claim,
            (Plan::Recover, Some((row, _))) => {
                *phase = Phase::Examine { seen: Seen { at: row.at, attempt: row.attempt } };
            }
            (Plan::Recover | Plan::Look, _) => return false,
        }
        true
    }

    /// The engine says `hint` to daemon `me`, which waits to be told. False where that leads nowhere.
    pub(crate) fn hear(&self, world: &mut World, me: DaemonNo, hint: Option<ExecHint>) -> bool {
        let phase = match world.daemons[me].phase {
            Phase::Examine { seen } => Phase::CheckSeen { seen, todo: self.verdict(seen.at, hint) },
            Phase::AskAfterStart { exec, earlier, refused } if hint == Some(ExecHint::NeverStarted) => {
                if refused && self.trusts_refusal(earlier) {
                    Phase::RecordEnd { end: End::FailedToStart }
                } else {
                    let earlier = if earlier == Earlier::None && !refused { Earlier::Ours } else { earlier };
                    Phase::Start { exec, earlier }
                }
            }
            Phase::AskAfterStart { exec, .. } => Phase::AwaitEnd { exec },
            Phase::AwaitEnd { exec } => match self.verdict(At::Running(exec), hint) {
                Todo::End(end) => Phase::RecordEnd { end },
                Todo::Release | Todo::StartExec | Todo::StillRunning => return false,
            },
            _ => return false,
        };
        world.daemons[me].phase = phase;
        true
    }

    /// The stream that daemon `me` follows comes to its end. False where it does not.
    pub(crate) fn see_end(&self, world: &mut World, me: DaemonNo) -> bool {
        let Phase::Follow { exec, earlier, stream } = world.daemons[me].phase else { return false };
        let end = match (stream, world.exec(exec), world.program) {
            (Stream::Failure, ..) => End::FailedToStart,
            (Stream::Refusal, ..) if self.trusts_refusal(earlier) => End::FailedToStart,
            (Stream::Program, Exec::Started, Program::Exited(code)) => End::Finished(code),
            (Stream::Program, _, Program::Killed) => End::Interrupted,
            (Stream::Program | Stream::Refusal, ..) => return false,
        };
        world.daemons[me].phase = Phase::RecordEnd { end };
        true
    }

    /// The step of daemon `me` fails. `made`: it was committed all the same, and reported a failure.
    pub(crate) fn fail(&self, world: &mut World, me: DaemonNo, made: bool) -> bool {
        let phase = world.daemons[me].phase;
        let next = match phase {
            // Gives the claim back, which is refused where an exec was recorded.
            Phase::CreateExec if !made => Phase::Release,
            Phase::RecordExec { .. } => Phase::Release,
            Phase::Claim | Phase::TakeOver { .. } | Phase::Release => Phase::Idle,
            _ => return false,
        };
        if made {
            world.flush(&self.code, me, self.synced());
            world.daemons[me].queued = Self::change(world.daemons[me].phase);
            world.flush(&self.code, me, self.synced());
        }
        world.daemons[me].phase = next;
        true
    }

    /// The reconcile of daemon `me` is dropped. `queued`: its change is on its way to the writer. Tasks that follow a
    /// program are never dropped.
    pub(crate) fn drop_task(world: &mut World, me: DaemonNo, queued: bool) -> bool {
        let daemon = &mut world.daemons[me];
        match daemon.phase {
            Phase::Claim | Phase::RecordExec { .. } | Phase::TakeOver { .. } | Phase::Release => {}
            Phase::CreateExec | Phase::Examine { .. } | Phase::CheckSeen { .. } if !queued => {}
            _ => return false,
        }
        if queued {
            // One at a time is enough: the writer makes them in order.
            if daemon.queued.is_some() {
                return false;
            }
            daemon.queued = Self::change(daemon.phase);
        }
        daemon.phase = Phase::Idle;
        true
    }

    /// The change of the store that a reconcile in this phase waits for.
    fn change(phase: Phase) -> Option<Queued> {
        match phase {
            Phase::Claim => Some(Queued::Claim),
            Phase::RecordExec { exec } => Some(Queued::ExecCreated(exec)),
            Phase::TakeOver { fresh, .. } => Some(Queued::TakeOver { fresh }),
            Phase::Release => Some(Queued::Release),
            _ => None,
        }
    }

    /// `recover::carry_out`, behind the take-over.
    fn carry_out(&self, world: &mut World, seen: Seen, todo: Todo) -> Phase {
        match (todo, seen.at.exec()) {
            (Todo::Release, _) => Phase::Release,
            (Todo::StartExec, Some(exec)) => {
                if self.mutant == Some(Mutant::NewExecInRecovery)
                    && let Some(new) = world.free_exec()
                {
                    world.set_exec(new, Exec::Created { stray: false });
                    return Phase::Start { exec: new, earlier: Earlier::None };
                }
                Phase::Start { exec, earlier: Earlier::Theirs }
            }
            (Todo::StillRunning, Some(exec)) => Phase::AwaitEnd { exec },
            (Todo::End(end), _) => Phase::RecordEnd { end },
            (Todo::StartExec | Todo::StillRunning, None) => Phase::Idle,
        }
    }

    fn advance_to(&self, world: &mut World, me: DaemonNo, event: RunEvent, next: Phase) -> Phase {
        world.flush(&self.code, me, self.synced());
        match world.advance(me, event, self.synced()) {
            Moved::Done => next,
            Moved::Lost if self.mutant == Some(Mutant::ClockLeaseUnfenced) => next,
            Moved::Lost => Phase::Idle,
            Moved::Illegal => {
                world.illegal = true;
                Phase::Idle
            }
        }
    }

    /// What the mutants that start too early catch up on before they record the start.
    fn record_late(&self, world: &mut World, me: DaemonNo, exec: ExecNo) {
        if self.mutant == Some(Mutant::StartBeforeClaim) {
            world.acknowledged |= world.claim(&self.code, me, true);
        }
        if self.starts_before_recording() {
            world.advance(me, code::exec_created(exec), true);
        }
    }

    pub(crate) fn leases_expire(&self) -> bool {
        matches!(self.mutant, Some(Mutant::ClockLease | Mutant::ClockLeaseUnfenced))
    }

    fn starts_before_recording(&self) -> bool {
        matches!(self.mutant, Some(Mutant::StartBeforeClaim | Mutant::StartBeforeExecRecorded))
    }

    /// Whether "the engine refused, and the exec is as before" proves that nothing will start under this exec: only
    /// where no earlier request for it may still be under way.
    fn trusts_refusal(&self, earlier: Earlier) -> bool {
        earlier == Earlier::None || self.mutant == Some(Mutant::RefusalSettlesEarlierRequests)
    }

    fn verdict(&self, at: At, hint: Option<ExecHint>) -> Todo {
        match (code::verdict(at, hint), hint) {
            (Todo::End(End::Unknown), Some(ExecHint::Exited(code)))
                if self.mutant == Some(Mutant::BelievedExitCode) && matches!(at, At::Running(_)) =>
            {
                Todo::End(End::Finished(code.try_into().unwrap_or(u8::MAX)))
            }
            (todo, _) => todo,
        }
    }

    pub(crate) fn synced(&self) -> bool {
        self.mutant != Some(Mutant::SyncNormal)
    }
}
