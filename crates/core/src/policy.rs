//! What the objects of a namespace may use: [`Policy`]. Pure; the controller says what an object asks for, see [`Ask`].
//!
//! Rules only ever allow, and what no rule allows is refused. A rule counts for an object where it names the object's namespace
//! and its engine; what the object asks for may be allowed by several rules together, except that a container is entered,
//! stopped and removed by the rule that names it.

mod file;
mod pattern;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

pub use file::{BindPrefix, ContainerSelector, HostPorts, InvalidPolicy, Policy, Rule};
pub use pattern::clean_path;

use pattern::Image;

/// How rules name the engine that the daemon was started with.
pub const DEFAULT_ENGINE: &str = "default";
/// How rules name the network that a container is in which names none.
pub const DEFAULT_NETWORK: &str = "default";

/// One thing that an object asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To use the engine, named as in the spec.
    Engine(String),
    /// To make a container of this name.
    ContainerName(String),
    /// To make one from this image.
    Image(String),
    /// To mount a path of the engine's machine.
    BindMount {
        /// The path as it is declared.
        path: String,
        /// Whether the container cannot write to it.
        read_only: bool,
    },
    /// To mount a volume.
    Volume(String),
    /// To be in a network.
    Network(String),
    /// To publish a port.
    Port {
        /// The address on the engine's machine, as it is declared.
        host_ip: String,
        /// The port there; `None` where the engine picks a free one.
        port: Option<u16>,
    },
    /// To give the container a label with this key.
    Label(String),
    /// To have a dotenv file read.
    EnvFile(String),
    /// To run a program as this user.
    User(String),
    /// To run programs in a container of the engine, or to adopt it.
    Enter(Target),
    /// To stop a container that was made by others.
    Stop(Target),
    /// To remove a container that was made by others.
    Remove(Target),
}

/// A container of the engine, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Its name, or what was asked for where the engine has none such.
    pub name: String,
    /// Its labels, without those that its image gave it.
    pub labels: BTreeMap<String, String>,
    /// The namespace of the `Container` object that it was made for, where it was.
    pub made_for: Option<String>,
    /// The namespaces that it lets in by itself: names and globs.
    pub invites: Vec<String>,
}

/// What allows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// It is the namespace's own.
    Own,
    /// The container names the namespace.
    Invited,
    /// The rule of this number, from 1.
    Rule(usize),
}

/// An answer to one [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was asked for.
    pub ask: Ask,
    /// What allows it, if anything does.
    pub grant: Option<Grant>,
}

impl Policy {
    /// Answers all that an object of `namespace` asks for, in the engine that it names.
    pub fn answer(&self, namespace: &str, engine: &str, asks: Vec<Ask>) -> Vec<Answer> {
        asks.into_iter().map(|ask| Answer { grant: self.grant(namespace, engine, &ask), ask }).collect()
    }

    /// The rules that count, with their numbers.
    fn rules<'a, 'b>(
        &'a self,
        namespace: &'b str,
        engine: &'b str,
    ) -> impl Iterator<Item = (usize, &'a Rule)> + use<'a, 'b> {
        let counts = move |rule: &&'a Rule| {
            let names_engine = rule.engines.iter().any(|it| it == "*" || it == engine);
            names_engine && pattern::any(&rule.namespaces, namespace)
        };
        self.rules.iter().enumerate().map(|(at, rule)| (at + 1, rule)).filter(move |(_, rule)| counts(rule))
    }

    fn grant(&self, namespace: &str, engine: &str, ask: &Ask) -> Option<Grant> {
        let mut rules = self.rules(namespace, engine).peekable();
        rules.peek()?;
        if let Ask::Enter(target) | Ask::Stop(target) | Ask::Remove(target) = ask
            && target.made_for.as_deref() == Some(namespace)
        {
            return Some(Grant::Own);
        }
        rules.find_map(|(number, rule)| {
            if rule.everything || rule.allows(ask) {
                return Some(Grant::Rule(number));
            }
            match ask {
                Ask::Enter(target) if rule.honor_container_labels && pattern::any(&target.invites, namespace) => {
                    Some(Grant::Invited)
                }
                _ => None,
            }
        })
    }

    /// Whether labels of containers may decide about what `namespace` enters.
    pub fn heeds_labels(&self, namespace: &str, engine: &str) -> bool {
        self.rules(namespace, engine).any(|(_, rule)| {
            !rule.everything
                && (rule.honor_container_labels || rule.engine_containers.iter().any(|it| !it.labels.is_empty()))
        })
    }

    /// Whether the run key `key` of an object of `namespace` is the same as that of other namespaces.
    pub fn shares_run_key(&self, namespace: &str, engine: &str, key: &str) -> bool {
        self.rules(namespace, engine).any(|(_, rule)| {
            // A name of a run that belongs to one namespace has a slash.
            rule.everything || !key.contains('/') && pattern::any(&rule.shared_run_keys, key)
        })
    }

    /// The directories of the engine's machine below which `namespace` may mount; `None` where it may mount all.
    pub fn bind_prefixes<'a>(&'a self, namespace: &str, engine: &str, read_only: bool) -> Option<Vec<&'a str>> {
        let mut prefixes = Vec::new();
        for (_, rule) in self.rules(namespace, engine) {
            if rule.everything {
                return None;
            }
            let usable = rule.bind_mounts.iter().filter(|prefix| read_only || !prefix.read_only);
            prefixes.extend(usable.map(|prefix| prefix.path.as_str()));
        }
        Some(prefixes)
    }

    /// The directories of the daemon's machine from which dotenv files may be read; `None` where they may be anywhere.
    pub fn env_file_dirs<'a>(&'a self, namespace: &str, engine: &str) -> Option<Vec<&'a str>> {
        let mut dirs = Vec::new();
        for (_, rule) in self.rules(namespace, engine) {
            if rule.everything {
                return None;
            }
            dirs.extend(rule.env_files.iter().map(String::as_str));
        }
        Some(dirs)
    }
}

impl Rule {
    fn allows(&self, ask: &Ask) -> bool {
        match ask {
            // Only a rule for this engine is asked.
            Ask::Engine(_) => true,
            Ask::ContainerName(name) => pattern::any(&self.container_names, name),
            Ask::Image(image) => {
                let image = Image::asked_for(image);
                self.images.iter().any(|pattern| pattern::is_image(pattern, &image))
            }
            Ask::BindMount { path, read_only } => clean_path(path).is_some_and(|path| {
                let usable = self.bind_mounts.iter().filter(|prefix| *read_only || !prefix.read_only);
                usable.into_iter().any(|prefix| pattern::is_below(&prefix.path, &path))
            }),
            Ask::Volume(name) => pattern::any(&self.volumes, name),
            // That of the machine, and that of another container, are to be meant.
            Ask::Network(name) if name == "host" || name.contains(':') => self.networks.contains(name),
            Ask::Network(name) => name == "none" || pattern::any(&self.networks, name),
            Ask::Port { host_ip, port } => self.ports.iter().any(|ports| ports.allows(host_ip, *port)),
            // What oncelet itself goes by.
            Ask::Label(key) if key.starts_with("oncelet.dev/") => self.labels.contains(key),
            Ask::Label(key) => pattern::any(&self.labels, key),
            Ask::EnvFile(path) => {
                clean_path(path).is_some_and(|path| self.env_files.iter().any(|dir| pattern::is_below(dir, &path)))
            }
            Ask::User(user) => self.users.iter().any(|pattern| pattern::is_user(pattern, user)),
            Ask::Enter(target) => self.names(target),
            Ask::Stop(target) => self.stop_foreign && self.names(target),
            Ask::Remove(target) => self.remove_foreign && self.names(target),
        }
    }

    fn names(&self, target: &Target) -> bool {
        self.engine_containers.iter().any(|selector| selector.selects(target))
    }
}

impl ContainerSelector {
    fn selects(&self, target: &Target) -> bool {
        // Names and labels of what was made for another namespace are that namespace's to choose: only a rule that names the
        // namespace goes by them.
        let of = match (&self.namespace, &target.made_for) {
            (None, None) => true,
            (Some(wanted), Some(namespace)) => pattern::glob(wanted, namespace, None),
            (Some(_), None) | (None, Some(_)) => false,
        };
        let has = |(key, value): (&String, &String)| target.labels.get(key) == Some(value);
        of && self.name.as_ref().is_none_or(|name| pattern::glob(name, &target.name, None))
            && self.labels.iter().all(has)
    }
}

impl HostPorts {
    fn allows(&self, host_ip: &str, port: Option<u16>) -> bool {
        let same = |ip: &str| match (ip.parse::<IpAddr>(), host_ip.parse::<IpAddr>()) {
            (Ok(wanted), Ok(given)) => wanted == given,
            // An empty address is all of them.
            _ => false,
        };
        (self.host_ip == "*" || same(&self.host_ip)) && port.is_none_or(|port| (self.min..=self.max).contains(&port))
    }
}

impl Ask {
    /// What a rule has to say to allow it: the field and its value, as YAML.
    pub fn wanted(&self) -> (&'static str, String) {
        let quoted = |text: &str| format!("{text:?}");
        match self {
            Self::Engine(engine) => ("engines", quoted(engine)),
            Self::ContainerName(name) => ("containerNames", quoted(name)),
            Self::Image(image) => ("images", quoted(&Image::asked_for(image).text())),
            Self::BindMount { path, read_only } => {
                let path = clean_path(path).unwrap_or_else(|| path.clone());
                let read_only = if *read_only { ", readOnly: true" } else { "" };
                ("bindMounts", format!("{{path: {path:?}{read_only}}}"))
            }
            Self::Volume(name) => ("volumes", quoted(name)),
            Self::Network(name) => ("networks", quoted(name)),
            Self::Port { host_ip, port } => {
                let port = port.map(|port| format!(", min: {port}, max: {port}")).unwrap_or_default();
                // What is no address is for the engine to make of what it wants.
                let host_ip = if host_ip.parse::<IpAddr>().is_ok() { host_ip } else { "*" };
                ("ports", format!("{{hostIP: {host_ip:?}{port}}}"))
            }
            Self::Label(key) => ("labels", quoted(key)),
            Self::EnvFile(path) => {
                let dir = clean_path(path).and_then(|path| Some(path.rsplit_once('/')?.0.to_owned()));
                ("envFiles", quoted(&dir.filter(|dir| !dir.is_empty()).unwrap_or_else(|| path.clone())))
            }
            Self::User(user) => ("users", quoted(user)),
            Self::Enter(target) => ("engineContainers", target.selector()),
            Self::Stop(target) => ("stopForeign", format!("true, engineContainers: [{}]", target.selector())),
            Self::Remove(target) => ("removeForeign", format!("true, engineContainers: [{}]", target.selector())),
        }
    }
}

impl Target {
    fn selector(&self) -> String {
        // A namespace is told only to whoever is in it: an object learns nothing of others.
        format!("{{name: {:?}}}", self.name)
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(engine) if engine == DEFAULT_ENGINE => f.write_str("the default engine"),
            Self::Engine(engine) => write!(f, "the engine {engine:?}"),
            Self::ContainerName(name) => write!(f, "the container name {name:?}"),
            Self::Image(image) => write!(f, "the image {:?}", Image::asked_for(image).text()),
            Self::BindMount { path, read_only } => {
                let how = if *read_only { "read-only" } else { "writable" };
                let up = if clean_path(path).is_none() { ": it must be absolute and without \"..\"" } else { "" };
                write!(f, "the bind mount {path:?} ({how}{up})")
            }
            Self::Volume(name) => write!(f, "the volume {name:?}"),
            Self::Network(name) if name == DEFAULT_NETWORK => f.write_str("the engine's default network"),
            Self::Network(name) => write!(f, "the network {name:?}"),
            Self::Port { host_ip, port: Some(port) } => write!(f, "the port {port} at {host_ip:?}"),
            Self::Port { host_ip, port: None } => write!(f, "a free port at {host_ip:?}"),
            Self::Label(key) => write!(f, "the label {key:?}"),
            Self::EnvFile(path) => {
                let up = if clean_path(path).is_none() { " (it must be absolute and without \"..\")" } else { "" };
                write!(f, "the env file {path:?}{up}")
            }
            Self::User(user) => write!(f, "the user {user:?}"),
            Self::Enter(target) => write!(f, "the engine's container {:?}", target.name),
            Self::Stop(target) => write!(f, "a stop of the engine's container {:?}", target.name),
            Self::Remove(target) => write!(f, "the removal of the engine's container {:?}", target.name),
        }
    }
}

/// How many refusals a message names.
const NAMED: usize = 6;
/// How many characters of each.
const LENGTH: usize = 200;

/// What is refused, and what a rule would have to say, in words for whoever made the object; `None` where nothing is.
pub fn refusal(namespace: &str, answers: &[Answer]) -> Option<String> {
    let refused: Vec<_> = answers.iter().filter(|answer| answer.grant.is_none()).map(|answer| &answer.ask).collect();
    if refused.is_empty() {
        return None;
    }
    let cut = |text: String| match text.char_indices().nth(LENGTH) {
        Some((at, _)) => format!("{}\u{2026}", &text[..at]),
        None => text,
    };
    let more = match refused.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let asked: Vec<_> = refused.iter().take(NAMED).map(|ask| cut(ask.to_string())).collect();
    Some(format!(
        "the policy does not let namespace {namespace} use {}{more}; ask whoever runs oncelet for a rule that says: {}",
        asked.join(", "),
        cut_rule(namespace, refused.into_iter().take(NAMED), cut)
    ))
}

/// A rule that allows `asks`, in one line of YAML.
pub fn suggestion<'a>(namespace: &str, asks: impl Iterator<Item = &'a Ask>) -> String {
    cut_rule(namespace, asks, |text| text)
}

fn cut_rule<'a>(namespace: &str, asks: impl Iterator<Item = &'a Ask>, cut: impl Fn(String) -> String) -> String {
    let mut fields: Vec<(&str, Vec<String>)> = Vec::new();
    for ask in asks {
        let (field, value) = ask.wanted();
        match fields.iter_mut().find(|(it, _)| *it == field) {
            Some((_, values)) => values.push(cut(value)),
            None => fields.push((field, vec![cut(value)])),
        }
    }
    let fields = fields.into_iter().map(|(field, mut values)| {
        values.dedup();
        let values = values.join(", ");
        if values.starts_with("true") { format!(", {field}: {values}") } else { format!(", {field}: [{values}]") }
    });
    format!("{{namespaces: [{namespace:?}]{}}}", fields.collect::<String>())
}

#[cfg(test)]
mod tests;
