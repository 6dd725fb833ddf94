//! POST.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use super::{Answer, Call};
use crate::builtin::{Builtin, NAMESPACES};
use crate::lifecycle;
use crate::status::{ApiError, Cause};
use crate::storage::{CreateRefused, Key};
use crate::{body, meta};

pub(super) fn create(call: &Call, raw: &[u8]) -> Result<Response<Body>, ApiError> {
    let object = body::object(&call.headers, raw)?;
    if let Some(question) = call.resource.builtin().filter(|builtin| builtin.is_question()) {
        return call.reply(Answer { code: 201, object: answered(call, question, object), warnings: Vec::new() });
    }
    if call.resource.namespaced && call.namespace.is_none() {
        return Err(ApiError::method_not_allowed());
    }
    call.reply(create_object(call, object)?)
}

/// Stores a new object, the writer's own in all its fields.
fn create_object(call: &Call, object: Value) -> Result<Answer, ApiError> {
    store_new(call, object, |object| {
        let nothing = call.resource.builtin().map_or_else(|| json!({}), Builtin::nothing);
        call.book(&nothing, object, None);
    })
}

/// Stores a new object, once `book` has written down whose it is.
pub(super) fn store_new(call: &Call, object: Value, book: impl FnOnce(&mut Value)) -> Result<Answer, ApiError> {
    let namespace = call.namespace.as_deref().unwrap_or_default();
    let mut admitted =
        lifecycle::create(&call.resource, object, namespace, call.name.as_deref(), call.strictness(), call.now())?;
    admitted.warnings.extend(call.advice(&admitted.object));
    book(&mut admitted.object);
    call.resource.make_storable(&mut admitted.object);
    let subject = call.resource.subject();
    let name = meta::name(&admitted.object).to_owned();
    let key = Key::new(namespace, &name);
    let parent = Key::new("", namespace);
    if call.query.dry_run() {
        if call.app.store.get(&call.resource.table, &key).is_some() {
            return Err(ApiError::already_exists(subject, &name));
        }
        let object = call.present(admitted.object);
        return Ok(Answer { code: 201, object, warnings: admitted.warnings });
    }
    let parent_of = call.resource.namespaced.then_some((NAMESPACES, &parent));
    let stored = call.app.store.create(&call.resource.table, key, &mut admitted.object, parent_of);
    stored.map_err(|refused| match refused {
        CreateRefused::Exists => ApiError::already_exists(subject, &name),
        CreateRefused::ParentMissing => ApiError::not_found(super::namespace::SUBJECT, namespace),
        CreateRefused::ParentEnding => {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let cause = Cause {
                reason: "NamespaceTerminating",
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            };
            let mut error = ApiError::forbidden(subject, &name, &why);
            error.details.get_or_insert_default().causes = vec![cause];
            error
        }
    })?;
    call.after_commit();
    Ok(Answer { code: 201, object: call.present(admitted.object), warnings: admitted.warnings })
}

/// The holder of the token is one user, and may do everything that is served.
fn answered(call: &Call, question: Builtin, mut object: Value) -> Value {
    meta::put(&mut object, "kind", json!(call.resource.kind));
    meta::put(&mut object, "apiVersion", json!(call.resource.api_version()));
    let status = match question {
        Builtin::SelfSubjectReview => {
            json!({"userInfo": {"username": crate::auth::USER, "groups": ["system:masters", "system:authenticated"]}})
        }
        _ => json!({"allowed": true}),
    };
    meta::put(&mut object, "status", status);
    meta::in_reading_order(object)
}
