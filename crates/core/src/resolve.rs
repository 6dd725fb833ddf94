//! From the declared program to the arguments and the environment it really gets.
//!
//! Values that come from a Secret, and whatever they are substituted into, are shown as `<from secret NAME/KEY>`, and those of a
//! dotenv file as `<from env file PATH/NAME>`. Beside that only a keyed hash is kept, so that whoever has the store can tell a change
//! without the value, and nobody else can try values.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Program, Stdin, StdinDigest, ValueSource, dotenv};

/// Hashes a value under a key that only the store has; the first argument says what it is the value of.
pub type SecretHash = Arc<dyn Fn(&str, &[u8]) -> String + Send + Sync>;

/// What the references of a program may point to. Gathered by the caller; a missing entry is a missing object.
#[derive(Clone, Default)]
pub struct Sources {
    /// `fieldRef` paths and their values.
    pub fields: BTreeMap<String, String>,
    /// `containerFieldRef` paths and their values.
    pub container_fields: BTreeMap<String, String>,
    /// `ConfigMap`s by name.
    pub config_maps: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// `Secret`s by name.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The text of each dotenv file by path, or why it could not be read.
    pub env_files: BTreeMap<String, Result<String, String>>,
    /// Whether what stands in them may be shown.
    pub env_files_visible: bool,
    /// What hashes secrets; they have no hash where it is absent.
    pub secret_hash: Option<SecretHash>,
    /// The text that the object has for stdin.
    pub stdin: Option<String>,
}

/// What a program gets. Holds secrets: neither shown nor stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The arguments.
    pub args: Vec<String>,
    /// The variables added to the container's own, each name once, in order.
    pub env: Vec<(String, String)>,
    /// What it reads from stdin; nothing where absent.
    pub stdin: Option<Input>,
    /// The same, fit to be shown and stored.
    pub effective: Effective,
}

/// What a program reads from stdin.
#[derive(Clone, PartialEq, Eq)]
pub enum Input {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Bytes that are fetched while they are delivered.
    Uploaded(StdinDigest),
}

impl Input {
    /// How many bytes, and which.
    pub fn digest(&self) -> StdinDigest {
        match self {
            Self::Bytes(bytes) => StdinDigest::of(bytes),
            Self::Uploaded(digest) => digest.clone(),
        }
    }
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved").field("effective", &self.effective).finish_non_exhaustive()
    }
}

/// The effective arguments and environment, fit to be shown and stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// The arguments.
    pub args: Vec<Shown>,
    /// The variables.
    pub env: Vec<(String, Shown)>,
    /// What it read from stdin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<ShownStdin>,
}

impl Effective {
    /// The same without the hashes of secrets: what leaves the store has none.
    #[must_use]
    pub fn without_hashes(mut self) -> Self {
        let shown = self.args.iter_mut().chain(self.env.iter_mut().map(|(_, value)| value));
        shown.for_each(|it| it.secret_hmac = None);
        if let Some(stdin) = &mut self.stdin {
            stdin.secret_hmac = None;
        }
        self
    }
}

/// What a program read from stdin, fit to be shown: how much, and its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownStdin {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256; not where they came from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Their HMAC under the store's key; only where they came from a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_hmac: Option<String>,
}

/// A value fit to be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The text, with each secret part replaced by `<from secret NAME/KEY>` or `<from env file PATH/NAME>`.
    pub text: String,
    /// The HMAC of the true value under the store's key; only where a part is secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_hmac: Option<String>,
}

/// Something that the program refers to is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingInput {
    /// No such `ConfigMap` or key.
    #[error("{field}: {what}")]
    ConfigMap {
        /// What refers to it: a variable, or stdin.
        field: String,
        /// What is missing.
        what: String,
    },
    /// No such `Secret` or key.
    #[error("{field}: {what}")]
    Secret {
        /// What refers to it: a variable, or stdin.
        field: String,
        /// What is missing.
        what: String,
    },
    /// No such field.
    #[error("env {variable}: {what}")]
    Field {
        /// The variable.
        variable: String,
        /// What is missing.
        what: String,
    },
    /// References make it longer than anything that a program can get.
    #[error("{what} is longer than {limit} bytes, once its references are substituted")]
    TooLong {
        /// What is too long.
        what: String,
        /// How long it may be.
        limit: usize,
    },
    /// A dotenv file cannot be used.
    #[error("env file {path}: {what}")]
    EnvFile {
        /// Its path.
        path: String,
        /// What is wrong.
        what: String,
    },
}

/// How long a value may become, as it is and as it is shown. Linux takes no longer one, and values that refer to each other double
/// with each line of a manifest.
const LONGEST_VALUE: usize = 128 * 1024;
/// The same for all of them together.
const LONGEST_SUM: usize = 4 * 1024 * 1024;

/// A value on its way: the truth, and what may be shown of it.
#[derive(Clone)]
struct Value {
    real: String,
    shown: String,
    secret: bool,
}

impl Value {
    fn plain(text: String) -> Self {
        Self { shown: text.clone(), real: text, secret: false }
    }

    fn secret(real: String, origin: &str) -> Self {
        Self { real, shown: format!("<from {origin}>"), secret: true }
    }

    fn into_shown(self, what: &str, sources: &Sources) -> (String, Shown) {
        let secret_hmac = self.secret.then(|| sources.hash(what, self.real.as_bytes())).flatten();
        (self.real, Shown { text: self.shown, secret_hmac })
    }
}

impl Sources {
    fn hash(&self, what: &str, secret: &[u8]) -> Option<String> {
        self.secret_hash.as_ref().map(|hash| hash(what, secret))
    }
}

/// Resolves `program` against `sources`.
///
/// Variables of the dotenv files come first, then `env` in order; a later one replaces an earlier one of the same
/// name. `$(NAME)` in a value refers to variables before it, in an argument to all; `$$(NAME)` is the text
/// `$(NAME)`; a reference to an unknown name stays as it is, as in Kubernetes. Nothing is substituted in stdin.
pub fn resolve(program: &Program, sources: &Sources) -> Result<Resolved, MissingInput> {
    let mut env = Environment::default();
    for path in &program.env_files {
        let wrong = |what: String| MissingInput::EnvFile { path: path.clone(), what };
        let text = match sources.env_files.get(path) {
            Some(Ok(text)) => text,
            Some(Err(what)) => return Err(wrong(what.clone())),
            None => return Err(wrong("was not read".into())),
        };
        for (name, value) in dotenv::parse(text).map_err(|error| wrong(error.to_string()))? {
            let value = if sources.env_files_visible {
                Value::plain(value)
            } else {
                Value::secret(value, &format!("env file {path}/{name}"))
            };
            env.set(&name, value)?;
        }
    }
    for var in &program.env {
        if let Some(value) = value_of(&var.name, &var.source, sources, &env)? {
            env.set(&var.name, value)?;
        }
    }
    let mut args = Vec::with_capacity(program.args.len());
    for (index, arg) in program.args.iter().enumerate() {
        let arg = env.expand(arg, || format!("argument {}", index + 1))?;
        env.add(&arg)?;
        args.push(arg);
    }
    let (args, shown_args) = args.into_iter().map(|arg| arg.into_shown("", sources)).unzip();
    let (env, shown_env) = env
        .values
        .into_iter()
        .map(|(name, value)| {
            let (real, shown) = value.into_shown(&name, sources);
            ((name.clone(), real), (name, shown))
        })
        .unzip();
    let stdin = program.stdin.as_ref().map(|stdin| input(stdin, sources)).transpose()?;
    let shown_stdin =
        program.stdin.as_ref().zip(stdin.as_ref()).map(|(declared, input)| shown_stdin(declared, input, sources));
    Ok(Resolved { args, env, stdin, effective: Effective { args: shown_args, env: shown_env, stdin: shown_stdin } })
}

fn input(stdin: &Stdin, sources: &Sources) -> Result<Input, MissingInput> {
    let found = match stdin {
        Stdin::Value(_) => sources.stdin.clone().map(String::into_bytes),
        Stdin::Upload(digest) => return Ok(Input::Uploaded(digest.clone())),
        Stdin::ConfigMapKeyRef { name, key, optional } => config_map_key("stdin", name, key, *optional, sources)?,
        Stdin::SecretKeyRef { name, key, optional } => secret_key("stdin", name, key, *optional, sources)?,
    };
    Ok(Input::Bytes(found.unwrap_or_default()))
}

fn shown_stdin(declared: &Stdin, input: &Input, sources: &Sources) -> ShownStdin {
    let StdinDigest { bytes, sha256 } = input.digest();
    match (declared, input) {
        (Stdin::SecretKeyRef { .. }, Input::Bytes(secret)) => {
            ShownStdin { bytes, sha256: None, secret_hmac: sources.hash("stdin", secret) }
        }
        _ => ShownStdin { bytes, sha256: Some(sha256), secret_hmac: None },
    }
}

fn config_map_key(
    field: &str,
    name: &str,
    key: &str,
    optional: bool,
    sources: &Sources,
) -> Result<Option<Vec<u8>>, MissingInput> {
    key_of("ConfigMap", &sources.config_maps, name, key, optional)
        .map_err(|what| MissingInput::ConfigMap { field: field.to_owned(), what })
}

fn secret_key(
    field: &str,
    name: &str,
    key: &str,
    optional: bool,
    sources: &Sources,
) -> Result<Option<Vec<u8>>, MissingInput> {
    key_of("Secret", &sources.secrets, name, key, optional)
        .map_err(|what| MissingInput::Secret { field: field.to_owned(), what })
}

/// The bytes of a key of one of `objects`, or what is missing; `None` where that is optional.
fn key_of(
    kind: &str,
    objects: &BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    name: &str,
    key: &str,
    optional: bool,
) -> Result<Option<Vec<u8>>, String> {
    match objects.get(name).map(|data| data.get(key)) {
        Some(Some(bytes)) => Ok(Some(bytes.clone())),
        _ if optional => Ok(None),
        Some(None) => Err(format!("{kind} {name:?} has no key {key:?}")),
        None => Err(format!("{kind} {name:?} not found")),
    }
}

fn value_of(
    variable: &str,
    source: &ValueSource,
    sources: &Sources,
    env: &Environment,
) -> Result<Option<Value>, MissingInput> {
    let variable = variable.to_owned();
    match source {
        ValueSource::Value(text) => env.expand(text, || format!("env {variable}")).map(Some),
        ValueSource::FieldRef(path) => match sources.fields.get(path) {
            Some(value) => Ok(Some(Value::plain(value.clone()))),
            None => Err(MissingInput::Field { variable, what: format!("the object has no field {path}") }),
        },
        ValueSource::ContainerFieldRef(path) => match sources.container_fields.get(path) {
            Some(value) => Ok(Some(Value::plain(value.clone()))),
            None => Err(MissingInput::Field { variable, what: format!("the container has no field {path}") }),
        },
        ValueSource::ConfigMapKeyRef { name, key, optional } => {
            let field = format!("env {variable}");
            let Some(bytes) = config_map_key(&field, name, key, *optional, sources)? else { return Ok(None) };
            let what = format!("key {key:?} of ConfigMap {name:?} is not UTF-8 text");
            let text = String::from_utf8(bytes).map_err(|_| MissingInput::ConfigMap { field, what })?;
            Ok(Some(Value::plain(text)))
        }
        ValueSource::SecretKeyRef { name, key, optional } => {
            let field = format!("env {variable}");
            let Some(bytes) = secret_key(&field, name, key, *optional, sources)? else { return Ok(None) };
            let what = format!("key {key:?} of Secret {name:?} is not UTF-8 text");
            let real = String::from_utf8(bytes).map_err(|_| MissingInput::Secret { field, what })?;
            Ok(Some(Value::secret(real, &format!("secret {name}/{key}"))))
        }
    }
}

/// Variables in order, each name once.
#[derive(Default)]
struct Environment {
    values: Vec<(String, Value)>,
    /// Where each name is.
    places: HashMap<String, usize>,
    /// How long all that was made so far is.
    size: usize,
}

impl Environment {
    fn get(&self, name: &str) -> Option<&Value> {
        self.places.get(name).map(|place| &self.values[*place].1)
    }

    fn set(&mut self, name: &str, value: Value) -> Result<(), MissingInput> {
        self.add(&value)?;
        if let Some(place) = self.places.get(name) {
            self.values[*place].1 = value;
        } else {
            self.places.insert(name.to_owned(), self.values.len());
            self.values.push((name.to_owned(), value));
        }
        Ok(())
    }

    fn add(&mut self, value: &Value) -> Result<(), MissingInput> {
        self.size += value.real.len() + value.shown.len();
        if self.size > LONGEST_SUM {
            let what = "all that the program is to get".to_owned();
            return Err(MissingInput::TooLong { what, limit: LONGEST_SUM });
        }
        Ok(())
    }

    /// Kubernetes' substitution: see [`resolve`]. `what` names what the text is of.
    fn expand(&self, text: &str, what: impl Fn() -> String) -> Result<Value, MissingInput> {
        let mut out = Value::plain(String::with_capacity(text.len()));
        let both = |out: &mut Value, text: &str| {
            out.real.push_str(text);
            out.shown.push_str(text);
        };
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            both(&mut out, &rest[..dollar]);
            rest = &rest[dollar + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                both(&mut out, "$");
                rest = after;
            } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
                match self.get(name) {
                    Some(value) => {
                        out.real.push_str(&value.real);
                        out.shown.push_str(&value.shown);
                        out.secret |= value.secret;
                        if out.real.len().max(out.shown.len()) > LONGEST_VALUE {
                            return Err(MissingInput::TooLong { what: what(), limit: LONGEST_VALUE });
                        }
                    }
                    None => both(&mut out, &format!("$({name})")),
                }
                rest = after;
            } else {
                both(&mut out, "$");
            }
        }
        both(&mut out, rest);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EnvVar;

    fn sources() -> Sources {
        let mut sources =
            Sources { secret_hash: Some(Arc::new(|what, _| format!("hash of {what}"))), ..Sources::default() };
        sources.config_maps.insert(
            "app".into(),
            BTreeMap::from([("host".into(), b"db.local".to_vec()), ("blob".into(), vec![0, 0xff])]),
        );
        sources.secrets.insert(
            "db".into(),
            BTreeMap::from([("password".into(), b"hunter2".to_vec()), ("raw".into(), vec![0xff])]),
        );
        sources.env_files.insert("/etc/app.env".into(), Ok("REGION=eu\nHOST=from-file\n".into()));
        sources
    }

    fn text(name: &str, value: &str) -> EnvVar {
        EnvVar { name: name.into(), source: ValueSource::Value(value.into()) }
    }

    fn secret(name: &str, key: &str, optional: bool) -> EnvVar {
        let source = ValueSource::SecretKeyRef { name: "db".into(), key: key.into(), optional };
        EnvVar { name: name.into(), source }
    }

    fn resolved(args: &[&str], env: Vec<EnvVar>) -> Result<Resolved, MissingInput> {
        let args = args.iter().map(ToString::to_string).collect();
        resolve(&Program { command: "psql".into(), args, env, ..Program::default() }, &sources())
    }

    #[test]
    fn references_are_substituted_as_kubernetes_does() {
        let env = vec![text("A", "1"), text("B", "$(A)$(LATER)"), text("LATER", "2")];
        let got = resolved(&["$(B)", "$$(A)", "$(NOPE)", "$A $", "$(A"], env).unwrap();
        assert_eq!(got.args, ["1$(LATER)", "$(A)", "$(NOPE)", "$A $", "$(A"]);
        assert_eq!(got.env[1], ("B".into(), "1$(LATER)".into()));
    }

    #[test]
    fn a_secret_reaches_the_program_and_is_shown_nowhere() {
        let env = vec![secret("PW", "password", false), text("URL", "pg://u:$(PW)@h")];
        let got = resolved(&["--password=$(PW)"], env).unwrap();
        assert_eq!(got.args, ["--password=hunter2"]);
        assert_eq!(got.env[1].1, "pg://u:hunter2@h");
        assert_eq!(got.effective.args[0].text, "--password=<from secret db/password>");
        assert_eq!(got.effective.env[1].1.text, "pg://u:<from secret db/password>@h");
        let kept = format!("{got:?} {}", serde_json::to_string(&got.effective).unwrap());
        assert!(!kept.contains("hunter2"), "{kept}");
        let hashes = |of: &Effective| {
            let shown = of.env.iter().map(|(_, shown)| shown).chain(&of.args);
            shown.filter_map(|shown| shown.secret_hmac.clone()).collect::<Vec<_>>()
        };
        assert_eq!(hashes(&got.effective), ["hash of PW", "hash of URL", "hash of "]);
        assert!(hashes(&got.effective.without_hashes()).is_empty());
    }

    #[test]
    fn what_stands_in_an_env_file_is_a_secret_unless_it_is_declared_visible() {
        let program = Program {
            args: vec!["$(REGION)-$(URL)".into()],
            env_files: vec!["/etc/app.env".into()],
            env: vec![text("URL", "http://$(HOST)/"), text("OWN", "seen")],
            ..Program::default()
        };
        let got = resolve(&program, &sources()).unwrap();
        assert_eq!(got.args, ["eu-http://from-file/"]);
        let kept = format!("{got:?} {}", serde_json::to_string(&got.effective).unwrap());
        assert!(!kept.contains("from-file") && !kept.contains("eu"), "{kept}");
        let shown: Vec<_> = got.effective.env.iter().map(|(_, shown)| shown.text.as_str()).collect();
        let host = "<from env file /etc/app.env/HOST>";
        let region = "<from env file /etc/app.env/REGION>";
        assert_eq!(shown, [region, host, &format!("http://{host}/"), "seen"]);
        assert_eq!(got.effective.args[0].text, format!("{region}-http://{host}/"));
        let visible = resolve(&program, &Sources { env_files_visible: true, ..sources() }).unwrap();
        assert_eq!(visible.effective.args[0], Shown { text: "eu-http://from-file/".into(), secret_hmac: None });
        assert_eq!((visible.args, visible.env), (got.args, got.env));
    }

    /// Thirty lines would make a gigabyte of a byte, and a hundred more than there is.
    #[test]
    fn values_that_double_with_each_line_are_refused() {
        for first in [text("V0", "x"), secret("V0", "password", false)] {
            let doubled = |number: usize| text(&format!("V{}", number + 1), &format!("$(V{number})$(V{number})"));
            let env: Vec<_> = std::iter::once(first).chain((0..100).map(doubled)).collect();
            let error = resolved(&[], env).unwrap_err().to_string();
            assert!(error.starts_with("env V1") && error.contains("longer than 131072 bytes"), "{error}");
        }
        let long = text("LONG", &"x".repeat(100_000));
        let error = resolved(&["$(LONG)"; 100], vec![long.clone()]).unwrap_err().to_string();
        assert!(error.contains("all that the program is to get"), "{error}");
        let error = resolved(&["$(LONG)$(LONG)"], vec![long]).unwrap_err().to_string();
        assert!(error.starts_with("argument 1 is longer"), "{error}");
    }

    #[test]
    fn env_wins_over_env_files_and_a_name_stands_once() {
        let program = Program {
            env_files: vec!["/etc/app.env".into()],
            env: vec![text("HOST", "mine"), text("HOST", "last")],
            ..Program::default()
        };
        let got = resolve(&program, &sources()).unwrap();
        assert_eq!(got.env, [("REGION".into(), "eu".into()), ("HOST".into(), "last".into())]);
    }

    #[test]
    fn what_is_missing_is_named_unless_it_is_optional() {
        let error = |env| resolved(&[], vec![env]).unwrap_err().to_string();
        assert_eq!(error(secret("PW", "nope", false)), "env PW: Secret \"db\" has no key \"nope\"");
        assert_eq!(error(secret("PW", "raw", false)), "env PW: key \"raw\" of Secret \"db\" is not UTF-8 text");
        let config = |optional| EnvVar {
            name: "H".into(),
            source: ValueSource::ConfigMapKeyRef { name: "none".into(), key: "k".into(), optional },
        };
        assert_eq!(error(config(false)), "env H: ConfigMap \"none\" not found");
        assert_eq!(resolved(&[], vec![config(true), secret("PW", "nope", true)]).unwrap().env, []);
        let field = EnvVar { name: "F".into(), source: ValueSource::FieldRef("metadata.nope".into()) };
        assert_eq!(error(field), "env F: the object has no field metadata.nope");
    }

    #[test]
    fn stdin_arrives_byte_for_byte_and_a_secret_one_is_shown_nowhere() {
        let got = |stdin, text: Option<&str>| {
            let sources = Sources { stdin: text.map(str::to_owned), ..sources() };
            let resolved =
                resolve(&Program { stdin: Some(stdin), env: vec![text_var()], ..Program::default() }, &sources);
            resolved.map(|resolved| (resolved.stdin, resolved.effective.stdin.unwrap()))
        };
        let key = |secret: bool, name: &str, key: &str, optional| {
            let (name, key) = (name.to_owned(), key.to_owned());
            if secret {
                Stdin::SecretKeyRef { name, key, optional }
            } else {
                Stdin::ConfigMapKeyRef { name, key, optional }
            }
        };
        let written = "$(A) $$ \r\n";
        let (input, shown) = got(Stdin::Value(StdinDigest::of(written.as_bytes())), Some(written)).unwrap();
        assert!(input == Some(Input::Bytes(written.into())) && shown.sha256.is_some());
        let (input, _) = got(key(false, "app", "blob", false), None).unwrap();
        assert!(input == Some(Input::Bytes(vec![0, 0xff])));
        let (input, shown) = got(key(true, "db", "raw", false), None).unwrap();
        assert!(input == Some(Input::Bytes(vec![0xff])));
        assert!(shown.sha256.is_none() && shown.secret_hmac.is_some() && shown.bytes == 1);
        let (input, _) = got(key(true, "none", "k", true), None).unwrap();
        assert!(input == Some(Input::Bytes(vec![])), "an optional one that is not there is empty");
        let missing = |stdin| got(stdin, None).map(drop).unwrap_err().to_string();
        assert_eq!(missing(key(true, "db", "nope", false)), "stdin: Secret \"db\" has no key \"nope\"");
        assert_eq!(missing(key(false, "none", "k", false)), "stdin: ConfigMap \"none\" not found");
    }

    fn text_var() -> EnvVar {
        text("A", "1")
    }

    #[test]
    fn an_unusable_env_file_is_named_with_its_line() {
        let program = Program { env_files: vec!["/bad".into()], ..Program::default() };
        let mut sources = sources();
        sources.env_files.insert("/bad".into(), Ok("nonsense".into()));
        let error = resolve(&program, &sources).unwrap_err();
        assert_eq!(error.to_string(), "env file /bad: line 1: expected NAME=value");
    }
}
