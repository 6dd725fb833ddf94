//! What a program writes is never its trouble, and the limits of its container are no trouble of its supervisor's.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::docker::Container;
use crate::process::eventually;
use crate::world::{World, sh};

/// 20 MB whose every byte tells where it is.
const LONG: &str = "echo started >> /data/starts; seq 1000000 3499999; exit 7";

fn long() -> String {
    numbers(1_000_000..=3_499_999)
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> String {
    range.fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "{number}");
        text
    })
}

/// A directory with little room, to be the place of a container's records.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir.path()).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: a container with little room: this user may not mount a file system");
            return None;
        }
        Some(Self(dir))
    }

    /// Puts it where containers have their records.
    fn volume(&self) -> String {
        format!("{}:/.oncelet", self.0.path().display())
    }

    fn fill(&self) {
        let _ = std::fs::write(self.0.path().join("filler"), vec![0; 64 << 20]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

pub(crate) fn output_larger_than_the_room_in_the_container_is_complete(world: &mut World) {
    let Some(disk) = SmallDisk::new("4500k") else { return };
    world.start();
    let db = world.container_with("db", &["--volume", &disk.volume()]);
    let status = world.run("job", &db, &sh(LONG));
    assert_eq!((&status["exitCode"], &status["capture"]), (&7.into(), &"Supervised".into()), "{status:#}");
    let stdout = &status["stdout"];
    assert_eq!((&stdout["bytes"], &stdout["truncated"]), (&20_000_000.into(), &false.into()), "{stdout}");
    assert!(world.oncelet(&["logs", "job", "--stdout"]).unwrap() == long(), "the log is what the program wrote");
    assert_eq!(db.lines("/data/starts"), ["started"]);

    let mut limited = sh(LONG);
    limited["logLimitBytes"] = 1000.into();
    let status = world.run("limited", &db, &limited);
    assert_eq!(status["exitCode"], 7, "{status:#}");
    let stdout = &status["stdout"];
    assert_eq!((&stdout["bytes"], &stdout["truncated"]), (&20_000_000.into(), &true.into()), "{stdout}");
    assert!(stdout["tail"].as_str().unwrap().ends_with("3499998\n3499999\n"), "{stdout}");
    let (log, all) = (world.oncelet(&["logs", "limited", "--stdout"]).unwrap(), long());
    assert!(log.starts_with(&all[..1000]) && log.ends_with(&all[all.len() - 8192..]), "{log}");
    assert!(log.contains(&format!("[oncelet: {} bytes are missing here", all.len() - 1000 - 8192)), "{log}");
}

pub(crate) fn a_container_without_any_room_runs_its_programs_all_the_same(world: &mut World) {
    let Some(disk) = SmallDisk::new("4500k") else { return };
    world.start();
    let db = world.container_with("db", &["--volume", &disk.volume()]);
    assert_eq!(world.run("first", &db, &sh("exit 3"))["capture"], "Supervised");
    disk.fill();
    let status = world.run("second", &db, &sh("echo started >> /data/starts; echo out; exit 4"));
    assert_eq!((&status["exitCode"], &status["capture"]), (&4.into(), &"Attached".into()), "{status:#}");
    assert!(status["captureReason"].as_str().unwrap().contains("no record can be written"), "{status:#}");
    assert_eq!(status["stdout"]["tail"], "out\n");
    assert_eq!(db.lines("/data/starts"), ["started"]);
    // What is recorded there counts all the same.
    world.delete("first");
    world.stop();
    std::fs::remove_dir_all(world.data_dir().join("store")).unwrap();
    world.start();
    assert_eq!(world.run("first", &db, &sh("exit 3"))["restored"], true);
}

pub(crate) fn at_the_limits_of_a_container_the_exit_code_is_the_programs(world: &mut World) {
    world.start();
    for (number, options) in [
        &["--pids-limit", "3"][..],
        &["--user", "4242", "--ulimit", "nproc=3:3"],
        &["--ulimit", "fsize=65536:65536"],
        &["--ulimit", "fsize=1000:1000"],
        &["--ulimit", "nofile=24:24"],
        &["--ulimit", "nofile=10:10"],
        &["--memory", "12m"],
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("limited{number}");
        let Ok(db) = world.try_container_with(&name, options) else {
            eprintln!("SKIPPED: {options:?}: the engine cannot do that here");
            continue;
        };
        let script =
            "echo out; n=0; while [ $n -lt 3000 ]; do echo some more output, number $n; n=$((n+1)); done; exit 5";
        if db.sh("true").is_err() {
            eprintln!("SKIPPED: {options:?}: the engine itself cannot run a program there");
            continue;
        }
        let status = world.run(&name, &db, &sh(script));
        assert_eq!((&status["state"], &status["exitCode"]), (&"Finished".into(), &5.into()), "{options:?}: {status:#}");
        let stdout = &status["stdout"];
        assert_eq!((&stdout["truncated"], &stdout["bytes"]), (&false.into(), &88_894.into()), "{options:?}: {stdout}");
    }
}

pub(crate) fn a_server_that_is_left_behind_costs_no_disk_and_status_says_so(world: &mut World) {
    world.start();
    let db = world.container("db");
    let server = "n=0; while :; do head -c 1000000 /dev/zero || exit; n=$((n+1)); echo $n > /data/n; sleep 0.01; done";
    let spec = sh(&format!("({server}) & echo started"));
    let begun = Instant::now();
    let status = world.run("job", &db, &spec);
    assert!(begun.elapsed() < Duration::from_secs(30), "nobody waits for the server");
    assert_eq!((&status["exitCode"], &status["stdout"]["heldOpen"]), (&0.into(), &true.into()), "{status:#}");
    assert!(status["message"].as_str().unwrap().contains("still hold its output open"), "{status:#}");
    assert!(world.kubectl(&["describe", "cexec", "job"]).unwrap().contains("still hold its output open"));
    assert!(world.oncelet(&["runs", "show", "job"]).unwrap().contains("held open by processes"));
    let written = || db.lines("/data/n").first().and_then(|line| line.parse::<u64>().ok());
    let before = written().unwrap_or_default();
    eventually("it writes on", || (written()? > before + 30).then_some(()));
    let used = db.sh("du -s /.oncelet | cut -f1").unwrap();
    assert!(used.trim().parse::<u64>().unwrap() < 4096, "{used} KiB");
    // The one that looks says "while" in its own arguments, too.
    let look = "for p in /proc/[0-9]*; do [ $p = /proc/$$ ] && continue; case \"$(cat $p/cmdline 2>/dev/null)\" in \
                /.oncelet*) ;; *'while :'*) readlink $p/fd/1;; esac; done";
    let outputs = db.sh(look).unwrap();
    assert!(outputs.lines().count() > 0 && outputs.lines().all(|to| to.starts_with("pipe:")), "no file: {outputs}");
    // It is remembered, and in nobody's way.
    world.delete("job");
    world.restart();
    let restored = world.run("job", &db, &spec);
    assert_eq!((&restored["restored"], &restored["stdout"]["heldOpen"]), (&true.into(), &true.into()));
}

pub(crate) fn a_daemon_killed_in_the_middle_of_much_output_loses_nothing(world: &mut World) {
    world.start();
    let db = world.container("db");
    let script = "echo started >> /data/starts; seq 1000000 1999999; while [ ! -e /data/go ]; do sleep 0.05; done; \
                  seq 2000000 2999999; exit 7";
    world.apply_exec("job", &db, &sh(script));
    eventually("much of it is stored", || {
        let log = world.oncelet(&["logs", "job", "--stdout"]).ok()?;
        (log.len() > 3_000_000).then_some(())
    });
    world.kill();
    db.sh("touch /data/go").unwrap();
    world.start();
    world.apply_exec("job", &db, &sh(script));
    let status = world.completed("job");
    assert_eq!((&status["exitCode"], &status["stdout"]["truncated"]), (&7.into(), &false.into()), "{status:#}");
    assert!(world.oncelet(&["logs", "job", "--stdout"]).unwrap() == numbers(1_000_000..=2_999_999));
    assert_eq!(db.lines("/data/starts"), ["started"]);
}

/// Made with options of the docker command.
impl World {
    fn container_with(&self, name: &str, options: &[&str]) -> Container {
        self.try_container_with(name, options).unwrap()
    }

    fn try_container_with(&self, name: &str, options: &[&str]) -> Result<Container, String> {
        let container = Container::named(&self.container_name(name));
        container.create_with(options)?;
        Ok(container)
    }
}
