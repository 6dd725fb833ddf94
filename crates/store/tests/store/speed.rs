//! How fast the store is, as ratios to what the disk can do. Run by hand, in release:
//! `cargo test --release -p oncelet-store speed -- --ignored --nocapture`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use oncelet_core::Outcome;
use oncelet_store::Logs;

use crate::support::{at, created, key, new_run, open, started, win};

const MEASURE: Duration = Duration::from_secs(2);

/// 4 KiB overwrites made durable, per second.
fn disk(dir: &Path) -> f64 {
    let file = File::create(dir.join("disk")).unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync_all().unwrap();
    let begin = Instant::now();
    let mut count = 0.0;
    while begin.elapsed() < MEASURE {
        file.write_all_at(&[2; 4096], 0).unwrap();
        file.sync_data().unwrap();
        count += 1.0;
    }
    count / begin.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = open(dir.path()).await;
    let disk = disk(dir.path());
    println!("disk: R = {disk:.0}/s");

    let begin = Instant::now();
    let mut count = 0.0;
    while begin.elapsed() < MEASURE {
        win(&store, &format!("one-{count}")).await;
        count += 1.0;
    }
    println!("claims, one caller: {:.2} R", count / begin.elapsed().as_secs_f64() / disk);

    let begin = Instant::now();
    let mut count = 0.0;
    while begin.elapsed() < MEASURE {
        let lease = win(&store, &format!("whole-{count}")).await;
        store.advance(&lease, created("e")).await.unwrap();
        store.advance(&lease, started()).await.unwrap();
        store.finish(&lease, at(3), Outcome::Finished { exit_code: 0 }, Logs::default()).await.unwrap();
        count += 1.0;
    }
    println!("whole runs (4 commits), one caller: {:.2} R", count / begin.elapsed().as_secs_f64() / disk);

    let begin = Instant::now();
    let callers = (0..64).map(|caller| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut count = 0.0;
            while begin.elapsed() < MEASURE {
                store.claim(new_run(key(&format!("{caller}-{count}")))).await.unwrap();
                count += 1.0;
            }
            count
        })
    });
    let count: f64 = futures::future::join_all(callers).await.into_iter().map(Result::unwrap).sum();
    println!("claims, 64 callers: {:.2} R", count / begin.elapsed().as_secs_f64() / disk);
}
