//! What was done, counted, and the table that is made of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Size;
use crate::docker::docker;

static COUNTS: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

const BEGIN: &str = "<!-- figures: written by make torture -->";
const END: &str = "<!-- end of figures -->";

/// Counts.
pub(crate) fn add(what: &'static str, count: u64) {
    *COUNTS.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += count;
}

/// Writes the table.
pub(crate) fn write(size: Size) {
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut table = String::from("| what | how many |\n|---|---|\n");
    for (what, count) in counts.iter() {
        writeln!(table, "| {what} | {count} |").unwrap();
    }
    let engine = docker(&["version", "--format", "Docker {{.Server.Version}}"]).unwrap_or_default();
    let text = format!("{BEGIN}\n\nThe last long run, against {engine}:\n\n{table}\n{END}");
    eprintln!("{table}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target: PathBuf = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("torture.md");
    std::fs::write(target, &table).unwrap();
    let page = root.join("docs/reliability.md");
    if size == Size::Long
        && let Ok(old) = std::fs::read_to_string(&page)
    {
        let (before, rest) = old.split_once(BEGIN).expect("docs/reliability.md has a place for the figures");
        let (_, after) = rest.split_once(END).expect("the place for the figures has an end");
        std::fs::write(&page, format!("{before}{text}{after}")).unwrap();
    }
}
