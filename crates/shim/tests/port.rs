//! Waiting for a port, on this machine's own addresses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use oncelet_shim::frame::{Decoder, Frame};
use oncelet_shim::{ORDER_VARIABLE, Order, PortState, Task};

/// A supervisor that waits for a port.
struct Waiter {
    child: Child,
    stdout: ChildStdout,
    decoder: Decoder,
}

impl Waiter {
    fn begin(port: u16, stable_ms: u64, limit_ms: u64) -> Self {
        let order = Order::new(Task::AwaitPort { port, stable_ms, limit_ms });
        let mut child = Command::new(env!("CARGO_BIN_EXE_oncelet-shim"))
            .env(ORDER_VARIABLE, serde_json::to_string(&order).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        Self { child, stdout, decoder: Decoder::default() }
    }

    /// The next report; `None` at the end.
    fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let mut buffer = [0; 4096];
            match self.stdout.read(&mut buffer).unwrap() {
                0 => return None,
                read => self.decoder.push(&buffer[..read]),
            }
        }
    }

    fn closed(&mut self) -> bool {
        match self.next() {
            Some(Frame::Port(PortState::Closed { loopback_only, .. })) => loopback_only,
            other => panic!("expected a port that accepts nothing, got {other:?}"),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_port_is_open_once_connections_have_succeeded_for_as_long_as_they_must() {
    let port = free_port();
    let mut waiter = Waiter::begin(port, 700, 60_000);
    assert!(!waiter.closed(), "nobody listens anywhere");
    let _listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let since = Instant::now();
    assert_eq!(waiter.next(), Some(Frame::Port(PortState::Settling)));
    assert_eq!(waiter.next(), Some(Frame::Port(PortState::Open)));
    assert!(since.elapsed() >= Duration::from_millis(700));
    assert_eq!(waiter.next(), None);
}

/// As the temporary servers of database images.
#[test]
fn a_server_on_a_loopback_address_alone_is_told_and_does_not_count() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut waiter = Waiter::begin(listener.local_addr().unwrap().port(), 0, 0);
    assert!(waiter.closed());
    assert_eq!(waiter.next(), Some(Frame::Done), "its time is over");
}

#[test]
fn a_port_that_closes_again_begins_from_the_start() {
    let port = free_port();
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let mut waiter = Waiter::begin(port, 5_000, 60_000);
    assert_eq!(waiter.next(), Some(Frame::Port(PortState::Settling)));
    drop(listener);
    waiter.closed();
    let _listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let since = Instant::now();
    assert_eq!(waiter.next(), Some(Frame::Port(PortState::Settling)));
    assert_eq!(waiter.next(), Some(Frame::Port(PortState::Open)));
    assert!(since.elapsed() >= Duration::from_secs(5), "the time before does not count");
}

/// Faster than any two connections follow each other.
#[test]
fn a_server_that_another_one_has_replaced_begins_from_the_start() {
    let port = free_port();
    let first = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let mut waiter = Waiter::begin(port, 4_000, 60_000);
    assert_eq!(waiter.next(), Some(Frame::Port(PortState::Settling)));
    std::thread::sleep(Duration::from_millis(1_500));
    drop(first);
    let _second = TcpListener::bind(("0.0.0.0", port)).unwrap();
    let since = Instant::now();
    // Whether the gap was seen as closed depends on the moment.
    while !matches!(waiter.next(), Some(Frame::Port(PortState::Open))) {}
    assert!(since.elapsed() >= Duration::from_secs(4), "the time of the first one does not count");
}

#[test]
fn nobody_waits_for_those_who_are_gone() {
    let mut waiter = Waiter::begin(free_port(), 0, 3_600_000);
    waiter.closed();
    drop(waiter.child.stdin.take());
    assert_eq!(waiter.next(), None);
    assert_eq!(waiter.child.wait().unwrap().code(), Some(0));
}

/// What is told first in a network namespace of its own that `setup` has made, if this user may make one.
fn told_in_a_network(setup: &str) -> Option<PortState> {
    let order = Order::new(Task::AwaitPort { port: 7000, stable_ms: 0, limit_ms: 0 });
    let script = format!("{setup} && exec {}", env!("CARGO_BIN_EXE_oncelet-shim"));
    let said = Command::new("unshare")
        .args(["--net", "sh", "-c", &script])
        .env(ORDER_VARIABLE, serde_json::to_string(&order).unwrap())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let mut decoder = Decoder::default();
    decoder.push(&said.stdout);
    match decoder.next_frame().unwrap() {
        Some(Frame::Port(state)) => Some(state),
        other => {
            eprintln!("SKIPPED: a network of its own: this user may not make one, or ip is missing ({other:?})");
            None
        }
    }
}

#[test]
fn the_addresses_are_those_of_the_network_that_it_runs_in() {
    let alone = told_in_a_network("true");
    assert!(alone.is_none_or(|it| it == PortState::Closed { tries: Vec::new(), loopback_only: false }));
    let six = "ip link add a0 type veth peer name a1 && ip link set a0 up && ip link set a1 up && \
               ip -6 addr add fd00::5/64 dev a0 nodad";
    let Some(state) = told_in_a_network(six) else { return };
    let PortState::Closed { tries, .. } = state else { panic!("nobody listens: {state:?}") };
    let addresses: Vec<_> = tries.iter().map(|it| it.address.as_str()).collect();
    assert_eq!(addresses, ["fd00::5"]);
}
