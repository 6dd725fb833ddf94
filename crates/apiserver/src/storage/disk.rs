//! Objects on disk, where somebody asked for that: a SQLite file that holds the last state of each.
//!
//! Every write is in the file before anybody hears of it: the answer to the request waits for it, and so do watchers. Writes
//! that come at the same time share one commit.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteLockingMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Key, Stored, stored};
use crate::Error;
use crate::files::new_private;

/// `onca`, which tells the file from other databases.
const APPLICATION_ID: i64 = 0x6f6e_6361;
/// The schema that this release writes.
const SCHEMA: i64 = 1;
/// Writes in one commit, at most.
const BATCH: usize = 512;
/// How long to wait before a commit that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// One write, on its way to the disk.
pub(super) struct Write {
    pub(super) table: Arc<str>,
    pub(super) object: Arc<Stored>,
    pub(super) gone: bool,
}

/// The way to the disk. Never holds up a writer: requests wait for their own writes, and there are only so many at a time.
pub(super) struct Disk {
    queue: UnboundedSender<Write>,
    trouble: Arc<Mutex<Option<String>>>,
    closing: CancellationToken,
    task: TaskTracker,
}

impl Disk {
    pub(super) fn write(&self, write: Write) {
        // The other end lives as long as this one, unless it panicked: then nothing is ever acknowledged again.
        let _ = self.queue.send(write);
    }

    /// Writes what is queued, and closes the file: another server can open it then. What is written later is lost, and never
    /// acknowledged.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.task.wait().await;
    }

    /// Why the last commit failed, while none has succeeded since.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The file of objects, open for this server alone.
pub(crate) struct ObjectFile {
    conn: SqliteConnection,
    path: PathBuf,
}

/// What the file held when it was opened.
pub(crate) type Kept = Vec<(Arc<str>, Stored)>;

impl ObjectFile {
    /// Opens the file, and makes it where there is none; returns what is in it.
    pub(crate) async fn open(path: &Path) -> Result<(Self, Kept), Error> {
        let wrong = |source| Error::Objects { path: path.to_owned(), source: Box::new(source) };
        // Made here for its mode, which SQLite then gives to the files that it makes beside it.
        new_private(path).map_err(|source| Error::state(path, source))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            // A second server would write over what this one remembers.
            .locking_mode(SqliteLockingMode::Exclusive)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::ZERO)
            .thread_name(|_| "oncelet-objects".into())
            .disable_statement_logging();
        let mut conn = options.connect().await.map_err(wrong)?;
        make_or_check(&mut conn, path).await?;
        let mut objects = Vec::new();
        let rows = sqlx::query("SELECT resource, namespace, name, version, object FROM object").fetch_all(&mut conn);
        for row in rows.await.map_err(wrong)? {
            let (table, namespace, name): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
            let json: &str = row.get(4);
            let value = stored::parse(json.as_bytes()).map_err(|error| wrong(sqlx::Error::decode(error)))?;
            let version = u64::try_from(row.get::<i64, _>(3)).unwrap_or_default();
            objects.push((Arc::from(table), Stored::new(Key::new(namespace, name), version, &value)));
        }
        Ok((Self { conn, path: path.to_owned() }, objects))
    }

    /// Writes what comes, and tells `durable` how far it is.
    pub(super) fn keep_writing(self, durable: watch::Sender<u64>) -> Disk {
        let (queue, writes) = mpsc::unbounded_channel();
        let trouble = Arc::new(Mutex::new(None));
        let (closing, task) = (CancellationToken::new(), TaskTracker::new());
        task.spawn(write_all(self, writes, durable, Arc::clone(&trouble), closing.clone()));
        task.close();
        Disk { queue, trouble, closing, task }
    }

    async fn commit(&mut self, batch: &[Write]) -> sqlx::Result<()> {
        let mut transaction = self.conn.begin().await?;
        for Write { table, object, gone } in batch {
            let Key { namespace, name } = &object.key;
            let query = if *gone {
                sqlx::query("DELETE FROM object WHERE resource = ?1 AND namespace = ?2 AND name = ?3")
            } else {
                sqlx::query(
                    "INSERT INTO object (resource, namespace, name, version, object) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT DO UPDATE SET version = excluded.version, object = excluded.object",
                )
            };
            let query = query.bind(&**table).bind(namespace).bind(name);
            let query = if *gone {
                query
            } else {
                query.bind(i64::try_from(object.version).unwrap_or(i64::MAX)).bind(object.text())
            };
            query.execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }
}

async fn make_or_check(conn: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    let wrong = |source| Error::Objects { path: path.to_owned(), source: Box::new(source) };
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *conn).await.map_err(wrong)?;
    let schema: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *conn).await.map_err(wrong)?;
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *conn).await.map_err(wrong)?;
    if (application, schema, tables) == (0, 0, 0) {
        sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *conn).await.map_err(wrong)?;
        let mut making = conn.begin().await.map_err(wrong)?;
        for statement in [
            "CREATE TABLE object (resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
             version INTEGER NOT NULL, object TEXT NOT NULL, PRIMARY KEY (resource, namespace, name)) STRICT"
                .to_owned(),
            format!("PRAGMA application_id = {APPLICATION_ID}"),
            format!("PRAGMA user_version = {SCHEMA}"),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut *making).await.map_err(wrong)?;
        }
        return making.commit().await.map_err(wrong);
    }
    if application != APPLICATION_ID {
        return Err(Error::NotObjects { path: path.to_owned() });
    }
    if schema > SCHEMA {
        return Err(Error::NewerObjects { path: path.to_owned(), found: schema, known: SCHEMA });
    }
    Ok(())
}

async fn write_all(
    mut file: ObjectFile,
    mut writes: UnboundedReceiver<Write>,
    durable: watch::Sender<u64>,
    trouble: Arc<Mutex<Option<String>>>,
    closing: CancellationToken,
) {
    let say = |what: Option<String>| *trouble.lock().unwrap_or_else(PoisonError::into_inner) = what;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        // What is queued is written before the end.
        let received = tokio::select! {
            biased;
            received = writes.recv_many(&mut batch, BATCH) => received,
            () = closing.cancelled() => 0,
        };
        if received == 0 {
            break;
        }
        let newest = batch.last().map_or(0, |write| write.object.version);
        while let Err(error) = file.commit(&batch).await {
            tracing::error!(path = %file.path.display(), %error, "objects cannot be written; it is tried again");
            say(Some(error.to_string()));
            if closing.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                tracing::error!(path = %file.path.display(), "the last writes are lost; nobody was told that they succeeded");
                return;
            }
        }
        say(None);
        durable.send_replace(newest);
        batch.clear();
    }
    if let Err(error) = file.conn.close().await {
        tracing::warn!(path = %file.path.display(), %error, "the file of objects was not closed cleanly");
    }
}
