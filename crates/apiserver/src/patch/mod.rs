//! The four formats in which a client says what to change.

mod apply;
mod fields;
pub(crate) mod json_patch;
pub(crate) mod last_applied;
pub(crate) mod managers;
pub(crate) mod merge;
pub(crate) mod strategic;
