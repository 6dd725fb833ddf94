//! The limits that this process is under.

use rustix::process::{Resource, getrlimit};

/// How large a file may become. Whoever writes beyond it is killed by SIGXFSZ, and ignoring that would be inherited.
pub(crate) fn largest_file() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// How many bytes this user may still write to the file system of `path`; `None` where it does not say.
pub(crate) fn free_space(path: &str) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    // A file system that does not count its blocks says that it has none.
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}
