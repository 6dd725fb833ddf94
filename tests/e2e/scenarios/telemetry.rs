//! Metrics, health and traces.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::process::eventually;
use crate::world::{World, sh};

/// Where the daemon says that it serves metrics.
fn address(world: &World) -> String {
    eventually("the daemon says where its metrics are", || {
        let log = world.daemon_log();
        let (_, rest) = log.rsplit_once("metrics and health are at http://")?;
        Some(rest.split_once('/')?.0.to_owned())
    })
}

fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of a metric with these labels.
fn value(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .find(|line| labels.iter().all(|label| line.contains(label)))
        .and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
        .unwrap_or_default()
}

pub(crate) fn metrics_tell_what_was_done_and_health_whether_it_goes_on(world: &mut World) {
    world.daemon_args = vec!["--metrics".to_owned(), "127.0.0.1:0".to_owned()];
    world.start();
    let address = address(world);
    let db = world.container("db");
    world.run("good", &db, &sh("exit 0"));
    world.run("bad", &db, &sh("exit 1"));
    world.delete("good");
    assert_eq!(world.run("good", &db, &sh("exit 0"))["restored"], true);
    let metrics = eventually("the restore is counted", || {
        let (code, metrics) = get(&address, "/metrics");
        assert_eq!(code, 200);
        (value(&metrics, "oncelet_restores_total", &[]) >= 1.0).then_some(metrics)
    });
    assert!(value(&metrics, "oncelet_runs_total", &["state=\"Finished\"", "succeeded=\"true\""]) >= 1.0, "{metrics}");
    assert!(value(&metrics, "oncelet_runs_total", &["state=\"Finished\"", "succeeded=\"false\""]) >= 1.0, "{metrics}");
    for (name, labels) in [
        ("controller_runtime_reconcile_total", "controller=\"containerexec\",result=\"success\""),
        ("controller_runtime_reconcile_time_seconds_count", "containerexec"),
        ("workqueue_adds_total", "containerexec"),
        ("workqueue_queue_duration_seconds_count", "containerexec"),
        ("oncelet_restore_duration_seconds_count", ""),
        ("oncelet_store_commit_duration_seconds_count", ""),
        ("oncelet_store_commit_changes_count", ""),
        ("oncelet_engine_request_duration_seconds_count", "operation=\"exec_create\""),
    ] {
        assert!(value(&metrics, name, &[labels]) >= 1.0, "{name} {labels}:\n{metrics}");
    }
    // All who waited had their turn.
    eventually("nothing waits", || {
        let metrics = get(&address, "/metrics").1;
        (value(&metrics, "workqueue_depth", &["containerexec"]) == 0.0).then_some(())
    });
    assert_eq!(get(&address, "/livez"), (200, "[+]work ok\nlivez check passed\n".to_owned()));
    let (code, text) = get(&address, "/readyz");
    assert_eq!(code, 200, "{text}");

    // Without its engine it lives, and no program can be started.
    world.stop();
    world.daemon_args.extend(["--engine".to_owned(), "unix:///nonexistent/engine.sock".to_owned()]);
    world.start();
    let address = self::address(world);
    eventually("it is ready but for its engine", || {
        let (code, text) = get(&address, "/readyz");
        assert_eq!(code, 500, "{text}");
        let told = ["[+]api-server ok", "[+]store ok", "[-]engine failed", "/nonexistent/engine.sock"];
        told.iter().all(|part| text.contains(part)).then_some(())
    });
    assert_eq!(get(&address, "/livez").0, 200);
}
