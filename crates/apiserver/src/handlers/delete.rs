//! DELETE of one object and of a collection; what goes with it.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use super::{Answer, Call, namespace};
use crate::app::App;
use crate::builtin::{Builtin, DEFINITIONS, NAMESPACES};
use crate::meta::At;
use crate::status::{self, ApiError, Cause};
use crate::storage::{Key, Stored};
use crate::{body, meta};

/// What becomes of the objects that name the deleted one as their owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// They are deleted too.
    Background,
    /// They stay, without the owner.
    Orphan,
}

/// `DeleteOptions`, from the body or the query.
struct Options {
    policy: Policy,
    foreground: bool,
    uid: Option<String>,
    version: Option<String>,
    dry_run: bool,
}

impl Options {
    fn read(call: &Call, raw: &[u8]) -> Result<Self, ApiError> {
        let body = if raw.is_empty() { json!({}) } else { body::object(&call.headers, raw)? };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let query = call.query.text("propagationPolicy");
        let policy = if query.is_empty() { body.at("propagationPolicy").as_str().unwrap_or_default() } else { query };
        let orphan = body.at("orphanDependents") == true || call.query.flag("orphanDependents");
        if !policy.is_empty() && body.at("orphanDependents").is_boolean() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            let subject = status::Subject { group: "meta.k8s.io", plural: "", kind: "DeleteOptions" };
            let cause = Cause::invalid("propagationPolicy", json!(policy), why);
            return Err(ApiError::invalid(subject, "", vec![cause]));
        }
        let (policy, foreground) = match policy {
            "" if orphan => (Policy::Orphan, false),
            "" | "Background" => (Policy::Background, false),
            "Orphan" => (Policy::Orphan, false),
            "Foreground" => (Policy::Background, true),
            other => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                return Err(ApiError::unsupported_option(
                    "DeleteOptions",
                    "propagationPolicy",
                    &json!(other),
                    &supported,
                ));
            }
        };
        Ok(Self {
            policy,
            foreground,
            uid: text(body.at("preconditions").at("uid")),
            version: text(body.at("preconditions").at("resourceVersion")),
            dry_run: call.query.dry_run() || body.at("dryRun").as_array().is_some_and(|values| !values.is_empty()),
        })
    }

    fn check(&self, call: &Call, found: &Stored) -> Result<(), ApiError> {
        let subject = call.resource.subject();
        let name = &found.key.name;
        let failed = |what: &str, wanted: &str, is: &str, maybe: &str| {
            // Kubernetes names the kind here, where it names the resource elsewhere.
            let subject = status::Subject { plural: subject.kind, ..subject };
            let compared =
                format!("the {what} in the precondition ({wanted}) does not match the {what} in record ({is})");
            ApiError::conflict(subject, name, &format!("{compared}. The object might have been {maybe}"))
        };
        if let Some(uid) = self.uid.as_deref().filter(|uid| *uid != &*found.uid) {
            return Err(failed("UID", uid, &found.uid, "deleted and then recreated"));
        }
        let version = found.version.to_string();
        if let Some(wanted) = self.version.as_deref().filter(|wanted| *wanted != version) {
            return Err(failed("ResourceVersion", wanted, &version, "modified"));
        }
        // Foreground means that the owner outlasts its dependents. That is not built for dependents that can hold out.
        let holds_out =
            |(_, dependent): &(Arc<str>, Arc<Stored>)| meta::finalizers(&dependent.value()).next().is_some();
        if self.foreground && call.app.store.dependents(&found.uid).iter().any(holds_out) {
            let why = "Foreground is not supported while a dependent has finalizers: use Background or Orphan";
            return Err(ApiError::invalid(subject, name, vec![Cause::forbidden("propagationPolicy", why)]));
        }
        Ok(())
    }
}

pub(super) fn delete(call: &Call, raw: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = Options::read(call, raw)?;
    let found = call.find()?;
    options.check(call, &found)?;
    if namespace::is_one(call) && found.key.name == "default" {
        return Err(ApiError::forbidden(call.resource.subject(), "default", "this namespace may not be deleted"));
    }
    if options.dry_run {
        return call.reply(Answer::ok(deleted(call, &found)));
    }
    let left = end(&call.app, &call.resource.table, &found.key, options.policy);
    call.after_commit();
    call.reply(Answer::ok(match left {
        Some(waiting) => call.present(waiting.value()),
        None => deleted(call, &found),
    }))
}

fn deleted(call: &Call, found: &Stored) -> Value {
    status::success(call.resource.subject(), &found.key.name, &found.uid)
}

pub(super) fn delete_collection(call: &Call, raw: &[u8]) -> Result<Response<Body>, ApiError> {
    if matches!(call.resource.builtin(), Some(Builtin::Namespace)) {
        return Err(ApiError::method_not_allowed());
    }
    let options = Options::read(call, raw)?;
    let selector = call.selector()?;
    let snapshot = call.app.store.list(&call.resource.table, call.namespace.as_deref());
    let selected = snapshot.objects.iter().filter(|object| call.selects(&selector, object));
    let mut items = Vec::new();
    for object in selected {
        options.check(call, object)?;
        if !options.dry_run {
            end(&call.app, &call.resource.table, &object.key, options.policy);
        }
        items.push(call.present(object.value()));
    }
    call.after_commit();
    let form = crate::negotiate::Form::of(&call.headers, &call.query)?;
    let mut metadata = json!({"resourceVersion": call.app.store.version().to_string()});
    if call.resource.is_custom() {
        meta::put(&mut metadata, "continue", json!(""));
    }
    Ok(crate::negotiate::json_reply(200, &form.list(&call.resource, &items, &metadata, call.now())))
}

/// Ends one object: removes it, or marks it as ending while something holds on to it. Returns what is left.
pub(super) fn end(app: &App, table: &Arc<str>, key: &Key, policy: Policy) -> Option<Arc<Stored>> {
    if &**table == DEFINITIONS {
        // What a definition defines does not outlive it.
        let defined: Arc<str> = Arc::from(key.name.as_str());
        for object in app.store.list(&defined, None).objects {
            end(app, &defined, &object.key, Policy::Background);
        }
    }
    loop {
        let found = app.store.get(table, key)?;
        let mut ending = found.value();
        let is_namespace = &**table == NAMESPACES;
        let held = meta::finalizers(&ending).next().is_some() || is_namespace;
        if held && found.is_ending {
            return Some(found);
        }
        if !held {
            let Ok(removed) = app.store.remove(table, &found, &mut ending) else { continue };
            release_dependents(app, &removed, policy);
            after_removal(app, &removed);
            return None;
        }
        meta::set(&mut ending, "deletionTimestamp", meta::time(app.now()));
        if !is_namespace {
            meta::set(&mut ending, "deletionGracePeriodSeconds", json!(0));
        }
        if let Some(generation) = ending.at("metadata").at("generation").as_i64() {
            meta::set(&mut ending, "generation", json!(generation.saturating_add(1)));
        }
        if is_namespace {
            meta::put(&mut ending, "status", json!({"phase": "Terminating"}));
        }
        let Ok(marked) = app.store.replace(table, &found, &mut ending) else { continue };
        // Until the owner is gone its dependents stay, unless they are to outlive it.
        if policy == Policy::Orphan {
            release_dependents(app, &marked, policy);
        }
        if is_namespace {
            // Told as ending even where it is gone by now: that is what clients expect of a namespace.
            namespace::empty(app, &key.name);
        }
        return Some(marked);
    }
}

/// What a removal sets free: dependents, and the namespace that waited for its last object.
pub(super) fn after_removal(app: &App, removed: &Stored) {
    release_dependents(app, removed, Policy::Background);
    if !removed.key.namespace.is_empty() {
        namespace::remove_if_empty(app, &removed.key.namespace);
    }
}

/// Ends an object whose owners are all gone, as far as they are of kinds that are served here.
pub(super) fn follow_owners(app: &App, table: &Arc<str>, object: &Stored, uids: &HashSet<&str>) {
    if object.owners.is_empty() {
        return;
    }
    let registry = app.registry();
    let gone = |owner: &Value| {
        let text = |field: &str| owner.at(field).as_str().unwrap_or_default();
        registry.serves_kind(text("apiVersion"), text("kind")) && !uids.contains(text("uid"))
    };
    if meta::owner_references(&object.value()).all(gone) {
        end(app, table, &object.key, Policy::Background);
    }
}

fn release_dependents(app: &App, owner: &Stored, policy: Policy) {
    for (table, dependent) in app.store.dependents(&owner.uid) {
        let mut freed = dependent.value();
        let others: Vec<Value> = meta::owner_references(&freed)
            .filter(|reference| reference.at("uid").as_str() != Some(&owner.uid))
            .cloned()
            .collect();
        if policy == Policy::Background && others.is_empty() {
            end(app, &table, &dependent.key, Policy::Background);
            continue;
        }
        if others.is_empty() {
            meta::remove(&mut freed, "ownerReferences");
        } else {
            meta::set(&mut freed, "ownerReferences", Value::Array(others));
        }
        // Lost to another writer: the reference names an owner that no longer is, which every reader must expect.
        let _ = app.store.replace(&table, &dependent, &mut freed);
    }
}
