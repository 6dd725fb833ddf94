//! What a spec says that is hardly meant: nothing is wrong with it, and it arrives otherwise than its writer may think.
//!
//! | written | arrives | warned of |
//! |---|---|---|
//! | `$$(NAME)` | `$(NAME)` | no: the escape |
//! | `$NAME`, `$` | the same | no |
//! | `$$` | `$` | yes |
//! | `$$$` | `$$` | yes: a single one and an escape |
//! | `$$$$` | `$$` | no: the escape of two, as `oncelet exec` writes it |
//! | `{{ portFor "x" }}` | the same | yes: DCP would expand it |

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{ContainerExecSpec, ContainerSpec, EnvVar, GROUP, VERSION};

/// Something in a spec that is hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The kind of it, as events name it: `SuspiciousDollar` or `TemplateNotExpanded`.
    pub reason: &'static str,
    /// The field, such as `spec.args` or `spec.env (PASSWORD)`.
    pub field: String,
    /// What arrives, and what to write instead.
    pub message: &'static str,
}

impl Warning {
    /// The warning in one sentence, as people get it.
    pub fn text(&self) -> String {
        format!("{}: {}", self.field, self.message)
    }
}

/// A kind of warning: how a text is recognised, here and by an API server.
struct Kind {
    reason: &'static str,
    message: &'static str,
    /// Whether a text has it.
    is_in: fn(&str) -> bool,
    /// The same as a regular expression (RE2).
    pattern: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind {
        reason: "SuspiciousDollar",
        message: "$$ stands for a single $ here, as in Kubernetes; write $ for one, and $$$$ where the program is to get $$",
        is_in: has_suspicious_dollar,
        pattern: r"(^|[^$])(\$\$|\$(\$\$)+)([^$(]|$)",
    },
    Kind {
        reason: "TemplateNotExpanded",
        message: "templates of DCP, such as {{ portFor ... }}, are not expanded here, and arrive as written; \
                  a ContainerExec gets ports and addresses from env with valueFrom.containerFieldRef",
        is_in: has_template,
        pattern: r"\{\{[^}]*\b(portFor|portForServing|addressFor|addressForServing)\b",
    },
];

/// The functions of DCP's templates.
const TEMPLATE_FUNCTIONS: [&str; 4] = ["portFor", "portForServing", "addressFor", "addressForServing"];

impl ContainerExecSpec {
    /// What is hardly meant.
    pub fn warnings(&self) -> Vec<Warning> {
        warnings(&self.args, &self.env)
    }
}

impl ContainerSpec {
    /// What is hardly meant.
    pub fn warnings(&self) -> Vec<Warning> {
        warnings(&self.args, &self.env)
    }
}

fn warnings(args: &[String], env: &[EnvVar]) -> Vec<Warning> {
    let mut found = Vec::new();
    for Kind { reason, message, is_in, .. } in KINDS {
        if args.iter().any(|arg| is_in(arg)) {
            found.push(Warning { reason, field: "spec.args".to_owned(), message });
        }
        let has_it = |var: &&EnvVar| var.value.as_deref().is_some_and(is_in);
        let names: Vec<_> = env.iter().filter(has_it).map(|var| var.name.as_str()).collect();
        if !names.is_empty() {
            found.push(Warning { reason, field: format!("spec.env ({})", names.join(", ")), message });
        }
    }
    found
}

/// Escapes `text` for args and env: substitution gives the program exactly `text`, and no warning is raised.
///
/// A single `$` stays one unless it begins a reference; of more than one, each is doubled.
pub fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = rest[at..].trim_start_matches('$');
        let run = rest.len() - at - after.len();
        let doubled = run > 1 || after.starts_with('(');
        out.extend(std::iter::repeat_n('$', if doubled { run * 2 } else { run }));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether there are two dollar signs, or an odd number of more, that begin no reference and no escape of one.
fn has_suspicious_dollar(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let after = rest[at..].trim_start_matches('$');
        let run = rest.len() - at - after.len();
        if (run == 2 || (run > 2 && run % 2 == 1)) && !after.starts_with('(') {
            return true;
        }
        rest = after;
    }
    false
}

fn has_template(text: &str) -> bool {
    text.match_indices("{{").any(|(at, _)| {
        let inner = text[at + 2..].split('}').next().unwrap_or_default();
        let mut words = inner.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.any(|word| TEMPLATE_FUNCTIONS.contains(&word))
    })
}

/// The policy by which an API server of a cluster gives the same warnings, and its binding. Nothing is ever refused by it.
pub fn admission_warnings() -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let name = "warnings.oncelet.dev";
    let metadata = || ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let strings = |texts: &[&str]| Some(texts.iter().map(ToString::to_string).collect());
    let rule = NamedRuleWithOperations {
        api_groups: strings(&[GROUP]),
        api_versions: strings(&[VERSION]),
        operations: strings(&["CREATE", "UPDATE"]),
        resources: strings(&["containerexecs", "containers"]),
        ..NamedRuleWithOperations::default()
    };
    let policy = ValidatingAdmissionPolicy {
        metadata: metadata(),
        spec: Some(ValidatingAdmissionPolicySpec {
            // What is too large to be looked at is no reason to refuse it.
            failure_policy: Some("Ignore".to_owned()),
            match_constraints: Some(MatchResources { resource_rules: Some(vec![rule]), ..MatchResources::default() }),
            validations: Some(KINDS.iter().flat_map(validations).collect()),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        ..ValidatingAdmissionPolicy::default()
    };
    let binding = ValidatingAdmissionPolicyBinding {
        metadata: metadata(),
        spec: ValidatingAdmissionPolicyBindingSpec {
            policy_name: name.to_owned(),
            validation_actions: vec!["Warn".to_owned()],
            ..ValidatingAdmissionPolicyBindingSpec::default()
        },
    };
    (policy, binding)
}

/// A kind of warning in CEL: of args and of env.
fn validations(kind: &Kind) -> [Validation; 2] {
    let Kind { message, pattern, .. } = kind;
    let is_in = |text: &str| format!("{text}.matches(r'{pattern}')");
    let env_has_it = format!("has(e.value) && {}", is_in("e.value"));
    [
        Validation {
            expression: format!("!has(object.spec.args) || !object.spec.args.exists(a, {})", is_in("a")),
            message: Some(format!("spec.args: {message}")),
            ..Validation::default()
        },
        Validation {
            expression: format!("!has(object.spec.env) || !object.spec.env.exists(e, {env_has_it})"),
            message: Some(format!("spec.env: {message}")),
            message_expression: Some(format!(
                "'spec.env (' + object.spec.env.filter(e, {env_has_it}).map(e, e.name).join(', ') + '): {message}'"
            )),
            ..Validation::default()
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(text: &str) -> Vec<&'static str> {
        let spec = ContainerExecSpec { args: vec![text.to_owned()], ..ContainerExecSpec::default() };
        spec.warnings().into_iter().map(|warning| warning.reason).collect()
    }

    #[test]
    fn what_kubernetes_changes_is_warned_of_and_escapes_are_not() {
        for text in ["pa$$word", "DO $$ BEGIN END $$;", "$$", "echo $$", "$$$x", "$$)(", "x$$$$$y", "$(A) $$ $$(B)"] {
            assert_eq!(reasons(text), ["SuspiciousDollar"], "{text}");
        }
        for text in
            ["", "$", "$HOME $1", "$(A)", "$$(A)", "$$$(A)", "$$$$(A)", "pa$$$$word", "$a$b", "a$", "DO $$$$ x $$$$"]
        {
            assert_eq!(reasons(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn templates_of_dcp_are_warned_of_and_others_are_not() {
        for text in [
            "{{ portFor \"db\" }}",
            "{{- portForServing \"db\" -}}",
            "http://{{addressFor \"db\"}}:1",
            "{{ printf \"%s\" (addressForServing \"db\") }}",
            "{{ portFor",
        ] {
            assert_eq!(reasons(text), ["TemplateNotExpanded"], "{text}");
        }
        for text in ["{{ .State.Health }}", "portFor", "{ portFor }", "{{ x }} portFor", "{{ portForward }}", "}}{{"] {
            assert_eq!(reasons(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_warning_names_the_variables() {
        let var =
            |name: &str, value: &str| EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() };
        let env = vec![var("A", "a$$b"), var("B", "fine"), var("C", "$$ {{ portFor \"x\" }}")];
        let spec = ContainerSpec { env, ..ContainerSpec::default() };
        let fields: Vec<_> = spec.warnings().into_iter().map(|warning| warning.field).collect();
        assert_eq!(fields, ["spec.env (A, C)", "spec.env (C)"]);
    }

    #[test]
    fn a_literal_text_is_warned_of_by_nobody() {
        for (text, written) in [
            ("pa$$word", "pa$$$$word"),
            ("$HOME", "$HOME"),
            ("$(X)", "$$(X)"),
            ("$$(X)", "$$$$(X)"),
            ("DO $$ x $$", "DO $$$$ x $$$$"),
            ("a$$$", "a$$$$$$"),
            ("", ""),
        ] {
            assert_eq!(literal(text), written);
            assert_eq!(reasons(written), [""; 0], "{text}");
        }
    }

    /// Both would end the text that an API server is given.
    #[test]
    fn messages_have_no_quotes_and_are_short() {
        for kind in KINDS {
            assert!(!kind.message.contains(['\'', '\\', '"']) && kind.message.is_ascii());
            assert!(kind.message.len() < 220, "Kubernetes cuts what is longer than 256");
        }
    }
}
