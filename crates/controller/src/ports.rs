//! The ports that execs wait for.
//!
//! A *door* is a port in one life of one container. It has one probe, however many execs wait for it: the first look begins it,
//! each change calls for a look at all who wait, and that it is open stays known until the container's next life. It ends when nobody
//! waits any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use oncelet_api::ContainerExec;
use oncelet_core::{Blocked, Reason, RunName, SeenPort, WantedPort, port_ready};
use oncelet_engine::supervise::{PortProbe, PortState};
use oncelet_engine::{Container, ContainerId, ContainerState, Error as EngineError, ErrorKind};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::act::blocked_by_engine;
use crate::context::{Ctx, one_line};
use crate::convert;

/// How long the first look waits for what the probe finds: to say that nothing is known yet would be a status that is wrong as soon
/// as it is written.
const AT_FIRST: Duration = Duration::from_secs(1);
/// After how long a probe in the container is made anew: one whose end never came does not stay for ever.
const LIMIT: Duration = Duration::from_mins(2);
/// How long between two looks for who still waits, and whose time is over.
const TICK: Duration = Duration::from_secs(1);
/// An exec that has not been looked at for so long waits no more: whoever waits is looked at each half minute.
const FORGOTTEN: Duration = Duration::from_secs(90);
/// How long an open door that nobody asks for stays known.
const REMEMBERED: Duration = Duration::from_mins(10);
/// How long before the next try where none could be made.
const PAUSE: Duration = Duration::from_secs(2);
/// The same, where no supervisor can be had in the container.
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// All doors. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Ports(Arc<Mutex<HashMap<Door, Watched>>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Door {
    engine: String,
    container: ContainerId,
    started_at: Option<Timestamp>,
    port: u16,
    stable: Duration,
}

/// What connections come to, or why none can be made.
type Seen = Result<SeenPort, Blocked>;

struct Watched {
    seen: watch::Receiver<Seen>,
    waiting: HashMap<ObjectRef<ContainerExec>, Waiting>,
    /// When somebody last asked.
    asked: Instant,
    /// Ends the probe.
    _end: DropGuard,
}

/// An exec that waits for a door.
struct Waiting {
    uid: Option<String>,
    run: RunName,
    since: Instant,
    asked: Instant,
    /// When it has waited for too long, until it has been called for because of that.
    deadline: Option<Instant>,
}

impl Ports {
    /// Nothing is known any more of what a container's ports are: it does not run.
    pub(crate) fn forget(&self, container: &ContainerId) {
        self.with(|doors| doors.retain(|door, _| door.container != *container));
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<Door, Watched>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that `exec` waits for `door`, whose probe begins where there is none. Returns what is seen of it and for how long the exec
    /// has waited.
    fn ask(
        &self,
        ctx: &Ctx,
        exec: &ContainerExec,
        door: &Door,
        wanted: &WantedPort,
    ) -> (watch::Receiver<Seen>, Duration) {
        let name = ObjectRef::from_obj(exec);
        let now = Instant::now();
        self.with(|doors| {
            doors.retain(|other, watched| {
                if other != door {
                    watched.waiting.remove(&name);
                }
                let is_earlier_life = other.container == door.container && other.started_at != door.started_at;
                !is_earlier_life && now - watched.asked < REMEMBERED
            });
            let watched = doors.entry(door.clone()).or_insert_with(|| begin(ctx, door));
            watched.asked = now;
            let uid = exec.meta().uid.clone();
            let begun = || Waiting {
                uid: uid.clone(),
                // Any of its names finds the object.
                run: convert::exec_spec(exec).name,
                since: now,
                asked: now,
                deadline: wanted.timeout.map(|timeout| now + timeout),
            };
            let waiting = watched.waiting.entry(name).or_insert_with(begun);
            // Another object of the same name has not waited yet.
            if waiting.uid != uid {
                *waiting = begun();
            }
            waiting.asked = now;
            (watched.seen.clone(), now - waiting.since)
        })
    }

    /// Calls for looks at those who have waited for too long. False, and the door is forgotten, where nobody waits any more.
    fn tick(&self, ctx: &Ctx, door: &Door) -> bool {
        let now = Instant::now();
        self.with(|doors| {
            let Some(watched) = doors.get_mut(door) else { return false };
            watched.waiting.retain(|name, waiting| {
                let object = ctx.execs.get(name);
                let is_there = object.is_some_and(|it| it.metadata.uid == waiting.uid && !convert::is_to_end(&it));
                if let Some(deadline) = waiting.deadline.filter(|deadline| *deadline <= now) {
                    tracing::debug!(%name, late = ?(now - deadline), "has waited too long for a port");
                    waiting.deadline = None;
                    ctx.wake(&waiting.run);
                }
                is_there && now - waiting.asked < FORGOTTEN
            });
            let somebody_waits = !watched.waiting.is_empty();
            if !somebody_waits {
                doors.remove(door);
            }
            somebody_waits
        })
    }

    fn wake_all(&self, ctx: &Ctx, door: &Door) {
        self.with(|doors| {
            for waiting in doors.get(door).iter().flat_map(|watched| watched.waiting.values()) {
                ctx.wake(&waiting.run);
            }
        });
    }
}

/// Whether the port that `exec` waits for is ready in a container that runs.
pub(crate) async fn ready(ctx: &Ctx, exec: &ContainerExec, container: &Container) -> Result<(), Blocked> {
    let Some(wanted) = convert::wanted_port(exec) else { return Ok(()) };
    let ContainerState::Running { started_at } = container.state else { return Ok(()) };
    let door = Door {
        engine: ctx.engine.endpoint().to_owned(),
        container: container.id.clone(),
        started_at,
        port: wanted.number,
        stable: wanted.stable,
    };
    let (mut seen, elapsed) = ctx.ports.ask(ctx, exec, &door, &wanted);
    // What comes later calls for another look.
    let _ = timeout(AT_FIRST, seen.wait_for(|seen| !is_untried(seen))).await;
    let seen = seen.borrow().clone()?;
    port_ready(&container.name, &wanted, &seen, elapsed)
}

fn is_untried(seen: &Seen) -> bool {
    *seen == Ok(SeenPort::Untried)
}

fn begin(ctx: &Ctx, door: &Door) -> Watched {
    let (tell, seen) = watch::channel(Ok(SeenPort::Untried));
    let end = ctx.shutdown.child_token();
    let probing = probe(ctx.clone(), door.clone(), tell);
    let ended = end.clone();
    tokio::spawn(async move { ended.run_until_cancelled(probing).await });
    Watched { seen, waiting: HashMap::new(), asked: Instant::now(), _end: CancellationToken::drop_guard(end) }
}

/// What a probe came to.
enum Came {
    /// The door is open.
    Open,
    /// The probe is over, and another one may begin.
    Over,
    /// Nobody waits any more.
    Deserted,
}

/// Tells what is seen of a door, until it is open or nobody waits any more. Dropped at any point, it leaves nothing in the container.
async fn probe(ctx: Ctx, door: Door, tell: watch::Sender<Seen>) {
    tracing::debug!(container = %door.container, port = door.port, "waiting for a port");
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let show = |seen: Seen| {
        let is_news = tell.send_if_modified(|shown| {
            let is_news = *shown != seen;
            *shown = seen;
            is_news
        });
        if is_news {
            ctx.ports.wake_all(&ctx, &door);
        }
    };
    loop {
        let probe = ctx.engine.probe_port(&door.container, door.port, door.stable, LIMIT).await;
        let came = match probe {
            Ok(probe) => listen(&ctx, &door, probe, &mut ticks, show).await,
            Err(error) => Err(error),
        };
        let pause = match came {
            Ok(Came::Open | Came::Deserted) => return,
            Ok(Came::Over) => Duration::ZERO,
            // It is asked for anew by whoever sees the container run again.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ContainerNotRunning) => {
                show(Err(blocked_by_engine(&error)));
                ctx.ports.with(|doors| doors.remove(&door));
                return;
            }
            Err(error) if error.kind() == ErrorKind::NotSupervisable => {
                let message = format!(
                    "{}; waitForPort is set, which only a supervisor in the container can do",
                    one_line(&error)
                );
                show(Err(Blocked { reason: Reason::NotSupervisable, message }));
                LONG_PAUSE
            }
            // A probe that was cut off says nothing of the port; what was seen before stays.
            Err(error) if error.kind() == ErrorKind::Supervisor => {
                tracing::debug!(container = %door.container, port = door.port, "{}", one_line(&error));
                if is_untried(&tell.borrow()) {
                    let message = format!("no connection to port {} can be tried yet: {}", door.port, one_line(&error));
                    show(Err(Blocked { reason: Reason::PortNotReady, message }));
                }
                PAUSE
            }
            Err(error) => {
                show(Err(blocked_by_engine(&error)));
                PAUSE
            }
        };
        let wakes = sleep(pause);
        tokio::pin!(wakes);
        loop {
            // Cancel-safe, both.
            tokio::select! {
                () = &mut wakes => break,
                _ = ticks.tick() => if !ctx.ports.tick(&ctx, &door) { return },
            }
        }
    }
}

async fn listen(
    ctx: &Ctx,
    door: &Door,
    mut probe: PortProbe,
    ticks: &mut tokio::time::Interval,
    show: impl Fn(Seen),
) -> Result<Came, EngineError> {
    loop {
        // Cancel-safe, both.
        let state = tokio::select! {
            state = probe.next() => state?,
            _ = ticks.tick() => {
                if ctx.ports.tick(ctx, door) { continue }
                return Ok(Came::Deserted);
            }
        };
        match state {
            None => return Ok(Came::Over),
            Some(PortState::Settling) => show(Ok(SeenPort::Settling)),
            Some(PortState::Closed { tries, loopback_only }) => {
                let tries = tries.into_iter().map(|it| (it.address, it.problem)).collect();
                show(Ok(SeenPort::Closed { tries, loopback_only }));
            }
            Some(PortState::Open) => {
                show(Ok(SeenPort::Open));
                return Ok(Came::Open);
            }
        }
    }
}
