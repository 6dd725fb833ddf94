//! What a run is remembered by.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::program::hex;

/// The key of a run: at most one run exists per key, ever.
///
/// `ident` is the engine's full container ID (64 hex digits) or, with `scope: Name`, the name under which the
/// memory is kept across recreates of a container. It never holds the engine's address: the same container
/// reached over another socket is still the same container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    /// Which container.
    pub ident: String,
    /// Which program: `spec.runKey`, `<namespace>/runKey/<spec.runKey>`, or `<namespace>/<object name>`.
    pub name: RunName,
    /// What makes a repeat deliberate; empty by default.
    pub token: String,
}

impl RunKey {
    /// 32 hex digits that stand for the key where it cannot be written: as the name of a directory in the container.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.ident, self.name.as_str(), &self.token] {
            // With its length, so that no two keys look alike when they are joined.
            hash.update(part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut digest = hex(&hash.finalize());
        digest.truncate(32);
        digest
    }
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ident = self.ident.get(..12).unwrap_or(&self.ident);
        write!(f, "{} in {ident}", self.name)?;
        if self.token.is_empty() { Ok(()) } else { write!(f, " ({})", self.token) }
    }
}

/// The name of a run: printable, 1 to 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunName(String);

const LONGEST: usize = 512;

/// A run name that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a run name has 1 to 512 bytes and no control characters, got {0:?}")]
pub struct InvalidName(String);

impl RunName {
    /// The name of the object `namespace/object`.
    pub fn of_object(namespace: &str, object: &str) -> Self {
        Self(format!("{namespace}/{object}"))
    }

    /// The name for a run key that is `namespace`'s own. It has a part more than that of an object, whose name has no slash.
    pub fn of_run_key(namespace: &str, key: &str) -> Self {
        let name = format!("{namespace}/runKey/{key}");
        if name.len() <= LONGEST {
            return Self(name);
        }
        Self(format!("{namespace}/runKey/sha256:{}", hex(&Sha256::digest(key.as_bytes()))))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RunName {
    type Error = InvalidName;

    fn try_from(name: String) -> Result<Self, InvalidName> {
        if name.is_empty() || name.len() > LONGEST || name.chars().any(char::is_control) {
            return Err(InvalidName(name));
        }
        Ok(Self(name))
    }
}

impl From<RunName> for String {
    fn from(name: RunName) -> Self {
        name.0
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_look_alike_when_joined_have_different_digests() {
        let key = |name: &str, token: &str| {
            RunKey { ident: "c".into(), name: name.to_owned().try_into().unwrap(), token: token.into() }.digest()
        };
        assert_eq!(key("a", "b"), key("a", "b"));
        assert_eq!(key("a", "b").len(), 32);
        assert_ne!(key("ab", "c"), key("a", "bc"));
    }

    #[test]
    fn a_run_key_of_one_namespace_is_that_of_no_other_and_of_no_object() {
        let name = |namespace: &str, key: &str| RunName::of_run_key(namespace, key);
        assert_eq!(name("a", "schema v1").as_str(), "a/runKey/schema v1");
        assert_ne!(name("a", "b/runKey/x"), name("b", "x"));
        assert_ne!(name("a", "seed"), RunName::of_object("a", "seed"));
        let (long, longer) = (name("a", &"k".repeat(512)), name("a", &"k".repeat(511)));
        assert_ne!(long, longer);
        for name in [long, longer] {
            assert_eq!(RunName::try_from(name.as_str().to_owned()), Ok(name));
        }
    }

    #[test]
    fn a_name_with_a_line_break_is_refused() {
        assert!(RunName::try_from("seed\n".to_owned()).is_err());
        assert!(RunName::try_from(String::new()).is_err());
        assert!(RunName::try_from("team a/seed".to_owned()).is_ok());
    }
}
