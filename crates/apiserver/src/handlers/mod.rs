//! What each verb does. Every handler reads a [`Call`], and what it changes goes through `lifecycle`.

mod create;
mod delete;
mod namespace;
mod patch;
mod read;
mod scale;
mod update;
mod watch;

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::app::App;
use crate::builtin::{Builtin, DEFINITIONS, NAMESPACES};
use crate::lifecycle::{FieldValidation, Strictness};
use crate::meta::At;
use crate::negotiate::{Form, json_reply};
use crate::patch::managers::{Writer, book_update};
use crate::registry::Resource;
use crate::route::{Query, Target};
use crate::selectors::Selector;
use crate::status::ApiError;
use crate::storage::{Key, Stored};
use crate::{body, meta};

/// One request for a resource or one of its objects.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) resource: Arc<Resource>,
    /// `None` is all namespaces, or a resource without namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Subresource,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    /// Fields that the body has twice.
    duplicates: Vec<String>,
}

/// Which side of an object a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subresource {
    /// All of it.
    Object,
    Status,
    Scale,
}

impl Subresource {
    /// As `managedFields` have it.
    fn name(self) -> &'static str {
        match self {
            Self::Object => "",
            Self::Status => "status",
            Self::Scale => "scale",
        }
    }
}

/// An object to answer with.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) object: Value,
    pub(crate) warnings: Vec<String>,
}

impl Call {
    pub(crate) fn new(
        app: Arc<App>,
        resource: Arc<Resource>,
        target: Target,
        subresource: Subresource,
        query: Query,
        headers: HeaderMap,
    ) -> Self {
        let Target { namespace, name, .. } = target;
        Self { app, resource, namespace, name, subresource, query, headers, duplicates: Vec::new() }
    }

    fn is_of_status(&self) -> bool {
        self.subresource == Subresource::Status
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.app.now()
    }

    /// The key of the object that the URL names.
    fn key(&self) -> Key {
        Key::new(self.namespace.as_deref().unwrap_or_default(), self.name.as_deref().unwrap_or_default())
    }

    pub(crate) fn find(&self) -> Result<Arc<Stored>, ApiError> {
        let key = self.key();
        let found = self.app.store.get(&self.resource.table, &key);
        found.ok_or_else(|| ApiError::not_found(self.resource.subject(), &key.name))
    }

    /// How large the object is that the URL names, in bytes of JSON.
    pub(crate) fn weight(&self) -> usize {
        if self.name.is_none() { 0 } else { self.find().map_or(0, |found| found.json.len()) }
    }

    fn selector(&self) -> Result<Selector, ApiError> {
        let selectable = |field: &str| match self.resource.builtin() {
            Some(builtin) => builtin.selectable().contains(&field),
            None => self.resource.selectable.iter().any(|one| one == field),
        };
        Selector::parse(self.query.text("labelSelector"), self.query.text("fieldSelector"), selectable)
    }

    fn selects(&self, selector: &Selector, object: &Stored) -> bool {
        selector.is_empty()
            || match self.resource.builtin() {
                // Its fields have other names in the store.
                Some(Builtin::Event) => selector.matches(&self.present(object.value())),
                _ => selector.matches(&object.value()),
            }
    }

    /// A stored object as this resource shows it.
    pub(crate) fn present(&self, stored: Value) -> Value {
        let mut object = match self.resource.builtin() {
            Some(builtin) => builtin.show(stored),
            None => stored,
        };
        self.resource.show_stored(&mut object);
        object
    }

    /// Whether an answer in this form has objects exactly as they are stored.
    fn takes_as_stored(&self, form: Form) -> bool {
        form == Form::Plain && self.resource.shows_what_is_stored()
    }

    /// Refuses options that say nothing known.
    fn check_options(&self, method: &Method) -> Result<(), ApiError> {
        let options = match *method {
            Method::POST => "CreateOptions",
            Method::PUT => "UpdateOptions",
            Method::PATCH => "PatchOptions",
            Method::DELETE => "DeleteOptions",
            _ => return Ok(()),
        };
        let dry_run = self.query.text("dryRun");
        if !["", "All"].contains(&dry_run) {
            return Err(ApiError::unsupported_option(options, "dryRun", &json!([dry_run]), &["All"]));
        }
        let validation = self.query.text("fieldValidation");
        if *method != Method::DELETE && !FieldValidation::NAMES.contains(&validation) {
            let (field, given) = ("fieldValidation", json!(validation));
            return Err(ApiError::unsupported_option(options, field, &given, &FieldValidation::NAMES));
        }
        Ok(())
    }

    /// Books a write that is not an apply, in the form in which it was written.
    fn book(&self, old: &Value, new: &mut Value, given: Option<&Value>) {
        let booking = Booking::of(self);
        let show = |stored: &Value| match self.resource.builtin() {
            Some(builtin) => builtin.show(stored.clone()),
            None => stored.clone(),
        };
        let mut shown = show(new);
        book_update(&show(old), &mut shown, given, Some(&self.resource.schema), &booking.writer(self));
        meta::copy(&shown, new, "managedFields");
    }

    fn strictness(&self) -> Strictness<'_> {
        let validation = FieldValidation::parse(self.query.text("fieldValidation"));
        Strictness { validation, duplicates: &self.duplicates }
    }

    /// Who writes: as it names itself, or else its program.
    fn manager(&self) -> String {
        match self.query.text("fieldManager") {
            "" => {
                let agent = self.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
                let program = agent.unwrap_or_default().split(['/', ' ']).next().unwrap_or_default();
                if program.is_empty() { "unknown".to_owned() } else { program.to_owned() }
            }
            manager => manager.to_owned(),
        }
    }

    /// Definitions decide what is served.
    fn after_commit(&self) {
        if &*self.resource.table == DEFINITIONS {
            self.app.reload_definitions();
        }
    }

    fn reply(&self, answer: Answer) -> Result<Response<Body>, ApiError> {
        let form = Form::of(&self.headers, &self.query)?;
        // A Status is never a row of the resource's table.
        let is_status = answer.object.at("kind") == "Status" && answer.object.at("apiVersion") == "v1";
        let object = if is_status { answer.object } else { form.object(&self.resource, answer.object, self.now()) };
        let mut response = json_reply(answer.code, &object);
        for warning in &told(answer.warnings) {
            let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        Ok(response)
    }
}

/// Warnings as Kubernetes cuts them, and not too many: clients have little room for headers.
fn told(mut warnings: Vec<String>) -> Vec<String> {
    const ALL: usize = 4096;
    const ONE: usize = 256;
    warnings.truncate(50);
    let length = |text: &String| text.chars().count();
    if warnings.iter().map(length).sum::<usize>() <= ALL {
        return warnings;
    }
    let short = warnings.iter().map(|warning| warning.chars().take(ONE).collect::<String>());
    let mut room = ALL;
    short
        .take_while(|warning| {
            let left = room.checked_sub(length(warning));
            room = left.unwrap_or(0);
            left.is_some()
        })
        .collect()
}

/// What a booking in `managedFields` needs to know of a call.
struct Booking {
    manager: String,
    api_version: String,
    now: Value,
}

impl Booking {
    fn of(call: &Call) -> Self {
        Self { manager: call.manager(), api_version: call.resource.api_version(), now: meta::time(call.now()) }
    }

    fn writer(&self, call: &Call) -> Writer<'_> {
        Writer {
            manager: &self.manager,
            api_version: &self.api_version,
            subresource: call.subresource.name(),
            has_status: call.resource.has_status,
            now: &self.now,
        }
    }
}

impl Answer {
    fn ok(object: Value) -> Self {
        Self { code: 200, object, warnings: Vec::new() }
    }
}

/// Goes on with what a kill interrupted in the middle: a removal takes several writes.
pub(crate) fn resume(app: &App) {
    let everything = app.store.everything();
    let uids: HashSet<&str> = everything.iter().map(|(_, object)| &*object.uid).collect();
    for (table, object) in &everything {
        if &**table == NAMESPACES && object.is_ending {
            namespace::empty(app, &object.key.name);
        }
        delete::follow_owners(app, table, object, &uids);
    }
}

/// Removes an object whose time is over, unless somebody has written it since. Nothing holds it.
pub(crate) fn expire(app: &App, table: &Arc<str>, object: &Stored) {
    if let Ok(removed) = app.store.remove(table, object, &mut object.value()) {
        delete::after_removal(app, &removed);
    }
}

pub(crate) fn dispatch(method: &Method, mut call: Call, raw: &[u8]) -> Result<Response<Body>, ApiError> {
    let one = call.name.is_some();
    call.check_options(method)?;
    if call.subresource == Subresource::Scale {
        return scale::dispatch(method, &call, raw);
    }
    if matches!(*method, Method::POST | Method::PUT) && call.strictness().validation != FieldValidation::Ignore {
        call.duplicates = body::duplicates(&call.headers, raw);
    }
    if call.resource.builtin().is_some_and(Builtin::is_question) && (method != Method::POST || one) {
        return Err(ApiError::method_not_allowed());
    }
    match (method, one) {
        (&Method::GET, false) if call.query.flag("watch") => watch::watch(call),
        (&Method::GET, true) => read::get(&call),
        (&Method::GET, false) => read::list(&call),
        (&Method::POST, false) => create::create(&call, raw),
        (&Method::PUT, true) => update::update(&call, raw),
        (&Method::PATCH, true) => patch::patch(&call, raw),
        (&Method::DELETE, true) if !call.is_of_status() => delete::delete(&call, raw),
        (&Method::DELETE, false) => delete::delete_collection(&call, raw),
        _ => Err(ApiError::method_not_allowed()),
    }
}
