//! The crate against real engines. Every test runs on each engine that is there.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test crate, helpers included")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
mod support;

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, future::join_all};
use oncelet_engine::{
    ContainerAction, ContainerState, Engine, EngineEvent, Error, ErrorKind, ExecEnd, ExecEvent, ExecState,
    FailureReason, LostReason, NewExec, PortRequest, Product, Protocol,
};
use support::{IMAGE, Waiting, command, finish, next, sh, unique, waiting};

on_each_engine! {
    the_engine_says_what_it_is,
    a_program_reports_its_exit_code_and_both_streams,
    every_byte_value_survives,
    env_working_directory_and_user_reach_the_program,
    a_program_that_exits_like_a_failed_start_has_exited,
    a_program_that_forges_podmans_report_has_exited,
    failed_starts_are_told_apart_and_print_nothing,
    a_second_start_is_refused,
    of_concurrent_starts_of_one_exec_one_runs,
    a_program_that_closes_its_output_is_waited_for,
    a_child_left_behind_does_not_hold_the_outcome,
    output_arrives_while_the_program_runs,
    a_killed_container_interrupts_its_programs,
    a_stopped_container_interrupts_its_programs,
    a_restarted_container_interrupts_its_programs,
    a_removed_container_interrupts_its_programs,
    a_program_killed_alone_has_exited_with_137,
    execs_are_inspected_as_the_engine_sees_them,
    nothing_runs_in_a_container_that_is_stopped,
    a_full_id_wins_over_a_name,
    a_container_is_found_by_every_reference,
    what_was_asked_for_at_creation_is_there,
    a_taken_name_names_its_holder,
    a_missing_image_is_named,
    a_hundred_megabytes_arrive_complete_in_flat_memory,
    a_reader_that_pauses_shortly_loses_nothing,
    a_reader_that_stalls_is_told_if_output_is_missing,
    many_programs_at_once_all_finish,
    events_tell_what_happens_to_containers,
    requests_that_cannot_work_are_refused_early,
}

async fn the_engine_says_what_it_is(engine: Engine) {
    let info = engine.info().await.unwrap();
    assert!(!info.version.is_empty() && info.api_version.starts_with("1."), "{info:?}");
}

async fn a_program_reports_its_exit_code_and_both_streams(engine: Engine) {
    let container = Waiting::named(engine, "exit").await;
    let outcome = container.sh("echo out; echo err >&2; exit 7").await;
    assert_eq!((outcome.text(), outcome.stderr.as_slice(), outcome.exit_code()), ("out\n", &b"err\n"[..], 7));
    assert_eq!(container.sh("true").await.exit_code(), 0);
}

async fn every_byte_value_survives(engine: Engine) {
    let container = Waiting::named(engine, "bytes").await;
    let script = r"i=0; while [ $i -lt 256 ]; do printf \\$(printf %03o $i); i=$((i+1)); done";
    let outcome = container.sh(&format!("{{ {script}; }} | tee /dev/stderr")).await;
    let expected: Vec<u8> = (0..=255).collect();
    assert_eq!(outcome.stdout, expected);
    assert_eq!(outcome.stderr, expected);
}

async fn env_working_directory_and_user_reach_the_program(engine: Engine) {
    let container = Waiting::named(engine, "env").await;
    let new = NewExec {
        env: vec![("A".into(), "x=y z".into()), ("B".into(), String::new()), ("A".into(), "later".into())],
        working_directory: Some("/tmp".into()),
        user: Some("app".into()),
        ..sh("echo \"$A|${B-unset}|$(pwd)|$(id -u):$(id -g)\"")
    };
    assert_eq!(container.run(&new).await.text(), "later||/tmp|1234:77\n");
}

async fn a_program_that_exits_like_a_failed_start_has_exited(engine: Engine) {
    let container = Waiting::named(engine, "forge").await;
    let lie = "OCI runtime exec failed: exec failed: unable to start container process";
    for code in [125, 126, 127] {
        let outcome = container.sh(&format!("echo '{lie}'; exit {code}")).await;
        assert_eq!((outcome.text().trim(), outcome.exit_code()), (lie, code));
        assert_eq!(container.sh(&format!("exit {code}")).await.exit_code(), code);
    }
}

async fn a_program_that_forges_podmans_report_has_exited(engine: Engine) {
    let container = Waiting::named(engine, "forge").await;
    let lie = "Error: runc: exec failed: OCI runtime attempted to invoke a command that was not found";
    let outcome = container.sh(&format!("echo '{lie}' >&2; exit 127")).await;
    assert_eq!((String::from_utf8_lossy(&outcome.stderr).trim(), outcome.exit_code()), (lie, 127));
}

async fn failed_starts_are_told_apart_and_print_nothing(engine: Engine) {
    let container = Waiting::named(engine, "fail").await;
    let in_directory = |path: &str| NewExec { working_directory: Some(path.into()), ..sh("true") };
    for (new, expected, in_message) in [
        (command(&["/bin/nope"]), FailureReason::CommandNotFound, "/bin/nope"),
        (command(&["nope", "x"]), FailureReason::CommandNotFound, "nope"),
        (command(&["/tmp"]), FailureReason::NotExecutable, "/tmp"),
        (command(&["/bin/text"]), FailureReason::NotExecutable, "/bin/text"),
        (in_directory("/nowhere"), FailureReason::BadWorkingDirectory, "/nowhere"),
        (in_directory("/bin/busybox"), FailureReason::BadWorkingDirectory, "/bin/busybox"),
        (NewExec { user: Some("nobody-here".into()), ..sh("true") }, FailureReason::BadUser, "nobody-here"),
    ] {
        let outcome = container.run(&new).await;
        let ExecEnd::FailedToStart { reason, message } = &outcome.end else { panic!("{new:?}: {outcome:?}") };
        assert_eq!(*reason, expected, "{message}");
        assert!(message.contains(in_message), "{message}");
        assert!(outcome.stdout.is_empty() && outcome.stderr.is_empty(), "{outcome:?}");
    }
}

async fn a_second_start_is_refused(engine: Engine) {
    let container = Waiting::named(engine.clone(), "twice").await;
    let exec = container.prepare("echo x >> /tmp/runs").await;
    assert_eq!(finish(engine.start_exec(&exec).await.unwrap()).await.exit_code(), 0);
    assert_eq!(engine.start_exec(&exec).await.unwrap_err().kind(), ErrorKind::AlreadyStarted);
    assert_eq!(container.sh("cat /tmp/runs").await.text(), "x\n");
}

async fn of_concurrent_starts_of_one_exec_one_runs(engine: Engine) {
    let container = Waiting::named(engine.clone(), "race").await;
    let exec = container.prepare("echo x >> /tmp/runs; sleep 1; exit 5").await;
    let outcomes = join_all((0..4).map(|_| async {
        match engine.start_exec(&exec).await {
            Ok(running) => Some(finish(running).await),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::AlreadyStarted, "{error}");
                None
            }
        }
    }))
    .await;
    let mut exits = 0;
    for outcome in outcomes.into_iter().flatten() {
        match &outcome.end {
            ExecEnd::Exited { exit_code: 5 } => exits += 1,
            ExecEnd::Lost { reason: LostReason::StartedElsewhere, .. } => {}
            _ => panic!("{outcome:?}"),
        }
        assert!(outcome.stdout.is_empty(), "the engine's refusal is no output: {outcome:?}");
    }
    assert_eq!(exits, 1);
    assert_eq!(container.sh("cat /tmp/runs").await.text(), "x\n");
}

async fn a_program_that_closes_its_output_is_waited_for(engine: Engine) {
    let container = Waiting::named(engine, "closed").await;
    assert_eq!(container.sh("exec >&- 2>&-; sleep 1; exit 3").await.exit_code(), 3);
}

async fn a_child_left_behind_does_not_hold_the_outcome(engine: Engine) {
    let container = Waiting::named(engine, "child").await;
    let outcome = container.sh("sleep 60 & echo parent; exit 4").await;
    assert_eq!((outcome.text(), outcome.exit_code()), ("parent\n", 4));
}

async fn output_arrives_while_the_program_runs(engine: Engine) {
    let container = Waiting::named(engine.clone(), "live").await;
    let exec = container.prepare("echo first; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo second").await;
    let mut running = engine.start_exec(&exec).await.unwrap();
    let ExecEvent::Output { bytes, .. } = next(&mut running).await else { panic!("expected output") };
    assert_eq!(&bytes[..], b"first\n");
    container.sh("touch /tmp/go").await;
    assert_eq!(finish(running).await.text(), "second\n");
}

/// Runs a program that never ends, does `then` to its container once it runs, and returns its end.
async fn ended_by<F: Future<Output = ()>>(container: &Waiting, then: impl FnOnce() -> F) -> ExecEnd {
    let exec = container.prepare("trap '' TERM; echo up; while :; do sleep 1; done").await;
    let mut running = container.engine.start_exec(&exec).await.unwrap();
    assert!(matches!(next(&mut running).await, ExecEvent::Output { .. }));
    let ((), outcome) = tokio::join!(then(), finish(running));
    outcome.end
}

fn assert_interrupted(end: &ExecEnd, word: &str) {
    let ExecEnd::Interrupted { exit_code: Some(137) | None, message } = end else { panic!("{end:?}") };
    assert!(message.contains(word), "{message}");
}

async fn a_killed_container_interrupts_its_programs(engine: Engine) {
    let container = Waiting::named(engine.clone(), "kill").await;
    let end = ended_by(&container, || async {
        engine.stop_container(&container.id, Duration::ZERO).await.unwrap();
    })
    .await;
    assert_interrupted(&end, "stopped");
}

async fn a_stopped_container_interrupts_its_programs(engine: Engine) {
    let container = Waiting::named(engine.clone(), "stop").await;
    let end = ended_by(&container, || async {
        engine.stop_container(&container.id, Duration::from_secs(1)).await.unwrap();
    })
    .await;
    assert_interrupted(&end, "stopped");
    let state = engine.container(container.id.as_str()).await.unwrap().unwrap().state;
    assert!(matches!(state, ContainerState::Exited { exit_code: 137, finished_at: Some(_) }), "{state:?}");
}

async fn a_restarted_container_interrupts_its_programs(engine: Engine) {
    let container = Waiting::named(engine.clone(), "restart").await;
    let end = ended_by(&container, || async {
        engine.stop_container(&container.id, Duration::ZERO).await.unwrap();
        engine.start_container(&container.id).await.unwrap();
    })
    .await;
    assert_interrupted(&end, "while the program ran");
    assert_eq!(container.sh("exit 2").await.exit_code(), 2, "the same container runs programs again");
}

async fn a_removed_container_interrupts_its_programs(engine: Engine) {
    let container = Waiting::named(engine.clone(), "remove").await;
    let end = ended_by(&container, || async {
        engine.remove_container(&container.id, true).await.unwrap();
    })
    .await;
    assert_interrupted(&end, "while the program ran");
    assert_eq!(engine.container(container.id.as_str()).await.unwrap(), None);
    assert_eq!(engine.remove_container(&container.id, true).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn a_program_killed_alone_has_exited_with_137(engine: Engine) {
    let container = Waiting::named(engine, "sigkill").await;
    assert_eq!(container.sh("kill -9 $$").await.exit_code(), 137);
}

async fn execs_are_inspected_as_the_engine_sees_them(engine: Engine) {
    let container = Waiting::named(engine.clone(), "inspect").await;
    let exec = container.prepare("echo up; while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 9").await;
    assert_eq!(engine.inspect_exec(&exec).await.unwrap(), ExecState::NeverStarted);
    let mut running = engine.start_exec(&exec).await.unwrap();
    assert!(matches!(next(&mut running).await, ExecEvent::Output { .. }));
    assert!(matches!(engine.inspect_exec(&exec).await.unwrap(), ExecState::Running { pid: 1.. }));
    container.sh("touch /tmp/go").await;
    finish(running).await;
    assert_eq!(engine.inspect_exec(&exec).await.unwrap(), ExecState::Exited { exit_code: 9 });
    let unknown = "ab".repeat(32).parse().unwrap();
    assert_eq!(engine.inspect_exec(&unknown).await.unwrap(), ExecState::Gone);
    assert_eq!(engine.start_exec(&unknown).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn nothing_runs_in_a_container_that_is_stopped(engine: Engine) {
    let container = Waiting::create(engine.clone(), &waiting(&unique("stopped"))).await;
    let error = engine.create_exec(&container.id, &sh("true")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContainerNotRunning, "{error}");
    engine.start_container(&container.id).await.unwrap();
    let exec = container.prepare("true").await;
    engine.stop_container(&container.id, Duration::ZERO).await.unwrap();
    let error = engine.start_exec(&exec).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ContainerNotRunning | ErrorKind::NotFound), "{error}");
    let gone = "cd".repeat(32).parse().unwrap();
    assert_eq!(engine.create_exec(&gone, &sh("true")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

async fn a_full_id_wins_over_a_name(engine: Engine) {
    let first = Waiting::create(engine.clone(), &waiting(&unique("first"))).await;
    let short = &first.id.as_str()[..12];
    let second = Waiting::create(engine.clone(), &waiting(short)).await;
    assert_eq!(engine.container(short).await.unwrap().unwrap().id, second.id, "the name shadows the prefix");
    assert_eq!(engine.container(first.id.as_str()).await.unwrap().unwrap().id, first.id);
}

async fn a_container_is_found_by_every_reference(engine: Engine) {
    let container = Waiting::create(engine.clone(), &waiting(&unique("find"))).await;
    for reference in [&container.name, container.id.as_str(), &format!("/{}", container.name)] {
        assert_eq!(engine.container(reference).await.unwrap().unwrap().id, container.id, "{reference}");
    }
    assert_eq!(engine.container("oncelet-test-no-such-container").await.unwrap(), None);
    assert_eq!(engine.container("a/../b").await.unwrap_err().kind(), ErrorKind::InvalidRequest);
}

async fn what_was_asked_for_at_creation_is_there(engine: Engine) {
    let name = unique("asked");
    let port = PortRequest { container_port: 8080, protocol: Protocol::Tcp, ..PortRequest::default() };
    let new = oncelet_engine::NewContainer {
        env: vec![("COLOUR".into(), "blue = green".into())],
        labels: BTreeMap::from([("oncelet.dev/test".into(), "yes".into())]),
        ports: vec![PortRequest { host_ip: Some("127.0.0.1".into()), ..port }],
        ..waiting(&name)
    };
    let created = Waiting::create(engine.clone(), &new).await;
    let before = engine.container(&name).await.unwrap().unwrap();
    assert_eq!((before.state, before.ip_address), (ContainerState::Created, None));
    engine.start_container(&created.id).await.unwrap();
    engine.start_container(&created.id).await.unwrap();
    let found = engine.container(&name).await.unwrap().unwrap();
    assert!(matches!(found.state, ContainerState::Running { started_at: Some(at) } if at >= found.created));
    assert_eq!(found.name, name);
    assert!(found.image.ends_with(IMAGE), "{}", found.image);
    assert!(found.env.contains(&"COLOUR=blue = green".to_owned()), "{:?}", found.env);
    assert_eq!(found.labels.get("oncelet.dev/test").map(String::as_str), Some("yes"));
    assert!(found.id.as_str().starts_with(&found.hostname) && found.ip_address.is_some(), "{found:?}");
    let [port] = found.ports.as_slice() else { panic!("{:?}", found.ports) };
    assert_eq!((port.container_port, port.protocol, port.host_ip.as_str()), (8080, Protocol::Tcp, "127.0.0.1"));
    assert_ne!(port.host_port, 0);
}

async fn a_taken_name_names_its_holder(engine: Engine) {
    let container = Waiting::create(engine.clone(), &waiting(&unique("taken"))).await;
    let error = engine.create_container(&waiting(&container.name)).await.unwrap_err();
    let Error::Conflict { name, holder } = error else { panic!("{error:?}") };
    assert_eq!((name, holder.as_ref()), (container.name.clone(), Some(&container.id)));
}

async fn a_missing_image_is_named(engine: Engine) {
    let new = oncelet_engine::NewContainer { image: "oncelet-test/none:7".into(), ..waiting(&unique("image")) };
    let error = engine.create_container(&new).await.unwrap_err();
    assert!(matches!(&error, Error::NoSuchImage { image } if image == "oncelet-test/none:7"), "{error:?}");
}

async fn a_hundred_megabytes_arrive_complete_in_flat_memory(engine: Engine) {
    const SIZE: usize = 100 << 20;
    let container = Waiting::named(engine.clone(), "big").await;
    let exec = container.prepare("head -c 104857600 /dev/zero; echo end >&2; exit 6").await;
    let before = resident_kilobytes();
    let mut running = engine.start_exec(&exec).await.unwrap();
    let (mut size, mut peak) = (0, before);
    let end = loop {
        match next(&mut running).await {
            ExecEvent::Output { bytes, .. } => {
                size += bytes.len();
                peak = peak.max(resident_kilobytes());
            }
            ExecEvent::Ended(end) => break end,
        }
    };
    assert_eq!((size, end), (SIZE + 4, ExecEnd::Exited { exit_code: 6 }));
    assert!(!running.output_may_be_incomplete());
    // Other tests of this process run meanwhile; all of the output would be 102 400.
    assert!(peak - before < 40_000, "memory grew from {before} to {peak} kB");
}

fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn a_reader_that_pauses_shortly_loses_nothing(engine: Engine) {
    let container = Waiting::named(engine.clone(), "pause").await;
    let exec = container.prepare("head -c 3000000 /dev/zero; touch /tmp/written").await;
    let mut running = engine.start_exec(&exec).await.unwrap();
    let ExecEvent::Output { bytes, .. } = next(&mut running).await else { panic!("expected output") };
    // Not a wait for something: the pause is what is tested.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let outcome = finish(running).await;
    assert_eq!((bytes.len() + outcome.stdout.len(), outcome.exit_code()), (3_000_000, 0));
}

async fn a_reader_that_stalls_is_told_if_output_is_missing(engine: Engine) {
    let container = Waiting::named(engine.clone(), "stall").await;
    let stalled = |size: usize| {
        let (engine, container) = (&engine, &container);
        async move {
            let exec = container.prepare(&format!("head -c {size} /dev/zero; exit 8")).await;
            let mut running = engine.start_exec(&exec).await.unwrap();
            // Longer than an engine waits for a reader after the program's end.
            tokio::time::sleep(Duration::from_secs(4)).await;
            let mut received = 0;
            let end = loop {
                match next(&mut running).await {
                    ExecEvent::Output { bytes, .. } => received += bytes.len(),
                    ExecEvent::Ended(end) => break end,
                }
            };
            assert_eq!(end, ExecEnd::Exited { exit_code: 8 });
            assert!(received == size || running.output_may_be_incomplete(), "{received} of {size} bytes, silently");
        }
    };
    join_all([1_000_000, 2_000_000, 2_500_000, 3_000_000, 4_000_000].map(stalled)).await;
}

async fn many_programs_at_once_all_finish(engine: Engine) {
    let container = Waiting::named(engine, "many").await;
    let outcomes = join_all((0..24).map(|n| {
        let new = sh(&format!("echo {n}; exit {n}"));
        let container = &container;
        async move { (n, container.run(&new).await) }
    }))
    .await;
    for (n, outcome) in outcomes {
        assert_eq!((outcome.text(), outcome.exit_code()), (format!("{n}\n").as_str(), n));
    }
}

async fn events_tell_what_happens_to_containers(engine: Engine) {
    let mut events = Box::pin(engine.events());
    assert_eq!(events.next().await, Some(EngineEvent::Connected));
    let container = Waiting::named(engine.clone(), "events").await;
    assert_eq!(container.sh("exit 7").await.exit_code(), 7);
    engine.stop_container(&container.id, Duration::ZERO).await.unwrap();
    engine.remove_container(&container.id, false).await.unwrap();
    let mut seen = Vec::new();
    let all = async {
        while let Some(event) = events.next().await {
            let EngineEvent::Container { id, name, action, .. } = event else { panic!("{event:?}") };
            if id != container.id {
                continue;
            }
            assert_eq!(name, container.name);
            seen.push(action);
            if seen.last() == Some(&ContainerAction::Destroy) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("the container's removal in time");
    let at = |wanted: &dyn Fn(&ContainerAction) -> bool| {
        seen.iter().position(wanted).unwrap_or_else(|| panic!("not all were seen: {seen:?}"))
    };
    let order = [
        at(&|action| *action == ContainerAction::Create),
        at(&|action| *action == ContainerAction::Start),
        at(&|action| matches!(action, ContainerAction::ExecStart { .. })),
        at(&|action| matches!(action, ContainerAction::ExecDie { exit_code: Some(7), .. })),
        at(&|action| *action == ContainerAction::Die { exit_code: Some(137) }),
        at(&|action| *action == ContainerAction::Destroy),
    ];
    assert!(order.is_sorted(), "{seen:?}");
}

async fn requests_that_cannot_work_are_refused_early(engine: Engine) {
    let container = Waiting::named(engine.clone(), "early").await;
    for new in [
        NewExec::default(),
        command(&["/bin/busybox", "echo", "a\0b"]),
        command(&["/bin/busybox", "echo", &"a".repeat(128 << 10)]),
        NewExec { env: vec![("A=B".into(), "c".into())], ..sh("true") },
    ] {
        assert_eq!(engine.create_exec(&container.id, &new).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    }
    // The longest that Linux takes does run.
    let longest = "a".repeat((128 << 10) - 1);
    let outcome = container.run(&command(&["/bin/busybox", "echo", &longest])).await;
    assert_eq!((outcome.stdout.len(), outcome.exit_code()), (128 << 10, 0));
}

#[tokio::test]
async fn both_engines_are_told_apart() {
    if let Some(engine) = support::docker().await {
        assert_eq!(engine.info().await.unwrap().product, Product::Docker);
    }
    if let Some(engine) = support::podman().await {
        assert_eq!(engine.info().await.unwrap().product, Product::Podman);
    }
}
