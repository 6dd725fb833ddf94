//! What programs write.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use oncelet_core::{Outcome, RunId};
use oncelet_store::{Lease, LogReader, LogSummary, Logs, Store, StoreError, Stream};

use crate::children::Process;
use crate::support::{at, done, failed_to_start, open, record, run, win};

const FRAME: usize = 256 * 1024;

async fn write(store: &Store, lease: &Lease, parts: &[&[u8]], limit: Option<u64>) -> LogSummary {
    let mut log = store.log_writer(lease, Stream::Stdout, limit).await.unwrap();
    for part in parts {
        log.write(at(2), Bytes::copy_from_slice(part)).await.unwrap();
    }
    log.finish().await.unwrap()
}

async fn end(store: &Store, lease: &Lease, stdout: LogSummary) {
    let logs = Logs { stdout, ..Logs::default() };
    done(store.finish(lease, at(5), Outcome::Finished { exit_code: 0 }, logs).await.unwrap());
}

async fn read_all(log: &mut LogReader) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = log.next_chunk().await.unwrap() {
        all.extend_from_slice(&chunk.bytes);
    }
    all
}

async fn stdout(store: &Store, run: RunId) -> Vec<u8> {
    read_all(&mut store.read_log(run, Stream::Stdout).await.unwrap()).await
}

fn file(dir: &Path) -> PathBuf {
    dir.join("logs/1-1.stdout.zst")
}

/// Bytes of every value, none of which compresses.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| byte()).collect()
}

#[tokio::test]
async fn output_of_any_bytes_and_length_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    for length in [1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME + 5] {
        let lease = run(&store, &length.to_string()).await;
        let all = noise(length);
        let (first, second) = all.split_at(length / 3);
        let summary = write(&store, &lease, &[first, b"", second], None).await;
        assert_eq!((summary.bytes, summary.kept, summary.truncated), (length as u64, length as u64, false));
        assert_eq!(summary.crc32c, crc32c::crc32c(&all));
        assert_eq!(summary.tail, all[length.saturating_sub(2048)..]);
        assert_eq!(store.logs(lease.run_id()).await.unwrap().stdout, summary, "while it is open");
        end(&store, &lease, summary.clone()).await;
        assert_eq!(store.logs(lease.run_id()).await.unwrap().stdout, summary, "when it is over");
        assert_eq!(store.logs(lease.run_id()).await.unwrap().stderr, LogSummary::default());
        assert!(stdout(&store, lease.run_id()).await == all);
    }
}

#[tokio::test]
async fn a_program_that_writes_nothing_has_no_log_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    let summary = write(&store, &lease, &[], None).await;
    end(&store, &lease, summary).await;
    assert!(!file(dir.path()).exists());
    assert_eq!(stdout(&store, lease.run_id()).await, b"");
}

#[tokio::test]
async fn past_the_limit_output_is_counted_and_its_tail_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    let summary = write(&store, &lease, &[b"0123456789", b"abc", &[b'x'; 5000], b"the end"], Some(11)).await;
    let tail = [&b"0123456789abc"[..], &[b'x'; 5000], b"the end"].concat();
    let kept = b"0123456789a";
    let expected =
        LogSummary { bytes: 5020, kept: 11, truncated: true, held_open: false, tail, crc32c: crc32c::crc32c(kept) };
    assert_eq!(summary, expected);
    end(&store, &lease, summary).await;
    assert_eq!(stdout(&store, lease.run_id()).await, kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_of_exactly_the_limit_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    let summary = write(&store, &lease, &[b"0123", b"4567"], Some(8)).await;
    assert_eq!((summary.kept, summary.truncated), (8, false));
}

#[test]
fn a_hundred_megabytes_pass_through_little_memory() {
    if !Path::new("/proc/self/status").exists() {
        return crate::support::skipped("this system does not tell the memory of a process");
    }
    let dir = tempfile::tempdir().unwrap();
    let told = Process::start("writes_100_megabytes", dir.path(), "").finish();
    assert_eq!(told[..2], ["bytes 104857600", "read 104857600"]);
    let grew: u64 = told[2].strip_prefix("grew ").unwrap().parse().unwrap();
    eprintln!("100 MB written and read with {grew} KiB more memory");
    assert!(grew < 12 * 1024, "{grew} KiB");
}

/// When a byte came is known however frames cut the output, and memory and file stay small whatever the pace.
#[tokio::test]
async fn every_byte_has_the_time_at_which_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    let mut log = store.log_writer(&lease, Stream::Stdout, None).await.unwrap();
    // One byte in each second, then a flood in one moment, then one more byte.
    for second in 0..3000 {
        log.write(at(second), Bytes::from_static(b"x")).await.unwrap();
    }
    log.write(at(3000), vec![b'y'; FRAME + 10].into()).await.unwrap();
    log.write(at(3001), Bytes::from_static(b"z")).await.unwrap();
    let summary = log.finish().await.unwrap();
    end(&store, &lease, summary).await;
    let mut log = store.read_log(lease.run_id(), Stream::Stdout).await.unwrap();
    let mut position = 0;
    while let Some(chunk) = log.next_chunk().await.unwrap() {
        for (offset, byte) in chunk.bytes.iter().enumerate() {
            let second = if *byte == b'x' { position } else { i64::from(*byte == b'z') + 3000 };
            let came = chunk.received(offset).unwrap();
            assert_eq!(came.as_millisecond(), at(second).as_millisecond(), "byte {position}");
            position += 1;
        }
    }
    assert_eq!(usize::try_from(position).unwrap(), 3000 + FRAME + 11);
}

#[tokio::test]
async fn a_frame_that_a_crash_cut_off_is_not_seen_and_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    write(&store, &lease, &[b"first"], None).await;
    let whole = fs::read(file(dir.path())).unwrap();
    // The beginning of a frame, and what a file system may put there on a power failure.
    for torn in [&whole[..whole.len() - 1], &whole[..20], &whole[..5], &[0; 300]] {
        fs::write(file(dir.path()), [&whole[..], torn].concat()).unwrap();
        assert_eq!(stdout(&store, lease.run_id()).await, b"first");
        assert_eq!(store.logs(lease.run_id()).await.unwrap().stdout.kept, 5);
    }
    // A new owner goes on.
    let summary = write(&store, &lease, &[b" second"], None).await;
    assert_eq!((summary.kept, &summary.tail[..]), (12, &b"first second"[..]));
    end(&store, &lease, summary).await;
    assert_eq!(stdout(&store, lease.run_id()).await, b"first second");
}

#[tokio::test]
async fn a_log_that_is_not_what_was_written_is_reported_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    let mut log = store.log_writer(&lease, Stream::Stdout, None).await.unwrap();
    for part in ["first", "second"] {
        log.write(at(2), part.into()).await.unwrap();
        log.flush().await.unwrap();
    }
    let summary = log.finish().await.unwrap();
    end(&store, &lease, summary).await;
    let whole = fs::read(file(dir.path())).unwrap();
    fs::write(file(dir.path()), &whole[..whole.len() - 1]).unwrap();
    let mut log = store.read_log(lease.run_id(), Stream::Stdout).await.unwrap();
    assert_eq!(log.next_chunk().await.unwrap().unwrap().bytes, "first");
    let error = log.next_chunk().await.unwrap_err().to_string();
    assert_eq!(error, format!("the log {} is damaged after 5 good bytes of output", file(dir.path()).display()));
    fs::remove_file(file(dir.path())).unwrap();
    let mut log = store.read_log(lease.run_id(), Stream::Stdout).await.unwrap();
    assert!(matches!(log.next_chunk().await, Err(StoreError::DamagedLog { good: 0, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_in_another_process_follows_a_log_that_grows() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Process::start("writes_lines", dir.path(), "");
    assert_eq!(writer.next().as_deref(), Some("ready"));
    let store = Store::open_reader(dir.path()).await.unwrap();
    let run = record(&store, "lines").await.id;
    let mut log = store.read_log(run, Stream::Stdout).await.unwrap();
    assert!(log.next_chunk().await.unwrap().is_none(), "nothing is written yet");
    for line in ["one", "two", "three"] {
        writer.tell(line);
        assert_eq!(writer.next().as_deref(), Some("written"));
        assert_eq!(log.next_chunk().await.unwrap().unwrap().bytes, format!("{line}\n"));
        assert!(log.next_chunk().await.unwrap().is_none());
    }
    writer.hang_up();
    assert_eq!(writer.next().as_deref(), Some("ended"));
    assert!(log.next_chunk().await.unwrap().is_none());
    assert_eq!(stdout(&store, run).await, b"one\ntwo\nthree\n");
}

#[tokio::test]
async fn what_a_failed_try_wrote_is_not_taken_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    let stdout_of_failure = write(&store, &lease, &[b"exec: not found"], None).await;
    let logs = Logs { stdout: stdout_of_failure.clone(), ..Logs::default() };
    done(store.finish(&lease, at(5), failed_to_start(), logs.clone()).await.unwrap());
    assert_eq!(store.logs(lease.run_id()).await.unwrap(), logs);
    let again = win(&store, "seed").await;
    assert_eq!(store.logs(again.run_id()).await.unwrap(), Logs::default());
    assert_eq!(stdout(&store, again.run_id()).await, b"");
    assert!(!file(dir.path()).exists());
}

#[tokio::test]
async fn what_nobody_kept_is_counted_and_its_end_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    let mut log = store.log_writer(&lease, Stream::Stdout, None).await.unwrap();
    log.write(at(2), "kept".into()).await.unwrap();
    log.skip(0, b"");
    log.write(at(2), ", too".into()).await.unwrap();
    log.skip(1_000_000, b"the end");
    log.set_held_open(true);
    let summary = log.finish().await.unwrap();
    assert_eq!((summary.bytes, summary.kept, summary.truncated), (1_000_009, 9, true));
    assert_eq!((summary.tail.as_slice(), summary.held_open), (&b"the end"[..], true));
    end(&store, &lease, summary.clone()).await;
    assert_eq!(store.logs(lease.run_id()).await.unwrap().stdout, summary);
    assert_eq!(stdout(&store, lease.run_id()).await, b"kept, too");
}

/// What is synced here may be removed where it came from.
#[tokio::test]
async fn what_was_synced_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    let mut log = store.log_writer(&lease, Stream::Stdout, None).await.unwrap();
    log.write(at(2), "synced".into()).await.unwrap();
    assert_eq!(log.sync().await.unwrap(), 6);
    log.write(at(2), ", and not".into()).await.unwrap();
    // As when its daemon is killed: what was not written is gone.
    drop(log);
    let log = store.log_writer(&lease, Stream::Stdout, None).await.unwrap();
    assert_eq!(log.offset(), 6);
}

#[tokio::test]
async fn after_a_failure_the_log_is_the_beginning_and_says_that_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let lease = run(&store, "seed").await;
    // The first frame cannot be written: its place is taken by a directory.
    let mut log = store.log_writer(&lease, Stream::Stdout, None).await.unwrap();
    fs::create_dir(file(dir.path())).unwrap();
    log.write(at(2), "lost".into()).await.unwrap();
    let error = log.flush().await.unwrap_err().to_string();
    assert_eq!(error, format!("{} cannot be used", file(dir.path()).display()));
    fs::remove_dir(file(dir.path())).unwrap();
    log.write(at(2), ", and so is this".into()).await.unwrap();
    log.flush().await.unwrap();
    let summary = log.finish().await.unwrap();
    assert_eq!((summary.bytes, summary.kept, summary.truncated), (20, 0, true));
    assert_eq!(summary.tail, b"lost, and so is this");
    end(&store, &lease, summary).await;
    assert_eq!(stdout(&store, lease.run_id()).await, b"");
}

#[tokio::test]
async fn nobody_else_can_read_the_store() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = open(&path).await;
    let lease = run(&store, "seed").await;
    write(&store, &lease, &[b"secret"], None).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut seen = 0;
    let mut pending = vec![path];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            assert_eq!(mode(&path), 0o700, "{}", path.display());
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            seen += 1;
        }
    }
    assert_eq!(seen, 8, "runs.db, -wal, -shm, runs.lock, store.json, reserve, a sign of life, a log");
}
