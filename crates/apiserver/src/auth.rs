//! Who may ask: the holder of the token, or of the client certificate.

use std::path::Path;
use std::{fs, io};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use ring::hmac;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::files::write_private;

/// Everybody who is admitted is this one user.
pub(crate) const USER: &str = "oncelet:admin";

/// On a request: whoever sends it needs no token. Its connection showed a certificate of our authority that is meant for
/// clients, or it comes from within this process.
#[derive(Clone)]
pub(crate) struct Certified {
    /// Cancelled when the certificate is good for nothing any more.
    pub(crate) revoked: CancellationToken,
}

impl Certified {
    pub(crate) fn is_good(&self) -> bool {
        !self.revoked.is_cancelled()
    }
}

/// A bearer token. Not printable, so that it cannot reach a log.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// The token that this text is.
    pub fn new(token: String) -> Self {
        Self(token)
    }

    /// The token of the file `path`, made the first time: 256 random bits.
    pub(crate) fn kept(path: &Path) -> Result<Self, Error> {
        match fs::read_to_string(path) {
            Ok(kept) if kept.trim().len() >= 43 => return Ok(Self::new(kept.trim().to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::state(path, source)),
        }
        Self::renewed(path)
    }

    /// A new token in the file `path`.
    pub(crate) fn renewed(path: &Path) -> Result<Self, Error> {
        let token = Self::fresh()?;
        write_private(path, token.0.as_bytes()).map_err(|source| Error::state(path, source))?;
        Ok(token)
    }

    /// A token that ends with the process: 256 random bits, in memory alone.
    pub fn fresh() -> Result<Self, Error> {
        random_token().map(Self::new).map_err(Error::Tls)
    }

    /// Shows to somebody who has the token that this is one who has it too, without showing it to anybody: a keyed hash of the
    /// challenge. A challenge is used once.
    pub fn proof(&self, challenge: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes());
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, format!("oncelet proof {challenge}").as_bytes()))
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the request carries the token. Takes as long for a wrong token as for the right one.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::AUTHORIZATION).map_or(&[] as &[u8], |value| value.as_bytes());
        let Some((scheme, token)) = value.split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(token.trim_ascii().ct_eq(self.0.as_bytes()))
    }
}

fn random_token() -> Result<String, rustls::Error> {
    let mut bytes = [0u8; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
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

    #[test]
    fn a_proof_depends_on_the_token_and_on_the_challenge_and_shows_neither() {
        let (one, other) = (Token::fresh().unwrap(), Token::fresh().unwrap());
        assert_ne!(one.expose(), other.expose());
        let proof = one.proof("a");
        assert_eq!(proof, one.proof("a"));
        assert_ne!(proof, one.proof("b"));
        assert_ne!(proof, other.proof("a"));
        assert!(!proof.contains(one.expose()));
    }

    #[test]
    fn a_token_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let first = Token::kept(&path).unwrap();
        assert_eq!(first.expose().len(), 43);
        assert_eq!(Token::kept(&path).unwrap().expose(), first.expose());
    }
}
