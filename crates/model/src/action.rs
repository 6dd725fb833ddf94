//! What may happen at any moment, each as one step.

use oncelet_core::ExecHint;
use stateright::Model;

use crate::Protocol;
use crate::engine::Answer;
use crate::properties;
use crate::world::{At, Code, DaemonNo, Disk, Exec, ExecNo, Phase, Program, World};

/// One step of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A daemon makes the step that its phase names.
    Step(DaemonNo),
    /// A daemon looks at the object while another owner's lease has run out by the clock.
    LookAfterExpiry(DaemonNo),
    /// The engine tells a daemon about an exec; `None` where the run has none.
    Hear(DaemonNo, Option<ExecHint>),
    /// A daemon sees the end of the stream that it follows.
    SeeEnd(DaemonNo),
    /// The connection over which a daemon follows breaks.
    LoseStream(DaemonNo),
    /// A start request reaches the engine; with `false` its answer gets lost.
    Answer(DaemonNo, Answer, bool),
    /// A daemon waits for the answer to its start request no longer.
    TimeOut(DaemonNo),
    /// A start request that nobody waits for reaches the engine.
    Stray(ExecNo, Answer),
    /// A step of a reconcile fails; with `true` its change was made all the same.
    Fail(DaemonNo, bool),
    /// A reconcile is dropped between two steps; with `true` its change is still on its way to the writer.
    Drop(DaemonNo, bool),
    /// That change is made.
    Flush(DaemonNo),
    /// A daemon is killed.
    Kill(DaemonNo),
    /// It is booted again.
    Boot(DaemonNo),
    /// All daemons are killed, and what is not synced is lost.
    PowerLoss,
    /// Commits that were not synced reach the disk.
    Sync,
    /// The program ends.
    ProgramEnds(Code),
    /// The container restarts: the program is killed, the execs are gone.
    ContainerRestarts,
    /// The engine restarts: the program goes on, the execs are gone.
    EngineRestarts,
}

impl World {
    /// `action` in words, with the phase of the daemon that makes it.
    pub fn describe(&self, action: Action) -> String {
        match action {
            Action::Step(me) | Action::Drop(me, _) | Action::Fail(me, _) => {
                format!("{action:?} {:?}", self.daemons[me].phase)
            }
            _ => format!("{action:?}"),
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.daemons)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for me in 0..self.daemons {
            self.daemon_actions(world, me, actions);
        }
        for exec in 0..world.execs.len() {
            if world.execs[exec] == (Exec::Created { stray: true }) {
                let exec = ExecNo::try_from(exec).unwrap_or(ExecNo::MAX);
                actions.extend([Action::Stray(exec, Answer::Start), Action::Stray(exec, Answer::Fail)]);
            }
        }
        if world.program == Program::Runs {
            actions.extend([Action::ProgramEnds(0), Action::ProgramEnds(1), Action::ContainerRestarts]);
        }
        if world.execs != [Exec::Gone; crate::world::MAX_EXECS] {
            actions.push(Action::EngineRestarts);
        }
        if world.disk != Disk::Synced {
            actions.extend([Action::PowerLoss, Action::Sync]);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        self.apply(&mut world, action).then(|| if self.sorted { world.tidy().sorted() } else { world.tidy() })
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        properties::all(self)
    }
}

impl Protocol {
    fn daemon_actions(&self, world: &World, me: DaemonNo, actions: &mut Vec<Action>) {
        let daemon = &world.daemons[me];
        if daemon.phase == Phase::Dead {
            actions.push(Action::Boot(me));
            return;
        }
        actions.push(Action::Kill(me));
        if daemon.queued.is_some() {
            actions.push(Action::Flush(me));
        }
        match daemon.phase {
            Phase::Dead => {}
            Phase::Idle => {
                actions.push(Action::Step(me));
                if self.leases_expire() {
                    actions.push(Action::LookAfterExpiry(me));
                }
            }
            Phase::Start { .. } | Phase::RecordStart { .. } | Phase::RecordEnd { .. } => actions.push(Action::Step(me)),
            Phase::Claim
            | Phase::CreateExec
            | Phase::RecordExec { .. }
            | Phase::CheckSeen { .. }
            | Phase::TakeOver { .. }
            | Phase::Release => {
                actions.push(Action::Step(me));
                let outcomes = [false, true];
                actions.extend(outcomes.map(|made| Action::Fail(me, made)));
                actions.extend(outcomes.map(|queued| Action::Drop(me, queued)));
            }
            Phase::AwaitAnswer { .. } => {
                use Answer::{Explain, Fail, Refuse, Start};
                let heard = [Start, Fail, Refuse, Explain].map(|answer| Action::Answer(me, answer, true));
                let unheard = [Start, Fail, Refuse].map(|answer| Action::Answer(me, answer, false));
                actions.extend(heard.into_iter().chain(unheard));
                actions.push(Action::TimeOut(me));
            }
            Phase::AskAfterStart { exec, .. } | Phase::AwaitEnd { exec } => {
                actions.extend(world.hints(exec).iter().map(|hint| Action::Hear(me, Some(*hint))));
            }
            Phase::Examine { seen } => {
                match seen.at.exec() {
                    Some(exec) => actions.extend(world.hints(exec).iter().map(|hint| Action::Hear(me, Some(*hint)))),
                    None => actions.push(Action::Hear(me, None)),
                }
                actions.push(Action::Drop(me, false));
            }
            Phase::Follow { .. } => actions.extend([Action::SeeEnd(me), Action::LoseStream(me)]),
        }
    }

    fn apply(&self, world: &mut World, action: Action) -> bool {
        match action {
            Action::Step(me) => return self.step(world, me),
            Action::LookAfterExpiry(me) => return self.look(world, me, true),
            Action::Hear(me, hint) => return self.hear(world, me, hint),
            Action::SeeEnd(me) => return self.see_end(world, me),
            Action::Fail(me, made) => return self.fail(world, me, made),
            Action::Drop(me, queued) => return Self::drop_task(world, me, queued),
            Action::LoseStream(me) => {
                let Phase::Follow { exec, .. } = world.daemons[me].phase else { return false };
                world.daemons[me].phase = Phase::AwaitEnd { exec };
            }
            Action::Answer(me, answer, heard) => world.answer(me, answer, heard),
            Action::TimeOut(me) => {
                let Phase::AwaitAnswer { exec, earlier } = world.daemons[me].phase else { return false };
                world.leave_request(me);
                world.daemons[me].phase = Phase::AskAfterStart { exec, earlier, refused: false };
            }
            Action::Stray(exec, answer) => world.answer_stray(exec, answer),
            Action::Flush(me) => world.flush(&self.code, me, self.synced()),
            Action::Kill(me) => Self::kill(world, me),
            Action::Boot(me) => world.daemons[me].phase = Phase::Idle,
            Action::PowerLoss => {
                for me in 0..self.daemons {
                    Self::kill(world, me);
                }
                if let Disk::Behind(row) = std::mem::replace(&mut world.disk, Disk::Synced) {
                    world.row = row;
                }
            }
            Action::Sync => world.disk = Disk::Synced,
            Action::ProgramEnds(code) => world.program_ends(code),
            Action::ContainerRestarts => world.container_restarts(),
            Action::EngineRestarts => world.engine_restarts(),
        }
        true
    }

    fn kill(world: &mut World, me: DaemonNo) {
        world.leave_request(me);
        world.disown(me);
        world.daemons[me].phase = Phase::Dead;
        world.daemons[me].queued = None;
    }

    /// What happens next in a world where nothing goes wrong any more; `None` where it has come to rest.
    pub(crate) fn in_peace(&self, world: &World) -> Option<World> {
        if let Some(exec) =
            (0..).take(world.execs.len()).find(|&exec| world.exec(exec) == Exec::Created { stray: true })
        {
            return self.next_state(world, Action::Stray(exec, Answer::Start));
        }
        if world.program == Program::Runs {
            return self.next_state(world, Action::ProgramEnds(0));
        }
        (0..self.daemons).find_map(|me| self.next_state(world, self.calm_action(world, me)))
    }

    fn calm_action(&self, world: &World, me: DaemonNo) -> Action {
        let truth = |exec| Action::Hear(me, world.hints(exec).first().copied());
        match world.daemons[me].phase {
            Phase::Dead => Action::Boot(me),
            Phase::AwaitAnswer { .. } => Action::Answer(me, Answer::Start, true),
            Phase::AskAfterStart { exec, .. } | Phase::AwaitEnd { exec } => truth(exec),
            Phase::Examine { seen } => seen.at.exec().map_or(Action::Hear(me, None), truth),
            Phase::Follow { .. } if self.next_state(world, Action::SeeEnd(me)).is_some() => Action::SeeEnd(me),
            Phase::Follow { .. } => Action::LoseStream(me),
            _ => Action::Step(me),
        }
    }

    /// Whether the run is over for good, as far as this model goes.
    pub(crate) fn is_over(&self, world: &World) -> bool {
        world.row.is_some_and(|row| match row.at {
            At::Ended(_) => !self.code.may_be_claimed_again(row) || row.attempt >= self.tries,
            _ => false,
        })
    }
}
