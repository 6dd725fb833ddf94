//! Objects of a kind that is ours in all but its name, and that no controller looks at: what a bare request costs.

use std::time::Instant;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde_json::json;

const GROUP: &str = "bench.oncelet.dev";
const VERSION: &str = "v1alpha1";
const KIND: &str = "Twin";

pub(crate) struct Twins(Api<DynamicObject>);

impl Twins {
    /// Makes the kind.
    pub(crate) async fn made(client: Client) -> Self {
        let mut crd = oncelet_api::crds().into_iter().find(|crd| crd.spec.names.kind == "ContainerExec").unwrap();
        crd.metadata.name = Some(format!("twins.{GROUP}"));
        GROUP.clone_into(&mut crd.spec.group);
        let names = &mut crd.spec.names;
        (names.kind, names.plural, names.singular) = (KIND.to_owned(), "twins".to_owned(), Some("twin".to_owned()));
        (names.list_kind, names.short_names, names.categories) = (Some(format!("{KIND}List")), None, None);
        let crds = Api::<CustomResourceDefinition>::all(client.clone());
        crds.create(&PostParams::default(), &crd).await.unwrap();
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, KIND), "twins");
        await_condition(crds, &format!("twins.{GROUP}"), conditions::is_crd_established()).await.unwrap();
        Self(Api::namespaced_with(client, "default", &resource))
    }

    pub(crate) async fn create(&self, number: usize) {
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND, "metadata": {"name": format!("twin-{number}")},
            "spec": {"engineContainer": "db", "command": "/bin/true"},
        });
        self.0.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    /// Writes a status as large as that of a program that has run.
    pub(crate) async fn patch(&self, number: usize) {
        let condition = |type_: &str| {
            json!({
                "type": type_, "status": "True", "reason": "Finished", "message": "it ended with exit code 0",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
            })
        };
        let patch = Patch::Merge(json!({"status": {
            "state": "Finished", "exitCode": 0, "restored": true, "containerName": "db",
            "message": format!("{:?}", Instant::now()), "observedGeneration": 1,
            "startupTimestamp": "2026-01-01T00:00:00.000000Z", "finishTimestamp": "2026-01-01T00:00:00.000000Z",
            "stdout": {"bytes": 0, "tail": "", "truncated": false},
            "stderr": {"bytes": 0, "tail": "", "truncated": false},
            "conditions": [condition("ContainerReady"), condition("Started"), condition("Succeeded")],
        }}));
        self.0.patch_status(&format!("twin-{number}"), &PatchParams::default(), &patch).await.unwrap();
    }
}
