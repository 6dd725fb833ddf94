//! Protocols that look right, and what becomes of each.
#![allow(clippy::panic)]

use oncelet_model::properties::{
    CLAIM_REMEMBERED, END_IS_FINAL, FAILED_NEVER_RAN, OUTCOME_NOT_LOST, STARTS_ONCE, TRUE_CODE,
};
use oncelet_model::{Mutant, Protocol};
use stateright::{Checker, HasDiscoveries, Model};

/// No mutant needs more steps than this to do harm.
const DEPTH: usize = 30;

/// Asserts that the checker finds how `mutant` breaks each of `properties`, and prints the shortest way to it.
#[track_caller]
fn breaks(mutant: Mutant, properties: &[&'static str]) {
    for &property in properties {
        // The checker alone would show any way, not the shortest.
        let shortest = (1..=DEPTH).find_map(|depth| {
            let found = HasDiscoveries::AnyOf([property].into());
            let checker = Protocol::new(2, 2).mutated(mutant).checker();
            checker.target_max_depth(depth).finish_when(found).spawn_bfs().join().discovery(property)
        });
        let Some(way) = shortest else { panic!("{mutant:?} does no harm: {property}") };
        let way = way.into_vec();
        // The last state has no step.
        eprintln!("{mutant:?} in {} steps: not so that {property:?}", way.len() - 1);
        for (world, step) in &way {
            if let Some(step) = step {
                eprintln!("    {}", world.describe(*step));
            }
        }
    }
}

#[test]
fn a_commit_that_is_not_synced_forgets_claims_and_starts_twice() {
    breaks(Mutant::SyncNormal, &[STARTS_ONCE, CLAIM_REMEMBERED, END_IS_FINAL]);
}

#[test]
fn a_start_before_the_claim_starts_twice() {
    breaks(Mutant::StartBeforeClaim, &[STARTS_ONCE]);
}

#[test]
fn a_start_before_the_exec_is_recorded_starts_twice() {
    breaks(Mutant::StartBeforeExecRecorded, &[STARTS_ONCE]);
}

#[test]
fn a_lease_by_the_clock_loses_the_outcome_of_a_paused_owner() {
    breaks(Mutant::ClockLease, &[OUTCOME_NOT_LOST]);
}

#[test]
fn a_lease_by_the_clock_without_a_fence_starts_twice() {
    breaks(Mutant::ClockLeaseUnfenced, &[STARTS_ONCE, OUTCOME_NOT_LOST]);
}

#[test]
fn a_new_exec_in_recovery_starts_twice() {
    breaks(Mutant::NewExecInRecovery, &[STARTS_ONCE]);
}

#[test]
fn an_exit_code_that_nobody_saw_is_not_the_programs_own() {
    breaks(Mutant::BelievedExitCode, &[TRUE_CODE]);
}

#[test]
fn a_refused_start_does_not_settle_an_earlier_request() {
    breaks(Mutant::RefusalSettlesEarlierRequests, &[STARTS_ONCE, FAILED_NEVER_RAN]);
}
