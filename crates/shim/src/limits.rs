//! The limits that this process is under.

use std::os::fd::OwnedFd;

use rustix::process::{Resource, getrlimit, setrlimit};

/// How large a file may become. Whoever writes beyond it is killed by SIGXFSZ, and ignoring that would be inherited.
pub(crate) fn largest_file() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// Whether a file may become so large.
pub(crate) fn check_size(size: usize) -> std::io::Result<()> {
    match largest_file() {
        Some(largest) if largest < size as u64 => Err(std::io::ErrorKind::FileTooLarge.into()),
        _ => Ok(()),
    }
}

/// How many bytes this user may still write to the file system of `path`; `None` where it does not say.
pub(crate) fn free_space(path: &str) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    // A file system that does not count its blocks says that it has none.
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Memory that is there: its pages were written to, so that they cannot be missing later.
pub(crate) fn touched(size: usize) -> Vec<u8> {
    // Not zeros: those would be had from the kernel when they are first used.
    vec![b'.'; size]
}

/// Memory for what is small, kept by the allocator.
pub(crate) fn warm_heap() {
    // Below the size from which on an allocation is a mapping of its own, which is given back at once.
    std::hint::black_box(touched(96 * 1024));
}

/// Descriptors that are kept free until this is dropped: fails where the limit does not allow for them.
pub(crate) fn reserve_descriptors(count: usize) -> std::io::Result<Vec<OwnedFd>> {
    let spare = || rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3);
    (0..count).map(|_| spare().map_err(Into::into)).collect()
}

/// Allows this process, and none that it has started, as many descriptors as it may have.
pub(crate) fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
