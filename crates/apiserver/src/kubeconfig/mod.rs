//! The file that clients are pointed at. It may be a user's own, with other clusters in it: only what is ours is changed.

mod file;
mod yaml;

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::Error;
use crate::auth::Token;
use crate::tls::Pems;
use yaml::Node;

/// The cluster, and the context and the user with the token.
const NAME: &str = "oncelet";
/// The context and the user for clients that are to show a certificate instead.
const CERTIFICATE: &str = "oncelet-certificate";
/// The lists that entries are in, each with the field that an entry has beside its name.
const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("users", "user"), ("contexts", "context")];
/// Extensions whose names begin so are ours, and so is the cluster that has one.
const MARK: &str = "oncelet.dev/";

/// Puts our cluster, users and contexts into the kubeconfig, which is made where it is missing. All others stay as they are, and
/// so does the current context, unless there is none.
pub(crate) fn write(
    path: &Path,
    url: &str,
    pems: &Pems,
    token: &Token,
    extensions: &[(String, Value)],
) -> Result<(), Error> {
    let mark = [(format!("{MARK}version"), Value::from(env!("CARGO_PKG_VERSION")))];
    let extensions: Vec<_> =
        mark.iter().chain(extensions).map(|(name, extension)| json!({"name": name, "extension": extension})).collect();
    let cluster =
        json!({"server": url, "certificate-authority-data": STANDARD.encode(&pems.ca), "extensions": extensions});
    file::edit(path, |old| {
        let mut root = parse(old)?;
        check_ours(&root)?;
        put(&mut root, "clusters", NAME, "cluster", &cluster)?;
        put_users(&mut root, pems, token)?;
        for user in [NAME, CERTIFICATE] {
            let context = json!({"cluster": NAME, "user": user, "namespace": "default"});
            put(&mut root, "contexts", user, "context", &context)?;
        }
        if root.get("current-context").and_then(Node::as_text).is_none_or(str::is_empty) {
            root.put("current-context", Node::text(NAME));
        }
        Ok(Some(root.to_string()))
    })
    .map(drop)
}

/// Puts new credentials into a kubeconfig whose cluster is the one of the authority `of`, wherever that listens. Whether it is.
pub(crate) fn renew(path: &Path, of: &str, pems: &Pems, token: &Token) -> Result<bool, Error> {
    if !path.exists() {
        return Ok(false);
    }
    file::edit(path, |old| {
        let mut root = parse(old)?;
        let Some(cluster) = root.get_mut("clusters").and_then(|all| entry(all, NAME)?.get_mut("cluster")) else {
            return Ok(None);
        };
        let authority = "certificate-authority-data";
        if cluster.get(authority).and_then(Node::as_text) != Some(&STANDARD.encode(of)) {
            return Ok(None);
        }
        cluster.put(authority, Node::text(&STANDARD.encode(&pems.ca)));
        put_users(&mut root, pems, token)?;
        Ok(Some(root.to_string()))
    })
}

fn put_users(root: &mut Node, pems: &Pems, token: &Token) -> Result<(), String> {
    put(root, "users", NAME, "user", &json!({"token": token.expose()}))?;
    let certificate = json!({
        "client-certificate-data": STANDARD.encode(&pems.client_certificate),
        "client-key-data": STANDARD.encode(&pems.client_key)});
    put(root, "users", CERTIFICATE, "user", &certificate)
}

fn parse(text: &str) -> Result<Node, String> {
    let root = Node::parse(text)?;
    match root {
        None => Ok(Node::from(&json!({"apiVersion": "v1", "kind": "Config"}))),
        Some(root @ Node::Map(_)) => Ok(root),
        Some(_) => Err("it is not a mapping".to_owned()),
    }
}

/// Refuses a file in which somebody else uses our names.
fn check_ours(root: &Node) -> Result<(), String> {
    let named = |list: &str, name: &str| root.get(list).and_then(|all| find(all, name));
    let extensions = named("clusters", NAME).and_then(|it| it.get("cluster")?.get("extensions"));
    let is_mark = |it: &Node| it.get("name").and_then(Node::as_text).is_some_and(|name| name.starts_with(MARK));
    if extensions.is_some_and(|all| all.items().iter().any(is_mark)) {
        return Ok(());
    }
    for (list, kind) in LISTS {
        for name in [NAME, CERTIFICATE] {
            if named(list, name).is_some() {
                return Err(format!("it has a {kind} named {name:?} that oncelet did not write; rename that one"));
            }
        }
    }
    Ok(())
}

fn find<'a>(list: &'a Node, name: &str) -> Option<&'a Node> {
    list.items().iter().find(|it| it.get("name").and_then(Node::as_text) == Some(name))
}

fn entry<'a>(list: &'a mut Node, name: &str) -> Option<&'a mut Node> {
    let Node::List(items) = list else { return None };
    items.iter_mut().find(|it| it.get("name").and_then(Node::as_text) == Some(name))
}

/// Puts an entry into a list in place of the one of its name.
fn put(root: &mut Node, list: &str, name: &str, kind: &str, content: &Value) -> Result<(), String> {
    if root.get(list).is_none_or(Node::is_null) {
        root.put(list, Node::List(Vec::new()));
    }
    let Some(Node::List(items)) = root.get_mut(list) else { return Err(format!("{list} is not a list")) };
    let new = Node::from(&json!({"name": name, kind: content}));
    let is_it = |it: &&mut Node| it.get("name").and_then(Node::as_text) == Some(name);
    match items.iter_mut().find(is_it) {
        Some(old) => *old = new,
        None => items.push(new),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    const OTHERS: &str = "\
apiVersion: v1
kind: Config
preferences: {}
# A comment.
current-context: work
clusters:
- name: work
  cluster: {server: 'https://work.example:6443', insecure-skip-tls-verify: true}
users:
- name: work
  user:
    username: 0123
    password: yes
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: login
      args: [\"--version\", 1.10, ~]
      installHint: |
        first
        second
contexts:
- {name: work, context: {cluster: work, user: work}}
";

    fn pems() -> Pems {
        let text = |text: &str| text.to_owned();
        Pems { ca: text("CA"), client_certificate: text("CERTIFICATE"), client_key: text("KEY") }
    }

    fn write_to(path: &Path, url: &str) -> Result<(), Error> {
        write(path, url, &pems(), &Token::new("t0ken".to_owned()), &[("x".to_owned(), json!("y"))])
    }

    fn read(path: &Path) -> Value {
        serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn a_file_of_our_own_has_all_that_a_client_needs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/config");
        write_to(&path, "https://127.0.0.1:1").unwrap();
        write_to(&path, "https://127.0.0.1:2").unwrap();
        let found = read(&path);
        assert_eq!(found["current-context"], "oncelet");
        assert_eq!(found["clusters"].as_array().unwrap().len(), 1);
        assert_eq!(found["clusters"][0]["cluster"]["server"], "https://127.0.0.1:2");
        assert_eq!(found["users"][0]["user"]["token"], "t0ken");
        assert_eq!(found["contexts"][1]["context"]["user"], "oncelet-certificate");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "something is left beside it");
    }

    #[test]
    fn what_others_wrote_stays_as_they_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, OTHERS).unwrap();
        write_to(&path, "https://127.0.0.1:1").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        // Other readers take these for other values than a reader of YAML 1.2 does: they are not read, but kept.
        for kept in ["username: 0123\n", "password: yes\n", "- 1.10\n", "- ~\n", "preferences: {}\n"] {
            assert!(text.contains(kept), "{kept} is missing: {text}");
        }
        let found = read(&path);
        assert_eq!(found["current-context"], "work");
        assert_eq!(found["clusters"][0]["cluster"]["server"], "https://work.example:6443");
        assert_eq!(found["users"][0]["user"]["exec"]["installHint"], "first\nsecond\n");
        assert_eq!(found["users"].as_array().unwrap().len(), 3);
        // Written once more, it is the same.
        write_to(&path, "https://127.0.0.1:1").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_link_stays_a_link_and_what_it_leads_to_keeps_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let (link, real) = (dir.path().join("config"), dir.path().join("real"));
        fs::write(&real, OTHERS).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        let owner = 4711;
        let is_root = std::os::unix::fs::chown(&real, Some(owner), Some(owner)).is_ok();
        symlink("real", &link).unwrap();
        write_to(&link, "https://127.0.0.1:1").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let metadata = fs::symlink_metadata(&real).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.mode() & 0o777, 0o600, "others could read the token");
        assert!(!is_root || (metadata.uid(), metadata.gid()) == (owner, owner));
        assert_eq!(read(&link)["clusters"].as_array().unwrap().len(), 2);
        // One that leads nowhere yet.
        let (link, real) = (dir.path().join("new"), dir.path().join("sub/config"));
        symlink(&real, &link).unwrap();
        write_to(&link, "https://127.0.0.1:1").unwrap();
        assert!(real.is_file());
    }

    #[track_caller]
    fn is_refused(content: &str, why: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, content).unwrap();
        let error = write_to(&path, "https://127.0.0.1:1").unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("--kubeconfig"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something is left beside it");
    }

    #[test]
    fn what_cannot_be_kept_whole_is_refused_and_left_as_it_is() {
        is_refused("[]", "not a mapping");
        is_refused("clusters: {", "not YAML");
        is_refused("clusters: {a: b}", "clusters is not a list");
        is_refused("a: 1\n---\nb: 2\n", "several documents");
        is_refused("a: &x 1\nb: *x\n", "anchors");
        is_refused("a: !!binary eA==\n", "tags");
        is_refused("clusters: [{name: oncelet, cluster: {server: 'https://x'}}]", "that oncelet did not write");
        is_refused("users: [{name: oncelet, user: {token: x}}]", "that oncelet did not write");
        is_refused("contexts: [{name: oncelet-certificate, context: {}}]", "that oncelet did not write");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write_to(dir.path(), "https://127.0.0.1:1").unwrap_err();
        write_to(Path::new("/dev/null"), "https://127.0.0.1:1").unwrap_err();
        assert!(!Path::new("/dev/null.lock").exists());
    }

    #[test]
    fn writers_that_come_together_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, OTHERS).unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                // Each adds an entry of its own, as kubectl would under the same lock.
                scope.spawn(move || {
                    file::edit(path, |old| {
                        let mut root = parse(old)?;
                        put(&mut root, "users", &format!("user-{number}"), "user", &json!({"token": "x"}))?;
                        Ok(Some(root.to_string()))
                    })
                    .unwrap();
                    write_to(path, "https://127.0.0.1:1").unwrap();
                });
            }
        });
        assert_eq!(read(&path)["users"].as_array().unwrap().len(), 1 + 8 + 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_a_kubeconfig_of_the_same_authority_gets_new_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        fs::write(&path, OTHERS).unwrap();
        let new = Pems { ca: "NEW".to_owned(), ..pems() };
        let token = Token::new("new".to_owned());
        assert!(!renew(&path, "CA", &new, &token).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), OTHERS);
        write_to(&path, "https://127.0.0.1:1").unwrap();
        assert!(!renew(&path, "ANOTHER", &new, &token).unwrap());
        assert!(renew(&path, "CA", &new, &token).unwrap());
        let found = read(&path);
        assert_eq!(found["clusters"][1]["cluster"]["server"], "https://127.0.0.1:1");
        assert_eq!(found["clusters"][1]["cluster"]["certificate-authority-data"], STANDARD.encode("NEW"));
        assert_eq!(found["users"][1]["user"]["token"], "new");
        assert!(!renew(&dir.path().join("none"), "CA", &new, &token).unwrap());
    }
}
