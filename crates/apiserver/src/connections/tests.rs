use std::net::SocketAddr;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A listener with so many places, whose `/known` admits everybody and `/wait` never answers.
async fn listener(places: usize) -> (SocketAddr, CancellationToken) {
    async fn known(request: Request<Body>) -> &'static str {
        request.extensions().get::<Visitor>().unwrap().admit();
        "known"
    }
    let router = Router::new()
        .route("/", get(|| async { "stranger" }))
        .route("/known", get(known))
        .route("/wait", get(std::future::pending::<&'static str>));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let service = TowerToHyperService::new(router);
    tokio::spawn(serve(listener, None, places, service, shutdown.clone(), shutdown.clone()));
    (address, shutdown)
}

/// Asks on a connection, and returns the body.
async fn ask(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).rsplit("\r\n").next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn many_who_send_nothing_keep_nobody_out() {
    let (address, _shutdown) = listener(4).await;
    let mut known = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut known, "/known").await, "known");
    let mut silent = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
        silent.push(stream);
    }
    let mut last = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut last, "/").await, "stranger");
    assert_eq!(ask(&mut known, "/known").await, "known", "a client that is known keeps its place");
}

#[tokio::test]
async fn a_place_is_given_back_when_its_client_goes() {
    let (address, _shutdown) = listener(1).await;
    for _ in 0..20 {
        let mut one = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut one, "/known").await, "known");
    }
}

#[tokio::test]
async fn headers_have_a_size() {
    let (address, _shutdown) = listener(1).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let header = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    let _ = stream.write_all(header.as_bytes()).await;
    let mut answer = vec![0; 100];
    // Refused, or cut off while it was still being sent.
    let read = stream.read(&mut answer).await.unwrap_or(0);
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn an_end_waits_for_nobody_who_asks_nothing() {
    let (address, shutdown) = listener(4).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut idle, "/known").await, "known");
    shutdown.cancel();
    assert_eq!(idle.read(&mut [0; 10]).await.unwrap_or(0), 0);
}

#[test]
fn listeners_leave_most_descriptors_to_engines_and_stores() {
    let descriptors = usize::try_from(getrlimit(Resource::Nofile).current.unwrap_or(MANY)).unwrap();
    let places = share(1024, 4) + 2 * share(128, 16);
    assert!(places <= descriptors / 2, "{places} of {descriptors}");
}
