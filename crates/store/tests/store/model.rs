//! Random operations of two daemons, against a model that fits on a page.

use std::collections::BTreeMap;

use oncelet_core::{Outcome, Ownership, RunEvent, RunState};
use oncelet_store::{Advance, Claim, Lease, Logs, Store, StoreError};
use proptest::prelude::*;

use crate::support::{at, created, failed_to_start, key, new_run, open, started};

/// What can happen. Daemons, keys and leases are chosen by number, modulo how many there are.
#[derive(Clone, Debug)]
enum Op {
    Claim { daemon: usize, key: usize },
    TakeOver { daemon: usize, key: usize },
    Advance { lease: usize, event: usize },
    Finish { lease: usize, event: usize },
    Release { lease: usize },
    Restart { daemon: usize },
}

const KEYS: [&str; 2] = ["a", "b"];

fn event(number: usize) -> RunEvent {
    let ended = |outcome| RunEvent::Ended { at: at(5), outcome };
    match number % 6 {
        0 => created("e1"),
        1 => started(),
        2 => ended(Outcome::Finished { exit_code: 0 }),
        3 => ended(failed_to_start()),
        4 => ended(Outcome::Unknown { message: "x".into() }),
        _ => ended(Outcome::Interrupted {
            by: oncelet_core::EndedBy::Container,
            message: "x".into(),
            exit_code: Some(137),
        }),
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let number = || 0..64_usize;
    let op = prop_oneof![
        4 => (number(), number()).prop_map(|(daemon, key)| Op::Claim { daemon, key }),
        3 => (number(), number()).prop_map(|(daemon, key)| Op::TakeOver { daemon, key }),
        // Mostly the latest lease, and mostly forwards: else few runs get anywhere.
        8 => (prop_oneof![3 => Just(0_usize), 1 => number()], prop_oneof![0..2_usize, number()])
            .prop_map(|(lease, event)| Op::Advance { lease, event }),
        3 => (prop_oneof![3 => Just(0_usize), 1 => number()], number())
            .prop_map(|(lease, event)| Op::Finish { lease, event }),
        2 => (prop_oneof![Just(0_usize), number()]).prop_map(|lease| Op::Release { lease }),
        1 => number().prop_map(|daemon| Op::Restart { daemon }),
    ];
    prop::collection::vec(op, 1..40)
}

/// A run, as it must be.
#[derive(Clone, Debug)]
struct Run {
    state: RunState,
    attempt: u32,
    epoch: i64,
    /// Which of all acquisitions, of all runs, it was last acquired by.
    acquisition: usize,
    /// The life of the daemon that has it, while it is open.
    owner: usize,
    /// The state of the failed try before.
    failed: Option<RunState>,
}

struct Daemon {
    store: Store,
    /// Counts lives, over all daemons.
    life: usize,
}

struct Held {
    lease: Lease,
    key: &'static str,
    acquisition: usize,
    daemon: usize,
}

/// The real thing and the model, side by side.
struct World {
    dir: tempfile::TempDir,
    daemons: Vec<Daemon>,
    lives: usize,
    acquisitions: usize,
    runs: BTreeMap<&'static str, Run>,
    leases: Vec<Held>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut world =
            Self { dir, daemons: Vec::new(), lives: 0, acquisitions: 0, runs: BTreeMap::new(), leases: Vec::new() };
        for _ in 0..2 {
            let daemon = world.new_daemon().await;
            world.daemons.push(daemon);
        }
        world
    }

    async fn new_daemon(&mut self) -> Daemon {
        self.lives += 1;
        Daemon { store: open(self.dir.path()).await, life: self.lives }
    }

    fn ownership(&self, daemon: usize, run: &Run) -> Ownership {
        if run.state.is_ended() {
            Ownership::Nobody
        } else if run.owner == self.daemons[daemon].life {
            Ownership::Mine
        } else if self.daemons.iter().any(|daemon| daemon.life == run.owner) {
            Ownership::Other
        } else {
            Ownership::Gone
        }
    }

    async fn apply(&mut self, op: &Op) {
        match *op {
            Op::Claim { daemon, key } => self.claim(daemon % 2, KEYS[key % 2]).await,
            Op::TakeOver { daemon, key } => self.take_over(daemon % 2, KEYS[key % 2]).await,
            Op::Advance { lease, event: number } => self.advance(lease, event(number), false).await,
            Op::Finish { lease, event: number } => self.advance(lease, event(2 + number % 4), true).await,
            Op::Release { lease } => self.release(lease).await,
            Op::Restart { daemon } => {
                self.daemons[daemon % 2].store.close().await;
                let new = self.new_daemon().await;
                self.daemons[daemon % 2] = new;
            }
        }
    }

    async fn claim(&mut self, daemon: usize, name: &'static str) {
        let owner = self.daemons[daemon].life;
        let free = match self.runs.get(name) {
            None => Some(Run { state: RunState::Claimed, attempt: 1, epoch: 1, acquisition: 0, owner, failed: None }),
            Some(run) if run.state.name() == "FailedToStart" => Some(Run {
                state: RunState::Claimed,
                attempt: run.attempt + 1,
                epoch: run.epoch + 1,
                acquisition: 0,
                owner,
                failed: Some(run.state.clone()),
            }),
            Some(_) => None,
        };
        match (self.daemons[daemon].store.claim(new_run(key(name))).await.unwrap(), free) {
            (Claim::Won(lease), Some(run)) => self.acquired(daemon, name, lease, run),
            (Claim::Held(record, ownership), None) => {
                let run = &self.runs[name];
                assert_eq!((&record.state, ownership), (&run.state, self.ownership(daemon, run)));
            }
            (claim, free) => panic!("{claim:?}, but {free:?}"),
        }
    }

    async fn take_over(&mut self, daemon: usize, name: &'static str) {
        let Some((record, _)) = self.daemons[daemon].store.lookup(&key(name)).await.unwrap() else { return };
        let taken = self.daemons[daemon].store.take_over(&record, at(9)).await.unwrap();
        let run = self.runs[name].clone();
        let may = matches!(self.ownership(daemon, &run), Ownership::Mine | Ownership::Gone);
        assert_eq!(taken.is_some(), may);
        if let Some(lease) = taken {
            let owner = self.daemons[daemon].life;
            self.acquired(daemon, name, lease, Run { epoch: run.epoch + 1, owner, ..run });
        }
    }

    fn acquired(&mut self, daemon: usize, key: &'static str, lease: Lease, run: Run) {
        assert_eq!(lease.epoch(), run.epoch);
        self.acquisitions += 1;
        let acquisition = self.acquisitions;
        self.leases.push(Held { lease, key, acquisition, daemon });
        self.runs.insert(key, Run { acquisition, ..run });
    }

    /// The lease of a number: 0 is the latest.
    fn index(&self, number: usize) -> Option<usize> {
        let count = self.leases.len();
        (count > 0).then(|| count - 1 - number % count)
    }

    async fn advance(&mut self, number: usize, event: RunEvent, with_logs: bool) {
        let Some(index) = self.index(number) else { return };
        let held = &self.leases[index];
        let store = &self.daemons[held.daemon].store;
        let answer = match event.clone() {
            RunEvent::Ended { at, outcome } if with_logs => {
                store.finish(&held.lease, at, outcome, Logs::default()).await
            }
            event => store.advance(&held.lease, event).await,
        };
        let run = self.runs.get_mut(held.key).filter(|run| run.acquisition == held.acquisition);
        let Some(run) = run else {
            assert!(matches!(answer, Ok(Advance::Lost)), "{answer:?}");
            return;
        };
        match (run.state.clone().next(event.clone()), answer) {
            (Ok(state), Ok(Advance::Done(record))) => {
                assert_eq!(record.state, state);
                run.state = state;
            }
            (Err(_), Err(StoreError::Illegal { .. })) => {}
            // The same event again.
            (Err(_), Ok(Advance::Done(record))) => {
                assert_eq!(record.state, run.state);
                let repeated = match (&run.state, event) {
                    (RunState::Starting { .. }, RunEvent::ExecCreated { .. })
                    | (RunState::Running { .. }, RunEvent::Started { .. }) => true,
                    (RunState::Ended { outcome, .. }, RunEvent::Ended { outcome: ended, .. }) => *outcome == ended,
                    _ => false,
                };
                assert!(repeated);
            }
            (next, answer) => panic!("{next:?}, but {answer:?}"),
        }
    }

    async fn release(&mut self, number: usize) {
        let Some(index) = self.index(number) else { return };
        let held = self.leases.remove(index);
        let answer = self.daemons[held.daemon].store.release(held.lease).await;
        let Some(run) = self.runs.get_mut(held.key).filter(|run| run.acquisition == held.acquisition) else {
            return answer.unwrap();
        };
        match (&run.state, run.failed.take()) {
            (RunState::Claimed, None) => {
                answer.unwrap();
                self.runs.remove(held.key);
            }
            (RunState::Claimed, Some(failed)) => {
                answer.unwrap();
                (run.state, run.attempt) = (failed, run.attempt - 1);
            }
            (_, failed) => {
                assert!(matches!(answer, Err(StoreError::NotReleasable { .. })), "{answer:?}");
                run.failed = failed;
            }
        }
    }

    async fn check(&self) {
        for (number, daemon) in self.daemons.iter().enumerate() {
            for name in KEYS {
                let found = daemon.store.lookup(&key(name)).await.unwrap();
                let found = found.map(|(record, ownership)| (record.state, record.attempt, ownership));
                let expected =
                    self.runs.get(name).map(|run| (run.state.clone(), run.attempt, self.ownership(number, run)));
                assert_eq!(found, expected, "{name}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(ops in ops()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for op in &ops {
                world.apply(op).await;
                world.check().await;
            }
        });
    }
}
