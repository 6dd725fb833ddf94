//! What an attacker would try, and what comes of it. The files are named after what is attacked; `docs/security.md` names each
//! scenario beside the actor. `cargo test -p oncelet-tests --test e2e -- attacks::` runs all of them.

mod host;
mod time;

use crate::scenarios::scenarios;

scenarios! {
    const ATTACKS = "attacks::":
    host::{
        a_network_name_cannot_reach_another_part_of_the_engine,
        an_env_file_without_an_end_is_refused_at_once,
    },
    time::{
        a_backup_that_an_attacker_made_is_refused_and_changes_nothing,
        a_store_from_an_old_backup_starts_nothing_twice,
        runs_that_nobody_can_ask_for_again_leave_the_store_and_the_container,
    },
}
