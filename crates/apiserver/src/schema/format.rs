//! The `format` of a string, for the formats that Kubernetes checks and that are in use.

use base64::Engine;

/// Whether `text` has the format. Unknown formats hold everything, as in Kubernetes.
pub(super) fn holds(format: &str, text: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "uri" => text.parse::<http::Uri>().is_ok(),
        "duration" => is_go_duration(text),
        _ => true,
    }
}

/// `1h30m`, `1.5s`, `-2ms`: what Go's `time.ParseDuration` reads.
fn is_go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let Some((number, unit)) = rest.split_at_checked(end) else { return false };
        if number.parse::<f64>().is_err() {
            return false;
        }
        // `ms` starts with `m`: the unit must end where the next number begins.
        let ends = |after: &&str| after.chars().next().is_none_or(|c| !c.is_alphabetic());
        let mut afters = ["ns", "us", "µs", "ms", "s", "m", "h"].into_iter().filter_map(|one| unit.strip_prefix(one));
        let Some(after) = afters.find(ends) else { return false };
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for good in ["0", "1h30m", "1.5s", "-2ms", "10µs"] {
            assert!(holds("duration", good), "{good}");
        }
        for bad in ["", "1", "1 h", "h", "1d", "ms"] {
            assert!(!holds("duration", bad), "{bad}");
        }
    }
}
