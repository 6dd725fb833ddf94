//! Differences that stay.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use regex::Regex;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Why it stays.
    because: String,
    /// Where: regular expressions over `scenario | step | path`.
    at: Vec<String>,
}

struct Pattern {
    regex: Regex,
    used: AtomicBool,
}

pub(crate) struct Allowed(Vec<Pattern>);

impl Allowed {
    pub(crate) fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("differential/differences.yaml");
        let entries: Vec<Entry> = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert!(entries.iter().all(|entry| !entry.because.is_empty()), "a difference needs a reason");
        let patterns = entries.into_iter().flat_map(|entry| entry.at);
        Self(patterns.map(|at| Pattern { regex: Regex::new(&at).unwrap(), used: AtomicBool::new(false) }).collect())
    }

    pub(crate) fn covers(&self, place: &str) -> bool {
        let found = self.0.iter().filter(|pattern| pattern.regex.is_match(place));
        found.map(|pattern| pattern.used.store(true, Ordering::Relaxed)).count() > 0
    }

    /// Patterns that nothing matched.
    pub(crate) fn stale(&self) -> Vec<String> {
        let unused = self.0.iter().filter(|pattern| !pattern.used.load(Ordering::Relaxed));
        unused.map(|pattern| pattern.regex.to_string()).collect()
    }
}
