//! A certificate authority of our own, and what it signs: the serving certificate, and one for clients that want no token.
//!
//! Authority and server have a certificate each because rustls refuses a CA that serves (`CaUsedAsEndEntity`). All are kept in the
//! state directory, so that a kubeconfig stays good across restarts, and each is made anew when it is not good any more, or not
//! yet: the clock was ahead once. What is good is read from the certificates themselves.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::Error;
use crate::files::write_private;
use crate::validity::Validity;

const CA_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3650);
const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);
/// A certificate that ends sooner than this is made anew.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Clients' clocks may be behind, and so may ours be after it was ahead by the distance to another time zone.
const BACKDATE: SignedDuration = SignedDuration::from_hours(24);

/// What the server serves with, and what its clients trust.
pub(crate) struct Identity {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) pems: Pems,
    /// It is to be made anew outside of these times.
    pub(crate) good: Validity,
}

/// What a client needs: the authority to trust, and what it may show instead of the token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pems {
    pub(crate) ca: String,
    pub(crate) client_certificate: String,
    pub(crate) client_key: String,
}

/// A certificate with its key, as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    certificate_pem: String,
    key_pem: String,
    /// Seconds since 1970; for earlier releases.
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

    fn certificate(&self) -> Option<CertificateDer<'static>> {
        der(&self.certificate_pem).ok().map(CertificateDer::from)
    }

    fn validity(&self) -> Option<Validity> {
        Validity::read(&self.certificate()?)
    }

    /// When it may be used without being made anew.
    fn good(&self) -> Option<Validity> {
        let Validity { from, until } = self.validity()?;
        Some(Validity { from, until: until.saturating_sub(RENEW_BEFORE).ok()? })
    }

    fn is_good(&self, now: Timestamp) -> bool {
        KeyPair::from_pem(&self.key_pem).is_ok() && self.good().is_some_and(|good| good.holds(now))
    }

    /// Whether a client or the server would take it, which trusts `ca`.
    fn is_taken(&self, ca: &Kept, purpose: Purpose, now: Timestamp) -> bool {
        let taken = || {
            let (provider, roots) = (provider(), Arc::new(roots(ca).ok()?));
            let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().ok()?));
            let certificate = self.certificate()?;
            match purpose {
                Purpose::Serve => {
                    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build().ok()?;
                    let name = ServerName::try_from("localhost").ok()?;
                    verifier.verify_server_cert(&certificate, &[], &name, &[], now).ok().map(drop)
                }
                Purpose::Authenticate => {
                    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().ok()?;
                    verifier.verify_client_cert(&certificate, &[], now).ok().map(drop)
                }
            }
        };
        taken().is_some()
    }
}

/// The files in a state directory.
struct Files {
    ca: PathBuf,
    serving: PathBuf,
    client: PathBuf,
}

impl Files {
    fn of(state_dir: &Path) -> Self {
        let file = |name: &str| state_dir.join(name);
        Self { ca: file("ca.json"), serving: file("serving.json"), client: file("client.json") }
    }

    fn each(self) -> [PathBuf; 3] {
        [self.ca, self.serving, self.client]
    }
}

/// Reads the identity from `state_dir`, making anew what is missing, damaged, not valid yet, about to expire, of another
/// authority or for another address.
pub(crate) fn identity(state_dir: &Path, listen: IpAddr, now: Timestamp) -> Result<Identity, Error> {
    let files = Files::of(state_dir);
    let ca = if let Some(ca) = Kept::read(&files.ca).filter(|ca| ca.is_good(now)) {
        ca
    } else {
        let ca = make_ca(now)?;
        say(&files.ca, now);
        ca.write(&files.ca)?;
        ca
    };
    let kept_or_made = |path: &Path, purpose: Purpose, addresses: Vec<IpAddr>| {
        let usable = |leaf: &Kept| leaf.is_good(now) && leaf.addresses == addresses && leaf.is_taken(&ca, purpose, now);
        if let Some(leaf) = Kept::read(path).filter(usable) {
            return Ok(leaf);
        }
        let leaf = make_leaf(&ca, purpose, addresses, now)?;
        say(path, now);
        // It is good for this run all the same: after a rotation a full disk must not keep the old ones in force.
        if let Err(error) = leaf.write(path) {
            tracing::warn!(%error, "the new certificate is not kept");
        }
        Ok(leaf)
    };
    let leaf = kept_or_made(&files.serving, Purpose::Serve, addresses(listen))?;
    let client = kept_or_made(&files.client, Purpose::Authenticate, Vec::new())?;
    let config = Arc::new(server_config(&ca, &leaf)?);
    let good = [&ca, &leaf, &client].into_iter().filter_map(Kept::good).reduce(Validity::and);
    let good = good.unwrap_or(Validity { from: Timestamp::MIN, until: Timestamp::MAX });
    Ok(Identity { config, pems: pems(ca, client), good })
}

fn pems(ca: Kept, client: Kept) -> Pems {
    Pems { ca: ca.certificate_pem, client_certificate: client.certificate_pem, client_key: client.key_pem }
}

/// Tells why a certificate is made anew.
fn say(path: &Path, now: Timestamp) {
    let Some(kept) = Kept::read(path) else { return };
    let file = path.display();
    match kept.validity() {
        None => tracing::warn!(%file, "the certificate cannot be read, and is made anew"),
        Some(Validity { from, .. }) if from > now => {
            tracing::warn!(%file, "the certificate is valid from {from} and it is {now} now: the clock was ahead once. It is made anew");
        }
        Some(Validity { until, .. }) => tracing::info!(%file, "the certificate, valid until {until}, is made anew"),
    }
}

/// Makes a new authority and a new client certificate. Whatever was signed by the old one is taken by nobody from then on.
/// Returns the old authority beside what is new.
pub(crate) fn rotate(state_dir: &Path, now: Timestamp) -> Result<(Option<String>, Pems), Error> {
    let files = Files::of(state_dir);
    let old = Kept::read(&files.ca).map(|ca| ca.certificate_pem);
    let ca = make_ca(now)?;
    let client = make_leaf(&ca, Purpose::Authenticate, Vec::new(), now)?;
    // The others are of the old authority from here on, which is seen in them wherever this is interrupted.
    ca.write(&files.ca)?;
    client.write(&files.client)?;
    Ok((old, pems(ca, client)))
}

/// A certificate of a state directory.
#[derive(Debug)]
pub struct Certificate {
    /// What it is for.
    pub what: &'static str,
    /// When it is valid, from and until; `None` where the file is damaged.
    pub valid: Option<(Timestamp, Timestamp)>,
}

/// The certificates that are kept in `state_dir`.
pub fn certificates(state_dir: &Path) -> Vec<Certificate> {
    let what = ["authority", "serving certificate", "client certificate"];
    let there = what.into_iter().zip(Files::of(state_dir).each()).filter(|(_, path)| path.exists());
    there
        .map(|(what, path)| {
            let valid = Kept::read(&path).and_then(|kept| kept.validity());
            Certificate { what, valid: valid.map(|it| (it.from, it.until)) }
        })
        .collect()
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
        expires: now.as_second().saturating_add(CA_LIFE.as_secs()),
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
        expires: now.as_second().saturating_add(LEAF_LIFE.as_secs()),
        addresses,
    })
}

fn params(name: &str, now: Timestamp, life: SignedDuration) -> CertificateParams {
    let moment = |at: Result<Timestamp, jiff::Error>| {
        let second = at.unwrap_or(now).as_second();
        OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = moment(now.saturating_sub(BACKDATE));
    params.not_after = moment(now.saturating_add(life));
    params
}

fn server_config(ca: &Kept, leaf: &Kept) -> Result<ServerConfig, Error> {
    let chain = [leaf, ca].map(|kept| der(&kept.certificate_pem).map(CertificateDer::from));
    let chain = chain.into_iter().collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der(&leaf.key_pem)?));
    let provider = provider();
    // Who shows none needs the token.
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))?;
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(Error::Tls)?;
    let mut config = builder.with_client_cert_verifier(clients).with_single_cert(chain, key).map_err(Error::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(ca: &Kept) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(der(&ca.certificate_pem)?)).map_err(Error::Tls)?;
    Ok(roots)
}

fn der(pem: &str) -> Result<Vec<u8>, Error> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).map_err(|_| Error::certificate(rcgen::Error::CouldNotParseCertificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn kept(dir: &Path) -> [String; 3] {
        Files::of(dir).each().map(|file| Kept::read(&file).unwrap().certificate_pem)
    }

    fn start() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn days(count: i64) -> SignedDuration {
        SignedDuration::from_hours(24 * count)
    }

    fn make(dir: &Path, now: Timestamp) -> Identity {
        identity(dir, LISTEN, now).unwrap()
    }

    #[test]
    fn an_identity_is_kept_while_it_lasts_and_renewed_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let good = make(dir.path(), start()).good;
        assert_eq!((good.from, good.until), (start() - days(1), start() + days(335)));
        let first = kept(dir.path());
        make(dir.path(), start() + days(1));
        assert_eq!(kept(dir.path()), first);
        make(dir.path(), start() + days(340));
        let renewed = kept(dir.path());
        assert_eq!(renewed[0], first[0], "the CA lasts, so clients go on trusting");
        assert!(renewed[1] != first[1] && renewed[2] != first[2]);
    }

    #[test]
    fn another_address_gets_another_certificate_of_the_same_authority() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), start());
        let first = kept(dir.path());
        identity(dir.path(), "10.0.0.7".parse().unwrap(), start()).unwrap();
        let second = kept(dir.path());
        assert_eq!(second[0], first[0]);
        assert_ne!(second[1], first[1]);
    }

    /// The clock was wrong in either direction, for any time: what was made then is of no use, and nothing stays broken.
    #[test]
    fn what_is_not_valid_now_is_made_anew_with_all_that_depends_on_it() {
        for (was, all_anew) in [
            (days(2), true),
            (days(365 * 73), true),
            (days(-400), false),
            (days(-365 * 20), true),
            (days(-20_000), true),
        ] {
            let dir = tempfile::tempdir().unwrap();
            make(dir.path(), start() + was);
            let first = kept(dir.path());
            let good = make(dir.path(), start()).good;
            assert!(good.holds(start()));
            let second = kept(dir.path());
            assert_eq!(first[0] != second[0], all_anew, "{was}");
            assert!(first[1] != second[1] && first[2] != second[2], "{was}");
        }
        // A clock that was ahead by a few hours makes nothing anew.
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), start() + SignedDuration::from_hours(14));
        let first = kept(dir.path());
        make(dir.path(), start());
        assert_eq!(kept(dir.path()), first);
    }

    #[test]
    fn what_is_damaged_or_of_another_authority_is_made_anew() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(other.path(), start());
        for file in ["ca.json", "serving.json", "client.json"] {
            make(dir.path(), start());
            let path = dir.path().join(file);
            let whole = fs::read_to_string(&path).unwrap();
            let in_certificate = whole.replacen("MII", "AAA", 1);
            let foreign = fs::read_to_string(other.path().join(file)).unwrap();
            for content in ["", "{}", &in_certificate, &foreign] {
                fs::write(&path, content).unwrap();
                let pems = make(dir.path(), start()).pems;
                let [ca, serving, client] = Files::of(dir.path()).each().map(|file| Kept::read(&file).unwrap());
                assert!(serving.is_taken(&ca, Purpose::Serve, start()), "{file} {content}");
                assert!(client.is_taken(&ca, Purpose::Authenticate, start()), "{file} {content}");
                assert_eq!(pems.ca, ca.certificate_pem);
            }
        }
    }

    #[test]
    fn nothing_of_an_old_authority_is_taken_after_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let before = make(dir.path(), start()).pems;
        let [_, _, old_client] = Files::of(dir.path()).each().map(|file| Kept::read(&file).unwrap());
        let (old, new) = rotate(dir.path(), start()).unwrap();
        assert_eq!(old, Some(before.ca.clone()));
        let after = make(dir.path(), start()).pems;
        assert!(after == new && after != before);
        let [ca, serving, client] = Files::of(dir.path()).each().map(|file| Kept::read(&file).unwrap());
        assert!(!old_client.is_taken(&ca, Purpose::Authenticate, start()));
        assert!(client.is_taken(&ca, Purpose::Authenticate, start()));
        assert!(serving.is_taken(&ca, Purpose::Serve, start()));
        // One is no good for what the other is for.
        assert!(!client.is_taken(&ca, Purpose::Serve, start()));
    }

    #[test]
    fn a_person_can_see_when_each_certificate_is_valid() {
        let dir = tempfile::tempdir().unwrap();
        assert!(certificates(dir.path()).is_empty());
        make(dir.path(), start());
        fs::write(dir.path().join("client.json"), "{").unwrap();
        let found: Vec<_> = certificates(dir.path()).into_iter().map(|it| (it.what, it.valid)).collect();
        assert_eq!(found[0], ("authority", Some((start() - days(1), start() + days(3650)))));
        assert_eq!(found[1], ("serving certificate", Some((start() - days(1), start() + days(365)))));
        assert_eq!(found[2], ("client certificate", None));
    }
}
