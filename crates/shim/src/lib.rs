//! What the daemon and the supervisor inside a container say to each other, and what lies on the container's disk.
//!
//! The daemon puts the supervisor (this crate's program) into the container and runs it as an engine exec. Whatever is to
//! be done is one [`Order`], as JSON in the variable [`ORDER_VARIABLE`]; the answer is a sequence of [`frame::Frame`]s on
//! the supervisor's stdout. The truth is on the container's disk, the frames are how it usually gets out:
//!
//! ```text
//! /.oncelet/                       0755  root's
//!   shim-<build>                   0755  the program
//!   <full container ID>.owners           [`Owners`] of what others made in the next when everybody could
//!   <full container ID>/           0755  root's, and the directory of root's runs
//!     <run>/                       0700  the gate: whoever makes this directory may start the program, nobody else
//!       claim.json                       [`Claim`]: durable before the program is started
//!       started.json                     [`Started`]
//!       stop.json                        [`Stopped`]: somebody asked for its end
//!       exit.json                        [`Exit`]: there before anybody is told, and durable right after
//!     <run>.output/                0700  the spool: what the program wrote, until it is safe elsewhere
//!       stdout.<offset>, stderr.<offset>   segments: each begins at this byte of its stream
//!     <UID>/                       0755  that user's: the directory of its runs, with the same in it
//! ```
//!
//! # Output
//! The program writes into pipes. The supervisor reads them and writes what comes to the spool, in segments, so that what the
//! daemon has stored ([`Word::Ack`]) can be removed while the program runs. The spool never takes more than half of the room that
//! there is. Where there is none, the supervisor keeps a little in memory and lets the program wait, as a pipe does, as
//! long as whoever listens takes something; else what comes from there on is dropped and counted ([`Written`]). So the
//! program never fails because of its output's way, and what is kept is always the beginning.
//!
//! # After the start
//! The supervisor has one thread. What it needs once the program runs is there before: the pipes, the memory, the room for
//! the record of the end. What can fail after that costs output or a hint, never the outcome.
//!
//! The container's ID is in the path because an image made of the container (`docker commit`) carries the directory
//! into other containers, where its claims must not count.
//!
//! # Trust
//! A record counts where nobody but root and the user of its run can have made it. The daemon makes the directory of each user
//! through the engine, by the number that a supervisor of that user says it has ([`Task::Probe`]). A supervisor starts nothing
//! unless the directory of its user and those above it are real directories, root's or its user's, which nobody else can write
//! to. Every file there is opened without following links and without waiting, and read only if it is a regular file of
//! root's or of that user and of at most [`LARGEST_PART`] bytes. The daemon checks the same in the headers of the engine's archives. So
//! another user can neither forge a start or an end nor keep a run from starting; root and the run's own user can.
//!
//! Root's records can be forged by nobody less, so they count for runs of every user. Those of other users count for their own
//! runs alone.
//!
//! Up to version 2 all users made their gates in `<container ID>/`, whose mode was 1777. What is left of them counts by its
//! owner, as everything else: root's gates are where they were, and a gate of another user is one of its own runs, or none.
//! Not every engine tells whose a file is: Podman's archives say of all that it is the container's user's. So root's
//! supervisor lists once what is not root's ([`Task::Survey`]), as soon as nobody else can write there any more.

pub mod frame;
mod word;

pub use word::{Word, Words};

use serde::{Deserialize, Serialize};

/// The version of everything here. A supervisor of another version refuses an order.
pub const VERSION: u32 = 3;

/// Where everything of oncelet is in a container.
pub const ROOT: &str = "/.oncelet";

/// The environment variable of the supervisor that holds its [`Order`]. The program does not get it.
pub const ORDER_VARIABLE: &str = "ONCELET_ORDER";

/// Room that is kept for the record of the end before a program is started: no record of an end is longer.
pub const ROOM: usize = 40 * 1024;

/// Longer files are no parts of a record. The longest is a claim: its description comes in an environment variable.
pub const LARGEST_PART: u64 = 256 * 1024;

/// How many of the last bytes of a stream stand in the record of the end where not all of them were kept. In hex, those of both
/// streams take most of [`ROOM`].
pub const TAIL: usize = 8 * 1024;

/// No segment of the spool is longer. One that is was not written by a supervisor.
pub const LONGEST_SEGMENT: u64 = 1024 * 1024;

/// The names of the files of a run, below its gate.
pub mod file {
    #![expect(missing_docs, reason = "the crate's drawing says it")]
    pub const CLAIM: &str = "claim.json";
    pub const STARTED: &str = "started.json";
    pub const STOP: &str = "stop.json";
    pub const EXIT: &str = "exit.json";
}

/// Whose the entries of a container's directory are that are not root's, by name. Those that were made later are all root's.
pub type Owners = std::collections::BTreeMap<String, u32>;

/// Where the files of one run are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// [`ROOT`], save in tests.
    pub root: String,
    /// The full ID of the container.
    pub container: String,
    /// The run: 32 hex digits made of its key.
    pub run: String,
    /// The number of the user in whose directory it is. Not in orders: a supervisor knows who it is.
    #[serde(skip)]
    pub user: u32,
}

impl Place {
    /// The place of `run` in `container`, among the runs of root.
    pub fn new(container: &str, run: &str) -> Self {
        Self { root: ROOT.to_owned(), container: container.to_owned(), run: run.to_owned(), user: 0 }
    }

    /// The place of the same run among those of another user.
    #[must_use]
    pub fn of(&self, user: u32) -> Self {
        Self { user, ..self.clone() }
    }

    /// The directory of the container, which is that of root's runs.
    pub fn container_dir(&self) -> String {
        format!("{}/{}", self.root, self.container)
    }

    /// The list of what is not root's in the directory of the container.
    pub fn owners(&self) -> String {
        format!("{}.owners", self.container_dir())
    }

    /// The directory of the user's runs.
    pub fn home(&self) -> String {
        match self.user {
            0 => self.container_dir(),
            user => format!("{}/{user}", self.container_dir()),
        }
    }

    /// The gate, and the directory of the record.
    pub fn gate(&self) -> String {
        format!("{}/{}", self.home(), self.run)
    }

    /// The directory of the output that is not safe elsewhere yet.
    pub fn spool(&self) -> String {
        format!("{}.output", self.gate())
    }

    /// The segment of a stream that begins at its byte `offset`. By name they are in order.
    pub fn segment(&self, stream: Stream, offset: u64) -> String {
        format!("{}/{}.{offset:020}", self.spool(), stream.name())
    }

    /// The stream and the offset of a segment, by its name.
    pub fn parse_segment(name: &str) -> Option<(Stream, u64)> {
        let (stream, offset) = name.split_once('.')?;
        let is_offset = offset.len() == 20 && offset.bytes().all(|digit| digit.is_ascii_digit());
        let stream = Stream::ALL.into_iter().find(|it| it.name() == stream)?;
        Some((stream, offset.parse().ok().filter(|_| is_offset)?))
    }
}

/// One of the program's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "names of streams")]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// `stdout` or `stderr`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What the supervisor is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// [`VERSION`].
    pub version: u32,
    /// The task itself.
    pub task: Task,
}

impl Order {
    /// An order of this version.
    pub fn new(task: Task) -> Self {
        Self { version: VERSION, task }
    }
}

/// What a program reads from its stdin: how much it is, and its SHA-256 in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StdinDigest {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256: 64 lowercase hex digits.
    pub sha256: String,
}

/// A task of the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Task {
    /// Prove that it can run here as this user, and that there is room for a record: answers [`frame::Frame::Hello`].
    Probe {
        /// That of any run in the container.
        place: Place,
    },
    /// List what is not root's in the directory of the container. For root's supervisor. Answers [`frame::Frame::Done`].
    Survey {
        /// That of any run in the container.
        place: Place,
    },
    /// Claim the run, start the program (the supervisor's own arguments after `--`) and watch over it.
    ///
    /// Answers [`frame::Frame::Started`], its output, [`frame::Frame::Exited`]; or [`frame::Frame::Refused`],
    /// [`frame::Frame::FailedToStart`], [`frame::Frame::StdinIncomplete`] or [`frame::Frame::Unusable`].
    ///
    /// Where the program has a stdin, these bytes come first on the supervisor's own, and the run is claimed only once all of
    /// them are here and right: a daemon that dies before has started nothing, and the next one sends them again.
    Run {
        /// Where.
        place: Place,
        /// Names the acquisition of the run in the store, for people who read the claim.
        nonce: String,
        /// After how long the program is to be ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_seconds: Option<u64>,
        /// How long it has from SIGTERM to SIGKILL then.
        grace_seconds: u64,
        /// What the program reads from its stdin. It is empty where nothing is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stdin: Option<StdinDigest>,
        /// How many bytes of each output are wanted. What comes after is counted, and the last [`TAIL`] bytes of it are kept, unless
        /// none are wanted at all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log_limit: Option<u64>,
        /// What a daemon needs that has lost its store: kept in the claim, never read here. Secrets masked.
        #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
        description: serde_json::Value,
    },
    /// Tell of a run that was claimed before, also while it goes on: the answers of [`Task::Run`], with the output from
    /// the given offsets on; [`frame::Frame::NoClaim`] where nobody has claimed it, and [`frame::Frame::Abandoned`]
    /// where its supervisor is gone without a record. In that case the program is waited for first, if it lives.
    Follow {
        /// Where.
        place: Place,
        /// How many bytes of stdout are known.
        stdout_from: u64,
        /// How many bytes of stderr are known.
        stderr_from: u64,
        /// How many bytes of each output are wanted, as in [`Task::Run`]: what lies in the spool may not be the supervisor's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        log_limit: Option<u64>,
    },
    /// End the program and all its children: SIGTERM, the grace, SIGKILL. Answers [`frame::Frame::Done`] when
    /// nothing of it is left, or nothing was running.
    Stop {
        /// Where.
        place: Place,
        /// Who asks.
        by: StopReason,
        /// How long it has from SIGTERM to SIGKILL.
        grace_seconds: u64,
    },
    /// Remove the logs of ended runs, which are safe elsewhere. Answers [`frame::Frame::Done`].
    Clean {
        /// Their places.
        places: Vec<Place>,
    },
    /// Connect to the container's own addresses (never to a loopback address) until that succeeds. Answers
    /// [`frame::Frame::Port`] for each change, the last of which says [`PortState::Open`]; or [`frame::Frame::Done`] where
    /// the time is over before. Ends at the end of stdin.
    AwaitPort {
        /// The TCP port.
        port: u16,
        /// For how long connections must succeed.
        stable_ms: u64,
        /// After how long to give up.
        limit_ms: u64,
    },
    /// Remove all of runs that are over, their gates included: their programs may then be started again. Answers
    /// [`frame::Frame::Done`], or [`frame::Frame::Unusable`] where one of them goes on; the others are removed.
    Forget {
        /// Their places.
        places: Vec<Place>,
    },
}

/// What connections to a port of a container come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum PortState {
    /// None is accepted.
    Closed {
        /// What became of each; empty where the container has no address of its own.
        tries: Vec<PortTry>,
        /// A server listens on the port, on 127.0.0.1 or `::1` alone.
        loopback_only: bool,
    },
    /// They are accepted, but not for as long as they must be.
    Settling,
    /// They have been accepted for as long as they must be.
    Open,
}

/// A connection that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortTry {
    /// The address, without the port.
    pub address: String,
    /// Why, such as `connection refused`.
    pub problem: String,
}

/// The claim of a run: whoever wrote it had the right to start the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// [`VERSION`] of who wrote it.
    pub version: u32,
    /// The nonce of the order.
    pub nonce: String,
    /// When, in microseconds since 1970.
    pub at_us: i64,
    /// The supervisor.
    pub supervisor: Process,
    /// The description of the order.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub description: serde_json::Value,
}

/// A process, so that it cannot be mistaken for a later one of the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its number in the container's namespace.
    pub pid: u32,
    /// When it was started: field 22 of `/proc/<pid>/stat`, in clock ticks since the boot.
    pub start_ticks: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

/// The program was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// When, in microseconds since 1970.
    pub at_us: i64,
    /// The program.
    pub program: Process,
}

/// Somebody asked for the program's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// Who.
    pub by: StopReason,
    /// When, in microseconds since 1970.
    pub at_us: i64,
}

/// Why a program is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// `spec.stop`.
    Stop,
    /// `spec.timeoutSeconds`.
    Timeout,
    /// Its object was deleted, with `onDelete: Kill`.
    Delete,
}

/// The program is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// When the program was started, in microseconds since 1970.
    pub started_us: i64,
    /// When it ended, by the same clock.
    pub finished_us: i64,
    /// How long that was by a clock that nobody sets.
    pub elapsed_us: u64,
    /// How it ended.
    pub end: End,
    /// What it wrote to stdout.
    pub stdout: Written,
    /// What it wrote to stderr.
    pub stderr: Written,
    /// Who asked for its end before it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

/// What a program wrote to one of its outputs before it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    /// How many bytes.
    pub bytes: u64,
    /// How many of them, from the first on, are in the spool or went to whoever listened. Fewer than `bytes` where the limit or
    /// the room did not allow for more.
    pub kept: u64,
    /// Whether processes that it left behind still hold it open. What they write is discarded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held_open: bool,
    /// The last [`TAIL`] bytes in hex, where not all of them were kept, and any are wanted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tail: String,
}

impl Exit {
    /// What was written to `stream`.
    pub fn written(&self, stream: Stream) -> &Written {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }
}

impl Written {
    /// The last bytes, where not all were kept.
    pub fn tail(&self) -> Vec<u8> {
        let digits = self.tail.as_bytes().chunks_exact(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        digits.map(byte).collect::<Option<_>>().unwrap_or_default()
    }
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum End {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

impl End {
    /// The exit code as a shell would say it: 128 + n for signal n.
    pub fn exit_code(self) -> i64 {
        match self {
            Self::Code(code) => i64::from(code),
            Self::Signal(signal) => 128 + i64::from(signal),
        }
    }
}

/// What was found in a gate, by whoever reads the container's disk from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The claim; absent where the gate was made and nothing written yet, or not read in full.
    pub claim: Option<Claim>,
    /// The start.
    pub started: Option<Started>,
    /// The stop.
    pub stopped: Option<Stopped>,
    /// The end.
    pub exit: Option<Exit>,
    /// Why nothing behind the gate counts, where that is so: it is no gate that a supervisor of the run's user makes, and yet only
    /// that user or root can have made it.
    pub unsound: Option<String>,
    /// What was found in place of parts. Those parts are absent.
    pub remarks: Vec<String>,
}

/// Why a program could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartFailure {
    /// What execve said.
    pub errno: i32,
    /// In words.
    pub message: String,
}
