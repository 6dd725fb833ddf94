//! A shell of a reader's own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::page::matches;

/// How long a command may take on a slow, shared machine.
const PATIENCE: Duration = Duration::from_mins(3);
/// After a command, a line of this and its exit code.
const MARK: &str = "--- that was it: ";

pub(crate) struct Shell {
    home: TempDir,
    bash: Child,
    input: ChildStdin,
    output: Receiver<String>,
    /// What was begun beside the shell.
    begun: Vec<String>,
}

impl Shell {
    pub(crate) fn start() -> Self {
        let home = tempfile::Builder::new().prefix("oncelet-docs-").tempdir().unwrap();
        let mut bin = std::env::current_exe().unwrap();
        // target/<profile>/deps/docs-…
        bin.pop();
        bin.pop();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut bash = Command::new("bash")
            .args(["--norc", "--noprofile"])
            .current_dir(home.path())
            .env("HOME", home.path())
            .env("PATH", path)
            // Ports that others have are nobody's business here.
            .envs([("ONCELET_LISTEN", "127.0.0.1:0"), ("ONCELET_PAGE", "127.0.0.1:0"), ("NO_COLOR", "1")])
            .env_remove("XDG_DATA_HOME")
            .env_remove("KUBECONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = bash.stdin.take().unwrap();
        let lines = BufReader::new(bash.stdout.take().unwrap()).lines();
        let (sender, output) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { home, bash, input, output, begun: Vec::new() }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs a command, and compares what it prints.
    pub(crate) fn run(&mut self, command: &str, expected: &[String]) -> Result<(), String> {
        if let Some(command) = command.strip_suffix(" &") {
            return self.begin(command, expected);
        }
        writeln!(self.input, "{{ {command}\n}} </dev/null 2>&1; code=$?; echo; echo '{MARK}'$code").unwrap();
        let (printed, code) = self.printed()?;
        self.check(&printed, code, expected)
    }

    /// Begins what goes on beside the shell, and waits until it has printed what is expected.
    fn begin(&mut self, command: &str, expected: &[String]) -> Result<(), String> {
        // A file of its own: what an earlier one has said is not what this one says.
        let file = self.background();
        writeln!(
            self.input,
            "{command} >{file} 2>{file}.log </dev/null & echo $!; echo '{MARK}'0",
            file = file.display()
        )
        .unwrap();
        let (pid, _) = self.printed()?;
        self.begun.extend(pid);
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if matches(expected, &text.lines().collect::<Vec<_>>()) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let log = self.log();
                return Err(format!("it printed\n{text}\n{log}"));
            }
            // A file tells nobody that it grows.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where the next one that goes on beside the shell writes.
    fn background(&self) -> PathBuf {
        self.home().join(format!("background-{}", self.begun.len()))
    }

    /// The end of what the last one logged.
    fn log(&self) -> String {
        let file = self.home().join(format!("background-{}.log", self.begun.len().saturating_sub(1)));
        let log = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// What is printed until the mark, and the exit code.
    fn printed(&self) -> Result<(Vec<String>, i32), String> {
        let mut printed = Vec::new();
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok(line) => match line.strip_prefix(MARK) {
                    Some(code) => return Ok((printed, code.parse().unwrap())),
                    None => printed.push(line),
                },
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("it does not end; it printed\n{}", printed.join("\n")));
                }
                Err(RecvTimeoutError::Disconnected) => return Err("the shell has ended".to_owned()),
            }
        }
    }

    fn check(&self, printed: &[String], code: i32, expected: &[String]) -> Result<(), String> {
        let (expected, wanted) = match expected.split_last() {
            Some((last, rest)) if last.starts_with("(exit code ") => {
                (rest, last.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap())
            }
            _ => (expected, 0),
        };
        // The empty line before the mark, and those that end blocks.
        let mut lines: Vec<&str> = printed.iter().map(String::as_str).collect();
        while lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        if code == wanted && matches(expected, &lines) {
            return Ok(());
        }
        let log = self.log();
        Err(format!(
            "it ended with {code} and printed\n{}\n--- the page says\n{}\n--- oncelet logged\n{log}",
            lines.join("\n"),
            expected.join("\n")
        ))
    }

    /// Ends what still runs. The shell itself may be in the middle of a command that never ends.
    pub(crate) fn end(mut self) {
        for pid in &self.begun {
            let _ = Command::new("kill").arg(pid).stderr(Stdio::null()).status();
        }
        let _ = self.bash.kill();
        let _ = self.bash.wait();
    }
}
