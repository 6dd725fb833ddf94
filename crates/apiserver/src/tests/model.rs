//! Random sequences of requests, beside the simplest store of objects that keeps what Kubernetes promises.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{FIRST, Server, WIDGETS, widget};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Which version or UID a request names.
#[derive(Clone, Copy, Debug)]
enum Claim {
    None,
    Right,
    Wrong,
}

#[derive(Clone, Debug)]
enum Op {
    Create { name: &'static str, replicas: u8, dry: bool },
    Update { name: &'static str, replicas: u8, version: Claim, status: bool },
    Patch { name: &'static str, replicas: u8, version: Claim },
    PatchStatus { name: &'static str, phase: u8 },
    Label { name: &'static str, label: Option<u8> },
    Finalizer { name: &'static str, there: bool },
    Delete { name: &'static str, uid: Claim, version: Claim },
    DeleteLabelled { label: u8 },
}

/// What the model knows of one object.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    uid: String,
    version: u64,
    generation: i64,
    replicas: u8,
    phase: Option<u8>,
    label: Option<u8>,
    finalizer: bool,
    ending: bool,
}

/// The state that clients must see, and the events that watchers must.
#[derive(Default)]
struct Model {
    objects: BTreeMap<&'static str, Known>,
    events: Vec<(&'static str, &'static str, u64)>,
    /// Versions after which the state is known.
    history: Vec<(u64, BTreeMap<&'static str, Known>)>,
    version: u64,
}

fn op() -> impl Strategy<Value = Op> {
    let name = || prop::sample::select(&NAMES[..]);
    let claim = || prop_oneof![3 => Just(Claim::None), 3 => Just(Claim::Right), 1 => Just(Claim::Wrong)];
    let small = || 0..4_u8;
    prop_oneof![
        4 => (name(), small(), prop::bool::weighted(0.2)).prop_map(|(name, replicas, dry)| Op::Create { name, replicas, dry }),
        4 => (name(), small(), claim(), any::<bool>())
            .prop_map(|(name, replicas, version, status)| Op::Update { name, replicas, version, status }),
        4 => (name(), small(), claim()).prop_map(|(name, replicas, version)| Op::Patch { name, replicas, version }),
        3 => (name(), small()).prop_map(|(name, phase)| Op::PatchStatus { name, phase }),
        2 => (name(), prop::option::of(0..2_u8)).prop_map(|(name, label)| Op::Label { name, label }),
        2 => (name(), any::<bool>()).prop_map(|(name, there)| Op::Finalizer { name, there }),
        3 => (name(), claim(), claim()).prop_map(|(name, uid, version)| Op::Delete { name, uid, version }),
        1 => (0..2_u8).prop_map(|label| Op::DeleteLabelled { label }),
    ]
}

/// The spec as it is stored: the definition fills in `size`.
fn spec(replicas: u8) -> Value {
    json!({"size": "Small", "file": "/f", "replicas": replicas})
}

impl Known {
    fn version(&self, claim: Claim) -> Option<u64> {
        match claim {
            Claim::None => None,
            Claim::Right => Some(self.version),
            Claim::Wrong => Some(self.version - 1),
        }
    }

    /// Whether a server's object is this one.
    fn check(&self, name: &str, object: &Value) {
        let expected = json!({
            "uid": self.uid, "version": self.version.to_string(), "generation": self.generation, "spec": spec(self.replicas),
            "phase": self.phase.map(|phase| phase.to_string()), "label": self.label.map(|label| label.to_string()),
            "finalizers": self.finalizer.then(|| json!(["example.dev/hold"])), "ending": self.ending, "name": name,
        });
        let metadata = &object["metadata"];
        let found = json!({
            "uid": metadata["uid"], "version": metadata["resourceVersion"], "generation": metadata["generation"],
            "spec": object["spec"], "phase": object["status"]["phase"], "label": metadata["labels"]["x"],
            "finalizers": metadata.get("finalizers"), "ending": metadata["deletionTimestamp"].is_string(),
            "name": metadata["name"],
        });
        assert_eq!(found, expected);
    }
}

impl Model {
    /// A write: the object is `new` from now on.
    fn write(&mut self, name: &'static str, new: Known) {
        let event = if self.objects.contains_key(name) { "MODIFIED" } else { "ADDED" };
        self.version = new.version;
        self.events.push((event, name, new.version));
        self.objects.insert(name, new);
        self.history.push((self.version, self.objects.clone()));
    }

    fn remove(&mut self, name: &'static str, version: u64) {
        self.version = version;
        self.events.push(("DELETED", name, version));
        self.objects.remove(name);
        self.history.push((self.version, self.objects.clone()));
    }

    /// What a change makes of the object: nothing where nothing changes, its end where nothing holds it any more.
    fn change(&mut self, name: &'static str, change: impl FnOnce(&mut Known)) -> Option<Known> {
        let old = self.objects[name].clone();
        let mut new = old.clone();
        change(&mut new);
        if new == old {
            return Some(old);
        }
        if new.replicas != old.replicas {
            new.generation += 1;
        }
        new.version = self.version + 1;
        if new.ending && !new.finalizer {
            self.remove(name, new.version);
            return None;
        }
        self.write(name, new.clone());
        Some(new)
    }

    fn end(&mut self, name: &'static str) {
        let held = self.objects[name].finalizer;
        if !held {
            self.remove(name, self.version + 1);
        } else if !self.objects[name].ending {
            self.change(name, |known| {
                known.ending = true;
                known.generation += 1;
            });
        }
    }
}

/// One operation on the server and on the model.
#[allow(clippy::too_many_lines, reason = "one arm for each operation")]
fn step(server: &Server, model: &mut Model, op: &Op) {
    let at = |name: &str| format!("{WIDGETS}/{name}");
    match *op {
        Op::Create { name, replicas, dry } => {
            let object = widget(name, &json!({"file": "/f", "replicas": replicas}));
            let query = if dry { "?dryRun=All" } else { "" };
            let reply = server.ask("POST", &format!("{WIDGETS}{query}"), &object);
            if model.objects.contains_key(name) {
                assert_eq!((reply.status, &reply.body["reason"]), (409, &json!("AlreadyExists")));
                return;
            }
            assert_eq!(reply.status, 201, "{}", reply.body);
            if dry {
                assert_eq!(reply.body["metadata"].get("resourceVersion"), None);
                return;
            }
            let known = Known {
                uid: reply.body["metadata"]["uid"].as_str().unwrap().to_owned(),
                version: model.version + 1,
                generation: 1,
                replicas,
                phase: None,
                label: None,
                finalizer: false,
                ending: false,
            };
            known.check(name, &reply.body);
            model.write(name, known);
        }
        Op::Update { name, replicas, version, status } => {
            let Some(known) = model.objects.get(name).cloned() else {
                assert_eq!(server.ask("PUT", &at(name), &widget(name, &spec(replicas))).status, 404);
                return;
            };
            // As a client does it: the object that it read, changed. What it says of the status is not for this place.
            let mut object = server.ask("GET", &at(name), &Value::Null).body;
            object["spec"] = spec(replicas);
            if status {
                object["status"] = json!({"phase": "ignored"});
            }
            match known.version(version) {
                Some(version) => object["metadata"]["resourceVersion"] = json!(version.to_string()),
                None => drop(object["metadata"].as_object_mut().unwrap().remove("resourceVersion")),
            }
            let reply = server.ask("PUT", &at(name), &object);
            match version {
                Claim::None => assert_eq!(reply.status, 422, "a custom resource is not replaced blindly"),
                Claim::Wrong => assert_eq!((reply.status, &reply.body["reason"]), (409, &json!("Conflict"))),
                Claim::Right => {
                    assert_eq!(reply.status, 200, "{}", reply.body);
                    if let Some(now) = model.change(name, |known| known.replicas = replicas) {
                        now.check(name, &reply.body);
                    }
                }
            }
        }
        Op::Patch { name, replicas, version } => {
            let Some(known) = model.objects.get(name).cloned() else {
                assert_eq!(server.ask("PATCH", &at(name), &json!({"spec": {"replicas": replicas}})).status, 404);
                return;
            };
            let mut patch = json!({"spec": {"replicas": replicas}});
            if let Some(version) = known.version(version) {
                patch["metadata"] = json!({"resourceVersion": version.to_string()});
            }
            let reply = server.ask("PATCH", &at(name), &patch);
            if let Claim::Wrong = version {
                assert_eq!((reply.status, &reply.body["reason"]), (409, &json!("Conflict")));
                return;
            }
            assert_eq!(reply.status, 200, "{}", reply.body);
            if let Some(now) = model.change(name, |known| known.replicas = replicas) {
                now.check(name, &reply.body);
            }
        }
        Op::PatchStatus { name, phase } => {
            // The spec beside it is not for this place either.
            let patch = json!({"status": {"phase": phase.to_string()}, "spec": {"replicas": 9}});
            let reply = server.ask("PATCH", &format!("{}/status", at(name)), &patch);
            if !model.objects.contains_key(name) {
                assert_eq!(reply.status, 404);
                return;
            }
            assert_eq!(reply.status, 200, "{}", reply.body);
            if let Some(now) = model.change(name, |known| known.phase = Some(phase)) {
                now.check(name, &reply.body);
            }
        }
        Op::Label { name, label } => {
            let patch = json!({"metadata": {"labels": {"x": label.map(|label| label.to_string())}}});
            let reply = server.ask("PATCH", &at(name), &patch);
            if !model.objects.contains_key(name) {
                assert_eq!(reply.status, 404);
                return;
            }
            assert_eq!(reply.status, 200, "{}", reply.body);
            if let Some(now) = model.change(name, |known| known.label = label) {
                now.check(name, &reply.body);
            }
        }
        Op::Finalizer { name, there } => {
            let finalizers = if there { json!(["example.dev/hold"]) } else { Value::Null };
            let reply = server.ask("PATCH", &at(name), &json!({"metadata": {"finalizers": finalizers}}));
            let Some(known) = model.objects.get(name) else {
                assert_eq!(reply.status, 404);
                return;
            };
            if known.ending && there && !known.finalizer {
                assert_eq!(reply.status, 422, "nothing new may hold on to what is ending");
                return;
            }
            assert_eq!(reply.status, 200, "{}", reply.body);
            if let Some(now) = model.change(name, |known| known.finalizer = there) {
                now.check(name, &reply.body);
            }
        }
        Op::Delete { name, uid, version } => {
            let known = model.objects.get(name).cloned();
            let mut conditions = json!({});
            if let Some(known) = &known {
                match uid {
                    Claim::None => {}
                    Claim::Right => conditions["uid"] = json!(known.uid),
                    Claim::Wrong => conditions["uid"] = json!("another"),
                }
                if let Some(version) = known.version(version) {
                    conditions["resourceVersion"] = json!(version.to_string());
                }
            }
            let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": conditions});
            let reply = server.ask("DELETE", &at(name), &options);
            let wrong = matches!(uid, Claim::Wrong) || matches!(version, Claim::Wrong);
            match known {
                None => assert_eq!(reply.status, 404),
                Some(_) if wrong => assert_eq!((reply.status, &reply.body["reason"]), (409, &json!("Conflict"))),
                Some(_) => {
                    assert_eq!(reply.status, 200, "{}", reply.body);
                    model.end(name);
                }
            }
        }
        Op::DeleteLabelled { label } => {
            let reply = server.ask("DELETE", &format!("{WIDGETS}?labelSelector=x%3D{label}"), &Value::Null);
            assert_eq!(reply.status, 200, "{}", reply.body);
            let labelled: Vec<_> =
                model.objects.iter().filter(|(_, known)| known.label == Some(label)).map(|(name, _)| *name).collect();
            for name in labelled {
                model.end(name);
            }
        }
    }
}

/// The server shows exactly the model's objects, now and at every version since the beginning.
fn check_state(server: &Server, model: &Model) {
    let compare = |list: &Value, objects: &BTreeMap<&str, Known>| {
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), objects.len(), "{list}");
        for (item, (name, known)) in items.iter().zip(objects) {
            known.check(name, item);
        }
    };
    let list = server.ask("GET", WIDGETS, &Value::Null);
    assert_eq!(list.body["metadata"]["resourceVersion"], model.version.to_string());
    compare(&list.body, &model.objects);
    for (version, objects) in &model.history {
        let query = format!("resourceVersion={version}&resourceVersionMatch=Exact");
        let then = server.ask("GET", &format!("{WIDGETS}?{query}"), &Value::Null);
        assert_eq!(then.status, 200, "{}", then.body);
        compare(&then.body, objects);
    }
}

/// A watcher from any version on sees every change since, once, in order.
fn check_events(server: &Server, model: &Model, from: usize) {
    let since = from.checked_sub(1).map_or(model.history[0].0 - 1, |last| model.history[last].0);
    let expected = &model.events[from..];
    let events = server.watch(&format!("{WIDGETS}?watch=true&resourceVersion={since}"), expected.len());
    for (event, (kind, name, version)) in events.iter().zip(expected) {
        let metadata = &event["object"]["metadata"];
        let found = (event["type"].as_str(), metadata["name"].as_str(), metadata["resourceVersion"].as_str());
        assert_eq!(found, (Some(*kind), Some(*name), Some(&*version.to_string())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_requests_is_answered_as_the_model_says(
        ops in prop::collection::vec(op(), 1..40),
        from in any::<prop::sample::Index>(),
    ) {
        let server = Server::start();
        // The definition and the namespace are there already.
        let mut model = Model { version: server.app.store.version(), ..Model::default() };
        prop_assert!(model.version > FIRST);
        for op in &ops {
            step(&server, &mut model, op);
        }
        check_state(&server, &model);
        if !model.events.is_empty() {
            check_events(&server, &model, from.index(model.events.len()));
        }
    }
}
