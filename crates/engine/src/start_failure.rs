//! What the engines write when a program cannot be started.

use crate::{ExecId, FailureReason};

/// Names the reason of a failure by the engine's message. Only for texts that are known to come from the engine.
pub(crate) fn reason(message: &str) -> FailureReason {
    let has = |text: &str| message.contains(text);
    if is_bad_user(message) {
        FailureReason::BadUser
    } else if has("chdir to cwd") || has("Cwd must be an absolute path") || has("working directory") {
        FailureReason::BadWorkingDirectory
    } else if has("permission denied") || has("Permission denied") || has("exec format error") || has("is a directory")
    {
        FailureReason::NotExecutable
    } else if has("executable file not found") || has("no such file or directory") || has("No such file or directory") {
        FailureReason::CommandNotFound
    } else {
        FailureReason::Other
    }
}

pub(crate) fn is_bad_user(message: &str) -> bool {
    ["unable to find user", "unable to find group", "no matching entries in"].iter().any(|text| message.contains(text))
}

/// Docker's answer to a second start. No program can print it: none knows its own exec ID.
pub(crate) fn is_second_start(text: &str, exec: &ExecId) -> bool {
    text.contains(exec.as_str()) && (text.contains("already running") || text.contains("already run"))
}

/// Podman's report of a failure to start, out of all that came on stderr: the runtime's message, and then (usually)
/// a line on how that broke Podman's own connection to it.
pub(crate) fn podman_report(stderr: &str) -> Option<String> {
    let mut lines = stderr.lines();
    let message = lines.next()?.strip_prefix("Error: ")?;
    let from_runtime = [
        ": OCI runtime attempted to invoke a command that was not found",
        ": OCI permission denied",
        ": OCI runtime error",
    ]
    .iter()
    .any(|ending| message.ends_with(ending));
    let rest_is_podmans = lines.all(|line| line.starts_with("Error: read unixpacket "));
    (from_runtime && rest_is_podmans).then(|| message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_from_the_engines_messages() {
        let runc = "OCI runtime exec failed: exec failed: unable to start container process: ";
        for (message, expected) in [
            (
                format!("{runc}exec: \"/bin/nope\": stat /bin/nope: no such file or directory: unknown"),
                FailureReason::CommandNotFound,
            ),
            (
                format!("{runc}exec: \"nope\": executable file not found in $PATH: unknown"),
                FailureReason::CommandNotFound,
            ),
            (format!("{runc}exec: \"/tmp\": permission denied: unknown"), FailureReason::NotExecutable),
            (
                format!(
                    "{runc}chdir to cwd (\"/nowhere\") set in config.json failed: no such file or directory: unknown"
                ),
                FailureReason::BadWorkingDirectory,
            ),
            ("unable to find user nobodyx: no matching entries in passwd file".to_owned(), FailureReason::BadUser),
            ("something else".to_owned(), FailureReason::Other),
        ] {
            assert_eq!(reason(&message), expected, "{message}");
        }
    }

    #[test]
    fn podmans_report_is_taken_without_its_wrapping() {
        let report = "Error: runc: exec failed: x: OCI permission denied\n\
                      Error: read unixpacket @->/proc/self/fd/14/attach: read: connection reset by peer\n";
        assert_eq!(podman_report(report).unwrap(), "runc: exec failed: x: OCI permission denied");
    }

    #[test]
    fn a_programs_own_complaint_is_no_report() {
        for text in ["", "Error: runc: x\n", "sh: nope: not found\n", "Error: x: OCI runtime error\nand more\n"] {
            assert_eq!(podman_report(text), None, "{text}");
        }
    }
}
