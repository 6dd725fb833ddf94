//! What the API server rejects, and in which words.

use serde_json::{Value, json};

use crate::docker::Container;
use crate::world::{World, exec_manifest, manifest, sh};

pub(crate) fn an_unknown_field_is_rejected_by_name(world: &mut World) {
    world.start();
    let db = Container::named("nobody");
    let mut spec = sh("true");
    spec["argz"] = json!(["typo"]);
    let error = world.apply(&exec_manifest("typo", &db, &spec)).unwrap_err();
    assert!(error.contains("unknown field \"spec.argz\""), "{error}");

    let spec = json!({"mode": "existing", "images": "typo"});
    let error = world.apply(&manifest("Container", "typo", &spec)).unwrap_err();
    assert!(error.contains("unknown field \"spec.images\""), "{error}");
}

pub(crate) fn exactly_one_target_is_asked_for(world: &mut World) {
    world.start();
    for targets in [json!({}), json!({"containerName": "a", "engineContainer": "b"})] {
        let mut spec = sh("true");
        spec.as_object_mut().unwrap().extend(targets.as_object().unwrap().clone());
        let error = world.apply(&manifest("ContainerExec", "targets", &spec)).unwrap_err();
        assert!(error.contains("set exactly one of containerName and engineContainer"), "{error}");
    }
}

pub(crate) fn a_changed_field_is_rejected_by_name(world: &mut World) {
    world.start();
    let db = Container::named("nobody");
    let base = json!({"command": "/bin/true", "args": ["x"]});
    world.apply(&exec_manifest("fixed", &db, &base)).unwrap();
    for (field, value) in [
        ("command", json!("/bin/false")),
        ("args", json!(["y"])),
        ("args", Value::Null),
        ("env", json!([{"name": "A", "value": "1"}])),
        ("workingDirectory", json!("/tmp")),
        ("runKey", json!("other")),
    ] {
        let mut spec = base.clone();
        spec[field] = value;
        if spec[field].is_null() {
            spec.as_object_mut().unwrap().remove(field);
        }
        let error = world.apply(&exec_manifest("fixed", &db, &spec)).unwrap_err();
        assert!(error.contains(&format!("spec.{field}")) && error.contains("is immutable"), "{field}: {error}");
    }
    assert_eq!(world.object("cexec", "fixed")["spec"]["args"], json!(["x"]));
}

pub(crate) fn explain_describes_every_field(world: &mut World) {
    world.start();
    let explained = world.kubectl(&["explain", "cexec.spec"]).unwrap();
    for text in ["engineContainer", "onChange", "Exactly one of containerName and engineContainer is set"] {
        assert!(
            explained.split_whitespace().collect::<Vec<_>>().join(" ").contains(text),
            "{text:?} is not in {explained}"
        );
    }
    let explained = world.kubectl(&["explain", "ctr.spec.ports.hostPort"]).unwrap();
    assert!(explained.contains("integer"), "{explained}");
}
