//! A certificate authority of our own, and what it signs: the serving certificate, and one for clients that want no token.
//!
//! Authority and server have a certificate each because rustls refuses a CA that serves (`CaUsedAsEndEntity`). All are kept in the
//! state directory, so that a kubeconfig stays good across restarts.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::Error;
use crate::files::write_private;

const CA_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);
const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);
/// A certificate that ends sooner than this is renewed at the start.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Clients' clocks may be behind.
const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// What the server serves with, and what its clients trust.
pub(crate) struct Identity {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) ca_pem: String,
    pub(crate) client: ClientCertificate,
}

/// What a client may show instead of the token.
pub(crate) struct ClientCertificate {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// A certificate with its key, as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    certificate_pem: String,
    key_pem: String,
    /// Seconds since 1970.
    expires: i64,
    #[serde(default)]
    addresses: Vec<IpAddr>,
}

impl Kept {
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    fn write(&self, path: &Path) -> Result<(), Error> {
        let content = serde_json::to_vec_pretty(self).map_err(|source| Error::state(path, source.into()))?;
        write_private(path, &content).map_err(|source| Error::state(path, source))
    }

    fn lasts(&self, now: Timestamp) -> bool {
        self.expires > now.as_second() + RENEW_BEFORE.as_secs()
    }
}

/// Reads the identity from `state_dir`, making what is missing, about to expire or for another address.
pub(crate) fn identity(state_dir: &Path, listen: IpAddr, now: Timestamp) -> Result<Identity, Error> {
    let ca_path = state_dir.join("ca.json");
    let leaf_path = state_dir.join("serving.json");
    let (ca, fresh) = match Kept::read(&ca_path).filter(|ca| ca.lasts(now)) {
        Some(ca) => (ca, false),
        None => (make_ca(now)?, true),
    };
    if fresh {
        ca.write(&ca_path)?;
    }
    let kept_or_made = |path: &Path, purpose: Purpose, addresses: Vec<IpAddr>| {
        let usable = |leaf: &Kept| !fresh && leaf.lasts(now) && leaf.addresses == addresses;
        if let Some(leaf) = Kept::read(path).filter(usable) {
            return Ok(leaf);
        }
        let leaf = make_leaf(&ca, purpose, addresses, now)?;
        leaf.write(path)?;
        Ok(leaf)
    };
    let leaf = kept_or_made(&leaf_path, Purpose::Serve, addresses(listen))?;
    let Kept { certificate_pem, key_pem, .. } =
        kept_or_made(&state_dir.join("client.json"), Purpose::Authenticate, Vec::new())?;
    let config = server_config(&ca, &leaf)?;
    let client = ClientCertificate { certificate_pem, key_pem };
    Ok(Identity { config: Arc::new(config), ca_pem: ca.certificate_pem, client })
}

/// What a certificate is for. One for the one thing is no good for the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Serve,
    Authenticate,
}

/// The addresses of the serving certificate. `0.0.0.0` is none that a client could use.
fn addresses(listen: IpAddr) -> Vec<IpAddr> {
    let mut all = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    if !all.contains(&listen) && !listen.is_unspecified() {
        all.push(listen);
    }
    all
}

fn make_ca(now: Timestamp) -> Result<Kept, Error> {
    let mut params = params("oncelet CA", now, CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    // Python 3.13 refuses a CA that does not say what its key is for.
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().map_err(Error::certificate)?;
    let certificate = params.self_signed(&key).map_err(Error::certificate)?;
    Ok(Kept {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
        expires: (now + CA_LIFE).as_second(),
        addresses: Vec::new(),
    })
}

fn make_leaf(ca: &Kept, purpose: Purpose, addresses: Vec<IpAddr>, now: Timestamp) -> Result<Kept, Error> {
    let ca_key = KeyPair::from_pem(&ca.key_pem).map_err(Error::certificate)?;
    // The issuer's name and key identifier are what the leaf repeats of it.
    let mut issuer = params("oncelet CA", now, CA_LIFE);
    issuer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let issuer = Issuer::from_params(&issuer, ca_key);
    let name = if purpose == Purpose::Serve { "oncelet" } else { crate::auth::USER };
    let mut params = params(name, now, LEAF_LIFE);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    match purpose {
        Purpose::Authenticate => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        Purpose::Serve => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let name = "localhost".try_into().map_err(Error::certificate)?;
            params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
            params.subject_alt_names.push(SanType::DnsName(name));
        }
    }
    let key = KeyPair::generate().map_err(Error::certificate)?;
    let certificate = params.signed_by(&key, &issuer).map_err(Error::certificate)?;
    Ok(Kept {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
        expires: (now + LEAF_LIFE).as_second(),
        addresses,
    })
}

fn params(name: &str, now: Timestamp, life: SignedDuration) -> CertificateParams {
    let moment =
        |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = moment(now - BACKDATE);
    params.not_after = moment(now + life);
    params
}

fn server_config(ca: &Kept, leaf: &Kept) -> Result<ServerConfig, Error> {
    let chain = [leaf, ca].map(|kept| der(&kept.certificate_pem).map(CertificateDer::from));
    let chain = chain.into_iter().collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der(&leaf.key_pem)?));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(der(&ca.certificate_pem)?)).map_err(Error::Tls)?;
    // Who shows none needs the token.
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))?;
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(Error::Tls)?;
    let mut config = builder.with_client_cert_verifier(clients).with_single_cert(chain, key).map_err(Error::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn der(pem: &str) -> Result<Vec<u8>, Error> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).map_err(|_| Error::certificate(rcgen::Error::CouldNotParseCertificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn kept(dir: &Path) -> (String, String) {
        let pem = |name: &str| Kept::read(&dir.join(name)).unwrap().certificate_pem;
        (pem("ca.json"), pem("serving.json"))
    }

    #[test]
    fn an_identity_is_kept_while_it_lasts_and_renewed_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        identity(dir.path(), LISTEN, start).unwrap();
        let first = kept(dir.path());
        identity(dir.path(), LISTEN, start + SignedDuration::from_hours(24)).unwrap();
        assert_eq!(kept(dir.path()), first);
        identity(dir.path(), LISTEN, start + SignedDuration::from_hours(24 * 340)).unwrap();
        let renewed = kept(dir.path());
        assert_eq!(renewed.0, first.0, "the CA lasts, so clients go on trusting");
        assert_ne!(renewed.1, first.1);
    }

    #[test]
    fn another_address_gets_another_certificate_of_the_same_authority() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        identity(dir.path(), LISTEN, now).unwrap();
        let first = kept(dir.path());
        identity(dir.path(), "10.0.0.7".parse().unwrap(), now).unwrap();
        let second = kept(dir.path());
        assert_eq!(second.0, first.0);
        assert_ne!(second.1, first.1);
    }
}
