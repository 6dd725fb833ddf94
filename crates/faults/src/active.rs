//! The points in builds with debug assertions.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Signal, getpid, kill_process};

use crate::POINTS;

struct Fault {
    point: String,
    action: Action,
    /// How many passes are left until it happens.
    left: AtomicU32,
}

#[derive(Clone, Copy)]
enum Action {
    Kill,
    Pause,
    Error,
    Full,
}

static FAULT: LazyLock<Option<Fault>> = LazyLock::new(|| {
    let text = std::env::var("ONCELET_FAULT").ok().filter(|text| !text.is_empty())?;
    Some(parse(&text).unwrap_or_else(|| {
        // A test that asks for what does not exist must not pass.
        eprintln!("ONCELET_FAULT={text}: no such point or action");
        std::process::abort()
    }))
});

fn parse(text: &str) -> Option<Fault> {
    let mut parts = text.split(':');
    let point = parts.next()?.to_owned();
    POINTS.iter().find(|(name, _)| *name == point)?;
    let action = match parts.next()? {
        "kill" => Action::Kill,
        "pause" => Action::Pause,
        "error" => Action::Error,
        "full" => Action::Full,
        _ => return None,
    };
    let left = parts.next().map_or(Some(1), |nth| nth.parse().ok())?;
    Some(Fault { point, action, left: AtomicU32::new(left) })
}

pub(crate) fn gives_up(point: &str) -> bool {
    debug_assert!(POINTS.iter().any(|(name, _)| *name == point), "{point} is not in the list");
    let Some(fault) = &*FAULT else { return false };
    if fault.point != point
        || fault.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) != Ok(1)
    {
        return false;
    }
    note(point);
    match fault.action {
        Action::Kill => signal(Signal::KILL),
        Action::Pause => signal(Signal::STOP),
        Action::Full => fill(),
        Action::Error => return true,
    }
    false
}

fn note(point: &str) {
    let Some(path) = std::env::var_os("ONCELET_FAULT_LOG") else { return };
    let log = OpenOptions::new().create(true).append(true).open(path);
    let _ = log.and_then(|mut log| writeln!(log, "{point}"));
}

fn signal(signal: Signal) {
    let _ = kill_process(getpid(), signal);
}

/// Until nothing more fits, to the last block.
fn fill() {
    let Some(path) = std::env::var_os("ONCELET_FAULT_FILLER") else { return };
    let Ok(mut filler) = OpenOptions::new().create(true).append(true).open(path) else { return };
    for size in [1 << 20, 1 << 12, 1] {
        let piece = vec![0; size];
        while filler.write(&piece).is_ok_and(|written| written > 0) {}
    }
}
