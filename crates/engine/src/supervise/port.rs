//! Waiting for a port of a container, from inside.

use std::time::Duration;

use oncelet_shim::Task;
use oncelet_shim::frame::Frame;

use super::run::Frames;
use super::{SupervisedEnd, install};
use crate::exec::Stdin;
use crate::{ContainerId, Engine, Error};

pub use oncelet_shim::{PortState, PortTry};

/// A supervisor that tries to connect to a port of its container. It ends when this is dropped.
pub struct PortProbe {
    engine: Engine,
    container: ContainerId,
    frames: Frames,
    /// Its end is the supervisor's.
    _stdin: Option<Stdin>,
}

impl Engine {
    /// Has a supervisor in the container try to connect to a TCP port, at the container's own addresses, until connections have
    /// succeeded for `stable` or `limit` is over.
    ///
    /// # Errors
    /// As [`Engine::supervise`].
    pub async fn probe_port(
        &self,
        container: &ContainerId,
        port: u16,
        stable: Duration,
        limit: Duration,
    ) -> Result<PortProbe, Error> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let supervisor = self.supervise(container, None).await?;
        let task = Task::AwaitPort { port, stable_ms: ms(stable), limit_ms: ms(limit) };
        let exec = self.create_task(&supervisor, task, None, true).await?;
        let (running, stdin) = self.start_supervisor(&exec, container).await?;
        Ok(PortProbe {
            engine: self.clone(),
            container: container.clone(),
            frames: Frames::new(running),
            _stdin: stdin,
        })
    }
}

impl PortProbe {
    /// The next change of what connections come to, at first what they come to now. `None` where the time is over, or
    /// [`PortState::Open`] was told.
    ///
    /// # Errors
    /// `Supervisor` where it has ended in another way: the container has stopped, or the connection to the engine broke.
    pub async fn next(&mut self) -> Result<Option<PortState>, Error> {
        let message = match self.frames.next().await {
            Ok(Frame::Port(state)) => return Ok(Some(state)),
            Ok(Frame::Done) => return Ok(None),
            Ok(Frame::Unusable(refusal)) => refusal.message,
            Ok(other) => format!("it answered with {}", other.name()),
            Err(SupervisedEnd::FailedToStart { message, .. }) => {
                if install::is_about_supervisor(&message) {
                    self.engine.forget_supervisor(&self.container);
                }
                message
            }
            Err(SupervisedEnd::Lost { message }) => message,
            Err(other) => format!("{other:?}"),
        };
        Err(Error::Supervisor { container: self.container.to_string(), message })
    }
}
