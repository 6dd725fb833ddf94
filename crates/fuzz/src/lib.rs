//! How often the properties of what comes from outside are tried: `ONCELET_FUZZ_CASES` of each, and 12,000 where it is not set: with the other random tests, more than 100,000 in `make test`.
//!
//! ```text
//! proptest! {
//!     #![proptest_config(oncelet_fuzz::cases("fuzz"))]
//!     …
//! }
//! ```
//!
//! An input that fails is kept in the crate's `proptest-regressions`, and is tried first from then on: commit it.

use proptest::test_runner::{Config, FileFailurePersistence};

/// The environment variable with the number of cases.
pub const CASES: &str = "ONCELET_FUZZ_CASES";
const DEFAULT: u32 = 12_000;

/// The configuration of a file of properties; `name` is that of the file in which its failures are kept.
///
/// # Panics
/// As [`count`].
pub fn cases(name: &str) -> Config {
    let cases = count(DEFAULT);
    // A path that lives as long as the tests do; cargo runs them in the crate's directory.
    let path: &'static str = format!("proptest-regressions/{name}.txt").leak();
    Config { cases, failure_persistence: Some(Box::new(FileFailurePersistence::Direct(path))), ..Config::default() }
}

/// How many cases are asked for, or `default` of them.
///
/// # Panics
/// Where the variable holds no number: a typing error must not look like a run.
#[expect(clippy::panic, reason = "it is for tests")]
pub fn count(default: u32) -> u32 {
    match std::env::var(CASES) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{CASES} is a number, not {text:?}")),
        Err(_) => default,
    }
}
