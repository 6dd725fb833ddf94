//! What a URL asks for.

use axum::extract::Query as AxumQuery;
use http::Uri;
use percent_encoding::percent_decode_str;

use crate::part::PartQuery;

/// A path, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Health,
    Version,
    LegacyVersions,
    Groups,
    Group(String),
    Resources { group: String, version: String },
    OpenApiV2,
    OpenApiV3,
    OpenApiV3Of { group: String, version: String },
    Object(Target),
    Unknown,
}

/// A resource, or one object of it, or a part of that object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl Route {
    pub(crate) fn parse(path: &str) -> Self {
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["livez" | "readyz" | "healthz", ..] => Self::Health,
            ["version"] => Self::Version,
            ["api"] => Self::LegacyVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", version] => Self::Resources { group: String::new(), version: (*version).to_owned() },
            ["apis", group, version] => Self::Resources { group: (*group).to_owned(), version: (*version).to_owned() },
            ["openapi", "v2"] => Self::OpenApiV2,
            ["openapi", "v3"] => Self::OpenApiV3,
            ["openapi", "v3", "api", version] => {
                Self::OpenApiV3Of { group: String::new(), version: (*version).to_owned() }
            }
            ["openapi", "v3", "apis", group, version] => {
                Self::OpenApiV3Of { group: (*group).to_owned(), version: (*version).to_owned() }
            }
            ["api", version, rest @ ..] => object("", version, rest),
            ["apis", group, version, rest @ ..] => object(group, version, rest),
            _ => Self::Unknown,
        }
    }
}

fn object(group: &str, version: &str, rest: &[&str]) -> Route {
    let (namespace, rest) = match rest {
        // `/api/v1/namespaces/x/status` is a part of a Namespace, `/api/v1/namespaces/x/configmaps` is not.
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, None, None),
        [plural, name] => (plural, Some(name), None),
        [plural, name, subresource] => (plural, Some(name), Some(subresource)),
        _ => return Route::Unknown,
    };
    let own = |text: &&str| (*text).to_owned();
    Route::Object(Target {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace,
        plural: own(plural),
        name: name.map(own),
        subresource: subresource.map(own),
    })
}

/// The parameters of a request; of one given twice, the first.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Tolerates stray `&`s, which kube-rs sends.
    pub(crate) fn parse(uri: &Uri) -> Self {
        Self(AxumQuery::<Vec<(String, String)>>::try_from_uri(uri).map_or_else(|_| Vec::new(), |query| query.0))
    }

    /// `""` where the parameter is missing.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Go's truth: `true`, `1`, or the name alone.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(key, value)| key == name && matches!(value.as_str(), "true" | "1" | "True" | ""))
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    /// For whoever answers for a part of an object.
    pub(crate) fn to_part(&self) -> PartQuery {
        PartQuery(self.0.clone())
    }

    pub(crate) fn dry_run(&self) -> bool {
        self.text("dryRun") == "All"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        match Route::parse(path) {
            Route::Object(target) => target,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn a_namespace_is_an_object_and_a_place_for_objects() {
        assert_eq!(target("/api/v1/namespaces/x").plural, "namespaces");
        assert_eq!(target("/api/v1/namespaces/x/status").subresource.as_deref(), Some("status"));
        let inside = target("/apis/g/v1/namespaces/x/things/a/status");
        assert_eq!((inside.namespace.as_deref(), inside.name.as_deref()), (Some("x"), Some("a")));
        assert_eq!(inside.subresource.as_deref(), Some("status"));
    }

    #[test]
    fn a_trailing_slash_asks_for_the_same() {
        assert_eq!(Route::parse("/version/"), Route::Version);
        assert_eq!(Route::parse("/apis/"), Route::Groups);
    }

    #[test]
    fn stray_ampersands_are_no_parameters() {
        let query = Query::parse(&"/x?&limit=500&watch=true".parse().unwrap());
        assert_eq!((query.number("limit"), query.flag("watch"), query.flag("other")), (Some(500), true, false));
    }
}
