//! TLS: connections, and who is at their other end.
//!
//! TLS 1.3 alone, with ring. No resumption: it would skip expiry. A host shows its certificate; without one there is
//! enrolment, and people come with tokens. Each handshake has a time, and there are only so many connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use manifests::HostId;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::certificates::{CertificateError, host_of};

/// How long a handshake, or the head of a request, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many connections there are at once. Each costs some 16 kB.
const CONNECTIONS: usize = 4096;

/// How long those that are under way at the end may go on.
const FAREWELL: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// The host that showed a certificate of this fleet.
    pub(super) host: Option<HostId>,
    /// Where it comes from.
    pub(super) address: SocketAddr,
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificates cannot be used.
    #[error("the certificates cannot be used for TLS")]
    Rustls(#[from] rustls::Error),
    /// The authority of hosts cannot be used.
    #[error("the authority of hosts cannot be used")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The only place that chooses the cryptography of TLS.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What the server is to its clients.
///
/// # Errors
/// [`TlsError`].
pub fn config(
    authority: &CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone())?;
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves until `end` comes; whoever is under way then may finish.
pub(super) async fn serve(
    listener: TcpListener,
    config: ServerConfig,
    router: Router,
    end: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            accepted = async {
                let slot = slots.clone().acquire_owned().await;
                (listener.accept().await, slot)
            } => accepted,
        };
        let (Ok((stream, address)), Ok(slot)) = accepted else {
            // Out of descriptors: it passes when others close.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (acceptor, router, watcher) = (acceptor.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(error) = talk(stream, address, acceptor, router, watcher).await {
                tracing::debug!(%address, error, "a connection ended");
            }
        });
    }
    drop(listener);
    let _ = timeout(FAREWELL, graceful.shutdown()).await;
}

async fn talk(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), String> {
    let _ = stream.set_nodelay(true);
    let stream = match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(accepted) => accepted.map_err(|error| error.to_string())?,
        Err(_) => return Err("the handshake took too long".to_owned()),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let host = certificate.map(host_of).transpose().map_err(|error: CertificateError| error.to_string())?;
    let service = TowerToHyperService::new(router.layer(axum::Extension(Peer { host, address })));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    watcher.watch(connection).await.map_err(|error| error.to_string())
}
