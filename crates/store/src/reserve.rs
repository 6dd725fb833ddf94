//! Room on the disk that is kept for outcomes.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::dir::{self, StoreDir};

/// How much room is kept.
const SIZE: u64 = 4 * 1024 * 1024;

/// The file that keeps the room. Given up on a full disk, and made again when there is room.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    filled: bool,
}

impl Reserve {
    pub(crate) fn new(dir: &StoreDir) -> Self {
        Self { path: dir.reserve(), filled: false }
    }

    /// Takes the room, where the disk keeps `min_free` bytes for others.
    pub(crate) fn fill(&mut self, min_free: u64) {
        if !self.filled {
            match self.try_fill(min_free) {
                Ok(filled) => self.filled = filled,
                Err(error) => tracing::debug!("no room is reserved in {}: {error}", self.path.display()),
            }
        }
    }

    fn try_fill(&self, min_free: u64) -> io::Result<bool> {
        let file = dir::private().write(true).create(true).truncate(false).open(&self.path)?;
        if file.metadata()?.len() >= SIZE {
            return Ok(true);
        }
        if dir::free_bytes(&self.path)? < min_free.saturating_add(SIZE) {
            return Ok(false);
        }
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SIZE)?;
        Ok(true)
    }

    /// Gives the room up. False where there was none.
    pub(crate) fn spend(&mut self) -> bool {
        let had = fs::metadata(&self.path).is_ok_and(|file| file.len() > 0) && fs::remove_file(&self.path).is_ok();
        self.filled = false;
        if had {
            tracing::warn!("the disk is full: the room in {} is used for outcomes", self.path.display());
        }
        had
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_spent_once_and_filled_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(&StoreDir::new(dir.path()).unwrap());
        reserve.fill(u64::MAX);
        assert!(!reserve.spend(), "there was no room to reserve");
        reserve.fill(0);
        assert_eq!(fs::metadata(&reserve.path).unwrap().len(), SIZE);
        assert!(reserve.spend());
        assert!(!reserve.spend());
        reserve.fill(0);
        assert!(reserve.spend());
    }
}
