//! Starts the user's browser.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use tokio::process::Command;

/// What opens a file with the program that the user has chosen for it.
const USUAL: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
/// How long a browser may take to say that it cannot start. Many run on until their window is closed.
const PATIENCE: Duration = Duration::from_secs(3);
/// What stays as it is in the path of a URL.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Opens a file of this machine in the browser: the first of `BROWSER` that starts, a list of commands with colons between, in
/// which `%s` stands for the URL; else the usual one.
pub(super) async fn open(file: &Path) -> Result<()> {
    let url = format!("file://{}", percent_encode(file.as_os_str().as_bytes(), PATH));
    let chosen = std::env::var("BROWSER").unwrap_or_default();
    let mut last = None;
    for command in commands(&chosen, &url) {
        match start(&command).await {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    last.map_or(Ok(()), Err)
}

/// The commands to try, each a program with its arguments.
fn commands(chosen: &str, url: &str) -> Vec<Vec<String>> {
    let with_url = |command: &str| {
        let mut words: Vec<String> = command.split_whitespace().map(|word| word.replace("%s", url)).collect();
        if !command.contains("%s") {
            words.push(url.to_owned());
        }
        words
    };
    chosen.split(':').filter(|command| !command.trim().is_empty()).chain([USUAL]).map(with_url).collect()
}

async fn start(command: &[String]) -> Result<()> {
    let Some((program, arguments)) = command.split_first() else { bail!("there is no command") };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("{program} does not start"))?;
    // One that still runs shows the page.
    let Ok(status) = tokio::time::timeout(PATIENCE, child.wait()).await else { return Ok(()) };
    if !status?.success() {
        bail!("{program} failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_browser_is_the_one_of_the_environment_and_else_the_usual_one() {
        let words = |chosen: &str| commands(chosen, "U").into_iter().map(|words| words.join(" ")).collect::<Vec<_>>();
        let usual = format!("{USUAL} U");
        assert_eq!(words("").join("|"), usual);
        assert_eq!(
            words("w3m:firefox --new-tab=%s -x"),
            ["w3m U".to_owned(), "firefox --new-tab=U -x".to_owned(), usual]
        );
    }
}
