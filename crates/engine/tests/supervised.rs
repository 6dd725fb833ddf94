//! Supervised runs on real engines. Every test runs on each engine that is there.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test crate, helpers included")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
mod support;

use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use oncelet_engine::supervise::{
    End, Exit, StdinDigest, StdinSource, StopReason, SupervisedEnd, SupervisedEvent, SupervisedRun, Supervision,
};
use oncelet_engine::{Engine, ErrorKind, ExecId, FailureReason, NewExec, OutputStream};
use sha2::{Digest, Sha256};
use support::{Waiting, command, sh};

on_each_engine! {
    a_supervised_program_tells_everything_and_leaves_a_record,
    of_many_execs_of_one_run_one_starts_the_program,
    twenty_megabytes_come_byte_for_byte_by_stream_and_from_the_disk,
    a_run_is_followed_again_from_where_its_output_is_known,
    a_program_goes_on_when_nobody_listens_and_its_end_is_read_from_a_stopped_container,
    a_stopped_container_leaves_a_claim_without_an_end,
    failed_starts_are_told_apart_and_open_the_gate_again,
    exit_codes_like_those_of_failed_starts_are_exit_codes,
    a_program_and_its_children_are_stopped,
    a_timeout_is_kept_without_anybody_listening,
    a_user_without_rights_is_supervised,
    a_container_with_nothing_but_its_program_is_supervised,
    a_forgotten_run_runs_again,
    a_program_reads_its_stdin_whole_or_is_not_started,
    a_server_that_is_left_behind_keeps_nobody_waiting,
    what_is_acknowledged_is_removed_while_the_program_runs,
    a_supervisor_that_was_removed_is_no_missing_command,
    where_nothing_was_claimed_there_is_no_record,
}

fn terms(run: &str) -> Supervision {
    Supervision {
        run: run.repeat(32 / run.len()),
        nonce: "n".into(),
        timeout: None,
        grace: Duration::from_secs(1),
        stdin: None,
        log_limit: None,
        description: serde_json::json!({"what": "a test"}),
    }
}

/// The run of [`terms`] as the engine knows it.
fn run(run: &str) -> String {
    run.repeat(32 / run.len())
}

async fn create(container: &Waiting, new: &NewExec, terms: &Supervision) -> ExecId {
    let supervisor = container.engine.supervise(&container.id, new.user.as_deref()).await.unwrap();
    container.engine.create_supervised(&supervisor, new, terms).await.unwrap()
}

async fn start(container: &Waiting, new: &NewExec, terms: &Supervision) -> SupervisedRun {
    let exec = create(container, new, terms).await;
    container.engine.start_supervised(&container.id, &exec, None).await.unwrap()
}

struct Told {
    started: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    end: SupervisedEnd,
}

impl Told {
    fn exit(&self) -> &Exit {
        match &self.end {
            SupervisedEnd::Exited(exit) => exit,
            other => panic!("expected an exit, got {other:?}"),
        }
    }
}

async fn next(run: &mut SupervisedRun) -> SupervisedEvent {
    tokio::time::timeout(Duration::from_mins(1), run.next()).await.expect("an event in time").expect("an event")
}

/// Listens to the end.
async fn listen(supervised: &mut SupervisedRun) -> Told {
    let mut told = Told { started: false, stdout: Vec::new(), stderr: Vec::new(), end: SupervisedEnd::NoClaim };
    loop {
        match next(supervised).await {
            SupervisedEvent::Started { .. } => told.started = true,
            SupervisedEvent::Output { stream, bytes, .. } => match stream {
                OutputStream::Stdout => told.stdout.extend_from_slice(&bytes),
                OutputStream::Stderr => told.stderr.extend_from_slice(&bytes),
            },
            SupervisedEvent::Ended(end) => return Told { end, ..told },
        }
    }
}

async fn tell(container: &Waiting, new: &NewExec, terms: &Supervision) -> Told {
    listen(&mut start(container, new, terms).await).await
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "waited in vain: {what}");
        // What is waited for here announces itself by nothing.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn log(container: &Waiting, run: &str, stream: OutputStream, skip: u64) -> Vec<u8> {
    let mut from = [u64::MAX; 2];
    from[stream as usize] = skip;
    let mut output = container.engine.read_output(&container.id, run, None, from, [u64::MAX; 2]).await.unwrap();
    let mut all = Vec::new();
    while let Some((of, offset, piece)) = output.try_next().await.unwrap() {
        assert_eq!((of, offset), (stream, skip + all.len() as u64));
        all.extend_from_slice(&piece);
    }
    all
}

async fn a_supervised_program_tells_everything_and_leaves_a_record(engine: Engine) {
    let container = Waiting::named(engine, "told").await;
    let mut supervised = start(&container, &sh("echo out; echo err >&2; exit 3"), &terms("a")).await;
    let told = listen(&mut supervised).await;
    assert!(told.started);
    assert_eq!((told.stdout.as_slice(), told.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let exit = told.exit();
    assert_eq!((exit.end, exit.stdout.bytes, exit.stderr.bytes), (End::Code(3), 4, 4));
    assert!(exit.started_us <= exit.finished_us);
    let record = container.engine.read_record(&container.id, &run("a"), None).await.unwrap().unwrap();
    assert_eq!(record.exit.as_ref(), Some(exit));
    let claim = record.claim.unwrap();
    assert_eq!((claim.nonce.as_str(), &claim.description), ("n", &serde_json::json!({"what": "a test"})));

    // The logs stay until they are known to be safe.
    assert_eq!(log(&container, &run("a"), OutputStream::Stdout, 0).await, b"out\n");
    supervised.stored();
    eventually("the logs are removed", async || {
        let gone = container.engine.read_output(&container.id, &run("a"), None, [0, 0], [u64::MAX; 2]).await.err()?;
        (gone.kind() == ErrorKind::NotFound).then_some(())
    })
    .await;
    assert!(container.engine.has_record(&container.id, &run("a"), None).await.unwrap(), "the record stays");
}

async fn of_many_execs_of_one_run_one_starts_the_program(engine: Engine) {
    let container = Waiting::named(engine, "gate").await;
    let new = sh("echo ran >> /tmp/runs");
    let terms = terms("b");
    let execs = join_all((0..8).map(|_| create(&container, &new, &terms))).await;
    let ends = join_all(execs.iter().map(|exec| async {
        let mut supervised = container.engine.start_supervised(&container.id, exec, None).await.unwrap();
        listen(&mut supervised).await.end
    }))
    .await;
    let ran = ends.iter().filter(|end| matches!(end, SupervisedEnd::Exited(_))).count();
    let refused = ends.iter().filter(|end| **end == SupervisedEnd::Refused).count();
    assert_eq!((ran, refused), (1, 7), "{ends:?}");
    assert_eq!(container.sh("cat /tmp/runs").await.text(), "ran\n");
}

/// 20 MB whose every byte tells where it is.
const LONG: &str = "seq 1000000 3222221; exec >&2; seq 1 100000";

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<u8> {
    use std::fmt::Write as _;
    let mut text = String::new();
    for number in range {
        writeln!(text, "{number}").unwrap();
    }
    text.into_bytes()
}

async fn twenty_megabytes_come_byte_for_byte_by_stream_and_from_the_disk(engine: Engine) {
    let container = Waiting::named(engine, "long").await;
    let mut supervised = start(&container, &sh(LONG), &terms("c")).await;
    let told = listen(&mut supervised).await;
    let (stdout, stderr) = (numbers(1_000_000..=3_222_221), numbers(1..=100_000));
    let exit = told.exit().clone();
    assert_eq!((exit.stdout.bytes, exit.stderr.bytes), (stdout.len() as u64, stderr.len() as u64));
    assert!(stdout.starts_with(&told.stdout), "what came is the beginning");
    let rest = log(&container, &run("c"), OutputStream::Stdout, told.stdout.len() as u64).await;
    assert!([told.stdout, rest].concat() == stdout, "the disk has the rest");
    let rest = log(&container, &run("c"), OutputStream::Stderr, told.stderr.len() as u64).await;
    assert!([told.stderr, rest].concat() == stderr);
    assert_eq!(log(&container, &run("c"), OutputStream::Stdout, exit.stdout.bytes).await, b"");
}

async fn a_run_is_followed_again_from_where_its_output_is_known(engine: Engine) {
    let container = Waiting::named(engine, "follow").await;
    let script = "echo one; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo two; exit 4";
    let mut first = start(&container, &sh(script), &terms("d")).await;
    assert!(matches!(next(&mut first).await, SupervisedEvent::Started { .. }));
    let SupervisedEvent::Output { offset: 0, bytes, .. } = next(&mut first).await else { panic!("output comes") };
    assert_eq!(bytes, "one\n");
    // As when the daemon is killed: the connection is gone.
    drop(first);
    let mut second = container.engine.follow_supervised(&container.id, &run("d"), None, [2, 0], None).await.unwrap();
    assert!(matches!(next(&mut second).await, SupervisedEvent::Started { .. }));
    let SupervisedEvent::Output { offset: 2, bytes, .. } = next(&mut second).await else { panic!("output comes") };
    assert_eq!(bytes, "e\n");
    container.sh("touch /tmp/go").await;
    let told = listen(&mut second).await;
    assert_eq!((told.stdout.as_slice(), told.exit().end), (&b"two\n"[..], End::Code(4)));
    // Over for long, it is told all the same.
    let mut third = container.engine.follow_supervised(&container.id, &run("d"), None, [0, 0], None).await.unwrap();
    assert_eq!(listen(&mut third).await.stdout, b"one\ntwo\n");
}

async fn a_program_goes_on_when_nobody_listens_and_its_end_is_read_from_a_stopped_container(engine: Engine) {
    let container = Waiting::named(engine, "alone").await;
    let script = "while [ ! -e /tmp/go ]; do sleep 0.02; done; seq 1 200000; exit 6";
    let mut supervised = start(&container, &sh(script), &terms("e")).await;
    assert!(matches!(next(&mut supervised).await, SupervisedEvent::Started { .. }));
    drop(supervised);
    container.sh("touch /tmp/go").await;
    let record = || async { container.engine.read_record(&container.id, &run("e"), None).await.unwrap() };
    let exit = eventually("the end is recorded", async || record().await?.exit).await;
    assert_eq!(exit.end, End::Code(6), "no engine's word, however much it wrote");
    container.engine.stop_container(&container.id, Duration::ZERO).await.unwrap();
    assert_eq!(record().await.unwrap().exit, Some(exit));
    assert_eq!(log(&container, &run("e"), OutputStream::Stdout, 0).await, numbers(1..=200_000));
}

async fn a_stopped_container_leaves_a_claim_without_an_end(engine: Engine) {
    let container = Waiting::named(engine, "stopped").await;
    let mut supervised = start(&container, &sh("echo out; sleep 1000"), &terms("f")).await;
    assert!(matches!(next(&mut supervised).await, SupervisedEvent::Started { .. }));
    // The start is told before the program has written: a container stopped right then has no output.
    let SupervisedEvent::Output { offset: 0, bytes, .. } = next(&mut supervised).await else { panic!("output comes") };
    assert_eq!(bytes, "out\n");
    container.engine.stop_container(&container.id, Duration::ZERO).await.unwrap();
    assert!(matches!(listen(&mut supervised).await.end, SupervisedEnd::Lost { .. }));
    let record = container.engine.read_record(&container.id, &run("f"), None).await.unwrap().unwrap();
    assert!(record.claim.is_some() && record.started.is_some() && record.exit.is_none(), "{record:?}");
    // In its next life nobody supervises it any more.
    container.engine.start_container(&container.id).await.unwrap();
    let mut followed = container.engine.follow_supervised(&container.id, &run("f"), None, [0, 0], None).await.unwrap();
    let told = listen(&mut followed).await;
    assert!(matches!(told.end, SupervisedEnd::Abandoned { .. }), "{:?}", told.end);
    assert_eq!(told.stdout, b"out\n");
    // And nobody starts it again.
    assert_eq!(tell(&container, &sh("echo again"), &terms("f")).await.end, SupervisedEnd::Refused);
}

async fn failed_starts_are_told_apart_and_open_the_gate_again(engine: Engine) {
    let container = Waiting::named(engine, "failed").await;
    let in_directory = |directory: &str| NewExec { working_directory: Some(directory.into()), ..sh("true") };
    let as_user = |user: &str| NewExec { user: Some(user.into()), ..sh("true") };
    for (new, wanted) in [
        (command(&["/nope"]), FailureReason::CommandNotFound),
        (command(&["nope"]), FailureReason::CommandNotFound),
        (command(&["/bin/text"]), FailureReason::NotExecutable),
        (command(&["/tmp"]), FailureReason::NotExecutable),
        (in_directory("/nowhere"), FailureReason::BadWorkingDirectory),
        (as_user("nobody-here"), FailureReason::BadUser),
    ] {
        let told = tell(&container, &new, &terms("0")).await;
        let SupervisedEnd::FailedToStart { reason, message } = told.end else { panic!("{new:?}: {:?}", told.end) };
        assert_eq!(reason, wanted, "{message}");
        assert!(!told.started && told.stdout.is_empty() && !message.contains("shim"), "{message}");
        assert!(!container.engine.has_record(&container.id, &run("0"), None).await.unwrap(), "{message}");
    }
    assert_eq!(tell(&container, &sh("exit 0"), &terms("0")).await.exit().end, End::Code(0));
}

async fn exit_codes_like_those_of_failed_starts_are_exit_codes(engine: Engine) {
    let container = Waiting::named(engine, "codes").await;
    for (index, code) in [125, 126, 127, 137].into_iter().enumerate() {
        let told = tell(&container, &sh(&format!("echo x >&2; exit {code}")), &terms(&index.to_string())).await;
        assert_eq!(told.exit().end, End::Code(code));
    }
    let told = tell(&container, &sh("kill -9 $$"), &terms("9")).await;
    assert_eq!(told.exit().end, End::Signal(9));
}

async fn a_program_and_its_children_are_stopped(engine: Engine) {
    let container = Waiting::named(engine, "stop").await;
    let script = "busybox() { /bin/busybox \"$@\"; }; \
                  busybox setsid /bin/busybox sh -c 'trap \"\" TERM; while :; do /bin/busybox sleep 0.1; done' & \
                  echo up; busybox sleep 7777";
    let mut supervised = start(&container, &sh(script), &terms("a")).await;
    while !matches!(next(&mut supervised).await, SupervisedEvent::Output { .. }) {}
    container
        .engine
        .stop_supervised(&container.id, &run("a"), None, StopReason::Stop, Duration::from_secs(1))
        .await
        .unwrap();
    let told = listen(&mut supervised).await;
    assert_eq!(told.exit().end, End::Signal(15));
    assert_eq!(told.exit().stopped.as_ref().map(|stopped| stopped.by), Some(StopReason::Stop));
    // The supervisor itself may still wait for its word; its arguments name the program.
    let left = container.sh("ps | grep -v /.oncelet/").await;
    assert!(!left.text().contains("7777") && !left.text().contains("trap"), "{}", left.text());
    // Nothing runs: nothing to do.
    let (engine, id) = (&container.engine, &container.id);
    engine.stop_supervised(id, &run("a"), None, StopReason::Delete, Duration::ZERO).await.unwrap();
}

async fn a_timeout_is_kept_without_anybody_listening(engine: Engine) {
    let container = Waiting::named(engine, "timeout").await;
    let terms = Supervision { timeout: Some(Duration::from_secs(1)), ..terms("a") };
    drop(start(&container, &sh("sleep 1000"), &terms).await);
    let exit = eventually("the end is recorded", async || {
        container.engine.read_record(&container.id, &run("a"), None).await.unwrap()?.exit
    })
    .await;
    assert_eq!(exit.end, End::Signal(15));
    assert_eq!(exit.stopped.map(|stopped| stopped.by), Some(StopReason::Timeout));
    assert!(exit.elapsed_us >= 1_000_000, "{} µs", exit.elapsed_us);
}

async fn a_user_without_rights_is_supervised(engine: Engine) {
    let container = Waiting::named(engine, "user").await;
    let new = NewExec {
        user: Some("app".into()),
        ..sh("id -u; echo \"$ONCELET_ORDER\"; while [ ! -e /tmp/go ]; do sleep 0.02; done")
    };
    let mut supervised = start(&container, &new, &terms("a")).await;
    while !matches!(next(&mut supervised).await, SupervisedEvent::Output { .. }) {}
    drop(supervised);
    let mut followed =
        container.engine.follow_supervised(&container.id, &run("a"), Some("app"), [0, 0], None).await.unwrap();
    container.sh("touch /tmp/go").await;
    let told = listen(&mut followed).await;
    assert_eq!((told.exit().end, told.stdout.as_slice()), (End::Code(0), &b"1234\n\n"[..]), "the order is not for it");
    container.engine.forget_runs(&container.id, &[run("a")], Some("app")).await.unwrap();
}

async fn a_container_with_nothing_but_its_program_is_supervised(engine: Engine) {
    let container = Waiting::named(engine, "bare").await;
    // The image has no shell and no library; now neither temporary files nor users.
    container.run(&command(&["/bin/busybox", "rm", "-rf", "/tmp", "/etc", "/bin/text"])).await;
    let told = tell(&container, &command(&["/bin/busybox", "echo", "alone"]), &terms("a")).await;
    assert_eq!((told.exit().end, told.stdout.as_slice()), (End::Code(0), &b"alone\n"[..]));
}

async fn a_forgotten_run_runs_again(engine: Engine) {
    let container = Waiting::named(engine, "forget").await;
    let mut supervised = start(&container, &sh("sleep 1000"), &terms("a")).await;
    assert!(matches!(next(&mut supervised).await, SupervisedEvent::Started { .. }));
    let refused = container.engine.forget_runs(&container.id, &[run("a")], None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Supervisor, "{refused}");
    container.engine.stop_supervised(&container.id, &run("a"), None, StopReason::Stop, Duration::ZERO).await.unwrap();
    listen(&mut supervised).await;
    container.engine.forget_runs(&container.id, &[run("a")], None).await.unwrap();
    assert_eq!(tell(&container, &sh("exit 8"), &terms("a")).await.exit().end, End::Code(8));
}

fn digest(bytes: &[u8]) -> StdinDigest {
    StdinDigest { bytes: bytes.len() as u64, sha256: format!("{:x}", Sha256::digest(bytes)) }
}

fn source(bytes: &[u8]) -> StdinSource {
    let pieces: Vec<_> = bytes.chunks(50_000).map(|piece| Ok(piece.to_vec().into())).collect();
    Box::pin(futures::stream::iter(pieces))
}

async fn a_program_reads_its_stdin_whole_or_is_not_started(engine: Engine) {
    let container = Waiting::named(engine, "stdin").await;
    let input: Vec<u8> = (0..20_000_003_u32).map(|number| (number % 253) as u8).collect();
    let terms = Supervision { stdin: Some(digest(&input)), ..terms("a") };
    let new = sh("touch /tmp/ran; sha256sum");
    // As when the daemon is killed in the middle, and when the source has nothing more to give.
    let exec = create(&container, &new, &terms).await;
    let endless = source(&input[..5_000_000]).chain(futures::stream::pending());
    let mut cut = container.engine.start_supervised(&container.id, &exec, Some(Box::pin(endless))).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(500), cut.next()).await.is_err(), "it waits for the rest");
    drop(cut);
    let exec = create(&container, &new, &terms).await;
    let broken = source(&input[..7_000_000]);
    let broken = broken.chain(futures::stream::iter([Err(std::io::Error::other("the upload is gone"))]));
    let mut broken = container.engine.start_supervised(&container.id, &exec, Some(Box::pin(broken))).await.unwrap();
    let SupervisedEnd::StdinIncomplete { message } = listen(&mut broken).await.end else { panic!("incomplete") };
    assert!(message.contains("the upload is gone") && message.contains("ended after 7000000 of 20000003"), "{message}");
    assert!(container.sh("[ ! -e /tmp/ran ] && echo none").await.text() == "none\n");
    assert!(!container.engine.has_record(&container.id, &run("a"), None).await.unwrap());

    let exec = create(&container, &new, &terms).await;
    let mut whole = container.engine.start_supervised(&container.id, &exec, Some(source(&input))).await.unwrap();
    let told = listen(&mut whole).await;
    assert_eq!(String::from_utf8(told.stdout).unwrap(), format!("{}  -\n", digest(&input).sha256));
    whole.stored();
    // Too late: that is heard before anything is sent.
    let exec = create(&container, &new, &terms).await;
    let never = Box::pin(futures::stream::pending());
    let mut late = container.engine.start_supervised(&container.id, &exec, Some(never)).await.unwrap();
    assert_eq!(listen(&mut late).await.end, SupervisedEnd::Refused);
}

async fn a_server_that_is_left_behind_keeps_nobody_waiting(engine: Engine) {
    let container = Waiting::named(engine, "left").await;
    let script = "(/bin/busybox sleep 7777) & echo up; exit 3";
    let mut supervised = start(&container, &sh(script), &terms("a")).await;
    let told = listen(&mut supervised).await;
    let exit = told.exit();
    assert_eq!((exit.end, exit.stdout.held_open, told.stdout.as_slice()), (End::Code(3), true, &b"up\n"[..]));
    supervised.stored();
    let spool = format!("[ -e /.oncelet/{}/{}.output ] || echo gone", container.id, run("a"));
    eventually("the output is removed", async || (container.sh(&spool).await.text() == "gone\n").then_some(())).await;
    // It is no reason to wait for anything: not to forget the run, and not to run it again.
    container.engine.forget_runs(&container.id, &[run("a")], None).await.unwrap();
    assert_eq!(tell(&container, &sh("exit 8"), &terms("a")).await.exit().end, End::Code(8));
    assert!(container.sh("ps").await.text().contains("sleep 7777"), "it lives on");
}

async fn what_is_acknowledged_is_removed_while_the_program_runs(engine: Engine) {
    let container = Waiting::named(engine, "ack").await;
    let script = "seq 1000000 1499999; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo end";
    let mut supervised = start(&container, &sh(script), &terms("a")).await;
    let mut came = 0;
    while came < 4_000_000 {
        if let SupervisedEvent::Output { bytes, .. } = next(&mut supervised).await {
            came += bytes.len() as u64;
        }
    }
    supervised.acknowledge([came, 0]);
    let count = format!("ls /.oncelet/{}/{}.output", container.id, run("a"));
    eventually("one segment is left", async || (container.sh(&count).await.text().lines().count() == 1).then_some(()))
        .await;
    drop(supervised);
    // What is left is enough for whoever goes on from there.
    let mut next = container.engine.follow_supervised(&container.id, &run("a"), None, [came, 0], None).await.unwrap();
    container.sh("touch /tmp/go").await;
    let told = listen(&mut next).await;
    assert_eq!((told.stdout.as_slice(), told.exit().stdout.kept), (&b"end\n"[..], 4_000_004));
}

async fn a_supervisor_that_was_removed_is_no_missing_command(engine: Engine) {
    let container = Waiting::named(engine, "removed").await;
    let exec = create(&container, &sh("echo ran"), &terms("a")).await;
    container.sh("rm -rf /.oncelet").await;
    let mut supervised = container.engine.start_supervised(&container.id, &exec, None).await.unwrap();
    let told = listen(&mut supervised).await;
    assert!(matches!(told.end, SupervisedEnd::Unusable { .. }), "{:?}", told.end);
    // The next one finds it put back.
    assert_eq!(tell(&container, &sh("echo ran"), &terms("a")).await.stdout, b"ran\n");
}

async fn where_nothing_was_claimed_there_is_no_record(engine: Engine) {
    let container = Waiting::named(engine, "none").await;
    assert!(!container.engine.has_record(&container.id, &run("a"), None).await.unwrap());
    assert_eq!(container.engine.read_record(&container.id, &run("a"), None).await.unwrap(), None);
    let missing = container.engine.read_output(&container.id, &run("a"), None, [0, 0], [u64::MAX; 2]).await;
    assert_eq!(missing.err().map(|error| error.kind()), Some(ErrorKind::NotFound));
    let mut followed = container.engine.follow_supervised(&container.id, &run("a"), None, [0, 0], None).await.unwrap();
    assert_eq!(listen(&mut followed).await.end, SupervisedEnd::NoClaim);
    container.engine.clean_output(&container.id, &[run("a")], None).await.unwrap();
    container.engine.stop_supervised(&container.id, &run("a"), None, StopReason::Stop, Duration::ZERO).await.unwrap();
}

/// What supervision costs: bare and supervised programs in turn, and the parts. Run it alone, with `--ignored --nocapture`.
async fn costs(engine: Engine) {
    let container = Waiting::named(engine, "costs").await;
    let begun = Instant::now();
    container.engine.supervise(&container.id, None).await.unwrap();
    let installed = begun.elapsed();
    let (mut bare, mut supervised) = (Vec::new(), Vec::new());
    for number in 0..30 {
        let begun = Instant::now();
        container.run(&command(&["/bin/busybox", "true"])).await;
        bare.push(begun.elapsed());
        let begun = Instant::now();
        tell(&container, &command(&["/bin/busybox", "true"]), &terms(&format!("{number:02}"))).await;
        supervised.push(begun.elapsed());
    }
    let median = |mut all: Vec<Duration>| {
        all.sort();
        all[all.len() / 2]
    };
    let (bare, supervised) = (median(bare), median(supervised));
    let begun = Instant::now();
    container.engine.read_record(&container.id, &run("00"), None).await.unwrap();
    let record = begun.elapsed();
    let begun = Instant::now();
    let mut followed = container.engine.follow_supervised(&container.id, &run("00"), None, [0, 0], None).await.unwrap();
    listen(&mut followed).await;
    println!(
        "installed {installed:.1?}; bare {bare:.1?}, supervised {supervised:.1?} ({:.2}); record read {record:.1?}; followed {:.1?}",
        supervised.as_secs_f64() / bare.as_secs_f64(),
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn what_supervision_costs() {
    for engine in [support::docker().await, support::podman().await].into_iter().flatten() {
        Box::pin(costs(engine)).await;
    }
}
