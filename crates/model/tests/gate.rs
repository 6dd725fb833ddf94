//! The protocol of supervised runs: it holds in every state, and each mutant breaks it.
#![allow(clippy::panic)]

use oncelet_model::gate::{GateMutant, GateProtocol, STARTS_ONCE, TRUE_EXIT_CODE};
use stateright::{Checker, HasDiscoveries, Model};

#[test]
fn three_daemons_behind_a_gate_keep_the_promise_even_when_the_store_is_lost() {
    let checker = GateProtocol::new(3).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let unique = checker.unique_state_count();
    eprintln!("three daemons behind a gate: {unique} unique states");
    checker.assert_properties();
    assert!(unique > 500_000, "the model has shrunk to {unique} states");
}

#[track_caller]
fn breaks(mutant: GateMutant, property: &'static str) {
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = GateProtocol::new(1).mutated(mutant).checker().finish_when(found).spawn_bfs().join();
    let Some(way) = checker.discovery(property) else { panic!("{mutant:?} does no harm: {property}") };
    let steps: Vec<_> = way.into_actions();
    eprintln!("{mutant:?}: not so that {property:?}, after {steps:?}");
}

#[test]
fn without_the_gate_a_late_request_starts_a_second_time() {
    breaks(GateMutant::NoGate, STARTS_ONCE);
}

#[test]
fn a_claim_that_is_not_synced_is_lost_with_the_power() {
    breaks(GateMutant::ClaimNotSynced, STARTS_ONCE);
}

#[test]
fn a_gate_that_is_opened_again_lets_a_second_start_through() {
    breaks(GateMutant::ReopenedGate, STARTS_ONCE);
}

#[test]
fn the_engines_exit_code_is_not_the_programs() {
    breaks(GateMutant::BelievedExitCode, TRUE_EXIT_CODE);
}

#[test]
fn an_attached_start_beside_a_closed_gate_is_a_second_one() {
    breaks(GateMutant::AttachedBesideTheGate, STARTS_ONCE);
}
