//! What an attacker would try, and what comes of it. The files are named after what is attacked; `docs/security.md` names each
//! scenario beside the actor. `cargo test -p oncelet-tests --test e2e -- attacks::` runs all of them.

mod container;
mod engine;
mod host;
mod machine;
mod output;
mod policy;
mod servers;
mod time;

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
    machine::{
        the_tokens_of_the_page_and_of_the_api_open_only_their_own_door,
        a_token_of_the_page_ends_with_its_daemon,
        a_stranger_on_the_port_of_a_killed_daemon_is_given_no_token,
        the_browser_is_started_without_the_token_in_its_arguments,
        the_page_is_served_to_no_other_site,
        no_token_is_in_the_log_however_much_is_logged,
        a_kubeconfig_with_other_clusters_survives_up_and_its_end,
        a_stolen_kubeconfig_is_refused_once_its_credentials_are_rotated,
        a_clock_that_was_ahead_keeps_no_daemon_from_starting,
    },
    time::{
        a_backup_that_an_attacker_made_is_refused_and_changes_nothing,
        a_store_from_an_old_backup_starts_nothing_twice,
        runs_that_nobody_can_ask_for_again_leave_the_store_and_the_container,
    },
    output::{
        a_spool_of_a_terabyte_is_not_read,
        a_spool_that_grows_by_itself_is_told_up_to_the_limit,
        words_from_a_container_are_short_and_command_no_terminal,
        a_guessable_secret_cannot_be_confirmed,
        values_of_env_files_are_shown_nowhere,
        output_without_an_end_leaves_its_beginning_and_its_end,
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
    servers::{
        silent_clients_on_every_port_keep_nobody_out_and_leave_descriptors_for_the_work,
        http2_floods_end_their_connection_and_nothing_else,
        small_bodies_that_would_grow_are_refused,
    },
}
