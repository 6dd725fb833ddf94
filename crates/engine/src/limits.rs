//! Requests that could never work are refused before they are sent: engines start the program's helper all the same
//! and then report what looks like the program's own exit code.

use std::net::IpAddr;

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

/// A name under which others in a network find a container.
pub(crate) fn check_host_name(name: &str) -> Result<(), Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if begins && name.len() <= 253 && name.chars().all(fits) {
        Ok(())
    } else {
        refuse(format!("{name:?} is not a host name"))
    }
}

/// An absolute path, in a container or on the engine's machine.
pub(crate) fn check_path(path: &str) -> Result<(), Error> {
    if path.starts_with('/') && !path.contains(char::is_control) && path.split('/').all(|part| part != "..") {
        Ok(())
    } else {
        refuse(format!("{path:?} is not an absolute path without .."))
    }
}

/// The address of an interface; an empty one stands for all.
pub(crate) fn check_address(address: &str) -> Result<(), Error> {
    if address.is_empty() || address.parse::<IpAddr>().is_ok() {
        Ok(())
    } else {
        refuse(format!("{address:?} is not an IP address"))
    }
}

/// A label: keys are searched for as `KEY=VALUE`, and both are shown in lines.
pub(crate) fn check_label(key: &str, value: &str) -> Result<(), Error> {
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_graphic() && c != '=') {
        return refuse(format!("{key:?} is not the key of a label"));
    }
    if value.contains(char::is_control) {
        return refuse(format!("the value of the label {key} has a control character"));
    }
    Ok(())
}

/// A text that is handed on as it is.
pub(crate) fn check_text(what: &str, text: Option<&String>) -> Result<(), Error> {
    if text.is_some_and(|text| text.contains(char::is_control)) {
        return refuse(format!("the {what} has a control character"));
    }
    Ok(())
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
    fn what_a_reader_of_the_engine_would_misread_is_refused() {
        for bad in ["", "a b", "a\nb", "a\0b", "-a", "a/b", &"a".repeat(254)] {
            assert!(check_host_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_host_name("db_1.internal").is_ok());
        for bad in ["", "a", "/a\0b", "/a\nb", "/a/../b", "/.."] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        assert!(check_path("/var/lib/a b..c").is_ok());
        for bad in ["localhost", "0.0.0.0:80", "0.0.0.0/0", "1.2.3"] {
            assert!(check_address(bad).is_err(), "{bad:?}");
        }
        assert!(["", "127.0.0.1", "::1"].into_iter().all(|address| check_address(address).is_ok()));
        for (key, value) in [("", ""), ("a=b", ""), ("a b", ""), ("a\n", ""), ("a", "b\nc"), ("a", "b\0")] {
            assert!(check_label(key, value).is_err(), "{key:?} {value:?}");
        }
        assert!(check_label("traefik.http.routers.x.rule", "Host(`a`) && Path(`/ä`)").is_ok());
    }

    #[test]
    fn images_are_named_as_registries_name_them() {
        for image in ["postgres", "postgres:17", "localhost:5000/a/b_c:1.2-x", "ghcr.io/a/b@sha256:00ff", "sha256:00ff"]
        {
            assert!(check_image(image).is_ok(), "{image}");
        }
    }
}
