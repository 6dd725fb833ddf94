use serde_json::{Value, json};

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "to be called with what is written there")]
fn policy(rules: Value) -> Policy {
    serde_json::from_value(json!({"apiVersion": "oncelet.dev/v1alpha1", "kind": "Policy", "rules": rules})).unwrap()
}

/// A policy of one rule for the namespace `team`.
fn rule(mut rule: Value) -> Policy {
    rule["namespaces"] = json!(["team"]);
    policy(json!([rule]))
}

fn grant(policy: &Policy, namespace: &str, ask: Ask) -> Option<Grant> {
    policy.answer(namespace, DEFAULT_ENGINE, vec![ask]).remove(0).grant
}

fn target(name: &str) -> Target {
    Target { name: name.to_owned(), ..Target::default() }
}

fn bind(path: &str, read_only: bool) -> Ask {
    Ask::BindMount { path: path.to_owned(), read_only }
}

fn port(host_ip: &str, port: Option<u16>) -> Ask {
    Ask::Port { host_ip: host_ip.to_owned(), port }
}

/// One of each: what is refused without a rule, the rule that allows it, and what that rule does not allow.
fn table() -> Vec<(Ask, Value, Vec<Ask>)> {
    let text = str::to_owned;
    let labelled =
        Target { name: text("db"), labels: [(text("team"), text("a"))].into(), made_for: None, invites: Vec::new() };
    let other = Target { labels: [(text("team"), text("b"))].into(), ..labelled.clone() };
    let of_b = |name: &str| Target { made_for: Some(text("b")), ..target(name) };
    vec![
        (
            Ask::ContainerName(text("team-db")),
            json!({"containerNames": ["team-*"]}),
            vec![Ask::ContainerName(text("db"))],
        ),
        (Ask::Image(text("busybox")), json!({"images": ["busybox"]}), vec![Ask::Image(text("other/busybox"))]),
        (
            bind("/srv/a/b", false),
            json!({"bindMounts": [{"path": "/srv/a"}]}),
            vec![bind("/srv/ab", false), bind("/srv/a/../b", true), bind("srv/a", true), bind("/", true)],
        ),
        (
            bind("/srv/a/b", true),
            json!({"bindMounts": [{"path": "/srv/a", "readOnly": true}]}),
            vec![bind("/srv/a/b", false)],
        ),
        (Ask::Volume(text("a-1")), json!({"volumes": ["a-*"]}), vec![Ask::Volume(text("b"))]),
        (
            Ask::Network(text("a")),
            json!({"networks": ["*"]}),
            vec![Ask::Network(text("host")), Ask::Network(text("container:db"))],
        ),
        (Ask::Network(text("host")), json!({"networks": ["host"]}), vec![Ask::Network(text(DEFAULT_NETWORK))]),
        (Ask::Network(text(DEFAULT_NETWORK)), json!({"networks": ["default"]}), vec![Ask::Network(text("host"))]),
        (
            port("127.0.0.1", Some(80)),
            json!({"ports": [{"min": 80, "max": 90}]}),
            vec![port("0.0.0.0", Some(80)), port("127.0.0.1", Some(91)), port("", Some(80)), port("::", Some(80))],
        ),
        (port("127.0.0.1", None), json!({"ports": [{}]}), vec![port("", None), port("localhost", None)]),
        (port("", Some(1)), json!({"ports": [{"hostIP": "*", "max": 1}]}), vec![port("", Some(2))]),
        (Ask::Label(text("app")), json!({"labels": ["app"]}), vec![Ask::Label(text("traefik.enable"))]),
        (
            Ask::EnvFile(text("/etc/a/x.env")),
            json!({"envFiles": ["/etc/a"]}),
            vec![Ask::EnvFile(text("/etc/a/../shadow")), Ask::EnvFile(text("x.env"))],
        ),
        (Ask::User(text("1000")), json!({"users": ["1000"]}), vec![Ask::User(text("0")), Ask::User(text("1000:0"))]),
        (
            Ask::Enter(target("db")),
            json!({"engineContainers": [{"name": "db"}]}),
            vec![Ask::Enter(target("db2")), Ask::Enter(of_b("db")), Ask::Stop(target("db")), Ask::Remove(target("db"))],
        ),
        (
            Ask::Enter(labelled.clone()),
            json!({"engineContainers": [{"labels": {"team": "a"}}]}),
            vec![Ask::Enter(other), Ask::Enter(Target { made_for: Some(text("b")), ..labelled.clone() })],
        ),
        (
            Ask::Enter(of_b("db")),
            json!({"engineContainers": [{"namespace": "b"}]}),
            vec![Ask::Enter(target("db")), Ask::Enter(Target { made_for: Some(text("c")), ..target("db") })],
        ),
        (
            Ask::Stop(target("db")),
            json!({"engineContainers": [{"name": "db"}], "stopForeign": true}),
            vec![Ask::Stop(target("x")), Ask::Remove(target("db"))],
        ),
        (
            Ask::Remove(target("db")),
            json!({"engineContainers": [{"name": "db"}], "removeForeign": true}),
            vec![Ask::Remove(target("x")), Ask::Stop(target("db"))],
        ),
        (
            Ask::Enter(Target { invites: vec![text("te*")], ..target("db") }),
            json!({"honorContainerLabels": true}),
            vec![
                Ask::Enter(target("db")),
                Ask::Enter(Target { invites: vec![text("b")], ..target("db") }),
                Ask::Stop(Target { invites: vec![text("te*")], ..target("db") }),
            ],
        ),
    ]
}

#[test]
fn each_thing_is_refused_without_a_rule_and_allowed_by_its_own_alone() {
    for (ask, allowing, not) in table() {
        assert_eq!(grant(&Policy::default(), "team", ask.clone()), None, "{ask}");
        assert_eq!(grant(&rule(json!({})), "team", ask.clone()), None, "{ask}: a rule that allows nothing");
        let policy = rule(allowing);
        assert!(grant(&policy, "team", ask.clone()).is_some(), "{ask}: {policy:?}");
        assert_eq!(grant(&policy, "other", ask.clone()), None, "{ask}: of another namespace");
        let elsewhere = policy.answer("team", "ssh://elsewhere", vec![ask.clone()]).remove(0);
        assert_eq!(elsewhere.grant, None, "{ask}: in another engine");
        for ask in not {
            assert_eq!(grant(&policy, "team", ask.clone()), None, "{ask}: {policy:?}");
        }
        assert!(grant(&rule(json!({"everything": true})), "team", ask).is_some());
    }
}

#[test]
fn what_a_refusal_suggests_allows_what_was_asked_for() {
    for (ask, _, _) in table() {
        let Some((field, value)) = Some(ask.wanted()) else { continue };
        // Only its own namespace can make a container of b's a matter of a rule.
        let is_of_another = matches!(&ask, Ask::Enter(it) if it.made_for.is_some());
        let told = suggestion("team", [&ask].into_iter());
        assert!(told.contains(field) && told.contains(&value), "{told}");
        let Ok(rule) = serde_json::from_str::<Value>(&quoted_keys(&told)) else { panic!("{told}") };
        if !is_of_another {
            assert!(grant(&policy(json!([rule])), "team", ask.clone()).is_some(), "{ask}: {told}");
        }
    }
}

/// The flow style of YAML as JSON.
fn quoted_keys(yaml: &str) -> String {
    let mut json = String::new();
    let mut is_text = false;
    let mut chars = yaml.chars().peekable();
    while let Some(c) = chars.next() {
        is_text ^= c == '"';
        let begins_key = c.is_ascii_alphabetic() && !is_text;
        if !begins_key {
            json.push(c);
            continue;
        }
        let mut word = String::from(c);
        while let Some(next) = chars.next_if(char::is_ascii_alphabetic) {
            word.push(next);
        }
        let quote = if word == "true" { "" } else { "\"" };
        json.extend([quote, &word, quote]);
    }
    json
}

#[test]
fn several_rules_allow_together_and_a_container_is_stopped_by_the_rule_that_names_it() {
    let policy = policy(json!([
        {"namespaces": ["team"], "images": ["one"]},
        {"namespaces": ["*"], "images": ["two"], "engineContainers": [{"name": "db"}]},
        {"namespaces": ["team"], "engineContainers": [{"name": "cache"}], "stopForeign": true},
    ]));
    let image = |name: &str| Ask::Image(name.to_owned());
    assert_eq!(grant(&policy, "team", image("one")), Some(Grant::Rule(1)));
    assert_eq!(grant(&policy, "team", image("two")), Some(Grant::Rule(2)));
    assert_eq!(grant(&policy, "x", image("one")), None);
    assert_eq!(grant(&policy, "team", Ask::Stop(target("cache"))), Some(Grant::Rule(3)));
    assert_eq!(grant(&policy, "team", Ask::Stop(target("db"))), None);
}

#[test]
fn a_grant_goes_with_the_engines_of_its_rule() {
    let policy = policy(json!([
        {"namespaces": ["team"], "engines": ["podman"], "images": ["one"]},
        {"namespaces": ["team"], "engines": ["ssh://build"], "bindMounts": [{"path": "/"}]},
    ]));
    let allowed = |engine: &str, ask| policy.answer("team", engine, vec![ask]).remove(0).grant.is_some();
    assert!(allowed("podman", Ask::Image("one".into())) && !allowed("podman", bind("/etc", true)));
    assert!(allowed("ssh://build", bind("/etc", true)) && !allowed("ssh://build", Ask::Image("one".into())));
    assert!(!allowed(DEFAULT_ENGINE, Ask::Engine(DEFAULT_ENGINE.into())));
    for other in ["ssh://build/", "ssh://BUILD", "ssh://build.example.com", "ssh://"] {
        assert!(!allowed(other, Ask::Engine(other.into())), "{other}");
    }
}

#[test]
fn what_was_made_for_the_namespace_is_its_own_where_any_rule_counts() {
    let own = Target { made_for: Some("team".into()), ..target("x") };
    for ask in [Ask::Enter(own.clone()), Ask::Stop(own.clone()), Ask::Remove(own)] {
        assert_eq!(grant(&Policy::default(), "team", ask.clone()), None);
        assert_eq!(grant(&rule(json!({})), "team", ask), Some(Grant::Own));
    }
}

#[test]
fn run_keys_are_shared_only_where_a_rule_says_so() {
    let policy = rule(json!({"sharedRunKeys": ["schema-*"]}));
    let shares = |namespace, key| policy.shares_run_key(namespace, DEFAULT_ENGINE, key);
    assert!(shares("team", "schema-1") && !shares("team", "seed") && !shares("other", "schema-1"));
    // The run of an object of another namespace is remembered under such a name.
    assert!(
        !shares("team", "schema-1/seed")
            && !rule(json!({"sharedRunKeys": ["*"]})).shares_run_key("team", "default", "b/seed")
    );
    assert!(rule(json!({"everything": true})).shares_run_key("team", DEFAULT_ENGINE, "b/seed"));
}

#[test]
fn a_file_that_cannot_be_meant_is_refused_and_says_where() {
    let refused = |rule: Value| {
        let file =
            json!({"apiVersion": "oncelet.dev/v1alpha1", "kind": "Policy", "rules": [{"namespaces": ["a"]}, rule]});
        serde_json::from_value::<Policy>(file).unwrap_err().to_string()
    };
    for (rule, words) in [
        (json!({"namespaces": []}), "rule 2: namespaces is empty"),
        (json!({}), "missing field `namespaces`"),
        (json!({"namespaces": ["a"], "image": ["x"]}), "unknown field `image`"),
        (json!({"namespaces": ["a"], "engines": ["ssh://*"]}), "rule 2: engines"),
        (json!({"namespaces": ["a"], "bindMounts": [{"path": "srv"}]}), "rule 2: bindMounts"),
        (json!({"namespaces": ["a"], "bindMounts": [{"path": "/srv/../etc"}]}), "rule 2: bindMounts"),
        (json!({"namespaces": ["a"], "bindMounts": [{"path": "/srv/*"}]}), "rule 2: bindMounts"),
        (json!({"namespaces": ["a"], "envFiles": ["x"]}), "rule 2: envFiles"),
        (json!({"namespaces": ["a"], "engineContainers": [{}]}), "rule 2: engineContainers"),
        (json!({"namespaces": ["a"], "engineContainers": [{"label": {}}]}), "unknown field `label`"),
        (json!({"namespaces": ["a"], "ports": [{"min": 9, "max": 8}]}), "rule 2: ports"),
        (json!({"namespaces": ["a"], "ports": [{"hostIP": "localhost"}]}), "rule 2: ports"),
        (json!({"namespaces": ["a"], "ports": [{"max": 70000}]}), "70000"),
        (json!({"namespaces": ["a"], "removeForeign": true}), "rule 2: stopForeign"),
        (json!({"namespaces": ["a"], "sharedRunKeys": ["a/b"]}), "rule 2: sharedRunKeys"),
        (json!({"namespaces": ["a"], "images": [""]}), "rule 2: images"),
    ] {
        let told = refused(rule);
        assert!(told.contains(words), "{told}");
    }
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "rules": []});
    assert!(serde_json::from_value::<Policy>(other).unwrap_err().to_string().contains("ConfigMap"));
    let surplus = json!({"apiVersion": "oncelet.dev/v1alpha1", "kind": "Policy", "rules": [], "allow": true});
    assert!(serde_json::from_value::<Policy>(surplus).is_err());
}

#[test]
fn a_refusal_says_what_to_ask_for_and_stays_short() {
    let answers = |asks| Policy::default().answer("team", DEFAULT_ENGINE, asks);
    assert_eq!(refusal("team", &rule(json!({})).answer("team", DEFAULT_ENGINE, Vec::new())), None);
    let told = refusal("team", &answers(vec![Ask::Image("busybox".into()), bind("/etc", false)])).unwrap();
    assert_eq!(
        told,
        "the policy does not let namespace team use the image \"docker.io/library/busybox:latest\", the bind mount \"/etc\" \
         (writable); ask whoever runs oncelet for a rule that says: {namespaces: [\"team\"], images: \
         [\"docker.io/library/busybox:latest\"], bindMounts: [{path: \"/etc\"}]}"
    );
    let many = (0..100).map(|_| bind(&"/x".repeat(2000), true)).collect();
    let told = refusal("team", &answers(many)).unwrap();
    assert!(told.contains("and 94 more") && told.len() < 4000, "{}", told.len());
}

#[test]
fn every_field_of_a_rule_is_in_the_documentation() {
    let page = include_str!("../../../../docs/policy.md");
    let Value::Object(fields) = serde_json::to_value(Rule::default()).unwrap() else { panic!("a rule is an object") };
    for field in fields.keys() {
        assert!(page.contains(&format!("| `{field}` |")), "docs/policy.md does not say what {field} is");
    }
}

mod whatever_is_written {
    use proptest::prelude::*;

    use super::*;

    /// What is in patterns and names, and what is not.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![3 => "[ab*/:.@0-9]{0,12}", 1 => "(sha256:)?[a-f0-9*]{0,8}", 1 => ".{0,20}", 1 => "(/|\\.\\.|a|\\.){0,8}"]
    }

    fn asks() -> impl Strategy<Value = Vec<Ask>> {
        let ask = (0..9_u8, text(), any::<bool>()).prop_map(|(kind, text, flag)| match kind {
            0 => Ask::ContainerName(text),
            1 => Ask::Image(text),
            2 => Ask::BindMount { path: text, read_only: flag },
            3 => Ask::Network(text),
            4 => Ask::Port { host_ip: text, port: flag.then_some(80) },
            5 => Ask::EnvFile(text),
            6 => Ask::User(text),
            7 => Ask::Enter(Target { made_for: flag.then(|| text.clone()), ..target(&text) }),
            _ => Ask::Label(text),
        });
        proptest::collection::vec(ask, 0..6)
    }

    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let texts = || proptest::collection::vec(text(), 0..3);
        let rule = (texts(), texts(), texts(), texts()).prop_map(|(namespaces, one, two, three)| Rule {
            namespaces,
            engines: vec![DEFAULT_ENGINE.to_owned()],
            images: one.clone(),
            users: one,
            container_names: two.clone(),
            networks: two.clone(),
            labels: two,
            bind_mounts: three.iter().map(|path| BindPrefix { path: path.clone(), read_only: false }).collect(),
            env_files: three,
            ..Rule::default()
        });
        proptest::collection::vec(rule, 0..4)
    }

    /// As one would write it down.
    fn naive(pattern: &[u8], text: &[u8], separator: u8) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=text.len()).any(|at| naive(rest, &text[at..], separator)),
            [b'*', rest @ ..] => {
                let longest = text.iter().position(|byte| *byte == separator).unwrap_or(text.len());
                (0..=longest).any(|at| naive(rest, &text[at..], separator))
            }
            [first, rest @ ..] => text.first() == Some(first) && naive(rest, &text[1..], separator),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn more_rules_never_allow_less(some in rules(), more in rules(), asks in asks(), namespace in text()) {
            // Rules that no file could have are tried as well: nothing may come of them but an answer.
            let few = Policy { rules: some.clone() };
            let many = Policy { rules: [some, more].concat() };
            let (few, many) = (few.answer(&namespace, DEFAULT_ENGINE, asks.clone()), many.answer(&namespace, DEFAULT_ENGINE, asks));
            for (few, many) in few.iter().zip(&many) {
                prop_assert!(few.grant.is_none() || many.grant.is_some(), "{}", few.ask);
            }
            prop_assert_eq!(refusal(&namespace, &few).is_none(), few.iter().all(|answer| answer.grant.is_some()));
        }

        #[test]
        fn what_is_allowed_is_below_what_was_allowed(path in text(), dir in text(), read_only: bool) {
            let rule = Rule { bind_mounts: vec![BindPrefix { path: dir.clone(), read_only }], ..Rule::default() };
            if rule.allows(&Ask::BindMount { path: path.clone(), read_only: true }) {
                let (path, dir) = (std::path::PathBuf::from(path), std::path::PathBuf::from(dir));
                let goes_up = |path: &std::path::Path| path.components().any(|it| it == std::path::Component::ParentDir);
                prop_assert!(path.starts_with(&dir) && !goes_up(&path));
            }
        }

        #[test]
        fn patterns_match_as_they_are_explained(pattern in "[ab*/]{0,8}", name in "[ab/]{0,8}") {
            // Three stars are two.
            prop_assume!(!pattern.contains("***"));
            prop_assert_eq!(pattern::glob(&pattern, &name, Some(b'/')), naive(pattern.as_bytes(), name.as_bytes(), b'/'));
        }

        #[test]
        fn any_text_is_a_policy_or_an_error(text in ".{0,200}") {
            let _ = serde_json::from_str::<Policy>(&text);
        }
    }
}
