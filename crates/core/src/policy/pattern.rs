//! How texts of a policy match: globs, paths, images, users.

/// Whether `text` matches `pattern`, in which `*` stands for any characters but `separator`, and `**` for any at all. Without a
/// separator both are the same.
pub(super) fn glob(pattern: &str, text: &str, separator: Option<u8>) -> bool {
    // reached[i]: what was read of the pattern matches the first i bytes of the text. Linear in both, whoever wrote them.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut rest = pattern.as_bytes();
    while let Some((first, mut tail)) = rest.split_first() {
        if *first == b'*' {
            let mut any = separator.is_none();
            while let Some((b'*', after)) = tail.split_first() {
                any = true;
                tail = after;
            }
            for (at, byte) in text.bytes().enumerate() {
                reached[at + 1] |= reached[at] && (any || Some(byte) != separator);
            }
        } else {
            for (at, byte) in text.bytes().enumerate().rev() {
                reached[at + 1] = reached[at] && byte == *first;
            }
            reached[0] = false;
        }
        rest = tail;
    }
    reached[text.len()]
}

/// Whether one of `patterns` matches `name`.
pub(super) fn any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| glob(pattern, name, None))
}

/// An absolute path without empty parts and `.`; `None` where it is not absolute or has `..`, which names another place than
/// it seems to where a link is in front of it.
pub fn clean_path(path: &str) -> Option<String> {
    let mut clean = String::new();
    for part in path.strip_prefix('/')?.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => {
                clean.push('/');
                clean.push_str(part);
            }
        }
    }
    if path.contains('\0') {
        return None;
    }
    Some(if clean.is_empty() { "/".to_owned() } else { clean })
}

/// Whether the clean path `path` is `dir` or below it.
pub(super) fn is_below(dir: &str, path: &str) -> bool {
    let Some(dir) = clean_path(dir) else { return false };
    dir == "/" || path.strip_prefix(&dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What an image reference means, as engines read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// The beginning of an image's ID, with its algorithm.
    Id(String),
    /// A name with its registry.
    Named { name: String, tag: Option<String>, digest: Option<String> },
}

impl Image {
    /// What an engine takes `text` for. `busybox` is `docker.io/library/busybox:latest`; a word of hexadecimal digits is
    /// looked for among the IDs of images, whatever their names are.
    pub(super) fn asked_for(text: &str) -> Self {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Self::Id(format!("sha256:{}", digits.to_ascii_lowercase()));
        }
        match named(text) {
            // An engine goes by the digest alone.
            (name, _, Some(digest)) => Self::Named { name, tag: None, digest: Some(digest) },
            (name, tag, None) => {
                Self::Named { name, tag: Some(tag.unwrap_or_else(|| "latest".to_owned())), digest: None }
            }
        }
    }

    /// As people write it in full.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Id(id) => id.clone(),
            Self::Named { name, tag, digest } => {
                let tag = tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
                let digest = digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
                format!("{name}{tag}{digest}")
            }
        }
    }
}

/// Whether an image matches the pattern of a rule: a reference with `*` for a part of a name and `**` for the rest. A pattern
/// without tag and digest matches all of them; one with a tag matches no reference by digest.
pub(super) fn is_image(pattern: &str, image: &Image) -> bool {
    if pattern == "*" || pattern == "**" {
        return true;
    }
    match image {
        Image::Id(id) => pattern.starts_with("sha256:") && glob(pattern, id, None),
        Image::Named { name, tag, digest } => {
            let (wanted, wanted_tag, wanted_digest) = named(pattern);
            let same = |wanted: Option<String>, given: &Option<String>| match (wanted, given) {
                (None, _) => true,
                (Some(wanted), Some(given)) => glob(&wanted, given, None),
                (Some(_), None) => false,
            };
            glob(&wanted, name, Some(b'/')) && same(wanted_tag, tag) && same(wanted_digest, digest)
        }
    }
}

/// Name with registry, tag, digest.
fn named(text: &str) -> (String, Option<String>, Option<String>) {
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (text, Some(digest.to_owned())),
        None => (text, None),
    };
    let last = text.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match text[last..].find(':') {
        Some(at) => (&text[..last + at], Some(text[last + at + 1..].to_owned())),
        None => (text, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (first, path),
        _ => ("docker.io", name),
    };
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    let library = registry == "docker.io" && !path.contains('/') && path != "**";
    (format!("{registry}/{}{path}", if library { "library/" } else { "" }), tag, digest)
}

/// Whether the first part of a name is a registry, as Docker tells it.
fn is_registry(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Whether `user`, as an exec names it, matches: user and group each for themselves, and no group only where none is given.
pub(super) fn is_user(pattern: &str, user: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let parts = |text: &str| text.split_once(':').map(|(user, group)| (user.to_owned(), group.to_owned()));
    match (parts(pattern), parts(user)) {
        (Some((wanted, wanted_group)), Some((name, group))) => {
            glob(&wanted, &name, None) && glob(&wanted_group, &group, None)
        }
        (None, None) => glob(pattern, user, None),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stops_at_the_separator_and_two_do_not() {
        for (pattern, text, separator, wanted) in [
            ("team-*", "team-a", None, true),
            ("team-*", "team-", None, true),
            ("team-*", "tea", None, false),
            ("*-a-*", "x-a-a-b", None, true),
            ("", "", None, true),
            ("", "x", None, false),
            ("a/*", "a/b", Some(b'/'), true),
            ("a/*", "a/b/c", Some(b'/'), false),
            ("a/**", "a/b/c", Some(b'/'), true),
            ("*.example.com/x", "evil.com/a.example.com/x", Some(b'/'), false),
            ("a*b", "aXbX", None, false),
        ] {
            assert_eq!(glob(pattern, text, separator), wanted, "{pattern} {text}");
        }
        // Whoever writes such a text must not cost time.
        assert!(!glob(&"a*".repeat(200), &"a".repeat(4000), Some(b'a')));
    }

    #[test]
    fn a_path_is_cleaned_and_one_that_goes_up_is_none() {
        for (path, clean) in [
            ("/srv/a", Some("/srv/a")),
            ("//srv/./a/", Some("/srv/a")),
            ("/", Some("/")),
            ("/srv/../etc", None),
            ("/..", None),
            ("srv/a", None),
            ("", None),
            ("/srv\0/a", None),
            ("/srv/..a", Some("/srv/..a")),
        ] {
            assert_eq!(clean_path(path).as_deref(), clean, "{path:?}");
        }
        for (dir, path, wanted) in [
            ("/srv/a", "/srv/a", true),
            ("/srv/a/", "/srv/a/b", true),
            ("/srv/a", "/srv/ab", false),
            ("/srv/a", "/srv", false),
            ("/", "/etc", true),
            ("srv", "/srv", false),
        ] {
            assert_eq!(is_below(dir, path), wanted, "{dir} {path}");
        }
    }

    #[test]
    fn an_image_is_compared_as_an_engine_reads_it() {
        for (pattern, image, wanted) in [
            ("busybox", "docker.io/library/busybox:1", true),
            ("docker.io/library/*", "busybox", true),
            ("docker.io/library/*", "index.docker.io/library/busybox", true),
            ("docker.io/library/*", "someone/busybox", false),
            ("docker.io/library/*", "localhost/library/busybox", false),
            ("docker.io/library/*", "registry.example.com/docker.io/library/busybox", false),
            ("docker.io/*", "docker.io/team/app", false),
            ("docker.io/**", "docker.io/team/app", true),
            ("team/*", "docker.io/team/app:2", true),
            ("team/*", "team.example.com/app", false),
            ("registry.example.com/team/**", "registry.example.com/team/a/b:1", true),
            ("registry.example.com/team/**", "registry.example.com/team-b/a", false),
            ("registry.example.com/team/**", "registry.example.com:5000/team/a", false),
            ("registry.example.com:5000/a", "registry.example.com:5000/a:1", true),
            ("postgres:16", "postgres:16", true),
            ("postgres:16", "postgres", false),
            ("postgres:latest", "postgres", true),
            ("postgres:16*", "postgres:16.4", true),
            // The tag is for people then, the digest decides.
            ("postgres:16", "postgres:16@sha256:00", false),
            ("postgres", "postgres:16@sha256:00", true),
            ("postgres@sha256:00", "postgres@sha256:00", true),
            // Engines look for a word of hexadecimal digits among the IDs of all their images.
            ("docker.io/library/*", "cafe", false),
            ("docker.io/library/*", "CAFE", false),
            ("docker.io/**", "sha256:cafe", false),
            ("docker.io/library/*", "docker.io/library/cafe", true),
            ("sha256:cafe*", "cafe01", true),
            ("*", "cafe", true),
        ] {
            assert_eq!(is_image(pattern, &Image::asked_for(image)), wanted, "{pattern} {image}");
        }
        assert_eq!(Image::asked_for("busybox").text(), "docker.io/library/busybox:latest");
    }

    #[test]
    fn a_user_with_a_group_is_another_one() {
        for (pattern, user, wanted) in [
            ("1000", "1000", true),
            ("1000", "1000:0", false),
            ("1000:*", "1000:0", true),
            ("1000:1000", "1000:1000", true),
            ("1000", "01000", false),
            ("app*", "app:root", false),
            ("*:*", "root", false),
            ("*", "root:root", true),
        ] {
            assert_eq!(is_user(pattern, user), wanted, "{pattern} {user}");
        }
    }
}
