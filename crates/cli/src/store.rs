//! Backups of the run store.

use anyhow::Result;

use crate::args::{Store as StoreCommand, StoreBackup, StoreRestore};
use crate::clock::now;
use crate::paths::Paths;

/// Runs one of the subcommands.
pub(crate) async fn run(command: StoreCommand) -> Result<()> {
    match command {
        StoreCommand::Backup(args) => backup(args).await,
        StoreCommand::Restore(args) => restore(args).await,
    }
}

async fn backup(args: StoreBackup) -> Result<()> {
    let dir = Paths::new(args.data)?.store();
    let store = oncelet_store::Store::open_reader(&dir).await?;
    let made = store.backup(&args.file, args.force, now()).await;
    store.close().await;
    let made = made?;
    println!("{} of {} backed up to {} ({} KiB)", runs(made.runs), dir.display(), args.file.display(), kib(made.bytes));
    Ok(())
}

async fn restore(args: StoreRestore) -> Result<()> {
    let dir = Paths::new(args.data)?.store();
    let restored = oncelet_store::restore(&args.file, &dir, args.force, now()).await?;
    println!("{} of {:.0} restored to {}", runs(restored.runs), restored.made_at, dir.display());
    if restored.open > 0 {
        println!("{} not over then: how they ended is read from their containers by the next daemon", restored.open);
    }
    if let Some(old) = restored.replaced {
        println!("the store that was there before is now {}", old.display());
    }
    Ok(())
}

fn runs(number: u64) -> String {
    if number == 1 { "1 run".to_owned() } else { format!("{number} runs") }
}

fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024)
}
