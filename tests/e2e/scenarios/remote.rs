//! Other engines: that of the tests as if it was on another machine, behind TLS and behind SSH, and a second one beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use oncelet_tests::tls::TlsProxy;
use serde_json::json;

use crate::docker::{self, Container, IMAGE};
use crate::process::{Process, eventually, output};
use crate::world::{World, manifest, sh};

/// A program runs, its output comes, and what happens to its container is heard of.
fn all_is_as_with_an_engine_here(world: &mut World, db: &Container) {
    let first = world.run("seed", db, &sh("head -c 1000000 /dev/zero; echo run >> /data/runs.log; exit 3"));
    assert_eq!((&first["exitCode"], &first["stdout"]["bytes"]), (&3.into(), &1_000_000.into()));
    assert_eq!(first["capture"], "Supervised");
    world.apply_exec("long", db, &sh("echo begun; sleep 1000"));
    world.wait("long", "Started");
    db.stop();
    assert_eq!(world.completed("long")["state"], "Interrupted");
    db.start();
    world.restart();
    let again = world.run("seed", db, &sh("head -c 1000000 /dev/zero; echo run >> /data/runs.log; exit 3"));
    assert_eq!((&again["restored"], &again["runId"]), (&true.into(), &first["runId"]));
    assert_eq!(db.lines("/data/runs.log"), ["run"]);
}

/// The path of the socket of the scenario's engine.
pub(super) fn socket_of_the_engine(world: &World) -> String {
    let host = world.engine_host().or_else(|| std::env::var("DOCKER_HOST").ok());
    let host = host.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
    host.strip_prefix("unix://").expect("the engine of the tests listens on a socket").to_owned()
}

pub(crate) fn an_engine_behind_tls_is_like_one_here(world: &mut World) {
    let certificates = world.dir.path().join("certificates");
    let proxy = TlsProxy::start(socket_of_the_engine(world).into(), &certificates);
    let at = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let url = format!("tcp://{}", proxy.address());
    world.daemon_env = vec![
        at("DOCKER_HOST", &url),
        at("DOCKER_TLS_VERIFY", "1"),
        at("DOCKER_CERT_PATH", certificates.to_str().unwrap()),
    ];
    world.start();
    assert!(world.daemon_log().contains("(TLS) Docker"), "{}", world.daemon_log());
    let db = world.container("db");
    all_is_as_with_an_engine_here(world, &db);
    world.stop();

    // Who does not show a certificate is refused, and told so.
    fs::remove_file(certificates.join("key.pem")).unwrap();
    world.start();
    world.apply_exec("other", &db, &sh("true"));
    let message = world.condition("cexec", "other", "ContainerReady", "False", "EngineUnreachable");
    assert!(message.contains("ertificate"), "{message}");
    // An engine of somebody else's authority is not talked to.
    world.stop();
    fs::copy(certificates.join("other-ca.pem"), certificates.join("ca.pem")).unwrap();
    world.start();
    world.apply_exec("another", &db, &sh("true"));
    let message = world.condition("cexec", "another", "ContainerReady", "False", "EngineUnreachable");
    assert!(message.contains("invalid peer certificate"), "{message}");
}

pub(crate) fn an_engine_behind_ssh_is_like_one_here(world: &mut World) {
    let sshd = Path::new("/usr/sbin/sshd");
    assert!(sshd.exists(), "this needs {} (hack/ensure-tools.sh --tests installs it)", sshd.display());
    let dir = world.dir.path().join("ssh");
    fs::create_dir(&dir).unwrap();
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    for key in ["host", "user"] {
        output(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &file(key)])).unwrap();
    }
    fs::copy(file("user.pub"), file("authorized")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fs::create_dir_all("/run/sshd").unwrap();
    let mut command = Command::new(sshd);
    command.args(["-D", "-e", "-f", "/dev/null", "-h", &file("host"), "-p", &port.to_string()]);
    for option in ["ListenAddress=127.0.0.1", "StrictModes=no", "PasswordAuthentication=no", "PidFile=none"] {
        command.args(["-o", option]);
    }
    command.args(["-o", &format!("AuthorizedKeysFile={}", file("authorized"))]);
    let mut server = Process::spawn("sshd", command, &dir.join("log"));
    eventually("sshd listens", || {
        assert!(server.has_ended().is_none(), "{}", fs::read_to_string(dir.join("log")).unwrap());
        std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
    });
    // What a user has in ~/.ssh, which ssh finds without regard to HOME.
    let config = format!("Host *\nIdentityFile {}\nUserKnownHostsFile {}\n", file("user"), file("known"));
    fs::write(file("config"), config + "StrictHostKeyChecking accept-new\nLogLevel ERROR\n").unwrap();
    fs::write(file("ssh"), format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", file("config"))).unwrap();
    fs::set_permissions(file("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let url = format!("ssh://root@127.0.0.1:{port}{}", socket_of_the_engine(world));
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    world.daemon_env = vec![("DOCKER_HOST".to_owned(), url.clone()), ("PATH".to_owned(), path)];
    world.start();
    assert!(world.daemon_log().contains(&format!("{url} Docker")), "{}", world.daemon_log());
    let db = world.container("db");
    all_is_as_with_an_engine_here(world, &db);
    world.stop();

    fs::write(file("authorized"), "").unwrap();
    world.start();
    world.apply_exec("other", &db, &sh("true"));
    let message = world.condition("cexec", "other", "ContainerReady", "False", "EngineUnreachable");
    assert!(message.contains("Permission denied"), "{message}");
}

/// Docker is the daemon's own engine, Podman the one that objects name.
pub(crate) fn one_daemon_works_with_docker_and_podman(world: &mut World) {
    let podman = std::env::var("ONCELET_TEST_PODMAN").expect("this needs a Podman");
    // Made in Podman, and removed there.
    let in_podman = |name: &str| {
        docker::use_host(Some(podman.clone()));
        let container = Container::run(&world.container_name(name));
        docker::use_host(None);
        container
    };
    let (here, there) = (world.container("db"), in_podman("db"));
    let spec = |engine: Option<&str>, script: &str| {
        let mut spec = sh(script);
        engine.inspect(|engine| spec["engine"] = (*engine).into());
        spec["engineContainer"] = here.name.clone().into();
        spec
    };
    let apply = |world: &World, name: &str, engine: Option<&str>, script: &str| {
        world.apply(&manifest("ContainerExec", name, &spec(engine, script))).unwrap();
    };
    world.start();
    // The same name in both, and not the same container.
    let id = |world: &World, name: &str| world.completed(name)["containerId"].as_str().unwrap().to_owned();
    apply(world, "here", None, "echo here >> /data/runs.log");
    apply(world, "there", Some(&podman), "echo there >> /data/runs.log");
    assert_eq!(id(world, "here"), here.id());
    assert_ne!(id(world, "there"), here.id());
    // What happens in either is heard of.
    let container = json!({
        "mode": "session", "engine": podman, "containerName": world.container_name("session"), "image": IMAGE,
        "command": "/bin/sh", "args": ["-c", "sleep 1000000"],
    });
    world.apply(&manifest("Container", "session", &container)).unwrap();
    world.kubectl(&["wait", "ctr/session", "--for=condition=Ready", "--timeout=60s"]).unwrap();
    assert_eq!(world.object("ctr", "session")["status"]["engine"], podman);

    // A run in the other engine is recovered there, without its object, and what the session had there is removed.
    apply(world, "long", Some(&podman), "while [ ! -e /data/go ]; do sleep 0.1; done; echo done; exit 4");
    world.wait("long", "Started");
    world.kill();
    docker::use_host(Some(podman.clone()));
    there.sh("touch /data/go").unwrap();
    docker::use_host(None);
    world.start();
    eventually("the run is recovered", || {
        world.oncelet(&["runs", "show", "long"]).is_ok_and(|shown| shown.contains("Exit code:   4")).then_some(())
    });
    // What is forgotten is forgotten where it ran, without anybody saying where that is.
    world.oncelet(&["runs", "forget", "there"]).unwrap();
    apply(world, "there", Some(&podman), "echo there >> /data/runs.log");
    assert_eq!(world.completed("there")["restored"], false);
    docker::use_host(Some(podman.clone()));
    eventually("the session container is gone", || {
        docker::docker(&["inspect", &world.container_name("session")]).is_err().then_some(())
    });
    assert_eq!(there.lines("/data/runs.log"), ["there", "there"]);
    drop(there);
    docker::use_host(None);
    apply(world, "long", Some(&podman), "while [ ! -e /data/go ]; do sleep 0.1; done; echo done; exit 4");
    // Its container is gone by now: nothing is said of it, and nothing is started.
    world.condition("cexec", "long", "ContainerReady", "False", "ContainerNotFound");
    assert_eq!(here.lines("/data/runs.log"), ["here"]);
    // A name that is none.
    let refused = world.apply(&manifest("ContainerExec", "wrong", &spec(Some("nonsense"), "true")));
    assert!(refused.is_ok());
    let message = world.condition("cexec", "wrong", "ContainerReady", "False", "EngineUnreachable");
    assert!(message.contains("nonsense"), "{message}");
}
