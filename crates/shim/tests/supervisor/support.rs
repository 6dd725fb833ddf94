//! A supervisor and a directory that stands for a container's disk.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oncelet_shim::frame::{Decoder, Frame};
use oncelet_shim::{Exit, ORDER_VARIABLE, Order, Place, StdinDigest, Stream, Task, Word, file};
use tempfile::TempDir;

/// A container's disk.
pub(crate) struct Disk(pub(crate) TempDir);

impl Disk {
    pub(crate) fn new() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        fs::set_permissions(disk.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(disk.0.path().join("c")).unwrap();
        disk.make_home();
        disk
    }

    /// Makes the directory of this user's runs.
    fn make_home(&self) {
        fs::create_dir_all(self.place("").home()).unwrap();
    }

    /// The place of a run of this user.
    pub(crate) fn place(&self, run: &str) -> Place {
        let root = self.0.path().to_str().unwrap().to_owned();
        Place { root, container: "c".into(), run: run.into(), user: rustix::process::geteuid().as_raw() }
    }

    pub(crate) fn run(&self, run: &str) -> Task {
        Task::Run {
            place: self.place(run),
            nonce: "n".into(),
            timeout_seconds: None,
            grace_seconds: 1,
            stdin: None,
            log_limit: None,
            description: serde_json::Value::Null,
        }
    }

    pub(crate) fn run_with_input(&self, run: &str, stdin: StdinDigest) -> Task {
        let mut task = self.run(run);
        if let Task::Run { stdin: input, .. } = &mut task {
            *input = Some(stdin);
        }
        task
    }

    /// The names of everything that is there of runs.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.place("").home()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub(crate) fn follow(&self, run: &str, from: [u64; 2]) -> Task {
        Task::Follow { place: self.place(run), stdout_from: from[0], stderr_from: from[1], log_limit: None }
    }

    pub(crate) fn exit(&self, run: &str) -> Option<Exit> {
        let text = fs::read(Path::new(&self.place(run).gate()).join(file::EXIT)).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }
}

/// A supervisor with an order, and a program where it is to start one.
pub(crate) fn spawn(task: Task, command: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_oncelet-shim"))
        .arg("--")
        .args(command)
        .env(ORDER_VARIABLE, serde_json::to_string(&Order::new(task)).unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Everything that it says, and its exit code; what it waits for is said as soon as it is over.
pub(crate) fn listen(mut supervisor: Child) -> (Vec<Frame>, Option<i32>) {
    let mut stdin = supervisor.stdin.take().unwrap();
    let _ = stdin.write_all(Word::Stored.to_string().as_bytes());
    let mut said = Vec::new();
    supervisor.stdout.take().unwrap().read_to_end(&mut said).unwrap();
    drop(stdin);
    let mut decoder = Decoder::default();
    decoder.push(&said);
    let frames = std::iter::from_fn(|| decoder.next_frame().unwrap()).collect();
    assert!(!decoder.is_in_the_middle(), "it stopped in the middle of a frame");
    (frames, supervisor.wait().unwrap().code())
}

pub(crate) fn tell(task: Task, command: &[&str]) -> Vec<Frame> {
    listen(spawn(task, command)).0
}

pub(crate) fn output(frames: &[Frame], wanted: Stream) -> String {
    let bytes: Vec<u8> = frames
        .iter()
        .filter_map(|frame| match frame {
            Frame::Output(stream, bytes) if *stream == wanted => Some(bytes.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    String::from_utf8(bytes).unwrap()
}

pub(crate) fn exit(frames: &[Frame]) -> &Exit {
    match frames.last() {
        Some(Frame::Exited(exit)) => exit,
        other => panic!("expected an exit, got {other:?}"),
    }
}

pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        // What is waited for here announces itself by nothing.
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Disk {
    /// One with so little room; `None` where this user may not make one.
    pub(crate) fn small(size: &str) -> Option<Self> {
        let disk = Self::new();
        let dir = disk.0.path().join("c");
        let options = format!("size={size},mode=0755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&dir).status();
        if !mounted.is_ok_and(|it| it.success()) {
            eprintln!("SKIPPED: a small disk: this user may not mount one");
            return None;
        }
        disk.make_home();
        Some(disk)
    }

    /// How many bytes of output are on it.
    pub(crate) fn spooled(&self, run: &str) -> u64 {
        let entries = fs::read_dir(self.place(run).spool()).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
    }

    pub(crate) fn probe(&self) -> Task {
        Task::Probe { place: self.place("") }
    }

    pub(crate) fn limited(&self, run: &str, limit: u64) -> Task {
        let mut task = self.run(run);
        if let Task::Run { log_limit, .. } = &mut task {
            *log_limit = Some(limit);
        }
        task
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Those that are no mounts are none of ours.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path().join("c")).stderr(Stdio::null()).status();
    }
}

/// A supervisor that a shell starts under the limits that it sets.
pub(crate) fn spawn_under(limits: &str, task: Task, command: &[&str]) -> Child {
    Command::new("/bin/sh")
        .args(["-c", &format!("{limits}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_oncelet-shim"), "--"])
        .args(command)
        .env(ORDER_VARIABLE, serde_json::to_string(&Order::new(task)).unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What came from a supervisor.
#[derive(Default)]
pub(crate) struct Came {
    pub(crate) output: [Vec<u8>; 2],
    pub(crate) exit: Option<Exit>,
}

/// Listens to the end as a daemon does: says now and then what is safe, if `acknowledges`, and at the end that all is.
pub(crate) fn listen_as_a_daemon(mut supervisor: Child, acknowledges: bool) -> Came {
    let (mut stdin, mut stdout) = (supervisor.stdin.take().unwrap(), supervisor.stdout.take().unwrap());
    let mut decoder = Decoder::default();
    let mut came = Came::default();
    let mut said = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = stdout.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        decoder.push(&buffer[..read]);
        while let Some(frame) = decoder.next_frame().unwrap() {
            match frame {
                Frame::Output(stream, bytes) => came.output[stream as usize].extend(bytes),
                Frame::Exited(exit) => {
                    came.exit = Some(exit);
                    let _ = stdin.write_all(Word::Stored.to_string().as_bytes());
                }
                _ => {}
            }
        }
        let safe = [came.output[0].len() as u64, came.output[1].len() as u64];
        if acknowledges && safe[0] + safe[1] > said + 100_000 {
            said = safe[0] + safe[1];
            let _ = stdin.write_all(Word::Ack(safe).to_string().as_bytes());
        }
    }
    supervisor.wait().unwrap();
    came
}
