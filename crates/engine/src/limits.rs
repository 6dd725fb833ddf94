//! Requests that could never work are refused before they are sent: engines start the program's helper all the same
//! and then report what looks like the program's own exit code.

use crate::Error;

/// Linux: `MAX_ARG_STRLEN`, one argument or `NAME=value` with its final NUL.
const LONGEST_STRING: usize = 128 * 1024;
/// Linux allows a quarter of the stack limit (8 MiB by default) for all of them and their pointers. The rest is left
/// for what the engine itself adds to the environment.
const LARGEST_SUM: usize = 2 * 1024 * 1024 - 64 * 1024;

/// Checks a command line and its environment.
pub(crate) fn check(command: &[String], env: &[(String, String)]) -> Result<(), Error> {
    let mut sum = 0;
    let mut add = |what: &dyn Fn() -> String, length: usize| {
        sum += length + 1 + size_of::<usize>();
        if length + 1 > LONGEST_STRING {
            return refuse(format!("{} is {length} bytes long; Linux allows {} at most", what(), LONGEST_STRING - 1));
        }
        if sum > LARGEST_SUM {
            return refuse(format!("command line and environment together are longer than {LARGEST_SUM} bytes"));
        }
        Ok(())
    };
    for (index, argument) in command.iter().enumerate() {
        add(&|| format!("argument {index}"), argument.len())?;
    }
    for (name, value) in env {
        add(&|| format!("environment variable {name:?}"), name.len() + 1 + value.len())?;
    }
    for (index, argument) in command.iter().enumerate() {
        if argument.contains('\0') {
            return refuse(format!("argument {index} contains a NUL byte"));
        }
    }
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return refuse(format!("{name:?} is not a name of an environment variable"));
        }
        if value.contains('\0') {
            return refuse(format!("the value of the environment variable {name:?} contains a NUL byte"));
        }
    }
    Ok(())
}

/// Checks a container's name or ID before it becomes a part of a URL path.
pub(crate) fn check_reference(reference: &str) -> Result<(), Error> {
    if is_name(reference) { Ok(()) } else { refuse(format!("{reference:?} is not a container's name or ID")) }
}

/// The same for a network. `container:ID`, which would enter another container's network, is none.
pub(crate) fn check_network(name: &str) -> Result<(), Error> {
    if is_name(name) { Ok(()) } else { refuse(format!("{name:?} is not the name of a network")) }
}

/// The same for a volume: engines take a path in its place for a directory of their machine.
pub(crate) fn check_volume(name: &str) -> Result<(), Error> {
    if is_name(name) { Ok(()) } else { refuse(format!("{name:?} is not the name of a volume")) }
}

/// The same for an image: `[REGISTRY[:PORT]/]PATH[:TAG][@DIGEST]`, or an ID.
pub(crate) fn check_image(image: &str) -> Result<(), Error> {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':' | '@'))
    };
    if image.split('/').all(is_part) { Ok(()) } else { refuse(format!("{image:?} is not the name of an image")) }
}

/// What engines allow as a name. None of it has a meaning in a URL.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

pub(crate) fn refuse<T>(message: String) -> Result<T, Error> {
    Err(Error::InvalidRequest { message })
}

/// `NAME=value`, as the engines take it.
pub(crate) fn joined(env: &[(String, String)]) -> Vec<String> {
    env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(command: &[&str], env: &[(&str, &str)]) -> Option<String> {
        let command: Vec<_> = command.iter().map(|&argument| argument.to_owned()).collect();
        let env: Vec<_> = env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        check(&command, &env).err().map(|error| error.to_string())
    }

    #[test]
    fn an_ordinary_command_passes() {
        assert_eq!(refusal(&["sh", "-c", "exit 0", ""], &[("A", ""), ("B", "x=y")]), None);
    }

    #[test]
    fn the_longest_allowed_string_passes_and_one_more_byte_does_not() {
        assert_eq!(refusal(&["echo", &"a".repeat(128 * 1024 - 1)], &[]), None);
        assert!(refusal(&["echo", &"a".repeat(128 * 1024)], &[]).unwrap().contains("argument 1"));
        assert!(refusal(&["echo"], &[("BIG", &"a".repeat(128 * 1024 - 4))]).unwrap().contains("BIG"));
    }

    #[test]
    fn the_sum_of_all_is_bounded() {
        let long = "a".repeat(100_000);
        assert!(refusal(&vec![long.as_str(); 25], &[]).unwrap().contains("together"));
    }

    #[test]
    fn what_no_environment_can_hold_is_refused() {
        assert!(refusal(&["x"], &[("A=B", "c")]).unwrap().contains("A=B"));
        assert!(refusal(&["x"], &[("", "c")]).is_some());
        assert!(refusal(&["x"], &[("A", "c\0d")]).unwrap().contains("NUL"));
        assert!(refusal(&["a\0b"], &[]).unwrap().contains("NUL"));
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_url() {
        let bad = ["", "..", "../volumes/prune?x=", "a/../b", "a?b", "a#b", "a b", "-x", "a%2f", "a\n", "/etc", "a//b"];
        for check in [check_reference, check_network, check_volume, check_image] {
            for name in bad {
                assert!(check(name).is_err(), "{name:?}");
            }
            assert!(check("my_app-1.x").is_ok());
        }
        for check in [check_reference, check_network, check_volume] {
            assert!(check("a/b").is_err() && check("container:other").is_err());
        }
    }

    #[test]
    fn images_are_named_as_registries_name_them() {
        for image in ["postgres", "postgres:17", "localhost:5000/a/b_c:1.2-x", "ghcr.io/a/b@sha256:00ff", "sha256:00ff"]
        {
            assert!(check_image(image).is_ok(), "{image}");
        }
    }
}
