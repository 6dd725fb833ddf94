//! Ends programs before their time.

use oncelet_api::ContainerExec;
use oncelet_core::{Capture, EndedBy, RunRecord};
use oncelet_engine::supervise::StopReason;

use crate::context::{Ctx, one_line};
use crate::convert;

/// Ends the program of `record` in a task of its own; the end comes back as that of any program. What is returned is for
/// people: why it cannot be ended.
///
/// # Guarantees
/// It may be asked for again at any time, by any daemon: a program is ended once.
pub(crate) fn end(ctx: &Ctx, exec: &ContainerExec, record: &RunRecord, by: EndedBy) -> Option<String> {
    if let Capture::Attached { reason } = &record.capture {
        return Some(format!("the program cannot be ended: nobody watches over it in the container ({reason})"));
    }
    // Somebody is at it.
    let ending = ctx.endings.take(&record.key)?;
    let (ctx, record, grace) = (ctx.clone(), record.clone(), convert::grace(exec));
    let reason = match by {
        EndedBy::Delete => StopReason::Delete,
        EndedBy::Timeout => StopReason::Timeout,
        EndedBy::Stop | EndedBy::Container => StopReason::Stop,
    };
    ctx.clone().watch(async move {
        let Ok(container) = record.container_id.parse() else { return };
        tracing::info!(run = %record.id, key = %record.key, "ending the program");
        let (run, user) = (record.key.digest(), record.program.user.as_deref());
        if let Err(error) = ctx.engine.stop_supervised(&container, &run, user, reason, grace).await {
            tracing::warn!(run = %record.id, "the program is not ended yet: {}", one_line(&error));
        }
        drop(ending);
        // Should it still run, the next look tries again.
        ctx.wake(&record.key.name);
    });
    None
}
