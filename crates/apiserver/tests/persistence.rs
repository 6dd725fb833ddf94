//! Objects that outlast the server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use common::{TestServer, config};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use oncelet_apiserver::{Config, Error, Server};
use serde_json::json;
use sqlx::{ConnectOptions, Connection};

fn config_map(name: &str, data: &str) -> ConfigMap {
    ConfigMap { data: Some(BTreeMap::from([("k".to_owned(), data.to_owned())])), ..named(name) }
}

fn named(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

/// What is there after a restart is what was there before, to the last byte of its metadata; what was deleted is not.
#[tokio::test]
async fn objects_are_there_after_a_restart_as_they_were() {
    let server = TestServer::start_kept(tempfile::tempdir().unwrap()).await;
    let client = server.client().await;
    let api = config_maps(&client);
    let one = api.create(&PostParams::default(), &config_map("one", "1")).await.unwrap();
    let mut two = api.create(&PostParams::default(), &config_map("two", "2")).await.unwrap();
    two.data.as_mut().unwrap().insert("k".into(), "changed".into());
    let two = api.replace("two", &PostParams::default(), &two).await.unwrap();
    api.create(&PostParams::default(), &config_map("gone", "3")).await.unwrap();
    api.delete("gone", &DeleteParams::default()).await.unwrap();
    let widgets: Api<kube::core::DynamicObject> = widgets(&client);
    let widget =
        json!({"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"file": "/f"}});
    let widget = widgets.create(&PostParams::default(), &serde_json::from_value(widget).unwrap()).await.unwrap();

    let server = TestServer::start_kept(server.stop().await).await;
    let client = server.client().await;
    let kept = config_maps(&client).list(&ListParams::default()).await.unwrap();
    assert_eq!(kept.items, [one, two]);
    assert_eq!(self::widgets(&client).get("w").await.unwrap(), widget);
}

fn widgets(client: &Client) -> Api<kube::core::DynamicObject> {
    let kind = kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("example.dev", "v1", "Widget"));
    Api::namespaced_with(client.clone(), "default", &kind)
}

/// A client that goes on from a version of the last server's life must list again: it cannot know what it missed.
#[tokio::test]
async fn versions_never_repeat_and_older_cursors_have_expired() {
    let server = TestServer::start_kept(tempfile::tempdir().unwrap()).await;
    let client = server.client().await;
    let before = config_maps(&client).create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let before = before.resource_version().unwrap();
    let server = TestServer::start_kept(server.stop().await).await;
    let client = server.client().await;
    let after = config_maps(&client).create(&PostParams::default(), &config_map("b", "1")).await.unwrap();
    let number = |version: &str| version.parse::<u64>().unwrap();
    assert!(number(&after.resource_version().unwrap()) > number(&before));
    let api = config_maps(&client);
    let mut events = Box::pin(api.watch(&WatchParams::default(), &before).await.unwrap());
    match events.next().await.unwrap().unwrap() {
        WatchEvent::Error(error) => assert_eq!((error.code, &*error.reason), (410, "Expired")),
        other => panic!("{other:?}"),
    }
}

/// The file holds Secrets.
#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    let server = TestServer::start_kept(tempfile::tempdir().unwrap()).await;
    let secrets: Api<Secret> = Api::namespaced(server.client().await, "default");
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "x"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let mut seen = 0;
    for file in std::fs::read_dir(server.dir.path().join("state")).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        seen += usize::from(file.file_name().to_string_lossy().starts_with("objects.db"));
    }
    assert!(seen >= 2, "the file and its log");
}

/// Two servers on one file would each serve a state of its own.
#[tokio::test]
async fn a_second_server_on_the_same_file_is_refused() {
    let server = TestServer::start_kept(tempfile::tempdir().unwrap()).await;
    let second = Server::bind(Config { persist: true, ..config(&server.dir) }).await;
    match second.err().expect("it is refused") {
        error @ Error::Objects { .. } => assert!(error.to_string().contains("is another oncelet running"), "{error}"),
        other => panic!("{other:?}"),
    }
}

/// What is not ours, or newer, is refused, and not touched.
#[tokio::test]
async fn a_foreign_and_a_newer_file_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/objects.db");
    std::fs::create_dir(dir.path().join("state")).unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut conn = options.connect().await.unwrap();
    sqlx::query("CREATE TABLE mine (x)").execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let content = std::fs::read(&path).unwrap();
    let refused = async || Server::bind(Config { persist: true, ..config(&dir) }).await.err().expect("it is refused");
    assert!(matches!(refused().await, Error::NotObjects { .. }));
    assert_eq!(std::fs::read(&path).unwrap(), content);

    std::fs::remove_file(&path).unwrap();
    let server = TestServer::start_kept(dir).await;
    let dir = server.stop().await;
    let mut conn = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::query("PRAGMA user_version = 7").execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let newer = Server::bind(Config { persist: true, ..config(&dir) }).await.err().expect("it is refused");
    assert!(newer.to_string().contains("its schema is 7"), "{newer}");
}

/// A removal takes several writes, and a kill may come between any two: here the file is made as such a kill leaves it.
#[tokio::test]
async fn a_removal_that_a_kill_interrupted_is_finished() {
    let server = TestServer::start_kept(tempfile::tempdir().unwrap()).await;
    let client = server.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "half"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let inside: Api<ConfigMap> = Api::namespaced(client.clone(), "half");
    inside.create(&PostParams::default(), &config_map("inside", "1")).await.unwrap();
    let owner = config_maps(&client).create(&PostParams::default(), &config_map("owner", "1")).await.unwrap();
    let mut dependent = config_map("owned", "1");
    let reference = |kind: &str, api_version: &str, uid: String| OwnerReference {
        kind: kind.to_owned(),
        api_version: api_version.to_owned(),
        name: "owner".to_owned(),
        uid,
        ..OwnerReference::default()
    };
    dependent.metadata.owner_references = Some(vec![reference("ConfigMap", "v1", owner.uid().unwrap())]);
    config_maps(&client).create(&PostParams::default(), &dependent).await.unwrap();
    // Its owner is of a kind that is not served here: nobody can say that it is gone.
    let mut elsewhere = config_map("elsewhere", "1");
    elsewhere.metadata.owner_references = Some(vec![reference("Pod", "v1", "of-a-pod".to_owned())]);
    config_maps(&client).create(&PostParams::default(), &elsewhere).await.unwrap();
    let dir = server.stop().await;

    let file = dir.path().join("state/objects.db");
    let mut conn = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    for change in [
        "DELETE FROM object WHERE resource = 'configmaps' AND name = 'owner'",
        "UPDATE object SET object = json_set(object, '$.metadata.deletionTimestamp', '2026-01-01T00:00:00Z')
         WHERE resource = 'namespaces' AND name = 'half'",
    ] {
        assert_eq!(sqlx::query(change).execute(&mut conn).await.unwrap().rows_affected(), 1);
    }
    conn.close().await.unwrap();

    let server = TestServer::start_kept(dir).await;
    let client = server.client().await;
    assert!(Api::<Namespace>::all(client.clone()).get_opt("half").await.unwrap().is_none());
    let left = Api::<ConfigMap>::all(client).list(&ListParams::default()).await.unwrap();
    assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["elsewhere"]);
}

/// Definitions are brought up to date by a newer release, and keep their identity and what others wrote on them.
#[tokio::test]
async fn a_kept_definition_becomes_that_of_this_release() {
    let server = TestServer::start_kept(tempfile::tempdir().unwrap()).await;
    let kinds = |client: Client| {
        Api::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>::all(client)
    };
    let old = kinds(server.client().await).get("widgets.example.dev").await.unwrap();
    let dir = server.stop().await;
    let mut newer = common::widgets();
    newer.spec.names.short_names = Some(vec!["wdg".to_owned()]);
    let server = Server::bind(Config { persist: true, crds: vec![newer], ..config(&dir) }).await.unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(server.serve(shutdown.clone()));
    let kubeconfig = kube::config::Kubeconfig::read_from(dir.path().join("kubeconfig")).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await;
    let new = kinds(Client::try_from(config.unwrap()).unwrap()).get("widgets.example.dev").await.unwrap();
    assert_eq!(new.spec.names.short_names.unwrap(), ["wdg"]);
    assert_eq!(new.metadata.uid, old.metadata.uid);
    assert_eq!(new.metadata.generation, Some(2));
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), serving).await.unwrap().unwrap().unwrap();
}
