//! Whether a port of a container is ready for a program: [`port_ready`].

use std::time::Duration;

use crate::{Blocked, Reason};

/// The port that must accept connections before a program is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedPort {
    /// The TCP port, in the container.
    pub number: u16,
    /// For how long connections must have succeeded.
    pub stable: Duration,
    /// After how long of waiting people are to be told that it takes too long.
    pub timeout: Option<Duration>,
}

/// What connections to the container's own addresses came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeenPort {
    /// None has been made yet.
    Untried,
    /// None is accepted.
    Closed {
        /// The addresses, each with what became of the connection; none where the container has no address of its own.
        tries: Vec<(String, String)>,
        /// A server listens on the port, on a loopback address alone.
        loopback_only: bool,
    },
    /// They are accepted, but not yet for as long as they must be.
    Settling,
    /// They have been accepted for as long as they must be.
    Open,
}

/// Whether a program may start in a container that is known as `container`, and what it waits for where it may not. `waited` is how
/// long it has been waiting for the port.
pub fn port_ready(container: &str, wanted: &WantedPort, seen: &SeenPort, waited: Duration) -> Result<(), Blocked> {
    let port = wanted.number;
    let message = match seen {
        SeenPort::Open => return Ok(()),
        SeenPort::Untried => format!("container {container}: no connection to port {port} has been tried yet"),
        SeenPort::Closed { tries, .. } if tries.is_empty() => format!(
            "container {container} has no network address of its own, so no connection to port {port} can be made: connect \
             it to a network, or leave waitForPort out"
        ),
        SeenPort::Closed { tries, loopback_only } => {
            let tries: Vec<_> = tries.iter().map(|(address, problem)| format!("{address}: {problem}")).collect();
            let hint = match loopback_only {
                true => "; a server listens on 127.0.0.1 only, as database images do while they initialise",
                false => "",
            };
            format!("container {container} accepts no connection on port {port} yet ({}){hint}", tries.join(", "))
        }
        SeenPort::Settling => format!(
            "container {container} accepts connections on port {port}; the program starts when it has done so for {} s",
            wanted.stable.as_secs()
        ),
    };
    Err(match wanted.timeout.filter(|timeout| waited >= *timeout) {
        // What is about to end well has not failed.
        Some(timeout) if *seen != SeenPort::Settling => Blocked {
            reason: Reason::PortTimeout,
            message: format!(
                "{message}; waitForPort.timeoutSeconds ({}) is over: the program has not run, and starts when the port opens",
                timeout.as_secs()
            ),
        },
        _ => Blocked { reason: Reason::PortNotReady, message },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(tries: &[&str], loopback_only: bool) -> SeenPort {
        let tries = tries.iter().map(|address| ((*address).to_owned(), "connection refused".to_owned())).collect();
        SeenPort::Closed { tries, loopback_only }
    }

    #[test]
    fn a_port_is_ready_once_it_is_open_and_else_says_what_it_lacks() {
        let wanted =
            WantedPort { number: 5432, stable: Duration::from_secs(2), timeout: Some(Duration::from_secs(60)) };
        let none = WantedPort { timeout: None, ..wanted };
        let refused = closed(&["172.17.0.2", "fd00::2"], false);
        let cases: &[(&WantedPort, SeenPort, u64, Option<(Reason, &str)>)] = &[
            (&wanted, SeenPort::Open, 0, None),
            (&wanted, SeenPort::Open, 61, None),
            (&wanted, SeenPort::Untried, 0, Some((Reason::PortNotReady, "port 5432"))),
            (
                &wanted,
                refused.clone(),
                59,
                Some((
                    Reason::PortNotReady,
                    "container db accepts no connection on port 5432 yet (172.17.0.2: connection refused, fd00::2: connection refused)",
                )),
            ),
            (&wanted, refused.clone(), 60, Some((Reason::PortTimeout, "(60) is over: the program has not run"))),
            (&none, refused, 100_000, Some((Reason::PortNotReady, "yet"))),
            (&none, closed(&["172.17.0.2"], true), 0, Some((Reason::PortNotReady, "127.0.0.1 only"))),
            (&none, closed(&[], true), 0, Some((Reason::PortNotReady, "no network address of its own"))),
            (&wanted, SeenPort::Settling, 61, Some((Reason::PortNotReady, "for 2 s"))),
        ];
        for (wanted, seen, waited, expected) in cases {
            let found = port_ready("db", wanted, seen, Duration::from_secs(*waited)).err();
            match (&found, expected) {
                (None, None) => {}
                (Some(blocked), Some((reason, words))) => {
                    assert!(blocked.reason == *reason && blocked.message.contains(words), "{seen:?}: {blocked:?}");
                }
                _ => panic!("{seen:?} after {waited} s: {found:?}"),
            }
        }
    }
}
