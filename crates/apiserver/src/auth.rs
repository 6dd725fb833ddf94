//! Who may ask: the holder of the token, or of the client certificate.

use http::{HeaderMap, header};
use subtle::ConstantTimeEq;

/// Everybody who is admitted is this one user.
pub(crate) const USER: &str = "oncelet:admin";

/// On a request: its connection showed a certificate of our authority that is meant for clients.
#[derive(Clone, Copy)]
pub(crate) struct Certified;

/// The bearer token. Not printable, so that it cannot reach a log.
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn new(token: String) -> Self {
        Self(token)
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the request carries the token. Takes as long for a wrong token as for the right one.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
        let Some((scheme, token)) = value.split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(token.trim_ascii().ct_eq(self.0.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_right_bearer_token_is_admitted() {
        let token = Token::new("secret".to_owned());
        let admits = |value: &'static str| {
            token.admits(&HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]))
        };
        assert!(admits("Bearer secret"));
        assert!(admits("bearer secret"));
        for wrong in ["Bearer secre", "Bearer secrets", "Basic secret", "secret", "Bearer ", ""] {
            assert!(!admits(wrong), "{wrong}");
        }
        assert!(!token.admits(&HeaderMap::new()));
    }
}
