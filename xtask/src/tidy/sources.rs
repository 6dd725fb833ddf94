//! Manifests that inherit the lints, and files that stay readable.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Problem;
use super::crates::Member;

/// A file above this usually hides a second idea.
const LONG: usize = 500;
/// A file above this certainly does.
const TOO_LONG: usize = 800;

/// The members whose manifest does not say `[lints] workspace = true`.
pub(super) fn without_inherited_lints(members: &[Member]) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for Member { name, manifest, .. } in members {
        let text = std::fs::read_to_string(manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
        if !inherits_lints(&text) {
            problems.push(format!(
                "{name} does not inherit the lints: its manifest needs `[lints]` with `workspace = true`"
            ));
        }
    }
    Ok(problems)
}

fn inherits_lints(manifest: &str) -> bool {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .any(|line| line.replace(' ', "") == "workspace=true")
}

/// The Rust files under `root` that are long, and those that are too long.
pub(super) fn sizes(root: &Path) -> Result<(Vec<Problem>, Vec<Problem>)> {
    let (mut long, mut too_long) = (Vec::new(), Vec::new());
    for path in rust_files(root)? {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let (lines, shown) = (text.lines().count(), path.strip_prefix(root).unwrap_or(&path).display());
        if lines > TOO_LONG {
            too_long.push(format!("{shown} has {lines} lines, over {TOO_LONG}: split it"));
        } else if lines > LONG {
            long.push(format!("{shown} has {lines} lines, over {LONG}: is there a second idea in it?"));
        }
    }
    Ok((long, too_long))
}

/// The lines that index something, in the sources under `dir`. What clients send is read there: an index panics where it is written
/// to what is no object, which no lint of clippy sees through a reference. Tests may.
pub(super) fn indexed(dir: &Path) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for path in rust_files_in(vec![dir.to_owned()])? {
        if path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let code = text.split("#[cfg(test)]\n").next().unwrap_or_default();
        problems.extend(indices(code).into_iter().map(|(number, line)| {
            let shown = path.display();
            format!(
                "{shown}:{number} indexes, which may panic: read with `get` or `At::at`, write with `meta::put`: {line}"
            )
        }));
    }
    Ok(problems)
}

/// The lines in which a bracket follows a value, with their numbers. In formatted code nothing else stands right before one.
fn indices(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_text = false;
    for (number, line) in (1..).zip(code.lines()) {
        let mut before = ' ';
        let mut characters = line.chars().peekable();
        while let Some(c) = characters.next() {
            match c {
                '\\' => drop(characters.next()),
                '"' if in_text || before != '\'' => in_text = !in_text,
                '/' if !in_text && characters.peek() == Some(&'/') => break,
                '[' if !in_text && (before.is_alphanumeric() || "_)]?".contains(before)) => {
                    found.push((number, line.trim()));
                }
                _ => {}
            }
            before = c;
        }
    }
    found
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    rust_files_in(
        ["crates", "tests", "xtask"].map(|dir| root.join(dir)).into_iter().filter(|dir| dir.is_dir()).collect(),
    )
}

fn rust_files_in(mut dirs: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_told_from_all_other_brackets() {
        for index in ["a[0] = 1;", "x.y(\"[\")[\"k\"]", "f()?[..2]", "a[\"b\"][\"c\"]"] {
            assert_eq!(indices(index).first(), Some(&(1, index)));
        }
        for other in [
            "#[test]",
            "vec![1]",
            "&[u8]",
            "format!(\"a[{b}]\")",
            "// a[0]",
            "let [a] = b;",
            "'\"' => a([b])",
            "\"\\\"a[0]\"",
        ] {
            assert_eq!(indices(other), []);
        }
    }

    #[test]
    fn lints_are_inherited_only_by_the_lints_section() {
        assert!(inherits_lints("[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nname = \"a\"\n"));
        assert!(!inherits_lints("[lints]\n[dependencies]\nworkspace = true\n"));
        assert!(!inherits_lints("[lints.rust]\nunsafe_code = \"allow\"\n"));
    }

    #[test]
    fn long_files_are_named_and_too_long_ones_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("crates/some/src");
        std::fs::create_dir_all(&dir).unwrap();
        for (name, lines) in [("fine.rs", 500), ("long.rs", 501), ("too_long.rs", 801), ("text.txt", 9000)] {
            std::fs::write(dir.join(name), "\n".repeat(lines)).unwrap();
        }

        let (long, too_long) = sizes(root.path()).unwrap();

        assert_eq!(long, ["crates/some/src/long.rs has 501 lines, over 500: is there a second idea in it?"]);
        assert_eq!(too_long, ["crates/some/src/too_long.rs has 801 lines, over 800: split it"]);
    }
}
