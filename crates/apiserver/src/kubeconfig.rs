//! The file that clients are pointed at.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::Error;
use crate::files::write_private;

/// Writes a kubeconfig with one context, `oncelet`.
pub(crate) fn write(path: &Path, url: &str, ca_pem: &str, token: &str) -> Result<(), Error> {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "oncelet", "cluster": {
            "server": url, "certificate-authority-data": STANDARD.encode(ca_pem)}}],
        "users": [{"name": "oncelet", "user": {"token": token}}],
        "contexts": [{"name": "oncelet", "context": {"cluster": "oncelet", "user": "oncelet", "namespace": "default"}}],
        "current-context": "oncelet",
    });
    let fail = |source| Error::Kubeconfig { path: path.to_owned(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    // JSON is YAML, and no client minds.
    let text = format!("{kubeconfig:#}\n");
    write_private(path, text.as_bytes()).map_err(fail)
}
