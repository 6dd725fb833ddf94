//! Inside the container: users who would pass for the supervisors of others, and programs that damage their own records.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::docker::{Container, docker};
use crate::process::eventually;
use crate::world::{World, sh};

/// Where every user may write what it has run.
const COUNTED: &str = "echo ran >> /data/runs; exit 3";

fn by(user: &str, script: &str) -> Value {
    let mut spec = sh(script);
    spec["user"] = user.into();
    spec
}

/// What a user of the container does there.
fn as_user(container: &Container, user: &str, script: &str) -> Result<String, String> {
    docker(&["exec", "--user", user, &container.name, "/bin/sh", "-c", script])
}

/// The name of a run's directory, as anybody can compute it.
fn name_of(world: &World, container: &Container, object: &str) -> String {
    let mut bytes = Vec::new();
    for part in [container.id(), format!("{}/{object}", world.namespace), String::new()] {
        bytes.extend_from_slice(&part.len().to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    sum.stdin.take().unwrap().write_all(&bytes).unwrap();
    String::from_utf8(sum.wait_with_output().unwrap().stdout).unwrap()[..32].to_owned()
}

/// A script that makes the record of a run that ended with 0.
fn forged(gate: &str) -> String {
    let claim =
        json!({"version": 2, "nonce": "x", "atUs": 1, "supervisor": {"pid": 1, "startTicks": 1, "bootId": "b"}});
    let nothing = json!({"bytes": 0, "kept": 0});
    let exit = json!({"startedUs": 1, "finishedUs": 2, "elapsedUs": 1, "end": {"code": 0}, "stdout": nothing, "stderr": nothing});
    format!("mkdir -m 700 {gate} && echo '{claim}' > {gate}/claim.json && echo '{exit}' > {gate}/exit.json")
}

fn lose_store(world: &mut World) {
    world.stop();
    std::fs::remove_dir_all(world.data_dir().join("store")).unwrap();
    world.start();
}

/// It ran once, and ended as it did.
fn ran_once(world: &World, name: &str, container: &Container, spec: &Value) {
    let status = world.run(name, container, spec);
    assert_eq!((&status["state"], &status["exitCode"]), (&"Finished".into(), &3.into()), "{status:#}");
    assert_eq!(status["capture"], "Supervised", "{status:#}");
    assert_eq!(container.lines("/data/runs"), ["ran"]);
}

pub(crate) fn a_user_of_the_container_forges_and_blocks_no_run_of_another(world: &mut World) {
    world.start();
    let db = world.container("db");
    // The directories of both users are there, and their names are known.
    for user in ["0", "1001"] {
        assert_eq!(world.run(&format!("warm-{user}"), &db, &by(user, "exit 0"))["exitCode"], 0);
    }
    let dir = format!("/.oncelet/{}", db.id());
    let run = name_of(world, &db, "job");
    assert!(db.sh(&format!("ls {dir}")).unwrap().contains(&name_of(world, &db, "warm-0")), "the name is computed well");
    let attacks = |gate: &str| {
        vec![
            forged(gate),
            format!("mkdir -m 777 {gate}"),
            format!("ln -s /tmp {gate}"),
            format!("mkfifo {gate}"),
            format!("mkdir {gate}.output"),
            format!("touch {gate}.stdin0"),
        ]
    };
    let mut all = [attacks(&format!("{dir}/{run}")), attacks(&format!("{dir}/1001/{run}"))].concat();
    all.push(format!("mkdir -p {dir}/1000/{run}"));
    all.push(format!("mv {dir} /.oncelet/elsewhere"));
    all.push(format!("rm -rf {dir}/1001"));
    all.push(format!("echo '{{}}' > {dir}.owners"));
    for attack in all {
        let done = as_user(&db, "1000", &attack);
        assert!(done.is_err(), "{attack}: {done:?}");
    }
    ran_once(world, "job", &db, &by("0", COUNTED));
    world.delete("job");
    lose_store(world);
    ran_once(world, "job", &db, &by("0", COUNTED));
}

/// Up to an earlier version of oncelet, everybody could write where the runs are.
pub(crate) fn what_a_user_left_in_a_directory_of_an_earlier_version_is_not_roots(world: &mut World) {
    let db = world.container("db");
    let dir = format!("/.oncelet/{}", db.id());
    db.sh(&format!("mkdir -p {dir} && chmod 1777 {dir}")).unwrap();
    let gate = |object: &str| format!("{dir}/{}", name_of(world, &db, object));
    let objects = ["end", "open", "link", "pipe", "home"];
    let attack = format!(
        "{}; mkdir -m 777 {}; ln -s /tmp {}; mkfifo {}; mkdir -m 777 {dir}/1001; {}; for it in {}; do mkdir $it.output; \
         mkfifo $it.stdin0; done",
        forged(&gate("end")),
        gate("open"),
        gate("link"),
        gate("pipe"),
        forged(&format!("{dir}/1001/{}", name_of(world, &db, "home"))),
        objects.map(gate).join(" "),
    );
    as_user(&db, "1000", &attack).unwrap();
    world.start();
    for object in objects {
        let user = if object == "home" { "1001" } else { "0" };
        let mut spec = by(user, COUNTED);
        spec["stdin"] = json!({"value": "x"});
        db.sh("rm -f /data/runs").unwrap();
        ran_once(world, object, &db, &spec);
        world.delete(object);
    }
    lose_store(world);
    db.sh("rm -f /data/runs").unwrap();
    for object in objects {
        let user = if object == "home" { "1001" } else { "0" };
        let status = world.run(object, &db, &by(user, COUNTED));
        assert_eq!((&status["exitCode"], &status["restored"]), (&3.into(), &true.into()), "{object}: {status:#}");
    }
    assert!(db.lines("/data/runs").is_empty(), "nothing ran again");
}

pub(crate) fn a_record_of_an_earlier_version_still_counts_for_its_user(world: &mut World) {
    let db = world.container("db");
    let dir = format!("/.oncelet/{}", db.id());
    db.sh(&format!("mkdir -p {dir} && chmod 1777 {dir}")).unwrap();
    for (user, object) in [("0", "roots"), ("1000", "others")] {
        as_user(&db, user, &forged(&format!("{dir}/{}", name_of(world, &db, object)))).unwrap();
    }
    world.start();
    for (user, object) in [("0", "roots"), ("1000", "others")] {
        let status = world.run(object, &db, &by(user, COUNTED));
        assert_eq!((&status["state"], &status["exitCode"]), (&"Finished".into(), &0.into()), "{status:#}");
    }
    assert!(db.lines("/data/runs").is_empty());
    world.oncelet(&["runs", "forget", "others"]).unwrap();
    world.delete("others");
    ran_once(world, "others", &db, &by("1000", COUNTED));
}

pub(crate) fn a_user_of_the_container_does_not_end_the_supervisor_of_another(world: &mut World) {
    world.start();
    let db = world.container("db");
    let spec = by("0", "echo ran >> /data/runs; while [ ! -e /data/go ]; do sleep 0.05; done; exit 3");
    world.apply_exec("job", &db, &spec);
    world.wait("job", "Started");
    let killed =
        as_user(&db, "1000", "kill -9 -1; for it in /proc/[0-9]*; do kill -9 ${it#/proc/} 2>/dev/null; done; true");
    // It may have ended itself.
    drop(killed);
    as_user(&db, "1000", "touch /data/go").unwrap();
    ran_once(world, "job", &db, &spec);
}

/// Each of these is read when a store is lost; none may be waited for, or taken into memory.
pub(crate) fn a_program_that_damages_its_own_record_costs_nothing_and_starts_nothing(world: &mut World) {
    world.start();
    let db = world.container("db");
    let damages = [
        ("pipe", "mkfifo exit.json"),
        ("link", "ln -s /dev/zero exit.json"),
        ("sparse", "truncate -s 10995116277760 exit.json"),
        ("beside", "truncate -s 10995116277760 .a; mkfifo exit.json"),
        ("dir", "mkdir exit.json"),
        ("gone", "cd ..; rm -rf $OLDPWD; ln -s /dev $OLDPWD"),
    ];
    for (object, _) in damages {
        let status = world.run(object, &db, &by("1000", "echo ran >> /data/runs; exit 3"));
        assert_eq!(status["exitCode"], 3, "{status:#}");
    }
    let runs = db.lines("/data/runs").len();
    for (object, damage) in damages {
        let gate = format!("/.oncelet/{}/1000/{}", db.id(), name_of(world, &db, object));
        as_user(&db, "1000", &format!("cd {gate} && rm exit.json && {damage}")).unwrap();
        world.delete(object);
    }
    lose_store(world);
    let before = memory(world);
    for (object, _) in damages {
        world.apply_exec(object, &db, &by("1000", "echo ran >> /data/runs; exit 3"));
    }
    for (object, _) in damages {
        let told = eventually("the run is not started, and it is told why", || {
            let status = world.status(object);
            matches!(status["state"].as_str(), Some("Unknown" | "FailedToStart")).then_some(status)
        });
        let message = told["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{told:#}");
        if object == "gone" {
            assert!(message.contains("symbolic link"), "{told:#}");
        }
    }
    assert_eq!(db.lines("/data/runs").len(), runs, "nothing ran again");
    let after = memory(world);
    assert!(after < before + 200 * 1024, "from {before} to {after} KiB");
    // The daemon still does its work.
    assert_eq!(world.run("good", &db, &by("0", "exit 4"))["exitCode"], 4);
    assert!(world.daemon_log().contains("exit.json"), "what was found is told");
}

/// The daemon's memory, in KiB.
fn memory(world: &World) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", world.daemon_pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn a_program_that_damages_its_record_while_it_runs_has_its_true_end(world: &mut World) {
    world.start();
    let db = world.container("db");
    for (object, damage) in [
        ("pipes", "for it in claim started stop exit; do rm -f $it.json; mkfifo $it.json; done"),
        ("sparse", "truncate -s 10995116277760 exit.json large"),
        ("dir", "mkdir -p exit.json/x"),
        ("gone", "rm -rf $PWD"),
    ] {
        let gate = format!("/.oncelet/{}/1000/{}", db.id(), name_of(world, &db, object));
        let status = world.run(object, &db, &by("1000", &format!("cd {gate} && {damage}; exit 3")));
        assert_eq!((&status["state"], &status["exitCode"]), (&"Finished".into(), &3.into()), "{object}: {status:#}");
    }
}

/// Root's records can be forged by nobody less; those of other users count for their own runs alone.
pub(crate) fn after_a_lost_store_the_records_of_root_count_for_everybody(world: &mut World) {
    world.start();
    let db = world.container("db");
    ran_once(world, "roots", &db, &by("0", COUNTED));
    db.sh("rm /data/runs").unwrap();
    ran_once(world, "others", &db, &by("1000", COUNTED));
    for object in ["roots", "others"] {
        world.delete(object);
    }
    // With its store, a daemon remembers a run whoever its user is.
    let status = world.run("others", &db, &by("0", COUNTED));
    assert_eq!((&status["exitCode"], &status["restored"]), (&3.into(), &true.into()), "{status:#}");
    world.delete("others");
    lose_store(world);
    db.sh("rm -f /data/runs").unwrap();
    let status = world.run("roots", &db, &by("1000", COUNTED));
    assert_eq!((&status["exitCode"], &status["restored"]), (&3.into(), &true.into()), "{status:#}");
    let status = world.run("others", &db, &by("1000", COUNTED));
    assert_eq!((&status["exitCode"], &status["restored"]), (&3.into(), &true.into()), "{status:#}");
    assert!(db.lines("/data/runs").is_empty(), "nothing ran again");
    world.delete("others");
    lose_store(world);
    ran_once(world, "others", &db, &by("0", COUNTED));
}

/// Containers that take rights away from their users, root among them.
pub(crate) fn every_user_has_its_runs_in_containers_without_rights(world: &mut World) {
    world.start();
    for (name, options) in [
        ("poor", &["--cap-drop=ALL", "--security-opt=no-new-privileges"][..]),
        ("named", &["--cap-drop=ALL", "--user=1234:77"][..]),
    ] {
        let db = Container::named(&world.container_name(name));
        db.create_with(options).unwrap();
        for user in ["", "0", "1000", "1000:1000", "5000"] {
            let object = format!("{name}-{}", user.replace(':', "-"));
            let object = object.trim_end_matches('-');
            let mut spec = by(user, "id -u; exit 3");
            if user.is_empty() {
                spec.as_object_mut().unwrap().remove("user");
            }
            let status = world.run(object, &db, &spec);
            assert_eq!((&status["exitCode"], &status["capture"]), (&3.into(), &"Supervised".into()), "{status:#}");
            world.delete(object);
        }
    }
}
