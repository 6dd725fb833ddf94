//! What no compiler checks: which crate may use what, that lints are inherited, that files stay small.

mod crates;
mod sources;

use std::path::Path;

use anyhow::{Result, bail};

/// A broken rule, in words for the one who broke it.
type Problem = String;

/// Prints what is wrong; fails where anything is.
pub(crate) fn run(root: &Path) -> Result<()> {
    let members = crates::members(root)?;
    let (long, too_long) = sources::sizes(root)?;
    for note in long {
        eprintln!("warning: {note}");
    }
    let problems = [
        crates::broken_rules(&members),
        sources::without_inherited_lints(&members)?,
        too_long,
        sources::indexed(&root.join("crates/apiserver/src"))?,
    ]
    .concat();
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    match problems.len() {
        0 => Ok(()),
        count => bail!("the workspace is not tidy: {count} to mend"),
    }
}
