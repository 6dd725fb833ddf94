//! What the crate says when the engine or the way to it fails.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test crate, helpers included")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
mod support;

use futures::StreamExt;
use oncelet_engine::{Endpoint, Engine, EngineEvent, ErrorKind, ExecEnd, ExecEvent, LostReason};
use support::{Waiting, finish, next, proxy::Proxy, waiting};
use tokio::net::UnixListener;

on_each_engine! {
    an_outcome_is_lost_with_the_engine,
    a_cut_connection_never_passes_for_a_complete_run,
    events_come_back_with_the_engine,
}

async fn an_outcome_is_lost_with_the_engine(engine: Engine) {
    let Some(mut proxy) = Proxy::before(&engine) else { return };
    let container = Waiting::named(engine, "lost").await;
    let exec = container.prepare("echo up; while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 5").await;
    let mut running = proxy.engine().start_exec(&exec).await.unwrap();
    assert!(matches!(next(&mut running).await, ExecEvent::Output { .. }));
    proxy.down();
    let end = finish(running).await.end;
    let expected = [LostReason::ConnectionBroken, LostReason::EngineUnreachable];
    assert!(matches!(&end, ExecEnd::Lost { reason, .. } if expected.contains(reason)), "{end:?}");
}

/// Docker then claims 126 while the program runs on; Podman knows the exit code, and nobody has the output.
async fn a_cut_connection_never_passes_for_a_complete_run(engine: Engine) {
    let Some(proxy) = Proxy::before(&engine) else { return };
    let container = Waiting::named(engine, "cut").await;
    let script = "echo up; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo unseen; sleep 1; exit 5";
    let exec = container.prepare(script).await;
    let mut running = proxy.engine().start_exec(&exec).await.unwrap();
    assert!(matches!(next(&mut running).await, ExecEvent::Output { .. }));
    proxy.cut();
    container.sh("touch /tmp/go").await;
    let end = loop {
        if let ExecEvent::Ended(end) = next(&mut running).await {
            break end;
        }
    };
    match end {
        ExecEnd::Exited { exit_code } => {
            assert_eq!(exit_code, 5);
            assert!(running.output_may_be_incomplete());
        }
        ExecEnd::Lost { .. } => {}
        other => panic!("{other:?}"),
    }
}

async fn events_come_back_with_the_engine(engine: Engine) {
    let Some(mut proxy) = Proxy::before(&engine) else { return };
    let mut events = Box::pin(proxy.engine().events());
    assert_eq!(events.next().await, Some(EngineEvent::Connected));
    proxy.down();
    let mut gone = 0;
    // Other tests' containers may have events still on the way.
    while gone == 0 {
        gone += usize::from(matches!(events.next().await, Some(EngineEvent::Disconnected { .. })));
    }
    proxy.up();
    while !matches!(events.next().await, Some(EngineEvent::Connected)) {}
    let container = Waiting::named(engine, "again").await;
    loop {
        match events.next().await {
            Some(EngineEvent::Container { id, .. }) if id == container.id => break,
            Some(EngineEvent::Container { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// An engine that hangs. Time is paused, so that the 30 seconds take none.
#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("hung.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let engine = Engine::connect(&Endpoint::Url(format!("unix://{}", socket.display()))).unwrap();
    assert_eq!(engine.info().await.unwrap_err().kind(), ErrorKind::Unreachable);
    assert_eq!(engine.container("x").await.unwrap_err().kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn an_unreachable_engine_is_an_error_of_each_call_and_not_of_connecting() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("unix://{}/none.sock", directory.path().display());
    let engine = Engine::connect(&Endpoint::Url(url.clone())).unwrap();
    assert_eq!(engine.endpoint(), url);
    for error in [
        engine.info().await.map(drop).unwrap_err(),
        engine.container("x").await.map(drop).unwrap_err(),
        engine.create_container(&waiting("x")).await.map(drop).unwrap_err(),
    ] {
        assert!(error.kind() == ErrorKind::Unreachable && error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains(&url), "{error}");
    }
    let mut events = Box::pin(engine.events());
    assert!(matches!(events.next().await, Some(EngineEvent::Disconnected { message }) if message.contains(&url)));
}
