//! Every fail point × {kill, error, full, pause}, for the daemon that starts the program and for the one that recovers it.

use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};

use crate::docker::Container;
use crate::oracle::{self, program};
use crate::process::{eventually, output};
use crate::world::{Server, World, exec_manifest};
use crate::{Setup, Size, figures, trial};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Error,
    Full,
    Pause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Claims the run and starts its program.
    Owner,
    /// Takes it over from a daemon that was killed.
    Recoverer,
}

/// The points that each role passes, with how many times; a point of the list that none passes fails the suite.
const PASSED: &[(&str, u32, u32)] = &[
    ("claimed", 1, 0),
    ("exec-created", 1, 0),
    ("exec-recorded", 1, 0),
    ("start-asked", 1, 0),
    // Passed only with an upload, where the end-to-end suite fails it.
    ("stdin-part", 0, 0),
    ("started", 1, 1),
    ("start-recorded", 1, 1),
    ("output", 1, 1),
    ("ended", 1, 1),
    ("logs-written", 1, 1),
    ("finished", 1, 1),
    ("status-written", 1, 1),
    ("taken-over", 0, 1),
    // Passed only where a container is made anew; an attack scenario fails each.
    ("container-renamed", 0, 0),
    ("container-created", 0, 0),
    ("container-stopped", 0, 0),
    ("container-started", 0, 0),
    // The claim, the exec's ID, the start, the end; the taking over, the end.
    ("store-begun", 4, 2),
    ("store-written", 4, 2),
    ("store-committed", 4, 2),
];

pub(crate) fn trials(setup: &Setup) -> Vec<Trial> {
    for (point, _) in oncelet_faults::POINTS {
        assert!(PASSED.iter().any(|(passed, ..)| passed == point), "nothing tests the fail point {point}");
    }
    let mut trials = Vec::new();
    for (point, as_owner, as_recoverer) in PASSED {
        for (role, passes) in [(Role::Owner, *as_owner), (Role::Recoverer, *as_recoverer)] {
            for pass in 1..=passes {
                for action in [Action::Kill, Action::Error, Action::Full, Action::Pause] {
                    // Of each point and role one action in the short form, another one for each.
                    let number = trials.len();
                    if setup.size == Size::Quick && number % 4 != (number / 4) % 4 {
                        trials.push(None);
                        continue;
                    }
                    let name = format!("points::{role:?}::{point}:{pass}::{action:?}").to_lowercase();
                    trials
                        .push(Some(trial(name, Server::Embedded, move |world| hit(world, point, pass, action, role))));
                }
            }
        }
    }
    trials.into_iter().flatten().collect()
}

/// A small disk of its own for the store, unmounted when dropped.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: std::path::PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        output(Command::new("mount").args(["-t", "tmpfs", "-o", "size=160m,mode=0700", "tmpfs"]).arg(&path)).unwrap();
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The daemons may still be there: it goes away with them.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn hit(world: &mut World, point: &str, pass: u32, action: Action, role: Role) {
    let log = world.dir.path().join("fault.log");
    let filler = world.data_dir().join("filler");
    // Lives longer than the daemon, which ends with the world.
    let disk = (action == Action::Full).then(|| SmallDisk::mount(world.data_dir()));
    let fault = vec![
        ("ONCELET_FAULT".to_owned(), format!("{point}:{action:?}:{pass}").to_lowercase()),
        ("ONCELET_FAULT_LOG".to_owned(), log.display().to_string()),
        ("ONCELET_FAULT_FILLER".to_owned(), filler.display().to_string()),
    ];
    let container = world.container("db");
    let waits = role == Role::Recoverer;
    let spec = program("job", waits);
    if role == Role::Recoverer {
        world.start();
        world.apply_exec("job", &container, &spec);
        world.wait("job", "Started");
        world.kill();
    }
    world.daemon_env = fault;
    world.expects_trouble = true;
    world.start();
    if waits {
        if point == "output" {
            // Not before somebody listens: what is over is read from the disk.
            eventually("the daemon listens again", || {
                world.daemon_log().contains("listening to its supervisor again").then_some(())
            });
        }
        if !matches!(point, "started" | "start-recorded") {
            container.sh("touch /data/go").unwrap();
        }
    }
    // The API server is a part of what stands still or dies: there may be no answer.
    let _ = world.kubectl(&["create", "namespace", &world.namespace, "--request-timeout=5s"]);
    let _ = world.apply_within("5s", &exec_manifest("job", &container, &spec));
    eventually(&format!("the daemon gets to {point} for the {pass}. time"), || log.exists().then_some(()));
    figures::add("fail points hit", 1);
    if waits {
        container.sh("touch /data/go").unwrap();
    }
    world.daemon_env.clear();
    world.expects_trouble = false;
    match action {
        Action::Kill => {
            assert!(!world.await_end().success());
            world.start();
            world.apply_exec("job", &container, &spec);
        }
        // What was refused while it failed is asked for again.
        Action::Error => world.apply_exec("job", &container, &spec),
        Action::Full => {
            // It has seen the full disk by then, or will not see it any more.
            std::thread::sleep(Duration::from_millis(700));
            std::fs::remove_file(&filler).unwrap();
        }
        Action::Pause => return paused(world, &container, &spec),
    }
    oracle::check(world, &container, "job");
    oracle::check_restored(world, &container, "job", &spec);
    world.stop();
    drop(disk);
}

/// The daemon stands still; another one on the same store must not start anything, and nor must it when it wakes up.
fn paused(world: &mut World, container: &Container, spec: &serde_json::Value) {
    let pid = Pid::from_raw(world.daemon_pid()).unwrap();
    let second = world.start_second();
    second.apply_exec("job", container, spec);
    eventually("the other daemon has looked at the object", || {
        (!second.status("job")["state"].is_null()).then_some(())
    });
    assert!(oracle::starts(container, "job") <= 1);
    kill_process(pid, Signal::CONT).unwrap();
    let _ = world.kubectl(&["create", "namespace", &world.namespace]);
    world.apply_exec("job", container, spec);
    oracle::check(world, container, "job");
    oracle::check(&second, container, "job");
    oracle::check_restored(&second, container, "job", spec);
}
