//! Containers that their engine does not know.

use jiff::Timestamp;
use sqlx::SqliteConnection;

use crate::StoreError;
use crate::row::nanos;
use crate::writer::Change;

/// Notes whether an engine knows a container.
pub(crate) struct Sighting {
    pub(crate) engine_id: String,
    pub(crate) container_id: String,
    pub(crate) present: bool,
    pub(crate) now: Timestamp,
}

impl Change for Sighting {
    type Answer = ();

    async fn apply(&self, conn: &mut SqliteConnection) -> Result<(), StoreError> {
        if self.present {
            sqlx::query("DELETE FROM absence WHERE engine_id = ?1 AND container_id = ?2")
                .bind(&self.engine_id)
                .bind(&self.container_id)
                .execute(conn)
                .await?;
        } else {
            // The earlier of the two, so that a clock which was ahead makes no absence that never ends.
            sqlx::query(
                "INSERT INTO absence (engine_id, container_id, first_seen) VALUES (?1, ?2, ?3) \
                 ON CONFLICT DO UPDATE SET first_seen = min(first_seen, excluded.first_seen)",
            )
            .bind(&self.engine_id)
            .bind(&self.container_id)
            .bind(nanos(self.now))
            .execute(conn)
            .await?;
        }
        Ok(())
    }
}
