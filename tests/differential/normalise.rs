//! Takes out of an answer what differs from run to run, and keeps what can be told from it: that a version or a UID is
//! the one seen before.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::{Map, Value, json};

/// The values that one side gave out in one scenario, numbered as they appeared.
#[derive(Default)]
pub(crate) struct Normaliser {
    seen: HashMap<String, usize>,
}

/// What to look for in texts, and what to write instead.
static REPLACED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "<microtime>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [+-]\d{4}", "<time>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>"),
        (r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "<time>"),
        (r"(127\.0\.0\.1|localhost):\d+", "<server>"),
        (r"(resource ?[vV]ersion:? )\d+ \(\d+\)", "$1<version>"),
        (r#"(?i)(resource ?version"?: *"?)[1-9]\d*"#, "$1<version>"),
        (r"(ResourceVersion in [a-z ]*)\(\d+\)", "$1(<version>)"),
        (r#"(\\"resourceVersion\\":\\")\d+"#, "$1<version>"),
        (r"(resource version: )\d+, current: \d+", "$1<version>"),
        // What kubectl's own machinery logs when a watch ends in the moment in which its patience does.
        (r"(?m)^[EWI]\d{4} \S+ +\d+ reflector\.go:.*\n", ""),
        // Ages: alone in a cell, or in what kubectl prints, where they also decide how far columns stand apart.
        (r"\b\d+m?s\b", "<age>"),
        (r" {3,}", "  "),
        (r"/tmp/\S+", "<file>"),
    ]
    .map(|(pattern, with)| (Regex::new(pattern).unwrap(), with))
    .into()
});

static UID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap());

/// `1.0` is `1` in JSON.
fn whole(number: &serde_json::Number) -> Option<i64> {
    let float = number.as_f64().filter(|_| number.is_f64() && number.as_f64().is_some_and(|n| n.fract() == 0.0))?;
    format!("{float:.0}").parse().ok()
}

fn sorted(mut list: Value, by: &[&str]) -> Value {
    if let Some(items) = list.as_array_mut() {
        items.sort_by_key(|item| by.iter().map(|field| item[*field].to_string()).collect::<Vec<_>>());
    }
    list
}

impl Normaliser {
    pub(crate) fn document(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => self.object(fields),
            Value::Array(items) => items.iter().map(|item| self.document(item)).collect(),
            Value::Number(number) => whole(number).map_or_else(|| value.clone(), Value::from),
            Value::String(text) => Value::String(self.text(text)),
            other => other.clone(),
        }
    }

    fn object(&mut self, fields: &Map<String, Value>) -> Value {
        let text = |field: &str| fields.get(field).and_then(Value::as_str).unwrap_or_default();
        // In an order of our own: numbers are given out on the way.
        let mut names: Vec<_> = fields.keys().collect();
        names.sort();
        let mut result = Map::new();
        for name in names {
            let value = &fields[name];
            let value = match (name.as_str(), value.as_str().unwrap_or_default()) {
                ("resourceVersion", version) if !["", "0"].contains(&version) => {
                    // The version of a list or of a bookmark is any moment's; that of an object is its own.
                    let own = fields.contains_key("uid");
                    if own { json!(self.numbered("version", version)) } else { json!("<version>") }
                }
                ("continue", token) if !token.is_empty() => json!("<continue>"),
                ("name", name) if !text("generateName").is_empty() && name.starts_with(text("generateName")) => {
                    let generated = name.len() - text("generateName").len();
                    json!(format!("{}<{generated} more>", text("generateName")))
                }
                // They are sorted by time to the second first, which two servers need not share.
                ("managedFields", _) => sorted(self.document(value), &["operation", "manager", "subresource"]),
                // In the order in which definitions were found.
                ("resources", _) => sorted(self.document(value), &["name"]),
                // Go walks maps in any order, and some rules are checked twice.
                ("causes", _) => {
                    let mut causes = sorted(self.document(value), &["field", "message"]);
                    causes.as_array_mut().unwrap().dedup();
                    causes
                }
                ("message", message) if message.contains(" is invalid: ") => {
                    let text = self.text(message);
                    let (what, rules) = text.split_once(" is invalid: ").unwrap();
                    let mut rules: Vec<_> = rules.trim_matches(['[', ']']).split(", ").collect();
                    rules.sort_unstable();
                    json!({"what": what, "rules": rules})
                }
                _ => self.document(value),
            };
            result.insert(name.clone(), value);
        }
        Value::Object(result)
    }

    pub(crate) fn text(&mut self, text: &str) -> String {
        let text = UID.replace_all(text, |found: &Captures<'_>| self.numbered("uid", &found[0]));
        REPLACED.iter().fold(text.into_owned(), |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
    }

    fn numbered(&mut self, what: &str, value: &str) -> String {
        let next = self.seen.keys().filter(|key| key.starts_with(what)).count() + 1;
        let number = *self.seen.entry(format!("{what} {value}")).or_insert(next);
        format!("<{what} {number}>")
    }
}
