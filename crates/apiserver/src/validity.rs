//! When a certificate is valid, as it says itself.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// From when until when something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

impl Validity {
    /// Reads the validity of a certificate in DER (RFC 5280, 4.1.2.5).
    pub(crate) fn read(certificate: &[u8]) -> Option<Self> {
        const SEQUENCE: u8 = 0x30;
        let (certificate, _) = element(certificate, SEQUENCE)?;
        let (mut rest, _) = element(certificate, SEQUENCE)?;
        // The version is missing in the oldest form.
        if let Some((_, after)) = element(rest, 0xa0) {
            rest = after;
        }
        // Serial number, algorithm, issuer.
        for tag in [0x02, SEQUENCE, SEQUENCE] {
            rest = element(rest, tag)?.1;
        }
        let (times, _) = element(rest, SEQUENCE)?;
        let (from, rest) = time(times)?;
        let (until, _) = time(rest)?;
        Some(Self { from, until })
    }

    pub(crate) fn holds(self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }

    /// When both hold.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }
}

/// The content of the element at the beginning, which has this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

fn time(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let (text, rest) = if let Some((text, rest)) = element(der, UTC_TIME) {
        let text = std::str::from_utf8(text).ok()?;
        let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
        (format!("{century}{text}"), rest)
    } else {
        let (text, rest) = element(der, GENERALIZED_TIME)?;
        (std::str::from_utf8(text).ok()?.to_owned(), rest)
    };
    let at = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some((at.to_zoned(TimeZone::UTC).ok()?.timestamp(), rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_certificate_says_when_it_is_valid() {
        for (from, until) in
            [(0, 1), (-3600, 4_000_000_000), (1_800_000_000, 2_524_607_999), (2_524_608_000, 99_999_999_999)]
        {
            let mut params = CertificateParams::default();
            params.not_before = OffsetDateTime::from_unix_timestamp(from).unwrap();
            params.not_after = OffsetDateTime::from_unix_timestamp(until).unwrap();
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let read = Validity::read(certificate.der()).unwrap();
            assert_eq!((read.from.as_second(), read.until.as_second()), (from, until));
            // No part of one is one, and none is a reason to panic.
            for length in 0..150 {
                assert_eq!(Validity::read(&certificate.der()[..length]), None);
            }
        }
    }
}
