//! The run store beside the disk it is on.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use oncelet_core::{Capture, Effective, Outcome, Program, RunEvent, RunKey, RunName};
use oncelet_store::{Claim, Lease, Logs, NewRun, Store};
use tokio::runtime::Runtime;

use crate::report::{Figure, Measure, Report, Section};

const CALLERS: usize = 64;
const MEASURE: Duration = Duration::from_secs(2);

/// Claims a second beside overwrites of 4 KiB that are made durable, in turn.
pub(crate) fn measure(runtime: &Runtime, dir: &Path, rounds: usize) -> Section {
    let store = runtime.block_on(Store::open(&dir.join("store"), Timestamp::now())).unwrap();
    let (mut alone, mut together, mut disk) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        disk.push(overwrites(dir));
        together.push(runtime.block_on(claims(&store, CALLERS, round)));
        alone.push(runtime.block_on(claims(&store, 1, round)));
    }
    runtime.block_on(store.close());
    let mut report = Report::default();
    let [alone, together, disk] = [alone, together, disk].map(|all| Figure::median(&all));
    report.rate(Measure::of("claims", &format!("{CALLERS} callers"), "/s"), &together, &disk, 2.5);
    report.rate(Measure::of("claims", "one caller", "/s"), &alone, &disk, 0.5);
    Section { name: "the store", ours: "run store", theirs: "fdatasync", report }
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
async fn claims(store: &Store, callers: usize, round: usize) -> f64 {
    let begun = Instant::now();
    let each = (0..callers).map(|caller| async move {
        let mut count = 0;
        while begun.elapsed() < MEASURE {
            claim(store, format!("{round}-{callers}-{caller}-{count}")).await;
            count += 1;
        }
        count
    });
    let count: usize = futures::future::join_all(each).await.into_iter().sum();
    count as f64 / begun.elapsed().as_secs_f64()
}

fn overwrites(dir: &Path) -> f64 {
    let file = File::create(dir.join("disk")).unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync_all().unwrap();
    let begun = Instant::now();
    let mut count = 0.0;
    while begun.elapsed() < MEASURE {
        file.write_all_at(&[2; 4096], 0).unwrap();
        file.sync_data().unwrap();
        count += 1.0;
    }
    count / begun.elapsed().as_secs_f64()
}

/// Puts so many runs that are over into the store of a daemon, which may be using it.
pub(crate) async fn fill(dir: &Path, count: usize) {
    let store = Store::open(dir, Timestamp::now()).await.unwrap();
    let store = &store;
    stream::iter(0..count)
        .map(|number| async move {
            let lease = claim(store, format!("filler-{number}")).await;
            let at = Timestamp::now();
            store.advance(&lease, RunEvent::ExecCreated { exec_id: format!("{number:064x}") }).await.unwrap();
            store.advance(&lease, RunEvent::Started { at }).await.unwrap();
            store.finish(&lease, at, Outcome::Finished { exit_code: 0 }, Logs::default()).await.unwrap();
        })
        .buffer_unordered(256)
        .collect::<()>()
        .await;
    store.close().await;
}

async fn claim(store: &Store, name: String) -> Lease {
    let container_id = "c0ffee".repeat(10);
    let new = NewRun {
        key: RunKey { ident: container_id.clone(), name: RunName::of_object("bench", &name), token: String::new() },
        container_id,
        container_name: "db".into(),
        engine: "unix:///var/run/docker.sock".into(),
        engine_id: None,
        object_uid: "11111111-2222-3333-4444-555555555555".into(),
        objects: None,
        program: Program { command: "psql".into(), args: vec!["-f".into(), "/seed.sql".into()], ..Program::default() },
        effective: Effective { args: Vec::new(), env: Vec::new(), stdin: None },
        log_limit: oncelet_core::DEFAULT_LOG_LIMIT,
        capture: Capture::Supervised,
        now: Timestamp::now(),
    };
    match store.claim(new).await.unwrap() {
        Claim::Won(lease) => lease,
        Claim::Held(record, _) => panic!("somebody has {}", record.key.name),
    }
}
