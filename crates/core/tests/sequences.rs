//! Random sequences of events against a world that keeps its own count of program starts.
//!
//! The executor here is as dull as the real one: it does what [`decide`] and [`judge`] say. The property is the
//! promise itself: a program starts at most once per run key, and an outcome once shown is shown again.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;

use jiff::Timestamp;
use oncelet_core::{
    Blocked, Capture, Decision, Effective, ExecHint, ExecSpec, Memory, Observed, OnChange, Outcome, Ownership, Program,
    Reason, Resolved, RunEvent, RunId, RunKey, RunName, RunPolicy, RunRecord, RunState, Scope, Verdict, decide, judge,
};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The daemon looks at the object.
    Reconcile,
    /// The daemon looks, and dies after so many of its steps.
    DieAfter(u8),
    /// The user deletes the object and creates it again.
    CreateAgain,
    Edit(u8),
    Rerun(u8),
    RecreateContainer,
    StopOrStartContainer,
    /// The program in the container ends.
    ProgramEnds(i64),
    StoreComesOrGoes,
    /// The engine forgets its execs, as dockerd does when it restarts.
    EngineForgets,
    ProgramGoesMissingOrComesBack,
    TimePasses(u16),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => Just(Event::Reconcile),
        3 => (0..6u8).prop_map(Event::DieAfter),
        2 => Just(Event::CreateAgain),
        1 => (0..3u8).prop_map(Event::Edit),
        1 => (0..3u8).prop_map(Event::Rerun),
        1 => Just(Event::RecreateContainer),
        1 => Just(Event::StopOrStartContainer),
        3 => (0..3i64).prop_map(Event::ProgramEnds),
        1 => Just(Event::StoreComesOrGoes),
        1 => Just(Event::EngineForgets),
        1 => Just(Event::ProgramGoesMissingOrComesBack),
        2 => (0..400u16).prop_map(Event::TimePasses),
    ];
    prop::collection::vec(event, 1..60)
}

/// An exec in the engine, and the truth about it.
#[derive(Clone, Copy, PartialEq)]
enum Exec {
    Created,
    Running,
    Exited(i64),
}

struct World {
    spec: ExecSpec,
    uids: u32,
    now: Timestamp,
    container: u32,
    container_runs: bool,
    program_exists: bool,
    store_up: bool,
    store: HashMap<RunKey, RunRecord>,
    /// The daemon that owns each open run; the present one is `daemon`.
    owners: HashMap<RunKey, u32>,
    daemon: u32,
    execs: HashMap<String, Exec>,
    next_exec: u32,
    /// The oracle: how often a program really started.
    starts: HashMap<RunKey, u32>,
    shown: HashMap<RunKey, RunState>,
    /// Steps until the daemon dies.
    fuse: Option<u8>,
}

/// The daemon died.
struct Died;

impl World {
    fn new(run_policy: RunPolicy, on_change: OnChange) -> Self {
        Self {
            spec: ExecSpec {
                uid: "uid-0".into(),
                name: RunName::of_object("default", "seed"),
                program: Program { command: "seed".into(), ..Program::default() },
                run_policy,
                on_change,
                scope: Scope::Container,
                rerun: None,
                retry: None,
                shown: None,
                end: None,
            },
            uids: 0,
            now: Timestamp::UNIX_EPOCH,
            container: 0,
            container_runs: true,
            program_exists: true,
            store_up: true,
            store: HashMap::new(),
            owners: HashMap::new(),
            daemon: 0,
            execs: HashMap::new(),
            next_exec: 0,
            starts: HashMap::new(),
            shown: HashMap::new(),
            fuse: None,
        }
    }

    fn container_id(&self) -> String {
        format!("container-{}", self.container)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Reconcile => drop(self.reconcile()),
            Event::DieAfter(steps) => {
                self.fuse = Some(steps);
                let _ = self.reconcile();
                self.fuse = None;
                self.daemon += 1;
            }
            Event::CreateAgain => {
                self.uids += 1;
                self.spec.uid = format!("uid-{}", self.uids);
            }
            Event::Edit(version) => {
                // The spec is immutable: an edit is a new object.
                self.spec.program.args = vec![version.to_string()];
                self.happen(Event::CreateAgain);
            }
            Event::Rerun(value) => self.spec.rerun = Some(value.to_string()),
            Event::RecreateContainer => {
                self.container += 1;
                self.execs.clear();
            }
            Event::StopOrStartContainer => self.container_runs = !self.container_runs,
            Event::ProgramEnds(code) => {
                for exec in self.execs.values_mut().filter(|exec| **exec == Exec::Running) {
                    *exec = Exec::Exited(code);
                }
            }
            Event::StoreComesOrGoes => self.store_up = !self.store_up,
            Event::EngineForgets => self.execs.clear(),
            Event::ProgramGoesMissingOrComesBack => self.program_exists = !self.program_exists,
            Event::TimePasses(seconds) => {
                self.now = Timestamp::from_second(self.now.as_second() + i64::from(seconds)).unwrap();
            }
        }
    }

    fn step(&mut self) -> Result<(), Died> {
        match &mut self.fuse {
            Some(0) => Err(Died),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn observe(&self) -> Observed {
        let id = self.container_id();
        let ready = if self.container_runs {
            Ok(())
        } else {
            Err(Blocked { reason: Reason::ContainerNotRunning, message: "stopped".into() })
        };
        let memory = if self.store_up {
            let key = self.spec.key(&id);
            let found = self.store.get(&key).map(|record| {
                let ownership = match self.owners.get(&key) {
                    _ if record.state.is_ended() => Ownership::Nobody,
                    Some(owner) if *owner == self.daemon => Ownership::Mine,
                    _ => Ownership::Gone,
                };
                (record.clone(), ownership)
            });
            let inputs =
                Ok(Box::new(Resolved { args: vec![], env: vec![], stdin: None, effective: Effective::default() }));
            match found {
                None => Memory::NeverRan { inputs },
                Some((record, _)) if record.may_be_claimed_again() => {
                    Memory::FailedToStart { record: Box::new(record), inputs }
                }
                Some((record, ownership)) => Memory::Ran { record: Box::new(record), ownership },
            }
        } else {
            Memory::Unavailable { message: "disk full".into() }
        };
        Observed::Container { id, ready, memory }
    }

    fn reconcile(&mut self) -> Result<(), Died> {
        match decide(&self.spec, self.observe(), self.now) {
            Decision::Launch { key, container_id, .. } => {
                self.step()?;
                assert!(self.store_up && self.container_runs, "launched in doubt");
                let attempt = self.store.get(&key).map_or(1, |failed| failed.attempt + 1);
                let record = RunRecord {
                    id: RunId(1),
                    key: key.clone(),
                    container_id,
                    container_name: "db".into(),
                    engine: "fake".into(),
                    engine_id: None,
                    object_uid: self.spec.uid.clone(),
                    program: self.spec.program.clone(),
                    fingerprint: self.spec.program.fingerprint(),
                    effective: Effective::default(),
                    capture: Capture::Attached { reason: String::new() },

                    log_limit: None,
                    marked_at: None,
                    attempt,
                    claimed_at: self.now,
                    state: RunState::Claimed,
                };
                self.store.insert(key.clone(), record);
                self.owners.insert(key.clone(), self.daemon);
                self.create_exec(&key)
            }
            Decision::Recover { record } => {
                self.step()?;
                self.owners.insert(record.key.clone(), self.daemon);
                let hint = match &record.state {
                    RunState::Starting { exec_id } | RunState::Running { exec_id, .. } => {
                        Some(match self.execs.get(exec_id) {
                            Some(Exec::Created) => ExecHint::NeverStarted,
                            Some(Exec::Running) => ExecHint::Running,
                            // The engine's word for an exec whose client is gone is false on purpose here.
                            Some(Exec::Exited(_)) => ExecHint::Exited(126),
                            None => ExecHint::Gone,
                        })
                    }
                    _ => None,
                };
                match judge(&record.state, hint) {
                    Verdict::Release => {
                        self.store.remove(&record.key);
                        Ok(())
                    }
                    Verdict::StartExec => match &record.state {
                        RunState::Starting { exec_id } => self.start_exec(&record.key, exec_id),
                        state => panic!("told to start a run that is {}", state.name()),
                    },
                    Verdict::StillRunning => {
                        // Nobody follows it: the next look asks again.
                        self.owners.remove(&record.key);
                        Ok(())
                    }
                    Verdict::Ended(outcome) => {
                        self.advance(&record.key, RunEvent::Ended { at: self.now, outcome });
                        Ok(())
                    }
                }
            }
            Decision::Mirror { record, .. } | Decision::End { record, .. } => {
                // This daemon follows its own run, and sees it end.
                if let RunState::Running { exec_id, .. } = &record.state {
                    match self.execs.get(exec_id).copied() {
                        Some(Exec::Exited(exit_code)) => {
                            self.step()?;
                            let outcome = Outcome::Finished { exit_code };
                            self.advance(&record.key, RunEvent::Ended { at: self.now, outcome });
                        }
                        Some(_) => {}
                        None => {
                            let outcome = Outcome::Unknown { message: "stream lost".into() };
                            self.advance(&record.key, RunEvent::Ended { at: self.now, outcome });
                        }
                    }
                }
                Ok(())
            }
            Decision::Show { record, .. } => {
                let before = self.shown.insert(record.key.clone(), record.state.clone());
                assert!(before.is_none_or(|before| before == record.state), "an outcome changed after it was shown");
                Ok(())
            }
            Decision::Wait { .. } | Decision::RetryStart { .. } => Ok(()),
        }
    }

    fn create_exec(&mut self, key: &RunKey) -> Result<(), Died> {
        self.step()?;
        self.next_exec += 1;
        let exec_id = format!("exec-{}", self.next_exec);
        self.execs.insert(exec_id.clone(), Exec::Created);
        self.step()?;
        self.advance(key, RunEvent::ExecCreated { exec_id: exec_id.clone() });
        self.start_exec(key, &exec_id)
    }

    fn start_exec(&mut self, key: &RunKey, exec_id: &str) -> Result<(), Died> {
        self.step()?;
        // The engine starts an exec at most once, and only where it knows it.
        let known = self.execs.get_mut(exec_id).filter(|exec| **exec == Exec::Created);
        match known {
            Some(exec) if self.program_exists => {
                *exec = Exec::Running;
                *self.starts.entry(key.clone()).or_default() += 1;
                self.step()?;
                self.advance(key, RunEvent::Started { at: self.now });
            }
            Some(exec) => {
                *exec = Exec::Exited(127);
                self.step()?;
                let outcome = Outcome::FailedToStart { reason: "CommandNotFound".into(), message: String::new() };
                self.advance(key, RunEvent::Ended { at: self.now, outcome });
            }
            None => {
                let outcome = Outcome::Unknown { message: "the engine lost the exec".into() };
                self.advance(key, RunEvent::Ended { at: self.now, outcome });
            }
        }
        Ok(())
    }

    fn advance(&mut self, key: &RunKey, event: RunEvent) {
        let record = self.store.get_mut(key).unwrap();
        record.state = record.state.clone().next(event).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_starts_a_program_twice(
        always in any::<bool>(),
        on_change in prop_oneof![Just(OnChange::Keep), Just(OnChange::Rerun), Just(OnChange::Fail)],
        events in events(),
    ) {
        let mut world = World::new(if always { RunPolicy::Always } else { RunPolicy::Once }, on_change);
        for event in events {
            world.happen(event);
            for (key, starts) in &world.starts {
                prop_assert!(*starts <= 1, "{key} started {starts} times");
            }
        }
    }

    #[test]
    fn a_world_that_comes_to_rest_has_run_the_program(events in events()) {
        let mut world = World::new(RunPolicy::Once, OnChange::Keep);
        for event in events {
            world.happen(event);
        }
        world.store_up = true;
        world.container_runs = true;
        world.program_exists = true;
        for _ in 0..5 {
            world.happen(Event::TimePasses(399));
            world.happen(Event::Reconcile);
            world.happen(Event::ProgramEnds(0));
        }
        let key = world.spec.key(&world.container_id());
        let state = &world.store[&key].state;
        prop_assert!(state.is_ended(), "{key} is still {}", state.name());
        prop_assert!(!world.store[&key].may_be_claimed_again(), "{key} failed to start and was not tried again");
    }
}
