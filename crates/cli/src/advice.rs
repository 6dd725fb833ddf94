//! What the embedded API server warns of, as the policy of `oncelet crds --warnings` has a cluster warn of it.

use oncelet_api::{ContainerExecSpec, ContainerSpec, Warning};
use oncelet_apiserver::Advice;
use serde::Deserialize;
use serde_json::Value;

/// For both kinds.
pub(crate) fn all() -> Vec<Advice> {
    vec![
        Advice {
            group: oncelet_api::GROUP,
            plural: "containerexecs",
            warnings: |object| texts(spec::<ContainerExecSpec>(object).map(|spec| spec.warnings())),
        },
        Advice {
            group: oncelet_api::GROUP,
            plural: "containers",
            warnings: |object| texts(spec::<ContainerSpec>(object).map(|spec| spec.warnings())),
        },
    ]
}

/// An object of another version of a definition may have another form: then there is nothing to say.
fn spec<S: for<'de> Deserialize<'de>>(object: &Value) -> Option<S> {
    S::deserialize(&object["spec"]).ok()
}

fn texts(warnings: Option<Vec<Warning>>) -> Vec<String> {
    warnings.into_iter().flatten().map(|warning| warning.text()).collect()
}
