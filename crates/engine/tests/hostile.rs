//! What comes of an engine that is nobody's friend. No engine is needed for it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test crate, helpers included")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures::StreamExt;
use futures::future::join_all;
use oncelet_engine::{Engine, EngineEvent, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Listens on a port of its own; `answer` is given each connection, after the request's first bytes, and the request's path.
async fn listening<F>(answer: impl Fn(String, TcpStream) -> F + Send + 'static) -> Engine
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
            tokio::spawn(answer(path, stream));
        }
    });
    Engine::connect(&url.parse().unwrap()).unwrap()
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_silent_engine_has_one_connection_for_all_and_none_that_nobody_waits_for() {
    let connections = Arc::new(AtomicUsize::new(0));
    let (tell, mut closed) = mpsc::unbounded_channel();
    let count = Arc::clone(&connections);
    let engine = listening(move |_, mut stream| {
        count.fetch_add(1, SeqCst);
        let tell = tell.clone();
        async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let _ = tell.send(());
        }
    })
    .await;
    let names: Vec<_> = (0..200).map(|number| format!("c{number}")).collect();
    let all = join_all(names.iter().map(|name| engine.container(name))).await;
    for result in all {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unreachable);
    }
    assert_eq!(connections.load(SeqCst), 1);
    closed.recv().await.unwrap();
}

#[tokio::test]
async fn a_document_without_an_end_is_cut_off() {
    let engine = listening(|path, mut stream| async move {
        let _ = stream.write_all(HEAD).await;
        if path.contains("_ping") {
            return;
        }
        let _ = stream.write_all(b"{\"Id\":\"").await;
        while stream.write_all(&[b'a'; 8192]).await.is_ok() {}
    })
    .await;
    for error in [engine.container("c").await.unwrap_err(), engine.info().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Protocol);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("larger than 16 MiB"), "{cause}");
    }
}

#[tokio::test]
async fn an_event_without_an_end_is_cut_off() {
    let engine = listening(|path, mut stream| async move {
        let _ = stream.write_all(HEAD).await;
        if path.contains("/info") {
            let _ = stream.write_all(br#"{"SystemTime":"2026-01-01T00:00:00Z"}"#).await;
        }
        while path.contains("/events") && stream.write_all(&[b'a'; 8192]).await.is_ok() {}
    })
    .await;
    let mut events = Box::pin(engine.events());
    assert_eq!(events.next().await, Some(EngineEvent::Connected));
    let event = events.next().await;
    assert!(matches!(event, Some(EngineEvent::Disconnected { .. })), "{event:?}");
}
