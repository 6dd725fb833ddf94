//! The supervisor: carries out one order inside a container.
//!
//! It runs where there may be no shell, no libc, no `/tmp` and no root. Whatever the order, the answer is frames on stdout;
//! see the library for the protocol, and for what lies on the disk.

mod clock;
mod disk;
mod follow;
mod limits;
mod port;
mod process;
mod run;
mod stdin;
mod stop;
mod tell;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use oncelet_shim::frame::{Frame, Hello, Message};
use oncelet_shim::{ORDER_VARIABLE, Order, Task, VERSION};

/// The exit code where the order could not be carried out.
const UNUSABLE: u8 = 125;

fn main() -> ExitCode {
    match order().and_then(carry_out) {
        Ok(code) => code,
        Err(message) => {
            tell::answer(&Frame::Unusable(Message { message }));
            ExitCode::from(UNUSABLE)
        }
    }
}

fn order() -> Result<Order, String> {
    let text = std::env::var(ORDER_VARIABLE).map_err(|error| format!("the variable {ORDER_VARIABLE}: {error}"))?;
    let order: Order =
        serde_json::from_str(&text).map_err(|error| format!("the order cannot be understood: {error}"))?;
    if order.version == VERSION {
        Ok(order)
    } else {
        Err(format!("the order is of version {}, this supervisor of {VERSION}", order.version))
    }
}

fn carry_out(order: Order) -> Result<ExitCode, String> {
    match order.task {
        Task::Probe => {
            tell::answer(&Frame::Hello(Hello { version: VERSION }));
            Ok(ExitCode::SUCCESS)
        }
        Task::Run { place, nonce, timeout_seconds, grace_seconds, stdin, description } => {
            let command: Vec<OsString> = std::env::args_os().skip_while(|arg| arg != "--").skip(1).collect();
            let terms = run::Terms { nonce, timeout_seconds, grace_seconds, stdin, description };
            run::run(&place, &terms, &command)
        }
        Task::Follow { place, stdout_from, stderr_from } => follow::follow(&place, [stdout_from, stderr_from]),
        Task::Stop { place, by, grace_seconds } => stop::stop(&place, by, grace_seconds),
        Task::Clean { places } => disk::clean(&places).map(done),
        Task::AwaitPort { port, stable_ms, limit_ms } => {
            Ok(port::await_open(port, Duration::from_millis(stable_ms), Duration::from_millis(limit_ms)))
        }
        Task::Forget { place } => disk::forget(&place).map(done),
    }
}

fn done(_: ()) -> ExitCode {
    tell::answer(&Frame::Done);
    ExitCode::SUCCESS
}
