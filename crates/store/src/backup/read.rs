//! Taking a backup apart. It may come from anywhere, and be made by anybody.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use sha2::{Digest, Sha256};

use super::{BackupError, DATABASE, FORGOTTEN, FORMAT, HEADER, Header, LogFile, SHA256, Unpacked};
use crate::connect::SCHEMA;
use crate::dir::{self, StoreDir};
use crate::open::MIN_FREE;

/// The largest part that is kept in memory: a list of runs.
const LARGEST_TEXT: u64 = 16 * 1024 * 1024;
/// What the smallest file takes on a disk.
const BLOCK: u64 = 4096;
/// The largest window of a zstd frame, as a power of two: 128 MiB, as the zstd tool allows.
const WINDOW: u32 = 27;
/// The size of a header in a tar.
const TAR_HEADER: usize = 512;

/// Unpacks `file` into the directory of `to`, which is empty but for its directories.
///
/// # Guarantees
/// Nothing is made but regular files with the names that a store gives them, each once, and no more than fits beside the room for
/// outcomes on the disk.
pub(super) fn unpack(file: &Path, to: &StoreDir) -> Result<Unpacked, BackupError> {
    // Without waiting for whoever writes to it, should it be a FIFO.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let open = OpenOptions::new().read(true).custom_flags(nonblocking).open(file).map_err(BackupError::file(file))?;
    if !open.metadata().map_err(BackupError::file(file))?.is_file() {
        return Err(not_a_backup(file, "it is no regular file"));
    }
    let no_zstd = |_| not_a_backup(file, "it is not compressed with zstd");
    let mut decoder = zstd::Decoder::with_buffer(BufReader::new(open)).map_err(no_zstd)?;
    decoder.window_log_max(WINDOW).map_err(no_zstd)?;
    let sum = Rc::new(RefCell::new(Sum::default()));
    let mut tar = tar::Archive::new(Summed { inner: decoder, sum: sum.clone() });
    // Raw: no name and no size of an entry comes from another one.
    let mut entries = tar.entries().map_err(|error| damaged(file, error))?.raw(true);
    let mut next = || entries.next().transpose();

    let mut first = next().ok().flatten().ok_or_else(|| not_a_backup(file, "it does not begin as one"))?;
    if name_of(file, &first)? != HEADER {
        return Err(not_a_backup(file, "it does not begin as one"));
    }
    let header = read_header(file, &text(file, &mut first)?)?;
    let free = dir::free_bytes(to.path()).map_err(BackupError::file(to.path()))?;
    let mut room = Room { left: free.saturating_sub(MIN_FREE), free, dir: to.path() };
    let mut unpacked = Unpacked { header, database: to.database(), logs: BTreeSet::new(), forgotten: BTreeSet::new() };
    let mut expected = [DATABASE, FORGOTTEN, SHA256].into_iter().peekable();
    loop {
        let Some(mut entry) = next().map_err(|error| damaged(file, error))? else { break };
        let before = sum.borrow().before_header();
        let name = name_of(file, &entry)?;
        if let Some(log) = LogFile::parse(&name) {
            if expected.peek() != Some(&FORGOTTEN) || !unpacked.logs.insert(log) {
                return Err(not_a_backup(file, format!("{name} is where it should not be")));
            }
            room.copy(file, &mut entry, &to.logs().join(log.name()))?;
            continue;
        }
        if expected.next() != Some(name.as_str()) {
            return Err(not_a_backup(file, format!("{name:?} is in it")));
        }
        match name.as_str() {
            DATABASE => room.copy(file, &mut entry, &unpacked.database)?,
            FORGOTTEN => {
                let forgotten = serde_json::from_slice(&text(file, &mut entry)?);
                unpacked.forgotten = forgotten.map_err(|error| damaged(file, error))?;
            }
            _ => {
                if text(file, &mut entry)?.trim_ascii_end() != before.as_bytes() {
                    return Err(damaged(file, "its SHA-256 is not that with which it was written"));
                }
            }
        }
    }
    match expected.next() {
        None => Ok(unpacked),
        Some(missing) => Err(damaged(file, format!("it ends before {missing}"))),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "words and errors alike")]
fn not_a_backup(file: &Path, why: impl ToString) -> BackupError {
    BackupError::NotABackup { file: file.to_owned(), why: why.to_string() }
}

#[expect(clippy::needless_pass_by_value, reason = "words and errors alike")]
fn damaged(file: &Path, why: impl ToString) -> BackupError {
    BackupError::Damaged { file: file.to_owned(), why: why.to_string() }
}

/// The name of an entry. Only regular files have one.
fn name_of<R: Read>(file: &Path, entry: &tar::Entry<R>) -> Result<String, BackupError> {
    let name = String::from_utf8_lossy(&entry.header().path_bytes()).into_owned();
    if entry.header().entry_type() != tar::EntryType::Regular {
        return Err(not_a_backup(file, format!("{name:?} in it is no regular file")));
    }
    Ok(name)
}

/// A small entry.
fn text<R: Read>(file: &Path, entry: &mut tar::Entry<R>) -> Result<Vec<u8>, BackupError> {
    if entry.size() > LARGEST_TEXT {
        return Err(not_a_backup(file, "one of its lists is too long"));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(|error| damaged(file, error))?;
    Ok(text)
}

fn read_header(file: &Path, text: &[u8]) -> Result<Header, BackupError> {
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| not_a_backup(file, error))?;
    let release: String = value["oncelet"].as_str().unwrap_or("an unknown release").chars().take(40).collect();
    let newer = |what: &'static str, known: i64| {
        let found = value[what].as_i64().unwrap_or_default();
        let newer = || BackupError::Newer { file: file.to_owned(), release: release.clone(), what, found, known };
        if found > known { Err(newer()) } else { Ok(()) }
    };
    newer("format", FORMAT.into())?;
    newer("schema", SCHEMA)?;
    serde_json::from_value(value.clone()).map_err(|error| not_a_backup(file, error))
}

/// How much may still be written.
struct Room<'a> {
    left: u64,
    free: u64,
    dir: &'a Path,
}

impl Room<'_> {
    fn copy<R: Read>(&mut self, archive: &Path, entry: &mut tar::Entry<R>, to: &Path) -> Result<(), BackupError> {
        let size = entry.size();
        if size == 0 {
            return Err(not_a_backup(archive, "a file in it is empty"));
        }
        let needed = size.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX);
        let Some(left) = self.left.checked_sub(needed) else {
            let mib = |bytes: u64| bytes / (1024 * 1024);
            let needed_mib = mib((self.free - self.left).saturating_add(needed));
            return Err(BackupError::NoRoom { dir: self.dir.to_owned(), needed_mib, free_mib: mib(self.free) });
        };
        self.left = left;
        let mut file = dir::private().write(true).create_new(true).open(to).map_err(BackupError::file(to))?;
        let mut buffer = vec![0; 64 * 1024];
        let mut copied = 0;
        loop {
            let read = entry.read(&mut buffer).map_err(|error| damaged(archive, error))?;
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read]).map_err(BackupError::file(to))?;
            copied += read as u64;
        }
        if copied == size { Ok(()) } else { Err(damaged(archive, "it ends in the middle of a file")) }
    }
}

/// The hash of what was read, but for the last header.
#[derive(Default)]
struct Sum {
    hash: Sha256,
    last: Vec<u8>,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.last.extend_from_slice(bytes);
        let whole = self.last.len().saturating_sub(TAR_HEADER);
        self.hash.update(&self.last[..whole]);
        self.last.drain(..whole);
    }

    /// Where a header was just read: the hash of all before it, in hex.
    fn before_header(&self) -> String {
        format!("{:x}", self.hash.clone().finalize())
    }
}

struct Summed<R> {
    inner: R,
    sum: Rc<RefCell<Sum>>,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.sum.borrow_mut().add(&buffer[..read]);
        Ok(read)
    }
}
