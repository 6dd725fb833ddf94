//! Kills at random moments, of one daemon and of several on one store.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::docker::Container;
use crate::oracle::{self, program};
use crate::world::{World, exec_manifest, list};
use crate::{Setup, Size, figures, trial};

/// How many objects there are at a time.
const WAVE: u32 = 8;

pub(crate) fn trials(setup: &Setup) -> Vec<Trial> {
    let (kills, seconds) = match setup.size {
        Size::Quick => (25, 8),
        Size::Long => (520, 60),
    };
    let mut trials = vec![trial(format!("random::{kills}_kills"), setup.lasting(), move |world| {
        kill_one(world, kills);
    })];
    for daemons in [2, 4] {
        let name = format!("random::{daemons}_daemons_under_a_killer_for_{seconds}_seconds");
        trials.push(trial(name, setup.lasting(), move |world| kill_several(world, daemons, seconds)));
    }
    trials
}

/// Numbers that can be had again: xorshift.
struct Random(u64);

impl Random {
    fn new(what: &str) -> Self {
        let seed = std::env::var("ONCELET_TORTURE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) * 7919 + 1);
        eprintln!("{what}: repeat with ONCELET_TORTURE_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn apply(world: &World, container: &Container, names: &[String]) {
    let manifest = list(names.iter().map(|name| exec_manifest(name, container, &program(name, false))));
    world.apply(&manifest).unwrap();
}

fn names(wave: u32) -> Vec<String> {
    (0..WAVE).map(|number| format!("w{wave}-{number}")).collect()
}

fn kill_one(world: &mut World, kills: u32) {
    let mut random = Random::new("one daemon");
    world.start();
    let container = world.container("db");
    let mut done = 0;
    let mut wave = 0;
    while done < kills {
        let names = names(wave);
        wave += 1;
        apply(world, &container, &names);
        // Some kills to each wave, wherever that is in the lives of its runs.
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(random.below(400)));
            world.end(Signal::KILL);
            done += 1;
            figures::add("random kills of a daemon", 1);
            world.start();
            if world.is_embedded() {
                apply(world, &container, &names);
            }
        }
        finish(world, &container, &names);
    }
}

/// With a daemon that lives, everything comes to its true end.
fn finish(world: &World, container: &Container, names: &[String]) {
    for name in names {
        oracle::check(world, container, name);
    }
    let deleted: Vec<&str> = ["delete", "cexec"].into_iter().chain(names.iter().map(String::as_str)).collect();
    world.kubectl(&deleted).unwrap();
}

fn kill_several(world: &mut World, daemons: usize, seconds: u64) {
    let mut random = Random::new("several daemons");
    world.start();
    let container = world.container("db");
    let mut others: Vec<World> = (1..daemons).map(|_| world.start_second()).collect();
    let begun = Instant::now();
    let mut wave = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        let names = names(wave);
        wave += 1;
        apply(world, &container, &names);
        if world.is_embedded() {
            for other in &others {
                apply(other, &container, &names);
            }
        }
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(random.below(500)));
            let chosen = usize::try_from(random.below(daemons as u64)).unwrap();
            let victim = if chosen == 0 { &mut *world } else { &mut others[chosen - 1] };
            victim.end(Signal::KILL);
            victim.start();
            if victim.is_embedded() {
                apply(victim, &container, &names);
            }
            figures::add("kills among several daemons", 1);
        }
        finish(world, &container, &names);
        for other in &others {
            if other.is_embedded() {
                finish(other, &container, &names);
            }
        }
    }
}
