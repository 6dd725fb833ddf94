//! Processes, told apart from later ones of the same number.

use std::collections::HashSet;
use std::fs;

use oncelet_shim::{Process, Record};
use rustix::process::{Pid, Signal, kill_process};

/// Field 22 of `/proc/<pid>/stat`, counted from 1, less the two before the state.
const START_TICKS: usize = 19;
/// Field 4.
const PARENT: usize = 1;
/// Field 6.
const SESSION: usize = 3;

/// The fields of `/proc/<pid>/stat` from the state on. The name before them may hold anything, spaces and brackets too.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

fn field(pid: u32, index: usize) -> Option<u64> {
    stat(pid)?.get(index)?.parse().ok()
}

/// The process `pid`, as it is now.
pub(crate) fn identify(pid: u32) -> Process {
    Process { pid, start_ticks: field(pid, START_TICKS).unwrap_or_default(), boot_id: boot_id() }
}

/// This process.
pub(crate) fn myself() -> Process {
    identify(std::process::id())
}

pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Whether it still runs. A zombie does not.
pub(crate) fn lives(process: &Process) -> bool {
    process.boot_id == boot_id()
        && stat(process.pid).is_some_and(|fields| {
            fields.get(START_TICKS).and_then(|ticks| ticks.parse().ok()) == Some(process.start_ticks)
                && !matches!(fields.first().map(String::as_str), Some("Z" | "X"))
        })
}

/// Whether the supervisor or the program of a run lives. A claim that cannot be read is that of a supervisor that is
/// writing it.
pub(crate) fn somebody_lives(record: &Record) -> bool {
    record.claim.as_ref().is_some_and(|claim| lives(&claim.supervisor))
        || record.started.as_ref().is_some_and(|started| lives(&started.program))
}

/// What is left of a program: its descendants, by way of the supervisor that collects its orphans, and whatever is in the
/// program's session.
pub(crate) fn left_of(record: &Record) -> Vec<Pid> {
    let me = std::process::id();
    let supervisor = record.claim.as_ref().map(|claim| &claim.supervisor).filter(|it| lives(it)).map(|it| it.pid);
    let program = record.started.as_ref().map(|started| &started.program).filter(|it| lives(it));
    // The program is in the supervisor's session. Its number is not given to others while anybody of it lives, and says
    // nothing after that.
    let session = record.claim.as_ref().map(|claim| claim.supervisor.pid);
    let session = session.filter(|_| supervisor.is_some() || program.is_some());
    let pids: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let stats: Vec<(u32, Vec<String>)> = pids.into_iter().filter_map(|pid| Some((pid, stat(pid)?))).collect();
    let number = |fields: &[String], index: usize| fields.get(index).and_then(|text| text.parse::<u32>().ok());
    let mut found: HashSet<u32> = HashSet::new();
    let mut roots: HashSet<u32> = supervisor.into_iter().collect();
    if let Some(program) = program {
        roots.insert(program.pid);
        found.insert(program.pid);
    }
    loop {
        let before = found.len();
        for (pid, fields) in &stats {
            let is_child =
                number(fields, PARENT).is_some_and(|parent| roots.contains(&parent) || found.contains(&parent));
            let in_session = session.is_some() && number(fields, SESSION) == session;
            if is_child || in_session {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            break;
        }
    }
    let is_zombie =
        |pid: u32| stats.iter().any(|(of, fields)| *of == pid && fields.first().is_some_and(|it| it == "Z"));
    let first = program.map(|program| program.pid);
    let mut found: Vec<u32> = found.into_iter().collect();
    // The program before its children: how it ends is to be its own answer to the signal, not to their end.
    found.sort_by_key(|pid| Some(*pid) != first);
    found
        .into_iter()
        .filter(|pid| *pid != me && Some(*pid) != supervisor && !is_zombie(*pid))
        .filter_map(|pid| Pid::from_raw(pid.cast_signed()))
        .collect()
}

/// Signals a process; one that is gone needs none.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    let _ = kill_process(pid, signal);
}
