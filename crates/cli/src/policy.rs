//! The policy of a daemon: read from its file, and again whenever that changes; and `oncelet policy check`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::ResourceExt;
use oncelet_api::{Container, ContainerExec};
use oncelet_controller::{Access, Checked, check_container, check_exec};
use oncelet_core::policy::{Answer, Grant, Policy, suggestion};
use oncelet_engine::{Endpoint, Engine};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::args::PolicyCheck;
use crate::output::one_line;

/// How often the file is looked at. Its text is compared, so that it does not matter how it is replaced: written, renamed, or
/// mounted from a ConfigMap, where links change.
const LOOK: Duration = Duration::from_secs(1);
/// How large a policy may be.
const LARGEST: u64 = 1 << 20;

/// What objects may use: what `file` says now and later, or `without` one.
///
/// # Errors
/// The file cannot be read or is not a policy. Later that keeps the policy that was read last.
pub(crate) async fn begin(file: Option<PathBuf>, without: Access) -> Result<watch::Receiver<Access>> {
    let Some(file) = file else {
        if matches!(without, Access::Nothing) {
            tracing::warn!(
                "there is no policy, and so nothing is allowed: no container is made, no program is started. Say what is allowed in \
                 a file, and start with --policy FILE; docs/policy.md says how"
            );
        }
        return Ok(watch::channel(without).1);
    };
    let text = read(&file).await?;
    let policy = parse(&text).with_context(|| cannot_be_used(&file))?;
    told(&file, &policy, "in force");
    let (sender, receiver) = watch::channel(Access::Policy(Arc::new(policy)));
    tokio::spawn(follow(file, Ok(text), sender));
    Ok(receiver)
}

fn cannot_be_used(file: &Path) -> String {
    format!("the policy {} cannot be used", file.display())
}

fn told(file: &Path, policy: &Policy, what: &str) {
    let rules = policy.len();
    tracing::info!("the policy {} is {what}: {rules} rule{}", file.display(), if rules == 1 { "" } else { "s" });
}

/// Follows the file until nobody wants to know any more. `last` is what was read last, or why it could not be.
async fn follow(file: PathBuf, mut last: Result<String, String>, sender: watch::Sender<Access>) {
    loop {
        tokio::select! {
            // Both arms only wait, so either may be dropped.
            () = sender.closed() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = read(&file).await.map_err(|error| one_line(&error));
        if now == last {
            continue;
        }
        let policy = match &now {
            Ok(text) => parse(text).map_err(|error| one_line(&error.context(cannot_be_used(&file)))),
            Err(why) => Err(why.clone()),
        };
        match policy {
            Ok(policy) => {
                told(&file, &policy, "read again and in force");
                metrics::counter!("oncelet_policy_reloads_total", "result" => "success").increment(1);
                sender.send_replace(Access::Policy(Arc::new(policy)));
            }
            Err(why) => {
                tracing::error!("{why}; the policy that was read before stays in force");
                metrics::counter!("oncelet_policy_reloads_total", "result" => "error").increment(1);
            }
        }
        last = now;
    }
}

async fn read(file: &Path) -> Result<String> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    });
    let text = read.await?.with_context(|| format!("the policy {} cannot be read", file.display()))?;
    if text.len() as u64 > LARGEST {
        bail!("the policy {} is longer than {LARGEST} bytes", file.display());
    }
    Ok(text)
}

fn parse(text: &str) -> Result<Policy> {
    Ok(serde_saphyr::from_str(text)?)
}

/// Prints what the objects of a file are allowed, and whether that is all they ask for.
pub(crate) async fn check(args: PolicyCheck) -> Result<bool> {
    let policy = if let Some(file) = &args.policy {
        parse(&read(file).await?).with_context(|| cannot_be_used(file))?
    } else {
        println!("without --policy nothing is allowed\n");
        Policy::default()
    };
    let objects = objects(&args.file)?;
    let default: Endpoint = args.engine.engine.clone();
    let connect = |name: Option<&str>| {
        let endpoint = name.map_or(Ok(default.clone()), str::parse)?;
        Engine::connect(&endpoint)
    };
    let containers: Vec<_> = objects.iter().filter_map(Object::as_container).cloned().collect::<Vec<Container>>();
    let mut is_allowed = true;
    for object in &objects {
        let (kind, name, own) = object.title();
        let namespace = args.namespace.clone().or(own).unwrap_or_else(|| "default".to_owned());
        let Checked { answers, notes } = match object {
            Object::Container(container) => check_container(&policy, &namespace, container, &connect).await,
            Object::Exec(exec) => check_exec(&policy, &namespace, exec, &containers, &connect).await,
        };
        println!("{kind} {namespace}/{name}");
        for Answer { ask, grant } in &answers {
            match grant {
                Some(Grant::Rule(number)) => println!("  allowed  {ask} (rule {number})"),
                Some(Grant::Own) => println!("  allowed  {ask} (the namespace's own)"),
                Some(Grant::Invited) => println!("  allowed  {ask} (it names the namespace)"),
                None => {
                    let (field, value) = ask.wanted();
                    println!("  REFUSED  {ask}; a rule would say {field}: {value}");
                }
            }
        }
        for note in notes {
            println!("  note     {note}");
        }
        let refused: Vec<_> =
            answers.iter().filter(|answer| answer.grant.is_none()).map(|answer| &answer.ask).collect();
        if !refused.is_empty() {
            is_allowed = false;
            println!("  - {}", suggestion(&namespace, refused.into_iter()));
        }
    }
    Ok(is_allowed)
}

enum Object {
    Container(Box<Container>),
    Exec(Box<ContainerExec>),
}

impl Object {
    fn as_container(&self) -> Option<&Container> {
        match self {
            Self::Container(container) => Some(container),
            Self::Exec(_) => None,
        }
    }

    /// Kind, name and namespace.
    fn title(&self) -> (&'static str, String, Option<String>) {
        match self {
            Self::Container(it) => ("Container", it.name_any(), it.namespace()),
            Self::Exec(it) => ("ContainerExec", it.name_any(), it.namespace()),
        }
    }
}

/// Our objects in a file, or on stdin.
fn objects(file: &Path) -> Result<Vec<Object>> {
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
    let mut waiting: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| format!("{}", file.display()))?;
    waiting.reverse();
    let mut objects = Vec::new();
    while let Some(mut it) = waiting.pop() {
        let kind = it.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        let group = it.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_ours = group == format!("{}/{}", oncelet_api::GROUP, oncelet_api::VERSION);
        match (is_ours, kind.as_str()) {
            (true, "Container") => objects.push(Object::Container(Box::new(Container::deserialize(it)?))),
            (true, "ContainerExec") => objects.push(Object::Exec(Box::new(ContainerExec::deserialize(it)?))),
            (_, "List") => {
                if let Some(Value::Array(items)) = it.get_mut("items").map(Value::take) {
                    waiting.extend(items.into_iter().rev());
                }
            }
            // It may stand beside ours, and is no business of the policy.
            _ => {}
        }
    }
    if objects.is_empty() {
        bail!("{} has no Container and no ContainerExec of oncelet.dev/v1alpha1", file.display());
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(access: &Access) -> usize {
        match access {
            Access::Policy(policy) => policy.len(),
            Access::Everything | Access::Nothing => 1000,
        }
    }

    const HEAD: &str = "apiVersion: oncelet.dev/v1alpha1\nkind: Policy\nrules:\n";
    const RULE: &str = "- {namespaces: [a], users: [\"1000\"]}\n";

    #[tokio::test(start_paused = true)]
    async fn the_file_is_followed_and_a_broken_one_keeps_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        for (dir, text) in [(&one, format!("{HEAD}{RULE}")), (&two, format!("{HEAD}{RULE}{RULE}"))] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("policy.yaml"), text).unwrap();
        }
        // As a ConfigMap is mounted: a link to a directory is replaced.
        let data = dir.path().join("..data");
        std::os::unix::fs::symlink(&one, &data).unwrap();
        let mut access = begin(Some(data.join("policy.yaml")), Access::Nothing).await.unwrap();
        assert_eq!(allows(&access.borrow_and_update()), 1);

        let swap = |to: &Path| {
            let new = dir.path().join("new");
            std::os::unix::fs::symlink(to, &new).unwrap();
            std::fs::rename(&new, &data).unwrap();
        };
        swap(&two);
        access.changed().await.unwrap();
        assert_eq!(allows(&access.borrow_and_update()), 2);

        for broken in ["", "{", "rules: []", "apiVersion: v1\nkind: Policy\nrules: []"] {
            std::fs::write(two.join("policy.yaml"), broken).unwrap();
            tokio::time::sleep(LOOK * 3).await;
            assert!(!access.has_changed().unwrap(), "{broken:?}");
        }
        std::fs::remove_file(two.join("policy.yaml")).unwrap();
        tokio::time::sleep(LOOK * 3).await;
        assert!(!access.has_changed().unwrap());
        swap(&one);
        access.changed().await.unwrap();
        assert_eq!(allows(&access.borrow_and_update()), 1);
    }

    #[tokio::test]
    async fn a_broken_file_at_the_start_is_an_error_that_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.yaml");
        let error = begin(Some(file.clone()), Access::Nothing).await.unwrap_err();
        assert!(one_line(&error).contains("policy.yaml"), "{error:#}");
        std::fs::write(&file, format!("{HEAD}{RULE}- {{namespaces: [a], image: [x]}}\n")).unwrap();
        let error = begin(Some(file), Access::Nothing).await.unwrap_err();
        let told = one_line(&error);
        assert!(told.contains("policy.yaml") && told.contains("image") && told.contains("line 5"), "{told}");
    }

    #[test]
    fn the_example_is_a_policy() {
        let example = include_str!("../../../deploy/policy.yaml");
        assert!(parse(example).unwrap().len() > 1);
    }

    #[test]
    fn numbers_need_no_quotes() {
        assert_eq!(parse(&format!("{HEAD}- {{namespaces: [a], users: [1000]}}\n")).unwrap().len(), 1);
    }
}
