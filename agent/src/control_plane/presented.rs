//! The certificates that a server shows, for a message about them: of a handshake that ends there.

use std::iter;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::parse_x509_certificate;

use crate::web::unknown_critical;

/// The first certificate of `target`'s chain with a critical extension that rustls doesn't know, and that extension;
/// `None` where there is none, or no chain. To be bounded in time by the caller.
pub(super) async fn with_unknown_critical(target: SocketAddr, host: &str) -> Option<String> {
    let chain = chain(target, host).await?;
    chain.iter().find_map(|der| {
        let (_, certificate) = parse_x509_certificate(der).ok()?;
        let extension = unknown_critical(&certificate)?;
        // istiod's own has no subject.
        let subject = match certificate.subject().to_string() {
            subject if subject.is_empty() => format!("the one for {host}"),
            subject => subject,
        };
        Some(format!("{subject} has the critical extension {extension}"))
    })
}

async fn chain(target: SocketAddr, host: &str) -> Option<Vec<CertificateDer<'static>>> {
    let provider = Arc::new(default_provider());
    let witness = Arc::new(Witness {
        chain: OnceLock::new(),
        schemes: provider.signature_verification_algorithms.supported_schemes(),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let stream = TcpStream::connect(target).await.ok()?;
    // It fails by the witness's word, whatever the server is.
    let _ = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    witness.chain.get().cloned()
}

/// Takes note of the chain, and trusts nobody.
#[derive(Debug)]
struct Witness {
    chain: OnceLock<Vec<CertificateDer<'static>>>,
    schemes: Vec<SignatureScheme>,
}

const REFUSED: Error = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = iter::once(end_entity).chain(intermediates);
        self.chain
            .get_or_init(|| shown.map(|der| der.clone().into_owned()).collect());
        Err(REFUSED)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(REFUSED)
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(REFUSED)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
