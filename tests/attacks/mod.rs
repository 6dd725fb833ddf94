//! What an attacker would try, and what comes of it. The files are named after what is attacked; `docs/security.md` names each
//! scenario beside the actor. `cargo test -p oncelet-tests --test e2e -- attacks::` runs all of them.

mod host;
mod policy;

use crate::scenarios::scenarios;

scenarios! {
    const ATTACKS = "attacks::":
    host::{
        a_network_name_cannot_reach_another_part_of_the_engine,
        an_env_file_without_an_end_is_refused_at_once,
    },
    policy::{
        nothing_is_allowed_that_no_policy_allows,
        each_field_that_reaches_out_is_refused_without_its_rule,
        a_bind_mount_and_an_env_file_cannot_leave_their_directories,
        a_run_key_reaches_no_run_of_another_namespace,
        the_container_of_another_namespace_is_neither_entered_nor_taken,
        labels_that_are_forged_open_nothing,
        an_engine_that_is_not_allowed_is_not_connected_to,
        a_changed_policy_counts_at_once_and_a_broken_one_never,
        what_goes_on_when_the_policy_changes_goes_on_and_nothing_else_starts,
        a_run_from_when_keys_were_shared_is_neither_repeated_nor_shown_to_others,
        a_controller_of_some_namespaces_looks_at_no_other,
    },
}
