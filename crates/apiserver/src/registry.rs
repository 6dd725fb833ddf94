//! Which resources are served, and how each behaves.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::builtin::{self, Builtin};
use crate::meta;
use crate::meta::At;
use crate::part::Part;
use crate::schema::object_meta::with_object_meta;
use crate::schema::{Budget, Schema, SchemaError};
use crate::status::Subject;
use crate::table::Column;

/// One kind at one version, under the name that its URL has.
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    /// Where its objects are stored; versions of one kind share a table.
    pub(crate) table: Arc<str>,
    pub(crate) has_status: bool,
    pub(crate) scale: Option<Scale>,
    /// Paths of the fields that field selectors may name, beside those of every object.
    pub(crate) selectable: Vec<String>,
    /// The version as which objects are stored, where there are several.
    pub(crate) storage: Option<StorageVersion>,
    /// The names of the parts that somebody else answers for.
    pub(crate) parts: Vec<&'static str>,
    pub(crate) columns: Vec<Column>,
    pub(crate) schema: Arc<Schema>,
    pub(crate) nature: Nature,
}

/// The version as which the objects of a kind are stored, whichever they are written as.
#[derive(Clone)]
pub(crate) struct StorageVersion {
    api_version: String,
    schema: Arc<Schema>,
}

/// Where the numbers of `/scale` are in an object: paths of names, without the leading dot.
pub(crate) struct Scale {
    pub(crate) spec_replicas: String,
    pub(crate) status_replicas: String,
    pub(crate) label_selector: Option<String>,
}

impl Scale {
    fn of(raw: &Value) -> Option<Self> {
        let path = |field: &str| raw.at(field).as_str().map(|path| path.trim_start_matches('.').to_owned());
        Some(Self {
            spec_replicas: path("specReplicasPath")?,
            status_replicas: path("statusReplicasPath")?,
            label_selector: path("labelSelectorPath"),
        })
    }
}

/// Where a resource comes from, which decides what else it does.
pub(crate) enum Nature {
    /// Defined by a `CustomResourceDefinition`, whose `openAPIV3Schema` this is.
    Custom {
        raw_schema: Value,
    },
    Builtin(Builtin),
}

impl Resource {
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject { group: &self.group, plural: &self.plural, kind: &self.kind }
    }

    /// `v1` or `group/version`.
    pub(crate) fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    pub(crate) fn builtin(&self) -> Option<Builtin> {
        match self.nature {
            Nature::Builtin(builtin) => Some(builtin),
            Nature::Custom { .. } => None,
        }
    }

    pub(crate) fn is_custom(&self) -> bool {
        matches!(self.nature, Nature::Custom { .. })
    }

    /// Makes an object that was stored one of this version: without the fields that it does not know.
    pub(crate) fn show_stored(&self, object: &mut Value) {
        if self.storage.is_some() {
            prune_content(&self.schema, object);
        }
        meta::put(object, "apiVersion", json!(self.api_version()));
    }

    /// Whether objects are shown exactly as they are stored.
    pub(crate) fn shows_what_is_stored(&self) -> bool {
        self.is_custom() && self.storage.is_none()
    }

    /// Makes an object of this version one to be stored.
    pub(crate) fn make_storable(&self, object: &mut Value) {
        if let Some(storage) = &self.storage {
            prune_content(&storage.schema, object);
            meta::put(object, "apiVersion", json!(storage.api_version));
        }
    }

    /// In the order in which discovery lists them.
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        match self.builtin() {
            Some(builtin) if builtin.is_question() => &["create"],
            None => &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"],
            _ => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }
    }
}

fn prune_content(schema: &Schema, object: &mut Value) {
    // What is in it is the server's, and not for a schema to say.
    let metadata = object.get_mut("metadata").map(Value::take);
    schema.prune(object);
    if let Some(metadata) = metadata {
        meta::put(object, "metadata", metadata);
    }
}

/// `v1` for the legacy group, `group/version` for the others.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Everything that is served at one moment.
#[derive(Default)]
pub(crate) struct Registry {
    resources: Vec<Arc<Resource>>,
}

impl Registry {
    /// The built-in kinds, and those of `definitions`. A definition that cannot be served is left out: it was refused
    /// when it was written.
    pub(crate) fn new<'a>(definitions: impl Iterator<Item = &'a Value>, parts: &[Part]) -> Self {
        let custom = definitions.filter_map(|definition| from_definition(definition).ok()).flatten();
        let custom = custom.map(|mut resource| {
            let mine = parts.iter().filter(|part| part.group == resource.group && part.plural == resource.plural);
            resource.parts = mine.map(|part| part.name).collect();
            resource
        });
        Self { resources: builtin::resources().into_iter().chain(custom).map(Arc::new).collect() }
    }

    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let wanted = |one: &&Arc<Resource>| one.plural == plural && one.group == group && one.version == version;
        self.resources.iter().find(wanted)
    }

    pub(crate) fn serves_kind(&self, api_version: &str, kind: &str) -> bool {
        self.resources.iter().any(|one| one.kind == kind && one.api_version() == api_version)
    }

    /// Groups in order of appearance, each with its versions.
    pub(crate) fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for resource in &self.resources {
            match groups.iter_mut().find(|(name, _)| *name == resource.group) {
                None => groups.push((&resource.group, vec![&resource.version])),
                Some((_, versions)) if !versions.contains(&&*resource.version) => versions.push(&resource.version),
                Some(_) => {}
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        }
        groups
    }

    pub(crate) fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.resources.iter().filter(move |one| one.group == group && one.version == version)
    }
}

/// The greater, the more stable, and then the newer: `v2`, `v1`, `v2beta1`, `v1beta2`, `v1alpha1`, and all others.
fn priority(version: &str) -> (u8, u32, u32) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let (major, stage) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let major = major.parse().ok()?;
        match stage {
            "" => Some((3, major, 0)),
            _ if let Some(minor) = stage.strip_prefix("beta") => Some((2, major, minor.parse().ok()?)),
            _ => Some((1, major, stage.strip_prefix("alpha")?.parse().ok()?)),
        }
    };
    parse().unwrap_or_default()
}

/// The resources that a definition brings: one per served version.
pub(crate) fn from_definition(definition: &Value) -> Result<Vec<Resource>, SchemaError> {
    let spec = definition.at("spec");
    let names = spec.at("names");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let budget = Budget::default();
    let schema = |index: usize, version: &Value| {
        let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
        Schema::parse_within(&with_object_meta(version.at("schema").at("openAPIV3Schema").clone()), &path, &budget)
            .map(Arc::new)
    };
    let versions = spec.at("versions").as_array().map_or(&[] as &[Value], Vec::as_slice).iter().enumerate();
    let stored = versions.clone().find(|(_, version)| version.at("storage") == true).filter(|_| versions.len() > 1);
    let storage = stored.map(|(index, version)| {
        let api_version = api_version(&text(spec.at("group")), &text(version.at("name")));
        Ok(StorageVersion { api_version, schema: schema(index, version)? })
    });
    let storage = storage.transpose()?;
    versions
        .filter(|(_, version)| version.at("served") == true)
        .map(|(index, version)| {
            Ok(Resource {
                group: text(spec.at("group")),
                version: text(version.at("name")),
                kind: text(names.at("kind")),
                list_kind: text(names.at("listKind")),
                plural: text(names.at("plural")),
                singular: text(names.at("singular")),
                short_names: texts(names.at("shortNames")),
                categories: texts(names.at("categories")),
                namespaced: spec.at("scope") == "Namespaced",
                table: Arc::from(meta::name(definition)),
                has_status: version.at("subresources").at("status").is_object(),
                scale: Scale::of(version.at("subresources").at("scale")),
                selectable: selectable(version),
                storage: storage.clone(),
                parts: Vec::new(),
                columns: Column::of_custom(version.at("additionalPrinterColumns")),
                schema: schema(index, version)?,
                nature: Nature::Custom { raw_schema: version.at("schema").at("openAPIV3Schema").clone() },
            })
        })
        .collect()
}

fn selectable(version: &Value) -> Vec<String> {
    let fields = version.at("selectableFields").as_array().into_iter().flatten();
    fields.filter_map(|field| Some(field.at("jsonPath").as_str()?.trim_start_matches('.').to_owned())).collect()
}

/// Names that a definition may leave out, as Kubernetes fills them in.
pub(crate) fn default_definition(definition: &mut Value) {
    let kind = definition.at("spec").at("names").at("kind").as_str().unwrap_or_default().to_owned();
    let Some(spec) = definition.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    if let Some(names) = spec.get_mut("names").and_then(Value::as_object_mut) {
        names.entry("singular").or_insert_with(|| json!(kind.to_lowercase()));
        names.entry("listKind").or_insert_with(|| json!(format!("{kind}List")));
    }
}
