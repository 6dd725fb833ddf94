//! Lives of containers, from a start to a stop: whoever follows a run in one learns when it may be over.
//!
//! The engine's stream of a run does not always end with the container: with the host's process namespace it stays open after
//! a restart or a removal. What the engine says of the container itself is what counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use oncelet_engine::{Container, ContainerAction, ContainerId, ContainerState, Engine, EngineEvent};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// How long between two looks at a container that nothing is heard of: events can be lost.
const SAFETY_NET: Duration = Duration::from_secs(30);
/// How many ends of one container are kept while runs in it are followed.
const ENDS: usize = 16;

/// All containers in which runs are followed. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Lives(Arc<Mutex<HashMap<ContainerId, watch::Sender<Vec<Timestamp>>>>>);

impl Lives {
    /// Tells those who follow runs of what an engine says.
    pub(crate) fn hear(&self, event: &EngineEvent) {
        use ContainerAction::{Destroy, Die, Restart, Start, Stop, Unpause};
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            // What happened meanwhile was not told.
            EngineEvent::Connected => all.values().for_each(|told| told.send_modify(|_| {})),
            EngineEvent::Container { id, action, time, .. } => {
                let Some(told) = all.get(id) else { return };
                match action {
                    Die { .. } | Destroy => told.send_modify(|ends| {
                        if ends.len() < ENDS {
                            ends.push(*time);
                        }
                    }),
                    Start | Stop | Restart | Unpause => told.send_modify(|_| {}),
                    _ => {}
                }
            }
            EngineEvent::Disconnected { .. } => {}
        }
    }

    /// The present life of `container`, from now on. `began` is when it began, where that is known.
    pub(crate) fn of(&self, engine: &Engine, container: &ContainerId, began: Option<Timestamp>) -> Life {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, told| told.receiver_count() > 0);
        let told = all.entry(container.clone()).or_default().subscribe();
        let mut net = tokio::time::interval_at(Instant::now() + SAFETY_NET, SAFETY_NET);
        net.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Life { engine: engine.clone(), container: container.clone(), began, told, net }
    }
}

/// One life of a container, while a run in it is followed.
pub(crate) struct Life {
    engine: Engine,
    container: ContainerId,
    began: Option<Timestamp>,
    told: watch::Receiver<Vec<Timestamp>>,
    net: Interval,
}

/// How a life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// What happened to the container.
    pub(crate) what: &'static str,
    /// When at the latest, where the container says so.
    pub(crate) at: Option<Timestamp>,
}

impl Life {
    /// It began then, as an examination has shown.
    pub(crate) fn began(&mut self, at: Timestamp) {
        self.began = Some(at);
    }

    /// Waits until it may be over. Cancel-safe.
    pub(crate) async fn may_be_over(&mut self) {
        tokio::select! {
            // Nobody lets go of the sender while this waits.
            Ok(()) = self.told.changed() => {}
            _ = self.net.tick() => {}
        }
    }

    /// How it ended, if it is over. Where it is not known when it began, what began after `at_latest` is another one; without
    /// that, what is found is taken for it.
    pub(crate) async fn end(&mut self, at_latest: Option<Timestamp>) -> Option<End> {
        // Not knowing is not an end.
        let found = self.engine.container(self.container.as_str()).await.ok()?;
        end(found.as_ref(), &mut self.began, at_latest)
    }

    /// When it ended, as near as can be known: what the engine has told, or else has on record, or else `at` at the latest.
    /// `since` is a time in it.
    pub(crate) async fn ended_at(&self, since: Timestamp, at: Option<Timestamp>) -> Option<Timestamp> {
        let told = self.told.borrow().iter().filter(|end| **end > since).min().copied();
        let told = match told {
            Some(told) => Some(told),
            None => self.engine.ended_after(&self.container, since).await.unwrap_or_else(|error| {
                tracing::debug!(container = %self.container, "the engine's record of events cannot be read: {error}");
                None
            }),
        };
        told.into_iter().chain(at).min()
    }
}

fn end(found: Option<&Container>, began: &mut Option<Timestamp>, at_latest: Option<Timestamp>) -> Option<End> {
    let (what, at) = match found.map(|found| &found.state) {
        Some(ContainerState::Running { started_at: Some(started_at) }) => {
            let is_other = match *began {
                Some(began) => *started_at != began,
                None => at_latest.is_some_and(|at_latest| *started_at > at_latest),
            };
            if !is_other {
                *began = Some(*started_at);
                return None;
            }
            ("was restarted", Some(*started_at))
        }
        Some(ContainerState::Running { started_at: None } | ContainerState::Paused) => return None,
        Some(ContainerState::Exited { finished_at, .. }) => ("stopped", *finished_at),
        Some(ContainerState::Created | ContainerState::Restarting) => ("stopped", None),
        Some(ContainerState::Removing | ContainerState::Dead) | None => ("was removed", None),
    };
    Some(End { what, at })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn id(digit: char) -> ContainerId {
        digit.to_string().repeat(64).parse().unwrap()
    }

    fn container(state: ContainerState) -> Container {
        Container {
            id: id('a'),
            name: "db".to_owned(),
            image: String::new(),
            image_id: None,
            created: at(0),
            state,
            env: Vec::new(),
            labels: std::collections::BTreeMap::new(),
            ports: Vec::new(),
            ip_address: None,
            hostname: String::new(),
            health: None,
        }
    }

    fn told(digit: char, action: ContainerAction, second: i64) -> EngineEvent {
        EngineEvent::Container { id: id(digit), name: String::new(), action, time: at(second) }
    }

    fn engine() -> Engine {
        Engine::connect(&"unix:///nonexistent/engine.sock".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_life_ends_with_the_container_or_with_its_next_start() {
        let since = |second: i64| container(ContainerState::Running { started_at: Some(at(second)) });
        let mut began = Some(at(5));
        assert_eq!(end(Some(&since(5)), &mut began, None), None);
        assert_eq!(end(Some(&container(ContainerState::Paused)), &mut began, None), None);
        let restarted = Some(End { what: "was restarted", at: Some(at(9)) });
        assert_eq!(end(Some(&since(9)), &mut began, None), restarted, "the engine started it again within moments");
        let stopped = ContainerState::Exited { exit_code: 137, finished_at: Some(at(8)) };
        assert_eq!(end(Some(&container(stopped)), &mut began, None), Some(End { what: "stopped", at: Some(at(8)) }));
        assert_eq!(end(None, &mut began, None), Some(End { what: "was removed", at: None }));

        let mut unknown = None;
        assert_eq!(end(Some(&since(9)), &mut unknown, Some(at(6))), restarted);
        assert_eq!((end(Some(&since(5)), &mut unknown, Some(at(6))), unknown), (None, Some(at(5))));
    }

    #[tokio::test(start_paused = true)]
    async fn each_event_that_may_end_a_life_is_told_to_those_who_follow_runs_in_it() {
        let lives = Lives::default();
        let mut life = lives.of(&engine(), &id('a'), None);
        for event in [
            told('a', ContainerAction::Die { exit_code: Some(0) }, 3),
            told('a', ContainerAction::Start, 3),
            told('a', ContainerAction::Destroy, 4),
            EngineEvent::Connected,
        ] {
            lives.hear(&event);
            assert!(life.may_be_over().now_or_never().is_some(), "{event:?}");
            assert!(life.may_be_over().now_or_never().is_none(), "{event:?} is told once");
        }
        for event in [told('b', ContainerAction::Destroy, 1), told('a', ContainerAction::Rename, 5)] {
            lives.hear(&event);
            assert!(life.may_be_over().now_or_never().is_none(), "{event:?}");
        }
        let begun = Instant::now();
        life.may_be_over().await;
        assert_eq!(begun.elapsed(), SAFETY_NET, "a lost event delays, and loses nothing");
        // Not before the run: an event may be late.
        assert_eq!(life.ended_at(at(2), Some(at(6))).await, Some(at(3)));
        assert_eq!(life.ended_at(at(3), Some(at(6))).await, Some(at(4)));
        drop(life);
        drop(lives.of(&engine(), &id('b'), None));
        assert!(!lives.0.lock().unwrap().contains_key(&id('a')), "what nobody follows is forgotten");
    }
}
