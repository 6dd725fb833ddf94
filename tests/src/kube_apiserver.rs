//! A real kube-apiserver with its etcd.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::kubectl;
use crate::process::{PATIENCE, Process, output};

/// A kube-apiserver with our CRDs; ends when dropped.
pub struct KubeApiserver {
    kubeconfig: PathBuf,
    // In this order: the server ends before its database, and both before their files go.
    server: Option<Process>,
    etcd: Process,
    _dir: TempDir,
}

impl KubeApiserver {
    /// Starts one from the binaries in `KUBEBUILDER_ASSETS`; else says why that cannot be.
    pub fn start() -> Result<Self, String> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).ok_or(
            "KUBEBUILDER_ASSETS does not say where kube-apiserver and etcd are (hack/kube-apiserver.sh builds them)",
        )?;
        for binary in ["etcd", "kube-apiserver"] {
            let path = assets.join(binary);
            if !path.is_file() {
                return Err(format!("{} is not there", path.display()));
            }
        }
        let dir = tempfile::Builder::new().prefix("oncelet-kube-apiserver-").tempdir().unwrap();
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let mut etcd = Command::new(assets.join("etcd"));
        etcd.arg("--data-dir").arg(dir.path().join("etcd")).args([
            &format!("--listen-client-urls={etcd_url}"),
            &format!("--advertise-client-urls={etcd_url}"),
            &format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
            "--unsafe-no-fsync",
            "--log-level=error",
        ]);
        let etcd = Process::spawn("etcd", etcd, &dir.path().join("etcd.log"));

        let (private_key, public_key) =
            (dir.path().join("service-account.key"), dir.path().join("service-account.pub"));
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&private_key, key.serialize_pem()).unwrap();
        std::fs::write(&public_key, key.public_key_pem()).unwrap();
        let tokens = dir.path().join("tokens.csv");
        std::fs::write(&tokens, "test-token,test-admin,1,system:masters\n").unwrap();
        let log = dir.path().join("kube-apiserver.log");
        let mut server = Command::new(assets.join("kube-apiserver"));
        server.args([
            &format!("--etcd-servers={etcd_url}"),
            &format!("--secure-port={port}"),
            "--bind-address=127.0.0.1",
            &format!("--cert-dir={}", dir.path().join("certs").display()),
            &format!("--token-auth-file={}", tokens.display()),
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--service-account-key-file={}", public_key.display()),
            &format!("--service-account-signing-key-file={}", private_key.display()),
            "--service-cluster-ip-range=10.0.0.0/24",
        ]);
        let server = Process::spawn("kube-apiserver", server, &log);

        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_for(port)).unwrap();
        let mut this = Self { kubeconfig, server: Some(server), etcd, _dir: dir };
        this.wait_until_ready(&log)?;
        this.install_crds()?;
        Ok(this)
    }

    /// For its administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The process IDs of the server and its database.
    pub fn pids(&self) -> Vec<i32> {
        self.server.iter().chain([&self.etcd]).map(Process::pid).collect()
    }

    fn wait_until_ready(&mut self, log: &Path) -> Result<(), String> {
        let start = Instant::now();
        while output(kubectl(&self.kubeconfig).args(["get", "--raw", "/readyz"])).is_err() {
            let ended = self.server.as_mut().and_then(Process::has_ended);
            if ended.is_some() || start.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let end = log.lines().rev().take(20).collect::<Vec<_>>().join("\n");
                return Err(format!("kube-apiserver did not become ready:\n{end}"));
            }
        }
        Ok(())
    }

    /// The files of `crds/`, as a user installs them. A warning is a defect of ours.
    fn install_crds(&self) -> Result<(), String> {
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
        let mut apply = kubectl(&self.kubeconfig);
        let applied = apply.args(["apply", "-f"]).arg(crds).output().map_err(|error| error.to_string())?;
        let stderr = String::from_utf8_lossy(&applied.stderr);
        assert!(applied.status.success() && stderr.is_empty(), "the CRDs are not taken cleanly: {stderr}");
        let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
        output(kubectl(&self.kubeconfig).args(established)).map(drop)
    }
}

impl Drop for KubeApiserver {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.end(Signal::KILL);
        }
    }
}

fn kubeconfig_for(port: u16) -> String {
    // The server makes itself a certificate for this one run, in a directory of this test.
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: test, user: {{token: test-token}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n"
    )
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
