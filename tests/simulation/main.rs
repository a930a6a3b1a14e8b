//! The policies under a seeded life: what must hold whatever happens?
//!
//! `world` puts bulkhead, breaker and balancer together as the sidecar does, under a clock of its own, and
//! lets a generator choose what happens next: calls, faults, cancelled calls, results that come late,
//! endpoints that come, go and drain, forced states, reloads (`calls`, `changes`). After each step the
//! invariants are asked.
//! `reference` is the breaker's rules written down a second time, as naively as can be, and compared with
//! the real one after each of very many random steps. `traffic` is a p2c balancer under steady load, to see
//! where calls go when an endpoint stalls, recovers, or is new.
//!
//! A failing run prints its seed; `OUTRIGGER_SIM_SEED=N cargo test --test simulation` runs that one alone.

mod calls;
mod changes;
mod reference;
mod seen;
mod traffic;
mod world;

use outrigger::model::Random;

/// Says which seed it was, when a run panics.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("\nfailed with OUTRIGGER_SIM_SEED={}\n", self.0);
        }
    }
}

/// Runs once for each seed: those below `count`, or the one that the environment names.
fn for_each_seed(count: u64, run: impl Fn(Random)) {
    let seeds = match std::env::var("OUTRIGGER_SIM_SEED") {
        Ok(text) => vec![text.parse().expect("OUTRIGGER_SIM_SEED is a number")],
        Err(_) => (0..count).collect(),
    };
    for seed in seeds {
        let _announce = Announce(seed);
        run(Random::seeded(seed));
    }
}

#[test]
fn whatever_happens_nothing_leaks_and_nothing_sticks() {
    let seen = std::cell::RefCell::new(seen::Seen::default());
    for_each_seed(32, |random| {
        let mut world = world::World::new(random);
        for _ in 0..8_000 {
            world.step();
        }
        world.end_of_faults();
        seen.borrow_mut().add(world.seen());
    });
    let seen = seen.into_inner();
    println!("{seen:?}");
    if std::env::var_os("OUTRIGGER_SIM_SEED").is_none() {
        seen.has_everything();
    }
}

#[test]
fn the_breaker_does_as_its_naive_twin() {
    for_each_seed(48, |random| {
        reference::compare(random, 6_000);
    });
}

#[test]
fn p2c_leaves_an_endpoint_that_stalls_and_comes_back_to_it() {
    for_each_seed(8, traffic::steady_load);
}
