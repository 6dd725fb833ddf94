//! Copies of a store, and stores that come back from them.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use oncelet_core::{Outcome, Ownership};
use oncelet_store::{BackupError, Claim, Logs, Store, Stream, restore};

use crate::support::{at, chain, claim, open, record, run, win};

/// A run that wrote `output` and has ended.
async fn finished(store: &Store, name: &str, output: &'static [u8]) {
    let lease = run(store, name).await;
    let mut log = store.log_writer(&lease, Stream::Stdout, None).await.unwrap();
    log.write(at(2), Bytes::from_static(output)).await.unwrap();
    let logs = Logs { stdout: log.finish().await.unwrap(), ..Logs::default() };
    store.finish(&lease, at(5), Outcome::Finished { exit_code: 3 }, logs).await.unwrap();
}

async fn output(store: &Store, name: &str) -> Vec<u8> {
    let mut log = store.read_log(record(store, name).await.id, Stream::Stdout).await.unwrap();
    let mut all = Vec::new();
    while let Some(chunk) = log.next_chunk().await.unwrap() {
        all.extend_from_slice(&chunk.bytes);
    }
    all
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("backup.tar.zst")
    }

    /// One with a store of a finished and of an open run, and a backup of it.
    async fn with_backup() -> Self {
        let home = Self::new();
        let store = open(&home.store()).await;
        finished(&store, "seed", b"seeded").await;
        run(&store, "going-on").await;
        store.backup(&home.file(), false, at(7)).await.unwrap();
        store.close().await;
        home
    }
}

#[tokio::test]
async fn a_backup_is_made_while_a_daemon_writes_and_brings_all_back() {
    let home = Home::new();
    let store = open(&home.store()).await;
    finished(&store, "seed", b"seeded").await;
    let going_on = run(&store, "going-on").await;
    let mut log = store.log_writer(&going_on, Stream::Stdout, None).await.unwrap();
    log.write(at(2), Bytes::from_static(b"first, ")).await.unwrap();
    log.flush().await.unwrap();
    // By another process, which only reads.
    let reader = Store::open_reader(&home.store()).await.unwrap();
    let made = reader.backup(&home.file(), false, at(7)).await.unwrap();
    assert_eq!((made.runs, made.bytes), (2, std::fs::metadata(home.file()).unwrap().len()));
    assert_eq!(std::fs::metadata(home.file()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(home.0.path()), ["backup.tar.zst", "store"], "nothing else stays behind");
    assert!(!home.store().join("backup.db").exists());
    // What comes after is not in it.
    finished(&store, "later", b"later").await;
    store.close().await;

    let other = Home::new();
    let restored = restore(&home.file(), &other.store(), false, at(9)).await.unwrap();
    assert_eq!((restored.runs, restored.open, restored.made_at, restored.replaced), (2, 1, at(7), None));
    let back = open(&other.store()).await;
    assert_eq!(record(&back, "seed").await, record(&reader, "seed").await);
    assert_eq!(output(&back, "seed").await, b"seeded");
    assert_eq!(output(&back, "going-on").await, b"first, ");
    let (open_run, ownership) = back.lookup(&crate::support::key("going-on")).await.unwrap().unwrap();
    assert_eq!(ownership, Ownership::Gone, "its daemon is not that of the new store");
    let lease = back.take_over(&open_run, at(10)).await.unwrap().unwrap();
    assert!(matches!(claim(&back, "later").await, Claim::Won(_)), "it is not in the backup");
    // Where the output of an open run ended, it goes on.
    assert_eq!(back.log_writer(&lease, Stream::Stdout, None).await.unwrap().offset(), 7);
}

#[tokio::test]
async fn a_backup_of_a_busy_store_has_the_output_of_every_run_that_it_calls_ended() {
    let home = Home::new();
    let store = open(&home.store()).await;
    let busy = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0_u32.. {
                let name = format!("run-{number}");
                finished(&store, &name, b"all of it").await;
                if number % 3 == 0 {
                    store.forget(record(&store, &name).await.id).await.unwrap();
                }
            }
        }
    });
    for round in 0..5 {
        while store.list(oncelet_store::Filter::default()).await.unwrap().len() < 10 * (round + 1) {
            tokio::task::yield_now().await;
        }
        store.backup(&home.file(), true, at(7)).await.unwrap();
        let other = Home::new();
        restore(&home.file(), &other.store(), false, at(9)).await.unwrap();
        let back = open(&other.store()).await;
        let runs = back.list(oncelet_store::Filter::default()).await.unwrap();
        assert!(runs.len() >= 10 * (round + 1) - 1, "{}", runs.len());
        for run in runs.iter().filter(|run| run.state.is_ended()) {
            let name = run.key.name.as_str().strip_prefix("team/").unwrap();
            assert_eq!(output(&back, name).await, b"all of it", "{name}");
        }
        back.close().await;
    }
    busy.abort();
}

#[tokio::test]
async fn neither_a_file_nor_a_store_is_replaced_unasked() {
    let home = Home::with_backup().await;
    let before = std::fs::read(home.file()).unwrap();
    let store = open(&home.store()).await;
    let refused = store.backup(&home.file(), false, at(8)).await.unwrap_err();
    assert!(matches!(refused, BackupError::Exists { .. }), "{refused}");
    assert_eq!(std::fs::read(home.file()).unwrap(), before);

    finished(&store, "later", b"later").await;
    let refused = restore(&home.file(), &home.store(), true, at(8)).await.unwrap_err();
    assert!(matches!(refused, BackupError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    store.close().await;
    let refused = restore(&home.file(), &home.store(), false, at(8)).await.unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty { .. }), "{refused}");
    assert!(refused.to_string().contains("has 3 runs"), "{refused}");

    let restored = restore(&home.file(), &home.store(), true, at(8)).await.unwrap();
    let aside = restored.replaced.unwrap();
    assert_eq!(
        names(home.0.path()),
        ["backup.tar.zst", "store", aside.file_name().unwrap().to_str().unwrap()],
        "the old store is aside, and nothing else is there"
    );
    let old = open(&aside).await;
    assert_eq!(output(&old, "later").await, b"later");
    let new = open(&home.store()).await;
    assert_eq!(output(&new, "seed").await, b"seeded");
    assert_eq!(new.lookup(&crate::support::key("later")).await.unwrap(), None);
}

/// Nobody opens a store in the moment in which another one takes its place, and goes on with the old one.
#[tokio::test]
async fn whoever_waits_to_open_the_store_gets_the_one_that_was_restored() {
    let home = Home::with_backup().await;
    let store = open(&home.store()).await;
    finished(&store, "later", b"later").await;
    store.close().await;
    for _ in 0..10 {
        let opening = tokio::spawn({
            let dir = home.store();
            async move { Store::open(&dir, at(8)).await.unwrap() }
        });
        let restored = restore(&home.file(), &home.store(), true, at(8)).await;
        let store = opening.await.unwrap();
        match restored {
            // It was faster.
            Err(BackupError::InUse { .. }) => {}
            Err(error) => panic!("{}", chain(&error)),
            Ok(_) => assert_eq!(store.lookup(&crate::support::key("later")).await.unwrap(), None),
        }
        // It writes to the store that is there.
        win(&store, "probe").await;
        store.close().await;
        assert!(
            Store::open_reader(&home.store())
                .await
                .unwrap()
                .lookup(&crate::support::key("probe"))
                .await
                .unwrap()
                .is_some()
        );
        restore(&home.file(), &home.store(), true, at(9)).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_is_empty_is_replaced_and_one_that_cannot_be_read_is_not() {
    let home = Home::with_backup().await;
    let other = Home::new();
    open(&other.store()).await.close().await;
    assert!(restore(&home.file(), &other.store(), false, at(9)).await.unwrap().replaced.is_some());

    std::fs::write(other.store().join("runs.db"), b"no database at all").unwrap();
    let refused = restore(&home.file(), &other.store(), false, at(9)).await.unwrap_err();
    assert!(refused.to_string().contains("cannot be read"), "{refused}");
    restore(&home.file(), &other.store(), true, at(9)).await.unwrap();
    assert_eq!(output(&open(&other.store()).await, "seed").await, b"seeded");
}

#[tokio::test]
async fn a_restore_that_was_cut_off_is_in_nobodys_way() {
    let home = Home::with_backup().await;
    let other = Home::new();
    let staging = other.0.path().join("store.restoring");
    std::fs::create_dir_all(staging.join("logs")).unwrap();
    std::fs::write(staging.join("incomplete"), b"").unwrap();
    std::fs::write(staging.join("runs.db"), b"half a").unwrap();
    restore(&home.file(), &other.store(), false, at(9)).await.unwrap();
    assert_eq!(names(other.0.path()), ["store"]);

    // Cut off right after the exchange: what lies there is the store that was replaced.
    std::fs::rename(other.store(), &staging).unwrap();
    restore(&home.file(), &other.store(), false, at(9)).await.unwrap();
    let left = names(other.0.path());
    assert!(left.len() == 2 && left[1].starts_with("store.replaced-"), "{left:?}");
    assert_eq!(output(&open(&other.0.path().join(&left[1])).await, "seed").await, b"seeded");
}

// --- archives that nobody should trust ---

/// The entries of a backup: name and content.
fn entries(file: &Path) -> Vec<(String, Vec<u8>)> {
    let mut tar = tar::Archive::new(zstd::Decoder::new(std::fs::File::open(file).unwrap()).unwrap());
    let read = |entry: std::io::Result<tar::Entry<_>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_owned(), content)
    };
    tar.entries().unwrap().map(read).collect()
}

fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    // Not by the library, which refuses what an attacker does not.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o600);
    header.set_size(size);
    header.set_cksum();
    header
}

/// Writes headers with their contents as an archive; a header may announce more than there is.
fn write(file: &Path, entries: &[(tar::Header, &[u8])]) {
    use sha2::{Digest, Sha256};
    let mut bytes = Vec::new();
    for (header, content) in entries {
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    let sum = format!("{:x}\n", Sha256::digest(&bytes));
    bytes.extend_from_slice(header("sha256", tar::EntryType::Regular, sum.len() as u64).as_bytes());
    bytes.extend_from_slice(sum.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    let mut encoder = zstd::Encoder::new(std::fs::File::create(file).unwrap(), 1).unwrap();
    encoder.write_all(&bytes).unwrap();
    encoder.finish().unwrap();
}

fn regular(name: &str, content: &[u8]) -> tar::Header {
    header(name, tar::EntryType::Regular, content.len() as u64)
}

/// Restores an archive over a store, and checks that nothing has changed. Gives back what was said.
async fn refused(home: &Home, archive: &Path) -> String {
    let before = names(&home.store());
    let outside = names(home.0.path());
    let error = restore(archive, &home.store(), true, at(9)).await.unwrap_err();
    assert_eq!(names(&home.store()), before);
    assert_eq!(names(home.0.path()), outside);
    let store = open(&home.store()).await;
    assert_eq!(output(&store, "seed").await, b"seeded");
    store.close().await;
    chain(&error)
}

#[tokio::test]
async fn an_archive_that_an_attacker_made_is_refused_and_changes_nothing() {
    use tar::EntryType::{Block, Fifo, GNULongName, GNUSparse, Link, Regular, Symlink, XHeader};
    let home = Home::with_backup().await;
    let good = entries(&home.file());
    let evil = home.0.path().join("evil.tar.zst");
    std::fs::write(&evil, b"").unwrap();
    let base: Vec<_> = good.iter().filter(|(name, _)| name != "sha256").collect();
    let with = |at: usize, extra: &[(tar::Header, &'static [u8])]| {
        let mut all: Vec<(tar::Header, &[u8])> =
            base.iter().map(|(name, content)| (regular(name, content), content.as_slice())).collect();
        for (number, extra) in extra.iter().enumerate() {
            all.insert(at + number, extra.clone());
        }
        write(&evil, &all);
    };
    // As it is, it is good.
    with(0, &[]);
    let other = Home::new();
    restore(&evil, &other.store(), false, at(9)).await.unwrap();

    let file = |name: &str| (regular(name, b"evil"), b"evil".as_slice());
    for name in
        ["../evil", "/etc/evil", "logs/../../evil", "logs/x", "store.json", "owners/x.lock", "logs/1-1.stdout.zst/x"]
    {
        with(2, &[file(name)]);
        let said = refused(&home, &evil).await;
        assert!(said.contains("no backup of a run store") && said.contains(name), "{said}");
    }
    with(2, &[file("logs/1-1.stdout.zst")]);
    assert!(refused(&home, &evil).await.contains("where it should not be"), "the same file twice");
    with(2, &[file("logs/77-1.stdout.zst")]);
    assert!(refused(&home, &evil).await.contains("is of no run"));
    for kind in [Symlink, Link, Block, Fifo, GNUSparse, GNULongName, XHeader] {
        let mut link = header("logs/9-1.stdout.zst", kind, 4);
        link.set_link_name("/etc/passwd").unwrap();
        link.set_cksum();
        with(2, &[(link, b"evil")]);
        let said = refused(&home, &evil).await;
        assert!(said.contains("is no regular file"), "{kind:?}: {said}");
    }
    for size in [1 << 50, u64::MAX - 1024] {
        with(2, &[(header("logs/9-1.stdout.zst", Regular, size), b"evil")]);
        let said = refused(&home, &evil).await;
        assert!(said.contains("MiB are needed") || said.contains("overflow"), "{said}");
    }
    with(0, &[file("runs.db")]);
    assert!(refused(&home, &evil).await.contains("does not begin as one"));
    std::fs::write(&evil, b"PK\x03\x04 something else").unwrap();
    assert!(refused(&home, &evil).await.contains("does not begin as one"));
    std::fs::remove_file(&evil).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &evil, rustix::fs::Mode::RWXU).unwrap();
    let waiting = tokio::time::timeout(std::time::Duration::from_secs(30), refused(&home, &evil)).await;
    assert!(waiting.unwrap().contains("no regular file"));
}

#[tokio::test]
async fn a_database_that_is_not_as_a_store_makes_it_is_refused() {
    let home = Home::with_backup().await;
    let good = entries(&home.file());
    let evil = home.0.path().join("evil.tar.zst");
    std::fs::write(&evil, b"").unwrap();
    let database = home.0.path().join("evil.db");
    for (change, said) in [
        ("CREATE TRIGGER evil AFTER INSERT ON run BEGIN DELETE FROM run_spec; END", "other tables and triggers"),
        ("DROP TRIGGER run_is_never_forgotten", "other tables and triggers"),
        ("CREATE VIEW evil AS SELECT 1", "other tables and triggers"),
        ("PRAGMA application_id = 7", "is no run store"),
        ("PRAGMA user_version = 99", "another schema"),
        ("UPDATE store SET min_writer = 99", "another schema"),
        ("UPDATE store SET uuid = 'b0b00000-0000-4000-8000-000000000000'", "another store"),
        ("UPDATE run_spec SET program = 'no JSON'", "program"),
        ("PRAGMA foreign_keys = OFF; DELETE FROM run_spec", "no program"),
    ] {
        let content = &good.iter().find(|(name, _)| name == "runs.db").unwrap().1;
        std::fs::write(&database, content).unwrap();
        crate::support::sql(&database, change).await;
        let content = std::fs::read(&database).unwrap();
        let all: Vec<_> = good.iter().filter(|(name, _)| name != "sha256").collect();
        let all: Vec<(tar::Header, &[u8])> = all
            .iter()
            .map(|(name, old)| {
                let content = if name == "runs.db" { &content } else { old };
                (regular(name, content), content.as_slice())
            })
            .collect();
        write(&evil, &all);
        let why = refused(&home, &evil).await;
        assert!(why.contains(said), "{change}: {why}");
    }
}

#[tokio::test]
async fn a_backup_that_was_damaged_on_its_way_is_refused() {
    let home = Home::with_backup().await;
    let good = std::fs::read(home.file()).unwrap();
    let evil = home.0.path().join("evil.tar.zst");
    for at in (0..good.len()).step_by(good.len() / 40) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&evil, &bytes).unwrap();
        refused(&home, &evil).await;
        std::fs::write(&evil, &good[..at]).unwrap();
        refused(&home, &evil).await;
    }
    // Whole for zstd, and changed before it was compressed.
    let mut parts = entries(&home.file());
    let log = parts.iter_mut().find(|(name, _)| name.starts_with("logs/")).unwrap();
    log.1[8] ^= 1;
    let sum = parts.pop().unwrap();
    let mut all: Vec<(tar::Header, &[u8])> =
        parts.iter().map(|(name, it)| (regular(name, it), it.as_slice())).collect();
    all.push((regular("sha256", &sum.1), &sum.1));
    write(&evil, &all);
    assert!(refused(&home, &evil).await.contains("SHA-256"));
}

#[tokio::test]
async fn a_backup_of_a_later_release_names_it() {
    let home = Home::with_backup().await;
    let evil = home.0.path().join("evil.tar.zst");
    std::fs::write(&evil, b"").unwrap();
    for (what, text) in [
        ("format 2", r#"{"format":2,"oncelet":"9.0.0","everything":"is different"}"#),
        ("schema 99", r#"{"format":1,"oncelet":"9.0.0","schema":99}"#),
    ] {
        write(&evil, &[(regular("oncelet-backup.json", text.as_bytes()), text.as_bytes())]);
        let said = refused(&home, &evil).await;
        assert!(said.contains(what) && said.contains("9.0.0"), "{said}");
    }
}
