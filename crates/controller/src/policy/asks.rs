//! What a spec asks for.
//!
//! Every struct is taken apart with all its fields: a new field does not compile before somebody has decided here what it reaches.

use oncelet_api::{
    ALLOW_NAMESPACES_LABEL, ContainerExecSpec, ContainerLabel, ContainerMode, ContainerNetwork, ContainerPort,
    ContainerSpec, EnvVar, EnvVarSource, Stdin, VolumeKind, VolumeMount,
};
use oncelet_core::policy::{Ask, DEFAULT_NETWORK, Target};

/// What a `ContainerExec` asks for, beside its engine and the container that it is to run in.
pub(super) fn of_exec(spec: &ContainerExecSpec) -> Vec<Ask> {
    let ContainerExecSpec {
        env,
        env_files,
        user,
        stdin,
        // Which engine and which container: asked for each for itself, since a `Container` object may say it.
        container_name: _,
        engine_container: _,
        engine: _,
        // Whose run is meant by it: a key is the namespace's own unless the policy shares it.
        run_key: _,
        // Of the container's inside, which whoever may run a program there has anyway.
        command: _,
        args: _,
        working_directory: _,
        // Of the namespace's own runs and objects.
        run_policy: _,
        on_change: _,
        scope: _,
        log_limit_bytes: _,
        capture: _,
        timeout_seconds: _,
        stop: _,
        stop_grace_period_seconds: _,
        on_delete: _,
        depends_on: _,
        wait_for: _,
        // Connections are made inside the container, to its own addresses.
        wait_for_port: _,
    } = spec;
    if let Some(Stdin {
        // Of the object, or of the namespace's own ConfigMaps and Secrets.
        value: _,
        config_map_key_ref: _,
        secret_key_ref: _,
        upload: _,
    }) = stdin
    {}
    let mut asks = of_env(env);
    asks.extend(env_files.iter().cloned().map(Ask::EnvFile));
    asks.extend(user.clone().map(Ask::User));
    asks
}

/// What a `Container` asks for whose container has this name, beside its engine. Of the modes that take somebody else's container
/// the rest is known once that is, see [`of_adoption`].
pub(super) fn of_container(name: &str, spec: &ContainerSpec) -> Vec<Ask> {
    let ContainerSpec {
        mode,
        image,
        env,
        env_files,
        ports,
        volume_mounts,
        networks,
        labels,
        // Asked for on its own.
        engine: _,
        // The name is given.
        container_name: _,
        // Of the container's inside.
        command: _,
        args: _,
        healthcheck: _,
        // How its own container is looked after. What is pulled is the image's.
        restart_policy: _,
        pull_policy: _,
        lifecycle_key: _,
        start: _,
        // What it stops is its own, or see `of_adoption`.
        stop: _,
    } = spec;
    let mut asks = Vec::new();
    if makes(*mode) {
        asks.push(Ask::ContainerName(name.to_owned()));
        asks.push(Ask::Image(image.clone().unwrap_or_default()));
        if networks.is_empty() {
            asks.push(Ask::Network(DEFAULT_NETWORK.to_owned()));
        }
    }
    // The other modes have none of these.
    asks.extend(networks.iter().map(of_network));
    asks.extend(volume_mounts.iter().filter_map(of_mount));
    asks.extend(ports.iter().map(of_port));
    asks.extend(labels.iter().filter_map(of_label));
    asks.extend(of_env(env));
    asks.extend(env_files.iter().cloned().map(Ask::EnvFile));
    asks
}

/// What a `Container` asks for that takes `target`, which somebody else made.
pub(super) fn of_adoption(spec: &ContainerSpec, target: &Target) -> Vec<Ask> {
    let mut asks = vec![Ask::Enter(target.clone())];
    if spec.stop.unwrap_or_default() {
        asks.push(Ask::Stop(target.clone()));
    }
    match spec.mode {
        ContainerMode::Cleanup => asks.push(Ask::Remove(target.clone())),
        ContainerMode::Session | ContainerMode::Persistent | ContainerMode::Existing => {}
    }
    asks
}

/// Whether oncelet makes the container.
fn makes(mode: ContainerMode) -> bool {
    match mode {
        ContainerMode::Session | ContainerMode::Persistent => true,
        ContainerMode::Existing | ContainerMode::Cleanup => false,
    }
}

/// Values come from the object, the container that it runs in, and the namespace's own `ConfigMap`s and `Secret`s.
fn of_env(env: &[EnvVar]) -> Vec<Ask> {
    for var in env {
        let EnvVar { name: _, value: _, value_from } = var;
        if let Some(EnvVarSource { field_ref: _, container_field_ref: _, config_map_key_ref: _, secret_key_ref: _ }) =
            value_from
        {}
    }
    Vec::new()
}

fn of_network(network: &ContainerNetwork) -> Ask {
    let ContainerNetwork { name, aliases: _ } = network;
    Ask::Network(name.clone())
}

fn of_mount(mount: &VolumeMount) -> Option<Ask> {
    let VolumeMount { kind, source, target: _, read_only } = mount;
    match kind {
        VolumeKind::Bind => {
            Some(Ask::BindMount { path: source.clone().unwrap_or_default(), read_only: read_only.unwrap_or_default() })
        }
        // Without a name it is the container's own.
        VolumeKind::Volume => source.clone().map(Ask::Volume),
    }
}

fn of_port(port: &ContainerPort) -> Ask {
    let ContainerPort { container_port: _, host_port, host_ip, protocol: _ } = port;
    Ask::Port {
        host_ip: host_ip.clone().unwrap_or_else(|| "127.0.0.1".to_owned()),
        // A number that is none is one that no range has.
        port: host_port.map(|port| u16::try_from(port).unwrap_or_default()),
    }
}

fn of_label(label: &ContainerLabel) -> Option<Ask> {
    let ContainerLabel { key, value: _ } = label;
    // Whom it lets in is for its maker to say.
    (key != ALLOW_NAMESPACES_LABEL).then(|| Ask::Label(key.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> Vec<String> {
        let spec: ContainerSpec = serde_json::from_value(spec).unwrap();
        of_container("db", &spec).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_field_of_a_container_that_reaches_out_is_asked_for() {
        let plain = ["the container name \"db\"", "the image \"docker.io/library/x:latest\""];
        let network = "the engine's default network";
        assert_eq!(of(json!({"image": "x"})), [plain[0], plain[1], network]);
        for (field, value, asked) in [
            ("networks", json!([{"name": "host"}]), "the network \"host\""),
            (
                "volumeMounts",
                json!([{"type": "bind", "source": "/etc", "target": "/x"}]),
                "the bind mount \"/etc\" (writable)",
            ),
            (
                "volumeMounts",
                json!([{"type": "bind", "source": "/etc", "target": "/x", "readOnly": true}]),
                "the bind mount \"/etc\" (read-only)",
            ),
            ("volumeMounts", json!([{"type": "volume", "source": "v", "target": "/x"}]), "the volume \"v\""),
            ("ports", json!([{"containerPort": 1}]), "a free port at \"127.0.0.1\""),
            ("ports", json!([{"containerPort": 1, "hostPort": 22, "hostIP": ""}]), "the port 22 at \"\""),
            ("labels", json!([{"key": "a", "value": "b"}]), "the label \"a\""),
            ("envFiles", json!(["/etc/x"]), "the env file \"/etc/x\""),
        ] {
            let mut spec = json!({"image": "x"});
            spec[field] = value;
            let asks = of(spec);
            assert!(asks.iter().any(|ask| ask.starts_with(asked)), "{field}: {asks:?}");
        }
    }

    #[test]
    fn what_stays_inside_is_not_asked_for() {
        let inside = json!({"mode": "existing", "start": false, "stop": true});
        assert!(of(inside).is_empty());
        let mut spec = json!({"image": "x", "networks": [{"name": "none"}], "command": "a", "args": ["b"], "env": [{"name": "A"}],
            "restartPolicy": "always", "pullPolicy": "always", "lifecycleKey": "k", "containerName": "c",
            "volumeMounts": [{"type": "volume", "target": "/x"}],
            "labels": [{"key": "oncelet.dev/allow-namespaces", "value": "b"}]});
        assert_eq!(of(spec.clone()).len(), 3);
        spec["mode"] = json!("persistent");
        assert_eq!(of(spec).len(), 3);
    }

    #[test]
    fn a_bind_mount_without_a_source_is_asked_for() {
        let spec = json!({"image": "x", "volumeMounts": [{"type": "bind", "target": "/x"}]});
        assert!(of(spec).iter().any(|ask| ask.contains("bind mount \"\"")));
    }

    #[test]
    fn an_exec_asks_for_its_user_and_its_files() {
        let spec: ContainerExecSpec = serde_json::from_value(
            json!({"command": "x", "user": "0", "envFiles": ["/a"], "engineContainer": "db", "engine": "ssh://x", "runKey": "k"}),
        )
        .unwrap();
        assert_eq!(of_exec(&spec), [Ask::EnvFile("/a".into()), Ask::User("0".into())]);
    }
}
