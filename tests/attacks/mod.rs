//! What an attacker would try, and what comes of it. The files are named after what is attacked; `docs/security.md` names each
//! scenario beside the actor. `cargo test -p oncelet-tests --test e2e -- attacks::` runs all of them.

mod host;
mod servers;

use crate::scenarios::scenarios;

scenarios! {
    const ATTACKS = "attacks::":
    host::{
        a_network_name_cannot_reach_another_part_of_the_engine,
        an_env_file_without_an_end_is_refused_at_once,
    },
    servers::{
        silent_clients_on_every_port_keep_nobody_out_and_leave_descriptors_for_the_work,
        http2_floods_end_their_connection_and_nothing_else,
        small_bodies_that_would_grow_are_refused,
    },
}
