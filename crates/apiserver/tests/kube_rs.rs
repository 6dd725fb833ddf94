//! The server as kube-rs meets it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use common::TestServer;
use futures::{StreamExt, TryStreamExt, pin_mut};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, ObjectReference, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::metadata::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event as Recorded, EventType, Recorder, Reporter};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, finalizer, watcher};
use kube::{Client, CustomResource, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[kube(group = "example.dev", version = "v1", kind = "Widget", namespaced, status = "WidgetStatus")]
#[serde(rename_all = "camelCase")]
struct WidgetSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct WidgetStatus {
    phase: Option<String>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

const SOON: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it happens soon")
}

fn widget(name: &str) -> Widget {
    Widget::new(name, WidgetSpec { file: Some("/f".into()), ..WidgetSpec::default() })
}

async fn widgets(server: &TestServer) -> (Client, Api<Widget>) {
    let client = server.client().await;
    (client.clone(), Api::namespaced(client, "default"))
}

fn code(error: &kube::Error) -> (u16, &str) {
    match error {
        kube::Error::Api(status) => (status.code, &status.reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    let created = api.create(&PostParams::default(), &widget("a")).await.unwrap();
    assert_eq!(created.spec.size.as_deref(), Some("Small"), "defaults are filled in");
    assert_eq!(created.meta().generation, Some(1));
    let error = api.create(&PostParams::default(), &widget("a")).await.unwrap_err();
    assert_eq!(code(&error), (409, "AlreadyExists"));

    let mut next = created.clone();
    next.spec.replicas = Some(3);
    let replaced = api.replace("a", &PostParams::default(), &next).await.unwrap();
    assert_eq!(replaced.meta().generation, Some(2));
    let error = api.replace("a", &PostParams::default(), &next).await.unwrap_err();
    assert_eq!(code(&error), (409, "Conflict"));

    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_write_that_changes_nothing_gets_no_new_version() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    let created = api.create(&PostParams::default(), &widget("a")).await.unwrap();
    let again = api.replace("a", &PostParams::default(), &created).await.unwrap();
    assert_eq!(again.resource_version(), created.resource_version());
    let patch = Patch::Merge(json!({"spec": {"file": "/f"}}));
    let patched = api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.resource_version(), created.resource_version());
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    let created = api.create(&PostParams::default(), &widget("a")).await.unwrap();
    let status = Patch::Merge(json!({"spec": {"replicas": 9}, "status": {"phase": "Done"}}));
    let written = api.patch_status("a", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(written.status.unwrap().phase.as_deref(), Some("Done"));
    assert_eq!(written.spec.replicas, Some(1), "a write of the status leaves the spec alone");
    assert_eq!(written.metadata.generation, created.metadata.generation);
    let main = Patch::Merge(json!({"spec": {"replicas": 2}, "status": {"phase": "Other"}}));
    let written = api.patch("a", &PatchParams::default(), &main).await.unwrap();
    assert_eq!(written.status.unwrap().phase.as_deref(), Some("Done"), "and the other way round");
}

#[tokio::test]
async fn an_applied_status_replaces_what_its_manager_applied_before() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    api.create(&PostParams::default(), &widget("a")).await.unwrap();
    let apply = async |status: serde_json::Value| {
        let body = json!({"apiVersion": "example.dev/v1", "kind": "Widget", "status": status});
        let params = PatchParams::apply("the-controller").force();
        api.patch_status("a", &params, &Patch::Apply(body)).await.unwrap()
    };
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    apply(json!({"phase": "Running", "conditions": [condition("Started", "True"), condition("Ready", "False")]})).await;
    let after = apply(json!({"conditions": [condition("Ready", "True")]})).await;
    let status = after.status.unwrap();
    assert_eq!(status.phase, None, "what is no longer applied is gone");
    let conditions: Vec<_> = status.conditions.iter().map(|one| (one.type_.as_str(), one.status.as_str())).collect();
    assert_eq!(conditions, [("Ready", "True")]);
    let before = api.get("a").await.unwrap().resource_version();
    let same = apply(json!({"conditions": [condition("Ready", "True")]})).await;
    assert_eq!(same.resource_version(), before, "applying the same again is no write");
}

#[tokio::test]
async fn applying_creates_what_is_not_there_and_meets_conflicts() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    let body = |replicas: i32| {
        json!({"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": "a"},
        "spec": {"file": "/f", "replicas": replicas}})
    };
    api.patch("a", &PatchParams::apply("one"), &Patch::Apply(body(1))).await.unwrap();
    let error = api.patch("a", &PatchParams::apply("two"), &Patch::Apply(body(2))).await.unwrap_err();
    assert_eq!(code(&error), (409, "Conflict"));
    assert!(error.to_string().contains("conflict with \"one\""), "{error}");
    let forced = api.patch("a", &PatchParams::apply("two").force(), &Patch::Apply(body(2))).await.unwrap();
    assert_eq!(forced.spec.replicas, Some(2));
}

#[tokio::test]
async fn bad_objects_are_refused_with_the_field_and_the_rule() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    let neither = Widget::new("a", WidgetSpec::default());
    let error = api.create(&PostParams::default(), &neither).await.unwrap_err();
    assert_eq!(code(&error), (422, "Invalid"));
    assert!(error.to_string().contains("exactly one of file and url must be set"), "{error}");
    let mut huge = widget("a");
    huge.spec.replicas = Some(11);
    let error = api.create(&PostParams::default(), &huge).await.unwrap_err();
    assert!(error.to_string().contains("spec.replicas in body should be less than or equal to 10"), "{error}");
    let error = api.create(&PostParams::default(), &widget("Not_A_Name")).await.unwrap_err();
    assert!(error.to_string().contains("a lowercase RFC 1123 subdomain must consist of"), "{error}");
}

#[tokio::test]
async fn a_watcher_sees_the_list_and_then_every_change() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    api.create(&PostParams::default(), &widget("before")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let stream = watcher(api.clone(), config);
        pin_mut!(stream);
        let mut seen = Vec::new();
        while !matches!(seen.last(), Some(watcher::Event::InitDone)) {
            seen.push(within(stream.try_next()).await.unwrap().unwrap());
        }
        assert!(seen.iter().any(|event| matches!(event, watcher::Event::InitApply(one) if one.name_any() == "before")));
        api.create(&PostParams::default(), &widget("after")).await.unwrap();
        let event = within(stream.try_next()).await.unwrap().unwrap();
        assert!(matches!(&event, watcher::Event::Apply(one) if one.name_any() == "after"), "{event:?}");
        api.delete("after", &DeleteParams::default()).await.unwrap();
        let event = within(stream.try_next()).await.unwrap().unwrap();
        assert!(matches!(&event, watcher::Event::Delete(one) if one.name_any() == "after"), "{event:?}");
    }
}

#[tokio::test]
async fn an_object_that_leaves_a_selection_is_deleted_to_its_watcher() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    let mut chosen = widget("a");
    chosen.labels_mut().insert("chosen".into(), "yes".into());
    let created = api.create(&PostParams::default(), &chosen).await.unwrap();
    let params = WatchParams::default().labels("chosen=yes");
    let stream = api.watch(&params, &created.resource_version().unwrap()).await.unwrap();
    pin_mut!(stream);
    let patch = Patch::Merge(json!({"metadata": {"labels": {"chosen": null}}}));
    let left = api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    match within(stream.try_next()).await.unwrap().unwrap() {
        WatchEvent::Deleted(gone) => assert_eq!(gone.resource_version(), left.resource_version()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_version_of_an_earlier_life_is_an_expired_error_within_the_stream() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    let created = api.create(&PostParams::default(), &widget("a")).await.unwrap();
    let server = TestServer::start_in(server.stop().await).await;
    let (_, api) = widgets(&server).await;
    let stream = api.watch(&WatchParams::default(), &created.resource_version().unwrap()).await.unwrap();
    pin_mut!(stream);
    match within(stream.try_next()).await.unwrap().unwrap() {
        WatchEvent::Error(error) => assert_eq!(error.code, 410),
        other => panic!("{other:?}"),
    }
    let fresh = api.create(&PostParams::default(), &widget("a")).await.unwrap();
    let number = |widget: &Widget| widget.resource_version().unwrap().parse::<u64>().unwrap();
    assert!(number(&fresh) > number(&created));
}

#[tokio::test]
async fn open_watches_end_with_the_server() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    let stream = api.watch(&WatchParams::default(), "0").await.unwrap();
    pin_mut!(stream);
    within(server.stop()).await;
    assert!(within(stream.next()).await.is_none(), "the stream ends, without an error");
}

#[tokio::test]
async fn a_list_in_pages_shows_one_moment() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    for index in 0..5 {
        api.create(&PostParams::default(), &widget(&format!("w{index}"))).await.unwrap();
    }
    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    api.delete("w4", &DeleteParams::default()).await.unwrap();
    api.create(&PostParams::default(), &widget("w9")).await.unwrap();
    let mut names: Vec<_> = first.iter().map(ResourceExt::name_any).collect();
    let mut token = first.metadata.continue_;
    while let Some(next) = token.filter(|token| !token.is_empty()) {
        let page = api.list(&ListParams::default().limit(2).continue_token(&next)).await.unwrap();
        names.extend(page.iter().map(ResourceExt::name_any));
        token = page.metadata.continue_;
    }
    assert_eq!(names, ["w0", "w1", "w2", "w3", "w4"]);
}

#[tokio::test]
async fn metadata_alone_can_be_listed() {
    let server = TestServer::start().await;
    let (client, api) = widgets(&server).await;
    api.create(&PostParams::default(), &widget("a")).await.unwrap();
    let list = api.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(list.items[0].name_any(), "a");
    let one: PartialObjectMeta<Widget> = Api::<Widget>::namespaced(client, "default").get_metadata("a").await.unwrap();
    assert!(one.metadata.uid.is_some());
}

#[tokio::test]
async fn a_finalizer_is_added_holds_the_object_and_lets_it_go() {
    #[derive(Debug, thiserror::Error)]
    #[error("never")]
    struct Never;
    async fn run(api: &Api<Widget>, name: &str) -> Option<&'static str> {
        let object = Arc::new(api.get_opt(name).await.unwrap()?);
        let seen = std::sync::Mutex::new(None);
        let reconcile = |event: finalizer::Event<Widget>| {
            *seen.lock().unwrap() = Some(match event {
                finalizer::Event::Apply(_) => "apply",
                finalizer::Event::Cleanup(_) => "cleanup",
            });
            async { Ok::<_, Never>(Action::await_change()) }
        };
        finalizer::finalizer(api, "example.dev/hold", object, reconcile).await.unwrap();
        seen.into_inner().unwrap().or(Some("added"))
    }
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    api.create(&PostParams::default(), &widget("a")).await.unwrap();
    assert_eq!(run(&api, "a").await, Some("added"));
    assert_eq!(run(&api, "a").await, Some("apply"));
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get("a").await.unwrap().metadata.deletion_timestamp.is_some());
    let late = Patch::Merge(json!({"metadata": {"finalizers": ["example.dev/hold", "example.dev/late"]}}));
    let error = api.patch("a", &PatchParams::default(), &late).await.unwrap_err();
    assert!(error.to_string().contains("no new finalizers can be added"), "{error}");
    assert_eq!(run(&api, "a").await, Some("cleanup"));
    assert_eq!(run(&api, "a").await, None);
}

#[tokio::test]
async fn a_controller_reconciles_and_its_condition_is_awaited() {
    #[derive(Debug, thiserror::Error)]
    #[error("kube")]
    struct Failed(#[source] kube::Error);
    async fn reconcile(widget: Arc<Widget>, api: Arc<Api<Widget>>) -> Result<Action, Failed> {
        let body = json!({"apiVersion": "example.dev/v1", "kind": "Widget", "status": {"conditions": [{
            "type": "Ready", "status": "True", "reason": "Done", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let params = PatchParams::apply("c").force();
        api.patch_status(&widget.name_any(), &params, &Patch::Apply(body)).await.map_err(Failed)?;
        Ok(Action::await_change())
    }
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    let controller = Controller::new(api.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(api.clone()))
        .for_each(|_| async {});
    let controller = tokio::spawn(controller);
    let ready = |widget: Option<&Widget>| {
        let status = widget.and_then(|widget| widget.status.as_ref());
        status.is_some_and(|status| status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
    };
    let awaited = tokio::spawn(await_condition(api.clone(), "a", ready));
    let created = api.create(&PostParams::default(), &widget("a")).await.unwrap();
    within(awaited).await.unwrap().unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    within(await_condition(api, "a", conditions::is_deleted(&created.uid().unwrap()))).await.unwrap();
    controller.abort();
}

#[tokio::test]
async fn one_event_is_seen_in_both_of_its_forms() {
    let server = TestServer::start().await;
    let (client, api) = widgets(&server).await;
    let object = api.create(&PostParams::default(), &widget("a")).await.unwrap();
    let recorder = Recorder::new(client.clone(), Reporter { controller: "c".into(), instance: None });
    let reference: ObjectReference = object.object_ref(&());
    let event = Recorded {
        type_: EventType::Normal,
        reason: "Started".into(),
        note: Some("it runs".into()),
        action: "Run".into(),
        secondary: None,
    };
    recorder.publish(&event, &reference).await.unwrap();
    recorder.publish(&event, &reference).await.unwrap();
    let events: Api<Event> = Api::namespaced(client, "default");
    let about = ListParams::default().fields("involvedObject.kind=Widget,involvedObject.name=a");
    let found = events.list(&about).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.items[0].message.as_deref(), Some("it runs"));
    assert_eq!(found.items[0].series.as_ref().and_then(|series| series.count), Some(2));
}

#[tokio::test]
async fn the_core_kinds_hold_what_they_are_given() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap())
        .await
        .unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "n");
    let new: ConfigMap =
        serde_json::from_value(json!({"metadata": {"generateName": "m-"}, "data": {"a": "1"}})).unwrap();
    let map = maps.create(&PostParams::default(), &new).await.unwrap();
    assert!(map.name_any().starts_with("m-"));
    let patched =
        maps.patch(&map.name_any(), &PatchParams::default(), &Patch::Strategic(json!({"data": {"b": "2"}}))).await;
    assert_eq!(patched.unwrap().data.unwrap().len(), 2);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "n");
    let secret = serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}})).unwrap();
    let secret = secrets.create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!((secret.type_.as_deref(), &secret.data.unwrap()["k"].0[..]), (Some("Opaque"), &b"v"[..]));
    let leases: Api<Lease> = Api::namespaced(client.clone(), "n");
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
        "spec": {"holderIdentity": "me", "renewTime": "2026-01-01T00:00:00.000000Z"}});
    leases.patch("l", &PatchParams::apply("me"), &Patch::Apply(lease)).await.unwrap();
    // The namespace takes with it what is in it.
    namespaces.delete("n", &DeleteParams::default()).await.unwrap();
    assert!(namespaces.get_opt("n").await.unwrap().is_none());
    assert!(leases.get_opt("l").await.unwrap().is_none());
    let error = maps.create(&PostParams::default(), &new).await.unwrap_err();
    assert!(error.to_string().contains("namespaces \"n\" not found"), "{error}");
}

#[tokio::test]
async fn dependents_go_with_their_owner_or_are_set_free() {
    let server = TestServer::start().await;
    let (client, api) = widgets(&server).await;
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    for (owner, params, left) in [("a", DeleteParams::background(), 0), ("b", DeleteParams::orphan(), 1)] {
        let owner = api.create(&PostParams::default(), &widget(owner)).await.unwrap();
        let mut map = ConfigMap::default();
        map.metadata.name = Some("owned".into());
        map.metadata.owner_references = Some(vec![owner.controller_owner_ref(&()).unwrap()]);
        maps.create(&PostParams::default(), &map).await.unwrap();
        api.delete(&owner.name_any(), &params).await.unwrap();
        assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), left);
    }
}

#[tokio::test]
async fn nobody_is_served_without_the_token() {
    let server = TestServer::start().await;
    let mut kubeconfig = kube::config::Kubeconfig::read_from(server.kubeconfig()).unwrap();
    for token in [None, Some("wrong".to_owned().into())] {
        kubeconfig.auth_infos[0].auth_info.as_mut().unwrap().token = token;
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let error = Api::<Widget>::all(client.clone()).list(&ListParams::default()).await.unwrap_err();
        assert_eq!(code(&error), (401, "Unauthorized"));
        let health = client.request_text(http::Request::get("/readyz").body(vec![]).unwrap()).await.unwrap();
        assert_eq!(health, "ok");
    }
}

#[tokio::test]
async fn a_dry_run_checks_and_stores_nothing() {
    let server = TestServer::start().await;
    let (_, api) = widgets(&server).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let shown = api.create(&dry, &widget("a")).await.unwrap();
    assert!(shown.uid().is_some());
    assert!(api.get_opt("a").await.unwrap().is_none());
    assert!(api.create(&dry, &Widget::new("a", WidgetSpec::default())).await.is_err());
}

/// Some clients take no token. The certificate for clients is as good; that of the server, say, is not.
#[tokio::test]
async fn a_client_certificate_is_as_good_as_the_token() {
    let server = TestServer::start().await;
    let options = KubeConfigOptions { context: Some("oncelet-certificate".to_owned()), ..KubeConfigOptions::default() };
    let client = server.client_of(&options).await;
    let created = Api::<Widget>::namespaced(client, "default").create(&PostParams::default(), &widget("a")).await;
    assert_eq!(created.unwrap().name_any(), "a");

    let mut kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let serving = std::fs::read_to_string(server.dir.path().join("state/serving.json")).unwrap();
    let serving: serde_json::Value = serde_json::from_str(&serving).unwrap();
    for named in &mut kubeconfig.auth_infos {
        let user = named.auth_info.as_mut().unwrap();
        let base64 = |field: &str| base64::engine::general_purpose::STANDARD.encode(serving[field].as_str().unwrap());
        user.client_certificate_data = Some(base64("certificate_pem"));
        user.client_key_data = Some(base64("key_pem").into());
    }
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let refused = Api::<Widget>::namespaced(client, "default").get("a").await.unwrap_err();
    assert!(!matches!(refused, kube::Error::Api(_)), "the handshake fails: {refused:?}");
}
