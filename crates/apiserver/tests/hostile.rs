//! Requests that are small and would cost much: each is answered, in bounded memory and in time that grows with its size.
//!
//! Each line of its output tells what a request cost: `cargo test -p oncelet-apiserver --test hostile -- --nocapture`.
//!
//! In a binary of its own, with one test, so that the memory of the process is that of the request.

#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use common::TestServer;

const WIDGETS: &str = "/apis/example.dev/v1/namespaces/default/widgets";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// As large as a body may be, about.
const ROOM: usize = 3 * 1024 * 1024 - 100_000;
/// More than a request may add to the memory of the process, which the client of this test is in as well.
const MEMORY: usize = 600 * 1024 * 1024;
/// More than an answer takes on a slow and busy machine. What takes the square of the time takes hours.
const TIME: Duration = Duration::from_mins(2);

struct Tried {
    name: &'static str,
    method: Method,
    path: String,
    media_type: &'static str,
    body: String,
}

fn tried(name: &'static str, method: Method, path: &str, media_type: &'static str, body: String) -> Tried {
    Tried { name, method, path: path.to_owned(), media_type, body }
}

/// `unit(0)unit(1)…` up to so many bytes.
fn fill(room: usize, unit: impl Fn(usize) -> String) -> String {
    let mut text = String::new();
    for number in 0.. {
        let more = unit(number);
        if text.len() + more.len() > room {
            break;
        }
        text.push_str(&more);
    }
    text
}

fn listed(room: usize, unit: impl Fn(usize) -> String) -> String {
    fill(room, |number| format!("{}{}", if number == 0 { "" } else { "," }, unit(number)))
}

/// Up to so many items.
fn many(count: usize, unit: impl Fn(usize) -> String) -> String {
    (0..count).map(unit).collect::<Vec<_>>().join(",")
}

fn widget(open: &str) -> String {
    format!(
        r#"{{"apiVersion":"example.dev/v1","kind":"Widget","metadata":{{"name":"a"}},"spec":{{"file":"/f","open":{open}}}}}"#
    )
}

fn config_map(metadata: &str, more: &str) -> String {
    format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"a"{metadata}}}{more}}}"#)
}

fn definition(schema: &Value) -> String {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "busies.example.dev"},
        "spec": {"group": "example.dev", "scope": "Namespaced", "names": {"plural": "busies", "kind": "Busy"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
    .to_string()
}

fn bodies() -> Vec<Tried> {
    let (post, put) = (Method::POST, Method::PUT);
    let one = format!("{CONFIG_MAPS}/a");
    let long = "k".repeat(ROOM / 2);
    let half = ROOM / 2;
    let rule = |rule: &str| definition(&json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}]}));
    let mut all = vec![
        tried("values", post.clone(), WIDGETS, JSON, widget(&format!("[{}]", listed(ROOM, |_| "0".to_owned())))),
        tried("lists", post.clone(), WIDGETS, JSON, widget(&format!("[{}]", listed(ROOM, |_| "[]".to_owned())))),
        tried(
            "values at the limit",
            post.clone(),
            WIDGETS,
            JSON,
            widget(&format!("[{}]", many(240_000, |_| "0".to_owned()))),
        ),
        tried(
            "fields at the limit",
            post.clone(),
            WIDGETS,
            JSON,
            widget(&format!("{{{}}}", many(40_000, |at| format!("\"{at}\":0")))),
        ),
        tried("deep lists", post.clone(), WIDGETS, JSON, widget(&("[".repeat(half) + &"]".repeat(half)))),
        tried("deep objects", post.clone(), WIDGETS, JSON, widget(&fill(ROOM, |_| "{\"a\":".to_owned()))),
        tried(
            "unknown fields",
            post.clone(),
            CONFIG_MAPS,
            JSON,
            config_map("", &format!(",{}", many(40_000, |at| format!("\"u{at}\":0")))),
        ),
        tried(
            "unknown fields, strictly",
            post.clone(),
            &format!("{CONFIG_MAPS}?fieldValidation=Strict"),
            JSON,
            config_map("", &format!(",{}", many(40_000, |at| format!("\"u{at}\":0")))),
        ),
        tried(
            "unknown below a long name",
            post.clone(),
            CONFIG_MAPS,
            JSON,
            config_map("", &format!(",\"{long}\":{{{}}}", listed(half - 1000, |_| "\"a\":0".to_owned()))),
        ),
        tried(
            "duplicates below a long name",
            post.clone(),
            WIDGETS,
            JSON,
            widget(&format!("{{\"{long}\":{{{}}}}}", many(40_000, |_| "\"a\":0".to_owned()))),
        ),
        tried(
            "duplicates",
            post.clone(),
            WIDGETS,
            JSON,
            widget(&format!("{{{}}}", many(40_000, |_| "\"a\":0".to_owned()))),
        ),
        tried(
            "data",
            post.clone(),
            CONFIG_MAPS,
            JSON,
            config_map("", &format!(",\"data\":{{{}}}", many(40_000, |at| format!("\"{at}\":\"\"")))),
        ),
        tried(
            "other data",
            put.clone(),
            &one,
            JSON,
            config_map("", &format!(",\"data\":{{{}}}", many(40_000, |at| format!("\"x{at}\":\"\"")))),
        ),
        tried(
            "bad keys",
            put.clone(),
            &one,
            JSON,
            config_map("", &format!(",\"data\":{{{}}}", many(40_000, |at| format!("\"/{at}\":\"\"")))),
        ),
        tried(
            "bad labels",
            put.clone(),
            &one,
            JSON,
            config_map(&format!(",\"labels\":{{{}}}", many(40_000, |at| format!("\"/{at}\":\"/\""))), ""),
        ),
        tried(
            "bad annotations",
            put.clone(),
            &one,
            JSON,
            config_map(&format!(",\"annotations\":{{{}}}", many(40_000, |at| format!("\"/{at}\":\"/\""))), ""),
        ),
        tried(
            "wrong labels",
            put.clone(),
            &one,
            JSON,
            config_map(&format!(",\"labels\":{{{}}}", many(40_000, |at| format!("\"a{at}\":0"))), ""),
        ),
        tried(
            "finalizers",
            put.clone(),
            &one,
            JSON,
            config_map(&format!(",\"finalizers\":[{}]", listed(ROOM, |at| format!("\"e.d/{at}\""))), ""),
        ),
        tried(
            "other finalizers",
            put.clone(),
            &one,
            JSON,
            config_map(&format!(",\"finalizers\":[{}]", listed(ROOM, |at| format!("\"f.d/{at}\""))), ""),
        ),
        tried(
            "bad finalizers",
            put.clone(),
            &one,
            JSON,
            config_map(&format!(",\"finalizers\":[{}]", listed(ROOM, |at| format!("\"{at}\""))), ""),
        ),
        tried(
            "finalizers, strategically",
            Method::PATCH,
            &one,
            STRATEGIC,
            format!(
                r#"{{"metadata":{{"finalizers":[{0}],"$setElementOrder/finalizers":[{0}],"$deleteFromPrimitiveList/finalizers":[{0}]}}}}"#,
                listed(ROOM / 3, |at| format!("\"g.d/{at}\""))
            ),
        ),
        tried(
            "finalizers, applied",
            Method::PATCH,
            &format!("{one}?fieldManager=m"),
            APPLY,
            config_map(&format!(",\"finalizers\":[{}]", listed(ROOM, |at| format!("\"h.d/{at}\""))), ""),
        ),
        tried(
            "finalizers, applied no more",
            Method::PATCH,
            &format!("{one}?fieldManager=m"),
            APPLY,
            config_map("", ""),
        ),
        tried(
            "owners",
            put.clone(),
            &one,
            JSON,
            config_map(
                &format!(
                    ",\"ownerReferences\":[{}]",
                    many(45_000, |at| format!(
                        "{{\"uid\":\"{at}\",\"name\":\"n\",\"kind\":\"K\",\"apiVersion\":\"v\"}}"
                    ))
                ),
                "",
            ),
        ),
        tried(
            "owners, strategically",
            Method::PATCH,
            &one,
            STRATEGIC,
            format!(r#"{{"metadata":{{"ownerReferences":[{}]}}}}"#, many(40_000, |at| format!("{{\"uid\":\"{at}\"}}"))),
        ),
        tried(
            "owners removed, strategically",
            Method::PATCH,
            &one,
            STRATEGIC,
            format!(
                r#"{{"metadata":{{"ownerReferences":[{}]}}}}"#,
                many(40_000, |at| format!("{{\"uid\":\"{at}\",\"$patch\":\"delete\"}}"))
            ),
        ),
        tried(
            "managers",
            put.clone(),
            &one,
            JSON,
            config_map(
                &format!(
                    ",\"managedFields\":[{}]",
                    many(24_000, |at| format!(
                        "{{\"manager\":\"m{at}\",\"operation\":\"Update\",\"fieldsV1\":{{\"f:data\":{{}}}}}}"
                    ))
                ),
                "",
            ),
        ),
        tried(
            "nulls",
            Method::PATCH,
            &one,
            MERGE,
            format!("{{\"data\":{{{}}}}}", many(40_000, |at| format!("\"x{at}\":null"))),
        ),
        tried(
            "data again",
            put.clone(),
            &one,
            JSON,
            config_map("", &format!(",\"data\":{{{}}}", many(36_000, |at| format!("\"x{at}\":\"\"")))),
        ),
        tried(
            "operations at the front",
            Method::PATCH,
            &one,
            PATCH,
            format!("[{}]", many(10_000, |at| format!("{{\"op\":\"remove\",\"path\":\"/data/x{at}\"}}"))),
        ),
        tried(
            "applied data",
            Method::PATCH,
            &format!("{one}?fieldManager=m"),
            APPLY,
            config_map("", &format!(",\"data\":{{{}}}", many(36_000, |at| format!("\"x{at}\":\"1\"")))),
        ),
        tried(
            "applied data by force",
            Method::PATCH,
            &format!("{one}?fieldManager=m&force=true"),
            APPLY,
            config_map("", &format!(",\"data\":{{{}}}", many(36_000, |at| format!("\"x{at}\":\"1\"")))),
        ),
        tried("applied data no more", Method::PATCH, &format!("{one}?fieldManager=m"), APPLY, config_map("", "")),
        tried("yaml list", post.clone(), WIDGETS, YAML, fill(ROOM, |_| "- ".to_owned())),
        tried("yaml flow", post.clone(), WIDGETS, YAML, "[".repeat(ROOM)),
        tried("yaml flow maps", post.clone(), WIDGETS, YAML, "{".repeat(ROOM)),
        tried("yaml keys", post.clone(), WIDGETS, YAML, fill(ROOM, |_| "? ".to_owned())),
        tried("yaml colons", post.clone(), WIDGETS, YAML, fill(ROOM, |_| "a: ".to_owned())),
        tried(
            "yaml indentation",
            post.clone(),
            WIDGETS,
            YAML,
            fill(ROOM, |at| format!("{}a:\n", " ".repeat(at % 2000))),
        ),
        tried("yaml anchors", post.clone(), WIDGETS, YAML, fill(ROOM, |at| format!("- &a{at} x\n"))),
        tried(
            "yaml aliases",
            post.clone(),
            WIDGETS,
            YAML,
            format!("a: &a [{}]\nb:\n", "x,".repeat(1000)) + &fill(ROOM - 10_000, |_| "- *a\n".to_owned()),
        ),
        tried(
            "yaml merges",
            post.clone(),
            WIDGETS,
            YAML,
            "a: &a {x: 1}\nb:\n".to_owned() + &fill(ROOM - 100, |_| "  <<: *a\n".to_owned()),
        ),
        tried("yaml scalar", post.clone(), WIDGETS, YAML, "a: ".to_owned() + &"x\n ".repeat(ROOM / 3)),
        tried("yaml folded", post.clone(), WIDGETS, YAML, "a: >\n".to_owned() + &" x\n\n".repeat(ROOM / 4)),
        tried("yaml quoted", post.clone(), WIDGETS, YAML, "a: \"".to_owned() + &"\\\n".repeat(ROOM / 2)),
        tried("yaml quotes", post.clone(), WIDGETS, YAML, "a: '".to_owned() + &"'".repeat(ROOM - 10)),
        tried("yaml documents", post.clone(), WIDGETS, YAML, "---\n".repeat(ROOM / 4)),
        tried("yaml tags", post.clone(), WIDGETS, YAML, fill(ROOM, |_| "!a ".to_owned())),
        tried("yaml tag", post.clone(), WIDGETS, YAML, format!("!<{}> x", "a".repeat(ROOM - 10))),
        tried("yaml comments", post.clone(), WIDGETS, YAML, "#\n".repeat(ROOM / 2)),
        tried("yaml directives", post.clone(), WIDGETS, YAML, "%YAML 1.2\n".repeat(ROOM / 10)),
        tried("yaml number", post.clone(), WIDGETS, YAML, format!("a: {}", "9".repeat(ROOM - 10))),
        tried("json number", post.clone(), WIDGETS, JSON, widget(&"9".repeat(ROOM))),
        tried("json small number", post.clone(), WIDGETS, JSON, widget(&format!("0.{}1", "0".repeat(ROOM)))),
        tried("rule in parentheses", post.clone(), DEFINITIONS, JSON, rule(&("(".repeat(half) + &")".repeat(half)))),
        tried("rule of nots", post.clone(), DEFINITIONS, JSON, rule(&("!".repeat(half) + "true"))),
        tried("rule of minuses", post.clone(), DEFINITIONS, JSON, rule(&("-".repeat(half) + "1"))),
        tried(
            "rule of sums",
            post.clone(),
            DEFINITIONS,
            JSON,
            rule(&("1".to_owned() + &"+1".repeat(half / 2) + " > 0")),
        ),
        tried("rule of ors", post.clone(), DEFINITIONS, JSON, rule(&("true".to_owned() + &"||true".repeat(half / 6)))),
        tried("rule of fields", post.clone(), DEFINITIONS, JSON, rule(&("self".to_owned() + &".a".repeat(half / 2)))),
        tried("rule of indices", post.clone(), DEFINITIONS, JSON, rule(&("self".to_owned() + &"[0]".repeat(half / 3)))),
        tried("rule of choices", post.clone(), DEFINITIONS, JSON, rule(&"true?true:".repeat(half / 10))),
        tried("rule of lists", post.clone(), DEFINITIONS, JSON, rule(&"[".repeat(half))),
        tried("rule of calls", post.clone(), DEFINITIONS, JSON, rule(&"size(".repeat(half / 5))),
        tried(
            "rule of a long list",
            post.clone(),
            DEFINITIONS,
            JSON,
            rule(&format!("[{}].size() > 0", listed(half, |_| "1".to_owned()))),
        ),
        tried(
            "pattern",
            post.clone(),
            DEFINITIONS,
            JSON,
            definition(
                &json!({"type": "object", "properties": {"spec": {"type": "string", "pattern": "(".repeat(half)}}}),
            ),
        ),
        tried(
            "large pattern",
            post.clone(),
            DEFINITIONS,
            JSON,
            definition(
                &json!({"type": "object", "properties": {"spec": {"type": "string", "pattern": "((a{1000}){1000}){1000}"}}}),
            ),
        ),
    ];
    let versions = |count: usize| {
        let versions: Vec<_> = (0..count)
            .map(|at| json!({"name": format!("v{at}"), "served": true, "storage": at == 0, "schema": {"openAPIV3Schema": {}}}))
            .collect();
        let mut object: Value = serde_json::from_str(&definition(&json!({}))).unwrap();
        object["spec"]["versions"] = json!(versions);
        object.to_string()
    };
    all.push(tried("versions", post, DEFINITIONS, JSON, versions(20_000)));
    all
}

/// The most memory that the process had since the last call, and has now: in bytes.
fn memory() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    };
    let told = (field("VmHWM:"), field("VmRSS:"));
    // Begins the next count.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_request_costs_little_whatever_is_in_it() {
    let server = TestServer::start().await;
    let client = server.client().await;
    for tried in bodies() {
        assert!(tried.body.len() <= 3 * 1024 * 1024, "{}: {}", tried.name, tried.body.len());
        let (_, before) = memory();
        let started = Instant::now();
        let request = Request::builder()
            .method(tried.method)
            .uri(&tried.path)
            .header("content-type", tried.media_type)
            .body(Body::from(tried.body.into_bytes()))
            .unwrap();
        let answer = tokio::time::timeout(TIME, client.send(request)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{}: no answer within {TIME:?}", tried.name)).unwrap();
        let code = answer.status();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let took = started.elapsed();
        let (most, _) = memory();
        let grown = most.saturating_sub(before);
        let line = format!(
            "{:>8} ms {:>6} MiB  {code} {:>8} bytes  {}",
            took.as_millis(),
            grown >> 20,
            text.len(),
            tried.name
        );
        eprintln!("{line}");
        // What is told of a body is never about as large as the body.
        assert!(code.is_success() || text.len() < 200_000, "{}: the answer has {} bytes", tried.name, text.len());
        assert!(grown < MEMORY, "{}: {grown} bytes", tried.name);
        assert!(code.as_u16() < 500, "{}: {code}", tried.name);
    }
}
