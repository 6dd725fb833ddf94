//! Programs that leave traces, and what must be true of them.

use serde_json::Value;

use crate::docker::Container;
use crate::figures;
use crate::world::{World, five_things, sh};

/// How many lines a program prints.
const LINES: u32 = 300;
/// What it exits with.
const EXIT_CODE: i64 = 7;

/// A program that tells of each start, prints, waits for `/data/go` if that is asked for, prints again and exits.
pub(crate) fn program(name: &str, waits: bool) -> Value {
    let wait = if waits { "while [ ! -e /data/go ]; do sleep 0.02; done;" } else { "sleep 0.05;" };
    sh(&format!("echo {name} >> /data/starts; echo begin; echo warned >&2; {wait} seq 1 {LINES}; exit {EXIT_CODE}"))
}

fn stdout() -> String {
    let numbers: Vec<_> = (1..=LINES).map(|number| number.to_string()).collect();
    format!("begin\n{}\n", numbers.join("\n"))
}

/// How often `name` was started in `container`.
pub(crate) fn starts(container: &Container, name: &str) -> usize {
    container.lines("/data/starts").iter().filter(|line| *line == name).count()
}

/// Checks all that is promised of a program that ran to its own end, whatever was killed around it.
pub(crate) fn check(world: &World, container: &Container, name: &str) {
    let status = world.completed(name);
    check_status(world, container, name, &status);
}

/// The same, given the status.
pub(crate) fn check_status(world: &World, container: &Container, name: &str, status: &Value) {
    figures::add("runs checked", 1);
    assert_eq!(starts(container, name), 1, "{name} was not started once: {status:#}");
    assert_eq!(
        (&status["state"], &status["exitCode"], &status["capture"]),
        (&"Finished".into(), &EXIT_CODE.into(), &"Supervised".into()),
        "{name}: {status:#}"
    );
    let printed = stdout();
    assert_eq!(status["stdout"]["bytes"], printed.len(), "{name}: {status:#}");
    assert_eq!(status["stderr"]["tail"], "warned\n", "{name}: {status:#}");
    let run = status["runId"].to_string();
    let logged = world.oncelet(&["logs", &run, "--stdout"]).unwrap();
    assert!(logged == printed, "{name}: the log differs: {} of {} bytes", logged.len(), printed.len());
    let shown: Value = serde_json::from_str(&world.oncelet(&["runs", "show", &run, "-o", "json"]).unwrap()).unwrap();
    assert_eq!(shown["state"]["outcome"]["exitCode"], EXIT_CODE, "{shown:#}");
}

/// Checks that a new object gets the outcome back.
pub(crate) fn check_restored(world: &World, container: &Container, name: &str, spec: &Value) {
    let before = five_things(&world.status(name));
    world.delete(name);
    let again = world.run(name, container, spec);
    assert_eq!(again["restored"], true, "{again:#}");
    assert_eq!(five_things(&again), before);
    assert_eq!(starts(container, name), 1);
}
