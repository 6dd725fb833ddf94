//! What is hardly meant, and said to whoever writes it.

use serde_json::json;

use crate::process::{eventually, output};
use crate::world::{World, manifest};

/// Waits until a cluster warns: a policy counts some moments after it was applied.
fn warn_too(world: &World) {
    if world.is_embedded() {
        return;
    }
    let policy = world.oncelet(&["crds", "--warnings"]).unwrap();
    world.apply(&policy).unwrap();
    let probe = manifest("ContainerExec", "probe", &json!({"engineContainer": "x", "command": "a", "args": ["$$"]}));
    let path = world.dir.path().join("probe.json");
    std::fs::write(&path, probe).unwrap();
    eventually("the policy is in force", || {
        let tried = world.kubectl_command().args(["create", "--dry-run=server", "-f"]).arg(&path).output().unwrap();
        String::from_utf8_lossy(&tried.stderr).contains("Warning:").then_some(())
    });
}

pub(crate) fn a_bare_double_dollar_and_a_template_of_dcp_are_warned_of(world: &mut World) {
    world.start();
    warn_too(world);
    let db = world.container("db");
    let mut spec = json!({"command": "/bin/sh", "args": ["-c", "printf '%s' \"$1\"", "sh", "pa$$word"]});
    spec["engineContainer"] = db.name.clone().into();
    spec["env"] =
        json!([{"name": "FINE", "value": "$HOME"}, {"name": "URL", "value": "{{- portForServing \"db\" -}}"}]);
    let path = world.dir.path().join("exec.json");
    std::fs::write(&path, manifest("ContainerExec", "odd", &spec)).unwrap();
    let warned = |args: &[&str]| {
        let done = world.kubectl_command().args(args).arg("-f").arg(&path).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stderr).unwrap()
    };
    for how in [&["apply", "--dry-run=server"][..], &["apply"], &["apply", "--server-side", "--force-conflicts"]] {
        let told = warned(how);
        let warnings: Vec<_> = told.lines().filter(|line| line.starts_with("Warning:")).collect();
        assert_eq!(warnings.len(), 2, "{how:?}: {told}");
        assert!(warnings.iter().any(|it| it.contains("spec.args: $$ stands for a single $")), "{told}");
        assert!(warnings.iter().any(|it| it.contains("spec.env (URL): templates of DCP")), "{told}");
    }
    // What arrives is what the warning says.
    assert_eq!(world.completed("odd")["stdout"]["tail"], "pa$word");
    let tells = |reason: &str| {
        let selector = format!("involvedObject.name=odd,reason={reason}");
        let events = world.kubectl(&["get", "events", "--field-selector", &selector, "-o", "name"]).unwrap();
        events.lines().count()
    };
    for reason in ["SuspiciousDollar", "TemplateNotExpanded"] {
        eventually("the event is there", || (tells(reason) == 1).then_some(()));
    }

    // A Container is looked at as well, and what is written right is not warned of.
    let container = json!({"mode": "existing", "containerName": world.container_name("nobody")});
    let made = json!({"mode": "session", "image": "x", "start": false, "args": ["$$"]});
    for (spec, warns) in [(container, false), (made, true)] {
        std::fs::write(&path, manifest("Container", &format!("warns-{warns}"), &spec)).unwrap();
        assert_eq!(warned(&["apply"]).contains("Warning:"), warns);
    }
    let fine = json!({"engineContainer": db.name, "command": "/bin/true", "args": ["$1 $(X) $$(Y) $$$$ {{ .State }}"]});
    std::fs::write(&path, manifest("ContainerExec", "fine", &fine)).unwrap();
    assert_eq!(warned(&["apply"]), "");
    // What is given to oncelet exec arrives as written, and nobody is warned.
    let odd = "DO $$ BEGIN END $$; pa$word $(X) {{";
    let mut exec = world.oncelet_command();
    exec.args(["exec", "--namespace", &world.namespace, "--name", "typed", &db.name, "--", "/bin/echo", odd]);
    assert_eq!(output(&mut exec).unwrap(), format!("{odd}\n"));
    let events = world.kubectl(&["get", "events", "--field-selector", "involvedObject.name=typed"]).unwrap();
    assert!(!events.contains("SuspiciousDollar"), "{events}");
    if !world.is_embedded() {
        let policy = ["validatingadmissionpolicy", "validatingadmissionpolicybinding"];
        for kind in policy {
            world.kubectl(&["delete", kind, "warnings.oncelet.dev"]).unwrap();
        }
    }
}
