//! Objects as rows: what `kubectl get` prints.

mod age;
mod path;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::meta;
use crate::meta::At;
pub(crate) use age::human;
use path::Path;

/// As Kubernetes describes it.
const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources \
    may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for \
    creation idempotence and configuration definition. Cannot be updated. More info: \
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

/// One column of the printed table.
pub(crate) struct Column {
    name: String,
    ty: ColumnType,
    format: String,
    description: String,
    /// Above zero: only in wide output.
    priority: i64,
    source: Source,
    /// Those of built-in kinds are all announced as strings, whatever their cells hold.
    is_builtin: bool,
}

/// How a cell is made from the value that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Text,
    Integer,
    Number,
    Boolean,
    /// Printed as the time that has passed since.
    Date,
    /// As it stands, whatever it is.
    Verbatim,
}

enum Source {
    Name,
    /// The first of these paths that finds something.
    Paths(Vec<Path>),
    /// The number of entries in all of these maps.
    Count(Vec<Path>),
    /// `kind/name` of what an event is about.
    Subject,
    /// Who tells of an event, and which one of them.
    Reporter,
    Fixed(Value),
}

impl Column {
    pub(crate) fn name() -> Self {
        let mut column = Self::plain("Name", ColumnType::Text, Source::Name);
        "name".clone_into(&mut column.format);
        NAME.clone_into(&mut column.description);
        column
    }

    /// `path` is a `JSONPath`, several alternatives with `|`, or one of `count(…)` and `object()`.
    pub(crate) fn new(name: &str, ty: ColumnType, path: &str) -> Self {
        let source = if path == "object()" {
            Source::Subject
        } else if path == "source()" {
            Source::Reporter
        } else if let Some(inner) = path.strip_prefix("count(").and_then(|rest| rest.strip_suffix(')')) {
            Source::Count(inner.split(',').filter_map(Path::parse).collect())
        } else {
            Source::Paths(path.split('|').filter_map(Path::parse).collect())
        };
        Self::plain(name, ty, source)
    }

    fn plain(name: &str, ty: ColumnType, source: Source) -> Self {
        let (format, description) = (String::new(), String::new());
        Self { name: name.to_owned(), ty, format, description, priority: 0, source, is_builtin: false }
    }

    pub(crate) fn of_builtin(mut self) -> Self {
        self.is_builtin = true;
        if self.name == "Name" {
            "name".clone_into(&mut self.format);
        }
        self
    }

    pub(crate) fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }

    /// `Name`, then `additionalPrinterColumns`, or `Age` where there are none.
    pub(crate) fn of_custom(raw: &Value) -> Vec<Self> {
        let mut columns = vec![Self::name()];
        let Some(raw) = raw.as_array().filter(|raw| !raw.is_empty()) else {
            columns.push(Self::new("Age", ColumnType::Date, ".metadata.creationTimestamp"));
            return columns;
        };
        columns.extend(raw.iter().map(|raw| {
            let text = |field: &str| raw.at(field).as_str().unwrap_or_default();
            let source =
                Path::parse(text("jsonPath")).map_or(Source::Fixed(Value::Null), |path| Source::Paths(vec![path]));
            Self {
                format: text("format").to_owned(),
                description: match text("description") {
                    "" => format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath")),
                    description => description.to_owned(),
                },
                priority: raw.at("priority").as_i64().unwrap_or(0),
                ..Self::plain(text("name"), ColumnType::parse(text("type")), source)
            }
        }));
        columns
    }

    fn definition(&self) -> Value {
        let ty = match self.ty {
            ColumnType::Verbatim => "date",
            _ if self.is_builtin => "string",
            ty => ty.name(),
        };
        json!({
            "name": self.name, "type": ty, "format": self.format,
            "description": self.description, "priority": self.priority,
        })
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = match &self.source {
            Source::Name => return json!(meta::name(object)),
            Source::Fixed(value) => value.clone(),
            Source::Paths(paths) => paths.iter().find_map(|path| path.find(object)).unwrap_or(Value::Null),
            Source::Count(paths) => {
                let maps = paths.iter().filter_map(|path| path.find(object));
                json!(maps.map(|map| map.as_object().map_or(0, Map::len)).sum::<usize>())
            }
            Source::Subject => event_object(object),
            Source::Reporter => event_source(object),
        };
        match self.ty.render(found, now) {
            Value::Null if self.is_builtin => json!(""),
            cell => cell,
        }
    }
}

impl ColumnType {
    fn parse(name: &str) -> Self {
        match name {
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            "date" => Self::Date,
            _ => Self::Text,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text | Self::Verbatim => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Date => "date",
        }
    }

    fn render(self, value: Value, now: Timestamp) -> Value {
        match (self, value) {
            (Self::Date, Value::Null) => json!("<unknown>"),
            (_, Value::Null) => Value::Null,
            (Self::Date, Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(then) => json!(human(now.duration_since(then).as_secs())),
                Err(_) => json!("<invalid>"),
            },
            (Self::Text, Value::String(text)) => json!(text),
            (Self::Text, other) => json!(other.to_string()),
            (Self::Integer, value) if value.is_i64() || value.is_u64() => value,
            (Self::Number, value) if value.is_number() => value,
            (Self::Boolean, value) if value.is_boolean() => value,
            (Self::Verbatim, value) => value,
            _ => Value::Null,
        }
    }
}

fn event_source(event: &Value) -> Value {
    let source = if event.at("source").is_object() { event.at("source") } else { event.at("deprecatedSource") };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let reporter = if event.at("involvedObject").is_object() { "reportingComponent" } else { "reportingController" };
    let (who, which) = match text(source.at("component")) {
        component if component.is_empty() => (text(event.at(reporter)), text(event.at("reportingInstance"))),
        component => (component, text(source.at("host"))),
    };
    json!(if which.is_empty() { who } else { format!("{who}, {which}") })
}

fn event_object(event: &Value) -> Value {
    let about = if event.at("involvedObject").is_object() { event.at("involvedObject") } else { event.at("regarding") };
    let text = |field: &str| about.at(field).as_str().unwrap_or_default();
    json!(format!("{}/{}", text("kind").to_lowercase(), text("name")))
}

/// How much of each object a row carries along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    Metadata,
    Object,
}

/// A `meta.k8s.io/v1 Table`. A watch sends the column definitions once, with its first event.
pub(crate) fn table(
    columns: &[Column],
    objects: &[&Value],
    list_metadata: &Value,
    include: Include,
    with_definitions: bool,
    now: Timestamp,
) -> Value {
    let definitions = with_definitions.then(|| columns.iter().map(Column::definition).collect::<Vec<_>>());
    let rows: Vec<_> = objects.iter().map(|object| row(columns, object, include, now)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

fn row(columns: &[Column], object: &Value, include: Include, now: Timestamp) -> Value {
    let cells: Vec<_> = columns.iter().map(|column| column.cell(object, now)).collect();
    let shown = match include {
        Include::None => Value::Null,
        Include::Metadata => partial(object),
        Include::Object => object.clone(),
    };
    json!({"cells": cells, "object": shown})
}

/// The object as `PartialObjectMetadata`.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.at("metadata")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custom_row_shows_its_columns_with_ages_and_gaps() {
        let columns = Column::of_custom(&json!([
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
            {"name": "Exit", "type": "integer", "jsonPath": ".status.exitCode"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ]));
        let object = json!({
            "metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        let now = Timestamp::from_second(65).unwrap();
        let table = table(&columns, &[&object], &json!({}), Include::Metadata, true, now);
        assert_eq!(table["rows"][0]["cells"], json!(["a", "True", null, "65s"]));
        assert_eq!(table["columnDefinitions"][3]["type"], "date");
    }
}
