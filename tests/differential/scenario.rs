//! Scenarios: what is sent, as data, so that a new one needs no code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oncelet_tests::process::eventually;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Answer;
use crate::normalise::Normaliser;
use crate::side::Side;

/// Steps in a namespace of their own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

/// One request, or one command line. `${x}` stands for what an earlier step saved as `x`; `${ns}`, `${core}`,
/// `${widgets}` and `${execs}` are always there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// `METHOD /path?query`
    request: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Sent as JSON.
    body: Option<Value>,
    /// A body that is sent as it is.
    raw: Option<String>,
    /// The body's media type; JSON unless said otherwise.
    #[serde(rename = "type")]
    content_type: Option<String>,
    /// Of a watch: how many events to await.
    events: Option<usize>,
    /// The request is repeated until it is answered with this status: a real server takes a moment to serve a new kind.
    until: Option<u16>,
    /// JSON pointers into the answer's body: only these are compared.
    only: Option<Vec<String>>,
    /// Values of the answer to use later, by JSON pointer.
    #[serde(default)]
    save: BTreeMap<String, String>,

    /// Words after `kubectl`.
    kubectl: Option<Words>,
    stdin: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    Line(String),
    List(Vec<String>),
}

/// Every scenario of the files in `scenarios`.
pub(crate) fn all() -> Vec<Scenario> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("differential/scenarios");
    let mut files: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: PathBuf| -> Vec<Scenario> {
        let text = std::fs::read_to_string(&path).unwrap();
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    files.into_iter().flat_map(read).collect()
}

impl Step {
    /// As it is written, to find it again.
    pub(crate) fn title(&self) -> String {
        match (&self.request, &self.kubectl) {
            (Some(request), None) => request.clone(),
            (None, Some(Words::Line(line))) => format!("kubectl {line}"),
            (None, Some(Words::List(words))) => format!("kubectl {}", words.join(" ")),
            _ => panic!("a step is either a request or a command line"),
        }
    }

    fn words(&self) -> Option<Vec<&str>> {
        Some(match self.kubectl.as_ref()? {
            Words::Line(line) => line.split_whitespace().collect(),
            Words::List(words) => words.iter().map(String::as_str).collect(),
        })
    }
}

impl Scenario {
    fn namespace(&self) -> String {
        let name: String =
            self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
        name.chars().take(60).collect::<String>().trim_matches('-').to_owned()
    }

    /// The answers to all steps.
    pub(crate) fn run(&self, side: &Side) -> Vec<Answer> {
        let namespace = self.namespace();
        let mut variables = BTreeMap::from([
            ("core".to_owned(), format!("/api/v1/namespaces/{namespace}")),
            ("widgets".to_owned(), format!("/apis/example.dev/v1/namespaces/{namespace}/widgets")),
            ("execs".to_owned(), format!("/apis/oncelet.dev/v1alpha1/namespaces/{namespace}/containerexecs")),
            ("ns".to_owned(), namespace.clone()),
        ]);
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        let created = side.request("POST", "/api/v1/namespaces", &BTreeMap::new(), Some(object.to_string()), None);
        assert_eq!(created.status, 201, "{}", created.body);
        let mut normaliser = Normaliser::default();
        self.steps.iter().map(|step| step.run(side, &mut variables, &mut normaliser)).collect()
    }
}

impl Step {
    fn run(&self, side: &Side, variables: &mut BTreeMap<String, String>, normaliser: &mut Normaliser) -> Answer {
        let filled = |text: &str| {
            variables.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
        };
        if let Some(words) = self.words() {
            let words: Vec<_> = words.into_iter().map(filled).collect();
            let output = side.kubectl(&variables["ns"], &words, self.stdin.as_deref().map(filled));
            return json!({
                "exit": output.code,
                "stdout": normaliser.text(&output.stdout),
                "stderr": normaliser.text(&output.stderr),
            });
        }
        let request = filled(self.request.as_deref().unwrap());
        let (method, path) = request.split_once(' ').unwrap();
        let body = self.body.as_ref().map(Value::to_string).or_else(|| self.raw.clone()).map(|body| filled(&body));
        let mut headers = self.headers.clone();
        if body.is_some() {
            let content_type = self.content_type.as_deref().unwrap_or("application/json");
            headers.insert("content-type".to_owned(), content_type.to_owned());
        }
        let ask = || side.request(method, path, &headers, body.clone(), self.events);
        let reply = match self.until {
            None => ask(),
            Some(wanted) => eventually(&self.title(), || Some(ask()).filter(|reply| reply.status == wanted)),
        };
        for (name, pointer) in &self.save {
            let value = reply.body.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {}", reply.body));
            variables.insert(name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        let body = match &self.only {
            None => reply.body,
            Some(only) => only.iter().map(|at| (at.clone(), json!(reply.body.pointer(at)))).collect(),
        };
        let warnings: Vec<_> = reply.warnings.iter().map(|warning| normaliser.text(warning)).collect();
        json!({
            "status": reply.status, "type": reply.content_type, "warnings": warnings,
            "body": normaliser.document(&body),
        })
    }
}
