//! What may happen at any moment, and what must be true then.

use stateright::{Model, Property};

use super::{
    At, Disk, END_STAYS, EXECS, End, Exec, GateAction, GateProtocol, GateWorld, Phase, RECORD_COUNTS, Row, STARTS_ONCE,
    TRUE_CODE, TRUE_EXIT_CODE,
};

impl Model for GateProtocol {
    type State = GateWorld;
    type Action = GateAction;

    fn init_states(&self) -> Vec<GateWorld> {
        vec![GateWorld {
            row: None,
            execs: [Exec::Unmade; EXECS],
            disk: Disk::Open,
            supervisor_lives: false,
            program_lives: false,
            exited: false,
            container_runs: true,
            restarted: false,
            daemons: vec![Phase::Idle; self.daemons],
            starts: 0,
            store_lost: false,
            ended: None,
        }]
    }

    fn actions(&self, world: &GateWorld, actions: &mut Vec<GateAction>) {
        for (daemon, phase) in world.daemons.iter().enumerate() {
            match phase {
                Phase::Dead => actions.push(GateAction::Boot(daemon)),
                Phase::Start(_) => {
                    let all = [GateAction::Step, GateAction::LoseAnswer, GateAction::LateRequest, GateAction::Kill];
                    actions.extend(all.map(|action| action(daemon)));
                }
                Phase::Listen => {
                    actions.extend([GateAction::Step, GateAction::LoseStream, GateAction::Kill].map(|it| it(daemon)));
                }
                _ => actions.extend([GateAction::Step(daemon), GateAction::Kill(daemon)]),
            }
        }
        for (exec, state) in world.execs.iter().enumerate() {
            if matches!(state, Exec::Created { stray: true } | Exec::Forgotten { stray: true }) {
                actions.push(GateAction::Stray(exec));
            }
        }
        if world.program_lives {
            actions.push(GateAction::ProgramEnds);
        }
        if world.supervisor_lives {
            actions.push(GateAction::SupervisorDies);
        }
        actions.extend([GateAction::StopOrStart, GateAction::EngineRestarts, GateAction::PowerLoss]);
        if !world.store_lost && world.daemons.iter().all(|phase| *phase == Phase::Dead) {
            actions.push(GateAction::StoreLost);
        }
    }

    fn next_state(&self, world: &GateWorld, action: GateAction) -> Option<GateWorld> {
        let mut next = world.clone();
        match action {
            GateAction::Step(daemon) => next.step(daemon, self.mutant),
            GateAction::LoseAnswer(daemon) => {
                if let Phase::Start(exec) = next.daemons[daemon] {
                    next.carry_out(exec, self.mutant);
                    next.daemons[daemon] = Phase::Examine;
                }
            }
            GateAction::LateRequest(daemon) => {
                if let Phase::Start(exec) = next.daemons[daemon] {
                    if let Exec::Created { stray } = &mut next.execs[exec] {
                        *stray = true;
                    }
                    next.daemons[daemon] = Phase::Examine;
                }
            }
            GateAction::Stray(exec) => {
                next.carry_out(exec, self.mutant);
            }
            GateAction::LoseStream(daemon) => next.daemons[daemon] = Phase::Examine,
            GateAction::Kill(daemon) => next.kill(daemon),
            GateAction::Boot(daemon) => next.daemons[daemon] = Phase::Idle,
            GateAction::ProgramEnds => {
                next.program_lives = false;
                next.exited = true;
                if next.supervisor_lives {
                    next.supervisor_lives = false;
                    next.disk = Disk::Recorded;
                }
                for exec in next.execs.iter_mut().filter(|exec| **exec == Exec::Runs) {
                    *exec = Exec::Over;
                }
            }
            GateAction::SupervisorDies => next.supervisor_lives = false,
            GateAction::StopOrStart if next.container_runs => next.container_stops(),
            GateAction::StopOrStart => {
                next.container_runs = true;
                next.restarted = next.disk != Disk::Open;
            }
            GateAction::EngineRestarts => {
                for exec in &mut next.execs {
                    *exec = match *exec {
                        Exec::Unmade => Exec::Unmade,
                        Exec::Created { stray } | Exec::Forgotten { stray } => Exec::Forgotten { stray },
                        Exec::Runs | Exec::Over => Exec::Forgotten { stray: false },
                    };
                }
            }
            GateAction::PowerLoss => {
                for daemon in 0..next.daemons.len() {
                    next.kill(daemon);
                }
                next.container_stops();
                if next.disk == (Disk::Claimed { synced: false }) {
                    next.disk = Disk::Open;
                }
            }
            GateAction::StoreLost => {
                (next.row, next.ended, next.store_lost) = (None, None, true);
            }
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(STARTS_ONCE, |_, world: &GateWorld| world.starts <= 1),
            Property::always(TRUE_EXIT_CODE, |_, world: &GateWorld| match world.row.map(|row| row.at) {
                Some(At::Ended(End::Finished(code))) => code == TRUE_CODE && world.exited,
                _ => true,
            }),
            Property::always(RECORD_COUNTS, |_, world: &GateWorld| {
                let ended =
                    matches!(world.row.map(|row| row.at), Some(At::Ended(end)) if end != End::Finished(TRUE_CODE));
                !(ended && world.disk == Disk::Recorded)
            }),
            Property::always(END_STAYS, |_, world: &GateWorld| match (world.ended, world.row) {
                (Some(end), Some(row)) => row.at == At::Ended(end),
                (Some(_), None) => false,
                (None, _) => true,
            }),
            Property::sometimes("a program ends and its outcome is stored", |_, world: &GateWorld| {
                matches!(world.ended, Some(End::Finished(_)))
            }),
            Property::sometimes("what a lost store knew is taken back", |_, world: &GateWorld| {
                world.store_lost && world.starts == 1 && matches!(world.ended, Some(End::Finished(_)))
            }),
            Property::sometimes("a run is interrupted", |_, world: &GateWorld| world.ended == Some(End::Interrupted)),
            Property::sometimes("a second exec finds the gate closed", |_, world: &GateWorld| {
                world.starts == 1 && matches!(world.row, Some(Row { at: At::Running(exec), .. }) if exec > 0)
            }),
        ]
    }
}
