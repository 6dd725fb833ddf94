//! Whatever flaps while news is on its way, the status ends as the world does.
//!
//! The code of a controller from the watch to the status, against a model of an API server whose answers and watch are late. The
//! world that the objects tell of goes back and forth, others write, the watch begins anew; after the last of it nothing calls
//! for a look any more. Time is the runtime's, and stands still while anything moves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use kube::client::Body;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use oncelet_api::{Container, ContainerExec, ContainerExecSpec, ContainerSpec};
use oncelet_core::{Blocked, Memory, Observed, Reason};
use oncelet_engine::{Container as Found, ContainerState, Engine};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::act::{Shown, What};
use crate::container::status::Trouble;
use crate::context::{Context, Ctx};
use crate::echo::Echoes;
use crate::engines::Engines;
use crate::events::Events;
use crate::exec::Error;
use crate::gate::StoreGate;
use crate::index::Index;
use crate::objects::Objects;
use crate::observe::Observation;
use crate::policy::Policies;
use crate::ports::Ports;
use crate::progress::{Kind, Progress};
use crate::publish::publish;
use crate::steps::Steps;
use crate::watch::{is_news, received, watched};
use crate::work::{self, Action, Calls};
use crate::{container, lives, runs};

/// What the world may be like. The object's status tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum World {
    Ready,
    Paused,
    Unhealthy,
    NoStore,
    NoEngine,
    Recreated,
}

const WORLDS: [World; 6] =
    [World::Ready, World::Paused, World::Unhealthy, World::NoStore, World::NoEngine, World::Recreated];

/// Something that happens.
#[derive(Clone, Debug)]
enum Happening {
    /// The world is another one, and an event of it comes after so many milliseconds.
    Turn { to: World, told_after: u64 },
    /// Somebody sets an annotation.
    Annotate,
    /// Somebody overwrites the status with what it was at the beginning.
    Overwrite,
    /// The watch was too old, and lists all again.
    Relist,
}

/// How long things take, in milliseconds, one after the other.
#[derive(Clone, Debug)]
struct Delays {
    watch: Vec<u64>,
    look: Vec<u64>,
    answer: Vec<u64>,
}

fn nth(delays: &[u64], number: usize) -> Duration {
    Duration::from_millis(delays[number % delays.len()])
}

fn happenings() -> impl Strategy<Value = Vec<(u64, Happening)>> {
    let turn = (0..WORLDS.len(), 0..40_u64).prop_map(|(to, told_after)| Happening::Turn { to: WORLDS[to], told_after });
    let happening = prop_oneof![
        8 => turn,
        1 => Just(Happening::Annotate),
        1 => Just(Happening::Overwrite),
        1 => Just(Happening::Relist),
    ];
    proptest::collection::vec((0..60_u64, happening), 1..16)
}

fn delays() -> impl Strategy<Value = Delays> {
    let some = |longest: u64| proptest::collection::vec(0..longest, 1..8);
    (some(300), some(50), some(120)).prop_map(|(watch, look, answer)| Delays { watch, look, answer })
}

/// The API server: one object, and its changes on their way through the watch.
struct Server {
    object: Value,
    version: u64,
    writes: usize,
    changes: usize,
    delays: Delays,
    /// What is to be told, and when.
    tell: mpsc::UnboundedSender<(Instant, Value, bool)>,
}

impl Server {
    fn change(&mut self, by: impl FnOnce(&mut Value)) -> Value {
        by(&mut self.object);
        self.version += 1;
        self.object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.tell(false);
        self.object.clone()
    }

    fn tell(&mut self, relist: bool) {
        let at = Instant::now() + nth(&self.delays.watch, self.changes);
        self.changes += 1;
        let _ = self.tell.send((at, self.object.clone(), relist));
    }

    /// A merge patch of the status; `None` where the version is not the present one.
    fn patch(&mut self, patch: &Value) -> Option<Value> {
        (patch["metadata"]["resourceVersion"] == self.object["metadata"]["resourceVersion"]).then(|| {
            self.writes += 1;
            self.change(|object| merge(&mut object["status"], &patch["status"]))
        })
    }
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else { return into.clone_from(patch) };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut into[name.as_str()], value);
        }
    }
}

fn client(server: &Arc<Mutex<Server>>) -> Client {
    let server = Arc::clone(server);
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let server = Arc::clone(&server);
        async move {
            let is_patch = request.uri().path().ends_with("/status");
            let body = request.into_body().collect_bytes().await.unwrap();
            let failure = |code: u16| {
                (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": "", "message": ""}))
            };
            let (delay, (code, answer)) = {
                let mut server = server.lock().unwrap();
                let delay = nth(&server.delays.answer, server.changes);
                // Events are nobody's business here.
                let patched = is_patch.then(|| server.patch(&serde_json::from_slice(&body).unwrap()));
                let answer = match patched {
                    Some(Some(object)) => (200, object),
                    Some(None) => failure(409),
                    None => failure(404),
                };
                (delay, answer)
            };
            sleep(delay).await;
            let response = http::Response::builder().status(code).header("Content-Type", "application/json");
            Ok::<_, std::convert::Infallible>(response.body(Body::from(answer.to_string().into_bytes())).unwrap())
        }
    });
    Client::new(service, "team")
}

fn watch<K: DeserializeOwned + Send + 'static>(
    told: mpsc::UnboundedReceiver<(Instant, Value, bool)>,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static {
    received(told)
        .then(|(at, object, relist)| async move {
            sleep_until(at).await;
            let object = serde_json::from_value(object).unwrap();
            stream::iter(if relist {
                vec![Ok(Event::Init), Ok(Event::InitApply(object)), Ok(Event::InitDone)]
            } else {
                vec![Ok(Event::Apply(object))]
            })
        })
        .flatten()
}

/// Tells of an object that the watch shows, and whether it is there, if it is news.
type IsNews<K> = Box<dyn Fn(&K, bool) -> bool + Send>;

/// A kind under test.
trait Flaps:
    Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    const KIND: Kind;
    fn new() -> Self;
    fn is_news(echoes: &Echoes) -> IsNews<Self>;
    fn context(ctx: Context, objects: Objects<Self>) -> Context;
    fn publish(self: Arc<Self>, ctx: Ctx, world: World) -> impl Future<Output = Result<Action, Error>> + Send;
    /// What the status says of the world.
    fn shows(status: &Value) -> Vec<String>;
    /// What it is to say.
    fn is_to_show(world: World) -> Vec<String>;
}

fn condition(status: &Value, type_: &str) -> String {
    let all = status["conditions"].as_array();
    let found = all.and_then(|all| all.iter().find(|condition| condition["type"] == type_));
    found.map(|it| format!("{}/{}", it["status"].as_str().unwrap(), it["reason"].as_str().unwrap())).unwrap_or_default()
}

fn found(world: World) -> Found {
    let id = if world == World::Recreated { "b" } else { "a" };
    Found {
        id: id.repeat(64).parse().unwrap(),
        name: "db".to_owned(),
        image: String::new(),
        image_id: None,
        created: Timestamp::UNIX_EPOCH,
        state: match world {
            World::Paused => ContainerState::Paused,
            _ => ContainerState::Running { started_at: Some(Timestamp::UNIX_EPOCH) },
        },
        env: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        ports: Vec::new(),
        ip_address: None,
        hostname: String::new(),
        health: None,
    }
}

impl Flaps for ContainerExec {
    const KIND: Kind = Kind::CONTAINER_EXEC;

    fn new() -> Self {
        Self::new("seed", ContainerExecSpec::default())
    }

    fn is_news(echoes: &Echoes) -> IsNews<Self> {
        Box::new(is_news(echoes, &Index::default()))
    }

    fn context(ctx: Context, objects: Objects<Self>) -> Context {
        Context { execs: objects, ..ctx }
    }

    async fn publish(self: Arc<Self>, ctx: Ctx, world: World) -> Result<Action, Error> {
        let blocked = |reason: Reason| Blocked { reason, message: format!("{world:?}") };
        let stands = match world {
            World::Paused => blocked(Reason::ContainerNotRunning),
            World::Unhealthy => blocked(Reason::ContainerNotHealthy),
            World::NoEngine => blocked(Reason::EngineUnreachable),
            World::NoStore => blocked(Reason::StoreUnavailable),
            World::Ready | World::Recreated => blocked(Reason::DependencyNotReady),
        };
        let container = (world != World::NoEngine).then(|| found(world));
        let observed = match &container {
            None => Observed::NoContainer(stands.clone()),
            Some(container) => Observed::Container {
                id: container.id.to_string(),
                ready: match world {
                    World::Paused | World::Unhealthy => Err(stands.clone()),
                    _ => Ok(()),
                },
                memory: match world {
                    World::NoStore => Memory::Unavailable { message: stands.message.clone() },
                    _ => Memory::NeverRan { inputs: Err(stands.clone()) },
                },
            },
        };
        let observation = Observation { since: Instant::now(), container, observed, logs: None, refused: None };
        // Nothing but events and the watch calls for another look.
        let shown = Shown { what: What::Waiting { blocked: stands, last_try: None }, retry: None };
        publish(&ctx, &self, &observation, shown).await
    }

    fn shows(status: &Value) -> Vec<String> {
        let id = status["containerId"].as_str().unwrap_or_default();
        vec![condition(status, "ContainerReady"), condition(status, "StoreAvailable"), id.chars().take(1).collect()]
    }

    fn is_to_show(world: World) -> Vec<String> {
        let (ready, store, id) = match world {
            World::Ready => ("True/Running", "True/Open", "a"),
            World::Paused => ("False/ContainerNotRunning", "True/Open", "a"),
            World::Unhealthy => ("False/ContainerNotHealthy", "True/Open", "a"),
            World::NoStore => ("True/Running", "False/StoreUnavailable", "a"),
            World::NoEngine => ("False/EngineUnreachable", "True/Open", ""),
            World::Recreated => ("True/Running", "True/Open", "b"),
        };
        [ready, store, id].map(str::to_owned).into()
    }
}

impl Flaps for Container {
    const KIND: Kind = Kind::CONTAINER;

    fn new() -> Self {
        Self::new("db", ContainerSpec::default())
    }

    fn is_news(_: &Echoes) -> IsNews<Self> {
        Box::new(|_, _| true)
    }

    fn context(ctx: Context, objects: Objects<Self>) -> Context {
        Context { containers: objects, ..ctx }
    }

    async fn publish(self: Arc<Self>, ctx: Ctx, world: World) -> Result<Action, Error> {
        let trouble = |reason: &'static str| Err(Trouble { reason, message: format!("{world:?}") });
        let result = match world {
            // Wanted, so that nothing but events and the watch calls for another look.
            World::NoEngine | World::NoStore => trouble(container::status::STOP_REQUESTED),
            World::Unhealthy => trouble(container::status::START_DELAYED),
            World::Ready | World::Paused | World::Recreated => Ok(found(world)),
        };
        container::publish(&ctx, &self, result, None).await
    }

    fn shows(status: &Value) -> Vec<String> {
        let id = status["containerId"].as_str().unwrap_or_default();
        vec![condition(status, "Ready"), id.chars().take(1).collect()]
    }

    fn is_to_show(world: World) -> Vec<String> {
        let (ready, id) = match world {
            World::Ready => ("True/Running", "a"),
            World::Paused => ("False/Paused", "a"),
            World::Recreated => ("True/Running", "b"),
            World::NoEngine | World::NoStore => ("False/StopRequested", ""),
            World::Unhealthy => ("False/StartDelayed", ""),
        };
        [ready, id].map(str::to_owned).into()
    }
}

/// How it ended.
struct Outcome {
    shows: Vec<String>,
    is_to_show: Vec<String>,
    writes: usize,
    looks: usize,
}

fn play<K: Flaps>(happenings: &[(u64, Happening)], delays: &Delays) -> Outcome {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(played::<K>(happenings, delays))
}

async fn played<K: Flaps>(happenings: &[(u64, Happening)], delays: &Delays) -> Outcome {
    let (tell, told) = mpsc::unbounded_channel();
    let mut object = serde_json::to_value(K::new()).unwrap();
    object["metadata"]["namespace"] = "team".into();
    object["metadata"]["uid"] = "u-1".into();
    let server =
        Arc::new(Mutex::new(Server { object, version: 7, writes: 0, changes: 0, delays: delays.clone(), tell }));
    server.lock().unwrap().change(|_| ());
    server.lock().unwrap().tell(true);

    let (echoes, progress) = (Echoes::default(), Progress::default());
    let (objects, touched, mut changed) = watched(watch::<K>(told), K::KIND, &progress, K::is_news(&echoes));
    tokio::spawn(async move { while changed.recv().await.is_some() {} });
    let client = client(&server);
    let engine = Engine::connect(&"unix:///nonexistent/engine.sock".parse().unwrap()).unwrap();
    let shutdown = CancellationToken::new();
    let ctx = Context {
        events: Events::through(client.clone()),
        client,
        engines: Engines::new(engine.clone(), None, Vec::new()),
        policies: Policies::everything(),
        engine,
        store: StoreGate::shut("there is none here"),
        containers: Objects::new(reflector::store().0),
        execs: Objects::new(reflector::store().0),
        runs: runs::Runs::default(),
        lives: lives::Lives::default(),
        tasks: TaskTracker::new(),
        endings: runs::Runs::default(),
        ports: Ports::default(),
        objects: crate::retention::Objects::OfThisDaemon,
        echoes,
        shutdown: shutdown.clone(),
        wake: mpsc::unbounded_channel().0,
        steps: Steps::default(),
        now: || Timestamp::UNIX_EPOCH,
    };
    let ctx = Arc::new(K::context(ctx, objects.clone()));
    let world = Arc::new(Mutex::new(World::Ready));
    let looks = Arc::new(Mutex::new(0));
    let (call, called) = mpsc::unbounded_channel();
    let reconcile = {
        let (world, looks, delays) = (Arc::clone(&world), Arc::clone(&looks), delays.clone());
        move |object: Arc<K>| {
            let (ctx, world, looks, delays) = (ctx.clone(), Arc::clone(&world), Arc::clone(&looks), delays.clone());
            Box::pin(async move {
                let number = {
                    let mut looks = looks.lock().unwrap();
                    *looks += 1;
                    *looks
                };
                sleep(nth(&delays.look, number)).await;
                let seen = *world.lock().unwrap();
                sleep(nth(&delays.look, number + 1)).await;
                object.publish(ctx, seen).await
            })
        }
    };
    let calls = Calls { touched, triggers: received(called), all: stream::pending() };
    let work = tokio::spawn(work::run(K::KIND, progress, objects, calls, reconcile, shutdown.clone()));

    let name = ObjectRef::<K>::new(&K::new().meta().name.clone().unwrap()).within("team");
    let begun = server.lock().unwrap().object["status"].clone();
    sleep(Duration::from_secs(1)).await;
    for (pause, happening) in happenings {
        sleep(Duration::from_millis(*pause)).await;
        match happening {
            Happening::Turn { to, told_after } => {
                *world.lock().unwrap() = *to;
                let (call, name, after) = (call.clone(), name.clone(), Duration::from_millis(*told_after));
                tokio::spawn(async move {
                    sleep(after).await;
                    let _ = call.send(name);
                });
            }
            Happening::Annotate => {
                let mut server = server.lock().unwrap();
                let version = server.version;
                server.change(|object| object["metadata"]["annotations"] = json!({"at": version.to_string()}));
            }
            Happening::Overwrite => {
                server.lock().unwrap().change(|object| object["status"] = begun.clone());
            }
            Happening::Relist => server.lock().unwrap().tell(true),
        }
    }
    // The longest ways of all news one after the other, and less than the net under lost events.
    sleep(Duration::from_mins(1)).await;
    shutdown.cancel();
    work.await.unwrap();
    let server = server.lock().unwrap();
    let world = *world.lock().unwrap();
    let looks = *looks.lock().unwrap();
    Outcome {
        shows: K::shows(&server.object["status"]),
        is_to_show: K::is_to_show(world),
        writes: server.writes,
        looks,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_exec_ends_with_what_is_true_whatever_flaps(happenings in happenings(), delays in delays()) {
        let Outcome { shows, is_to_show, writes, looks } = play::<ContainerExec>(&happenings, &delays);
        prop_assert_eq!(shows, is_to_show);
        // Each happening and the beginning: a write, and a look for it and for what comes back of it.
        prop_assert!(writes <= 2 * happenings.len() + 1, "{} writes of {} happenings", writes, happenings.len());
        prop_assert!(looks <= 4 * happenings.len() + 4, "{} looks for {} happenings", looks, happenings.len());
    }

    #[test]
    fn a_container_ends_with_what_is_true_whatever_flaps(happenings in happenings(), delays in delays()) {
        let Outcome { shows, is_to_show, .. } = play::<Container>(&happenings, &delays);
        prop_assert_eq!(shows, is_to_show);
    }
}

/// `docker commit` pauses for some milliseconds.
#[test]
fn a_pause_that_is_shorter_than_the_watch_leaves_no_trace() {
    let delays = Delays { watch: vec![200], look: vec![1], answer: vec![1] };
    let turn = |to: World| Happening::Turn { to, told_after: 0 };
    let outcome = play::<ContainerExec>(&[(0, turn(World::Paused)), (20, turn(World::Ready))], &delays);
    assert_eq!(outcome.shows, outcome.is_to_show);
    assert_eq!(outcome.writes, 3, "at the beginning, and one for each turn");
}

/// What comes back of an own write is known again, however late the answer to the write is.
#[test]
fn a_change_costs_one_look_and_one_write() {
    for (watch, answer) in [(1, 50), (50, 1)] {
        let delays = Delays { watch: vec![watch], look: vec![1], answer: vec![answer] };
        let at_first = play::<ContainerExec>(&[], &delays);
        let turned = play::<ContainerExec>(&[(0, Happening::Turn { to: World::Paused, told_after: 0 })], &delays);
        assert_eq!((turned.writes - at_first.writes, turned.looks - at_first.looks), (1, 1));
    }
}
