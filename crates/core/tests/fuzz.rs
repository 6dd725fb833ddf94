//! Texts of other people: dotenv files and references.
#![allow(clippy::unwrap_used, reason = "this is test code")]

use oncelet_core::{EnvVar, Program, Sources, ValueSource, resolve};
use proptest::prelude::*;

const FILE: &str = "/etc/app.env";

/// Pieces that mean something to one of the two.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "$",
            "$$",
            "(",
            ")",
            "$(A)",
            "$(B)",
            "$(SECRET)",
            "$$(A)",
            "=",
            "'",
            "\"",
            "\\",
            "\\n",
            "#",
            " #",
            "\n",
            "\r\n",
            "export ",
            "A",
            "B",
            "A=",
            "\u{feff}",
            "\0",
            "1",
            ".",
            "-",
            " ",
            "\t",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(oncelet_fuzz::cases("fuzz"))]

    /// Whatever stands in a file it is taken or refused with its line, and shown only where that is declared.
    #[test]
    fn any_dotenv_file_is_taken_or_refused(text in text(), arg in text(), visible: bool) {
        let program = Program { args: vec![arg], env_files: vec![FILE.into()], ..Program::default() };
        let mut sources = Sources { env_files_visible: visible, ..Sources::default() };
        sources.env_files.insert(FILE.into(), Ok(text));
        match resolve(&program, &sources) {
            Ok(resolved) => {
                for ((name, value), (shown_name, shown)) in resolved.env.iter().zip(&resolved.effective.env) {
                    prop_assert_eq!(name, shown_name);
                    prop_assert!(!name.is_empty() && !name.contains(['=', '\n']));
                    let hidden = format!("<from env file {FILE}/{name}>");
                    prop_assert_eq!(&shown.text, if visible { value } else { &hidden });
                }
            }
            Err(error) => prop_assert!(error.to_string().starts_with("env file /etc/app.env: line "), "{}", error),
        }
    }

    /// However references are nested or broken off, nothing of a secret is shown, and nothing becomes longer than it may.
    #[test]
    fn references_show_nothing_of_a_secret(values in prop::collection::vec(text(), 0..12), args in prop::collection::vec(text(), 0..6)) {
        const VALUE: &str = "hunter2";
        let mut sources = Sources::default();
        sources.secrets.insert("s".into(), [("k".to_owned(), VALUE.into())].into());
        let source = ValueSource::SecretKeyRef { name: "s".into(), key: "k".into(), optional: false };
        let mut env = vec![EnvVar { name: "SECRET".into(), source }];
        for (number, value) in values.into_iter().enumerate() {
            let name = if number % 2 == 0 { "A" } else { "B" };
            env.push(EnvVar { name: name.into(), source: ValueSource::Value(value) });
        }
        let program = Program { args, env, ..Program::default() };
        let Ok(resolved) = resolve(&program, &sources) else { return Ok(()) };
        let shown = serde_json::to_string(&resolved.effective).unwrap();
        prop_assert!(!shown.contains(VALUE), "{}", shown);
        let lengths = resolved.args.iter().chain(resolved.env.iter().map(|(_, value)| value)).map(String::len);
        prop_assert!(lengths.sum::<usize>() <= 4 << 20);
    }
}
