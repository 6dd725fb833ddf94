//! Engines on other machines, behind TLS or SSH.
//!
//! ```text
//! request ─▶ socket on this machine ─▶ tunnel ─▶ TLS, or ssh … docker system dial-stdio ─▶ engine
//! ```
//!
//! Each connection to the socket becomes one to the engine, so everything else in this crate knows sockets only.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Interest},
    net::{TcpStream, UnixListener, UnixStream},
    process::Command,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsConnector;

/// How long the other side may take for a connection, or to take what is sent.
const STUCK: Duration = Duration::from_mins(2);
/// How long between two looks whether anybody still listens.
const LOOK: Duration = Duration::from_secs(1);
/// Of what an ssh says of its troubles, in bytes.
const LARGEST_COMPLAINT: u64 = 64 * 1024;

/// Where an engine is, and how to get there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Remote {
    /// `host:port`, with certificates.
    Tls(Tls),
    /// A machine with an SSH server and the docker or podman command.
    Ssh(Ssh),
}

#[derive(Clone)]
pub(crate) struct Tls {
    authority: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// What is given to the `ssh` command, whose configuration, keys and agent are the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ssh {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// The engine's socket there; its usual one where none is given.
    socket: Option<String>,
}

impl Tls {
    /// `certificates` holds ca.pem, and cert.pem with key.pem where the engine wants to know who comes.
    pub(crate) fn new(authority: &str, certificates: &Path) -> Result<Self, String> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_| format!("{host:?} is neither a host name nor an address"))?;
        let file = |name: &str| certificates.join(name);
        let wrong = |path: &Path, error: &dyn fmt::Display| format!("{} cannot be used: {error}", path.display());
        let read = |path: PathBuf| -> Result<Vec<CertificateDer<'static>>, String> {
            let found = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            found.map_err(|error| wrong(&path, &error))
        };
        let mut roots = RootCertStore::empty();
        for certificate in read(file("ca.pem"))? {
            roots.add(certificate).map_err(|error| wrong(&file("ca.pem"), &error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let key = file("key.pem");
        let config = if key.exists() {
            let certificates = read(file("cert.pem"))?;
            let secret = PrivateKeyDer::from_pem_file(&key).map_err(|error| wrong(&key, &error))?;
            config.with_client_auth_cert(certificates, secret).map_err(|error| wrong(&key, &error))?
        } else {
            config.with_no_client_auth()
        };
        Ok(Self { authority: authority.to_owned(), name, config: Arc::new(config) })
    }
}

impl Ssh {
    /// `user@host:port/socket`, of which only the host must be there.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (place, socket) = match text.split_once('/') {
            Some((place, socket)) if !socket.is_empty() => (place, Some(format!("/{socket}"))),
            Some((place, _)) => (place, None),
            None => (text, None),
        };
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, place),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => {
                (host, Some(port.parse().map_err(|_| "the port is no number")?))
            }
            _ => (place, None),
        };
        // ssh would take what begins with a dash for an option.
        if host.is_empty()
            || host.starts_with('-')
            || user.as_ref().is_some_and(|user| user.is_empty() || user.contains(':'))
        {
            return Err("expected ssh://[user@]host[:port][/path/of/socket]; passwords are ssh's own business");
        }
        let plain = |text: &String| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        if !socket.iter().all(plain) {
            return Err("the path of the socket may have letters, digits and /._- only");
        }
        Ok(Self { user, host: host.to_owned(), port, socket })
    }

    /// One connection to the engine, on stdin and stdout. `control` is where ssh shares its connection.
    fn command(&self, control: &Path) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-o", "BatchMode=yes", "-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o"]);
        command.arg(format!("ControlPath={}", control.join("%C").display()));
        command.args(self.user.iter().flat_map(|user| ["-l", user.as_str()]));
        command.args(self.port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
        let at = |flag: &str| self.socket.as_ref().map(|path| format!(" {flag} unix://{path}")).unwrap_or_default();
        command.arg("--").arg(&self.host).arg(format!(
            "if command -v docker >/dev/null 2>&1; then exec docker{} system dial-stdio; \
             else exec podman{} system dial-stdio; fi",
            at("--host"),
            at("--url"),
        ));
        command
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(tls) => write!(f, "tcp://{} (TLS)", tls.authority),
            Self::Ssh(ssh) => {
                f.write_str("ssh://")?;
                ssh.user.iter().try_for_each(|user| write!(f, "{user}@"))?;
                f.write_str(&ssh.host)?;
                ssh.port.iter().try_for_each(|port| write!(f, ":{port}"))?;
                f.write_str(ssh.socket.as_deref().unwrap_or_default())
            }
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({self})")
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.authority == other.authority
    }
}

impl Eq for Tls {}

/// The socket on this machine that leads to a remote engine, as long as this lives.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// For its owner alone.
    dir: TempDir,
    accepting: JoinHandle<()>,
    trouble: Trouble,
}

/// Why the last connection came to nothing, as its end of the tunnel tells.
type Trouble = Arc<Mutex<Option<String>>>;

impl Tunnel {
    /// Opens one. Nothing is connected yet.
    pub(crate) fn open(remote: Remote) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("oncelet-engine-").tempdir()?;
        let listener = UnixListener::bind(dir.path().join("s"))?;
        let trouble = Trouble::default();
        let accepting = tokio::spawn(accept(listener, remote, dir.path().to_owned(), Arc::clone(&trouble)));
        Ok(Self { dir, accepting, trouble })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Why nobody answers, where the way there is to blame.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, remote: Remote, dir: PathBuf, trouble: Trouble) {
    // They end with the tunnel.
    let mut connections = JoinSet::new();
    loop {
        // Both arms only wait, so either may be dropped.
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => return,
            },
            Some(_) = connections.join_next() => continue,
        };
        let (remote, dir, trouble) = (remote.clone(), dir.clone(), Arc::clone(&trouble));
        connections.spawn(async move {
            let mut stream = stream;
            let result = match &remote {
                Remote::Tls(tls) => through_tls(&mut stream, tls).await,
                Remote::Ssh(ssh) => through_ssh(&mut stream, ssh.command(&dir), &trouble).await,
            };
            if let Err(error) = result {
                *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
            // Only now: who sees the end asks why.
            drop(stream);
        });
    }
}

async fn through_tls(stream: &mut UnixStream, tls: &Tls) -> io::Result<()> {
    let connect = async {
        let tcp = TcpStream::connect(&tls.authority).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(Arc::clone(&tls.config)).connect(tls.name.clone(), tcp).await
    };
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "no TLS connection comes about");
    let engine = tokio::time::timeout(STUCK, connect).await.map_err(silent)??;
    let (from, to) = tokio::io::split(engine);
    match pump(stream, from, to).await {
        // The other side refuses our certificate only after it has been taken for done here.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error),
        // How either side ends a connection is between the two of them.
        _ => Ok(()),
    }
}

async fn through_ssh(stream: &mut UnixStream, mut command: Command, trouble: &Trouble) -> io::Result<()> {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut ssh = pipes.kill_on_drop(true).spawn().map_err(|error| io::Error::other(format!("ssh: {error}")))?;
    let (Some(to), Some(from), Some(errors)) = (ssh.stdin.take(), ssh.stdout.take(), ssh.stderr.take()) else {
        return Ok(());
    };
    // Not waited for: the process that shares the connection keeps it open.
    let trouble = Arc::clone(trouble);
    tokio::spawn(async move {
        let mut lines = BufReader::new(errors.take(LARGEST_COMPLAINT)).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("ssh: {line}"));
        }
    });
    let _ = pump(stream, from, to).await;
    Ok(())
}

/// Carries bytes both ways until the engine says that it is over, or nobody is there any more on this machine: an engine that says
/// nothing must not keep connections and processes.
async fn pump(
    stream: &mut UnixStream,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let (mut read, mut write) = stream.split();
    let sending = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            let sent = async {
                to.write_all(&buffer[..length]).await?;
                to.flush().await
            };
            if !matches!(tokio::time::timeout(STUCK, sent).await, Ok(Ok(()))) {
                return;
            }
        }
        let _ = tokio::time::timeout(STUCK, to.shutdown()).await;
        drop(to);
        // The engine may have much to say after the last question, if somebody listens.
        while let Ok(ready) = read.ready(Interest::WRITABLE).await {
            if ready.is_write_closed() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let receiving = async {
        let received = tokio::io::copy(&mut from, &mut write).await;
        let _ = write.shutdown().await;
        received.map(drop)
    };
    // Either arm is dropped only once the connection is over.
    tokio::select! {
        () = sending => Ok(()),
        received = receiving => received,
    }
}

/// Where Docker's own command looks for certificates.
pub(crate) fn certificates(env: impl Fn(&str) -> Option<String>) -> PathBuf {
    let of_home = || std::env::home_dir().unwrap_or_default().join(".docker");
    let dir = env("DOCKER_CERT_PATH").map_or_else(of_home, PathBuf::from);
    fs::canonicalize(&dir).unwrap_or(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_takes_what_dockers_command_takes() {
        for text in ["box", "me@box", "me@box:22", "box/run/user/1/podman/podman.sock", "me@box:22/var/run/docker.sock"]
        {
            assert_eq!(Remote::Ssh(Ssh::parse(text).unwrap()).to_string(), format!("ssh://{text}"));
        }
        for bad in ["", "@box", "-oProxyCommand=x", "box:none", "me:secret@box", "box/a b", "box/$(x)"] {
            assert!(Ssh::parse(bad).is_err(), "{bad}");
        }
    }

    /// An engine behind it may be silent: what a call that was given up leaves behind must go.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_nobody_uses_any_more_ends_although_the_engine_says_nothing() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (engine, tunnel) = tokio::io::duplex(64);
        let pumping = tokio::spawn(async move {
            let (from, to) = tokio::io::split(tunnel);
            pump(&mut theirs, from, to).await
        });
        drop(ours);
        pumping.await.unwrap().unwrap();
        drop(engine);
    }

    #[tokio::test]
    async fn what_comes_after_the_last_question_arrives() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let (mut engine, tunnel) = tokio::io::duplex(64);
        let pumping = tokio::spawn(async move {
            let (from, to) = tokio::io::split(tunnel);
            pump(&mut theirs, from, to).await
        });
        ours.write_all(b"question").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut asked = Vec::new();
        engine.read_to_end(&mut asked).await.unwrap();
        // As long as somebody listens.
        tokio::time::sleep(LOOK * 2).await;
        engine.write_all(b"answer").await.unwrap();
        drop(engine);
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.unwrap();
        assert_eq!((asked.as_slice(), answer.as_slice()), (b"question".as_slice(), b"answer".as_slice()));
        pumping.await.unwrap().unwrap();
    }

    #[test]
    fn missing_certificates_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Tls::new("box:2376", dir.path()).err().unwrap();
        assert!(error.contains("ca.pem"), "{error}");
    }
}
