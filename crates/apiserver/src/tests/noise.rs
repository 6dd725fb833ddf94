//! Requests that make no sense, and some that only pretend to: none may panic, hang, fail inside, or stay in memory.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, header};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::{Reply, Server, WIDGETS, widget};

fn config(few: u32) -> ProptestConfig {
    ProptestConfig { cases: oncelet_fuzz::count(few), max_shrink_iters: 2000, ..ProptestConfig::default() }
}

/// Paths that lead to every part of the server.
const PATHS: [&str; 28] = [
    "/apis/example.dev/v1/namespaces/default/widgets/a/scale",
    "/apis/example.dev/v1/namespaces/default/widgets/a/log",
    "/apis/example.dev/v1",
    "/apis/example.dev",
    "/api",
    "/version",
    "/api/v1/namespaces/default/secrets/a",
    "/api/v1/namespaces/n",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.dev",
    "/openapi/v3/api/v1",
    WIDGETS,
    "/apis/example.dev/v1/namespaces/default/widgets/a",
    "/apis/example.dev/v1/namespaces/default/widgets/a/status",
    "/apis/example.dev/v1/widgets",
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/configmaps/a",
    "/api/v1/namespaces/default/secrets",
    "/api/v1/namespaces/default/events",
    "/apis/events.k8s.io/v1/namespaces/default/events",
    "/apis/coordination.k8s.io/v1/namespaces/default/leases/a",
    "/api/v1/namespaces",
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    "/apis",
    "/openapi/v2",
    "/openapi/v3/apis/example.dev/v1",
    "/livez",
];

const MEDIA_TYPES: [&str; 8] = [
    "application/json",
    "application/yaml",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/vnd.kubernetes.protobuf",
    "text/nonsense",
];

/// Bodies that are good somewhere.
fn good_bodies() -> Vec<Vec<u8>> {
    let metadata = json!({"name": "a", "labels": {"x": "y"}, "finalizers": ["example.dev/x"], "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u", "controller": true}]});
    let definition: Value = serde_saphyr::from_str(include_str!("../../tests/common/widgets.yaml")).unwrap();
    let documents = [
        widget(
            "a",
            &json!({"file": "/f", "replicas": 3, "port": "80", "open": {"any": [1, 2.5, null]}, "ports": [{"name": "x"}]}),
        ),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": "v"}, "binaryData": {"b": "AAA="}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"k": "v"}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"name": "a"}}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}, "spec": {"leaseDurationSeconds": 5}}),
        json!([{"op": "test", "path": "/metadata/finalizers", "value": null}, {"op": "add", "path": "/spec/args/-", "value": "x"},
            {"op": "copy", "from": "/spec", "path": "/spec/open/x"}, {"op": "move", "from": "/spec/url", "path": "/spec/file"}]),
        json!({"spec": {"ports": [{"name": "x", "$patch": "delete"}], "$retainKeys": ["a"]}, "data": {"k": null}}),
        json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Orphan", "preconditions": {"uid": "u"}}),
        definition,
    ];
    let mut all: Vec<Vec<u8>> = documents.iter().map(|document| document.to_string().into_bytes()).collect();
    all.push(
        b"apiVersion: example.dev/v1\nkind: Widget\nmetadata: &m {name: a}\nspec: {file: /f, open: {x: *m}}\n".to_vec(),
    );
    // A ConfigMap `a` with `k: v`, as kubectl sends it.
    let unknown = [
        b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x0f".as_slice(),
        b"\n\x05\n\x01a\x12\0\x12\x06\n\x01k\x12\x01v\x1a\0\"\0",
    ];
    all.push(unknown.concat());
    all
}

/// What turns a good body into one that nearly is.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Double(prop::sample::Index, prop::sample::Index),
    Insert(prop::sample::Index, &'static [u8]),
}

const TOKENS: [&[u8]; 16] = [
    b"null",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\ud800",
    b"-0",
    b"1e999",
    b"18446744073709551616",
    b"\0",
    b"\xff\xff\xff\xff\x7f",
    b"/~2",
    b"$patch",
    b"&a *a",
    b",,",
];

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let place = any::<prop::sample::Index>;
        prop_oneof![
            (place(), any::<u8>()).prop_map(|(at, with)| Self::Flip(at, with)),
            place().prop_map(Self::Cut),
            (place(), place()).prop_map(|(from, to)| Self::Double(from, to)),
            (place(), select(&TOKENS[..])).prop_map(|(at, token)| Self::Insert(at, token)),
        ]
    }

    fn apply(&self, body: &mut Vec<u8>) {
        let length = body.len();
        if length == 0 {
            return;
        }
        match self {
            Self::Flip(at, with) => body[at.index(length)] ^= with,
            Self::Cut(at) => body.truncate(at.index(length)),
            Self::Double(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let part = body[from.min(to)..from.max(to)].to_vec();
                body.splice(to..to, part);
            }
            Self::Insert(at, token) => drop(body.splice(at.index(length)..at.index(length), token.iter().copied())),
        }
    }
}

fn query() -> impl Strategy<Value = String> {
    const NAMES: [&str; 14] = [
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "dryRun",
        "fieldValidation",
        "fieldManager",
        "force",
        "propagationPolicy",
        "sendInitialEvents",
        "timeoutSeconds",
        "x",
    ];
    let values = prop_oneof![
        select(
            &["", "true", "0", "All", "Strict", "NotOlderThan", "Exact", "1", "-1", "99999999999999999999", "m"][..]
        )
        .prop_map(str::to_owned),
        "[a-z0-9=!,()/. %&+-]{0,24}",
    ];
    let encoded =
        |text: String| percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
    prop::collection::vec((select(&NAMES[..]), values), 0..4).prop_map(move |all| {
        all.into_iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
    })
}

fn accept() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("application/json;as=Table;v=v1;g=meta.k8s.io".to_owned()),
        Just("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io".to_owned()),
        "[a-z*/;=,. ]{0,40}",
    ]
}

/// Whether an answer is one that a client can work with.
fn is_sensible(reply: &Reply) -> bool {
    let message = reply.body["message"].as_str().unwrap_or_default();
    // The one answer of Kubernetes' own that it calls an internal error.
    let undeclared = reply.status == 500 && message.starts_with("failed to create typed patch object");
    let told = reply.status < 400 || (reply.body["kind"] == "Status" && !message.is_empty());
    told && (reply.status < 500 || undeclared || reply.status == 504)
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn every_request_is_answered_sensibly(
        (method, path, query, accept) in (select(&["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"][..]), select(&PATHS[..]), query(), accept()),
        (media_type, body, damage) in (select(&MEDIA_TYPES[..]), select(good_bodies()), prop::collection::vec(Damage::any(), 0..4)),
    ) {
        thread_local! {
            static SERVER: Server = Server::start();
        }
        let mut body = body;
        for damage in &damage {
            damage.apply(&mut body);
        }
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{path}?{query}"))
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, media_type);
        let reply = SERVER.with(|server| server.send(request, body));
        prop_assert!(is_sensible(&reply), "{method} {path}?{query}: {reply:?}");
    }

    #[test]
    fn every_path_leads_somewhere(path in "(/[a-z0-9.%~-]{0,12}){0,9}/?") {
        thread_local! {
            static SERVER: Server = Server::start();
        }
        let Ok(uri) = path.parse::<http::Uri>() else { return Ok(()) };
        let reply = SERVER.with(|server| server.send(Request::builder().uri(uri), Body::empty()));
        prop_assert!(reply.status < 500, "{path}: {reply:?}");
    }
}

/// Any small value.
fn anything() -> impl Strategy<Value = Value> {
    let scalars = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(
            &[
                "",
                "x",
                "string",
                "object",
                "array",
                "v1",
                "None",
                "2026-01-01T00:00:00Z",
                "+999999-01-01T00:00:00Z",
                "(",
                ".a[",
                "true"
            ][..]
        )
        .prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let names = prop_oneof![
        select(
            &[
                "type",
                "properties",
                "items",
                "default",
                "metadata",
                "spec",
                "name",
                "$patch",
                "x-kubernetes-validations",
                "rule",
                "f:a",
                "k:{}"
            ][..]
        )
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ];
    scalars.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..4)
                .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// Where the objects of a kind are.
fn home(kind: &Value) -> Option<&'static str> {
    Some(match kind.as_str()? {
        "Widget" => WIDGETS,
        "ConfigMap" => "/api/v1/namespaces/default/configmaps",
        "Secret" => "/api/v1/namespaces/default/secrets",
        "Namespace" => "/api/v1/namespaces",
        "Event" => "/api/v1/namespaces/default/events",
        "Lease" => "/apis/coordination.k8s.io/v1/namespaces/default/leases",
        "CustomResourceDefinition" => "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        _ => return None,
    })
}

/// The objects among the good bodies.
fn good_objects() -> Vec<Value> {
    let documents = good_bodies().into_iter().filter_map(|body| serde_json::from_slice::<Value>(&body).ok());
    documents.filter(|document| home(&document["kind"]).is_some()).collect()
}

proptest! {
    #![proptest_config(config(100))]

    /// Any value at any place of any object, written in every way that there is.
    #[test]
    fn anything_anywhere_is_refused_or_taken_and_shown(
        (document, place, value) in (select(good_objects()), any::<prop::sample::Index>(), anything()),
        how in 0..8,
    ) {
        let server = Server::start();
        let home = home(&document["kind"]).unwrap();
        let one = format!("{home}/{}", document["metadata"]["name"].as_str().unwrap());
        let _ = server.ask("POST", home, &document);
        let mut all = Vec::new();
        places(&document, String::new(), &mut all);
        let place = place.get(&all);
        let mut broken = document.clone();
        *broken.pointer_mut(place).unwrap() = value.clone();
        let replace = json!([{"op": "replace", "path": place, "value": value}]);
        let (method, path, media_type, body) = match how {
            0 => ("POST", home.to_owned(), "application/json", broken.to_string()),
            1 => ("PUT", one.clone(), "application/json", broken.to_string()),
            2 => ("PUT", one.clone(), "application/yaml", serde_saphyr::to_string(&broken).unwrap()),
            3 => ("PATCH", one.clone(), "application/merge-patch+json", broken.to_string()),
            4 => ("PATCH", one.clone(), "application/strategic-merge-patch+json", broken.to_string()),
            5 => ("PATCH", one.clone(), "application/json-patch+json", replace.to_string()),
            6 => ("PATCH", format!("{one}?fieldManager=m"), "application/apply-patch+yaml", broken.to_string()),
            _ => ("PATCH", format!("{one}?fieldManager=kubectl&force=true"), "application/apply-patch+yaml", broken.to_string()),
        };
        let request = Request::builder().method(method).uri(&path).header(header::CONTENT_TYPE, media_type);
        let reply = server.send(request, body);
        prop_assert!(is_sensible(&reply), "{method} {path} with {value} at {place:?}: {reply:?}");
        for path in [home, &one, "/apis/apiextensions.k8s.io/v1", "/openapi/v3/apis/example.dev/v1", WIDGETS] {
            let table = Request::get(path).header(header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
            let reply = server.send(table, Body::empty());
            prop_assert!(reply.status < 500, "GET {path} after {value} at {place:?}: {reply:?}");
        }
        // What a definition made of its objects is written, too.
        let reply = server.ask("POST", WIDGETS, &widget("b", &json!({"file": "/f", "replicas": 3})));
        prop_assert!(is_sensible(&reply), "POST {WIDGETS} after {value} at {place:?}: {reply:?}");
        prop_assert!(is_sensible(&server.ask("DELETE", &one, &Value::Null)));
    }
}

/// The places in a document, as JSON pointers.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, inner)| {
            places(inner, format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
        }),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, inner)| places(inner, format!("{at}/{index}"), found));
        }
        _ => {}
    }
    found.push(at);
}

/// Text in place of an object, a number in place of a list: a client's mistake, at every place of every kind.
#[test]
fn a_value_of_the_wrong_type_is_refused_or_taken_and_never_a_defect() {
    let server = Server::start();
    let mut tried: usize = 0;
    for document in good_objects() {
        let path = home(&document["kind"]).unwrap();
        let mut document = document;
        if document["kind"] == "Secret" {
            document["data"] = json!({"d": "AAAA"});
        }
        let one = format!("{path}/{}", document["metadata"]["name"].as_str().unwrap());
        let mut all = Vec::new();
        places(&document, String::new(), &mut all);
        for place in all {
            let all = [json!(null), json!(true), json!(-1.5), json!("x"), json!([]), json!(["x"]), json!({"x": "y"})];
            // All of them take a while: each place gets others.
            let few = if std::env::var_os(oncelet_fuzz::CASES).is_some() { all.len() } else { 2 };
            for wrong in all.iter().cycle().skip(tried / 3).take(few) {
                let mut broken = document.clone();
                *broken.pointer_mut(&place).unwrap() = wrong.clone();
                for (method, path) in [("POST", path), ("PUT", &one), ("PATCH", &one)] {
                    let reply = server.ask(method, path, &broken);
                    assert!(is_sensible(&reply), "{method} {path} with {wrong} at {place:?}: {reply:?}");
                    tried += 1;
                }
            }
            // What was taken is shown, and goes again.
            for path in [path, "/openapi/v3/apis/example.dev/v1", "/apis/apiextensions.k8s.io/v1"] {
                assert!(server.send(Request::get(path), Body::empty()).status < 500, "GET {path} after {place:?}");
            }
            let reply = server.ask("DELETE", &one, &Value::Null);
            assert!(is_sensible(&reply), "DELETE {one} after {place:?}: {reply:?}");
        }
    }
    assert!(tried > 600, "only {tried} were tried");
}

/// Small requests that would take all time or memory, if they were taken at their word.
#[test]
fn what_would_grow_without_end_is_refused() {
    let server = Server::start();
    assert_eq!(
        server.ask("POST", WIDGETS, &widget("a", &json!({"file": "/f", "open": {"x": "0123456789"}}))).status,
        201
    );
    let path = format!("{WIDGETS}/a");
    let send_patch = |media_type: &'static str, body: String| {
        server.send(Request::patch(&path).header(header::CONTENT_TYPE, media_type), body)
    };
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let nested = format!("{{\"spec\": {{\"open\": {{\"x\": {deep}}}}}}}");
    assert_eq!(send_patch("application/merge-patch+json", nested.clone()).status, 400);
    assert_eq!(send_patch("application/apply-patch+yaml", nested).status, 400);
    let laughs: Vec<_> = (1..40).map(|level| format!("l{level}: &l{level} [*l{0}, *l{0}]\n", level - 1)).collect();
    let reply = send_patch("application/apply-patch+yaml?", String::new());
    assert_eq!(reply.status, 415);
    let request =
        Request::patch(format!("{path}?fieldManager=m")).header(header::CONTENT_TYPE, "application/apply-patch+yaml");
    assert_eq!(server.send(request, format!("l0: &l0 [a, a]\n{}", laughs.concat())).status, 400);
    let copies: Vec<_> =
        (0..40).map(|at| json!({"op": "copy", "from": "/spec/open", "path": format!("/spec/open/c{at}")})).collect();
    assert_eq!(send_patch("application/json-patch+json", json!(copies).to_string()).status, 413);
    let operations = vec![json!({"op": "test", "path": "/a", "value": null}); 10_001];
    assert_eq!(send_patch("application/json-patch+json", json!(operations).to_string()).status, 413);
    // One that is let in each time, and makes the object grow.
    let mebibyte = "x".repeat(1024 * 1024);
    let grow = |at: usize| {
        send_patch("application/merge-patch+json", json!({"spec": {"open": {format!("g{at}"): mebibyte}}}).to_string())
    };
    let statuses: Vec<_> = (0..4).map(|at| grow(at).status).collect();
    assert_eq!(statuses, [200, 200, 413, 413]);
}

/// A time that no clock can tell.
#[test]
fn a_watch_may_ask_for_the_largest_time() {
    let server = Server::start();
    let path = format!("{WIDGETS}?watch=true&timeoutSeconds={}", u64::MAX);
    assert_eq!(server.ask("POST", WIDGETS, &widget("a", &json!({"file": "/f"}))).status, 201);
    assert_eq!(server.watch(&path, 1)[0]["type"], "ADDED");
}

/// Selectors, schemas and rules come from clients, too.
#[test]
fn a_definition_cannot_keep_the_server_busy() {
    let server = Server::start();
    let definition = |schema: Value| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "busies.example.dev"},
            "spec": {"group": "example.dev", "scope": "Namespaced", "names": {"plural": "busies", "kind": "Busy"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
    };
    let text = |extra: Value| {
        let mut node = json!({"type": "string"});
        node.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        definition(json!({"type": "object", "properties": {"spec": node}}))
    };
    let create = |object: &Value| server.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", object);
    for bad in [json!({"pattern": "("}), json!({"x-kubernetes-validations": [{"rule": "self.("}]})] {
        assert_eq!(create(&text(bad)).status, 422);
    }
    // A pattern that other engines take for ever for.
    assert_eq!(create(&text(json!({"pattern": "^(a+)+$"}))).status, 201);
    let object = json!({"apiVersion": "example.dev/v1", "kind": "Busy", "metadata": {"name": "a"}, "spec": "a".repeat(100_000) + "b"});
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let reply = server.ask("POST", "/apis/example.dev/v1/namespaces/default/busies", &object);
            done.send(reply.status).unwrap();
        });
        assert_eq!(finished.recv_timeout(Duration::from_mins(1)), Ok(422));
    });
}
