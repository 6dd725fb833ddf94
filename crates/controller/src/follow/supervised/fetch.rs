//! Moves a run's output from the container's disk to the store's.

use futures::TryStreamExt;
use oncelet_engine::supervise::SupervisedRun;
use oncelet_engine::{Error as EngineError, ErrorKind};

use super::super::LOOK;
use super::super::output::Outputs;
use super::{SHORTLY, Watch, stored};
use crate::context::one_line;

/// How often output that the store did not take is offered again before the outcome is stored without it.
const TRIES: u32 = 5;
/// After how much output the container's disk is freed of it: not more often, for the store's disk has to be waited for.
pub(super) const MUCH: u64 = 1024 * 1024;
/// The same while the program writes little.
pub(super) const SOME: u64 = 64 * 1024;

/// What became of the output in the container.
#[derive(PartialEq, Eq)]
pub(super) enum Fetched {
    /// All that there is, is stored.
    All,
    /// The store did not take it. It stays in the container.
    NotStored,
}

impl Watch {
    /// Has the container's disk freed of what is on the store's, where at least so many bytes came since that was done last.
    pub(super) async fn acknowledge(&mut self, stream: &SupervisedRun, least: u64) {
        let [stdout, stderr] = self.outputs.offsets();
        if stdout + stderr < self.acknowledged + least {
            return;
        }
        self.acknowledged = stdout + stderr;
        if let Some(safe) = self.outputs.sync().await {
            stream.acknowledge(safe);
        }
    }

    /// Reads from the container's disk what has not come yet: up to what was kept of each stream, or all there is, and never more than
    /// the run's limit, for what lies there may not be the supervisor's.
    pub(super) async fn fetch_output(&mut self, kept: [u64; 2]) -> Fetched {
        let kept = kept.map(|kept| kept.min(self.run.log_limit.unwrap_or(u64::MAX)));
        let mut broken = 0;
        for tries in 1.. {
            if self.outputs.failed() {
                // Begins anew after the last byte that is on the store's disk.
                self.outputs = Outputs::open(&self.store, &self.run, self.ctx.now).await;
            }
            let fetched = self.fetch(kept).await;
            // Only what is in the file is kept.
            self.outputs.flush().await;
            match fetched {
                Ok(()) if !self.outputs.failed() => return Fetched::All,
                Err(error) if error.kind() == ErrorKind::Unreachable && broken < TRIES => {
                    // An engine that answers breaks off where a file changes while it is read.
                    broken += u32::from(self.ctx.engine.container(self.container.as_str()).await.is_ok());
                    tracing::warn!(run = %self.record.id, "its output waits for the engine: {}", one_line(&error));
                    tokio::time::sleep(LOOK).await;
                }
                Ok(()) if tries < TRIES => tokio::time::sleep(tries * SHORTLY * 4).await,
                Ok(()) => break,
                // The output or the container is gone.
                Err(error) => {
                    tracing::warn!(run = %self.record.id, "a part of its output is lost: {}", one_line(&error));
                    return Fetched::All;
                }
            }
        }
        Fetched::NotStored
    }

    async fn fetch(&mut self, kept: [u64; 2]) -> Result<(), EngineError> {
        let from = self.outputs.offsets();
        if from[0] >= kept[0] && from[1] >= kept[1] {
            return Ok(());
        }
        let output = self.ctx.engine.read_output(&self.container, &self.digest, self.user(), from, kept);
        let mut output = output.await?;
        while let Some((stream, offset, bytes)) = output.try_next().await? {
            self.outputs.get_mut(stored(stream)).write_at(offset, bytes).await;
        }
        Ok(())
    }
}
