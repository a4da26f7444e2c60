//! Whom to believe before there is a certificate: a fleet's authority, by the digest of its certificate.
//!
//! An operator hands the digest on together with the token. The server has to show the authority's certificate at the end of
//! its chain; from there on it is verified like any other.

use std::sync::{Arc, Mutex, PoisonError};

use manifests::Sha256;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Believes one authority, and keeps its certificate.
#[derive(Debug)]
pub struct Pinned {
    fingerprint: Sha256,
    provider: Arc<CryptoProvider>,
    authority: Mutex<Option<CertificateDer<'static>>>,
}

impl Pinned {
    /// Believes the authority whose certificate has this digest.
    pub fn new(fingerprint: Sha256) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Self { fingerprint, provider, authority: Mutex::default() })
    }

    /// The authority's certificate, once it was shown.
    pub fn authority(&self) -> Option<CertificateDer<'static>> {
        self.authority.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let last = intermediates.last().ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        if Sha256::of(last) != self.fingerprint {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        let mut roots = RootCertStore::empty();
        roots.add(last.clone().into_owned())?;
        let verified = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, &intermediates[..intermediates.len() - 1], name, ocsp, now)?;
        *self.authority.lock().unwrap_or_else(PoisonError::into_inner) = Some(last.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("expected TLS 1.3".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
