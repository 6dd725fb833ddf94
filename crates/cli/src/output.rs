//! Printing: JSON, YAML, errors.

use std::io::{ErrorKind, Write};

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::args::Output;

/// Prints `value` as JSON or YAML; false where a table is asked for.
pub(crate) fn structured<T: Serialize>(value: &T, output: Output) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match output {
        Output::Table | Output::Wide => return Ok(false),
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(value)?)?,
        Output::Yaml => write!(out, "{}", with_end(serde_saphyr::to_string(value)?))?,
    }
    Ok(true)
}

/// Prints several YAML documents.
pub(crate) fn yaml_documents<T: Serialize>(values: &[T]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for value in values {
        write!(out, "---\n{}", with_end(serde_saphyr::to_string(value)?))?;
    }
    Ok(())
}

fn with_end(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// How long ago, as kubectl writes it.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// An error and its causes on one line.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Some libraries repeat their source in their own text.
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

/// Whether whoever reads our output has gone, as `head` does.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|e| e.kind() == ErrorKind::BrokenPipe)
}
