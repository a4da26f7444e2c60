//! HTTP and TLS: what the process without rights does.
//!
//! - TLS is rustls with ring, chosen in [`provider`] and nowhere else.
//! - A redirect is followed to the same scheme, host and port only: whoever may serve us may not send us elsewhere.
//! - No compression, no cookies, no proxy from the environment.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Proxy, Response, StatusCode};
use rustls::CertificateError;
use tokio::runtime::{Builder, Runtime};
use url::Url;

use repository::transport::file::Files;
use repository::transport::{Body, FetchError, Transport};

/// More redirects than this within one server are a loop.
const REDIRECTS: usize = 3;

/// The only place that chooses the cryptography of TLS.
fn provider() {
    // Whoever comes second finds the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// How to reach servers.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a server may be silent.
    pub silence: Duration,
    /// The proxy to go through.
    pub proxy: Option<Url>,
    /// Believe the certificate authorities of this file (PEM) and no others; else those of the system.
    pub authorities: Option<PathBuf>,
}

/// Speaks HTTP.
pub struct Http {
    runtime: Arc<Runtime>,
    client: Client,
    silence: Duration,
}

impl Http {
    /// A client.
    ///
    /// # Errors
    /// The authorities or the proxy cannot be used.
    pub fn new(options: &Options) -> io::Result<Self> {
        provider();
        let runtime = Arc::new(Builder::new_current_thread().enable_all().build()?);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let builder = || -> io::Result<ClientBuilder> {
            let builder = Client::builder()
                .user_agent(concat!("update/", env!("CARGO_PKG_VERSION")))
                .default_headers(headers.clone())
                .connect_timeout(options.silence)
                .read_timeout(options.silence)
                // They are followed below, where what they point to is looked at.
                .redirect(Policy::none())
                .no_proxy();
            match &options.proxy {
                Some(proxy) => Ok(builder.proxy(Proxy::all(proxy.as_str()).map_err(io::Error::other)?)),
                None => Ok(builder),
            }
        };
        let client = match &options.authorities {
            Some(path) => {
                let pem = std::fs::read(path)?;
                let certificates = Certificate::from_pem_bundle(&pem).map_err(io::Error::other)?;
                if certificates.is_empty() {
                    let what = format!("{}: expected certificates in PEM, found none", path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                builder()?.tls_certs_only(certificates).build().map_err(io::Error::other)?
            }
            // A host that has no authorities believes none; over plain HTTP it asks for none.
            None => match builder()?.build() {
                Ok(client) => client,
                Err(_) => builder()?.tls_certs_only([]).build().map_err(io::Error::other)?,
            },
        };
        Ok(Self { runtime, client, silence: options.silence })
    }

    fn send(&self, url: &Url, from: u64) -> io::Result<Response> {
        let mut request = self.client.get(url.clone());
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        self.runtime.block_on(async {
            match tokio::time::timeout(self.silence, request.send()).await {
                Ok(answer) => answer.map_err(plain),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer")),
            }
        })
    }
}

/// The innermost cause says most, and the address stands beside it already.
fn plain(error: reqwest::Error) -> io::Error {
    let mut source: &(dyn std::error::Error + 'static) = &error;
    loop {
        // One that an error of input and output is made of is no source of it.
        let carried = source.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        source = match carried {
            Some(carried) => carried,
            None => match source.source() {
                Some(deeper) => deeper,
                None => break,
            },
        };
    }
    match source.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => io::Error::other(format!("{source}: expected one by an authority that is believed here")),
        _ => io::Error::other(source.to_string()),
    }
}

impl Transport for Http {
    fn open(&self, url: &Url, from: u64) -> Result<Option<Body>, FetchError> {
        if url.scheme() == "file" {
            return Files.open(url, from);
        }
        if !["http", "https"].contains(&url.scheme()) {
            return Err(FetchError::Scheme { url: url.clone() });
        }
        let mut at = url.clone();
        for _ in 0..=REDIRECTS {
            let response =
                self.send(&at, from).map_err(|source| FetchError::Io { url: at.clone(), source })?;
            let status = response.status();
            if status.is_redirection()
                && let Some(to) = response.headers().get(LOCATION)
            {
                let to = String::from_utf8_lossy(to.as_bytes()).into_owned();
                match at.join(&to) {
                    Ok(next) if next.origin() == url.origin() => at = next,
                    _ => return Err(FetchError::Elsewhere { from: at.to_string(), to }),
                }
                continue;
            }
            return self.body(&at, from, response);
        }
        Err(FetchError::Elsewhere { from: url.to_string(), to: format!("{at}, and on and on") })
    }
}

impl Http {
    fn body(&self, url: &Url, from: u64, response: Response) -> Result<Option<Body>, FetchError> {
        let body = |from, response| {
            let bytes = Chunks {
                runtime: self.runtime.clone(),
                response,
                silence: self.silence,
                chunk: Vec::new(),
                at: 0,
            };
            Ok(Some(Body { from, bytes: Box::new(bytes) }))
        };
        match response.status() {
            // A server that knows no ranges sends all of it.
            StatusCode::OK => body(0, response),
            StatusCode::PARTIAL_CONTENT => {
                let found = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                let found = found.unwrap_or("no Content-Range").to_owned();
                match found.starts_with(&format!("bytes {from}-")) {
                    true => body(from, response),
                    false => Err(FetchError::Range { url: url.clone(), expected: from, found }),
                }
            }
            // Nothing comes after what we have; who asked will see whether that is all.
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
                Ok(Some(Body { from, bytes: Box::new(io::empty()) }))
            }
            // Object stores say 403 of what is not there to whoever may not list.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Ok(None),
            status => Err(FetchError::Status { url: url.clone(), status: status.as_u16() }),
        }
    }
}

/// The body of an answer, as it comes.
struct Chunks {
    runtime: Arc<Runtime>,
    response: Response,
    silence: Duration,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            let next = self.runtime.block_on(async {
                match tokio::time::timeout(self.silence, self.response.chunk()).await {
                    Ok(chunk) => chunk.map_err(plain),
                    Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the server fell silent")),
                }
            })?;
            match next {
                None => return Ok(0),
                Some(bytes) => (self.chunk, self.at) = (bytes.to_vec(), 0),
            }
        }
        let read = (self.chunk.len() - self.at).min(buffer.len());
        buffer[..read].copy_from_slice(&self.chunk[self.at..self.at + read]);
        self.at += read;
        Ok(read)
    }
}
