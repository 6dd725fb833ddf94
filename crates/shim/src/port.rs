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

use crate::tell;

/// How long one connection may take: the way to an address of one's own is short.
const CONNECT: Duration = Duration::from_secs(1);
/// How long between two tries, at first and after [`AT_FIRST`].
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// How long tries follow each other fast.
const AT_FIRST: Duration = Duration::from_secs(60);
/// How long between two reports of a port that opens and closes.
const BETWEEN_REPORTS: Duration = Duration::from_millis(500);
/// With the host's network the addresses are the host's, which may have a bridge for each project.
const MOST_ADDRESSES: usize = 32;

/// Reports each change of what connections come to; ends with [`PortState::Open`], or with [`Frame::Done`] after `limit`, or
/// silently where nobody listens any more.
pub(crate) fn await_open(port: u16, stable: Duration, limit: Duration) -> ExitCode {
    let begun = Instant::now();
    let mut open_since = None;
    let mut told: Option<(PortState, Instant)> = None;
    loop {
        let tries = try_all(port);
        let now = Instant::now();
        let state = match tries {
            Ok(()) => {
                let since = *open_since.get_or_insert(now);
                if now.duration_since(since) >= stable { PortState::Open } else { PortState::Settling }
            }
            Err(tries) => {
                open_since = None;
                PortState::Closed { tries, loopback_only: listens_on_loopback(port) }
            }
        };
        let is_last = state == PortState::Open;
        let is_news = told.as_ref().is_none_or(|(before, at)| *before != state && at.elapsed() >= BETWEEN_REPORTS);
        if is_last || is_news {
            tell::answer(&Frame::Port(state.clone()));
            told = Some((state, now));
        }
        if is_last {
            return ExitCode::SUCCESS;
        }
        if open_since.is_none() && begun.elapsed() >= limit {
            tell::answer(&Frame::Done);
            return ExitCode::SUCCESS;
        }
        let pause = match open_since {
            // Each connection costs the server something: MySQL blocks an address after a hundred that say nothing.
            Some(since) => (stable / 5).clamp(PAUSES[0], PAUSES[1]).min(stable.saturating_sub(since.elapsed())),
            None if begun.elapsed() < AT_FIRST => PAUSES[0],
            None => PAUSES[1],
        };
        if is_deserted(pause) {
            return ExitCode::SUCCESS;
        }
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

/// Whether a server listens on the port, on 127.0.0.1 or `::1` alone.
fn listens_on_loopback(port: u16) -> bool {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|table| has_loopback_listener(&table, port)))
}

/// Rows of the table: a number, the local address and port in hex digits of the machine's byte order, the remote one, the state.
fn has_loopback_listener(table: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let loopback = [u32::from_be_bytes([127, 0, 0, 1]).to_be(), 1_u32.to_be()];
    let loopback = [format!("{:08X}", loopback[0]), format!("{}{:08X}", "0".repeat(24), loopback[1])];
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().take(4).collect();
        let [_, local, _, LISTEN] = fields[..] else { return false };
        let Some((address, at)) = local.split_once(':') else { return false };
        u16::from_str_radix(at, 16) == Ok(port) && loopback.iter().any(|it| it == address)
    })
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
    fn a_listener_is_on_loopback_only_where_the_table_says_so() {
        let row =
            |address: &str, state: &str| format!("  sl  local_address\n   0: {address} 00000000:0000 {state} 0:0\n");
        // As a machine of little-endian order writes 127.0.0.1 and ::1.
        let v4 = format!("{:08X}:1538", u32::from_be_bytes([127, 0, 0, 1]).to_be());
        let v6 = format!("{}{:08X}:1538", "0".repeat(24), 1_u32.to_be());
        assert!(has_loopback_listener(&row(&v4, "0A"), 5432));
        assert!(has_loopback_listener(&row(&v6, "0A"), 5432));
        assert!(!has_loopback_listener(&row(&v4, "01"), 5432), "a connection is no listener");
        assert!(!has_loopback_listener(&row(&v4, "0A"), 5433));
        assert!(!has_loopback_listener(&row("00000000:1538", "0A"), 5432));
    }
}
