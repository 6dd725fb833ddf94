//! The store against real files, several daemons, processes that are killed, and disks that fail.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod backup;
mod children;
mod claims;
mod crash_images;
mod crashes;
mod fail_closed;
mod hazards;
mod identity;
mod logs;
mod migration;
mod model;
mod people;
mod reading;
mod retention;
mod support;
