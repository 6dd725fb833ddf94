//! The scenarios, each a sentence of what is promised.

mod asking;
mod cli;
mod containers;
mod database;
mod inputs;
mod lives;
mod made;
mod once;
mod one_run;
mod output;
mod page;
mod people;
mod rejected;
mod remote;
mod repeat;
mod scale;
mod stdin;
mod supervised;
pub(crate) mod telemetry;
mod trouble;
mod warned;

use crate::docker::{MARIADB, POSTGRES};
use crate::world::World;

/// A list of scenarios: functions of a module, their names behind a prefix.
macro_rules! scenarios {
    (const $list:ident = $prefix:literal: $($module:ident::{$($name:ident),* $(,)?}),* $(,)?) => {
        pub(crate) const $list: &[$crate::scenarios::Scenario] = &[$($(
            $crate::scenarios::Scenario { name: concat!($prefix, stringify!($name)), run: $module::$name }
        ),*),*];
    };
}
pub(crate) use scenarios;

/// One scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub name: &'static str,
    pub run: fn(&mut World),
}

impl Scenario {
    /// Whether it is about what only the embedded server has.
    pub(crate) fn is_about_embedded(&self) -> bool {
        // A real one serves no parts of custom resources but the usual ones.
        [
            "the_log_endpoint_streams_what_is_asked_for",
            "the_log_endpoint_stays_with_the_run_that_it_opened",
            "kept_objects_are_there_after_a_kill",
            "session_containers_go_when_up_ends_however_it_ends",
            "an_engine_behind_tls_is_like_one_here",
            "an_engine_behind_ssh_is_like_one_here",
            "one_daemon_works_with_docker_and_podman",
            "the_page_works_with_five_thousand_objects",
            "attacks::the_tokens_of_the_page_and_of_the_api_open_only_their_own_door",
            "attacks::a_kubeconfig_with_other_clusters_survives_up_and_its_end",
            "attacks::a_stolen_kubeconfig_is_refused_once_its_credentials_are_rotated",
            "attacks::a_clock_that_was_ahead_keeps_no_daemon_from_starting",
            "attacks::silent_clients_on_every_port_keep_nobody_out_and_leave_descriptors_for_the_work",
            "attacks::http2_floods_end_their_connection_and_nothing_else",
            "attacks::small_bodies_that_would_grow_are_refused",
        ]
        .contains(&self.name)
    }

    /// Whether it needs both engines.
    pub(crate) fn needs_podman(&self) -> bool {
        self.name == "one_daemon_works_with_docker_and_podman"
    }

    /// Whether it looks at the page.
    pub(crate) fn needs_browser(&self) -> bool {
        self.name.starts_with("the_page_")
    }

    /// The image that it needs beside the usual one.
    pub(crate) fn image(&self) -> Option<&'static str> {
        match self.name {
            "a_database_is_seeded_once_across_restarts_of_everything"
            | "a_seed_that_waits_for_the_port_lands_in_the_real_postgres" => Some(POSTGRES),
            "a_seed_that_waits_for_the_port_lands_in_the_real_mariadb" => Some(MARIADB),
            _ => None,
        }
    }

    /// Whether it needs of the engine what the Podman of the tests does not have.
    pub(crate) fn is_about_docker(&self) -> bool {
        // A registry without TLS is one that Podman has to be configured for.
        // And what is between oncelet and the engine knows of none.
        [
            "an_image_is_pulled_and_its_progress_shown",
            "an_engine_behind_tls_is_like_one_here",
            "an_engine_behind_ssh_is_like_one_here",
            "one_daemon_works_with_docker_and_podman",
            // Docker's command cannot commit a container of Podman's.
            "attacks::labels_that_came_with_an_image_prove_nothing",
            "attacks::labels_that_are_forged_open_nothing",
        ]
        .contains(&self.name)
            // The page knows nothing of engines.
            || self.needs_browser()
    }
}

/// All that is tried: what is promised, and what an attacker would try.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().chain(crate::attacks::ATTACKS)
}

scenarios! {
    const SCENARIOS = "":
    page::{
        the_page_shows_what_goes_on_and_what_was_written,
        the_page_reruns_stops_and_forgets_after_asking,
        the_page_goes_on_after_a_restart_and_shows_what_was_restored,
        the_page_works_with_five_thousand_objects,
    },
    telemetry::{
        metrics_tell_what_was_done_and_health_whether_it_goes_on,
        many_restores_ask_the_engine_together_and_write_nothing_to_the_store,
        a_run_is_one_trace_across_restarts,
    },
    once::{
        a_program_runs_once_across_restarts_of_everything,
        a_recreated_container_gets_one_more_run,
        a_recreated_container_gets_one_more_run_without_a_new_object,
        a_kill_right_after_the_start_makes_no_second_run,
        a_kill_while_execs_pour_in_makes_no_second_run,
        an_end_of_the_daemon_waits_for_a_program_that_is_about_to_end,
        two_daemons_on_one_store_run_each_program_once,
        a_non_zero_exit_counts_as_run,
        binary_output_comes_back_byte_for_byte,
    },
    inputs::{
        the_effective_environment_and_arguments_are_what_the_program_got,
        a_secret_reaches_the_program_and_is_shown_nowhere,
        the_working_directory_and_the_user_are_as_asked,
        an_exec_waits_for_those_it_depends_on,
    },
    stdin::{
        stdin_from_text_a_config_map_and_a_secret_arrives_byte_for_byte,
        exec_sends_a_large_stdin_once_and_restores_without_it,
        data_on_stdin_is_never_lost_without_a_word,
        a_daemon_killed_while_stdin_is_uploaded_or_delivered_starts_the_program_once,
    },
    warned::{
        a_bare_double_dollar_and_a_template_of_dcp_are_warned_of,
    },
    repeat::{
        another_program_under_the_same_name_keeps_the_outcome_and_says_what_differs,
        on_change_rerun_runs_each_program_once,
        on_change_fail_restores_nothing,
        run_policy_always_runs_once_for_each_object,
        the_rerun_annotation_runs_once_for_each_value,
        a_run_key_is_shared_by_objects,
    },
    rejected::{
        an_unknown_field_is_rejected_by_name,
        exactly_one_target_is_asked_for,
        a_changed_field_is_rejected_by_name,
        explain_describes_every_field,
    },
    trouble::{
        a_container_that_appears_gets_its_run_at_once,
        a_stopped_container_is_waited_for,
        an_unreachable_engine_is_waited_for,
        a_missing_command_is_told_and_tried_again,
        a_bad_directory_and_a_bad_user_are_told_in_the_engines_words,
        missing_inputs_are_told_and_waited_for,
        nothing_starts_while_the_store_is_unreadable,
    },
    supervised::{
        a_killed_daemon_follows_its_program_again,
        a_program_that_ends_while_no_daemon_lives_keeps_its_outcome,
        a_lost_store_starts_nothing_twice_and_is_filled_again,
        nothing_but_the_record_stays_in_the_container,
        another_daemon_takes_over_when_the_owner_dies,
        a_paused_owner_that_wakes_up_does_no_harm,
        stop_ends_a_program_and_its_children,
        what_is_to_be_stopped_is_not_started,
        a_timeout_ends_a_program_even_without_a_daemon,
        on_delete_kill_ends_the_program_before_the_object_goes,
        a_container_that_ends_interrupts_what_runs_in_it,
        a_removed_container_interrupts_what_ran_in_it,
        a_pause_of_the_container_is_no_end,
        where_no_supervisor_can_be_the_status_says_why,
        a_container_without_rights_is_supervised_like_any_other,
        capture_attached_uses_no_supervisor,
    },
    output::{
        output_larger_than_the_room_in_the_container_is_complete,
        a_container_without_any_room_runs_its_programs_all_the_same,
        at_the_limits_of_a_container_the_exit_code_is_the_programs,
        a_server_that_is_left_behind_costs_no_disk_and_status_says_so,
        a_daemon_killed_in_the_middle_of_much_output_loses_nothing,
    },
    lives::{
        a_container_with_the_hosts_processes_interrupts_what_ran_in_it_when_it_ends,
        a_removal_that_no_daemon_saw_is_dated_by_the_engine,
        a_container_that_its_engine_restarts_at_once_interrupts_what_ran_in_it,
        conditions_come_back_after_a_pause_of_a_moment,
        conditions_follow_a_health_check_that_goes_back_and_forth,
    },
    containers::{
        a_persistent_container_is_made_and_reused,
        a_changed_container_is_made_anew_and_says_why,
        a_strangers_container_is_not_taken,
        an_existing_container_is_adopted_and_left_alone,
        scope_name_remembers_across_recreates,
        a_session_container_goes_with_its_object,
        session_containers_go_when_up_ends_however_it_ends,
        a_cleanup_container_is_never_made_and_goes_with_its_object,
        a_cleanup_container_goes_even_if_its_object_was_deleted_before_the_engine_answered,
        a_start_may_be_delayed_and_a_stop_taken_back,
        what_is_to_be_stopped_is_not_made_and_nothing_else_is_stopped,
        an_adopted_container_keeps_its_start_time,
        a_lifecycle_key_decides_alone,
        the_engine_goes_and_comes_back,
        two_daemons_that_make_the_same_container_end_with_one,
    },
    made::{
        volumes_networks_env_files_and_the_restart_policy_are_as_asked,
        an_exec_waits_for_a_healthy_container,
        an_image_is_pulled_and_its_progress_shown,
    },
    database::{
        a_database_is_seeded_once_across_restarts_of_everything,
        a_seed_that_waits_for_the_port_lands_in_the_real_postgres,
        a_seed_that_waits_for_the_port_lands_in_the_real_mariadb,
        a_port_that_opens_and_closes_again_is_not_ready,
        a_port_that_does_not_open_is_told_and_waited_for,
        what_is_known_of_a_port_ends_with_the_life_of_the_container,
        many_execs_that_wait_for_a_port_share_one_probe,
        a_port_is_waited_for_wherever_a_supervisor_can_be,
    },
    remote::{
        an_engine_behind_tls_is_like_one_here,
        an_engine_behind_ssh_is_like_one_here,
        one_daemon_works_with_docker_and_podman,
    },
    scale::{
        two_hundred_execs_in_four_containers_run_once_each,
        a_hundred_megabytes_of_output_are_complete_and_memory_stays_flat,
    },
    asking::{
        a_start_that_failed_is_tried_again_for_whoever_asks,
        a_failed_start_is_not_repeated_to_whoever_asks_next,
        ctrl_c_before_the_start_withdraws_the_request,
        ctrl_c_after_the_start_says_how_to_go_on_watching,
        a_request_is_withdrawn_after_its_timeout,
        a_waiting_client_outlives_the_daemon,
        what_another_client_withdraws_is_asked_for_again,
        an_answer_from_memory_says_so,
    },
    one_run::{
        every_spelling_of_a_container_is_one_run_and_one_object,
        a_follower_ends_with_its_run_when_the_container_is_replaced,
        a_follower_ends_when_the_container_is_removed,
        the_log_endpoint_stays_with_the_run_that_it_opened,
        a_name_goes_with_the_container_that_is_meant_now,
        a_container_that_cannot_be_meant_is_refused_before_anything_is_made,
        output_is_there_with_nothing_but_a_kubeconfig,
        the_command_line_arrives_as_written,
    },
    people::{
        describe_reads_like_a_story,
        a_terminal_shows_how_far_a_run_is,
        exec_runs_a_program_once_and_ends_as_it_did,
        wait_and_rerun_follow_a_run_to_its_end,
        explain_tells_why_and_what_differs,
        kubectl_finds_oncelet_as_a_plugin,
    },
    cli::{
        runs_and_logs_are_there_for_people_and_for_programs,
        logs_follow_a_program_that_runs,
        the_log_endpoint_streams_what_is_asked_for,
        kept_objects_are_there_after_a_kill,
        kubectl_tells_the_story,
        a_log_limit_keeps_the_beginning_and_counts_the_rest,
        the_daemon_ends_well_on_both_signals,
        the_printed_crds_are_taken_by_kubectl,
        the_daemon_keeps_its_files_to_itself,
        a_forgotten_run_runs_again_and_leaves_nothing_in_the_container,
        a_person_says_how_an_unknown_run_ended,
        garbage_collection_keeps_what_is_not_gone_for_an_hour,
    },
}
