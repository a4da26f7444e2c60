//! Where a database is, as whom it is asked, and whom to believe that it is the one.
//!
//! An address is libpq's: `postgres://USER@HOST[:PORT][,HOST...]/NAME?sslmode=...`, with the same words for TLS. Three things
//! differ from libpq. A password in an address is refused, since everybody on the machine reads command lines. Without
//! `sslmode` a server over the network has to prove its name (`verify-full`). And `prefer` is refused: whoever stands in the
//! middle chooses what it means.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::DatabaseError;
use crate::server::tls::provider;

/// Where Debian's servers listen for their own machine.
const SOCKETS: &str = "/var/run/postgresql";

/// How long one server may take to accept a connection, and may leave what was sent unacknowledged.
const CONNECT: Duration = Duration::from_secs(5);

/// A database: where it is, as whom it is asked, whom to believe.
#[derive(Clone)]
pub struct Database {
    address: String,
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.address)
    }
}

/// What an address says of TLS, in libpq's words.
#[derive(Default)]
struct TlsWords {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Database {
    /// Reads an address. Files that it names for TLS are read, too; nobody is asked yet.
    ///
    /// # Errors
    /// [`DatabaseError::Address`], [`DatabaseError::File`].
    pub fn new(address: &str, password: Option<&str>) -> Result<Self, DatabaseError> {
        let (bare, words) = take_tls_words(address)?;
        let mut config: Config = bare.parse().map_err(|error| bad(system::error::with_causes(&error)))?;
        if config.get_password().is_some() {
            return Err(bad("expected no password in it, where everybody on this machine can read it"));
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host_path(SOCKETS);
        }
        if let Some(password) = password {
            config.password(password);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_application_name().is_none() {
            config.application_name("update-controller");
        }
        config.tcp_user_timeout(2 * CONNECT).keepalives_idle(2 * CONNECT);
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        let near = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let mode = words.mode.as_deref().unwrap_or(if near { "disable" } else { "verify-full" });
        config.ssl_mode(if mode == "disable" { SslMode::Disable } else { SslMode::Require });
        let tls = MakeRustlsConnect::new(client_config(mode, &words)?);
        Ok(Self { address: address.to_owned(), config, tls })
    }
}

fn bad(why: impl ToString) -> DatabaseError {
    DatabaseError::Address { why: why.to_string() }
}

/// The address without what it says of TLS, which the driver knows only half of.
fn take_tls_words(address: &str) -> Result<(String, TlsWords), DatabaseError> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| address.starts_with(scheme)) {
        return Err(bad("expected postgres://USER@HOST/NAME"));
    }
    let (bare, query) = address.split_once('?').unwrap_or((address, ""));
    let mut words = TlsWords::default();
    let mut others = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(|| bad(format_args!("expected {pair}=VALUE")))?;
        let slot = match name {
            "sslmode" => &mut words.mode,
            "sslrootcert" => &mut words.root,
            "sslcert" => &mut words.certificate,
            "sslkey" => &mut words.key,
            _ => {
                others.push(pair);
                continue;
            }
        };
        let value = percent_encoding::percent_decode_str(value).decode_utf8();
        *slot = Some(value.map_err(|_| bad(format_args!("{name}: expected UTF-8")))?.into_owned());
    }
    let bare = if others.is_empty() { bare.to_owned() } else { format!("{bare}?{}", others.join("&")) };
    Ok((bare, words))
}

fn client_config(mode: &str, words: &TlsWords) -> Result<ClientConfig, DatabaseError> {
    let failed = |error: rustls::Error| bad(system::error::with_causes(&error));
    let verifier: Arc<dyn ServerCertVerifier> = match mode {
        "disable" | "require" => Arc::new(Anybody),
        "verify-ca" => Arc::new(AnyName(by_file(words)?)),
        "verify-full" if words.root.is_none() => Arc::new(Verifier::new(provider()).map_err(failed)?),
        "verify-full" => by_file(words)?,
        other => {
            return Err(bad(format_args!(
                "sslmode: expected disable, require, verify-ca or verify-full, found {other}"
            )));
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (&words.certificate, &words.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let chain = certificates("the certificate", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(unusable("the key", key))?;
            builder.with_client_auth_cert(chain, key).map_err(failed)
        }
        _ => Err(bad("expected sslcert and sslkey, found one of them")),
    }
}

fn unusable<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
    path: &str,
) -> impl Fn(E) -> DatabaseError {
    move |source| DatabaseError::File { what, path: path.to_owned(), source: Box::new(source) }
}

fn certificates(what: &'static str, path: &str) -> Result<Vec<CertificateDer<'static>>, DatabaseError> {
    CertificateDer::pem_file_iter(Path::new(path))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unusable(what, path))
}

/// Whoever shows a certificate that leads to one of the file.
fn by_file(words: &TlsWords) -> Result<Arc<WebPkiServerVerifier>, DatabaseError> {
    let path = words.root.as_deref().ok_or_else(|| bad("expected sslrootcert=FILE with this sslmode"))?;
    let what = "the authority";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, path)? {
        roots.add(certificate).map_err(unusable(what, path))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(unusable(what, path))
}

/// `require`: encrypted, and nobody knows with whom.
#[derive(Debug)]
struct Anybody;

/// `verify-ca`: one of the authority's servers, whatever it is called.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The name is looked at last: everything else was right.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str) -> String {
        Database::new(address, None).err().unwrap_or_else(|| panic!("{address} was taken")).to_string()
    }

    #[test]
    fn a_server_over_the_network_has_to_prove_its_name_unless_the_address_says_otherwise() {
        let near = Database::new("postgres:///fleet", None).unwrap();
        assert_eq!(near.config.get_hosts(), [Host::Unix(SOCKETS.into())]);
        assert_eq!(near.config.get_ssl_mode(), SslMode::Disable);
        let far = Database::new("postgres://update@db.example.org/fleet?sslmode=require", None).unwrap();
        assert_eq!(far.config.get_ssl_mode(), SslMode::Require);
        let roots = "postgres://update@db.example.org/fleet?sslmode=verify-full&sslrootcert=/nowhere";
        let error = Database::new(roots, None).err().unwrap();
        assert!(matches!(error, DatabaseError::File { .. }), "{error}");
    }

    #[test]
    fn an_address_with_a_password_or_with_words_that_protect_nobody_is_refused() {
        assert!(refused("postgres://update:secret@db/fleet").contains("password"));
        assert!(refused("postgres://update@db/fleet?password=secret").contains("password"));
        assert!(!refused("postgres://update:secret@db:no/fleet").contains("secret"));
        assert!(refused("postgres://update@db/fleet?sslmode=prefer").contains("found prefer"));
        assert!(refused("postgres://update@db/fleet?sslmode=verify-ca").contains("sslrootcert"));
        assert!(refused("postgres://update@db/fleet?sslmode=require&sslcert=a").contains("sslkey"));
        assert!(refused("mysql://db/fleet").contains("postgres://"));
        assert!(refused("postgres://db/fleet?nonsense=1").contains("nonsense"));
    }
}
