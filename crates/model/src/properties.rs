//! What must always hold, and what must be seen to happen.

use stateright::Property;

use crate::Protocol;
use crate::world::{At, Earlier, End, Phase, Program, Row, Stream, World};

/// The promise.
pub const STARTS_ONCE: &str = "a program is started at most once";
/// What allows another try.
pub const FAILED_NEVER_RAN: &str = "what failed to start never ran";
/// Of what was synced.
pub const CLAIM_REMEMBERED: &str = "an acknowledged claim is not forgotten";
/// Of any end but a failed start.
pub const END_IS_FINAL: &str = "an end never changes";
/// Of `Finished`.
pub const TRUE_CODE: &str = "an exit code is the program's own";
/// Of `Interrupted`.
pub const TRUE_INTERRUPTION: &str = "an interrupted program was killed";
/// Of `Unknown`.
pub const OUTCOME_NOT_LOST: &str = "an outcome that a living daemon waits for or has seen is not lost";
/// `RunState::next` never refuses what the executor writes: it would try for ever.
pub const EVENTS_LEGAL: &str = "the executor writes no illegal event";
/// From every state.
pub const COMES_TO_AN_END: &str = "left in peace, a run comes to an end";
/// A limit of the model, not of the code.
pub const ROOM: &str = "the model has room for one exec more";

/// How many steps a peaceful end may take.
const PATIENCE: usize = 100;

fn row(world: &World, holds: impl Fn(Row) -> bool) -> bool {
    world.row.is_some_and(holds)
}

fn ended(world: &World, as_expected: impl Fn(End) -> bool) -> bool {
    row(world, |row| matches!(row.at, At::Ended(end) if as_expected(end)))
}

fn follows(world: &World, wanted: impl Fn(Earlier, Stream) -> bool) -> bool {
    let wanted = |phase| matches!(phase, Phase::Follow { earlier, stream, .. } if wanted(earlier, stream));
    world.daemons.iter().any(|daemon| wanted(daemon.phase))
}

pub(crate) fn all(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut properties = safety();
    properties.extend(seen_to_happen());
    if protocol.peace {
        properties.push(Property::always(COMES_TO_AN_END, |protocol: &Protocol, world: &World| {
            let steps = std::iter::successors(Some(world.clone()), |world| protocol.in_peace(world));
            steps.take(PATIENCE).any(|world| protocol.is_over(&world))
        }));
    }
    properties
}

fn safety() -> Vec<Property<Protocol>> {
    vec![
        Property::always(STARTS_ONCE, |_, world: &World| world.starts <= 1),
        Property::always(FAILED_NEVER_RAN, |_, world: &World| {
            world.starts == 0 || !ended(world, |end| end == End::FailedToStart)
        }),
        Property::always(CLAIM_REMEMBERED, |_, world: &World| !world.acknowledged || world.row.is_some()),
        Property::always(END_IS_FINAL, |_, world: &World| world.ended.is_none_or(|was| ended(world, |end| end == was))),
        Property::always(TRUE_CODE, |_, world: &World| {
            !ended(world, |end| matches!(end, End::Finished(code) if world.program != Program::Exited(code)))
        }),
        Property::always(TRUE_INTERRUPTION, |_, world: &World| {
            world.program == Program::Killed || !ended(world, |end| end == End::Interrupted)
        }),
        Property::always(OUTCOME_NOT_LOST, |_, world: &World| {
            !world.has_witness() || !ended(world, |end| end == End::Unknown)
        }),
        Property::always(EVENTS_LEGAL, |_, world: &World| !world.illegal),
        Property::always(ROOM, |_, world: &World| world.free_exec().is_some()),
    ]
}

/// Shows that the checks above are not true of nothing.
fn seen_to_happen() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("a run finishes", |_, world: &World| ended(world, |end| matches!(end, End::Finished(_)))),
        Property::sometimes("a run is interrupted", |_, world: &World| ended(world, |end| end == End::Interrupted)),
        Property::sometimes("a run's outcome is unknown", |_, world: &World| ended(world, |end| end == End::Unknown)),
        Property::sometimes("a program cannot be started", |_, world: &World| {
            ended(world, |end| end == End::FailedToStart)
        }),
        Property::sometimes("a further try finishes", |_, world: &World| {
            row(world, |row| row.attempt > 1 && matches!(row.at, At::Ended(End::Finished(_))))
        }),
        Property::sometimes("recovery starts the recorded exec", |_, world: &World| {
            follows(world, |earlier, stream| earlier == Earlier::Theirs && stream == Stream::Program)
        }),
        Property::sometimes("an unanswered start is repeated", |_, world: &World| {
            follows(world, |earlier, stream| earlier == Earlier::Ours && stream == Stream::Program)
        }),
    ]
}
