//! Where an engine listens.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::{
    Error,
    remote::{self, Remote, Ssh, Tls},
};

/// Which engine to use, as a user says it: `auto`, `docker`, `podman` or a URL (`unix:///…`, `tcp://host:port`,
/// `http://host:port`, `ssh://user@host`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Endpoint {
    /// `DOCKER_HOST`, else the first socket that exists: Docker's, then Podman's.
    #[default]
    Auto,
    /// `DOCKER_HOST`, else Docker's socket.
    Docker,
    /// Podman's rootful socket, else its rootless one.
    Podman,
    /// This URL.
    Url(String),
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "auto" => Ok(Self::Auto),
            "docker" => Ok(Self::Docker),
            "podman" => Ok(Self::Podman),
            url => Target::parse(url).map(|_| Self::Url(url.to_owned())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Url(url) => url,
        })
    }
}

/// One address that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Path of a unix socket.
    Unix(PathBuf),
    /// `host:port`, plain HTTP.
    Http(String),
    /// On another machine, not in plain text.
    Remote(Remote),
}

impl Target {
    fn parse(url: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::InvalidEndpoint { endpoint: url.to_owned(), reason: reason.to_owned() };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            invalid("expected auto, docker, podman, or a URL such as unix:///var/run/docker.sock or tcp://host:2375")
        })?;
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(rest.into())),
            "unix" => Err(invalid("a unix socket needs an absolute path, as in unix:///var/run/docker.sock")),
            "tcp" | "http" => {
                let authority = rest.trim_end_matches('/');
                if authority.is_empty() || authority.contains(['/', '@', '?', '#']) {
                    return Err(invalid("expected host:port and nothing after it"));
                }
                let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                if has_port { Ok(Self::Http(authority.to_owned())) } else { Err(invalid("the port is missing")) }
            }
            "ssh" => Ssh::parse(rest).map(|ssh| Self::Remote(Remote::Ssh(ssh))).map_err(invalid),
            "https" => Err(invalid("write tcp://host:port, and set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH")),
            _ => Err(invalid("unknown scheme; use unix://, tcp://, http:// or ssh://")),
        }
    }

    /// The same as Docker's own command would take it: a TCP address is one with TLS where the environment says so.
    fn in_environment(self, env: &impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        match self {
            Self::Http(authority) if env("DOCKER_TLS_VERIFY").is_some() => {
                Tls::new(&authority, &remote::certificates(env)).map(|tls| Self::Remote(Remote::Tls(tls))).map_err(
                    |reason| {
                        let reason = format!("DOCKER_TLS_VERIFY is set, and {reason}");
                        Error::InvalidEndpoint { endpoint: format!("tcp://{authority}"), reason }
                    },
                )
            }
            target => Ok(target),
        }
    }

    /// Whether there is anything to connect to, as far as that shows without connecting.
    pub(crate) fn exists(&self) -> bool {
        match self {
            Self::Unix(path) => path.exists(),
            Self::Http(_) | Self::Remote(_) => true,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Http(authority) => write!(f, "tcp://{authority}"),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

/// The addresses to try for `endpoint`, best first, never empty. `env` looks up an environment variable.
pub(crate) fn candidates(endpoint: &Endpoint, env: impl Fn(&str) -> Option<String>) -> Result<Vec<Target>, Error> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let at = |url: &str| Target::parse(url)?.in_environment(&env);
    let docker_host = || env("DOCKER_HOST").map(|url| at(&url));
    let in_runtime_dir = |path: &str| env("XDG_RUNTIME_DIR").map(|dir| Target::Unix(PathBuf::from(dir).join(path)));
    let docker = || {
        let rootful = Target::Unix("/var/run/docker.sock".into());
        [Some(rootful), in_runtime_dir("docker.sock")].into_iter().flatten()
    };
    let podman = || {
        let rootful = Target::Unix("/run/podman/podman.sock".into());
        [Some(rootful), in_runtime_dir("podman/podman.sock")].into_iter().flatten()
    };
    match endpoint {
        Endpoint::Url(url) => Ok(vec![at(url)?]),
        Endpoint::Podman => Ok(podman().collect()),
        Endpoint::Docker => docker_host().map_or_else(|| Ok(docker().collect()), |host| Ok(vec![host?])),
        Endpoint::Auto => docker_host().map_or_else(|| Ok(docker().chain(podman()).collect()), |host| Ok(vec![host?])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(endpoint: &Endpoint, env: &[(&str, &str)]) -> Vec<String> {
        let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        candidates(endpoint, lookup).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn auto_prefers_docker_host_over_every_socket() {
        assert_eq!(shown(&Endpoint::Auto, &[("DOCKER_HOST", "tcp://box:2375")]), ["tcp://box:2375"]);
    }

    #[test]
    fn auto_looks_for_docker_before_podman_and_rootful_before_rootless() {
        assert_eq!(
            shown(&Endpoint::Auto, &[("XDG_RUNTIME_DIR", "/run/user/7"), ("DOCKER_HOST", "")]),
            [
                "unix:///var/run/docker.sock",
                "unix:///run/user/7/docker.sock",
                "unix:///run/podman/podman.sock",
                "unix:///run/user/7/podman/podman.sock",
            ]
        );
    }

    #[test]
    fn podman_ignores_docker_host() {
        assert_eq!(shown(&Endpoint::Podman, &[("DOCKER_HOST", "tcp://box:2375")]), ["unix:///run/podman/podman.sock"]);
    }

    #[test]
    fn every_written_form_is_read_back() {
        for text in [
            "auto",
            "docker",
            "podman",
            "unix:///tmp/x.sock",
            "tcp://127.0.0.1:2375",
            "http://[::1]:80",
            "ssh://me@box:22",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, expected) in [
            ("ssh://me@", "expected ssh://"),
            ("https://box:2376", "DOCKER_TLS_VERIFY"),
            ("ftp://box", "unknown scheme"),
            ("unix://relative.sock", "absolute path"),
            ("tcp://box", "port is missing"),
            ("dokcer", "expected auto, docker, podman"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(text), "{error}");
        }
    }

    #[test]
    fn tls_by_environment_is_not_silently_dropped() {
        let env = |name: &str| match name {
            "DOCKER_HOST" => Some("tcp://box:2376".to_owned()),
            "DOCKER_TLS_VERIFY" => Some("1".to_owned()),
            "DOCKER_CERT_PATH" => Some("/nowhere".to_owned()),
            _ => None,
        };
        let error = candidates(&Endpoint::Auto, env).unwrap_err().to_string();
        assert!(error.contains("TLS") && error.contains("/nowhere/ca.pem"), "{error}");
    }
}
