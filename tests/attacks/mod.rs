//! What an attacker would try, and what comes of it. The files are named after what is attacked; `docs/security.md` names each
//! scenario beside the actor. `cargo test -p oncelet-tests --test e2e -- attacks::` runs all of them.

mod engine;
mod host;

use crate::scenarios::scenarios;

scenarios! {
    const ATTACKS = "attacks::":
    engine::{
        a_container_cannot_say_that_it_is_somebody_elses,
        a_daemon_killed_while_it_makes_a_container_anew_loses_neither,
        a_silent_engine_is_asked_once_for_all_and_holds_up_nobody,
        another_oncelet_takes_no_container_of_ours,
        answers_without_an_end_are_cut_off,
        engines_that_nothing_names_any_more_cost_nothing,
        labels_that_came_with_an_image_prove_nothing,
        what_cannot_be_made_anew_stays_as_it_was,
    },
    host::{
        a_network_name_cannot_reach_another_part_of_the_engine,
        an_env_file_without_an_end_is_refused_at_once,
    },
}
