//! What the suites share: processes that end with their handles, a real kube-apiserver, kubectl.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is test code")]
#![allow(clippy::missing_panics_doc, reason = "a test that cannot go on panics")]

pub mod kube_apiserver;
pub mod process;
pub mod registry;
pub mod tls;

use std::path::Path;
use std::process::Command;

/// `kubectl` with a kubeconfig; `ONCELET_TEST_KUBECTL` names another one.
pub fn kubectl(kubeconfig: &Path) -> Command {
    let kubectl = std::env::var_os("ONCELET_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into());
    let mut command = Command::new(kubectl);
    command.env("KUBECONFIG", kubeconfig);
    command
}
