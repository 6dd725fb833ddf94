//! The dotenv format of `envFiles`.
//!
//! `NAME=value`, one a line, with an optional `export ` before it. `#` starts a comment line, or a comment behind an
//! unquoted value where a space precedes it. `'…'` is literal; `"…"` knows `\n`, `\r`, `\t`, `\\`, `\"` and `\$`. Both may
//! span lines. Nothing is substituted: the daemon's own environment must not leak into a program, and `$(NAME)` is
//! for the manifest.

/// A line that is not dotenv.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Error {
    line: usize,
    what: &'static str,
}

/// Parses a dotenv text into names and values, in order.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, Error> {
    let mut found = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    while !rest.is_empty() {
        let entry = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = entry.strip_prefix('\n').or_else(|| entry.strip_prefix("\r\n")) {
            rest = after;
            line += 1;
            continue;
        }
        if entry.is_empty() {
            break;
        }
        if entry.starts_with('#') {
            rest = after_line(entry);
            line += 1;
            continue;
        }
        let entry = entry.strip_prefix("export ").unwrap_or(entry).trim_start_matches([' ', '\t']);
        let end = entry.find(['=', '\n']).unwrap_or(entry.len());
        if !entry[end..].starts_with('=') {
            return Err(Error { line, what: "expected NAME=value" });
        }
        let name = entry[..end].trim_end();
        if !is_name(name) {
            return Err(Error {
                line,
                what: "a name is made of letters, digits, '_', '.' and '-', and does not start with a digit",
            });
        }
        let value = entry[end + 1..].trim_start_matches([' ', '\t']);
        let (value, after) = match value.as_bytes().first() {
            Some(b'\'') => single_quoted(&value[1..], line)?,
            Some(b'"') => double_quoted(&value[1..], line)?,
            _ => unquoted(value),
        };
        line += entry[..entry.len() - after.len()].matches('\n').count();
        found.push((name.to_owned(), value));
        rest = after;
    }
    Ok(found)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn after_line(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, after)| after)
}

fn unquoted(text: &str) -> (String, &str) {
    let line = text.split('\n').next().unwrap_or_default();
    let value = if line.starts_with('#') {
        ""
    } else {
        let comment = [" #", "\t#"].iter().filter_map(|mark| line.find(mark)).min();
        &line[..comment.unwrap_or(line.len())]
    };
    (value.trim_end().to_owned(), after_line(text))
}

fn single_quoted(text: &str, line: usize) -> Result<(String, &str), Error> {
    let (value, after) = text.split_once('\'').ok_or(Error { line, what: "a ' is not closed" })?;
    Ok((value.to_owned(), end_of_quoted(after, line)?))
}

fn double_quoted(text: &str, line: usize) -> Result<(String, &str), Error> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, end_of_quoted(&text[at + 1..], line)?)),
            '\\' => match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(c @ ('\\' | '"' | '$')) => value.push(c),
                Some(other) => {
                    value.push('\\');
                    value.push(other);
                }
                None => break,
            },
            c => value.push(c),
        }
    }
    Err(Error { line, what: "a \" is not closed" })
}

fn end_of_quoted(after: &str, line: usize) -> Result<&str, Error> {
    let tail = after.split('\n').next().unwrap_or_default().trim();
    if tail.is_empty() || tail.starts_with('#') {
        Ok(after_line(after))
    } else {
        Err(Error { line, what: "text behind a closing quote" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    fn one(text: &str) -> String {
        let found = pairs(text);
        assert_eq!(found.len(), 1, "{text:?} gave {found:?}");
        found[0].1.clone()
    }

    #[test]
    fn values_are_taken_as_people_mean_them() {
        assert_eq!(one("A=1"), "1");
        assert_eq!(one("export A = 1  # why"), "1");
        assert_eq!(one("A=a#b"), "a#b");
        assert_eq!(one("A="), "");
        assert_eq!(one("A=# nothing"), "");
        assert_eq!(one("A=x\r\n"), "x");
        assert_eq!(one("A='$HOME # \\n'"), "$HOME # \\n");
        assert_eq!(one(r#"A="two\nlines \"quoted\"" # c"#), "two\nlines \"quoted\"");
        assert_eq!(one("A=\"two\nlines\"\n"), "two\nlines");
    }

    #[test]
    fn nothing_is_taken_from_the_daemons_environment() {
        assert_eq!(one("A=$PATH"), "$PATH");
        assert_eq!(one("A=\"${PATH}\""), "${PATH}");
    }

    #[test]
    fn entries_keep_their_order_and_blank_lines_are_skipped() {
        assert_eq!(
            pairs("\u{feff}# top\n\nB=2\n  # in between\nA='x'\n\tB=3"),
            [("B".into(), "2".into()), ("A".into(), "x".into()), ("B".into(), "3".into())]
        );
    }

    #[test]
    fn an_error_names_its_line() {
        assert_eq!(parse("A=\"x\ny\"\nnonsense\n").unwrap_err().to_string(), "line 3: expected NAME=value");
        assert_eq!(parse("\nA='x").unwrap_err().line, 2);
        assert_eq!(parse("A='x' y").unwrap_err().line, 1);
        assert_eq!(parse("1A=x").unwrap_err().line, 1);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[A=\"'\\\\#\\n $x]{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_single_quoted_value_comes_back_as_it_is(value in "[^'\\r]{0,40}") {
            proptest::prop_assert_eq!(one(&format!("A='{value}'\n")), value);
        }
    }
}
