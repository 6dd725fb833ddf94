//! What the program reads from its stdin: taken whole before anything is started.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};

use oncelet_shim::{Place, StdinDigest, hex};
use sha2::{Digest, Sha256};

use crate::{disk, home, limits};

/// How much is read at a time.
const PIECE: usize = 64 * 1024;
/// How many names are tried for the file: others may take theirs just now.
const NAMES: u32 = 16;

/// Why the input is not there.
pub(crate) enum NotTaken {
    /// What came is not what was announced. It may be sent again.
    Incomplete(String),
    /// There is no place for it here.
    NoPlace(String),
}

/// Reads exactly as many bytes from the supervisor's stdin as are announced, and gives back a file of them, at its beginning. The
/// file has no name: it goes away with whoever reads it.
pub(crate) fn take(place: &Place, wanted: &StdinDigest) -> Result<File, NotTaken> {
    let no_place = |error: &dyn std::fmt::Display| {
        let (bytes, dir) = (wanted.bytes, place.home());
        NotTaken::NoPlace(format!("no room for the {bytes} bytes of stdin in the container, at {dir}: {error}"))
    };
    if let Some(limit) = limits::largest_file().filter(|limit| *limit < wanted.bytes) {
        return Err(no_place(&format!("files may have {limit} bytes there (RLIMIT_FSIZE)")));
    }
    if let Some(free) = limits::free_space(&place.home()).filter(|free| *free < wanted.bytes) {
        return Err(no_place(&format!("{free} bytes are free")));
    }
    let (mut file, input) = nameless(place).map_err(|error| no_place(&error))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE];
    let mut left = wanted.bytes;
    while left > 0 {
        // Not a byte more: what follows is for the supervisor itself.
        let most = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let read = match rustix::io::read(rustix::stdio::stdin(), &mut buffer[..most]) {
            Ok(0) => {
                let came = wanted.bytes - left;
                let message = format!("stdin ended after {came} of {} bytes; nothing was started", wanted.bytes);
                return Err(NotTaken::Incomplete(message));
            }
            Ok(read) => read,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(NotTaken::Incomplete(format!("stdin cannot be read: {error}"))),
        };
        hash.update(&buffer[..read]);
        file.write_all(&buffer[..read]).map_err(|error| no_place(&error))?;
        left -= read as u64;
    }
    let found = hex(&hash.finalize());
    if found != wanted.sha256 {
        let message = format!("stdin has the SHA-256 {found} instead of {}; nothing was started", wanted.sha256);
        return Err(NotTaken::Incomplete(message));
    }
    Ok(input)
}

/// A file to write to, and the same file to read from.
fn nameless(place: &Place) -> io::Result<(File, File)> {
    let mut number = 0;
    loop {
        let path = format!("{}.stdin{number}", place.gate());
        home::clear(&path)?;
        match disk::private().write(true).create_new(true).open(&path) {
            Ok(file) => {
                let input = disk::private().read(true).open(&path);
                fs::remove_file(&path)?;
                return Ok((file, input?));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < NAMES => number += 1,
            Err(error) => return Err(error),
        }
    }
}
