//! Time: what an old backup does not know of, what somebody else made of it, and what grows.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::docker::Container;
use crate::process::eventually;
use crate::world::{World, exec_manifest, list, sh};

/// The statuses of all objects, once all of them are complete.
fn all_completed(world: &World, count: usize) -> BTreeMap<String, Value> {
    eventually("all runs are complete", || {
        let objects: Value = serde_json::from_str(&world.kubectl(&["get", "cexec", "-o", "json"]).ok()?).ok()?;
        let objects = objects["items"].as_array()?;
        let is_complete = |object: &&Value| {
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|it| it["type"] == "Complete" && it["status"] == "True")
        };
        let complete: Vec<_> = objects.iter().filter(is_complete).collect();
        let named = |object: &&Value| Some((object["metadata"]["name"].as_str()?.to_owned(), object["status"].clone()));
        (complete.len() == count).then(|| complete.iter().filter_map(named).collect())
    })
}

/// A program that says that it was started, waits for a file, and ends with 7.
fn waits(name: &str, go: &str) -> Value {
    sh(&format!("echo {name} >> /data/starts; echo begun; while [ ! -e /data/{go} ]; do sleep 0.2; done; exit 7"))
}

/// A power failure takes the store, and all that is left is a backup from before most of it.
pub(crate) fn a_store_from_an_old_backup_starts_nothing_twice(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.apply_exec("before", &db, &waits("before", ""));
    world.completed("before");
    let going_on: Vec<_> = (0..50).map(|number| format!("going-on-{number}")).collect();
    let manifest = |name: &String| exec_manifest(name, &db, &waits(name, "go"));
    world.apply(&list(going_on.iter().map(manifest))).unwrap();
    eventually("all fifty have been started", || (db.lines("/data/starts").len() == 51).then_some(()));

    for name in &going_on {
        eventually("what it wrote is in the store", || {
            (world.oncelet(&["logs", name]).as_deref() == Ok("begun\n")).then_some(())
        });
    }

    let file = world.dir.path().join("backup.tar.zst");
    let file = file.to_str().unwrap();
    let said = world.oncelet(&["store", "backup", file]).unwrap();
    assert!(said.contains("51 runs"), "{said}");
    let refused = world.oncelet(&["store", "restore", "--force", file]).unwrap_err();
    assert!(refused.contains("an oncelet daemon uses the run store"), "{refused}");

    // What the backup does not know: how those end, and of runs that come later.
    let later: Vec<_> = (0..5).map(|number| format!("later-{number}")).collect();
    world.apply(&list(later.iter().map(manifest))).unwrap();
    db.sh("touch /data/go").unwrap();
    let before = all_completed(world, 56);
    world.kill();
    let refused = world.oncelet(&["store", "restore", file]).unwrap_err();
    assert!(refused.contains("has 56 runs"), "{refused}");
    let said = world.oncelet(&["store", "restore", "--force", file]).unwrap();
    assert!(said.contains("51 runs") && said.contains("50 not over then"), "{said}");

    world.start();
    if !world.is_embedded() {
        world.kubectl(&["delete", "cexec", "--all"]).unwrap();
    }
    world.apply(&list(["before".to_owned()].iter().map(|name| exec_manifest(name, &db, &waits(name, ""))))).unwrap();
    world.apply(&list(going_on.iter().chain(&later).map(manifest))).unwrap();
    let after = all_completed(world, 56);
    for (name, before) in &before {
        for field in ["state", "exitCode", "startupTimestamp", "finishTimestamp", "effectiveArgs", "containerId"] {
            assert_eq!(after[name][field], before[field], "{name}: {field}");
        }
        assert_eq!(after[name]["stdout"]["bytes"], before["stdout"]["bytes"], "{name}");
    }
    for known in going_on.iter().chain([&"before".to_owned()]) {
        // Its output was in the backup; that of those which came later was not kept in the container.
        assert_eq!(after[known]["stdout"]["tail"], "begun\n", "{known}");
    }
    let mut starts = db.lines("/data/starts");
    starts.sort();
    let mut names: Vec<_> = after.into_keys().collect();
    names.sort();
    assert_eq!(starts, names, "each was started once");
    let runs: Value = serde_json::from_str(&world.oncelet(&["runs", "list", "-o", "json"]).unwrap()).unwrap();
    assert_eq!(runs.as_array().unwrap().len(), 56);
}

/// Writes an archive with these entries, each a header and what follows it.
fn archive(file: &Path, entries: &[(tar::Header, &[u8])]) {
    let mut encoder = zstd::Encoder::new(std::fs::File::create(file).unwrap(), 1).unwrap();
    for (header, content) in entries {
        encoder.write_all(header.as_bytes()).unwrap();
        encoder.write_all(content).unwrap();
        encoder.write_all(&vec![0; content.len().next_multiple_of(512) - content.len()]).unwrap();
    }
    encoder.finish().unwrap();
}

fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    header
}

/// A file that is said to be a backup writes nothing outside of the store, follows no link, and fills no disk.
pub(crate) fn a_backup_that_an_attacker_made_is_refused_and_changes_nothing(world: &mut World) {
    world.start();
    let db = world.container("db");
    world.run("seed", &db, &sh("echo seeded"));
    world.stop();
    let file = world.dir.path().join("evil.tar.zst");
    let target = world.dir.path().join("target");
    std::fs::write(&target, b"untouched").unwrap();
    let head = json!({"format": 1, "oncelet": "0.1.0", "schema": 1, "createdAt": "2026-01-01T00:00:00Z",
        "store": "00000000-0000-4000-8000-000000000000"})
    .to_string();
    let begin = (header("oncelet-backup.json", tar::EntryType::Regular, head.len() as u64), head.as_bytes());
    let mut link = header("runs.db", tar::EntryType::Symlink, 0);
    link.set_link_name(&target).unwrap();
    link.set_cksum();
    let up = |name: &str| (header(name, tar::EntryType::Regular, 4), b"evil".as_slice());
    let cases: Vec<Vec<(tar::Header, &[u8])>> = vec![
        vec![begin.clone(), up("../../target")],
        vec![begin.clone(), up(target.to_str().unwrap())],
        vec![begin.clone(), up("runs.db"), up("logs/../../../target")],
        vec![begin.clone(), (link, b""), up("runs.db")],
        vec![begin.clone(), (header("runs.db", tar::EntryType::GNUSparse, 1 << 40), b"")],
        vec![begin.clone(), (header("runs.db", tar::EntryType::Regular, 1 << 50), b"")],
        vec![begin.clone(), (header("runs.db", tar::EntryType::Block, 0), b"")],
        vec![begin, up("runs.db")],
    ];
    let files = || std::fs::read_dir(world.data_dir()).unwrap().map(|it| it.unwrap().file_name()).collect::<Vec<_>>();
    let before = files();
    for (number, case) in cases.iter().enumerate() {
        archive(&file, case);
        let refused = world.oncelet(&["store", "restore", "--force", file.to_str().unwrap()]).unwrap_err();
        let words = ["is no backup", "is damaged", "MiB are needed"];
        assert!(words.iter().any(|words| refused.contains(words)), "{number}: {refused}");
        assert_eq!(files(), before, "{number}");
    }
    assert_eq!(std::fs::read(&target).unwrap(), b"untouched");
    world.start();
    assert_eq!(world.run("seed", &db, &sh("echo seeded"))["exitCode"], 0);
    assert_eq!(world.oncelet(&["logs", "seed"]).unwrap(), "seeded\n");
}

/// Whoever may make objects makes them again and again.
pub(crate) fn runs_that_nobody_can_ask_for_again_leave_the_store_and_the_container(world: &mut World) {
    world.daemon_args = vec!["--keep-runs-for".into(), "2s".into()];
    world.start();
    let db = world.container("db");
    let once = sh("echo once >> /data/once");
    world.run("once", &db, &once);
    world.delete("once");
    let always = |container: &Container, name: &str| {
        let mut spec = sh(&format!("echo {name} >> /data/always"));
        spec["runPolicy"] = "Always".into();
        exec_manifest(name, container, &spec)
    };
    world.apply(&always(&db, "stays")).unwrap();
    world.completed("stays");
    // In a container that is stopped when its turn comes.
    let other = world.container("other");
    world.apply(&always(&other, "elsewhere")).unwrap();
    world.completed("elsewhere");
    other.stop();
    world.delete("elsewhere");

    for round in 0..2 {
        let names: Vec<_> = (0..50).map(|number| format!("round-{round}-{number}")).collect();
        world.apply(&list(names.iter().map(|name| always(&db, name)))).unwrap();
        all_completed(world, 51);
        world
            .kubectl(&[&["delete", "cexec"], names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat())
            .unwrap();
    }
    let runs = |world: &World| {
        let runs: Value = serde_json::from_str(&world.oncelet(&["runs", "list", "-o", "json"]).unwrap()).unwrap();
        let name = |run: &Value| run["key"]["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let mut names: Vec<_> = runs.as_array().unwrap().iter().map(name).collect();
        names.sort();
        names
    };
    eventually("the store has forgotten them", || (runs(world) == ["elsewhere", "once", "stays"]).then_some(()));
    let records =
        |container: &Container| container.sh(&format!("ls -A /.oncelet/{}", container.id())).unwrap().lines().count();
    assert_eq!(records(&db), 2, "the records of what may be asked for again");
    other.start();
    eventually("a container that runs again forgets, too", || (runs(world) == ["once", "stays"]).then_some(()));
    assert_eq!(records(&other), 0);
    let logs = std::fs::read_dir(world.data_dir().join("store/logs")).unwrap().count();
    assert_eq!(logs, 0, "neither has written anything");

    // Each was started once, and what is still there or may come again is not started again.
    assert_eq!(world.run("once", &db, &once)["restored"], true);
    assert_eq!(db.lines("/data/once"), ["once"]);
    let started = db.lines("/data/always");
    assert_eq!((started.len(), started.iter().filter(|name| *name == "stays").count()), (101, 1));
}
