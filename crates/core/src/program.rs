//! The program as the user declared it, and its fingerprint.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the user declared to run. Values are as written, never resolved: ports and secrets change at every
/// start and must not look like another program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// The executable: a path in the container, or a name found through its `PATH`.
    pub command: String,
    /// Its arguments, before substitution.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables added to the container's own, before substitution, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Paths of dotenv files on the daemon's machine, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_files: Vec<String>,
    /// The directory to start in; the container's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// The user (`name`, `uid`, `user:group`) to run as; the container's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it reads from stdin; nothing where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Stdin>,
}

/// What a program reads from stdin, as declared. Bytes that come with the object are kept by their hash alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stdin {
    /// Text in the object.
    Value(StdinDigest),
    /// Bytes that were uploaded beside the object.
    Upload(StdinDigest),
    /// A key of a `ConfigMap` in the object's namespace.
    ConfigMapKeyRef {
        /// The `ConfigMap`.
        name: String,
        /// The key in its `data` or `binaryData`.
        key: String,
        /// Whether stdin is empty where the key does not exist.
        optional: bool,
    },
    /// A key of a `Secret` in the object's namespace.
    SecretKeyRef {
        /// The `Secret`.
        name: String,
        /// The key in its `data`.
        key: String,
        /// Whether stdin is empty where the key does not exist.
        optional: bool,
    },
}

/// How many bytes, and which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StdinDigest {
    /// How many.
    pub bytes: u64,
    /// Their SHA-256 in lower-case hex.
    pub sha256: String,
}

impl StdinDigest {
    /// That of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) }
    }
}

/// One declared environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// The variable's name.
    pub name: String,
    /// Where its value comes from.
    #[serde(flatten)]
    pub source: ValueSource,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ValueSource {
    /// Text, with `$(NAME)` references.
    Value(String),
    /// A field of the object itself, such as `metadata.name`.
    FieldRef(String),
    /// A field of the container, such as `address`.
    ContainerFieldRef(String),
    /// A key of a `ConfigMap` in the object's namespace.
    ConfigMapKeyRef {
        /// The `ConfigMap`.
        name: String,
        /// The key in its `data`.
        key: String,
        /// Whether the variable is left out where the key does not exist.
        optional: bool,
    },
    /// A key of a `Secret` in the object's namespace.
    SecretKeyRef {
        /// The `Secret`.
        name: String,
        /// The key in its `data`.
        key: String,
        /// Whether the variable is left out where the key does not exist.
        optional: bool,
    },
}

/// SHA-256 of a declared [`Program`], in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of any declared thing, as its canonical bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(hex(&Sha256::digest(bytes)))
    }

    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Program {
    /// The fingerprint. Two programs have the same one exactly when they are equal.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        // Each part is preceded by its length, so that no two programs run together into the same bytes.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(b"oncelet program v1");
        part(self.command.as_bytes());
        part(&(self.args.len() as u64).to_be_bytes());
        for arg in &self.args {
            part(arg.as_bytes());
        }
        part(&(self.env.len() as u64).to_be_bytes());
        for var in &self.env {
            part(var.name.as_bytes());
            let (kind, values): (&str, Vec<&str>) = match &var.source {
                ValueSource::Value(text) => ("value", vec![text]),
                ValueSource::FieldRef(path) => ("field", vec![path]),
                ValueSource::ContainerFieldRef(path) => ("container", vec![path]),
                ValueSource::ConfigMapKeyRef { name, key, optional } => {
                    ("configMap", vec![name, key, bool_name(*optional)])
                }
                ValueSource::SecretKeyRef { name, key, optional } => ("secret", vec![name, key, bool_name(*optional)]),
            };
            part(kind.as_bytes());
            for value in values {
                part(value.as_bytes());
            }
        }
        part(&(self.env_files.len() as u64).to_be_bytes());
        for path in &self.env_files {
            part(path.as_bytes());
        }
        for optional in [&self.working_directory, &self.user] {
            part(&[u8::from(optional.is_some())]);
            part(optional.as_deref().unwrap_or_default().as_bytes());
        }
        // Only where there is one: programs without had their fingerprints before there was any.
        if let Some(stdin) = &self.stdin {
            let (kind, values): (&str, [&str; 3]) = match stdin {
                Stdin::Value(digest) => ("value", [&digest.bytes.to_string(), &digest.sha256, ""]),
                Stdin::Upload(digest) => ("upload", [&digest.bytes.to_string(), &digest.sha256, ""]),
                Stdin::ConfigMapKeyRef { name, key, optional } => ("configMap", [name, key, bool_name(*optional)]),
                Stdin::SecretKeyRef { name, key, optional } => ("secret", [name, key, bool_name(*optional)]),
            };
            part(b"stdin");
            part(kind.as_bytes());
            for value in values {
                part(value.as_bytes());
            }
        }
        Fingerprint(hex(&hash.finalize()))
    }

    /// The declared fields in which `self` and `other` differ, by their names in the manifest.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        [
            ("command", self.command != other.command),
            ("args", self.args != other.args),
            ("env", self.env != other.env),
            ("envFiles", self.env_files != other.env_files),
            ("workingDirectory", self.working_directory != other.working_directory),
            ("user", self.user != other.user),
            ("stdin", self.stdin != other.stdin),
        ]
        .into_iter()
        .filter_map(|(field, differs)| differs.then_some(field))
        .collect()
    }
}

fn bool_name(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(args: &[&str]) -> Program {
        Program { command: "psql".into(), args: args.iter().map(ToString::to_string).collect(), ..Program::default() }
    }

    #[test]
    fn arguments_do_not_run_together_in_the_fingerprint() {
        assert_ne!(program(&["ab", "c"]).fingerprint(), program(&["a", "bc"]).fingerprint());
        assert_ne!(program(&["a"]).fingerprint(), program(&["a", ""]).fingerprint());
    }

    #[test]
    fn an_absent_directory_is_not_an_empty_one() {
        let empty = Program { working_directory: Some(String::new()), ..program(&[]) };
        assert_ne!(program(&[]).fingerprint(), empty.fingerprint());
    }

    /// The fingerprint is stored; a release that computes another one would run everything again under
    /// `onChange: Rerun`.
    #[test]
    fn the_fingerprint_never_changes_between_releases() {
        let full = Program {
            command: "sh".into(),
            args: vec!["-c".into(), "true".into()],
            env: vec![
                EnvVar { name: "A".into(), source: ValueSource::Value("1".into()) },
                EnvVar {
                    name: "B".into(),
                    source: ValueSource::SecretKeyRef { name: "s".into(), key: "k".into(), optional: false },
                },
            ],
            env_files: vec!["/etc/env".into()],
            working_directory: Some("/".into()),
            user: None,
            stdin: None,
        };
        assert_eq!(full.fingerprint().as_str(), "c58c0894aa6554eeae2f4f27727a1138b023c422de1ea8aadbb2a6604a2adf1a");
        let fed = Program { stdin: Some(Stdin::Value(StdinDigest::of(b"hello\n"))), ..full };
        assert_eq!(fed.fingerprint().as_str(), "f67cc6eeef034fa166fe073c2ff10fe62bd049099a217a8147fa12d1495fe724");
    }

    #[test]
    fn another_stdin_is_another_program() {
        let key = |name: &str, optional| Stdin::ConfigMapKeyRef { name: name.into(), key: "k".into(), optional };
        let all = [
            None,
            Some(Stdin::Value(StdinDigest::of(b""))),
            Some(Stdin::Value(StdinDigest::of(b"a"))),
            Some(Stdin::Upload(StdinDigest::of(b"a"))),
            Some(key("x", false)),
            Some(key("x", true)),
            Some(key("y", false)),
            Some(Stdin::SecretKeyRef { name: "x".into(), key: "k".into(), optional: false }),
        ]
        .map(|stdin| Program { stdin, ..program(&[]) });
        let distinct: std::collections::HashSet<_> = all.iter().map(Program::fingerprint).collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(all[0].differences(&all[2]), ["stdin"]);
    }

    #[test]
    fn the_text_of_stdin_is_kept_by_its_hash_alone() {
        let fed = Program { stdin: Some(Stdin::Value(StdinDigest::of(b"hunter2"))), ..program(&[]) };
        let kept = serde_json::to_string(&fed).unwrap();
        assert!(!kept.contains("hunter2") && kept.contains(r#""stdin":{"value":{"bytes":7,"#), "{kept}");
        assert_eq!(serde_json::from_str::<Program>(&kept).unwrap(), fed);
    }

    #[test]
    fn differences_name_the_fields_of_the_manifest() {
        let other = Program { user: Some("app".into()), ..program(&["x"]) };
        assert_eq!(program(&[]).differences(&other), ["args", "user"]);
    }
}
