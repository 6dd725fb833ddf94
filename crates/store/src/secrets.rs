//! The key under which secrets are hashed. It is a row of the database, so that a backup has it, and never leaves it.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use sqlx::SqliteConnection;
use uuid::Uuid;

/// The key. Without it a hash tells nothing, however few values there are to try.
#[derive(Clone)]
pub(crate) struct SecretKey(Vec<u8>);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl SecretKey {
    /// The key of a database, which is made once. Only under the write lock.
    pub(crate) async fn of(conn: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        // Each has 122 bits from the system's generator.
        let random = [Uuid::new_v4(), Uuid::new_v4()].map(Uuid::into_bytes).concat();
        sqlx::query("UPDATE store SET secret_key = ?1 WHERE secret_key IS NULL")
            .bind(random)
            .execute(&mut *conn)
            .await?;
        sqlx::query_scalar("SELECT secret_key FROM store").fetch_one(conn).await.map(Self)
    }

    /// The hash of a secret: HMAC-SHA-256 in hex. `what` tells equal values of different things apart.
    pub(crate) fn hash(&self, what: &str, secret: &[u8]) -> String {
        // A key may have any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(what.as_bytes());
        mac.update(&[0]);
        mac.update(secret);
        format!("{:x}", mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_the_key_the_thing_and_the_value() {
        let hash = |key: u8, what, secret: &[u8]| SecretKey(vec![key; 32]).hash(what, secret);
        let first = hash(1, "PW", b"hunter2");
        assert_eq!(first, hash(1, "PW", b"hunter2"));
        for other in [hash(2, "PW", b"hunter2"), hash(1, "URL", b"hunter2"), hash(1, "PW", b"hunter3")] {
            assert!(other.len() == 64 && other != first);
        }
    }
}
