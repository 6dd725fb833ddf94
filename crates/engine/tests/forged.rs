//! Records that nobody wrote who may, on real engines. Every test runs on each engine that is there.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test crate, helpers included")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
mod support;

use std::time::{Duration, Instant};

use oncelet_engine::supervise::{End, SupervisedEnd, SupervisedEvent, Supervision};
use oncelet_engine::{Engine, NewExec};
use support::{Outcome, Waiting, sh};

on_each_engine! {
    another_user_can_write_nowhere_in_the_directories_of_runs,
    what_other_users_left_where_everybody_could_write_is_nothing,
    what_supervisors_of_version_2_left_counts,
    a_record_that_its_own_user_damages_costs_nothing_and_starts_nothing,
    a_program_that_removes_its_record_is_told_of,
    each_user_of_a_container_has_a_directory_and_gates_of_its_own,
    what_is_not_the_supervisor_is_not_run_in_its_place,
}

const RUN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const CLAIM: &str = r#"{"version":2,"nonce":"x","atUs":1,"supervisor":{"pid":1,"startTicks":1,"bootId":"b"}}"#;
const EXIT: &str = r#"{"startedUs":1,"finishedUs":2,"elapsedUs":1,"end":{"code":0},"stdout":{"bytes":0,"kept":0},"stderr":{"bytes":0,"kept":0}}"#;

/// A script that makes a record at `gate`, as a supervisor does.
fn forge(gate: &str) -> String {
    format!("mkdir -m 700 {gate} && echo '{CLAIM}' > {gate}/claim.json && echo '{EXIT}' > {gate}/exit.json")
}

fn terms(run: &str) -> Supervision {
    Supervision {
        run: run.to_owned(),
        nonce: "n".into(),
        timeout: None,
        grace: Duration::from_secs(1),
        stdin: None,
        log_limit: None,
        description: serde_json::Value::Null,
    }
}

fn by(user: &str, script: &str) -> NewExec {
    NewExec { user: Some(user.to_owned()), ..sh(script) }
}

async fn as_user(container: &Waiting, user: &str, script: &str) -> Outcome {
    container.run(&by(user, script)).await
}

/// Runs a program under a supervisor.
async fn run(container: &Waiting, run: &str, new: &NewExec) -> SupervisedEnd {
    let supervisor = container.engine.supervise(&container.id, new.user.as_deref()).await.unwrap();
    let exec = container.engine.create_supervised(&supervisor, new, &terms(run)).await.unwrap();
    let mut supervised = container.engine.start_supervised(&container.id, &exec, None).await.unwrap();
    loop {
        let event = tokio::time::timeout(Duration::from_mins(1), supervised.next()).await.expect("an event in time");
        if let SupervisedEvent::Ended(end) = event.expect("an event") {
            supervised.stored();
            return end;
        }
    }
}

fn code(end: &SupervisedEnd) -> End {
    match end {
        SupervisedEnd::Exited(exit) => exit.end,
        other => panic!("expected an exit, got {other:?}"),
    }
}

/// How the run ended, by its record.
async fn recorded(container: &Waiting, run: &str, user: Option<&str>) -> Option<End> {
    Some(container.engine.read_record(&container.id, run, user).await.unwrap()?.exit?.end)
}

/// Appends a line for its start.
const COUNTED: &str = "echo ran >> /tmp/runs; exit 3";

async fn starts(container: &Waiting) -> usize {
    container.sh("cat /tmp/runs 2>/dev/null").await.text().lines().count()
}

async fn another_user_can_write_nowhere_in_the_directories_of_runs(engine: Engine) {
    let container = Waiting::named(engine, "gate-forged").await;
    for user in ["0", "1000", "1001"] {
        container.engine.supervise(&container.id, Some(user)).await.unwrap();
    }
    let dir = format!("/.oncelet/{}", container.id);
    for path in [RUN.to_owned(), format!("1001/{RUN}"), "1002".to_owned(), format!("{RUN}.output")] {
        for make in ["mkdir -p", "mkfifo", "touch", "ln -s /tmp"] {
            let made = as_user(&container, "1000", &format!("{make} {dir}/{path}")).await;
            assert_ne!(made.exit_code(), 0, "{make} {path}");
        }
    }
    for command in ["mv {dir}/1001 {dir}/1002", "mv {dir} /.oncelet/x", "rmdir {dir}/1001", "chmod 777 {dir}/1001"] {
        let done = as_user(&container, "1000", &command.replace("{dir}", &dir)).await;
        assert_ne!(done.exit_code(), 0, "{command}");
    }
    assert_eq!(code(&run(&container, RUN, &by("0", COUNTED)).await), End::Code(3));
    assert_eq!((starts(&container).await, recorded(&container, RUN, None).await), (1, Some(End::Code(3))));
}

async fn what_other_users_left_where_everybody_could_write_is_nothing(engine: Engine) {
    let container = Waiting::named(engine, "gate-left").await;
    let dir = format!("/.oncelet/{}", container.id);
    container.sh(&format!("mkdir -p {dir} && chmod 1777 {dir} && chmod 777 /tmp")).await;
    let gate = format!("{dir}/{RUN}");
    let (open, link, pipe) = (RUN.replace('a', "b"), RUN.replace('a', "c"), RUN.replace('a', "d"));
    let script = format!(
        "{}; mkdir {gate}.output; touch {gate}.stdin0; mkdir -m 777 {dir}/{open}; ln -s /tmp {dir}/{link}; mkfifo {dir}/{pipe}; \
         mkdir -m 777 {dir}/1001; {}",
        forge(&gate),
        forge(&format!("{dir}/1001/{RUN}")),
    );
    assert_eq!(as_user(&container, "1000", &script).await.exit_code(), 0);
    for run in [RUN, &open, &link, &pipe] {
        for user in [None, Some("1001")] {
            assert!(!container.engine.has_record(&container.id, run, user).await.unwrap(), "{run} of {user:?}");
        }
    }
    assert_eq!(recorded(&container, RUN, Some("1000")).await, Some(End::Code(0)), "it is one of its own runs");
    for (number, name) in [RUN, &open, &link, &pipe].into_iter().enumerate() {
        for (other, user) in ["1001", "0"].into_iter().enumerate() {
            assert_eq!(code(&run(&container, name, &by(user, COUNTED)).await), End::Code(3), "{name} of {user}");
            assert_eq!(starts(&container).await, 2 * number + other + 1);
            assert_eq!(recorded(&container, name, Some(user)).await, Some(End::Code(3)));
        }
    }
}

/// Of which some may be those of users whose numbers are known from the container's list alone.
async fn what_supervisors_of_version_2_left_counts(engine: Engine) {
    let container = Waiting::named(engine.clone(), "gate-version-2").await;
    let dir = format!("/.oncelet/{}", container.id);
    container.sh(&format!("mkdir -p {dir} && chmod 1777 {dir}")).await;
    let mine = RUN.replace('a', "b");
    container.sh(&forge(&format!("{dir}/{RUN}"))).await;
    let output =
        format!("mkdir -m 700 {dir}/{mine}.output; echo -n out > {dir}/{mine}.output/stdout.00000000000000000000");
    as_user(&container, "app", &format!("{}; {output}", forge(&format!("{dir}/{mine}")))).await;
    // Root's can be forged by nobody less: it counts for everybody.
    for (run, user) in [(RUN, None), (RUN, Some("app")), (&mine, Some("app")), (&mine, Some("1234:77"))] {
        assert_eq!(recorded(&container, run, user).await, Some(End::Code(0)), "{run} of {user:?}");
    }
    assert_eq!(recorded(&container, &mine, None).await, None);
    for (name, user) in [(RUN, "0"), (RUN, "app"), (&mine, "app"), (&mine, "1234")] {
        assert_eq!(run(&container, name, &by(user, COUNTED)).await, SupervisedEnd::Refused, "{name} of {user}");
    }
    assert_eq!(starts(&container).await, 0);
    // The directory is root's alone by now, and what is in it is still followed, cleaned and forgotten.
    let mut followed = engine.follow_supervised(&container.id, &mine, Some("app"), [0, 0], None).await.unwrap();
    let mut told = Vec::new();
    while let Some(event) = followed.next().await {
        told.push(event);
    }
    assert!(matches!(told.last(), Some(SupervisedEvent::Ended(SupervisedEnd::Exited(_)))), "{told:?}");
    engine
        .stop_supervised(&container.id, &mine, Some("app"), oncelet_engine::supervise::StopReason::Stop, Duration::ZERO)
        .await
        .unwrap();
    engine.forget_runs(&container.id, std::slice::from_ref(&mine), Some("app")).await.unwrap();
    assert!(!engine.has_record(&container.id, &mine, Some("app")).await.unwrap());
    assert_eq!(code(&run(&container, &mine, &by("app", "exit 7")).await), End::Code(7));
}

async fn a_record_that_its_own_user_damages_costs_nothing_and_starts_nothing(engine: Engine) {
    let container = Waiting::named(engine.clone(), "gate-damaged").await;
    let begun = Instant::now();
    let gate = |run: &str| format!("/.oncelet/{}/1000/{run}", container.id);
    // While it runs.
    let damage = "for it in exit stop started; do rm -f $it.json; mkfifo $it.json; done; truncate -s 10995116277760 large; exit 4";
    let spoilt = by("1000", &format!("cd {} && {damage}", gate(RUN)));
    assert_eq!(code(&run(&container, RUN, &spoilt).await), End::Code(4));
    assert_eq!(recorded(&container, RUN, Some("1000")).await, Some(End::Code(4)));
    let record = engine.read_record(&container.id, RUN, Some("1000")).await.unwrap().unwrap();
    assert!(record.claim.is_some() && record.started.is_none() && !record.remarks.is_empty(), "{record:?}");

    // After it.
    for (letter, damage) in [
        ("b", "mkfifo exit.json"),
        ("c", "ln -s /dev/zero exit.json"),
        ("d", "truncate -s 10995116277760 exit.json"),
        ("e", "mkdir exit.json"),
        ("f", "for it in claim stop started exit; do rm -f $it.json; mkfifo $it.json; done"),
    ] {
        let name = RUN.replace('a', letter);
        assert_eq!(code(&run(&container, &name, &by("1000", "exit 5")).await), End::Code(5));
        as_user(&container, "1000", &format!("cd {} && rm exit.json && {damage}", gate(&name))).await;
        let record = engine.read_record(&container.id, &name, Some("1000")).await.unwrap().unwrap();
        assert_eq!((record.exit, record.unsound), (None, None), "{damage}");
        assert!(record.remarks.iter().any(|it| it.contains("exit.json")), "{damage}: {:?}", record.remarks);
        assert_eq!(run(&container, &name, &by("1000", COUNTED)).await, SupervisedEnd::Refused, "{damage}");
        let mut followed = engine.follow_supervised(&container.id, &name, Some("1000"), [0, 0], None).await.unwrap();
        let end = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                if let Some(SupervisedEvent::Ended(end)) = followed.next().await {
                    return end;
                }
            }
        });
        assert!(matches!(end.await.unwrap(), SupervisedEnd::Abandoned { .. }), "{damage}");
        engine.clean_output(&container.id, std::slice::from_ref(&name), Some("1000")).await.unwrap();
    }

    // Instead of it.
    for (letter, damage) in [("1", "ln -s /tmp"), ("2", "mkfifo"), ("3", "mkdir -m 777"), ("4", "touch")] {
        let name = RUN.replace('a', letter);
        as_user(&container, "1000", &format!("{damage} {}", gate(&name))).await;
        let record = engine.read_record(&container.id, &name, Some("1000")).await.unwrap().unwrap();
        assert!(record.unsound.is_some() && record.exit.is_none(), "{damage}: {record:?}");
        let end = run(&container, &name, &by("1000", COUNTED)).await;
        let SupervisedEnd::Unusable { message } = end else { panic!("{damage}: {end:?}") };
        assert!(message.contains(&name) && message.contains("nothing was started"), "{message}");
        // It is no obstacle to another user.
        assert_eq!(code(&run(&container, &name, &by("0", "exit 6")).await), End::Code(6));
    }
    assert_eq!(starts(&container).await, 0);
    assert!(begun.elapsed() < Duration::from_mins(3), "something was waited for");
}

async fn a_program_that_removes_its_record_is_told_of(engine: Engine) {
    let container = Waiting::named(engine, "gate-removed").await;
    for (name, damage) in
        [("a", "rm -rf {gate}"), ("b", "rm -rf {gate}; touch {gate}"), ("c", "mkdir -p {gate}/exit.json/x")]
    {
        let name = RUN.replace('a', name);
        let gate = format!("/.oncelet/{}/1000/{name}", container.id);
        let script = format!("{}; exit 9", damage.replace("{gate}", &gate));
        assert_eq!(code(&run(&container, &name, &by("1000", &script)).await), End::Code(9), "{damage}");
    }
}

async fn each_user_of_a_container_has_a_directory_and_gates_of_its_own(engine: Engine) {
    let container = Waiting::named(engine.clone(), "gate-users").await;
    for (number, user) in ["1000", "app", "2000000000"].into_iter().enumerate() {
        assert_eq!(code(&run(&container, RUN, &by(user, "exit 3")).await), End::Code(3), "{user}");
        assert_eq!(recorded(&container, RUN, Some(user)).await, Some(End::Code(3)));
        let listed = container.sh(&format!("ls /.oncelet/{}", container.id)).await;
        assert_eq!(listed.text().lines().count(), number + 1, "{}", listed.text());
    }
    for same in ["1234", "1234:0", "app:1234"] {
        assert_eq!(run(&container, RUN, &by(same, "exit 4")).await, SupervisedEnd::Refused, "{same}");
    }
    // Whoever was asked nothing finds them, too, also in a container that has stopped.
    let another = Engine::connect(&engine.endpoint().parse().unwrap()).unwrap();
    engine.stop_container(&container.id, Duration::ZERO).await.unwrap();
    for user in [Some("1000"), Some("app"), Some("1234:77"), Some("2000000000")] {
        let record = another.read_record(&container.id, RUN, user).await.unwrap();
        assert_eq!(record.and_then(|it| it.exit).map(|it| it.end), Some(End::Code(3)), "{user:?}");
    }
    for user in [None, Some("root"), Some("1002"), Some("nobody")] {
        assert_eq!(another.read_record(&container.id, RUN, user).await.unwrap(), None, "{user:?}");
    }
}

async fn what_is_not_the_supervisor_is_not_run_in_its_place(engine: Engine) {
    let container = Waiting::named(engine.clone(), "gate-program").await;
    engine.supervise(&container.id, None).await.unwrap();
    let forge = "cd /.oncelet && for it in shim-*; do rm $it; printf '#!/bin/busybox sh\necho ran >> /tmp/forged' > $it; \
                 chmod 755 $it; chown 1000 $it; done";
    assert_eq!(container.sh(forge).await.exit_code(), 0);
    // One who has not been here before.
    let another = Engine::connect(&engine.endpoint().parse().unwrap()).unwrap();
    another.supervise(&container.id, None).await.unwrap();
    assert_eq!(container.sh("ls /tmp/forged").await.text(), "");
    assert_eq!(code(&run(&container, RUN, &sh("exit 3")).await), End::Code(3));
}
