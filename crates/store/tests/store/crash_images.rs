//! What a power failure may leave of the store: images made from the trace of its writes.
//!
//! strace records every write, sync and truncation of a store that does real work, and what it acknowledged. For a failure
//! after each of these steps images are made: whatever was synced is there; of what was written since, any part may be, in
//! any order, down to single sectors. SQLite opens each, and everything that was acknowledged must be in it.
//!
//! Files that come and go (`ext4` keeps their order) are there as soon as they were made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use crate::children::Process;
use crate::support::{open, skipped};

/// How many images are made.
const IMAGES: usize = 20_000;
/// What a disk writes whole.
const SECTOR: usize = 512;

/// One step of the trace.
#[derive(Debug)]
enum Step {
    Write { file: String, offset: u64, data: Vec<u8> },
    Truncate { file: String, length: u64 },
    Synced { file: String },
    Removed { file: String },
    Acknowledged(String),
}

/// Reads what strace wrote. A write counts from its beginning on, a sync from its end on.
fn parse(trace: &str, dir: &Path) -> Vec<Step> {
    let dir = dir.to_str().unwrap();
    let mut syncing: BTreeMap<&str, String> = BTreeMap::new();
    let mut steps = Vec::new();
    for line in trace.lines() {
        let (pid, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if call.starts_with("<... fsync resumed") || call.starts_with("<... fdatasync resumed") {
            steps.extend(syncing.remove(pid).map(|file| Step::Synced { file }));
            continue;
        }
        let Some((name, arguments)) = call.split_once('(') else { continue };
        let path = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path);
        let path = path.and_then(|path| String::from_utf8(from_hex(path)).ok());
        let file =
            path.as_deref().and_then(|path| path.strip_prefix(dir)).map(|file| file.trim_start_matches('/').to_owned());
        match (name, file) {
            ("write", None) if arguments.starts_with("1<") => {
                let said = String::from_utf8(bytes(arguments)).unwrap_or_default();
                let said = said.lines().filter_map(|line| line.strip_prefix("#> "));
                steps.extend(said.map(|said| Step::Acknowledged(said.to_owned())));
            }
            ("pwrite64", Some(file)) => {
                let offset = number(arguments, 3);
                steps.push(Step::Write { file, offset, data: bytes(arguments) });
            }
            ("ftruncate", Some(file)) => steps.push(Step::Truncate { file, length: number(arguments, 1) }),
            ("fsync" | "fdatasync", Some(file)) if call.contains("unfinished") => {
                syncing.insert(pid, file);
            }
            ("fsync" | "fdatasync", Some(file)) => steps.push(Step::Synced { file }),
            ("unlink", _) => {
                let path = String::from_utf8(bytes(arguments)).unwrap();
                if let Some(file) = path.strip_prefix(dir) {
                    steps.push(Step::Removed { file: file.trim_start_matches('/').to_owned() });
                }
            }
            _ => {}
        }
    }
    steps
}

/// The text between the quotes, which is all in hex.
fn bytes(arguments: &str) -> Vec<u8> {
    let Some((_, rest)) = arguments.split_once('"') else { return Vec::new() };
    let (text, rest) = rest.split_once('"').unwrap();
    assert!(!rest.starts_with("..."), "strace has cut off what was written");
    from_hex(text)
}

/// Text such as `\x2f\x74`.
fn from_hex(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|hex| u8::from_str_radix(hex, 16).unwrap()).collect()
}

/// The argument at `index`, counted from the end of the path or text before it.
fn number(arguments: &str, index: usize) -> u64 {
    let after = arguments.rsplit_once('"').map_or(arguments, |(_, after)| after);
    let index = if after.len() == arguments.len() { index } else { index - 1 };
    let text = after.split(", ").nth(index).unwrap();
    text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// A file, as far as it is surely on the disk, and what was done to it since.
#[derive(Clone, Default)]
struct File {
    synced: Vec<u8>,
    since: Vec<(u64, Change)>,
}

#[derive(Clone)]
enum Change {
    Write(Vec<u8>),
    Truncate,
}

fn apply(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let offset = usize::try_from(offset).unwrap();
    if content.len() < offset + data.len() {
        content.resize(offset + data.len(), 0);
    }
    content[offset..offset + data.len()].copy_from_slice(data);
}

impl File {
    /// What a failure leaves: `keeps` says of each sector written since the last sync whether it got to the disk.
    fn after_failure(&self, mut keeps: impl FnMut() -> bool) -> Vec<u8> {
        let mut content = self.synced.clone();
        for (offset, change) in &self.since {
            match change {
                Change::Truncate if keeps() => content.resize(usize::try_from(*offset).unwrap(), 0),
                Change::Truncate => {}
                Change::Write(data) => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if keeps() {
                            apply(&mut content, offset + (index * SECTOR) as u64, sector);
                        }
                    }
                }
            }
        }
        content
    }

    fn sync(&mut self) {
        self.synced = self.after_failure(|| true);
        self.since.clear();
    }
}

/// The disk and what was acknowledged, as the trace goes on.
#[derive(Default)]
struct Disk {
    files: BTreeMap<String, File>,
    acknowledged: Vec<String>,
    /// A disk that takes a sync of the database's log for done and does nothing: as `synchronous=NORMAL` has it.
    ignores_syncs_of_the_log: bool,
}

impl Disk {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Write { file, offset, data } => {
                self.files.entry(file.clone()).or_default().since.push((*offset, Change::Write(data.clone())));
            }
            Step::Truncate { file, length } => {
                self.files.entry(file.clone()).or_default().since.push((*length, Change::Truncate));
            }
            Step::Synced { file } if self.ignores_syncs_of_the_log && file.ends_with("-wal") => {}
            Step::Synced { file } => self.files.entry(file.clone()).or_default().sync(),
            Step::Removed { file } => {
                self.files.remove(file);
            }
            Step::Acknowledged(what) => self.acknowledged.push(what.clone()),
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A run: its number, name, state, exit code, and how many bytes of its output are kept.
type Row = (i64, String, String, Option<i64>, Option<i64>);

/// What is wrong with an image, if anything is.
async fn examine(image: &Path, disk: &Disk, logs: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let options = SqliteConnectOptions::new().filename(image.join("runs.db")).disable_statement_logging();
    let mut conn = options.connect().await.map_err(|error| format!("it does not open: {error}"))?;
    let rows: Result<Vec<Row>, _> = sqlx::query_as(
        "SELECT run.id, run.name, run.state, run.exit_code, log.kept \
         FROM run LEFT JOIN log ON log.run_id = run.id AND log.stream = 'stdout'",
    )
    .fetch_all(&mut conn)
    .await;
    let rows = rows.map_err(|error| format!("it cannot be read: {error}"))?;
    let _ = conn.close().await;
    for said in &disk.acknowledged {
        let Some((what, name)) = said.split_once(' ') else { continue };
        let row = rows.iter().find(|(_, run, ..)| run.strip_prefix("team/") == Some(name));
        let Some((_, _, state, exit_code, _)) = row else { return Err(format!("{said}, and it is not there")) };
        let wanted: i64 = name.rsplit('-').next().unwrap().parse().unwrap();
        if what == "ended" && (state != "Finished" || *exit_code != Some(wanted)) {
            return Err(format!("{said}, and it is {state} with {exit_code:?}"));
        }
    }
    // An outcome never comes before the output that it tells of.
    for (id, name, state, _, kept) in &rows {
        if state == "Finished" {
            let log = logs
                .iter()
                .find(|(file, _)| file.starts_with(&format!("logs/{id}-")) || file.starts_with(&format!("logs/{id}.")));
            let length = log.map_or(0, |(_, log)| zstd::decode_all(log.as_slice()).map_or(0, |text| text.len()));
            if i64::try_from(length).unwrap() != kept.unwrap_or_default() {
                return Err(format!("{name} is finished, and its log has {length} bytes of {kept:?}"));
            }
        }
    }
    Ok(())
}

/// Makes `count` images out of the trace and examines each; the first that is wrong ends it.
async fn examine_images(base: &Path, steps: &[Step], count: usize, ignores_syncs: bool) -> Result<usize, String> {
    let scratch = tempfile::Builder::new().prefix("oncelet-image-").tempdir_in(fast_disk()).unwrap();
    let mut disk = Disk { ignores_syncs_of_the_log: ignores_syncs, ..Disk::default() };
    for name in ["runs.db", "runs.db-wal"] {
        if let Ok(content) = std::fs::read(base.join(name)) {
            disk.files.insert(name.to_owned(), File { synced: content, since: Vec::new() });
        }
    }
    let mut random = Random(0x0dd_ba11);
    let mut made = 0;
    for (number, step) in steps.iter().enumerate() {
        disk.take(step);
        // So many images at each step that they come out even.
        let due = count * (number + 1) / steps.len();
        while made < due {
            // All, nothing, and anything between; the log of the database and the database each for itself.
            let mut chances = || match random.below(4) {
                0 => 0,
                1 => 100,
                _ => random.below(101),
            };
            let chances = [chances(), chances(), chances()];
            let mut logs = BTreeMap::new();
            for name in ["runs.db", "runs.db-wal", "runs.db-shm"] {
                let _ = std::fs::remove_file(scratch.path().join(name));
            }
            for (name, file) in &disk.files {
                let chance = match name.as_str() {
                    "runs.db" => chances[0],
                    "runs.db-wal" => chances[1],
                    _ => chances[2],
                };
                let content = file.after_failure(|| random.below(100) < chance);
                if name.starts_with("logs/") {
                    logs.insert(name.clone(), content);
                } else if name.starts_with("runs.db") && !name.ends_with("-shm") {
                    std::fs::write(scratch.path().join(name), content).unwrap();
                }
            }
            made += 1;
            examine(scratch.path(), &disk, &logs)
                .await
                .map_err(|wrong| format!("image {made}, after step {number} ({step:.80?}): {wrong}"))?;
        }
    }
    Ok(made)
}

/// Where files need not go to a disk.
fn fast_disk() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// A trace, and the store as it was before; `None` where it cannot be had here.
async fn traced() -> Option<(tempfile::TempDir, Vec<Step>)> {
    if Command::new("strace").arg("--version").output().is_err() {
        skipped("no crash image is made: strace is not installed");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    open(&store).await.close().await;
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    std::fs::copy(store.join("runs.db"), base.join("runs.db")).unwrap();
    let trace = dir.path().join("trace");
    let said = Process::start_traced("works_for_a_while", &store, &trace).finish();
    if said.is_empty() {
        skipped("no crash image is made: strace may not trace here");
        return None;
    }
    let steps = parse(&std::fs::read_to_string(trace).unwrap(), &store);
    assert_eq!(steps.iter().filter(|step| matches!(step, Step::Acknowledged(_))).count(), said.len());
    let synced = steps.iter().filter(|step| matches!(step, Step::Synced { .. })).count();
    assert!(said.len() == 60 && synced > 120, "{} acknowledged, {synced} synced of {} steps", said.len(), steps.len());
    Some((dir, steps))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_power_failure_loses_what_was_acknowledged() {
    let Some((dir, steps)) = traced().await else { return };
    let base = dir.path().join("base");
    let made = examine_images(&base, &steps, IMAGES, false).await.unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{made} crash images of {} steps, each with all that was acknowledged", steps.len());
    assert_eq!(made, IMAGES);
    // The images can tell: on a disk that does not sync the log, something is lost.
    let wrong = examine_images(&base, &steps, IMAGES, true).await;
    let wrong = wrong.expect_err("without syncs nothing was lost: the images prove nothing");
    println!("without syncs: {wrong}");
}
