//! TLS: connections, and who is at their other end.
//!
//! TLS 1.3 alone, with ring. No resumption: it would skip expiry. A host shows its certificate; without one there is
//! enrolment, and people come with tokens. Each handshake, each head of a request and each wait of an answer has a time, and
//! there are only so many connections (`limits`).

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
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::limits::{By, Gate};
use crate::certificates::{CertificateError, host_of};

/// The most fields and bytes of the head of a request.
const HEAD_FIELDS: usize = 64;
const HEAD_BYTES: usize = 64 << 10;

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
    gate: &Arc<Gate>,
    router: Router,
    end: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let slots = Arc::new(Semaphore::new(gate.limits.connections));
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
        // Whoever has too many is closed at once: what cannot be answered need not be said.
        let Some(entered) = gate.enter(address.ip()) else { continue };
        let (acceptor, router, watcher) = (acceptor.clone(), router.clone(), graceful.watcher());
        let gate = gate.clone();
        tokio::spawn(async move {
            let _counted = (slot, entered);
            if let Err(error) = talk(stream, address, &gate, acceptor, router, watcher).await {
                tracing::debug!(%address, error, "a connection ended");
            }
        });
    }
    drop(listener);
    let _ = timeout(gate.limits.farewell, graceful.shutdown()).await;
}

async fn talk(
    stream: TcpStream,
    address: SocketAddr,
    gate: &Gate,
    acceptor: TlsAcceptor,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), String> {
    let _ = stream.set_nodelay(true);
    // Whoever does not take an answer is not waited for.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(gate.limits.silence));
    let accepted = timeout(gate.limits.handshake, acceptor.accept(Box::pin(stream))).await;
    let stream = accepted.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(|error| {
        gate.count(By::Handshake);
        format!("the handshake: {error}")
    })?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let host = certificate.map(host_of).transpose().map_err(|error: CertificateError| error.to_string())?;
    let service = TowerToHyperService::new(router.layer(axum::Extension(Peer { host, address })));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(gate.limits.head)
        .max_headers(HEAD_FIELDS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    watcher.watch(connection).await.map_err(|error| {
        if error.is_timeout() {
            gate.count(By::Head);
        }
        error.to_string()
    })
}
