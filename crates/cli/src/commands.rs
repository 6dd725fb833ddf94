//! The commands that take a run as if its program was started here, one a file.

pub(crate) mod exec;
pub(crate) mod logs;
pub(crate) mod wait;
