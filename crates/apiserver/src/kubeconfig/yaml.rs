//! YAML as somebody wrote it. Scalars are not read: what `yes` or `0123` means is for the reader that they were written for.

use std::fmt::{self, Write as _};

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::Value;

/// A document, or a part of one. Comments and layout are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Text without quotes may be something else than text, such as a number.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// The one document of a text; `None` where it is empty. The error says what cannot be kept of it.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        let mut documents = Vec::new();
        // What is open, with what it has so far.
        let mut open: Vec<(bool, Vec<Node>)> = Vec::new();
        for event in Parser::new_from_str(text) {
            let (event, _) = event.map_err(|error| format!("it is not YAML: {error}"))?;
            let whole = match event {
                Event::Alias(_) => return Err("it uses YAML anchors, which would be lost".to_owned()),
                Event::Scalar(_, _, anchor, ref tag)
                | Event::SequenceStart(_, anchor, ref tag)
                | Event::MappingStart(_, anchor, ref tag)
                    if anchor != 0 || tag.is_some() =>
                {
                    return Err("it uses YAML anchors or tags, which would be lost".to_owned());
                }
                Event::Scalar(text, style, ..) => {
                    Node::Scalar { text: text.into_owned(), quoted: style != ScalarStyle::Plain }
                }
                Event::SequenceStart(..) => {
                    open.push((false, Vec::new()));
                    continue;
                }
                Event::MappingStart(..) => {
                    open.push((true, Vec::new()));
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                    Some((true, parts)) => Node::Map(pairs(parts)?),
                    Some((false, parts)) => Node::List(parts),
                    None => return Err("it is not YAML".to_owned()),
                },
                _ => continue,
            };
            match open.last_mut() {
                Some((_, parts)) => parts.push(whole),
                None => documents.push(whole),
            }
        }
        if documents.len() > 1 {
            return Err("it has several documents".to_owned());
        }
        Ok(documents.pop().filter(|root| !root.is_null()))
    }

    /// A scalar that is text for every reader.
    pub(super) fn text(text: &str) -> Self {
        Self::Scalar { text: text.to_owned(), quoted: true }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Scalar { text, quoted: false } if ["", "~", "null"].contains(&text.as_str()))
    }

    /// The items of a list; none of anything else.
    pub(super) fn items(&self) -> &[Node] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// A field of a map.
    pub(super) fn get(&self, field: &str) -> Option<&Node> {
        let Self::Map(fields) = self else { return None };
        fields.iter().find(|(name, _)| name.as_text() == Some(field)).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, field: &str) -> Option<&mut Node> {
        let Self::Map(fields) = self else { return None };
        fields.iter_mut().find(|(name, _)| name.as_text() == Some(field)).map(|(_, value)| value)
    }

    /// Sets a field of a map.
    pub(super) fn put(&mut self, field: &str, value: Node) {
        if let Some(old) = self.get_mut(field) {
            *old = value;
        } else if let Self::Map(fields) = self {
            fields.push((Self::Scalar { text: field.to_owned(), quoted: false }, value));
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
        match self {
            Self::Scalar { text, quoted } => write_scalar(f, text, *quoted),
            Self::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        write!(f, "{:indent$}", "")?;
                    }
                    f.write_str("- ")?;
                    item.write_value(f, indent.saturating_add(2))?;
                }
                Ok(())
            }
            Self::Map(fields) => {
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        write!(f, "{:indent$}", "")?;
                    }
                    name.write(f, 0)?;
                    f.write_char(':')?;
                    // Lists stand as far left as the field that they are in, as kubectl writes them.
                    let inner = if matches!(value, Self::List(_)) { indent } else { indent.saturating_add(2) };
                    if value.is_block() {
                        write!(f, "\n{:inner$}", "")?;
                    } else {
                        f.write_char(' ')?;
                    }
                    value.write_value(f, inner)?;
                }
                Ok(())
            }
        }
    }

    /// Writes what stands after a name or a dash, to the end of its line.
    fn write_value(&self, f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
        match self {
            Self::List(items) if items.is_empty() => f.write_str("[]\n"),
            Self::Map(fields) if fields.is_empty() => f.write_str("{}\n"),
            Self::Scalar { .. } => {
                self.write(f, indent)?;
                f.write_char('\n')
            }
            _ => self.write(f, indent),
        }
    }

    /// Whether it takes lines of its own.
    fn is_block(&self) -> bool {
        match self {
            Self::Scalar { .. } => false,
            Self::List(items) => !items.is_empty(),
            Self::Map(fields) => !fields.is_empty(),
        }
    }
}

fn pairs(parts: Vec<Node>) -> Result<Vec<(Node, Node)>, String> {
    let mut parts = parts.into_iter();
    let mut fields = Vec::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        if name.as_text().is_none() {
            return Err("a field has a name that is not text".to_owned());
        }
        fields.push((name, value));
    }
    Ok(fields)
}

fn write_scalar(f: &mut fmt::Formatter<'_>, text: &str, quoted: bool) -> fmt::Result {
    if !quoted && !text.contains(char::is_control) {
        return f.write_str(if text.is_empty() { "null" } else { text });
    }
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                write!(f, "\\u{:04x}", u32::from(c))?;
            }
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_value(f, 0)
    }
}

impl From<&Value> for Node {
    fn from(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::text(text),
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(fields) => {
                let name = |name: &str| Self::Scalar { text: name.to_owned(), quoted: false };
                Self::Map(fields.iter().map(|(field, value)| (name(field), Self::from(value))).collect())
            }
            other => Self::Scalar { text: other.to_string(), quoted: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn comes_back(text: &str) {
        let first = Node::parse(text).unwrap().unwrap();
        let written = first.to_string();
        let second = Node::parse(&written).unwrap_or_else(|error| panic!("{error}: {written}")).unwrap();
        // A plain scalar over several lines gets quotes.
        assert_eq!(second.to_string(), written);
        let values = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
        assert_eq!(values(&written), values(text), "{written}");
    }

    #[test]
    fn what_is_written_says_the_same() {
        comes_back("a: 1");
        comes_back("- a\n- - b\n  - c: d\n    e: []\n- {}\n- [[x, y], {z: [1]}]");
        comes_back(r#"{"a": {"b": ["c", 1, null, true, "x: y # z", "é\u0000\u2028\"\\\n\t"]}}"#);
        comes_back("text: |\n  one\n   two\nfolded: >-\n  one\n  two\n\n  three\nplain: one\n  two\n\n  three\n");
        comes_back("? a\n: b\nempty:\n'quoted name': 'it''s'\nurl: http://x:1/#y\n");
        comes_back("--- # comment\na:\n  - b: 1 # comment\n    c: 2\n  # comment\n  - d\n...\n");
        comes_back("\u{feff}a: b\n");
    }

    #[test]
    fn an_empty_text_is_no_document() {
        for text in ["", "\n", "# comment\n", "---\n", "null"] {
            assert_eq!(Node::parse(text), Ok(None), "{text:?}");
        }
    }
}
