//! What the end of a stream means.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::sleep;

use super::{Case, Held, StreamEnd};
use crate::words::shown;
use crate::{Error, ExecEnd, ExecState, LostReason, OutputStream, Product, exec::Inspected, start_failure};

/// Docker's code for every failure to start, and its invention where its own end of a stream broke.
const CANNOT_EXECUTE: i64 = 126;
/// 128 + a signal. A container that ends sends its programs SIGKILL; one with the host's process namespace, on Podman, the
/// signal that stops it.
const BY_A_SIGNAL: std::ops::RangeInclusive<i64> = 129..=192;
/// What engines report where a program did not start.
const START_FAILURES: std::ops::RangeInclusive<i64> = 125..=127;
/// How long an engine may take to record an exit that has shown otherwise already.
const PATIENT: &[u64] = &[0, 100, 200, 400];

impl Case {
    /// Judges the end. `held` is given while it is unproven that the program ran: all its output, or the engine's
    /// explanation.
    pub(super) async fn judge(&self, held: Option<&Held>, stream_end: StreamEnd) -> ExecEnd {
        match stream_end {
            StreamEnd::Broken(message) => return lost(LostReason::ConnectionBroken, message),
            StreamEnd::Refused(message) => return lost(LostReason::StartedElsewhere, message),
            StreamEnd::Clean => {}
        }
        let inspected = match self.inspect_until_over().await {
            Ok(inspected) => inspected,
            Err(error) => return lost(LostReason::EngineUnreachable, error.to_string()),
        };
        match inspected.state {
            ExecState::Exited { exit_code } => self.judge_exit(held, exit_code, inspected.pid).await,
            ExecState::Gone => match self.ended_with().await {
                Some(message) => ExecEnd::Interrupted { exit_code: None, message },
                None => lost(LostReason::ExecForgotten, "the engine does not know this exec any more".to_owned()),
            },
            ExecState::NeverStarted => self.judge_untouched(held).await,
            ExecState::Running { .. } => no_exit_code(),
        }
    }

    /// Docker, where the container stopped or was paused just before the start, explains itself and leaves the exec as
    /// it was. From Podman the same state proves nothing: it may only be late.
    async fn judge_untouched(&self, held: Option<&Held>) -> ExecEnd {
        let text = held.map(|held| held.text(OutputStream::Stdout)).unwrap_or_default();
        match self.engine.product().await {
            Ok(Product::Docker) if !text.is_empty() => failed_to_start(text),
            Ok(_) => no_exit_code(),
            Err(error) => lost(LostReason::EngineUnreachable, error.to_string()),
        }
    }

    /// The end, if it is not the program that ended: what came is then the engine's explanation. Saying so falsely
    /// would let a program run twice, so that every sign must agree.
    async fn never_ran(&self, held: &Held, exit_code: i64) -> Result<Option<ExecEnd>, Error> {
        let (stdout, stderr) = (held.text(OutputStream::Stdout), held.text(OutputStream::Stderr));
        match self.engine.product().await? {
            Product::Docker => {
                // Docker notes the pid and the exit in different threads: a second look excludes a pid that was late.
                sleep(Duration::from_millis(50)).await;
                let had_a_pid = self.engine.inspect(&self.exec).await?.pid != 0;
                if had_a_pid || self.exit_is_recorded(exit_code, &[0]).await? {
                    return Ok(None);
                }
                Ok(Some(if stderr.is_empty() && !stdout.is_empty() {
                    failed_to_start(stdout)
                } else {
                    let message = format!("the engine says {exit_code}, of a program that it never saw running");
                    lost(LostReason::DoubtfulExitCode, message)
                }))
            }
            Product::Podman => {
                let report = start_failure::podman_report(&stderr).filter(|_| stdout.is_empty());
                let Some(message) = report else { return Ok(None) };
                // Its log may be switched off; then the report alone has to do. It also has to where a supervisor was to start: the
                // log does not name execs, an earlier one may have ended with the same code, and the gate lets nothing run twice.
                let ran = self.life.is_some() && self.exit_is_recorded(exit_code, PATIENT).await.unwrap_or(false);
                Ok((!ran).then(|| failed_to_start(message)))
            }
        }
    }

    async fn judge_exit(&self, held: Option<&Held>, exit_code: i64, pid: i64) -> ExecEnd {
        if let Some(held) = held.filter(|_| pid == 0 && START_FAILURES.contains(&exit_code)) {
            match self.never_ran(held, exit_code).await {
                Ok(Some(end)) => return end,
                Ok(None) => {}
                Err(error) => return lost(LostReason::EngineUnreachable, error.to_string()),
            }
        }
        match exit_code {
            exit_code if BY_A_SIGNAL.contains(&exit_code) => {
                if let Some(message) = self.end_of_life().await {
                    return ExecEnd::Interrupted { exit_code: Some(exit_code), message };
                }
            }
            CANNOT_EXECUTE if pid != 0 => {
                if !self.exit_is_recorded(exit_code, PATIENT).await.unwrap_or(false) {
                    let message = "the engine says 126, as it also does by mistake, and has no event of the exit";
                    return lost(LostReason::DoubtfulExitCode, message.to_owned());
                }
            }
            0..=255 => {}
            other => {
                let message = format!("the engine says {other}, which is no exit code of a program");
                return lost(LostReason::DoubtfulExitCode, message);
            }
        }
        ExecEnd::Exited { exit_code }
    }

    /// A program may close its output and run on; it is waited for. Podman may need a moment to notice an end, which
    /// looks like "never started" there.
    async fn inspect_until_over(&self) -> Result<Inspected, Error> {
        let mut wait = Duration::from_millis(10);
        let mut unsettled = 0;
        let mut running = 0;
        loop {
            let inspected = self.engine.inspect(&self.exec).await?;
            match inspected.state {
                ExecState::Running { .. } => {
                    running += 1;
                    // More than the moment between the end of the output and that of the program.
                    if running > 4 {
                        self.incomplete.store(true, Ordering::Relaxed);
                    }
                }
                ExecState::NeverStarted if unsettled < 6 => unsettled += 1,
                _ => return Ok(inspected),
            }
            sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(1));
        }
    }

    /// What ended the container's life in which the program was started, if it is over and anybody noted which it was.
    async fn ended_with(&self) -> Option<String> {
        self.life.as_ref()?.end(&self.engine, &self.container).await
    }

    /// Docker reports the death of a container's programs up to half a second before that of the container.
    async fn end_of_life(&self) -> Option<String> {
        self.life.as_ref()?;
        for wait in [0, 50, 100, 200, 400, 800] {
            sleep(Duration::from_millis(wait)).await;
            if let Some(message) = self.ended_with().await {
                return Some(message);
            }
        }
        None
    }

    /// Whether the engine's events tell of this program's exit; looks again after each of `waits`, in milliseconds.
    /// Such an event follows only a program that ran.
    async fn exit_is_recorded(&self, exit_code: i64, waits: &[u64]) -> Result<bool, Error> {
        for wait in waits {
            sleep(Duration::from_millis(*wait)).await;
            let exits = self.engine.exec_exits_since(&self.container, self.begun).await?;
            let ours = |exec: &Option<_>| exec.as_ref().is_none_or(|exec| *exec == self.exec);
            if exits.iter().any(|(exec, code)| *code == exit_code && ours(exec)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "made for it")]
fn failed_to_start(message: String) -> ExecEnd {
    // It came over the program's own stream.
    ExecEnd::FailedToStart { reason: start_failure::reason(&message), message: shown(&message) }
}

fn no_exit_code() -> ExecEnd {
    lost(LostReason::NoExitCode, "the engine names no exit code".to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "made for it")]
pub(super) fn lost(reason: LostReason, message: String) -> ExecEnd {
    ExecEnd::Lost { reason, message: shown(&message) }
}
