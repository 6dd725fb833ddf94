//! What an attacker would try, and what comes of it. The files are named after what is attacked; `docs/security.md` names each
//! scenario beside the actor. `cargo test -p oncelet-tests --test e2e -- attacks::` runs all of them.

mod host;
mod output;

use crate::scenarios::scenarios;

scenarios! {
    const ATTACKS = "attacks::":
    host::{
        a_network_name_cannot_reach_another_part_of_the_engine,
        an_env_file_without_an_end_is_refused_at_once,
    },
    output::{
        a_spool_of_a_terabyte_is_not_read,
        a_spool_that_grows_by_itself_is_told_up_to_the_limit,
        words_from_a_container_are_short_and_command_no_terminal,
        a_guessable_secret_cannot_be_confirmed,
        values_of_env_files_are_shown_nowhere,
        output_without_an_end_leaves_its_beginning_and_its_end,
    },
}
