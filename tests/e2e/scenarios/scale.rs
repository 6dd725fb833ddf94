//! Many, and much.

use std::process::Stdio;

use sha2::{Digest, Sha256};

use crate::process::eventually;
use crate::world::{World, exec_manifest, list, sh};

pub(crate) fn two_hundred_execs_in_four_containers_run_once_each(world: &mut World) {
    world.start();
    let containers: Vec<_> = (0..4).map(|number| world.container(&format!("c{number}"))).collect();
    let name = |number: usize| format!("job-{number}");
    let manifests = (0..200).map(|number| {
        let script = format!("echo {} >> /data/jobs.log; echo out-{number}; exit {}", name(number), number % 3);
        exec_manifest(&name(number), &containers[number % 4], &sh(&script))
    });
    world.apply(&list(manifests)).unwrap();
    // Each part of them has the whole patience: how long all take is the machine's and the engine's matter.
    let mut statuses = Vec::new();
    for enough in (20..=200).step_by(20) {
        statuses = eventually(&format!("{enough} of 200 are finished"), || {
            let list: serde_json::Value =
                serde_json::from_str(&world.kubectl(&["get", "cexec", "-o", "json"]).unwrap()).unwrap();
            let items = list["items"].as_array().unwrap().clone();
            let finished = items.iter().filter(|item| item["status"]["state"] == "Finished").count();
            (finished >= enough).then_some(items)
        });
    }
    assert_eq!(statuses.len(), 200);
    for item in statuses {
        let name = item["metadata"]["name"].as_str().unwrap();
        let number: usize = name.trim_start_matches("job-").parse().unwrap();
        assert_eq!(item["status"]["exitCode"], number % 3, "{name}");
        assert_eq!(item["status"]["stdout"]["tail"], format!("out-{number}\n"), "{name}");
    }
    for (at, container) in containers.iter().enumerate() {
        let mut lines = container.lines("/data/jobs.log");
        lines.sort();
        let mut wanted: Vec<_> = (at..200).step_by(4).map(name).collect();
        wanted.sort();
        assert_eq!(lines, wanted);
    }
}

pub(crate) fn a_hundred_megabytes_of_output_are_complete_and_memory_stays_flat(world: &mut World) {
    const LINES: usize = 1_000_000;
    const LINE: usize = 100;
    world.start();
    let db = world.container("db");
    world.run("warm-up", &db, &sh("echo warm"));
    let before = peak_memory(world);
    let script = format!("yes $(printf %0{}d 7) | head -n {LINES}; echo the end", LINE - 1);
    world.apply_exec("much", &db, &sh(&script));
    let status = eventually("100 MB are read", || {
        let status = world.status("much");
        (status["state"] == "Finished").then_some(status)
    });
    assert_eq!(status["exitCode"], 0);
    assert_eq!(status["stdout"]["bytes"], LINES * LINE + 8);
    assert_eq!(status["stdout"]["truncated"], false);
    let tail = status["stdout"]["tail"].as_str().unwrap();
    assert!(tail.len() <= 2048 && tail.ends_with("7\nthe end\n"), "{tail:?}");

    let grown = peak_memory(world) - before;
    assert!(grown < 64 << 20, "memory grew by {} MiB while 100 MB went through", grown >> 20);

    let logs =
        world.oncelet_command().args(["logs", "much", "--stdout"]).stderr(Stdio::inherit()).output().unwrap().stdout;
    let mut wanted = Sha256::new();
    for _ in 0..LINES {
        wanted.update(format!("{:0>99}\n", 7));
    }
    wanted.update("the end\n");
    assert_eq!(Sha256::digest(&logs), wanted.finalize());
}

/// The daemon's peak resident memory in bytes.
fn peak_memory(world: &World) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.daemon_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}
