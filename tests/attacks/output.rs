//! What a program or its container hands to the daemon: output, records and words. And the secrets that the daemon hands to it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::process::eventually;
use crate::world::{World, sh};

/// A program can write to its own spool and to its own record. What they claim must cost neither hours nor gigabytes.
pub(crate) fn a_spool_of_a_terabyte_is_not_read(world: &mut World) {
    world.start();
    let db = world.container("db");
    // When it is over, what it has left behind says that 2^63 bytes of its output were kept.
    let script = "echo begin; touch /data/begun; while [ ! -e /data/go ]; do sleep 0.05; done
        truncate -s 1099511627776 $(find /.oncelet -name 'stdout.0*')
        (while :; do
            exit=$(find /.oncelet -name exit.json | grep .) && break; sleep 0.05
         done
         sed 's/\"bytes\":[0-9]*,\"kept\":[0-9]*/\"bytes\":9223372036854775808,\"kept\":9223372036854775808/' $exit > /tmp/exit
         cat /tmp/exit > $exit; touch /data/forged) >/dev/null 2>&1 </dev/null &
        exit 3";
    world.apply_exec("liar", &db, &sh(script));
    eventually("the program has begun", || db.sh("test -e /data/begun").ok());
    eventually("its start is known", || (world.status("liar")["state"] == "Running").then_some(()));
    world.kill();
    db.sh("touch /data/go").unwrap();
    eventually("the record is forged", || db.sh("test -e /data/forged").ok());
    world.start();
    world.apply_exec("liar", &db, &sh(script));
    let status = world.completed("liar");
    assert_eq!((&status["state"], &status["exitCode"]), (&"Finished".into(), &3.into()), "{status:#}");
    assert_eq!(status["stdout"]["truncated"], true, "{status:#}");
    let stored =
        files(&world.data_dir().join("store/logs")).iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    assert!(stored < 1 << 20, "{stored} bytes are stored");
    // And the daemon has time for others.
    assert_eq!(world.run("good", &db, &sh("echo ran"))["exitCode"], 0);
}

/// The same, while the program goes on: a follower must not tell what no supervisor has written.
pub(crate) fn a_spool_that_grows_by_itself_is_told_up_to_the_limit(world: &mut World) {
    world.start();
    let db = world.container("db");
    let mut spec = sh("echo begin; touch /data/begun; while [ ! -e /data/go ]; do sleep 0.05; done
        truncate -s 1099511627776 $(find /.oncelet -name 'stdout.0*'); touch /data/grown
        while [ ! -e /data/end ]; do sleep 0.05; done; exit 4");
    spec["logLimitBytes"] = 2_000_000.into();
    world.apply_exec("liar", &db, &spec);
    eventually("the program has begun", || db.sh("test -e /data/begun").ok());
    eventually("its start is known", || (world.status("liar")["state"] == "Running").then_some(()));
    world.kill();
    db.sh("touch /data/go").unwrap();
    eventually("the spool has grown", || db.sh("test -e /data/grown").ok());
    world.start();
    world.apply_exec("liar", &db, &spec);
    eventually("the daemon follows again", || {
        world.daemon_log().contains("listening to its supervisor again").then_some(())
    });
    db.sh("touch /data/end").unwrap();
    let status = world.completed("liar");
    assert_eq!((&status["state"], &status["exitCode"]), (&"Finished".into(), &4.into()), "{status:#}");
    assert!(world.oncelet(&["logs", "liar", "--stdout"]).unwrap().len() <= 2_000_000 + 20_000);
}

/// A program can speak with its supervisor's voice. What it says must not reach a terminal as commands, nor fill a status.
pub(crate) fn words_from_a_container_are_short_and_command_no_terminal(world: &mut World) {
    world.start();
    let db = world.container("db");
    let words = format!("owned \u{1b}]0;title\u{7}\u{1b}[2J\r\n\u{9b}31m\u{202e}{}", "x".repeat(100_000));
    // A frame that says that the run was abandoned, through the pipe that the supervisor, the program's parent, writes to.
    let words = json!({"message": words}).to_string();
    let [a, b, c, d] = u32::try_from(words.len()).unwrap().to_be_bytes();
    let head = format!("\\{a:03o}\\{b:03o}\\{c:03o}\\{d:03o}");
    db.install("/data/words", &words);
    world.apply_exec("liar", &db, &sh(&format!("while [ ! -e /data/go ]; do sleep 0.05; done; (printf 'A{head}'; cat /data/words) > /proc/$PPID/fd/1; sleep 1000")));
    // Not in the middle of what the supervisor itself says.
    world.wait("liar", "Started");
    db.sh("touch /data/go").unwrap();
    let object = eventually("the words have arrived", || {
        let object = world.object("cexec", "liar");
        object["status"]["message"].as_str().is_some_and(|message| message.contains("owned")).then_some(object)
    });
    let message = object["status"]["message"].as_str().unwrap();
    assert!(message.contains(r"\u{1b}]0;title\u{7}\u{1b}[2J\r\n\u{9b}31m\u{202e}x"), "{message}");
    let events: Value = serde_json::from_str(&world.kubectl(&["get", "events", "-o", "json"]).unwrap()).unwrap();
    for (what, shown) in [("the object", &object["status"]), ("the events", &events)] {
        every_text(shown, &mut |text| {
            assert!(text.len() < 5000, "{what}: {} bytes", text.len());
            assert!(!text.contains(is_obeyed), "{what}: {text:?}");
        });
    }
    for command in
        [&["explain", "liar", "--namespace", &world.namespace][..], &["runs", "show", "liar"], &["runs", "list"]]
    {
        let printed = world.oncelet(command).unwrap();
        assert!(!printed.contains(is_obeyed), "{command:?}: {printed:?}");
    }
    assert!(!world.daemon_log().contains(|character| is_obeyed(character) && character != '\u{1b}'));
    assert!(!world.daemon_log().contains("\u{1b}[2J"));
}

/// A password of four digits is found from any hash that needs no key.
pub(crate) fn a_guessable_secret_cannot_be_confirmed(world: &mut World) {
    const PIN: &str = "4711";
    world.start();
    let db = world.container("db");
    world.kubectl(&["create", "secret", "generic", "pin", &format!("--from-literal=pin={PIN}")]).unwrap();
    let pin = json!({"name": "pin", "key": "pin"});
    let spec = json!({
        "command": "/bin/sh", "args": ["-c", "cat >/dev/null; [ \"$1\" = pin=$PIN ]", "sh", "pin=$(PIN)"],
        "env": [{"name": "PIN", "valueFrom": {"secretKeyRef": pin}}], "stdin": {"secretKeyRef": pin},
    });
    let status = world.run("secret", &db, &spec);
    assert_eq!(status["exitCode"], 0, "{status:#}");
    let salts =
        ["", "PIN", "pin", "stdin", "db", "pin/pin"].map(|salt| [format!("{salt}\0{PIN}"), format!("{salt}{PIN}")]);
    let args = [format!("\0pin={PIN}"), format!("pin={PIN}")];
    let guesses: Vec<_> =
        salts.iter().flatten().chain(&args).map(|text| format!("{:x}", Sha256::digest(text))).collect();
    let shown = world.oncelet(&["runs", "show", "secret", "-o", "json"]).unwrap();
    let remembered = db.sh("cat $(find /.oncelet -type f ! -name 'shim-*')").unwrap();
    assert!(remembered.contains("from secret pin/pin") && !remembered.contains("hmac"), "{remembered}");
    for guess in &guesses {
        assert!(!world.object("cexec", "secret").to_string().contains(guess.as_str()));
        assert!(!shown.contains(guess.as_str()), "{shown}");
        assert!(!remembered.contains(guess.as_str()), "{remembered}");
    }
    nowhere_in(&world.data_dir(), &guesses);
    // Whoever has the store still sees that it is another secret.
    let hash = |name: &str| {
        let shown = world.oncelet(&["runs", "show", name, "-o", "json"]).unwrap();
        let run: Value = serde_json::from_str(&shown).unwrap();
        run["effective"]["env"][0][1]["secret_hmac"].as_str().unwrap().to_owned()
    };
    world.run("same", &db, &spec);
    assert_eq!(hash("secret"), hash("same"));
    world.kubectl(&["patch", "secret", "pin", "--patch", r#"{"stringData": {"pin": "4712"}}"#]).unwrap();
    world.run("other", &db, &spec);
    assert_ne!(hash("secret"), hash("other"));
}

/// What stands in a dotenv file is mostly a password.
pub(crate) fn values_of_env_files_are_shown_nowhere(world: &mut World) {
    const PASSWORD: &str = "hunter2-of-a-file";
    world.start();
    let db = world.container("db");
    let path = world.dir.path().join("app.env");
    std::fs::write(&path, format!("PASSWORD='{PASSWORD}'\n")).unwrap();
    let mut spec = sh("[ \"$URL\" = \"pg://$PASSWORD@db\" ] && [ ${#PASSWORD} = 17 ]");
    spec["envFiles"] = json!([path]);
    spec["env"] = json!([{"name": "URL", "value": "pg://$(PASSWORD)@db"}]);
    spec["args"].as_array_mut().unwrap().extend([json!("sh"), json!("--password=$(PASSWORD)")]);
    let status = world.run("file", &db, &spec);
    assert_eq!(status["exitCode"], 0, "{status:#}");
    let origin = format!("<from env file {}/PASSWORD>", path.display());
    assert_eq!(status["effectiveEnv"][0], json!({"name": "PASSWORD", "value": origin}));
    assert_eq!(status["effectiveEnv"][1]["value"], format!("pg://{origin}@db"));
    assert_eq!(status["effectiveArgs"][3], format!("--password={origin}"));
    let told = [
        world.object("cexec", "file").to_string(),
        world.oncelet(&["runs", "show", "file", "-o", "json"]).unwrap(),
        world.daemon_log(),
        page(world, &format!("/execs/{}/file", world.namespace)),
        db.sh("cat $(find /.oncelet -type f ! -name 'shim-*')").unwrap(),
    ];
    assert!(told[3].contains("--password="), "{}", told[3]);
    for text in told {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    nowhere_in(&world.data_dir(), &[PASSWORD.to_owned()]);
    // The copy that was made for a lost store says no more.
    world.stop();
    std::fs::remove_dir_all(world.data_dir().join("store")).unwrap();
    world.start();
    world.apply_exec("file", &db, &spec);
    eventually("the run is taken back", || {
        let status = world.status("file");
        (status["effectiveArgs"][3] == format!("--password={origin}") && status["exitCode"] == 0).then_some(())
    });
    nowhere_in(&world.data_dir(), &[PASSWORD.to_owned()]);
}

/// A program that never stops writing fills no disk: its beginning and its end are kept, whoever listens.
pub(crate) fn output_without_an_end_leaves_its_beginning_and_its_end(world: &mut World) {
    const LIMIT: usize = 1_000_000;
    world.start();
    let db = world.container("db");
    let endless = "yes 0123456789 & trap 'wait $!; echo; echo the end; exit 0' TERM; wait";
    let much = "yes 0123456789 | head -c 30000000; echo; echo the end";
    for (name, script, extra) in [
        ("endless", endless, json!({"timeoutSeconds": 3})),
        ("supervised", much, json!({"capture": "Supervised"})),
        ("attached", much, json!({"capture": "Attached"})),
    ] {
        let mut spec = sh(script);
        spec["logLimitBytes"] = LIMIT.into();
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let status = world.run(name, &db, &spec);
        let stdout = &status["stdout"];
        assert_eq!((&stdout["truncated"], &status["exitCode"]), (&true.into(), &0.into()), "{name}: {status:#}");
        assert!(stdout["tail"].as_str().unwrap().ends_with("\nthe end\n"), "{name}: {stdout}");
        let missing = stdout["missingBytes"].as_u64().unwrap();
        let bytes = stdout["bytes"].as_u64().unwrap();
        let log = world.oncelet(&["logs", name, "--stdout"]).unwrap();
        assert!("0123456789\n".repeat(LIMIT / 11 + 1).starts_with(&log[..LIMIT]), "{name}");
        let (gap, tail) = log[LIMIT..].trim_start().split_once('\n').unwrap();
        assert!(gap.contains(&format!("{missing} bytes are missing here")), "{name}: {gap}");
        assert_eq!(bytes, missing + (LIMIT + tail.len()) as u64, "{name}");
        assert!(tail.len() == 8192 && tail.ends_with("\nthe end\n"), "{name}: {tail}");
    }
    let stored =
        files(&world.data_dir().join("store/logs")).iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    assert!(stored < 4 << 20, "{stored} bytes are stored");
    let mut silent = sh("echo nothing of this; echo nor of this >&2");
    silent["logLimitBytes"] = 0.into();
    let status = world.run("silent", &db, &silent);
    assert_eq!((&status["stdout"]["tail"], &status["stderr"]["tail"]), (&"".into(), &"".into()));
    assert!(!world.oncelet(&["logs", "silent"]).unwrap().contains("nothing of this"));
}

/// What a terminal would obey. Line ends are the business of who prints.
fn is_obeyed(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\t') || ('\u{202a}'..='\u{202e}').contains(&character)
}

fn every_text(value: &Value, look: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => look(text),
        Value::Array(values) => values.iter().for_each(|value| every_text(value, look)),
        Value::Object(fields) => fields.values().for_each(|value| every_text(value, look)),
        _ => {}
    }
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

/// Checks that no file of the daemon holds any of `texts`.
fn nowhere_in(dir: &Path, texts: &[String]) {
    let files = files(dir);
    assert!(files.iter().any(|path| path.ends_with("runs.db")), "{files:?}");
    for path in files {
        // One that has gone meanwhile holds nothing.
        let Ok(bytes) = std::fs::read(&path) else { continue };
        for text in texts {
            assert!(!bytes.windows(text.len()).any(|it| it == text.as_bytes()), "{text} is in {}", path.display());
        }
    }
}

/// What the page's server answers to the page.
fn page(world: &World, path: &str) -> String {
    let address = world.page_address();
    let (server, token) = address.trim().strip_prefix("http://").unwrap().split_once("/#token=").unwrap();
    let mut stream = TcpStream::connect(server).unwrap();
    write!(
        stream,
        "GET /data{path} HTTP/1.1\r\nHost: {server}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
