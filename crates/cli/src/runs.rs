//! `oncelet runs`: what the store remembers.

pub(crate) mod decide;

use std::io::Write;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use oncelet_core::{Capture, Outcome, RunId, RunRecord, RunState, Shown};
use oncelet_store::{Filter, LogSummary, Logs, Store};
use serde::Serialize;

use crate::args::{DataDir, Output, Runs, RunsList, RunsShow};
use crate::clock::now;
use crate::output::{self, age};
use crate::paths::Paths;
use crate::table::{Cell, Table};

/// Runs one of the subcommands.
pub(crate) async fn run(command: Runs) -> Result<()> {
    match command {
        Runs::List(args) => list(args).await,
        Runs::Show(args) => show(args).await,
        Runs::Mark(args) => decide::mark(args).await,
        Runs::Forget(args) => decide::forget(args).await,
        Runs::Gc(args) => decide::gc(args).await,
    }
}

/// The store, to read from.
pub(crate) async fn open(data: DataDir) -> Result<Store> {
    Ok(Store::open_reader(&Paths::new(data)?.store()).await?)
}

async fn list(args: RunsList) -> Result<()> {
    let store = open(args.data).await?;
    let records = store.list(Filter { container: args.container, ..Filter::default() }).await?;
    if output::structured(&records, args.output)? {
        return Ok(());
    }
    if records.is_empty() {
        eprintln!("No runs are recorded.");
        return Ok(());
    }
    table(&records, args.output == Output::Wide, now()).print()
}

fn table(records: &[RunRecord], wide: bool, now: Timestamp) -> Table {
    const COLUMNS: [&str; 7] = ["RUN", "NAME", "CONTAINER", "STATE", "EXIT", "DURATION", "AGE"];
    const MORE: [&str; 4] = ["CAPTURE", "ENGINE", "CONTAINER ID", "COMMAND"];
    let mut table = Table::new(if wide { [&COLUMNS[..], &MORE].concat() } else { COLUMNS.to_vec() });
    for record in records {
        let (started, finished) = times(&record.state);
        let mut cells = vec![
            record.id.to_string().into(),
            record.key.name.as_str().into(),
            container(&record.container_name, &record.container_id).into(),
            state(&record.state),
            exit_cell(&record.state),
            started.map(|from| elapsed(from, finished, now)).unwrap_or_default().into(),
            age(record.claimed_at, now).into(),
        ];
        if wide {
            let words = record.effective.args.iter().map(|arg| arg.text.as_str());
            let command = std::iter::once(record.program.command.as_str()).chain(words).collect::<Vec<_>>().join(" ");
            cells.extend([
                record.capture.name().into(),
                record.engine.as_str().into(),
                record.container_id.as_str().into(),
                on_one_line(&command).into(),
            ]);
        }
        table.row(cells);
    }
    table
}

fn state(state: &RunState) -> Cell {
    match state {
        RunState::Ended { outcome, .. } if outcome.exit_code().is_none() => Cell::loud(state.name()),
        RunState::Ended { .. } => state.name().into(),
        RunState::Claimed | RunState::Starting { .. } | RunState::Running { .. } => Cell::busy(state.name()),
    }
}

fn exit_cell(state: &RunState) -> Cell {
    match exit_code(state) {
        None => "".into(),
        Some(0) => "0".into(),
        Some(code) => Cell::loud(code.to_string()),
    }
}

/// A run and what is known of its output, as `-o json` prints it.
#[derive(Serialize)]
struct Full<'a> {
    #[serde(flatten)]
    record: &'a RunRecord,
    stdout: OutputOf<'a>,
    stderr: OutputOf<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutputOf<'a> {
    bytes: u64,
    truncated: bool,
    held_open: bool,
    tail: std::borrow::Cow<'a, str>,
}

impl<'a> From<&'a LogSummary> for OutputOf<'a> {
    fn from(log: &'a LogSummary) -> Self {
        let LogSummary { bytes, truncated, held_open, .. } = *log;
        Self { bytes, truncated, held_open, tail: String::from_utf8_lossy(&log.tail) }
    }
}

async fn show(args: RunsShow) -> Result<()> {
    let store = open(args.data).await?;
    let record = find(&store, &args.run).await?;
    let logs = store.logs(record.id).await?;
    let full = Full { record: &record, stdout: (&logs.stdout).into(), stderr: (&logs.stderr).into() };
    if output::structured(&full, args.output)? {
        return Ok(());
    }
    describe(&record, &logs)
}

fn describe(record: &RunRecord, logs: &Logs) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut field = |name: &str, value: &str| -> Result<()> {
        if !value.is_empty() {
            writeln!(out, "{:<13}{value}", format!("{name}:"))?;
        }
        Ok(())
    };
    let (started, finished) = times(&record.state);
    field("Run", &record.id.to_string())?;
    field("Name", record.key.name.as_str())?;
    field("Repeat", &record.key.token)?;
    field("Container", &format!("{} ({})", record.container_name, record.container_id))?;
    field("Engine", &record.engine)?;
    field("State", record.state.name())?;
    field("Marked", &record.marked_at.map(|at| format!("{at:.0}, by a person")).unwrap_or_default())?;
    field("Capture", &capture(&record.capture))?;
    field("Exit code", &exit_code(&record.state).map(|code| code.to_string()).unwrap_or_default())?;
    field("Message", message(&record.state))?;
    field("Claimed", &format!("{:.6}", record.claimed_at))?;
    field("Started", &started.map(|at| format!("{at:.6}")).unwrap_or_default())?;
    field("Finished", &finished.map(|at| format!("{at:.6}")).unwrap_or_default())?;
    field("Duration", &started.zip(finished).map(|(from, to)| took(from, to)).unwrap_or_default())?;
    field("Attempt", &record.attempt.to_string())?;
    field("Command", &record.program.command)?;
    field("Args", &lines(record.effective.args.iter().map(|arg| arg.text.clone())))?;
    let variable = |(name, value): &(String, Shown)| format!("{name}={}", value.text);
    field("Env", &lines(record.effective.env.iter().map(variable)))?;
    field("Directory", record.program.working_directory.as_deref().unwrap_or_default())?;
    field("User", record.program.user.as_deref().unwrap_or_default())?;
    if let Some(stdin) = &record.effective.stdin {
        let hash = stdin.sha256.as_deref().map_or("from a Secret".to_owned(), |sha256| format!("SHA-256 {sha256}"));
        field("Stdin", &format!("{} bytes, {hash}", stdin.bytes))?;
    }
    field("Stdout", &bytes(&logs.stdout))?;
    field("Stderr", &bytes(&logs.stderr))?;
    Ok(())
}

fn capture(capture: &Capture) -> String {
    match capture {
        Capture::Attached { reason } if !reason.is_empty() => format!("{} ({reason})", capture.name()),
        _ => capture.name().to_owned(),
    }
}

fn lines(values: impl Iterator<Item = String>) -> String {
    // Under the first line of a field, whose name takes 13 columns.
    values.map(|value| on_one_line(&value)).collect::<Vec<_>>().join("\n             ")
}

fn bytes(log: &LogSummary) -> String {
    let cut = match log.cut() {
        Some((missing, _)) if missing > 0 => format!(", {missing} of them not kept"),
        _ => String::new(),
    };
    let held = if log.held_open { ", held open by processes that the program started" } else { "" };
    format!("{} bytes{cut}{held}", log.bytes)
}

/// The run that a person means: a number, a full name, or an object's name in whatever namespace.
pub(crate) async fn find(store: &Store, wanted: &str) -> Result<RunRecord> {
    if let Ok(id) = wanted.parse() {
        return store.run(RunId(id)).await?.with_context(|| format!("there is no run {id}"));
    }
    // Newest last; of this name, or of this name in any namespace.
    let records = store.list(Filter { name: Some(wanted.to_owned()), ..Filter::default() }).await?;
    let exact = records.iter().rfind(|record| record.key.name.as_str() == wanted);
    let Some(latest) = exact.or(records.last()) else {
        bail!("no run of {wanted:?} is recorded; see: oncelet runs list");
    };
    if exact.is_none()
        && let Some(other) = records.iter().find(|record| record.key.name != latest.key.name)
    {
        bail!("{wanted:?} is ambiguous: {} and {}", latest.key.name, other.key.name);
    }
    Ok(latest.clone())
}

/// When a program was started, and when it ended.
pub(crate) fn times(state: &RunState) -> (Option<Timestamp>, Option<Timestamp>) {
    match state {
        RunState::Claimed | RunState::Starting { .. } => (None, None),
        RunState::Running { started_at, .. } => (Some(*started_at), None),
        RunState::Ended { started_at, finished_at, .. } => (*started_at, Some(*finished_at)),
    }
}

/// A program's exit code, where it has one.
pub(crate) fn exit_code(state: &RunState) -> Option<i64> {
    match state {
        RunState::Ended { outcome, .. } => outcome.exit_code(),
        _ => None,
    }
}

/// Why a run did not end well.
pub(crate) fn message(state: &RunState) -> &str {
    match state {
        RunState::Ended {
            outcome:
                Outcome::Interrupted { message, .. } | Outcome::FailedToStart { message, .. } | Outcome::Unknown { message },
            ..
        } => message,
        _ => "",
    }
}

/// How long it took, or how long it goes on.
fn elapsed(from: Timestamp, to: Option<Timestamp>, now: Timestamp) -> String {
    to.map_or_else(|| format!("{}…", age(from, now)), |to| took(from, to))
}

fn took(from: Timestamp, to: Timestamp) -> String {
    format!("{:.3}s", to.duration_since(from).as_secs_f64().max(0.0))
}

/// A script has lines, a row or a field's value is one.
fn on_one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

/// A container as people see it.
fn container(name: &str, id: &str) -> String {
    format!("{name} ({})", short(id))
}

pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
