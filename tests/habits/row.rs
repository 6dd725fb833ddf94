//! A row, and how it is checked.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use libtest_mimic::Failed;

use crate::docker::{Container, IMAGE, docker};
use crate::process::oncelet_path;
use crate::world::World;

/// How long a command may take before it counts as one that never ends.
const PATIENCE: Duration = Duration::from_mins(1);

/// One thing that people type.
pub(crate) struct Row {
    /// A sentence's worth of a name, by which the row can be run alone.
    pub name: &'static str,
    options: Vec<String>,
    by: By,
    place: Place,
    command: Vec<String>,
    stdin: Stdin,
    expect: Expect,
}

/// Where it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A container that all rows share which leave nothing behind.
    Shared,
    /// A container that was stopped.
    Stopped,
    /// A container that is paused.
    Paused,
    /// No container.
    Missing,
}

/// How the container is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Name,
    Id,
    ShortId,
    Prefix,
    /// Not at all: an empty text.
    Nothing,
}

/// What is on stdin.
pub(crate) enum Stdin {
    /// /dev/null.
    Null,
    /// A pipe with these bytes.
    Pipe(Vec<u8>),
    /// A file with these bytes.
    File(Vec<u8>),
}

/// What is to come of `oncelet exec`.
pub(crate) enum Expect {
    /// What comes of `docker exec`.
    Same,
    /// The same exit code and stdout; stderr, which is the engine's or ours, is not compared.
    SameButWords,
    /// Something else.
    Differs {
        /// Why that is right.
        why: &'static str,
        code: i32,
        stdout: &'static str,
        /// A part of stderr.
        stderr: &'static str,
    },
}

/// A row whose command is `command`.
pub(crate) fn row(name: &'static str, command: &[&str]) -> Row {
    Row {
        name,
        options: Vec::new(),
        by: By::Name,
        place: Place::Shared,
        command: command.iter().map(ToString::to_string).collect(),
        stdin: Stdin::Null,
        expect: Expect::Same,
    }
}

/// A row whose command is a shell script.
pub(crate) fn script(name: &'static str, script: &str) -> Row {
    row(name, &["sh", "-c", script])
}

/// A row whose command prints its arguments, each on a line of its own in brackets.
pub(crate) fn args(name: &'static str, args: &[&str]) -> Row {
    row(name, &[&["printf", "[%s]\\n"], args].concat())
}

impl Row {
    /// With options before the container, in both.
    pub(crate) fn with(mut self, options: &[&str]) -> Self {
        self.options = options.iter().map(ToString::to_string).collect();
        self
    }

    pub(crate) fn named_by(mut self, by: By) -> Self {
        self.by = by;
        self
    }

    pub(crate) fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// With bytes on a pipe, and `-i` where it is among the options.
    pub(crate) fn piped(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::Pipe(bytes.into());
        self
    }

    pub(crate) fn from_file(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::File(bytes.into());
        self
    }

    /// The engine's own words on stderr are not ours.
    pub(crate) fn in_other_words(mut self) -> Self {
        self.expect = Expect::SameButWords;
        self
    }

    pub(crate) fn differs(mut self, why: &'static str, code: i32, stdout: &'static str, stderr: &'static str) -> Self {
        self.expect = Expect::Differs { why, code, stdout, stderr };
        self
    }

    /// Runs it both ways and compares.
    pub(crate) fn check(&self, world: &World, pairs: &[Pair]) -> Result<(), Failed> {
        let pair = pairs.iter().find(|pair| pair.place == self.place).unwrap();
        let mut docker = Command::new("docker");
        docker.arg("exec").args(&self.options).arg(pair.docker.spelled(self.by)).args(&self.command);
        let mut oncelet = world.oncelet_command();
        oncelet.args(["exec", "--namespace", &world.namespace, "--name", &self.name.replace('_', "-")]);
        oncelet.args(&self.options).arg(pair.oncelet.spelled(self.by)).arg("--").args(&self.command);
        let (docker, oncelet) = (self.outcome(docker), self.outcome(oncelet));
        let is_right = match &self.expect {
            Expect::Same => docker == oncelet,
            Expect::SameButWords => (docker.code, &docker.stdout) == (oncelet.code, &oncelet.stdout),
            Expect::Differs { code, stdout, stderr, .. } => {
                if docker == oncelet {
                    return Err(Failed::from(format!("it differs no more: both gave\n{oncelet}")));
                }
                oncelet.code == Some(*code)
                    && oncelet.stdout == stdout.as_bytes()
                    && String::from_utf8_lossy(&oncelet.stderr).contains(stderr)
            }
        };
        if is_right {
            return Ok(());
        }
        let wanted = match &self.expect {
            Expect::Same => "the same".to_owned(),
            Expect::SameButWords => "the same exit code and stdout".to_owned(),
            Expect::Differs { why, code, stdout, stderr } => {
                format!("exit code {code}, stdout {stdout:?}, stderr with {stderr:?}, since {why}")
            }
        };
        Err(Failed::from(format!("docker exec gave\n{docker}\noncelet exec gave\n{oncelet}\nwanted of it: {wanted}")))
    }

    fn outcome(&self, mut command: Command) -> Outcome {
        let stdin = match &self.stdin {
            Stdin::Null => Stdio::null(),
            Stdin::Pipe(_) => Stdio::piped(),
            Stdin::File(bytes) => {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(bytes).unwrap();
                std::io::Seek::rewind(&mut file).unwrap();
                file.into()
            }
        };
        // Of the test's own environment nothing is to be taken along.
        command.env("FROM_THE_CLIENT", "the client's").stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let feeding = child.stdin.take().map(|mut pipe| {
            let Stdin::Pipe(bytes) = &self.stdin else { unreachable!() };
            let bytes = bytes.clone();
            // Whoever does not read it closes it.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)))
        });
        let watchdog = Watchdog::over(child.id());
        let output = child.wait_with_output().unwrap();
        drop(watchdog);
        if let Some(feeding) = feeding {
            feeding.join().unwrap();
        }
        Outcome { code: output.status.code(), stdout: output.stdout, stderr: output.stderr }
    }
}

/// Kills a process that goes on for too long, unless it is dropped before.
struct Watchdog(std::sync::mpsc::Sender<()>);

impl Watchdog {
    fn over(pid: u32) -> Self {
        let (alive, dropped) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if dropped.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        Self(alive)
    }
}

/// What came of a command.
#[derive(PartialEq, Eq)]
struct Outcome {
    /// `None` where a signal ended it.
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |bytes: &[u8]| {
            let head = &bytes[..bytes.len().min(2000)];
            format!("{} bytes: {:?}", bytes.len(), String::from_utf8_lossy(head))
        };
        let code = self.code.map_or_else(|| "none, it did not end".to_owned(), |code| code.to_string());
        write!(f, "  exit code {code}\n  stdout {}\n  stderr {}", shown(&self.stdout), shown(&self.stderr))
    }
}

/// Two containers that are alike, one for each of the two commands.
pub(crate) struct Pair {
    place: Place,
    docker: Target,
    oncelet: Target,
}

impl Pair {
    /// One for each place.
    pub(crate) fn all(world: &World) -> Vec<Self> {
        [Place::Shared, Place::Stopped, Place::Paused, Place::Missing].map(|place| Self::make(world, place)).into()
    }

    fn make(world: &World, place: Place) -> Self {
        let target = |whose: &str| {
            let name = world.container_name(&format!("{whose}-{}", format!("{place:?}").to_lowercase()));
            if place == Place::Missing {
                return Target { container: Container::named(&name), id: "0123456789abcdef".repeat(4) };
            }
            let options = ["--hostname", "box", "--workdir", "/data", "--env", "OF_THE_CONTAINER=its own"];
            docker(&[&["run", "--detach", "--name", &name], &options[..], &[IMAGE, "sleep", "1000000"]].concat())
                .unwrap();
            let container = Container::named(&name);
            for (path, text) in FILES {
                container.install(path, text);
            }
            container.sh("chmod 644 /tmp/not-executable; mkdir /tmp/directory").unwrap();
            match place {
                Place::Stopped => container.stop(),
                Place::Paused => drop(docker(&["pause", &name]).unwrap()),
                Place::Shared | Place::Missing => {}
            }
            let id = container.id();
            Target { container, id }
        };
        Self { place, docker: target("docker"), oncelet: target("oncelet") }
    }
}

/// What is in each container beside the image's.
const FILES: [(&str, &str); 5] = [
    ("/tmp/script", "#!/bin/sh\necho \"script with $# arguments: $*\"\nexit 3\n"),
    ("/tmp/no-shebang", "echo a script without a first line\n"),
    ("/tmp/bad-interpreter", "#!/nowhere/sh\necho never\n"),
    ("/tmp/not-executable", "#!/bin/sh\necho never\n"),
    ("/tmp/crlf", "#!/bin/sh\r\necho never\r\n"),
];

struct Target {
    container: Container,
    id: String,
}

impl Target {
    fn spelled(&self, by: By) -> &str {
        match by {
            By::Name => &self.container.name,
            By::Id => &self.id,
            By::ShortId => &self.id[..12],
            By::Prefix => &self.id[..8],
            By::Nothing => "",
        }
    }
}
