//! The part of `JSONPath` that printer columns use.

use crate::meta::At;
use serde_json::Value;

/// `.status.conditions[?(@.type=="Ready")].status`, `.spec.list[0]`, `.spec['a.b']`, `.spec.list[*].name`; or a bare
/// number, which is itself.
pub(crate) struct Path(Vec<Step>);

enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose field (a path of names) has this value.
    Where(Vec<String>, Value),
    Constant(Value),
}

impl Path {
    /// `None` for a path that this subset cannot read: its cells stay empty.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('{').trim_end_matches('}');
        if let Ok(number) = text.parse::<i64>() {
            return Some(Self(vec![Step::Constant(number.into())]));
        }
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let (within, after) = inner.split_at_checked(closing_bracket(inner)?)?;
                steps.push(bracket(within)?);
                rest = after.strip_prefix(']')?;
            } else {
                let inner = rest.strip_prefix('.').unwrap_or(rest);
                let mut end = inner.len();
                let mut escaped = false;
                for (at, c) in inner.char_indices() {
                    match c {
                        '\\' => escaped = true,
                        '.' | '[' if !escaped => {
                            end = at;
                            break;
                        }
                        _ => escaped = false,
                    }
                }
                if end == 0 {
                    return None;
                }
                let (name, after) = inner.split_at_checked(end)?;
                let name = name.replace('\\', "");
                steps.push(if name == "*" { Step::All } else { Step::Field(name) });
                rest = after;
            }
        }
        Some(Self(steps))
    }

    /// The first value found.
    pub(crate) fn find(&self, object: &Value) -> Option<Value> {
        let mut found = vec![object];
        for step in &self.0 {
            if let Step::Constant(value) = step {
                return Some(value.clone());
            }
            found = found.into_iter().flat_map(|value| step.take(value)).collect();
        }
        found.into_iter().find(|value| !value.is_null()).cloned()
    }
}

impl Step {
    fn take<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => {
                let items = value.as_array().map_or(&[] as &[Value], Vec::as_slice);
                let at = if *index < 0 {
                    items.len().checked_sub(index.unsigned_abs().try_into().unwrap_or(usize::MAX))
                } else {
                    usize::try_from(*index).ok()
                };
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Where(path, wanted) => {
                let holds = |item: &&Value| path.iter().fold(*item, |value, name| value.at(name.as_str())) == wanted;
                value.as_array().into_iter().flatten().filter(holds).collect()
            }
            Self::Constant(_) => Vec::new(),
        }
    }
}

fn closing_bracket(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth = depth.saturating_add(1),
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

fn bracket(inner: &str) -> Option<Step> {
    let inner = inner.trim();
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        let (left, right) = filter.split_once("==")?;
        let path = left.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
        return Some(Step::Where(path, literal(right.trim())?));
    }
    if let Ok(index) = inner.parse() {
        return Some(Step::Index(index));
    }
    match literal(inner)? {
        Value::String(name) => Some(Step::Field(name)),
        _ => None,
    }
}

fn literal(text: &str) -> Option<Value> {
    let single = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    single.map(|text| Value::String(text.to_owned())).or_else(|| serde_json::from_str(text).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_paths_of_printer_columns_find_what_they_name() {
        let object = json!({"metadata": {"labels": {"a.b/c": "x"}}, "list": [{"n": 1, "t": "a"}, {"n": 2, "t": "b"}]});
        let cases = [
            (".list[0].n", json!(1)),
            (".list[-1].n", json!(2)),
            (".list[*].n", json!(1)),
            (".list[?(@.t==\"b\")].n", json!(2)),
            (".list[?(@.t=='b')].n", json!(2)),
            (".metadata.labels['a.b/c']", json!("x")),
            (r".metadata.labels.a\.b/c", json!("x")),
            ("1", json!(1)),
        ];
        for (path, found) in cases {
            assert_eq!(Path::parse(path).unwrap().find(&object), Some(found), "{path}");
        }
        assert_eq!(Path::parse(".nothing.here").unwrap().find(&object), None);
    }
}
