//! What happens to an engine's containers, as it happens.

use std::{
    collections::HashMap,
    pin::Pin,
    time::{Duration, Instant},
};

use bollard::{errors::Error as BollardError, models::EventMessage, query_parameters::EventsOptionsBuilder};
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;

use crate::{ContainerId, Engine, Error, ExecId, Product, engine::CALL, wire::Allowance};

/// From [`Engine::events`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// Events arrive from now on. What happened before is not reported, so that whoever keeps a picture of the
    /// containers must look at them all now.
    Connected,
    /// The engine went away, or was not there to begin with; the stream goes on trying. Said once until it changes.
    Disconnected {
        /// Why.
        message: String,
    },
    /// Something happened to a container. May be reported twice around a reconnection.
    Container {
        /// Which.
        id: ContainerId,
        /// Its name at that time.
        name: String,
        /// What.
        action: ContainerAction,
        /// By the engine's clock.
        time: Timestamp,
    },
}

/// What happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "Docker's own names")]
pub enum ContainerAction {
    Create,
    Start,
    /// Its main program has ended.
    Die {
        exit_code: Option<i64>,
    },
    /// Docker only, after `Die`.
    Stop,
    /// A signal was sent. Docker only.
    Kill,
    Pause,
    Unpause,
    Restart,
    Rename,
    /// It was removed.
    Destroy,
    /// Its health check says something else than before.
    HealthStatus,
    /// Docker only.
    ExecCreate {
        exec: Option<ExecId>,
    },
    /// Docker says so before it tries, Podman (without the exec's ID) after it has succeeded.
    ExecStart {
        exec: Option<ExecId>,
    },
    /// A program run by an exec has ended. Podman 4.3 does not say which.
    ExecDie {
        exec: Option<ExecId>,
        exit_code: Option<i64>,
    },
    /// Anything else, in the engine's words.
    Other(String),
}

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl Engine {
    /// Events of all containers, for ever: when the engine goes away it is tried again, after 0.1 s at first and
    /// every 5 s in the end. Dropping the stream ends it.
    ///
    /// # Caveats
    ///
    /// Events are a reason to look, not a record: engines forget them when they restart. A TCP connection that
    /// breaks without a word goes unnoticed, so keep a slow timer beside this stream.
    pub fn events(&self) -> impl Stream<Item = EngineEvent> + Send + 'static + use<> {
        let watch = Watch { engine: self.clone(), source: None, wait: Duration::ZERO, said: None };
        stream::unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) })
    }

    /// When `container` first died or was removed after `since`, as far as the engine's record of events reaches: Docker keeps the
    /// last 256 events of everything and forgets them when it restarts. Times are by the engine's clock.
    ///
    /// # Errors
    /// The engine does not answer, or keeps no record.
    pub async fn ended_after(&self, container: &ContainerId, since: Timestamp) -> Result<Option<Timestamp>, Error> {
        let ends = self.past_events(container, since).await?.into_iter().filter_map(|event| match event {
            EngineEvent::Container { action: ContainerAction::Die { .. } | ContainerAction::Destroy, time, .. } => {
                (time > since).then_some(time)
            }
            _ => None,
        });
        Ok(ends.min())
    }

    /// The exits of execs in `container` that the engine has recorded since `begun`.
    pub(crate) async fn exec_exits_since(
        &self,
        container: &ContainerId,
        begun: Instant,
    ) -> Result<Vec<(Option<ExecId>, i64)>, Error> {
        let now = self.now().await?;
        // In this order: what the answer took makes the time earlier, and nothing is missed.
        let past = jiff::SignedDuration::try_from(begun.elapsed()).unwrap_or(jiff::SignedDuration::MAX);
        let since = now.checked_sub(past).unwrap_or(Timestamp::UNIX_EPOCH);
        // Engines may take whole seconds only.
        let from = since.checked_sub(jiff::SignedDuration::from_secs(1)).unwrap_or(Timestamp::UNIX_EPOCH);
        let exits = self.past_events(container, from).await?.into_iter().filter_map(|event| match event {
            EngineEvent::Container { action: ContainerAction::ExecDie { exec, exit_code }, time, .. } => {
                (time >= since).then_some((exec, exit_code?))
            }
            _ => None,
        });
        Ok(exits.collect())
    }

    /// What the engine has recorded of `container` since then.
    ///
    /// The engines differ in how they are told to end the answer: Docker ends at `until`; Podman with events in a file has nothing
    /// to say where `until` has passed, and ends where no stream is asked for, which Docker does not know.
    async fn past_events(&self, container: &ContainerId, since: Timestamp) -> Result<Vec<EngineEvent>, Error> {
        let end = match self.product().await? {
            Product::Docker => format!("until={}", unix_time(self.now().await?)),
            Product::Podman => "stream=false".to_owned(),
        };
        // {"type":["container"],"container":["<ID>"]}
        let filters = format!("%7B%22type%22%3A%5B%22container%22%5D%2C%22container%22%3A%5B%22{container}%22%5D%7D");
        let path = format!("/events?since={}&{end}&filters={filters}", unix_time(since));
        let body = self.get_body("events", &path).await?;
        let messages: Result<Vec<EventMessage>, _> = serde_json::Deserializer::from_slice(&body).into_iter().collect();
        let messages = messages.map_err(|error| Error::protocol(self.endpoint(), error))?;
        Ok(messages.into_iter().filter_map(translate).collect())
    }

    /// The time by the engine's clock.
    async fn now(&self) -> Result<Timestamp, Error> {
        let info = self.call("info", CALL, |docker| async move { docker.info().await }).await?;
        let text = info.system_time.unwrap_or_default();
        text.parse().map_err(|error: jiff::Error| Error::protocol(self.endpoint(), error))
    }
}

struct Watch {
    engine: Engine,
    source: Option<Source>,
    /// Before the next attempt to connect.
    wait: Duration,
    /// The last `Disconnected` message, while disconnected.
    said: Option<String>,
}

impl Watch {
    async fn next(&mut self) -> EngineEvent {
        loop {
            let Some(source) = &mut self.source else {
                tokio::time::sleep(self.wait).await;
                self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
                match subscribe(&self.engine).await {
                    Ok(source) => {
                        self.source = Some(source);
                        self.said = None;
                        return EngineEvent::Connected;
                    }
                    Err(error) => {
                        if let Some(event) = self.disconnected(with_causes(&error)) {
                            return event;
                        }
                        continue;
                    }
                }
            };
            let message = match source.next().await {
                Some(Ok(message)) => {
                    self.wait = FIRST_WAIT;
                    match translate(message) {
                        Some(event) => return event,
                        None => continue,
                    }
                }
                Some(Err(error)) => with_causes(&Error::from_bollard(self.engine.endpoint(), error)),
                None => "the engine ended the stream of events".to_owned(),
            };
            self.source = None;
            if let Some(event) = self.disconnected(message) {
                return event;
            }
        }
    }

    fn disconnected(&mut self, message: String) -> Option<EngineEvent> {
        if self.said.as_ref() == Some(&message) {
            return None;
        }
        self.said = Some(message.clone());
        Some(EngineEvent::Disconnected { message })
    }
}

type Source = Pin<Box<dyn Stream<Item = Result<EventMessage, BollardError>> + Send>>;

/// Subscribes from the engine's own present on. The engine's time is asked for first: that shows whether it is there,
/// which the stream itself shows only with its first event, and leaves no gap between "connected" and the moment the
/// engine has really subscribed us.
async fn subscribe(engine: &Engine) -> Result<Source, Error> {
    let now = engine.now().await?;
    let filters = HashMap::from([("type", vec!["container"])]);
    let options = EventsOptionsBuilder::default().since(&unix_time(now)).filters(&filters).build();
    let allowance = Allowance::of_a_stream();
    let events = engine.client(&allowance)?.events(Some(options));
    Ok(Box::pin(events.inspect(move |_| allowance.renew())))
}

/// Engines take seconds and nanoseconds, and not all of them RFC 3339.
fn unix_time(time: Timestamp) -> String {
    format!("{}.{:09}", time.as_second(), time.subsec_nanosecond())
}

fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// `None` for what is not about a container or lacks its ID.
fn translate(message: EventMessage) -> Option<EngineEvent> {
    let actor = message.actor?;
    let id = actor.id?.parse().ok()?;
    let mut attributes = actor.attributes.unwrap_or_default();
    let nanoseconds =
        message.time_nano.map_or_else(|| i128::from(message.time.unwrap_or_default()) * 1_000_000_000, i128::from);
    let time = Timestamp::from_nanosecond(nanoseconds).ok()?;
    let action = action(&message.action?, &attributes);
    Some(EngineEvent::Container { id, name: attributes.remove("name").unwrap_or_default(), action, time })
}

fn action(text: &str, attributes: &HashMap<String, String>) -> ContainerAction {
    let exec = || attributes.get("execID").and_then(|id| id.parse().ok());
    let exit_code = || {
        // Podman has the first for containers only, and the second for execs as well.
        let text = attributes.get("exitCode").or_else(|| attributes.get("containerExitCode"));
        text.and_then(|code| code.parse().ok())
    };
    // Docker appends the command line to some.
    match text.split_once(':').map_or(text, |(action, _)| action) {
        "create" => ContainerAction::Create,
        "start" => ContainerAction::Start,
        "die" | "died" => ContainerAction::Die { exit_code: exit_code() },
        "stop" => ContainerAction::Stop,
        "kill" => ContainerAction::Kill,
        "pause" => ContainerAction::Pause,
        "unpause" => ContainerAction::Unpause,
        "restart" => ContainerAction::Restart,
        "rename" => ContainerAction::Rename,
        "health_status" => ContainerAction::HealthStatus,
        "destroy" | "remove" => ContainerAction::Destroy,
        "exec_create" => ContainerAction::ExecCreate { exec: exec() },
        "exec_start" | "exec" => ContainerAction::ExecStart { exec: exec() },
        "exec_die" | "exec_died" => ContainerAction::ExecDie { exec: exec(), exit_code: exit_code() },
        other => ContainerAction::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(attributes: &[(&str, &str)]) -> HashMap<String, String> {
        attributes.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn both_engines_words_mean_the_same_action() {
        assert_eq!(action("destroy", &with(&[])), action("remove", &with(&[])));
        assert_eq!(action("die", &with(&[("exitCode", "137")])), ContainerAction::Die { exit_code: Some(137) });
        assert_eq!(
            action("exec_died", &with(&[("containerExitCode", "7")])),
            ContainerAction::ExecDie { exec: None, exit_code: Some(7) }
        );
    }

    #[test]
    fn dockers_command_line_is_not_part_of_the_action() {
        let exec = "ab".repeat(32);
        assert_eq!(
            action("exec_start: sh -c echo a:b", &with(&[("execID", &exec)])),
            ContainerAction::ExecStart { exec: Some(exec.parse().unwrap()) }
        );
    }

    #[test]
    fn unix_time_keeps_the_nanoseconds() {
        assert_eq!(unix_time("2026-11-25T02:31:14.000000009Z".parse().unwrap()), "1795573874.000000009");
    }
}
