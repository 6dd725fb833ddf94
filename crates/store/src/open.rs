//! Opening a store, or saying why not.

use std::path::Path;

use jiff::Timestamp;
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::dir::{self, StoreDir};
use crate::lock::WriteLock;
use crate::owner::{self, OwnerId, SignOfLife};
use crate::secrets::SecretKey;
use crate::sidecar::Sidecar;
use crate::store::{Daemon, Store};
use crate::writer::Writer;
use crate::{OpenError, connect};

/// Below so much free room no program is started: its outcome might not fit.
pub(crate) const MIN_FREE: u64 = 64 * 1024 * 1024;

impl Store {
    /// Opens the store in `dir` for a daemon, and makes it where there is none.
    ///
    /// # Guarantees
    /// - Any number of daemons may open one store at once.
    /// - A store that lost its memory, or that this release cannot write, is refused and stays as it is.
    pub async fn open(dir: &Path, now: Timestamp) -> Result<Self, OpenError> {
        Self::open_keeping(dir, now, MIN_FREE).await
    }

    /// [`Store::open`], with the room in bytes that must be free for a claim.
    #[doc(hidden)]
    pub async fn open_keeping(dir: &Path, now: Timestamp, min_free: u64) -> Result<Self, OpenError> {
        let dir = layout(dir)?;
        dir.create().map_err(|error| dir.file_error(dir.path(), error))?;
        refuse_untrusted(&dir)?;
        // Nothing but this lock keeps two daemons from making one store at once.
        let lock = WriteLock::acquire(&dir).await?;
        let sidecar = find_or_create(&dir, now).await?;
        let mut conn = connect::connect(&dir, &sidecar).await?;
        let id = OwnerId::new();
        let life = SignOfLife::create(&dir.owners(), id).map_err(|error| dir.file_error(dir.owners(), error))?;
        let secret_key = SecretKey::of(&mut conn).await.map_err(|error| dir.database_error(error))?;
        let row = introduce(&mut conn, &dir, id, now).await.map_err(|error| dir.database_error(error))?;
        drop(lock);
        let uuid = sidecar.uuid;
        let writer = Writer::spawn(dir.clone(), sidecar, conn, min_free, life);
        Ok(Self::assemble(
            connect::reader_pool(&dir),
            dir,
            uuid,
            Some(Daemon { id, row, min_free, secret_key, writer }),
        ))
    }

    /// Opens the store in `dir` for reading. Makes nothing.
    pub async fn open_reader(dir: &Path) -> Result<Self, OpenError> {
        let dir = layout(dir)?;
        let sidecar = match (Sidecar::read(&dir)?, connect::present(&dir)) {
            (None, Err(OpenError::DatabaseMissing { .. })) | (Some(Sidecar { creating: true, .. }), _) => {
                return Err(OpenError::NotFound { dir: dir.path().to_owned() });
            }
            (None, _) => return Err(OpenError::SidecarMissing { path: dir.sidecar() }),
            (Some(_), Err(error)) => return Err(error),
            (Some(sidecar), Ok(())) => sidecar,
        };
        let pool = connect::reader_pool(&dir);
        let mut conn = pool.acquire().await.map_err(|error| dir.database_error(error))?;
        connect::verify(&mut conn, &dir, &sidecar).await?;
        drop(conn);
        Ok(Self::assemble(pool, dir, sidecar.uuid, None))
    }
}

fn layout(dir: &Path) -> Result<StoreDir, OpenError> {
    StoreDir::new(dir).map_err(|source| OpenError::File { path: dir.to_owned(), source })
}

fn refuse_untrusted(dir: &StoreDir) -> Result<(), OpenError> {
    match dir::untrusted_filesystem(dir.path()).map_err(|error| dir.file_error(dir.path(), error))? {
        Some(filesystem) => Err(OpenError::Filesystem { dir: dir.path().to_owned(), filesystem }),
        None => Ok(()),
    }
}

/// The sidecar of the store, which is made where there was none.
async fn find_or_create(dir: &StoreDir, now: Timestamp) -> Result<Sidecar, OpenError> {
    match (Sidecar::read(dir)?, connect::present(dir)) {
        (Some(sidecar), Ok(())) if sidecar.creating => {
            // The last step of a creation that was cut off.
            let sidecar = Sidecar { creating: false, ..sidecar };
            sidecar.write(dir).map_err(|error| dir.file_error(dir.sidecar(), error))?;
            Ok(sidecar)
        }
        (Some(sidecar), Err(OpenError::DatabaseMissing { .. })) if sidecar.creating => {
            connect::create(dir, sidecar.uuid, now).await
        }
        (None, Err(OpenError::DatabaseMissing { .. })) => connect::create(dir, Uuid::new_v4(), now).await,
        (None, Err(OpenError::Empty { path })) => Err(OpenError::Empty { path }),
        (None, _) => Err(OpenError::SidecarMissing { path: dir.sidecar() }),
        (Some(_), Err(error)) => Err(error),
        (Some(sidecar), Ok(())) => Ok(sidecar),
    }
}

/// Makes the daemon known, and forgets those that are gone.
async fn introduce(
    conn: &mut SqliteConnection,
    dir: &StoreDir,
    id: OwnerId,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    use sqlx::Connection;
    let mut transaction = conn.begin_with("BEGIN IMMEDIATE").await?;
    owner::sweep(&mut transaction, &dir.owners()).await?;
    let row = owner::register(&mut transaction, id, now).await?;
    transaction.commit().await?;
    Ok(row)
}
