//! What an attacker would try, and what comes of it. The files are named after what is attacked; `docs/security.md` names each
//! scenario beside the actor. `cargo test -p oncelet-tests --test e2e -- attacks::` runs all of them.

mod container;
mod host;

use crate::scenarios::scenarios;

scenarios! {
    const ATTACKS = "attacks::":
    container::{
        a_user_of_the_container_forges_and_blocks_no_run_of_another,
        what_a_user_left_in_a_directory_of_an_earlier_version_is_not_roots,
        a_record_of_an_earlier_version_still_counts_for_its_user,
        a_user_of_the_container_does_not_end_the_supervisor_of_another,
        a_program_that_damages_its_own_record_costs_nothing_and_starts_nothing,
        a_program_that_damages_its_record_while_it_runs_has_its_true_end,
        after_a_lost_store_the_records_of_root_count_for_everybody,
        every_user_has_its_runs_in_containers_without_rights,
    },
    host::{
        a_network_name_cannot_reach_another_part_of_the_engine,
        an_env_file_without_an_end_is_refused_at_once,
    },
}
