//! Another user of the machine, and a page of another site in the user's browser: the loopback ports, the tokens, the kubeconfig.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Process, eventually};
use crate::world::{Server, World, sh};

/// The way to the page, as `oncelet page` prints it.
struct Way {
    /// Address and port.
    at: String,
    token: String,
}

fn way(world: &World) -> Way {
    let printed = world.page_address();
    let (at, token) = printed.trim().strip_prefix("http://").unwrap().split_once("/#token=").unwrap();
    Way { at: at.to_owned(), token: token.to_owned() }
}

fn kubeconfig(file: &Path) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// The token of the API, as the kubeconfig has it.
fn api_token(world: &World) -> String {
    let kubeconfig = kubeconfig(&world.kubeconfig());
    let mut users = kubeconfig["users"].as_array().unwrap().iter();
    users.find_map(|it| it["user"]["token"].as_str()).unwrap().to_owned()
}

/// Whether the API lets somebody in with this token.
fn api_takes(world: &World, token: &str) -> bool {
    world.kubectl(&["--token", token, "get", "--raw", "/api"]).is_ok()
}

/// The answer to a request in plain HTTP, headers and all.
fn ask(at: &str, path: &str, host: &str, token: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    // The feed has no end.
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains("\r\n\r\n") {
        let read = stream.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The code with which the page answers somebody with this token.
fn code(at: &str, token: &str) -> String {
    ask(at, "/data/feed", at, token).split(' ').nth(1).unwrap().to_owned()
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

pub(crate) fn the_tokens_of_the_page_and_of_the_api_open_only_their_own_door(world: &mut World) {
    world.start();
    let (way, api) = (way(world), api_token(world));
    assert_ne!(way.token, api);
    assert_eq!(code(&way.at, &way.token), "200");
    assert_eq!(code(&way.at, &api), "401");
    assert_eq!(code(&way.at, ""), "401");
    assert!(api_takes(world, &api));
    assert!(!api_takes(world, &way.token), "the page's token opens the API");
}

/// An open tab goes on sending its token to whoever listens at the port.
pub(crate) fn a_token_of_the_page_ends_with_its_daemon(world: &mut World) {
    world.start();
    let first = way(world);
    let file = world.data_dir().join("page.json");
    assert_eq!(mode(&file), 0o600);
    assert_eq!(code(&first.at, &first.token), "200");
    world.stop();
    assert!(!file.exists(), "page.json outlives its daemon");
    let told = world.oncelet(&["page"]).unwrap_err();
    assert!(told.contains("no oncelet serves a page") && told.contains("oncelet up"), "{told}");

    world.page.clone_from(&first.at);
    world.start();
    let second = way(world);
    assert_eq!(second.at, first.at);
    assert_ne!(second.token, first.token);
    assert_eq!(code(&second.at, &second.token), "200");
    let refused = ask(&second.at, "/data/feed", &second.at, &first.token);
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
}

/// The daemon is killed and cannot clear away after itself; a stranger takes its port and waits for tokens.
pub(crate) fn a_stranger_on_the_port_of_a_killed_daemon_is_given_no_token(world: &mut World) {
    world.start();
    let way = way(world);
    world.kill();
    assert!(world.data_dir().join("page.json").exists());
    let told = world.oncelet(&["page"]).unwrap_err();
    assert!(told.contains("nothing listens") && told.contains("oncelet up"), "{told}");
    assert!(!told.contains(&way.token), "{told}");

    let stranger = TcpListener::bind(&way.at).unwrap();
    let (tell, heard) = mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = stranger.accept() {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..length]).into_owned();
            // The stranger sends back all that it knows.
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{text}");
            let _ = tell.send(text);
        }
    });
    let browser = Recorder::new(world);
    for arguments in [&["page"][..], &["page", "--open"]] {
        let mut command = world.oncelet_command();
        let told = crate::process::output(browser.given_to(&mut command).args(arguments)).unwrap_err();
        assert!(told.contains("another program listens") && told.contains("killed"), "{told}");
        assert!(!told.contains(&way.token), "{told}");
        let request = heard.recv_timeout(Duration::from_mins(1)).unwrap();
        assert!(!request.contains(&way.token), "the stranger was sent the token: {request}");
    }
    assert_eq!(browser.opened(), None, "a browser was sent to the stranger");
}

/// A browser that writes down what it was started with.
struct Recorder {
    script: std::path::PathBuf,
    record: std::path::PathBuf,
}

impl Recorder {
    fn new(world: &World) -> Self {
        let (script, record) = (world.dir.path().join("browser"), world.dir.path().join("opened"));
        fs::write(
            &script,
            format!(
                "#!/bin/sh\ncat /proc/$PPID/cmdline >{0}.new\necho \"$@\" >>{0}.new\nmv {0}.new {0}\n",
                record.display()
            ),
        )
        .unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        Self { script, record }
    }

    fn given_to<'a>(&self, command: &'a mut std::process::Command) -> &'a mut std::process::Command {
        command.env("BROWSER", &self.script)
    }

    fn opened(&self) -> Option<String> {
        fs::read_to_string(&self.record).ok()
    }
}

/// Whoever may run `ps` sees the arguments of every program.
pub(crate) fn the_browser_is_started_without_the_token_in_its_arguments(world: &mut World) {
    world.start();
    let way = way(world);
    let browser = Recorder::new(world);
    let mut command = world.oncelet_command();
    let told = crate::process::output(browser.given_to(&mut command).args(["page", "--open"])).unwrap();
    assert!(!told.contains(&way.token), "{told}");
    let seen = eventually("the browser is opened", || browser.opened());
    assert!(!seen.contains(&way.token), "{seen}");
    let file = seen.trim().rsplit("file://").next().unwrap().to_owned();
    let file = Path::new(&file);
    assert_eq!(mode(file), 0o600);
    let document = fs::read_to_string(file).unwrap();
    assert!(document.contains(&format!("http://{}/#token={}", way.at, way.token)), "{document}");
    world.stop();
    assert!(!file.exists(), "the file outlives its daemon");
}

/// A name of another site may lead to this machine (DNS rebinding), and its page would be in the user's browser.
pub(crate) fn the_page_is_served_to_no_other_site(world: &mut World) {
    world.start();
    let way = way(world);
    let port = way.at.rsplit(':').next().unwrap();
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        &format!("127.0.0.1.evil.example:{port}"),
        "localhost.evil",
        "",
    ] {
        for path in ["/", "/data/feed", "/proof?of=x"] {
            let answer = ask(&way.at, path, host, &way.token);
            assert!(!answer.starts_with("HTTP/1.1 200"), "{host:?} {path}: {answer}");
        }
    }
    let answer = ask(&way.at, "/", &way.at, "").to_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    for header in
        ["content-security-policy: default-src 'none'", "referrer-policy: no-referrer", "cache-control: no-store"]
    {
        assert!(answer.contains(header), "{header} is missing: {answer}");
    }
    assert!(!answer.contains("access-control-allow"), "{answer}");
}

/// Logs are kept, sent elsewhere and read by many.
pub(crate) fn no_token_is_in_the_log_however_much_is_logged(world: &mut World) {
    world.daemon_env.push(("ONCELET_LOG".to_owned(), "trace".to_owned()));
    world.start();
    let way = way(world);
    assert_eq!(code(&way.at, &way.token), "200");
    let db = world.container("db");
    world.run("seed", &db, &sh("echo seeded"));
    let mut tokens = vec![way.token];
    if world.is_embedded() {
        tokens.push(api_token(world));
    }
    world.stop();
    let log = world.daemon_log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log says too little to prove anything");
    assert!(tokens.iter().all(|token| !log.contains(token.as_str())), "a token is in the log");
}

/// A user's own kubeconfig.
const OTHERS: &str = "apiVersion: v1\nkind: Config\ncurrent-context: work\n\
    clusters: [{name: work, cluster: {server: 'https://127.0.0.1:1'}}]\n\
    users: [{name: work, user: {username: '0123', password: secret}}]\n\
    contexts: [{name: work, context: {cluster: work, user: work}}]\n";

/// `--kubeconfig` may well be the file with the ways into all of a user's clusters.
pub(crate) fn a_kubeconfig_with_other_clusters_survives_up_and_its_end(world: &mut World) {
    let real = world.dir.path().join("real");
    fs::write(&real, OTHERS).unwrap();
    let given = world.kubeconfig();
    std::os::unix::fs::symlink(&real, &given).unwrap();
    // The current context is not that of oncelet.
    world.expects_trouble = true;
    let others_are_there = || {
        assert!(fs::symlink_metadata(&given).unwrap().is_symlink());
        assert_eq!(mode(&real), 0o600);
        let found = kubeconfig(&real);
        assert_eq!(found["current-context"], "work");
        assert_eq!(found["users"][0]["user"]["username"], "0123");
        for (list, ours) in [("clusters", 1), ("users", 2), ("contexts", 2)] {
            let names: Vec<_> = found[list].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
            assert_eq!((names[0].as_str(), names.len()), (Some("work"), 1 + ours), "{names:?}");
        }
        found
    };
    world.start();
    let first = others_are_there();
    let here = ["--context", "oncelet"];
    world.kubectl(&[&here[..], &["get", "cexec"]].concat()).unwrap();
    assert!(world.daemon_log().contains("kubectl config use-context oncelet"));

    let mut second = World::with_engine(Server::Embedded, world.engine_host());
    std::os::unix::fs::symlink(&real, second.kubeconfig()).unwrap();
    second.expects_trouble = true;
    second.start();
    let both = others_are_there();
    assert_ne!(both["clusters"][1], first["clusters"][1], "the last one that was started is meant");
    second.kubectl(&[&here[..], &["create", "namespace", "mine"]].concat()).unwrap();
    let db = second.container("db");
    let ran = second.oncelet(&["exec", "--context", "oncelet", "--namespace", "mine", &db.name, "--", "echo", "hello"]);
    assert_eq!(ran.unwrap(), "hello\n");
    second.stop();
    world.stop();
    // It is there for the next start.
    assert_eq!(others_are_there(), both);

    for (content, why) in
        [("a: &x 1\n", "anchors"), ("[1]", "mapping"), ("clusters: [{name: oncelet}]", "did not write")]
    {
        fs::write(&real, content).unwrap();
        let data = world.data_dir();
        let args = ["up", "--listen", "127.0.0.1:0", "--page", "off", "--data-dir", data.to_str().unwrap()];
        let told = world.oncelet(&args).unwrap_err();
        assert!(told.contains(why) && told.contains("left as it is") && told.contains("--kubeconfig"), "{told}");
        assert_eq!(fs::read_to_string(&real).unwrap(), content);
    }
}

/// Somebody has a copy of the kubeconfig; its owner has noticed.
pub(crate) fn a_stolen_kubeconfig_is_refused_once_its_credentials_are_rotated(world: &mut World) {
    world.start();
    let stolen = world.dir.path().join("stolen");
    fs::copy(world.kubeconfig(), &stolen).unwrap();
    let token = api_token(world);
    let path = stolen.to_str().unwrap().to_owned();
    // The thief checks no certificates.
    let thief = move |world: &World, context: &str| {
        world.kubectl(&["--kubeconfig", &path, "--insecure-skip-tls-verify", "--context", context, "get", "cexec"])
    };
    thief(world, "oncelet").unwrap();
    thief(world, "oncelet-certificate").unwrap();
    let mut watch = world.kubectl_command();
    watch.arg("--kubeconfig").arg(&stolen);
    watch.args(["get", "--raw", "/apis/oncelet.dev/v1alpha1/containerexecs?watch=true"]);
    let seen = world.dir.path().join("seen");
    let mut watch = Process::spawn("kubectl", watch, &seen);
    let db = world.container("db");
    world.run("first", &db, &sh("echo first"));
    eventually("the thief watches", || fs::read_to_string(&seen).unwrap().contains("first").then_some(()));

    let told = world.oncelet(&["credentials", "rotate"]).unwrap();
    assert!(told.contains("refused from now on") && told.contains("has the new ones"), "{told}");
    for context in ["oncelet", "oncelet-certificate"] {
        thief(world, context).unwrap_err();
    }
    eventually("the thief's watch is cut", || watch.has_ended());
    assert!(!api_takes(world, &token));
    assert_ne!(api_token(world), token);
    // The owner goes on, and so does the daemon itself.
    world.run("second", &db, &sh("echo second"));
    assert!(!fs::read_to_string(&seen).unwrap().contains("second"));

    // While none runs it is the same.
    world.stop();
    let token = api_token(world);
    world.oncelet(&["credentials", "rotate"]).unwrap();
    world.start();
    assert!(!api_takes(world, &token));
    world.run("third", &db, &sh("echo third"));
}

/// Whoever may set the clock ahead for a moment must not keep oncelet from starting for a year.
pub(crate) fn a_clock_that_was_ahead_keeps_no_daemon_from_starting(world: &mut World) {
    world.start();
    world.stop();
    let state_dir = world.data_dir().join("apiserver");
    let config = |state_dir: &Path| oncelet_apiserver::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state_dir: state_dir.to_owned(),
        kubeconfig: state_dir.join("../other-kubeconfig"),
        crds: Vec::new(),
        parts: Vec::new(),
        advice: Vec::new(),
        extensions: Vec::new(),
        persist: false,
        now: || "2199-01-01T00:00:00Z".parse().unwrap(),
    };
    fs::remove_file(state_dir.join("ca.json")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    drop(runtime.block_on(oncelet_apiserver::Server::bind(config(&state_dir))).unwrap());
    let told = world.oncelet(&["doctor"]).unwrap_err();
    assert!(told.contains("certificates") && told.contains("the clock was ahead"), "{told}");
    world.start();
    let db = world.container("db");
    world.run("seed", &db, &sh("echo seeded"));
    let told = world.oncelet(&["doctor"]).unwrap_or_else(|told| told);
    assert!(told.contains("made anew a month before") && !told.contains("the clock was ahead"), "{told}");
}
