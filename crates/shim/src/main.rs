//! The supervisor: carries out one order inside a container.
//!
//! It runs where there may be no shell, no libc, no `/tmp` and no root. Whatever the order, the answer is frames on stdout;
//! see the library for the protocol, and for what lies on the disk.

mod children;
mod clock;
mod disk;
mod follow;
mod home;
mod intake;
mod limits;
mod listener;
mod port;
mod process;
mod run;
mod spool;
mod stdin;
mod stop;
mod teller;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use oncelet_shim::frame::{Frame, Hello, Message};
use oncelet_shim::{ORDER_VARIABLE, Order, Place, Task, VERSION};

use crate::listener::answer;

/// The exit code where the order could not be carried out.
const UNUSABLE: u8 = 125;

fn main() -> ExitCode {
    match order().and_then(carry_out) {
        Ok(code) => code,
        Err(message) => {
            answer(&Frame::Unusable(Message { message }));
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
        Task::Probe { place } => probe(&home::mine(&place)),
        Task::Survey { place } => home::survey(&home::mine(&place)).map(done),
        Task::Run { place, nonce, timeout_seconds, grace_seconds, stdin, log_limit, description } => {
            let command: Vec<OsString> = std::env::args_os().skip_while(|arg| arg != "--").skip(1).collect();
            let terms = run::Terms { nonce, timeout_seconds, grace_seconds, stdin, log_limit, description };
            run::run(&home::mine(&place), &terms, &command)
        }
        Task::Follow { place, stdout_from, stderr_from, log_limit } => {
            if let Some(place) = home::find(&place)? {
                follow::follow(&place, [stdout_from, stderr_from], log_limit.unwrap_or(u64::MAX))
            } else {
                answer(&Frame::NoClaim);
                Ok(ExitCode::SUCCESS)
            }
        }
        Task::Stop { place, by, grace_seconds } => stop::stop(home::find(&place)?.as_ref(), by, grace_seconds),
        Task::Clean { places } => disk::clean(&places).map(done),
        Task::AwaitPort { port, stable_ms, limit_ms } => {
            Ok(port::await_open(port, Duration::from_millis(stable_ms), Duration::from_millis(limit_ms)))
        }
        Task::Forget { places } => disk::forget(&places).map(done),
    }
}

fn probe(place: &Place) -> Result<ExitCode, String> {
    let problem = home::check(place).err();
    if problem.is_none() {
        disk::prove_room(place).map_err(|error| format!("no record can be written at {}: {error}", place.home()))?;
    }
    let (uid, gid) = (place.user, rustix::process::getegid().as_raw());
    answer(&Frame::Hello(Hello { version: VERSION, uid, gid, problem }));
    Ok(ExitCode::SUCCESS)
}

fn done(_: ()) -> ExitCode {
    answer(&Frame::Done);
    ExitCode::SUCCESS
}
