//! The one place that reads the clock.

use jiff::Timestamp;

/// The time now, in whole microseconds: more does not go into a status, and what is shown must be what is stored.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
