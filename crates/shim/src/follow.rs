//! Tells of a run that somebody else supervises, or supervised.

use std::process::ExitCode;
use std::sync::atomic::AtomicU64;

use oncelet_shim::Place;
use oncelet_shim::frame::Frame;

use crate::tell::{self, Told};
use crate::{disk, run};

pub(crate) fn follow(place: &Place, from: [u64; 2]) -> Result<ExitCode, String> {
    if !disk::is_claimed(place) {
        tell::answer(&Frame::NoClaim);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(started) = disk::read_started(place) {
        tell::answer(&Frame::Started(started));
    }
    match tell::tell(place, from, &AtomicU64::new(0)).map_err(|error| format!("{}: {error}", place.gate()))? {
        Told::Exited(code) => {
            if tell::await_stored() {
                // What cannot be removed stays.
                let _ = disk::remove_logs(place);
            }
            Ok(run::exit_code(code))
        }
        Told::Abandoned => {
            tell::answer(&tell::abandoned(place));
            Ok(ExitCode::SUCCESS)
        }
        Told::Unheard => Ok(ExitCode::FAILURE),
    }
}
