//! A simulator of the whole of it around the real decisions: objects, daemons, a store, an engine and containers, of which
//! everything may fail at any step, chosen by a seed.
//!
//! The executor in [`daemon`] is as dull as the controller: it asks [`decide`], [`examine`], [`judge`] and
//! [`RunState::next`](oncelet_core::RunState::next), and does what they say, one step at a time. The oracle in [`world`] counts
//! the starts of programs inside the simulated containers.
//!
//! A seed that fails is repeated, with a trace, by `ONCELET_SIM_SEED=<seed> cargo test -p oncelet-core --test simulator`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod daemon;
mod defects;
mod random;
mod world;

use daemon::Daemon;
use defects::Defect;
use random::Random;
use world::World;

/// How many seeds are tried.
const SEEDS: u64 = 20_000;
/// How many steps the trouble lasts.
const STEPS: u32 = 160;

/// Runs one seed; what it says is what went wrong.
fn simulate(seed: u64, defect: Option<Defect>, trace: bool) -> Result<Figures, String> {
    let mut random = Random::new(seed);
    let mut world = World::new(&mut random, defect, trace);
    let mut daemons: Vec<Daemon> = (0..=random.below(2)).map(|number| Daemon::new(number, defect)).collect();
    for _ in 0..STEPS {
        step(&mut world, &mut daemons, &mut random);
        world.check()?;
    }
    // Peace: nothing more fails, and one daemon lives. Everything comes to its end.
    world.make_peace();
    let survivor = daemons.len() - 1;
    for daemon in &mut daemons[..survivor] {
        daemon.die(&mut world);
    }
    daemons[survivor].revive(&mut world);
    for _ in 0..400 {
        world.calm_step(&mut random);
        daemons[survivor].step(&mut world, &mut random);
        world.check()?;
    }
    world.check_end(&daemons[survivor])?;
    Ok(Figures { starts: world.all_starts(), kills: world.kills })
}

/// What happened in a seed.
struct Figures {
    starts: u64,
    kills: u64,
}

fn step(world: &mut World, daemons: &mut [Daemon], random: &mut Random) {
    let number = usize::try_from(random.below(daemons.len() as u64)).unwrap();
    match random.below(100) {
        0..60 => daemons[number].step(world, random),
        60..64 => daemons[number].die(world),
        64..70 => daemons[number].revive(world),
        70..72 => daemons[number].paused = !daemons[number].paused,
        _ => world.trouble(random),
    }
}

#[test]
fn no_seed_breaks_the_promise() {
    if let Ok(seed) = std::env::var("ONCELET_SIM_SEED") {
        simulate(seed.parse().unwrap(), None, true).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        return;
    }
    let (mut starts, mut kills) = (0, 0);
    for seed in 1..=SEEDS {
        let figures = simulate(seed, None, false)
            .unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}\nrepeat it with ONCELET_SIM_SEED={seed}"));
        starts += figures.starts;
        kills += figures.kills;
    }
    println!("{SEEDS} seeds: {starts} programs started, {kills} daemons killed");
    assert!(starts > SEEDS && kills > SEEDS, "the simulator does nothing: {starts} starts, {kills} kills");
}

/// A simulator that finds nothing wrong proves nothing: each planted defect must be found.
#[test]
fn every_planted_defect_is_found() {
    for defect in Defect::ALL {
        let found = (1..=SEEDS).find_map(|seed| simulate(seed, Some(defect), false).err().map(|wrong| (seed, wrong)));
        let (seed, wrong) = found.unwrap_or_else(|| panic!("{defect:?} is not found in {SEEDS} seeds"));
        println!("{defect:?} is found by seed {seed}: {wrong}");
    }
}
