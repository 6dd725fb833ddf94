//! Launches a run.

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use oncelet_api::{Capture as Wanted, ContainerExec};
use oncelet_core::{
    Blocked, Capture, Description, ExecSpec, Input, Reason, Resolved, RunEvent, RunKey, RunRecord, StdinDigest,
};
use oncelet_engine::supervise::{self, Supervision, Supervisor};
use oncelet_engine::{Container, ContainerState, ErrorKind, ExecId, NewExec};
use oncelet_faults::gives_up;
use oncelet_store::{Advance, Claim, Lease, NewRun, Store};

use crate::act::{SOON, Shown, What, blocked_by_engine};
use crate::context::{Ctx, one_line};
use crate::follow::supervised::{Step, watch};
use crate::follow::{Run, attached};
use crate::names::Names;
use crate::{convert, uploads};

/// Who is to watch over a program.
enum Watcher {
    /// A supervisor, which is in place.
    Supervisor(Supervisor),
    /// The container already holds the run, which the store has lost: its supervisor's record is read, nothing is started.
    Record,
    /// The daemon.
    Daemon {
        /// Why.
        reason: String,
    },
}

/// Claims the run, makes its exec, and hands it to a task that starts and follows it.
///
/// # Guarantees
/// - Each step is in the store before the next has an effect: claim, then create; exec ID, then start.
/// - Dropped half-way it leaves a claim that nobody looks after, which the next look recovers.
pub(crate) async fn launch(
    ctx: &Ctx,
    exec: &ContainerExec,
    container: &Container,
    key: RunKey,
    mut resolved: Resolved,
) -> Shown {
    let key = match key_in(ctx, exec, container, key).await {
        Ok(key) => key,
        Err(blocked) => return Shown::waiting(blocked),
    };
    let store = match ctx.store.get() {
        Ok(store) => store,
        Err(message) => return Shown::waiting(Blocked { reason: Reason::StoreUnavailable, message }),
    };
    // Whoever has the care launches; everybody else sees its record soon.
    let Some(care) = ctx.runs.take(&key) else { return Shown::again_after(SOON) };
    let watcher = match watcher(ctx, exec, container, &key).await {
        Ok(watcher) => watcher,
        Err(blocked) => return Shown::waiting(blocked),
    };
    // Putting the supervisor in place takes its time, and a request may be withdrawn meanwhile.
    if !is_wanted(ctx, exec) {
        return Shown { what: What::Nothing, retry: None };
    }
    let engine_id = match ctx.engine.identity().await {
        Ok(identity) => identity,
        Err(error) => return Shown::waiting(blocked_by_engine(&error)),
    };
    let spec = convert::exec_spec(exec);
    let now = (ctx.now)();
    let description = Description {
        key: key.clone(),
        object_uid: spec.uid.clone(),
        program: spec.program.clone(),
        // No hash of a secret leaves the store.
        effective: resolved.effective.clone().without_hashes(),
        log_limit: Some(convert::log_limit(exec)),
        claimed_at: now,
        container_started_at: match container.state {
            ContainerState::Running { started_at } => started_at,
            _ => None,
        },
    };
    let effective = resolved.effective.clone();
    let stdin = resolved.stdin.take();
    let digest = stdin.as_ref().map(Input::digest);
    let new_exec = new_exec(&spec, resolved);
    let claim = store
        .claim(NewRun {
            key,
            container_id: container.id.to_string(),
            container_name: container.name.clone(),
            engine: ctx.engine.endpoint().to_owned(),
            engine_id: Some(engine_id),
            object_uid: spec.uid,
            objects: ctx.objects.in_store(&store),
            program: spec.program,
            effective,
            log_limit: convert::log_limit(exec),
            capture: match &watcher {
                Watcher::Supervisor(_) | Watcher::Record => Capture::Supervised,
                Watcher::Daemon { reason } => Capture::Attached { reason: reason.clone() },
            },
            now,
        })
        .await;
    let lease = match claim {
        Ok(Claim::Won(lease)) => lease,
        Ok(Claim::Held(..)) => return Shown::again(),
        Err(error) => return Shown::store_problem(&error),
    };
    if gives_up("claimed") {
        return Shown::again();
    }
    match create_exec(ctx, &store, exec, container, &watcher, &new_exec, digest, &lease, &description).await {
        Ok((exec_id, record)) => {
            if gives_up("exec-recorded") {
                return Shown::again();
            }
            let run = Run { lease, care, log_limit: record.log_limit };
            match watcher {
                Watcher::Supervisor(_) => {
                    let stdin = stdin.map(|input| uploads::source(&ctx.client, exec, input));
                    ctx.watch(watch(ctx.clone(), store, run, record.clone(), Step::Start(exec_id, stdin)));
                }
                Watcher::Record => ctx.watch(watch(ctx.clone(), store, run, record.clone(), Step::Examine)),
                Watcher::Daemon { .. } => {
                    ctx.tasks.spawn(attached::start(ctx.clone(), store, run, container.id.clone(), exec_id, false));
                }
            }
            Shown::run(record, None)
        }
        Err(Some(blocked)) => {
            if let Err(error) = store.release(lease).await {
                // The claim stays and is recovered: nothing was started under it.
                tracing::warn!("a claim could not be given back: {}", one_line(&error));
            }
            Shown::waiting(blocked)
        }
        Err(None) => Shown::again(),
    }
}

/// The key under which the container may hold a run that the store has lost: `key`, or the one that its run key stood for before.
async fn key_in(ctx: &Ctx, exec: &ContainerExec, container: &Container, key: RunKey) -> Result<RunKey, Blocked> {
    let Some(names) = Names::of(ctx, exec).filter(|names| names.now == key.name) else { return Ok(key) };
    let before = names.key_before(&key);
    let is_held = ctx.engine.has_record(&container.id, &before.digest(), exec.spec.user.as_deref()).await;
    if !is_held.map_err(|error| blocked_by_engine(&error))? {
        return Ok(key);
    }
    // Whose it is was lost with the store, unless it is the namespace's own.
    names.judge("", &exec.uid().unwrap_or_default()).map(|_| before)
}

/// Whether the object is still there to ask for it.
fn is_wanted(ctx: &Ctx, exec: &ContainerExec) -> bool {
    let now = ctx.execs.get(&ObjectRef::from_obj(exec));
    now.is_some_and(|now| now.metadata.uid == exec.metadata.uid && now.metadata.deletion_timestamp.is_none())
}

/// Puts a supervisor in place, if one is wanted and can be had.
async fn watcher(ctx: &Ctx, exec: &ContainerExec, container: &Container, key: &RunKey) -> Result<Watcher, Blocked> {
    let wanted = exec.spec.capture.unwrap_or_default();
    let has_stdin = exec.spec.stdin.is_some();
    if wanted == Wanted::Attached && has_stdin {
        let message =
            "spec.stdin is set, which only a supervisor in the container can deliver, and spec.capture is Attached";
        return Err(Blocked { reason: Reason::NotSupervisable, message: message.to_owned() });
    }
    if wanted == Wanted::Attached {
        return attached(ctx, exec, container, key, "spec.capture is Attached".to_owned()).await;
    }
    let error = match ctx.engine.supervise(&container.id, exec.spec.user.as_deref()).await {
        Ok(supervisor) => return Ok(Watcher::Supervisor(supervisor)),
        Err(error) if error.kind() == ErrorKind::NotSupervisable => error,
        Err(error) => return Err(blocked_by_engine(&error)),
    };
    let needed_for = if wanted == Wanted::Supervised {
        "spec.capture is Supervised"
    } else if exec.spec.timeout_seconds.is_some() {
        "spec.timeoutSeconds is set"
    } else if convert::kills_on_delete(exec) {
        "spec.onDelete is Kill"
    } else if has_stdin {
        "spec.stdin is set"
    } else {
        return attached(ctx, exec, container, key, one_line(&error)).await;
    };
    let message = format!("{}; {needed_for}, which only a supervisor in the container can do", one_line(&error));
    Err(Blocked { reason: Reason::NotSupervisable, message })
}

/// The daemon is to watch, unless the container holds the run already: an attached program asks no gate, so the gate is looked at
/// before it is started.
async fn attached(
    ctx: &Ctx,
    exec: &ContainerExec,
    container: &Container,
    key: &RunKey,
    reason: String,
) -> Result<Watcher, Blocked> {
    let is_held = ctx.engine.has_record(&container.id, &key.digest(), exec.spec.user.as_deref()).await;
    let is_held = is_held.map_err(|error| blocked_by_engine(&error))?;
    Ok(if is_held { Watcher::Record } else { Watcher::Daemon { reason } })
}

fn new_exec(spec: &ExecSpec, resolved: Resolved) -> NewExec {
    NewExec {
        command: std::iter::once(spec.program.command.clone()).chain(resolved.args).collect(),
        env: resolved.env,
        working_directory: spec.program.working_directory.clone(),
        user: spec.program.user.clone(),
    }
}

/// Makes the exec and stores its ID. `Err(None)` where the claim was lost meanwhile.
#[expect(clippy::too_many_arguments, reason = "one step of `launch`, named")]
async fn create_exec(
    ctx: &Ctx,
    store: &Store,
    exec: &ContainerExec,
    container: &Container,
    watcher: &Watcher,
    new_exec: &NewExec,
    stdin: Option<StdinDigest>,
    lease: &Lease,
    description: &Description,
) -> Result<(ExecId, RunRecord), Option<Blocked>> {
    let created = match watcher {
        Watcher::Supervisor(supervisor) => {
            let supervision = Supervision {
                run: description.key.digest(),
                nonce: lease.nonce(),
                timeout: convert::timeout(exec),
                grace: convert::grace(exec),
                stdin: stdin.map(|StdinDigest { bytes, sha256 }| supervise::StdinDigest { bytes, sha256 }),
                log_limit: description.log_limit,
                // A value of plain structs always has a form in JSON.
                description: serde_json::to_value(description).unwrap_or_default(),
            };
            ctx.engine.create_supervised(supervisor, new_exec, &supervision).await
        }
        // Where the record is there already the exec is never started; it stands for the run in the store.
        Watcher::Record | Watcher::Daemon { .. } => ctx.engine.create_exec(&container.id, new_exec).await,
    };
    let exec_id = created.map_err(|error| Some(blocked_by_engine(&error)))?;
    if gives_up("exec-created") {
        return Err(None);
    }
    let event = RunEvent::ExecCreated { exec_id: exec_id.to_string() };
    match store.advance(lease, event).await {
        Ok(Advance::Done(record)) => Ok((exec_id, record)),
        Ok(Advance::Lost) => Err(None),
        Err(error) => Err(Some(Blocked { reason: Reason::StoreUnavailable, message: one_line(&error) })),
    }
}
