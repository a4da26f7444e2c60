//! The fleet's own certificate authority: who the controller is to hosts, and who hosts are to it.
//!
//! The authority's key never leaves the controller's directory. Of what a host sends only its key is taken, an Ed25519 key that
//! has signed the request; who it is follows from the key alone ([`host_of`]). The server's certificate is made anew at each
//! start; hosts hold it against the authority's.

use std::path::Path;
use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use manifests::{HostId, Sha256, UtcTime};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use system::durable;

/// How long a host's certificate counts.
pub const HOST_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long the server's does; the program is started anew more often.
pub(crate) const SERVER_LIFE: Duration = Duration::from_secs(397 * 24 * 3600);

/// How long the authority's own does.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// Clocks of hosts may be behind by so much.
const BEFORE: Duration = Duration::from_secs(24 * 3600);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The authority's files cannot be read or written.
    #[error("the certificate authority in {directory}")]
    Io {
        /// Where it is.
        directory: String,
        /// Why.
        source: std::io::Error,
    },
    /// They are there and are not what this program writes.
    #[error("the certificate authority cannot be used: {0}")]
    Authority(#[from] rcgen::Error),
    /// The request is not one of a host.
    #[error("not a host's request: expected PKCS #10 in PEM, signed by an Ed25519 key, found {found}")]
    Request {
        /// What it is instead.
        found: String,
    },
    /// The certificate is not one that this program can read.
    #[error("a certificate without a key that can be read")]
    NoKey,
}

/// The authority.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
    der: CertificateDer<'static>,
}

impl CertificateAuthority {
    /// The authority in `directory`, made if there is none.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn open(directory: &Path, now: UtcTime) -> Result<Self, CertificateError> {
        let io = |source| CertificateError::Io { directory: directory.display().to_string(), source };
        let (key_path, pem_path) = (directory.join("ca.key"), directory.join("ca.pem"));
        // The certificate is written last: with it both are there.
        if !pem_path.exists() {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "update fleet");
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            lives(&mut params, now, AUTHORITY_LIFE);
            let certificate = params.self_signed(&key)?;
            durable::replace(&key_path, key.serialize_pem().as_bytes()).map_err(io)?;
            durable::replace(&pem_path, certificate.pem().as_bytes()).map_err(io)?;
        }
        let pem = std::fs::read_to_string(&pem_path).map_err(io)?;
        let key = KeyPair::from_pem(&std::fs::read_to_string(&key_path).map_err(io)?)?;
        let der = rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes())
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { issuer, pem, der })
    }

    /// By which people tell hosts whom to believe: the SHA-256 digest of its certificate.
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.der)
    }

    /// Until when it counts; nothing if its certificate does not say so in a way that can be read.
    pub fn until(&self) -> Option<UtcTime> {
        use x509_cert::der::Decode as _;
        let certificate = x509_cert::Certificate::from_der(&self.der).ok()?;
        let seconds = certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
        let until = jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
        Some(UtcTime::floor(until))
    }

    /// Its certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// A certificate for a server of these names and addresses, and its key.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn server(
        &self,
        names: &[String],
        now: UtcTime,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, "update-controller");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        lives(&mut params, now, SERVER_LIFE);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((vec![certificate.der().clone(), self.der.clone()], key))
    }

    /// A certificate for the host that has signed `request`; it and the authority's, in PEM.
    ///
    /// # Errors
    /// [`CertificateError::Authority`].
    pub fn host(&self, request: &HostRequest, now: UtcTime) -> Result<String, CertificateError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, request.host.to_string());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        lives(&mut params, now, HOST_LIFE);
        let certificate = params.signed_by(&request.csr.public_key, &self.issuer)?;
        Ok(certificate.pem() + &self.pem)
    }
}

/// A request that a host has signed.
pub struct HostRequest {
    csr: CertificateSigningRequestParams,
    /// Who asks.
    pub host: HostId,
    key: VerifyingKey,
}

impl HostRequest {
    /// Reads a request, and checks its signature.
    ///
    /// # Errors
    /// [`CertificateError::Request`].
    pub fn read(pem: &str) -> Result<Self, CertificateError> {
        let refuse = |found: String| CertificateError::Request { found };
        let csr =
            CertificateSigningRequestParams::from_pem(pem).map_err(|error| refuse(error.to_string()))?;
        // Of a curve a request may say what it likes; a key of this algorithm is 32 bytes and nothing else.
        if csr.public_key.algorithm() != &PKCS_ED25519 {
            return Err(refuse("a key of another type".to_owned()));
        }
        let bytes = <&[u8; 32]>::try_from(csr.public_key.der_bytes())
            .map_err(|_| refuse("a key of another length".to_owned()))?;
        let key = VerifyingKey::from_bytes(bytes).map_err(|error| refuse(error.to_string()))?;
        let host = HostId::new(Sha256::of(&csr.public_key.subject_public_key_info()));
        Ok(Self { csr, host, key })
    }

    /// Whether the same key has signed these bytes.
    pub fn signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(bytes, &signature).is_ok())
    }
}

/// Who has the key of a certificate, which somebody else has verified.
///
/// # Errors
/// [`CertificateError::NoKey`].
pub fn host_of(certificate: &CertificateDer<'_>) -> Result<HostId, CertificateError> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| CertificateError::NoKey)?;
    Ok(HostId::new(Sha256::of(&parsed.subject_public_key_info())))
}

fn lives(params: &mut CertificateParams, now: UtcTime, life: Duration) {
    let now = now.timestamp().as_second();
    let time = |second| {
        time::OffsetDateTime::from_unix_timestamp(second).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    };
    params.not_before = time(now - BEFORE.as_secs() as i64);
    params.not_after = time(now + life.as_secs() as i64);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> UtcTime {
        "2026-11-02T00:00:00Z".parse().unwrap()
    }

    fn request(key: &KeyPair) -> String {
        CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn an_authority_stays_the_same_and_a_host_is_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let first = CertificateAuthority::open(directory.path(), now()).unwrap();
        let again = CertificateAuthority::open(directory.path(), now()).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let request = HostRequest::read(&request(&key)).unwrap();
        assert_eq!(request.host, HostId::new(Sha256::of(&key.subject_public_key_info())));
        let chain = again.host(&request, now()).unwrap();
        let leaf: CertificateDer<'_> =
            rustls::pki_types::pem::PemObject::from_pem_slice(chain.as_bytes()).unwrap();
        assert_eq!(host_of(&leaf).unwrap(), request.host);
    }

    #[test]
    fn only_an_ed25519_key_that_signed_the_request_is_taken() {
        let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let refused = HostRequest::read(&request(&other)).err().unwrap().to_string();
        assert!(refused.contains("another type"), "{refused}");
        let good = request(&KeyPair::generate_for(&PKCS_ED25519).unwrap());
        let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
        let last = lines.len() - 2;
        let changed = if lines[last].starts_with('A') { "B" } else { "A" };
        lines[last].replace_range(0..1, changed);
        assert!(HostRequest::read(&lines.join("\n")).is_err(), "a changed signature");
        assert!(HostRequest::read("").is_err());
        assert!(
            HostRequest::read(
                "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
            )
            .is_err()
        );
    }
}
