//! Tries to connect to a port of the container, until that succeeds for as long as it must.
//!
//! Connections go to the container's own addresses and never to 127.0.0.1: the images of most databases run a temporary
//! server while they initialise, which listens on a socket or on 127.0.0.1 alone, and is then shut down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, io};

use oncelet_shim::frame::Frame;
use oncelet_shim::{PortState, PortTry};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::listener::answer;

/// How long one connection may take: the way to an address of one's own is short.
const CONNECT: Duration = Duration::from_secs(1);
/// How long between two tries, at first and after [`AT_FIRST`].
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// How long tries follow each other fast.
const AT_FIRST: Duration = Duration::from_mins(1);
/// How long between two reports of a port that opens and closes.
const BETWEEN_REPORTS: Duration = Duration::from_millis(500);
/// With the host's network the addresses are the host's, which may have a bridge for each project.
const MOST_ADDRESSES: usize = 32;

/// Reports each change of what connections come to; ends with [`PortState::Open`], or with [`Frame::Done`] after `limit`, or
/// silently where nobody listens any more.
pub(crate) fn await_open(port: u16, stable: Duration, limit: Duration) -> ExitCode {
    let begun = Instant::now();
    let mut settling: Option<Settling> = None;
    let mut told: Option<(PortState, Instant)> = None;
    loop {
        let now = Instant::now();
        // Before the connection: a server may accept one and be gone.
        let listening = listeners(port);
        if settling.as_mut().is_some_and(|settling| settling.has_changed(&listening)) {
            settling = None;
        }
        let state = match &mut settling {
            Some(settling) if now < settling.next_try => PortState::Settling,
            none_or_due => match try_all(port) {
                Ok(()) => {
                    let settling = none_or_due.get_or_insert_with(|| Settling::begin(listening));
                    settling.next_try = now + settling.pause(stable);
                    if now.duration_since(settling.since) >= stable { PortState::Open } else { PortState::Settling }
                }
                Err(tries) => {
                    *none_or_due = None;
                    let loopback_only = listening.iter().any(Listener::is_on_loopback);
                    PortState::Closed { tries, loopback_only }
                }
            },
        };
        let is_last = state == PortState::Open;
        let is_news = told.as_ref().is_none_or(|(before, at)| *before != state && at.elapsed() >= BETWEEN_REPORTS);
        if is_last || is_news {
            answer(&Frame::Port(state.clone()));
            told = Some((state, now));
        }
        if is_last {
            return ExitCode::SUCCESS;
        }
        if settling.is_none() && begun.elapsed() >= limit {
            answer(&Frame::Done);
            return ExitCode::SUCCESS;
        }
        let is_late = settling.is_none() && begun.elapsed() >= AT_FIRST;
        if is_deserted(PAUSES[usize::from(is_late)]) {
            return ExitCode::SUCCESS;
        }
    }
}

/// A port that accepts connections, and must go on to do so.
struct Settling {
    since: Instant,
    next_try: Instant,
    /// The sockets that listen on it. Between two connections they tell of a server that has gone and come again.
    listeners: Vec<Listener>,
}

impl Settling {
    fn begin(listeners: Vec<Listener>) -> Self {
        let now = Instant::now();
        Self { since: now, next_try: now, listeners }
    }

    /// Whether one of those that listened does no more.
    fn has_changed(&mut self, now: &[Listener]) -> bool {
        if self.listeners.is_empty() {
            // It began to listen just after the look.
            self.listeners = now.to_vec();
        }
        self.listeners.iter().any(|listener| !now.contains(listener))
    }

    /// How long until the next connection. Each costs the server something: `MySQL` blocks an address after a hundred that say
    /// nothing.
    fn pause(&self, stable: Duration) -> Duration {
        (stable / 5).clamp(PAUSES[0], PAUSES[1]).min(stable.saturating_sub(self.since.elapsed()))
    }
}

/// Connects to one address after the other, until one accepts.
fn try_all(port: u16) -> Result<(), Vec<PortTry>> {
    let mut tries = Vec::new();
    for address in own_addresses() {
        match TcpStream::connect_timeout(&SocketAddr::new(address, port), CONNECT) {
            Ok(_) => return Ok(()),
            Err(error) => tries.push(PortTry { address: address.to_string(), problem: words(&error) }),
        }
    }
    Err(tries)
}

fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The addresses of this network namespace, without those that only it can reach.
fn own_addresses() -> Vec<IpAddr> {
    let v4 = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut addresses: Vec<IpAddr> = v4_in(&v4).into_iter().map(IpAddr::V4).collect();
    addresses.extend(v6_in(&v6).into_iter().map(IpAddr::V6));
    addresses.truncate(MOST_ADDRESSES);
    addresses
}

/// The addresses in `/proc/net/fib_trie`: each in a line of its own, `|-- 172.17.0.2`, before one that ends in `host LOCAL`.
fn v4_in(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in trie.lines().map(str::trim) {
        if let Some(leaf) = line.strip_prefix("|-- ") {
            last = leaf.parse::<Ipv4Addr>().ok();
        } else if line.ends_with("host LOCAL")
            && let Some(address) = last.filter(|address| !address.is_loopback() && !found.contains(address))
        {
            // The table lists each twice.
            found.push(address);
        }
    }
    found
}

/// The addresses in `/proc/net/if_inet6`: 32 digits, the interface, the length of the prefix, the scope, flags, a name.
/// Link-local ones mean nothing without their interface.
fn v6_in(table: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| {
        let mut fields = line.split_whitespace();
        let bits = u128::from_str_radix(fields.next()?, 16).ok()?;
        let scope = fields.nth(2)?;
        (!["10", "20"].contains(&scope)).then(|| Ipv6Addr::from_bits(bits))
    };
    table.lines().filter_map(address).collect()
}

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listener {
    /// In hex digits, as the tables have it.
    address: String,
    inode: u64,
}

impl Listener {
    fn is_on_loopback(&self) -> bool {
        // The tables show words in the machine's order of bytes.
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        self.address == word([127, 0, 0, 1]) || self.address == format!("{:024}{}", 0, word([0, 0, 0, 1]))
    }
}

/// The sockets that listen on a port.
fn listeners(port: u16) -> Vec<Listener> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    tables.iter().flat_map(|path| listeners_in(&fs::read_to_string(path).unwrap_or_default(), port)).collect()
}

/// Rows of the tables: a number, the local address and port, the remote ones, the state, queues, timers, …, and tenth the inode.
fn listeners_in(table: &str, port: u16) -> Vec<Listener> {
    const LISTEN: &str = "0A";
    let listener = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields[..] else { return None };
        let (address, at) = local.split_once(':')?;
        (u16::from_str_radix(at, 16) == Ok(port))
            .then(|| Some(Listener { address: address.to_owned(), inode: inode.parse().ok()? }))?
    };
    table.lines().filter_map(listener).collect()
}

/// Waits for `pause`. True as soon as stdin is closed: whoever asked is gone.
fn is_deserted(pause: Duration) -> bool {
    let end = Instant::now() + pause;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let stdin = io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return false,
            // Nothing is ever written there but its end.
            Ok(_) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => {
                std::thread::sleep(left);
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_all_that_are_neither_loopback_nor_link_local() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 172.17.0.0/16 2 0 2\n        \
                    |-- 172.17.0.0\n           /16 link UNICAST\n        |-- 172.17.0.2\n           /32 host LOCAL\n        \
                    |-- 172.17.255.255\n           /32 link BROADCAST\nLocal:\n     |-- 127.0.0.0\n        /8 host LOCAL\n     \
                    |-- 127.0.0.1\n        /32 host LOCAL\n        |-- 172.17.0.2\n           /32 host LOCAL\n";
        assert_eq!(v4_in(trie), [Ipv4Addr::new(172, 17, 0, 2)]);
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n\
                     fe800000000000000042acfffe110002 05 40 20 80     eth0\n\
                     fd000000000000000000000000000002 05 40 00 82     eth0\n";
        assert_eq!(v6_in(table), ["fd00::2".parse::<Ipv6Addr>().unwrap()]);
        assert!(v4_in("").is_empty() && v6_in("nonsense\n").is_empty());
    }

    #[test]
    fn a_listener_is_found_by_its_port_and_state_and_known_by_its_inode() {
        let row = |address: &str, state: &str| {
            format!(
                "  sl  local_address\n   0: {address}:1538 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 70 0 4711 1 0\n"
            )
        };
        let on_loopback = |address: &str| listeners_in(&row(address, "0A"), 5432)[0].is_on_loopback();
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        assert!(on_loopback(&word([127, 0, 0, 1])));
        assert!(on_loopback(&format!("{}{}", "0".repeat(24), word([0, 0, 0, 1]))));
        assert!(!on_loopback("00000000"));
        assert_eq!(listeners_in(&row("00000000", "0A"), 5432)[0].inode, 4711);
        assert!(listeners_in(&row("00000000", "01"), 5432).is_empty(), "a connection is no listener");
        assert!(listeners_in(&row("00000000", "0A"), 5433).is_empty());
    }
}
