//! Certificates and tokens while the server runs: renewed before they end, refused once they were rotated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::{TestServer, config};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::config::KubeConfigOptions;
use oncelet_apiserver::{Config, Server, rotate};
use serde_json::Value;

#[allow(clippy::disallowed_methods, reason = "a test has the real clock")]
fn real() -> Timestamp {
    Timestamp::now()
}

fn kubeconfig(path: &Path) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

async fn answers(client: &Client) -> Result<(), String> {
    client.apiserver_version().await.map(drop).map_err(|error| error.to_string())
}

fn with_certificate() -> KubeConfigOptions {
    KubeConfigOptions { context: Some("oncelet-certificate".to_owned()), ..KubeConfigOptions::default() }
}

/// What is published is written by a task of the server.
async fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let waited = async {
        while !look() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waited).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_on_past_the_end_of_its_certificates() {
    static DAYS: AtomicI64 = AtomicI64::new(-400);
    fn clock() -> Timestamp {
        real() + SignedDuration::from_hours(24 * DAYS.load(Ordering::Relaxed))
    }
    let dir = tempfile::tempdir().unwrap();
    let config = Config { now: clock, ..config(&dir) };
    let server = TestServer::start_with(dir, config).await;
    let before = kubeconfig(&server.kubeconfig());
    // The clock of the client says that it ended long ago.
    let client = server.client().await;
    let told = answers(&client).await.unwrap_err();
    assert!(!told.is_empty());
    DAYS.store(0, Ordering::Relaxed);
    answers(&server.client().await).await.unwrap();
    let path = server.kubeconfig();
    eventually("the kubeconfig has the new client certificate", || kubeconfig(&path)["users"][1] != before["users"][1])
        .await;
    let after = kubeconfig(&path);
    assert_eq!(after["users"][0], before["users"][0], "the token is as good as before");
    assert_eq!(after["clusters"], before["clusters"], "and so is the authority");
    answers(&server.client_of(&with_certificate()).await).await.unwrap();
    // The clock goes back behind all certificates: they are of no use then.
    DAYS.store(-800, Ordering::Relaxed);
    eventually("the authority is made anew", || kubeconfig(&path)["clusters"] != after["clusters"]).await;
    let last = kubeconfig(&path);
    DAYS.store(0, Ordering::Relaxed);
    eventually("the certificates are made anew", || kubeconfig(&path)["users"][1] != last["users"][1]).await;
    answers(&server.client().await).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_whatever_its_clock_was_before() {
    let mut dir = tempfile::tempdir().unwrap();
    for clock in [
        || real() + SignedDuration::from_hours(24 * 365 * 50),
        || Timestamp::UNIX_EPOCH,
        || real() - SignedDuration::from_hours(24 * 365 * 5),
        || real() + SignedDuration::from_hours(24 * 30),
    ] {
        drop(Server::bind(Config { now: clock, ..config(&dir) }).await.unwrap());
        let server = TestServer::start_in(dir).await;
        answers(&server.client().await).await.unwrap();
        answers(&server.client_of(&with_certificate()).await).await.unwrap();
        dir = server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rotated_is_refused_at_once_and_its_connections_are_cut() {
    let server = TestServer::start().await;
    let path = server.kubeconfig();
    let copy = server.dir.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    let before = kubeconfig(&path);
    let old = [server.client().await, server.client_of(&with_certificate()).await];
    for client in &old {
        answers(client).await.unwrap();
    }
    let state = server.dir.path().join("state");
    assert!(rotate(&state, &path, real()).unwrap().unwrap().kubeconfig.unwrap());
    for client in &old {
        // Over the connection that it has, and over another one.
        answers(client).await.unwrap_err();
        answers(client).await.unwrap_err();
    }
    answers(&server.client().await).await.unwrap();
    answers(&server.client_of(&with_certificate()).await).await.unwrap();
    let after = kubeconfig(&path);
    assert_eq!(after["clusters"][0]["cluster"]["server"], before["clusters"][0]["cluster"]["server"]);
    assert_eq!(kubeconfig(&copy), before);
    // A copy is of another authority now, and nobody's to change.
    assert!(!rotate(&state, &copy, real()).unwrap().unwrap().kubeconfig.unwrap());
    eventually("the server writes its own", || kubeconfig(&path)["users"] != after["users"]).await;
    answers(&server.client().await).await.unwrap();
    // Without a server.
    let dir = server.stop().await;
    assert!(rotate(&state, &path, real()).unwrap().is_some());
    let rotated = kubeconfig(&path);
    let server = TestServer::start_in(dir).await;
    assert_eq!(kubeconfig(&path)["users"], rotated["users"]);
    answers(&server.client().await).await.unwrap();
    assert!(rotate(&server.dir.path().join("nowhere"), &path, real()).unwrap().is_none());
    server.stop().await;
}
