//! The engine and the containers, as daemons see them.

use super::*;

impl World {
    pub(crate) fn create_exec(&mut self, record: &RunRecord) -> Option<String> {
        let runs = self.place.as_ref().is_some_and(|at| at.running && at.id == record.container_id);
        if !(self.engine_up && runs) {
            return None;
        }
        let id = format!("e{}", self.fresh());
        let description = Description {
            key: record.key.clone(),
            object_uid: record.object_uid.clone(),
            program: record.program.clone(),
            effective: Effective::default(),
            log_limit: None,
            claimed_at: record.claimed_at,
            container_started_at: self.place.as_ref().map(|at| at.since),
        };
        let supervised = record.capture == Capture::Supervised;
        let container = record.container_id.clone();
        self.execs
            .insert(id.clone(), Exec { container, description, supervised, state: ExecState::Created, listener: None });
        Some(id)
    }

    /// Asks for a start; the answer may be lost, and the request be carried out later or never.
    pub(crate) fn start(&mut self, random: &mut Random, id: &str, by: Life_) -> Answer {
        if !self.engine_up {
            return Answer::Error;
        }
        match random.below(12) {
            0 => {
                self.stray.push(id.to_owned());
                Answer::Lost
            }
            1 => {
                self.carry_out(id, None);
                Answer::Lost
            }
            _ => self.carry_out(id, Some(by)),
        }
    }

    pub(super) fn stray_arrives(&mut self, random: &mut Random) {
        if self.stray.is_empty() {
            return;
        }
        let index = usize::try_from(random.below(self.stray.len() as u64)).unwrap();
        let id = self.stray.swap_remove(index);
        self.say(|| format!("a late request starts {id}"));
        self.carry_out(&id, None);
    }

    fn carry_out(&mut self, id: &str, listener: Option<Life_>) -> Answer {
        let now = self.now;
        let command_is_there = self.command_is_there;
        let has_gate = self.defect != Some(Defect::NoGate);
        let Some(exec) = self.execs.get_mut(id) else { return Answer::Error };
        let Some(container) = self.place.as_mut().filter(|at| at.running && at.id == exec.container) else {
            return Answer::Error;
        };
        // An engine starts an exec once.
        if exec.state != ExecState::Created {
            return Answer::Error;
        }
        let key = exec.description.key.clone();
        if exec.supervised {
            if has_gate && container.gates.contains_key(&key.digest()) {
                exec.state = ExecState::Over { exit_code: 0, started: false };
                return Answer::Refused;
            }
            if !command_is_there {
                exec.state = ExecState::Over { exit_code: 127, started: false };
                return Answer::FailedToStart;
            }
            let behind = Behind {
                claimed_at: now,
                started_at: now,
                description: exec.description.clone(),
                supervisor_lives: true,
                program_lives: true,
                exit: None,
                stopped_by: None,
            };
            container.gates.insert(key.digest(), behind);
        } else if !command_is_there {
            exec.state = ExecState::Over { exit_code: 127, started: false };
            return Answer::FailedToStart;
        }
        exec.state = ExecState::Runs;
        exec.listener = listener;
        let at = (container.id.clone(), key);
        self.say(|| format!("the program of {} starts", at.1));
        *self.starts.entry(at).or_default() += 1;
        Answer::Started
    }

    /// What the engine says of an exec; `None` where it does not answer.
    pub(crate) fn hint(&self, id: &str) -> Option<ExecHint> {
        self.engine_up.then(|| match self.execs.get(id).map(|exec| exec.state) {
            None => ExecHint::Gone,
            Some(ExecState::Created) => ExecHint::NeverStarted,
            Some(ExecState::Runs) => ExecHint::Running,
            Some(ExecState::Over { exit_code, .. }) => ExecHint::Exited(exit_code),
        })
    }

    /// How an attached program ended, as the stream of `listener` tells; `None` while it runs.
    pub(crate) fn attached_end(&self, id: &str, listener: Life_) -> Option<Result<(i64, bool), ()>> {
        match self.execs.get(id) {
            Some(exec) if exec.listener != Some(listener) => Some(Err(())),
            Some(Exec { state: ExecState::Over { exit_code, started }, .. }) => Some(Ok((*exit_code, *started))),
            Some(_) => None,
            None => Some(Err(())),
        }
    }

    pub(crate) fn life(&self, container: &str) -> Option<Life> {
        self.engine_up.then(|| match self.place.as_ref().filter(|at| at.id == container) {
            None => Life::Gone,
            Some(at) if at.running => Life::Runs { since: Some(at.since) },
            Some(at) => Life::Stopped { since: at.stopped },
        })
    }

    pub(crate) fn gate(&self, container: &str, key: &RunKey) -> Option<Gate> {
        self.engine_up.then(|| match self.behind(container, key) {
            None => Gate::Open,
            Some(Behind { exit: Some(exit), .. }) => Gate::Recorded(*exit),
            Some(behind) => Gate::Closed {
                claimed_at: Some(behind.claimed_at),
                started_at: Some(behind.started_at),
                container_started_at: behind.description.container_started_at,
            },
        })
    }

    fn behind(&self, container: &str, key: &RunKey) -> Option<&Behind> {
        self.place.as_ref().filter(|at| at.id == container)?.gates.get(&key.digest())
    }

    pub(crate) fn description(&self, container: &str, key: &RunKey) -> Option<Description> {
        Some(self.behind(container, key)?.description.clone())
    }

    /// What a supervisor that is asked inside the container says: it waits (`None`), tells the end, or is gone with the program.
    pub(crate) fn follow(&self, container: &str, key: &RunKey) -> Option<Result<Witnessed, ()>> {
        let behind = self.behind(container, key)?;
        match behind.exit {
            Some(exit) => Some(Ok(exit)),
            None if behind.supervisor_lives || behind.program_lives => None,
            None => Some(Err(())),
        }
    }

    pub(crate) fn end_program(&mut self, container: &str, key: &RunKey, by: EndedBy) {
        if !self.engine_up {
            return;
        }
        let Some(at) = self.place.as_mut().filter(|at| at.id == container && at.running) else { return };
        if let Some(behind) = at.gates.get_mut(&key.digest()).filter(|behind| behind.program_lives) {
            behind.stopped_by.get_or_insert(by);
        }
    }
}
