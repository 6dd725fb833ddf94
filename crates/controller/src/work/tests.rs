use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use oncelet_api::{ContainerExec, ContainerExecSpec};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use super::*;
use crate::watch::received;

/// A queue at work, with objects named `a`, `b` and `c`.
struct Queue {
    call: UnboundedSender<ObjectRef<ContainerExec>>,
    /// The looks that have begun; each waits for what is to come of it.
    begun: UnboundedReceiver<(String, oneshot::Sender<Action>)>,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Queue {
    fn begin() -> Self {
        let (objects, mut writer) = reflector::store();
        for name in ["a", "b", "c"] {
            writer.apply_watcher_event(&Event::Apply(exec(name)));
        }
        let (call, called) = mpsc::unbounded_channel();
        let (tell, begun) = mpsc::unbounded_channel();
        let shutdown = CancellationToken::new();
        let reconcile = move |exec: Arc<ContainerExec>| {
            let (answer, answered) = oneshot::channel();
            tell.send((exec.name_any(), answer)).unwrap();
            async move { Ok(answered.await.unwrap()) }
        };
        let ends = shutdown.clone();
        let ended = tokio::spawn(async move {
            // Whoever writes to the reflector has to live as long as it.
            let _writer = writer;
            let (touched, all) = (futures::stream::pending(), futures::stream::pending());
            let calls = Calls { touched, triggers: received(called), all };
            run(Kind::CONTAINER_EXEC, Progress::default(), Objects::new(objects), calls, reconcile, ends).await;
        });
        Self { call, begun, shutdown, ended }
    }

    fn call(&self, name: &str) {
        self.call.send(ObjectRef::from_obj(&exec(name))).unwrap();
    }

    async fn begun(&mut self) -> (String, oneshot::Sender<Action>) {
        self.begun.recv().await.unwrap()
    }

    /// Until nothing is left to do but what waits for time or for an answer.
    async fn settle(&self) {
        for _ in 0..32 {
            tokio::task::yield_now().await;
        }
    }
}

fn exec(name: &str) -> ContainerExec {
    let mut exec = ContainerExec::new(name, ContainerExecSpec::default());
    exec.metadata.namespace = Some("team".to_owned());
    exec
}

/// Two looks at one object at a time would launch its program side by side.
#[tokio::test(start_paused = true)]
async fn an_object_that_is_called_for_while_it_is_looked_at_is_looked_at_once_more_after() {
    let mut queue = Queue::begin();
    queue.call("a");
    let (first, answer) = queue.begun().await;
    for _ in 0..3 {
        queue.call("a");
    }
    queue.call("b");
    let (other, _answer) = queue.begun().await;
    assert_eq!((first.as_str(), other.as_str()), ("a", "b"), "another object does not wait");
    queue.settle().await;
    assert!(queue.begun.try_recv().is_err(), "one look at a time");
    answer.send(Action::await_change()).unwrap();
    let (again, answer) = queue.begun().await;
    assert_eq!(again, "a");
    answer.send(Action::await_change()).unwrap();
    queue.settle().await;
    assert!(queue.begun.try_recv().is_err(), "three calls are one look");
}

#[tokio::test(start_paused = true)]
async fn an_object_is_looked_at_again_when_its_time_comes_or_it_is_called_for() {
    let mut queue = Queue::begin();
    let began = Instant::now();
    queue.call("a");
    let (_, answer) = queue.begun().await;
    answer.send(Action::requeue(Duration::from_secs(30))).unwrap();
    let (_, answer) = queue.begun().await;
    assert_eq!(began.elapsed().as_secs(), 30);
    answer.send(Action::requeue(Duration::from_secs(30))).unwrap();
    queue.settle().await;
    queue.call("a");
    let (_, answer) = queue.begun().await;
    assert_eq!(began.elapsed().as_secs(), 30, "a call does not wait for the time");
    answer.send(Action::requeue(Duration::ZERO)).unwrap();
    let (_, answer) = queue.begun().await;
    assert_eq!(began.elapsed().as_secs(), 30);
    answer.send(Action::await_change()).unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(queue.begun.try_recv().is_err(), "the time that was set before the call does not count any more");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_is_not_looked_at() {
    let mut queue = Queue::begin();
    queue.call("gone");
    queue.call("c");
    assert_eq!(queue.begun().await.0, "c");
}

/// A look that has claimed a run must come to where the claim is looked after.
#[tokio::test(start_paused = true)]
async fn what_is_being_looked_at_is_looked_at_to_the_end() {
    let mut queue = Queue::begin();
    queue.call("a");
    let (_, answer) = queue.begun().await;
    queue.call("a");
    queue.settle().await;
    queue.shutdown.cancel();
    queue.settle().await;
    assert!(!queue.ended.is_finished());
    answer.send(Action::requeue(Duration::ZERO)).unwrap();
    queue.ended.await.unwrap();
    assert!(queue.begun.try_recv().is_err(), "and nothing more");
}
