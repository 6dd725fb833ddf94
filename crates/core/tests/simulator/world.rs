//! Everything beside the daemons: objects, the store, the engine, containers, the clock; and the truth.

mod engine;

use std::collections::BTreeMap;

use jiff::Timestamp;
use oncelet_core::{
    Capture, Description, Effective, EndedBy, ExecHint, ExecSpec, Gate, Life, OnChange, Outcome, Program, RunEvent,
    RunId, RunKey, RunName, RunPolicy, RunRecord, RunState, Scope, Witnessed,
};

use crate::daemon::Daemon;
use crate::defects::Defect;
use crate::random::Random;

/// The number of a daemon's life: a new one each time.
pub(crate) type Life_ = u64;

pub(crate) struct Row {
    pub(crate) record: RunRecord,
    /// The life of the daemon that owns it, while it is open.
    pub(crate) owner: Option<Life_>,
    /// Grows with each acquisition.
    pub(crate) epoch: u64,
}

/// A commit did not report success.
pub(crate) struct CommitFailed;

pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) running: bool,
    since: Timestamp,
    stopped: Option<Timestamp>,
    pub(crate) supervisable: bool,
    gates: BTreeMap<String, Behind>,
}

/// What is behind a gate.
#[derive(Clone)]
struct Behind {
    claimed_at: Timestamp,
    started_at: Timestamp,
    description: Description,
    supervisor_lives: bool,
    program_lives: bool,
    exit: Option<Witnessed>,
    stopped_by: Option<EndedBy>,
}

#[derive(Clone)]
struct Exec {
    container: String,
    description: Description,
    supervised: bool,
    state: ExecState,
    /// The life of the daemon that listens to it.
    listener: Option<Life_>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ExecState {
    Created,
    Runs,
    Over { exit_code: i64, started: bool },
}

/// The answer to a start.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Started,
    Refused,
    FailedToStart,
    /// Nothing was started by this request.
    Error,
    /// Nobody knows.
    Lost,
}

#[expect(clippy::struct_excessive_bools, reason = "each says of one thing whether it works")]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) objects: Vec<ExecSpec>,
    pub(crate) rows: BTreeMap<RunKey, Row>,
    pub(crate) store_up: bool,
    pub(crate) engine_up: bool,
    /// One place, in which there is a container or none.
    pub(crate) place: Option<Container>,
    execs: BTreeMap<String, Exec>,
    /// Start requests that nobody waits for any more, and that may still be carried out.
    stray: Vec<String>,
    next: u64,
    pub(crate) living: Vec<Life_>,
    command_is_there: bool,
    /// How often each program was really started.
    starts: BTreeMap<(String, RunKey), u64>,
    /// The exit codes of programs that ended by themselves, or were ended by their supervisor.
    truth: BTreeMap<(String, RunKey), i64>,
    /// What was shown of a run that was over.
    shown: BTreeMap<RunKey, (RunId, Outcome)>,
    pub(crate) kills: u64,
    store_was_lost: bool,
    defect: Option<Defect>,
    trace: bool,
}

impl World {
    pub(crate) fn new(random: &mut Random, defect: Option<Defect>, trace: bool) -> Self {
        let mut world = Self {
            now: Timestamp::from_second(1_790_000_000).unwrap(),
            objects: Vec::new(),
            rows: BTreeMap::new(),
            store_up: true,
            engine_up: true,
            place: None,
            execs: BTreeMap::new(),
            stray: Vec::new(),
            next: 0,
            living: Vec::new(),
            command_is_there: !random.once_in(5),
            starts: BTreeMap::new(),
            truth: BTreeMap::new(),
            shown: BTreeMap::new(),
            kills: 0,
            store_was_lost: false,
            defect,
            trace,
        };
        for number in 0..=random.below(2) {
            let object = world.object(random, number);
            world.objects.push(object);
        }
        let supervisable = !random.once_in(3);
        world.create_container(supervisable);
        world
    }

    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:.3} {}", self.now, what());
        }
    }

    pub(crate) fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn object(&mut self, random: &mut Random, number: u64) -> ExecSpec {
        let uid = format!("uid-{}", self.fresh());
        ExecSpec {
            uid,
            name: RunName::of_object("team", &format!("job-{number}")),
            program: Program { command: format!("job-{number}.sh"), ..Program::default() },
            run_policy: if random.once_in(6) { RunPolicy::Always } else { RunPolicy::Once },
            on_change: OnChange::Keep,
            scope: if random.once_in(6) { Scope::Name("team/db".into()) } else { Scope::Container },
            rerun: None,
            retry: None,
            shown: None,
            end: None,
        }
    }

    fn create_container(&mut self, supervisable: bool) {
        let id = format!("c{}", self.fresh());
        self.say(|| format!("container {id} is made"));
        self.place =
            Some(Container { id, running: true, since: self.now, stopped: None, supervisable, gates: BTreeMap::new() });
    }

    // --- trouble ---

    pub(crate) fn trouble(&mut self, random: &mut Random) {
        match random.below(40) {
            0..10 => self.programs_end(random),
            10..12 => self.restart_engine(random),
            12..14 => self.stop_or_start(),
            14 => {
                let supervisable = !random.once_in(3);
                self.remove_container();
                self.create_container(supervisable);
            }
            15..17 => self.store_up = !self.store_up,
            17..19 => self.engine_up = !self.engine_up,
            19..22 => self.stray_arrives(random),
            22 => self.kill_supervisor(random),
            23 => self.command_is_there = !self.command_is_there,
            24..27 => self.create_again(random),
            27 => self.edit(random),
            28 => self.lose_store(),
            29 => {
                let jump = i64::try_from(random.below(20_000)).unwrap() - 10_000;
                self.now = self.now.checked_add(jiff::SignedDuration::from_secs(jump)).unwrap();
            }
            _ => self.time_passes(random),
        }
    }

    fn time_passes(&mut self, random: &mut Random) {
        let millis = i64::try_from(1 + random.below(5000)).unwrap();
        self.now = self.now.checked_add(jiff::SignedDuration::from_millis(millis)).unwrap();
    }

    /// A step in which nothing new goes wrong.
    pub(crate) fn calm_step(&mut self, random: &mut Random) {
        self.time_passes(random);
        match random.below(3) {
            0 => self.programs_end(random),
            1 => self.stray_arrives(random),
            _ => {}
        }
    }

    pub(crate) fn make_peace(&mut self) {
        self.say(|| "peace".to_owned());
        (self.store_up, self.engine_up, self.command_is_there) = (true, true, true);
        for object in &mut self.objects {
            object.end = None;
        }
        if self.place.as_ref().is_some_and(|container| !container.running) {
            self.stop_or_start();
        }
        if self.place.is_none() {
            self.create_container(true);
        }
    }

    fn programs_end(&mut self, random: &mut Random) {
        let running: Vec<String> = self
            .execs
            .iter()
            .filter(|(_, exec)| exec.state == ExecState::Runs && !exec.supervised)
            .map(|(id, _)| id.clone())
            .collect();
        let exit_code = i64::try_from(random.below(4)).unwrap();
        if let Some(id) = random.choose(&running) {
            let exec = self.execs.get_mut(id).unwrap();
            exec.state = ExecState::Over { exit_code, started: true };
            self.truth.insert((exec.container.clone(), exec.description.key.clone()), exit_code);
        }
        let now = self.now;
        let Some(container) = self.place.as_mut().filter(|container| container.running) else { return };
        let alive: Vec<String> =
            container.gates.iter().filter(|(_, behind)| behind.program_lives).map(|(run, _)| run.clone()).collect();
        let Some(run) = random.choose(&alive) else { return };
        let behind = container.gates.get_mut(run).unwrap();
        behind.program_lives = false;
        let key = behind.description.key.clone();
        self.truth.insert((container.id.clone(), key.clone()), exit_code);
        if behind.supervisor_lives {
            let ended_by = behind.stopped_by;
            behind.exit = Some(Witnessed { started_at: behind.started_at, finished_at: now, exit_code, ended_by });
            behind.supervisor_lives = false;
        }
        let id = container.id.clone();
        for exec in self.execs.values_mut().filter(|exec| exec.supervised && exec.state == ExecState::Runs) {
            if exec.container == id && exec.description.key == key {
                // What the engine says of it is its own affair.
                exec.state =
                    ExecState::Over { exit_code: if random.once_in(3) { 126 } else { exit_code }, started: true };
            }
        }
        self.say(|| format!("{key} ends with {exit_code}"));
    }

    /// The engine's daemon restarts: it forgets its execs, and what they run goes on or, without live-restore, ends.
    fn restart_engine(&mut self, random: &mut Random) {
        self.say(|| "the engine restarts".to_owned());
        if random.once_in(2) && self.place.as_ref().is_some_and(|container| container.running) {
            self.stop_or_start();
        }
        // A request that it had taken may have got through to the container.
        self.stray.retain(|_| random.once_in(2));
        let stray = self.stray.clone();
        self.execs.retain(|id, _| stray.contains(id));
        for exec in self.execs.values_mut() {
            exec.listener = None;
        }
    }

    fn stop_or_start(&mut self) {
        let now = self.now;
        let Some(container) = &mut self.place else { return };
        container.running = !container.running;
        let (id, running) = (container.id.clone(), container.running);
        if running {
            container.since = now;
        } else {
            container.stopped = Some(now);
            for behind in container.gates.values_mut() {
                (behind.program_lives, behind.supervisor_lives) = (false, false);
            }
            self.end_execs(&id);
        }
        self.say(|| format!("container {id} {}", if running { "starts" } else { "stops" }));
    }

    fn end_execs(&mut self, container: &str) {
        for exec in self.execs.values_mut().filter(|exec| exec.container == container) {
            if exec.state == ExecState::Runs {
                exec.state = ExecState::Over { exit_code: 137, started: true };
            }
        }
        // Never started ones are dropped.
        self.execs.retain(|_, exec| exec.container != container || exec.state != ExecState::Created);
        let execs = &self.execs;
        self.stray.retain(|id| execs.contains_key(id));
    }

    fn remove_container(&mut self) {
        if let Some(container) = self.place.take() {
            self.say(|| format!("container {} is removed", container.id));
            self.end_execs(&container.id);
            self.execs.retain(|_, exec| exec.container != container.id);
        }
    }

    fn kill_supervisor(&mut self, random: &mut Random) {
        let Some(container) = &mut self.place else { return };
        let mut alive: Vec<_> = container.gates.values_mut().filter(|behind| behind.supervisor_lives).collect();
        if alive.is_empty() {
            return;
        }
        let index = usize::try_from(random.below(alive.len() as u64)).unwrap();
        alive[index].supervisor_lives = false;
    }

    fn create_again(&mut self, random: &mut Random) {
        let index = usize::try_from(random.below(self.objects.len() as u64)).unwrap();
        let uid = format!("uid-{}", self.fresh());
        let object = &mut self.objects[index];
        object.uid = uid;
        object.end = None;
        if random.once_in(4) {
            object.rerun = Some(random.below(3).to_string());
        }
    }

    fn edit(&mut self, random: &mut Random) {
        let index = usize::try_from(random.below(self.objects.len() as u64)).unwrap();
        self.objects[index].end = random.once_in(2).then_some(EndedBy::Stop);
    }

    /// The store is lost once, where only supervised runs are in it: what an attached one leaves behind is in no container.
    fn lose_store(&mut self) {
        let all_supervised = self
            .rows
            .iter()
            .all(|(key, row)| row.record.capture == Capture::Supervised && !key.ident.starts_with("name:"));
        let any_attached = self.execs.values().any(|exec| !exec.supervised);
        let nobody = self.living.is_empty();
        if all_supervised && !any_attached && nobody {
            self.say(|| "the store is lost".to_owned());
            self.rows.clear();
            self.store_was_lost = true;
        }
    }

    // --- the store ---

    /// Makes a change, or says that it failed: then it was made or not.
    pub(crate) fn commit<T>(
        &mut self,
        random: &mut Random,
        change: impl FnOnce(&mut BTreeMap<RunKey, Row>) -> T,
    ) -> Result<T, CommitFailed> {
        if !self.store_up {
            return Err(CommitFailed);
        }
        match random.below(40) {
            0 => Err(CommitFailed),
            1 => {
                change(&mut self.rows);
                Err(CommitFailed)
            }
            _ => Ok(change(&mut self.rows)),
        }
    }

    pub(crate) fn new_record(&mut self, spec: &ExecSpec, key: &RunKey, container: &str, capture: Capture) -> RunRecord {
        RunRecord {
            id: RunId(i64::try_from(self.fresh()).unwrap()),
            key: key.clone(),
            container_id: container.to_owned(),
            container_name: "db".into(),
            engine: "simulated".into(),
            engine_id: None,
            object_uid: spec.uid.clone(),
            program: spec.program.clone(),
            fingerprint: spec.program.fingerprint(),
            effective: Effective::default(),
            capture,
            log_limit: None,
            marked_at: None,
            attempt: 1,
            claimed_at: self.now,
            state: RunState::Claimed,
        }
    }

    // --- the oracle ---

    /// An object shows that a run is over.
    pub(crate) fn shows(&mut self, record: &RunRecord) {
        let RunState::Ended { outcome, .. } = &record.state else { return };
        if matches!(outcome, Outcome::FailedToStart { .. }) {
            return;
        }
        let before = self.shown.insert(record.key.clone(), (record.id, outcome.clone()));
        if let Some((id, before)) = before {
            // What was lost and taken back has another number, and what only the store knew may be told otherwise.
            let same = before == *outcome || (self.store_was_lost && id != record.id);
            assert!(same, "{} showed {before:?} and then {outcome:?}", record.key);
        }
    }

    pub(crate) fn all_starts(&self) -> u64 {
        self.starts.values().sum()
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        for ((container, key), starts) in &self.starts {
            if *starts > 1 {
                return Err(format!("{key} was started {starts} times in {container}"));
            }
        }
        for (key, _) in self.rows.iter().filter(|(key, _)| key.ident.starts_with("name:")) {
            let starts: u64 =
                self.starts.iter().filter(|((_, started), _)| started == key).map(|(_, starts)| starts).sum();
            if starts > 1 {
                return Err(format!("{key} was started {starts} times, in several containers"));
            }
        }
        for (key, row) in &self.rows {
            if let RunState::Ended { outcome: Outcome::Finished { exit_code }, .. } = &row.record.state {
                let truth = self.truth.get(&(row.record.container_id.clone(), key.clone()));
                if truth != Some(exit_code) {
                    return Err(format!("{key} is said to have ended with {exit_code}, the truth is {truth:?}"));
                }
            }
        }
        Ok(())
    }

    /// After a long peace nothing is open, and everything has run that was to run.
    pub(crate) fn check_end(&self, survivor: &Daemon) -> Result<(), String> {
        let wanted: Vec<RunKey> = self
            .objects
            .iter()
            .map(|object| object.key(self.place.as_ref().map_or("", |container| container.id.as_str())))
            .collect();
        for (key, row) in &self.rows {
            // An exec that was never started waits for an object that asks for it.
            let waits = matches!(row.record.state, RunState::Starting { .. }) && !wanted.contains(key);
            if !row.record.state.is_ended() && !waits {
                return Err(format!("{key} is {} for ever ({})", row.record.state.name(), survivor.says(key)));
            }
        }
        for key in wanted {
            let Some(row) = self.rows.get(&key) else { return Err(format!("{key} was never run")) };
            let started = self.starts.keys().any(|(_, started)| *started == key);
            if matches!(row.record.state, RunState::Ended { outcome: Outcome::Finished { .. }, .. }) && !started {
                return Err(format!("{key} is finished and was never started"));
            }
        }
        Ok(())
    }
}

/// Moves a record by an event that the executor may write.
pub(crate) fn moved(record: &mut RunRecord, event: RunEvent) {
    record.state = record.state.clone().next(event).unwrap_or_else(|illegal| panic!("{}: {illegal}", record.key));
}
