//! The protocol, over all states of a small world.

use std::time::Instant;

use oncelet_model::Protocol;
use stateright::{Checker, HasDiscoveries, Model};

/// Checks every property in every state, and gives the number of states.
fn check(what: &str, protocol: Protocol) -> usize {
    let begun = Instant::now();
    let checker = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (unique, steps) = (checker.unique_state_count(), checker.state_count());
    eprintln!("{what}: {unique} unique states, {steps} steps, {:.0} s", begun.elapsed().as_secs_f32());
    checker.assert_properties();
    unique
}

#[test]
fn two_daemons_and_three_tries_keep_the_promise_and_come_to_an_end() {
    let states = check("two daemons, three tries", Protocol::new(2, 3).with_peace());
    assert!(states > 500_000, "the model has shrunk to {states} states");
}

#[test]
fn three_daemons_keep_the_promise() {
    let states = check("three daemons, one try", Protocol::new(3, 1).sorted());
    assert!(states > 1_000_000, "the model has shrunk to {states} states");
}
