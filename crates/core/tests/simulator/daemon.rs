//! A daemon: does what is decided, one step at a time, and dies between any two.

mod look;

use std::collections::BTreeMap;

use oncelet_core::{
    Blocked, Capture, Decision, Effective, EndedBy, ExecSpec, Finding, Memory, Observed, Outcome, Ownership, Reason,
    Resolved, RunEvent, RunKey, RunRecord, RunState, Verdict, Witnessed, abandoned, decide, examine, judge,
};

use self::look::{exec_of, failed, look, saw, verdict};
use crate::defects::Defect;
use crate::random::Random;
use crate::world::{Answer, Life_, Row, World, moved};

/// Where the task of a run is.
#[derive(Clone, Debug)]
enum Task {
    /// It has the claim.
    CreateExec,
    RecordExec {
        exec: String,
    },
    Start {
        exec: String,
    },
    /// It listens to the supervisor, or to the attached program.
    Listen {
        exec: String,
    },
    RecordStart {
        exec: String,
    },
    /// It looks at the container's disk.
    Examine,
    Follow,
    /// It waits for the end of an attached program that nobody listens to.
    AwaitEnd {
        exec: String,
    },
    Finish {
        started: Option<jiff::Timestamp>,
        outcome: Outcome,
        finished: jiff::Timestamp,
    },
    GiveBack,
    Withdraw,
}

pub(crate) struct Daemon {
    number: u64,
    life: Option<Life_>,
    pub(crate) paused: bool,
    tasks: BTreeMap<RunKey, (u64, Task)>,
    defect: Option<Defect>,
}

impl Daemon {
    pub(crate) fn new(number: u64, defect: Option<Defect>) -> Self {
        Self { number, life: None, paused: false, tasks: BTreeMap::new(), defect }
    }

    pub(crate) fn die(&mut self, world: &mut World) {
        if let Some(life) = self.life.take() {
            world.say(|| format!("daemon {} is killed", self.number));
            world.living.retain(|living| *living != life);
            world.kills += 1;
            self.tasks.clear();
        }
    }

    pub(crate) fn revive(&mut self, world: &mut World) {
        self.paused = false;
        if self.life.is_none() {
            let life = world.fresh();
            world.living.push(life);
            self.life = Some(life);
        }
    }

    /// What it is at with a run, for people.
    pub(crate) fn says(&self, key: &RunKey) -> String {
        format!("{:?}", self.tasks.get(key))
    }

    pub(crate) fn step(&mut self, world: &mut World, random: &mut Random) {
        let Some(life) = self.life.filter(|_| !self.paused) else { return };
        let keys: Vec<RunKey> = self.tasks.keys().cloned().collect();
        match random.choose(&keys) {
            Some(key) if !random.once_in(4) => self.advance(world, random, life, &key.clone()),
            _ if random.once_in(4) => self.recover_all(world, random, life),
            _ => {
                let objects = world.objects.clone();
                if let Some(object) = random.choose(&objects) {
                    self.reconcile(world, random, life, object);
                }
            }
        }
    }

    // --- one look at one object ---

    fn reconcile(&mut self, world: &mut World, random: &mut Random, life: Life_, spec: &ExecSpec) {
        let observed = self.observe(world, life, spec);
        match decide(spec, observed, world.now) {
            Decision::Launch { key, container_id, .. } => self.launch(world, random, life, spec, &key, &container_id),
            Decision::Recover { record } => self.recover(world, random, life, &record),
            Decision::End { record, by, .. } => world.end_program(&record.container_id, &record.key, by),
            Decision::Show { record, .. } => world.shows(&record),
            Decision::Wait { .. } | Decision::Mirror { .. } | Decision::RetryStart { .. } => {}
        }
    }

    fn observe(&self, world: &World, life: Life_, spec: &ExecSpec) -> Observed {
        let blocked = |reason| Blocked { reason, message: String::new() };
        let Some(container) = world.place.as_ref().filter(|_| world.engine_up) else {
            return Observed::NoContainer(blocked(Reason::EngineUnreachable));
        };
        let ready = if container.running { Ok(()) } else { Err(blocked(Reason::ContainerNotRunning)) };
        let inputs =
            || Ok(Box::new(Resolved { args: vec![], env: vec![], stdin: None, effective: Effective::default() }));
        let memory = match world.rows.get(&spec.key(&container.id)) {
            _ if !world.store_up => Memory::Unavailable { message: String::new() },
            None => Memory::NeverRan { inputs: inputs() },
            Some(row) if row.record.may_be_claimed_again() => {
                Memory::FailedToStart { record: Box::new(row.record.clone()), inputs: inputs() }
            }
            Some(row) => {
                Memory::Ran { record: Box::new(row.record.clone()), ownership: self.ownership(world, life, row) }
            }
        };
        Observed::Container { id: container.id.clone(), ready, memory }
    }

    fn ownership(&self, world: &World, life: Life_, row: &Row) -> Ownership {
        match row.owner {
            None => Ownership::Nobody,
            Some(owner) if owner == life && self.tasks.contains_key(&row.record.key) => Ownership::Mine,
            Some(owner) if owner == life => Ownership::Gone,
            Some(owner) if world.living.contains(&owner) => Ownership::Other,
            Some(_) => Ownership::Gone,
        }
    }

    fn launch(
        &mut self,
        world: &mut World,
        random: &mut Random,
        life: Life_,
        spec: &ExecSpec,
        key: &RunKey,
        container: &str,
    ) {
        if self.tasks.contains_key(key) {
            return;
        }
        let supervisable = world.place.as_ref().is_some_and(|at| at.supervisable);
        let capture = if supervisable { Capture::Supervised } else { Capture::Attached { reason: "read-only".into() } };
        let record = world.new_record(spec, key, container, capture);
        let claimed = world.commit(random, |rows| {
            let free = rows.get(key).is_none_or(|row| row.record.may_be_claimed_again());
            free.then(|| {
                let before = rows.get(key);
                let epoch = before.map_or(0, |row| row.epoch) + 1;
                let attempt = before.map_or(0, |row| row.record.attempt) + 1;
                let record = RunRecord { attempt, ..record };
                rows.insert(key.clone(), Row { record, owner: Some(life), epoch });
                epoch
            })
        });
        match claimed {
            Ok(Some(epoch)) => {
                self.tasks.insert(key.clone(), (epoch, Task::CreateExec));
            }
            Err(_) if self.defect == Some(Defect::FailedCommitMeansNothing) => {
                // Takes the failure for proof and starts without a claim.
                let record = world.new_record(spec, key, container, Capture::Attached { reason: String::new() });
                if let Some(exec) = world.create_exec(&record) {
                    world.start(random, &exec, life);
                }
            }
            Ok(None) | Err(_) => {}
        }
    }

    // --- recovery ---

    fn recover_all(&mut self, world: &mut World, random: &mut Random, life: Life_) {
        if !(world.store_up && world.engine_up) {
            return;
        }
        let gone: Vec<RunRecord> = world
            .rows
            .values()
            .filter(|row| self.ownership(world, life, row) == Ownership::Gone)
            .map(|row| row.record.clone())
            .collect();
        for record in gone {
            let over = match record.capture {
                Capture::Supervised => {
                    look(world, &record).is_some_and(|it| !matches!(it, Finding::StartExec | Finding::LookAgain))
                }
                Capture::Attached { .. } => verdict(world, &record).is_some_and(|it| it != Verdict::StartExec),
            };
            if over {
                self.recover(world, random, life, &record);
            }
        }
    }

    fn recover(&mut self, world: &mut World, random: &mut Random, life: Life_, record: &RunRecord) {
        let key = &record.key;
        if self.tasks.contains_key(key) || !world.engine_up {
            return;
        }
        let attached = match record.capture {
            Capture::Supervised => None,
            Capture::Attached { .. } => match verdict(world, record) {
                Some(verdict) => Some(verdict),
                None => return,
            },
        };
        let living = world.living.clone();
        let taken = world.commit(random, |rows| {
            let row = rows.get_mut(key)?;
            let is_gone = row.owner.is_some_and(|owner| owner == life || !living.contains(&owner));
            (is_gone && row.record == *record).then(|| {
                row.owner = Some(life);
                row.epoch += 1;
                row.epoch
            })
        });
        let Ok(Some(epoch)) = taken else { return };
        let exec = exec_of(&record.state).unwrap_or_default();
        let task = match attached {
            None if matches!(record.state, RunState::Claimed) => Task::GiveBack,
            None => Task::Examine,
            Some(Verdict::Release) => Task::GiveBack,
            Some(Verdict::StartExec) if self.defect == Some(Defect::NewExecInRecovery) => {
                match world.create_exec(record) {
                    Some(exec) => Task::Start { exec },
                    None => Task::AwaitEnd { exec },
                }
            }
            Some(Verdict::StartExec) => Task::Start { exec },
            Some(Verdict::StillRunning) => Task::AwaitEnd { exec },
            Some(Verdict::Ended(outcome)) => Task::Finish { started: None, outcome, finished: world.now },
        };
        self.tasks.insert(key.clone(), (epoch, task));
    }

    // --- the task of a run ---

    #[expect(clippy::too_many_lines, reason = "one arm for each place where a task may be")]
    fn advance(&mut self, world: &mut World, random: &mut Random, life: Life_, key: &RunKey) {
        let Some((epoch, task)) = self.tasks.get(key).cloned() else { return };
        let Some(row) = world.rows.get(key).filter(|row| row.epoch == epoch && row.owner == Some(life)) else {
            // Somebody has taken it over, or it is over.
            self.tasks.remove(key);
            return;
        };
        let record = row.record.clone();
        let supervised = record.capture == Capture::Supervised;
        let next = match task {
            Task::CreateExec => match world.create_exec(&record) {
                Some(exec) => Some(Task::RecordExec { exec }),
                None => Some(Task::GiveBack),
            },
            Task::RecordExec { exec } => {
                match self.write(world, random, key, epoch, RunEvent::ExecCreated { exec_id: exec.clone() }) {
                    Some(true) => Some(Task::Start { exec }),
                    // The launch ends with an error; the claim is recovered.
                    Some(false) | None => None,
                }
            }
            Task::Start { exec } => Some(match world.start(random, &exec, life) {
                Answer::Started => Task::RecordStart { exec },
                Answer::FailedToStart if supervised || random.once_in(2) => failed(world),
                Answer::FailedToStart | Answer::Error | Answer::Lost if !supervised => self.asked(world, &record, exec),
                Answer::Refused => {
                    self.adopt(world, random, &record, key, epoch);
                    Task::Examine
                }
                Answer::FailedToStart | Answer::Error | Answer::Lost => Task::Examine,
            }),
            Task::RecordStart { exec } => {
                let at = world.now;
                match self.write(world, random, key, epoch, RunEvent::Started { at }) {
                    Some(true) => Some(Task::Listen { exec }),
                    Some(false) => None,
                    None => Some(Task::RecordStart { exec }),
                }
            }
            Task::Listen { exec } if supervised => Some(match world.follow(&record.container_id, key) {
                _ if random.once_in(20) => Task::Examine,
                Some(Ok(witnessed)) => saw(&witnessed),
                None if world.life(&record.container_id) != Some(oncelet_core::Life::Gone)
                    && world.gate(&record.container_id, key).is_some() =>
                {
                    Task::Listen { exec }
                }
                Some(Err(())) | None => Task::Examine,
            }),
            Task::Listen { exec } => Some(match world.attached_end(&exec, life) {
                None => Task::Listen { exec },
                Some(Ok((137, true))) => Task::Finish {
                    started: None,
                    outcome: Outcome::Interrupted {
                        by: EndedBy::Container,
                        message: String::new(),
                        exit_code: Some(137),
                    },
                    finished: world.now,
                },
                Some(Ok((exit_code, true))) => {
                    Task::Finish { started: None, outcome: Outcome::Finished { exit_code }, finished: world.now }
                }
                Some(Ok((_, false)) | Err(())) => Task::AwaitEnd { exec },
            }),
            Task::AwaitEnd { exec } => Some(match world.hint(&exec) {
                None => Task::AwaitEnd { exec },
                Some(oncelet_core::ExecHint::Exited(exit_code)) if self.defect == Some(Defect::BelievedExitCode) => {
                    Task::Finish {
                        started: Some(world.now),
                        outcome: Outcome::Finished { exit_code },
                        finished: world.now,
                    }
                }
                Some(hint) => {
                    let state = RunState::Running { exec_id: exec.clone(), started_at: world.now };
                    match judge(&state, Some(hint)) {
                        Verdict::Ended(outcome) => Task::Finish { started: None, outcome, finished: world.now },
                        _ => Task::AwaitEnd { exec },
                    }
                }
            }),
            Task::Examine => Some(self.examine(world, &record)),
            Task::Follow => Some(match world.follow(&record.container_id, key) {
                Some(Ok(witnessed)) => saw(&witnessed),
                Some(Err(())) => {
                    let (gate, life) = (world.gate(&record.container_id, key), world.life(&record.container_id));
                    match gate.zip(life).map(|(gate, life)| abandoned(&gate, &life, "killed")) {
                        Some(Finding::Ended { started_at, finished_at, outcome }) => {
                            Task::Finish { started: started_at, outcome, finished: finished_at.unwrap_or(world.now) }
                        }
                        _ => Task::Examine,
                    }
                }
                None => Task::Examine,
            }),
            Task::Finish { started, outcome, finished } => {
                self.finish(world, random, &record, epoch, started, outcome, finished)
            }
            Task::Withdraw => match self.write(world, random, key, epoch, RunEvent::Withdrawn) {
                Some(true) => Some(Task::GiveBack),
                Some(false) => None,
                None => Some(Task::Withdraw),
            },
            Task::GiveBack => {
                let attempt = record.attempt;
                let _ = world.commit(random, |rows| {
                    // A failed try before it would come back; here it is simply free again.
                    let mine =
                        rows.get(key).is_some_and(|row| row.epoch == epoch && row.record.state == RunState::Claimed);
                    if mine && attempt >= 1 {
                        rows.remove(key);
                    }
                });
                None
            }
        };
        match next {
            Some(task) => {
                self.tasks.insert(key.clone(), (epoch, task));
            }
            None => {
                self.tasks.remove(key);
            }
        }
    }

    /// After a start of an attached program that was not confirmed.
    #[expect(clippy::unused_self, reason = "one step of the task")]
    fn asked(&self, world: &World, record: &RunRecord, exec: String) -> Task {
        match world.hint(&exec) {
            None | Some(oncelet_core::ExecHint::NeverStarted) if world.life(&record.container_id).is_some() => {
                Task::Start { exec }
            }
            _ => Task::AwaitEnd { exec },
        }
    }

    fn examine(&self, world: &World, record: &RunRecord) -> Task {
        match look(world, record) {
            None | Some(Finding::LookAgain) => Task::Examine,
            Some(Finding::Release) => Task::GiveBack,
            Some(Finding::StartExec) => exec_of(&record.state).map_or(Task::GiveBack, |exec| Task::Start { exec }),
            Some(Finding::Withdraw) => Task::Withdraw,
            Some(Finding::Follow)
                if self.defect == Some(Defect::WithdrawBehindTheGate)
                    && matches!(record.state, RunState::Starting { .. }) =>
            {
                Task::Withdraw
            }
            Some(Finding::Follow) => Task::Follow,
            Some(Finding::Witnessed(witnessed)) => saw(&witnessed),
            Some(Finding::Ended { started_at, finished_at, outcome }) => {
                Task::Finish { started: started_at, outcome, finished: finished_at.unwrap_or(world.now) }
            }
        }
    }

    /// The store gets back what it has lost.
    #[expect(clippy::unused_self, reason = "one step of the task")]
    fn adopt(&self, world: &mut World, random: &mut Random, record: &RunRecord, key: &RunKey, epoch: u64) {
        let description = world.description(&record.container_id, key);
        let Some(description) = description.filter(|it| !it.is_of(record)) else { return };
        let _ = world.commit(random, |rows| {
            if let Some(row) = rows.get_mut(key).filter(|row| row.epoch == epoch) {
                row.record.object_uid = description.object_uid;
                row.record.claimed_at = description.claimed_at;
            }
        });
    }

    /// Writes an event. `None` where the commit failed: it is written again. `Some(false)` where the run is lost.
    #[expect(clippy::unused_self, reason = "one step of the task")]
    fn write(&self, world: &mut World, random: &mut Random, key: &RunKey, epoch: u64, event: RunEvent) -> Option<bool> {
        let written = world.commit(random, |rows| {
            let Some(row) = rows.get_mut(key).filter(|row| row.epoch == epoch) else { return false };
            let is_done = match (&row.record.state, &event) {
                (RunState::Starting { exec_id }, RunEvent::ExecCreated { exec_id: created }) => exec_id == created,
                (RunState::Running { .. }, RunEvent::Started { .. }) | (RunState::Claimed, RunEvent::Withdrawn) => true,
                _ => false,
            };
            if !is_done {
                moved(&mut row.record, event);
            }
            true
        });
        written.ok()
    }

    #[expect(clippy::too_many_arguments, reason = "one step of the task")]
    fn finish(
        &self,
        world: &mut World,
        random: &mut Random,
        record: &RunRecord,
        epoch: u64,
        started: Option<jiff::Timestamp>,
        outcome: Outcome,
        finished: jiff::Timestamp,
    ) -> Option<Task> {
        let again = Task::Finish { started, outcome: outcome.clone(), finished };
        if let (RunState::Starting { .. }, Some(at)) = (&record.state, started) {
            return match self.write(world, random, &record.key, epoch, RunEvent::Started { at }) {
                Some(false) => None,
                Some(true) | None => Some(again),
            };
        }
        let written = world.commit(random, |rows| {
            let Some(row) = rows.get_mut(&record.key).filter(|row| row.epoch == epoch) else { return };
            if !row.record.state.is_ended() {
                moved(&mut row.record, RunEvent::Ended { at: finished, outcome });
                row.owner = None;
            }
        });
        written.is_err().then_some(again)
    }
}
