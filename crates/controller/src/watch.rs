//! Watches the API server and the engine, and calls the reconciles.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, ObjectRef, Store as Reflector};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use oncelet_api::{Container, ContainerExec};
use oncelet_engine::{ContainerAction, Engine, EngineEvent};
use oncelet_store::Filter;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::{Context, Ctx, one_line};
use crate::echo::Echoes;
use crate::engines::{Engines, Session};
use crate::events::Events;
use crate::gate::StoreGate;
use crate::index::{Index, On};
use crate::lives::Lives;
use crate::objects::Objects;
use crate::policy::{Access, Policies};
use crate::ports::Ports;
use crate::progress::{Kind, Progress};
use crate::retention::Objects as ObjectsOf;
use crate::runs::Runs;
use crate::steps::Steps;
use crate::work::{self, Calls};
use crate::{collect, container, exec, health, namespaces, recover, retention};

/// How long the end of the controller waits for programs that run.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits for events that are told and not written yet.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long between two looks for containers that are gone.
const COLLECT: Duration = Duration::from_mins(10);
/// The same for runs whose object is gone, where they are kept for less.
const SOONEST_PRUNE: Duration = Duration::from_secs(1);
/// How long between two looks for open runs whose daemon is gone and whose objects nobody has applied again. A look costs as
/// much as there are open runs.
const SWEEP: Duration = Duration::from_secs(10);

/// How long between two looks for engines that nothing names any more.
const RETIRE: Duration = Duration::from_secs(5);

/// What the controller needs.
pub struct Config {
    /// The API server.
    pub client: Client,
    /// Where containers run.
    pub engine: Engine,
    /// The directory of the run store.
    pub store_dir: PathBuf,
    /// Where session containers are to go with this process.
    pub session: Option<Session>,
    /// What objects may use; followed as it changes.
    pub access: tokio::sync::watch::Receiver<Access>,
    /// The namespaces whose objects are looked at; without any, all.
    pub namespaces: Vec<String>,
    /// Whether the objects stay when this process ends.
    pub objects_stay: bool,
    /// How long runs are kept that were made for one object alone, which is gone.
    pub keep_runs_for: Duration,
    /// Learns what happens to runs.
    pub steps: Steps,
    /// Learns how the work goes on.
    pub progress: Progress,
    /// The clock.
    pub now: fn() -> Timestamp,
}

/// The controller could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster does not have our kinds.
    #[error(
        "the cluster does not serve {kind} of oncelet.dev/v1alpha1; install the CRDs with: oncelet crds | kubectl apply -f -"
    )]
    NoCrds {
        /// The missing kind.
        kind: &'static str,
    },
    /// The API server did not answer.
    #[error("the API server cannot be asked for {kind} objects")]
    Api {
        /// What was asked for.
        kind: &'static str,
        /// Why.
        #[source]
        source: kube::Error,
    },
}

/// Runs until `shutdown`. Attached programs that run then are waited for, for a while; after that they go on in their
/// containers. Supervised ones go on at once, and the next daemon finds their outcome.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let Config {
        client,
        engine,
        store_dir,
        session,
        access,
        namespaces,
        objects_stay,
        keep_runs_for,
        steps,
        progress,
        now,
    } = config;
    check_all_served(&client, &namespaces).await?;
    let policies = Policies::new(access);

    let objects = if objects_stay { ObjectsOf::of_server(&client).await } else { ObjectsOf::OfThisDaemon };
    let store = StoreGate::open(store_dir, now, shutdown.clone()).await;
    let (wake, woken) = mpsc::unbounded_channel();
    let (container_objects, touched_containers, changed_containers) =
        watched(namespaces::watch(&client, &namespaces), Kind::CONTAINER, &progress, |_, _| true);
    let (echoes, index) = (Echoes::default(), Index::default());
    let (exec_objects, touched_execs, changed_execs) =
        watched(namespaces::watch(&client, &namespaces), Kind::CONTAINER_EXEC, &progress, is_news(&echoes, &index));
    let (for_execs, engines_of_execs) = mpsc::unbounded_channel();
    let (for_containers, engines_of_containers) = mpsc::unbounded_channel();
    let ctx: Ctx = Arc::new(Context {
        events: Events::through(client.clone()),
        client: client.clone(),
        engines: Engines::new(engine.clone(), session, vec![for_execs, for_containers]),
        policies: policies.clone(),
        engine,
        store: store.clone(),
        containers: container_objects.clone(),
        execs: exec_objects.clone(),
        runs: Runs::default(),
        lives: Lives::default(),
        tasks: TaskTracker::new(),
        endings: Runs::default(),
        ports: Ports::default(),
        objects,
        echoes,
        shutdown: shutdown.clone(),
        wake,
        steps,
        now,
    });

    let of_engines = received(engines_of_execs).flat_map_unordered(None, {
        let (execs, containers) = (exec_objects.shown().clone(), container_objects.shown().clone());
        let lives = ctx.lives.clone();
        move |(engine, retired)| {
            let events = execs_of_engine(&engine, execs.clone(), containers.clone(), lives.clone());
            Box::pin(events.take_until(retired.cancelled_owned()))
        }
    });
    let triggers = stream::select_all([
        execs_in(changed_containers, exec_objects.shown().clone()).boxed(),
        hanging_on(received(changed_execs).map(On::Exec), index.clone()).boxed(),
        hanging_on(received(woken).map(On::Run), index).boxed(),
        of_engines.boxed(),
    ]);
    let calls = Calls {
        touched: touched_execs,
        triggers,
        all: stream::select(store_changes(store), policy_changes(policies.clone())),
    };
    let of_execs = ctx.clone();
    // Boxed: they are a part of the future of whoever runs the controller.
    let execs = Box::pin(work::run(
        Kind::CONTAINER_EXEC,
        progress.clone(),
        exec_objects,
        calls,
        move |exec| Box::pin(exec::reconcile(exec, of_execs.clone())),
        shutdown.clone(),
    ));
    let triggers = received(engines_of_containers).flat_map_unordered(None, {
        let containers = container_objects.shown().clone();
        move |(engine, retired)| {
            let events = containers_of_engine(&engine, containers.clone());
            Box::pin(events.take_until(retired.cancelled_owned()))
        }
    });
    let calls = Calls { touched: touched_containers, triggers, all: policy_changes(policies) };
    let of_containers = ctx.clone();
    let containers = Box::pin(work::run(
        Kind::CONTAINER,
        progress.clone(),
        container_objects,
        calls,
        move |container| Box::pin(container::reconcile(container, of_containers.clone())),
        shutdown.clone(),
    ));

    begin_background(&ctx, progress, keep_runs_for);
    futures::join!(execs, containers);
    finish(&ctx).await;
    Ok(())
}

/// What goes on beside the objects.
fn begin_background(ctx: &Ctx, progress: Progress, keep_runs_for: Duration) {
    ctx.watch(recover_always(ctx.clone(), progress));
    ctx.watch(collect_always(ctx.clone()));
    ctx.watch(retire_always(ctx.clone()));
    ctx.watch(prune_always(ctx.clone(), keep_runs_for));
    ctx.watch(health::check_always(ctx.clone()));
}

async fn finish(ctx: &Ctx) {
    await_programs(ctx).await;
    // Its last words; where the API server is gone, nobody hears them.
    let _ = tokio::time::timeout(LAST_WORDS, ctx.events.written()).await;
    if let Ok(store) = ctx.store.get() {
        store.close().await;
    }
}

/// Whether the API server has both kinds, wherever they are watched.
async fn check_all_served(client: &Client, namespaces: &[String]) -> Result<(), Error> {
    for api in namespaces::apis::<ContainerExec>(client, namespaces) {
        check_served(&api, "ContainerExec").await?;
    }
    for api in namespaces::apis::<Container>(client, namespaces) {
        check_served(&api, "Container").await?;
    }
    Ok(())
}

/// Tells of an exec that the watch shows whether it is news, and keeps what is known of it where it is there.
pub(crate) fn is_news(echoes: &Echoes, index: &Index) -> impl Fn(&ContainerExec, bool) -> bool + Send + 'static {
    let (echoes, index) = (echoes.clone(), index.clone());
    move |exec, is_there| {
        if is_there {
            index.add(exec);
        } else {
            index.remove(&ObjectRef::from_obj(exec));
            echoes.forget(exec);
        }
        !echoes.is_one(exec)
    }
}

/// One watch of a kind for all that wants to know of it: its objects, the stream of those to look at,
/// which has what `is_news` says (told with each object is whether it is there), and the names of all objects that have changed,
/// for those that depend on them. An object is told of only once the reflector shows it so: two watches would race, and what is woken too
/// early would sleep on.
pub(crate) fn watched<K>(
    steps: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    kind: Kind,
    progress: &Progress,
    is_news: impl Fn(&K, bool) -> bool + Send + 'static,
) -> (Objects<K>, impl Stream<Item = Result<K, watcher::Error>> + Send + 'static, mpsc::UnboundedReceiver<ObjectRef<K>>)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let (shown, writer) = reflector::store();
    let objects = Objects::new(shown.clone());
    let (tell, changed) = mpsc::unbounded_channel();
    let steps = steps
        .inspect({
            let progress = progress.clone();
            move |step| progress.watched(kind, step)
        })
        .reflect(writer);
    let all = objects.clone();
    let touched = as_shown(steps, shown.clone()).try_filter(move |object: &K| {
        let name = ObjectRef::from_obj(object);
        let now = shown.get(&name);
        all.saw(&name, now.as_deref());
        let is_news = is_news(object, now.is_some());
        // The receiver is gone only when the controller ends.
        let _ = tell.send(name);
        std::future::ready(is_news)
    });
    (objects, touched, changed)
}

/// The objects of a watch, each once the reflector shows it as it is.
///
/// kube's own `touched_objects` tells of the objects of a list while it is read, and the reflector shows them at its end. A controller
/// waits for the first list. After a later one (the watch was too old: there was too much to tell, or nobody to tell it to) what is
/// new in it would be looked for too early, not be found, and never be looked at again.
fn as_shown<K>(
    steps: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    shown: Reflector<K>,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static
where
    K: kube::Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    steps.flat_map(move |step| {
        let touched = match step {
            Ok(Event::Apply(object) | Event::Delete(object)) => vec![Ok(object)],
            Ok(Event::Init | Event::InitApply(_)) => Vec::new(),
            Ok(Event::InitDone) => shown.state().iter().map(|object| Ok(K::clone(object))).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(touched)
    })
}

/// Gives programs that are about to end the time for it: an outcome that is seen is not lost.
async fn await_programs(ctx: &Ctx) {
    ctx.tasks.close();
    if ctx.tasks.is_empty() {
        return;
    }
    tracing::info!("waiting up to {PATIENCE:?} for {} attached programs to end", ctx.tasks.len());
    if tokio::time::timeout(PATIENCE, ctx.tasks.wait()).await.is_err() {
        let open = ctx.tasks.len();
        tracing::warn!("{open} attached programs go on in their containers; how they end will not be known");
    }
}

async fn check_served<K>(api: &Api<K>, kind: &'static str) -> Result<(), Error>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.list(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(error)) if error.code == 404 => Err(Error::NoCrds { kind }),
        Err(source) => Err(Error::Api { kind, source }),
    }
}

/// Recovers what dead daemons left: at the start, and when one dies beside this one.
async fn recover_always(ctx: Ctx, progress: Progress) {
    let mut sweeps = recover::Sweeps::default();
    loop {
        let store = ctx.store.get();
        progress.swept(store.as_ref().map(drop).map_err(Clone::clone));
        let result = match store {
            Ok(store) => sweeps.go_on(&ctx, &store).await.map_err(|blocked| blocked.message),
            Err(message) => Err(message),
        };
        let pause = match result {
            Ok(()) => SWEEP,
            Err(message) => {
                tracing::debug!("recovery waits: {message}");
                Duration::from_secs(2)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Forgets, now and then, the runs of containers that are gone.
async fn collect_always(ctx: Ctx) {
    loop {
        tokio::time::sleep(COLLECT).await;
        let Ok(store) = ctx.store.get() else { continue };
        let engines = ctx.engines.all();
        // At once: one that does not answer holds up no other.
        futures::future::join_all(engines.iter().map(async |engine| {
            if let Err(message) = collect::collect(engine, &store, (ctx.now)()).await {
                tracing::debug!("nothing is forgotten now of {}: {message}", engine.endpoint());
            }
        }))
        .await;
        if let Err(error) = store.sweep_logs().await {
            tracing::debug!("logs of forgotten runs stay for now: {}", one_line(&error));
        }
    }
}

/// Lets go of engines that nothing names any more.
async fn retire_always(ctx: Ctx) {
    loop {
        tokio::time::sleep(RETIRE).await;
        let of_containers = ctx.containers.shown().state();
        let of_execs = ctx.execs.shown().state();
        let mut names: HashSet<String> = of_containers.iter().filter_map(|it| it.spec.engine.clone()).collect();
        names.extend(of_execs.iter().filter_map(|it| it.spec.engine.clone()));
        if let Ok(store) = ctx.store.get() {
            let open = store.list(Filter { open_only: true, ..Filter::default() }).await;
            // What is not known is not let go.
            let Ok(open) = open else { continue };
            names.extend(open.into_iter().map(|run| run.engine));
        }
        ctx.engines.retire(&names);
    }
}

/// Forgets, now and then, runs whose object is gone.
async fn prune_always(ctx: Ctx, keep: Duration) {
    loop {
        // No run has to go sooner than it may; and where it may soon, it need not wait for long.
        tokio::time::sleep(keep.clamp(SOONEST_PRUNE, COLLECT)).await;
        let Ok(store) = ctx.store.get() else { continue };
        match retention::prune(&ctx, &store, keep).await {
            Ok(0) => {}
            Ok(runs) => tracing::info!(runs, "runs with runPolicy: Always whose objects are gone are forgotten"),
            Err(message) => tracing::debug!("no run is pruned now: {message}"),
        }
    }
}

/// The execs that are for a `Container` which has changed.
fn execs_in(
    changed: mpsc::UnboundedReceiver<ObjectRef<Container>>,
    execs: Reflector<ContainerExec>,
) -> impl Stream<Item = ObjectRef<ContainerExec>> + Send + 'static {
    received(changed).flat_map(move |container| {
        refs(execs.state_filter(|exec| {
            exec.metadata.namespace == container.namespace
                && exec.spec.container_name.as_deref() == Some(container.name.as_str())
        }))
    })
}

/// The execs that hang on what has moved.
fn hanging_on(
    moved: impl Stream<Item = On> + Send + 'static,
    index: Index,
) -> impl Stream<Item = ObjectRef<ContainerExec>> + Send + 'static {
    moved.flat_map(move |on| stream::iter(index.hanging(&on)))
}

/// What comes out of a channel.
pub(crate) fn received<T: Send + 'static>(from: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) })
}

fn refs<K: kube::Resource<DynamicType = ()>>(objects: Vec<Arc<K>>) -> impl Stream<Item = ObjectRef<K>> {
    stream::iter(objects.into_iter().map(|object| ObjectRef::from_obj(object.as_ref())))
}

/// The execs whose container something has happened to; all of them when the engine is back.
fn execs_of_engine(
    engine: &Engine,
    execs: Reflector<ContainerExec>,
    containers: Reflector<Container>,
    lives: Lives,
) -> impl Stream<Item = ObjectRef<ContainerExec>> + Send + 'static + use<> {
    engine.events().flat_map(move |event| {
        lives.hear(&event);
        let touched = match event {
            EngineEvent::Disconnected { .. } | EngineEvent::Connected => execs.state(),
            EngineEvent::Container { action, .. } if !changes_container(&action) => Vec::new(),
            EngineEvent::Container { id, name, .. } => execs.state_filter(|exec| {
                // By the ID, too: after a rename the name is another one.
                let shown = exec.status.as_ref().and_then(|status| status.container_id.as_deref());
                shown == Some(id.as_str())
                    || exec.spec.engine_container.as_deref().is_some_and(|target| is_target(target, id.as_str(), &name))
                    || exec.spec.container_name.as_ref().is_some_and(|object| {
                        let object = ObjectRef::new(object).within(&exec.namespace().unwrap_or_default());
                        containers.get(&object).is_some_and(|container| is_container(&container, id.as_str(), &name))
                    })
            }),
        };
        refs(touched)
    })
}

fn containers_of_engine(
    engine: &Engine,
    containers: Reflector<Container>,
) -> impl Stream<Item = ObjectRef<Container>> + Send + 'static + use<> {
    engine.events().flat_map(move |event| {
        let touched = match event {
            EngineEvent::Disconnected { message } => {
                tracing::warn!("an engine does not answer: {message}");
                containers.state()
            }
            EngineEvent::Connected => containers.state(),
            EngineEvent::Container { action, .. } if !changes_container(&action) => Vec::new(),
            EngineEvent::Container { id, name, .. } => {
                containers.state_filter(|container| is_container(container, id.as_str(), &name))
            }
        };
        refs(touched)
    })
}

/// Whether a container is another one after `action`; the execs in it, our own above all, do not count.
fn changes_container(action: &ContainerAction) -> bool {
    use ContainerAction::{Create, Destroy, Die, HealthStatus, Pause, Rename, Restart, Start, Stop, Unpause};
    matches!(action, Create | Destroy | Die { .. } | HealthStatus | Pause | Rename | Restart | Start | Stop | Unpause)
}

/// Whether what the user wrote, a name or an ID or its beginning, is the container of an event.
fn is_target(target: &str, id: &str, name: &str) -> bool {
    let target = target.trim_start_matches('/');
    target == name || id.starts_with(target)
}

fn is_container(container: &Container, id: &str, name: &str) -> bool {
    let known = container.status.as_ref().and_then(|status| status.container_id.as_deref());
    known == Some(id) || container::engine_name(container) == name
}

fn store_changes(gate: StoreGate) -> impl Stream<Item = ()> + Send + 'static {
    stream::unfold(gate, |mut gate| async move {
        gate.changed().await;
        Some(((), gate))
    })
}

/// What was refused may be allowed now, and the other way round.
fn policy_changes(policies: Policies) -> impl Stream<Item = ()> + Send + 'static {
    stream::unfold(policies, |mut policies| async move {
        policies.changed().await;
        Some(((), policies))
    })
}

#[cfg(test)]
mod tests {
    use oncelet_api::ContainerExecSpec;

    use super::*;

    fn exec(name: &str) -> ContainerExec {
        let mut exec = ContainerExec::new(name, ContainerExecSpec::default());
        exec.metadata.namespace = Some("team".to_owned());
        exec
    }

    /// What is told of too early is looked for, not found, and never looked at again.
    #[tokio::test]
    async fn objects_are_told_of_only_once_the_reflector_shows_them() {
        let (shown, writer) = reflector::store();
        let steps = stream::iter([
            Event::Init,
            Event::InitApply(exec("first")),
            Event::InitDone,
            Event::Apply(exec("second")),
            // The watch was too old: all is listed again, and something new is there.
            Event::Init,
            Event::InitApply(exec("first")),
            Event::InitApply(exec("new")),
            Event::InitDone,
        ]);
        let touched = as_shown(steps.map(Ok).reflect(writer), shown.clone()).map_ok(|object| {
            assert!(shown.get(&ObjectRef::from_obj(&object)).is_some(), "{} is told of too early", object.name_any());
            object.name_any()
        });
        let mut touched: Vec<_> = touched.try_collect().await.unwrap();
        touched[2..].sort();
        assert_eq!(touched, ["first", "second", "first", "new"]);
    }
}
