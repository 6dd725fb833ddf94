use jiff::Timestamp;
use oncelet_core::{Capture, Effective, Program, RunKey, RunName};
use oncelet_store::{Claim, NewRun, Store};
use std::time::{Duration, Instant};
fn main() {
    let callers: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let secs: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let rt = tokio::runtime::Runtime::new().unwrap();
    rt.block_on(async {
        let store = Store::open(dir.path(), Timestamp::now()).await.unwrap();
        let begun = Instant::now();
        let store = &store;
        let each = (0..callers).map(|caller| async move {
            let mut n = 0;
            while begun.elapsed() < Duration::from_secs(secs) {
                let container_id = "c0ffee".repeat(10);
                let new = NewRun {
                    key: RunKey {
                        ident: container_id.clone(),
                        name: RunName::of_object("bench", &format!("{caller}-{n}")),
                        token: String::new(),
                    },
                    container_id,
                    container_name: "db".into(),
                    engine: "unix:///var/run/docker.sock".into(),
                    engine_id: None,
                    object_uid: "11111111-2222-3333-4444-555555555555".into(),
                    program: Program {
                        command: "psql".into(),
                        args: vec!["-f".into(), "/seed.sql".into()],
                        ..Program::default()
                    },
                    effective: Effective { args: Vec::new(), env: Vec::new() },
                    capture: Capture::Supervised,
                    now: Timestamp::now(),
                };
                assert!(matches!(store.claim(new).await.unwrap(), Claim::Won(_)));
                n += 1;
            }
            n
        });
        let n: usize = futures::future::join_all(each).await.into_iter().sum();
        println!("{callers} callers: {:.0}/s", n as f64 / begun.elapsed().as_secs_f64());
        store.close().await;
    });
}
