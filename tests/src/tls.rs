//! A socket of this machine behind TLS, for those who show a certificate.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use tokio::net::{TcpListener, UnixStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// Ends with the value.
pub struct TlsProxy {
    address: SocketAddr,
    _runtime: Runtime,
}

impl TlsProxy {
    /// Serves `socket`. What a client needs is written into `certificates` as Docker's own command wants it (ca.pem, cert.pem,
    /// key.pem), and the certificate of an authority that has nothing to do with it (other-ca.pem).
    pub fn start(socket: PathBuf, certificates: &Path) -> Self {
        std::fs::create_dir(certificates).unwrap();
        let write = |name: &str, text: String| std::fs::write(certificates.join(name), text).unwrap();
        let authority = || {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).unwrap();
            (certificate, Issuer::new(params, key))
        };
        let (ca, issuer) = authority();
        write("ca.pem", ca.pem());
        write("other-ca.pem", authority().0.pem());
        let signed = |names: &[&str]| {
            let key = KeyPair::generate().unwrap();
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            (CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap(), key)
        };
        let (client, client_key) = signed(&["client"]);
        write("cert.pem", client.pem());
        write("key.pem", client_key.serialize_pem());

        let (server, server_key) = signed(&["127.0.0.1"]);
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![server.der().clone()], key)
            .unwrap();

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), socket));
        Self { address, _runtime: runtime }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, socket: PathBuf) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, socket) = (acceptor.clone(), socket.clone());
        tokio::spawn(async move {
            // Who is refused has heard why.
            let mut stream = acceptor.accept(stream).await?;
            let mut engine = UnixStream::connect(socket).await?;
            tokio::io::copy_bidirectional(&mut stream, &mut engine).await
        });
    }
}
