//! The file that clients are pointed at.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::Error;
use crate::files::write_private;
use crate::tls::Identity;

/// Writes a kubeconfig with the context `oncelet`, which has the token, and beside it `oncelet-certificate`, for clients that
/// are to show a certificate instead.
pub(crate) fn write(
    path: &Path,
    url: &str,
    identity: &Identity,
    token: &str,
    extensions: &[(String, Value)],
) -> Result<(), Error> {
    let context =
        |user: &str| json!({"name": user, "context": {"cluster": "oncelet", "user": user, "namespace": "default"}});
    let extensions: Vec<_> =
        extensions.iter().map(|(name, extension)| json!({"name": name, "extension": extension})).collect();
    let client = &identity.client;
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "oncelet", "cluster": {
            "server": url, "certificate-authority-data": STANDARD.encode(&identity.ca_pem), "extensions": extensions}}],
        "users": [
            {"name": "oncelet", "user": {"token": token}},
            {"name": "oncelet-certificate", "user": {
                "client-certificate-data": STANDARD.encode(&client.certificate_pem),
                "client-key-data": STANDARD.encode(&client.key_pem)}},
        ],
        "contexts": [context("oncelet"), context("oncelet-certificate")],
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
