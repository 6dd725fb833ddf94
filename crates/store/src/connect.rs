//! Connections: how they are set up, and how the database is made and verified.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};
use uuid::Uuid;

use crate::OpenError;
use crate::dir::{self, StoreDir};
use crate::row;
use crate::sidecar::Sidecar;

/// `oncl`, as in the first migration.
const APPLICATION_ID: i64 = 0x6f6e_636c;
/// The schema that this release knows.
pub(crate) const SCHEMA: i64 = 5;
/// The lowest schema whose code may write to a store of [`SCHEMA`].
pub(crate) const MIN_WRITER: i64 = 2;
/// SQLite before it can corrupt a database to which several connections write.
const MIN_SQLITE: &str = "3.51.3";

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// For the one connection that writes.
fn writer_options(database: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(database)
        .create_if_missing(false)
        // Under NORMAL a power failure takes acknowledged claims with it, and their programs run twice.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("trusted_schema", "OFF")
        .busy_timeout(Duration::from_secs(5))
        .thread_name(|_| "oncelet-store-writer".into())
        .disable_statement_logging()
}

/// The connections that read.
pub(crate) fn reader_pool(dir: &StoreDir) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(dir.database())
        .read_only(true)
        .busy_timeout(Duration::from_secs(5))
        .thread_name(|number| format!("oncelet-store-reader-{number}"))
        .disable_statement_logging();
    // By default the pool closes connections after some time, each with a new thread and a cold cache to follow.
    SqlitePoolOptions::new().max_connections(4).max_lifetime(None).idle_timeout(None).connect_lazy_with(options)
}

/// Connects for writing, to a database that must be there and must be the store of `sidecar`.
pub(crate) async fn connect(dir: &StoreDir, sidecar: &Sidecar) -> Result<SqliteConnection, OpenError> {
    present(dir)?;
    let wrong = |error| dir.database_error(error);
    let mut conn = writer_options(&dir.database()).connect().await.map_err(wrong)?;
    verify(&mut conn, dir, sidecar).await?;
    // Only now: a database that is refused is not changed.
    sqlx::query("PRAGMA journal_mode = WAL").execute(&mut conn).await.map_err(wrong)?;
    let schema: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut conn).await.map_err(wrong)?;
    if schema < SCHEMA {
        migrate(&mut conn, dir).await?;
    }
    Ok(conn)
}

/// Refuses a database that is absent or empty.
pub(crate) fn present(dir: &StoreDir) -> Result<(), OpenError> {
    let path = dir.database();
    // By name: opening the file here and closing it again would drop the locks that SQLite holds on it.
    match fs::metadata(&path) {
        Ok(found) if found.len() == 0 => Err(OpenError::Empty { path }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::DatabaseMissing { path }),
        Err(source) => Err(OpenError::File { path, source }),
    }
}

/// Refuses a database that is not the store of `sidecar`, or not for this release.
pub(crate) async fn verify(conn: &mut SqliteConnection, dir: &StoreDir, sidecar: &Sidecar) -> Result<(), OpenError> {
    let wrong = |error| dir.database_error(error);
    let path = dir.database();
    let sqlite: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut *conn).await.map_err(wrong)?;
    if !is_good_sqlite(&sqlite) {
        return Err(OpenError::Library { found: sqlite, needed: MIN_SQLITE });
    }
    if !is_run_store(conn).await.map_err(wrong)? {
        return Err(OpenError::NotAStore { path });
    }
    let (uuid, min_writer): (String, i64) =
        sqlx::query_as("SELECT uuid, min_writer FROM store").fetch_one(&mut *conn).await.map_err(wrong)?;
    if uuid != sidecar.uuid.to_string() {
        return Err(OpenError::OtherStore { path, expected: sidecar.uuid.to_string(), found: uuid });
    }
    if min_writer > SCHEMA {
        return Err(OpenError::Newer { path, needed: min_writer, known: SCHEMA });
    }
    Ok(())
}

/// Makes the database, in such an order that a crash at any point leaves what the next call goes on from. Only under
/// the write lock.
pub(crate) async fn create(dir: &StoreDir, uuid: Uuid, now: Timestamp) -> Result<Sidecar, OpenError> {
    let sidecar = Sidecar { uuid, creating: true };
    let sidecar_error = |source| dir.file_error(dir.sidecar(), source);
    sidecar.write(dir).map_err(sidecar_error)?;
    let new = dir.new_database();
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut leftover = new.clone().into_os_string();
        leftover.push(suffix);
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(dir.file_error(leftover, error)),
            _ => {}
        }
    }
    // Made here for its mode, which SQLite then gives to the files that it makes beside it.
    dir::private().write(true).create_new(true).open(&new).map_err(|error| dir.file_error(&new, error))?;
    let wrong = |error| dir.database_error(error);
    let mut conn = writer_options(&new)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .connect()
        .await
        .map_err(wrong)?;
    migrate(&mut conn, dir).await?;
    sqlx::query("INSERT INTO store (id, uuid, min_writer, created_at) VALUES (1, ?1, ?2, ?3)")
        .bind(uuid.to_string())
        .bind(MIN_WRITER)
        .bind(row::nanos(now))
        .execute(&mut conn)
        .await
        .map_err(wrong)?;
    // The last connection that closes writes everything into the database file.
    conn.close().await.map_err(wrong)?;
    fs::rename(&new, dir.database())
        .and_then(|()| dir::sync_parent(&new))
        .map_err(|error| dir.file_error(dir.database(), error))?;
    dir::sync_ancestors(dir.path());
    let sidecar = Sidecar { creating: false, ..sidecar };
    sidecar.write(dir).map_err(sidecar_error)?;
    Ok(sidecar)
}

async fn migrate(conn: &mut SqliteConnection, dir: &StoreDir) -> Result<(), OpenError> {
    run_migrations(conn).await.map_err(|source| match source {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => dir.database_error(error),
        source => OpenError::Migrate { path: dir.database(), source },
    })
}

/// Brings a database to the schema of this release.
pub(crate) async fn run_migrations(conn: &mut SqliteConnection) -> Result<(), MigrateError> {
    MIGRATIONS.run_direct(None, conn, false).await
}

/// For the only connection to a database that is no store, or not yet.
pub(crate) fn alone(database: &Path) -> SqliteConnectOptions {
    writer_options(database).pragma("cell_size_check", "ON")
}

/// Whether a database says that it is a run store.
pub(crate) async fn is_run_store(conn: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(conn).await?;
    Ok(application == APPLICATION_ID)
}

/// The tables, indexes, triggers and views of a database: their kinds, names and text, but for SQLite's own, and for the table of the
/// migrator, whose text is not ours.
pub(crate) async fn schema_of(conn: &mut SqliteConnection) -> Result<Vec<(String, String, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
           AND (type, name) <> ('table', '_sqlx_migrations') ORDER BY type, name",
    )
    .fetch_all(conn)
    .await
}

/// The same of a store that this release makes.
pub(crate) async fn schema_of_this_release() -> Result<Vec<(String, String, String)>, sqlx::Error> {
    let mut conn = SqliteConnectOptions::new().in_memory(true).connect().await?;
    run_migrations(&mut conn).await.map_err(|error| sqlx::Error::Configuration(error.into()))?;
    let schema = schema_of(&mut conn).await;
    conn.close().await?;
    schema
}

fn is_good_sqlite(version: &str) -> bool {
    let number = |version: &str| -> Vec<u32> { version.split('.').filter_map(|part| part.parse().ok()).collect() };
    number(version) >= number(MIN_SQLITE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_that_can_corrupt_the_store_is_refused() {
        for (version, good) in [("3.51.2", false), ("3.7.0", false), ("3.51.3", true), ("3.52.0", true), ("4.0", true)]
        {
            assert_eq!(is_good_sqlite(version), good, "{version}");
        }
    }

    #[tokio::test]
    async fn connections_that_read_are_never_closed_for_their_age() {
        let dir = StoreDir::new(Path::new("/nonexistent")).unwrap();
        let pool = reader_pool(&dir);
        assert_eq!(pool.options().get_max_lifetime(), None);
        assert_eq!(pool.options().get_idle_timeout(), None);
    }
}
