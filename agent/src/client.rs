//! Questions to controllers: each is asked in turn until one answers.

use std::sync::Arc;
use std::time::Duration;

use fleet::protocol::{Denial, Message, ProtocolError, paths, read};
use manifests::Sha256;
use reqwest::{Certificate, Identity, Response, StatusCode};
use url::Url;

use crate::names::Names;
use crate::pinned::Pinned;

/// How long a controller may take to connect, and to say something more.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait if a controller has too much to do and does not say how long.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Why a controller gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address, the certificates or the key cannot be used.
    #[error("cannot be used to ask controllers: {why}")]
    Unusable {
        /// What and why.
        why: String,
    },
    /// None could be reached.
    #[error("ask {url}")]
    Reach {
        /// The last one that was tried.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It refused.
    #[error("the controller refuses: {words}")]
    Refused {
        /// In its own words.
        words: String,
        /// With which status.
        status: StatusCode,
    },
    /// It has too much to do and asks to wait; what was asked was not looked at.
    #[error("the controller asks to wait for {} s: {words}", .after.as_secs())]
    Limited {
        /// In its own words.
        words: String,
        /// How long.
        after: Duration,
    },
    /// Its answer is not one.
    #[error("the controller's answer")]
    Answer(#[from] ProtocolError),
}

impl ClientError {
    /// Whether a controller does not know this host by its certificate: it ran out, or is not what it should be.
    pub fn is_about_the_certificate(&self) -> bool {
        use rustls::AlertDescription as Alert;
        match self {
            Self::Refused { status, .. } => *status == StatusCode::UNAUTHORIZED,
            // Of a certificate that ran out TLS says so, and no controller hears the question.
            Self::Reach { source, .. } => matches!(
                alert(source),
                Some(Alert::CertificateExpired | Alert::CertificateUnknown | Alert::BadCertificate)
            ),
            _ => false,
        }
    }

    /// Whether it is the controller's word, and not that none was heard.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { status, .. } => status.is_client_error(),
            Self::Limited { .. } => true,
            _ => false,
        }
    }
}

/// A connection to the controllers of a fleet.
pub struct Client {
    http: reqwest::Client,
    controllers: Vec<Url>,
}

fn unusable(why: impl ToString) -> ClientError {
    ClientError::Unusable { why: why.to_string() }
}

fn addresses(controllers: &[String]) -> Result<Vec<Url>, ClientError> {
    let address = |text: &String| {
        let url = Url::parse(text).map_err(|error| unusable(format_args!("{text}: {error}")))?;
        if url.scheme() != "https" {
            return Err(unusable(format_args!("{text}: expected https")));
        }
        Ok(url)
    };
    let controllers: Vec<Url> = controllers.iter().map(address).collect::<Result<_, _>>()?;
    if controllers.is_empty() { Err(unusable("no controller is named")) } else { Ok(controllers) }
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("update-agent/", env!("CARGO_PKG_VERSION")))
        .https_only(true)
        .no_proxy()
        .dns_resolver(Arc::new(Names))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(PATIENCE)
        .read_timeout(PATIENCE)
        // A new connection each time costs less than a thousand hosts' idle ones.
        .pool_max_idle_per_host(0)
}

impl Client {
    /// As a host with this key and certificate, of a fleet with this authority (PEM).
    ///
    /// # Errors
    /// [`ClientError::Unusable`].
    pub fn new(controllers: &[String], authority: &str, identity: Option<&str>) -> Result<Self, ClientError> {
        // Whoever comes second finds the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = Certificate::from_pem(authority.as_bytes()).map_err(unusable)?;
        let mut builder = builder().tls_certs_only([authority]);
        if let Some(pem) = identity {
            builder = builder.identity(Identity::from_pem(pem.as_bytes()).map_err(unusable)?);
        }
        Ok(Self { http: builder.build().map_err(unusable)?, controllers: addresses(controllers)? })
    }

    /// As nobody, believing one authority by its digest.
    ///
    /// # Errors
    /// [`ClientError::Unusable`].
    pub fn pinned(controller: &str, pinned: Arc<Pinned>) -> Result<Self, ClientError> {
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(unusable)?
                .dangerous()
                .with_custom_certificate_verifier(pinned)
                .with_no_client_auth();
        let http = builder().tls_backend_preconfigured(config).build().map_err(unusable)?;
        Ok(Self { http, controllers: addresses(&[controller.to_owned()])? })
    }

    /// Asks a question.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ask<A: Message>(&self, path: &str, question: &impl Message) -> Result<A, ClientError> {
        let body = serde_json::to_vec(question).map_err(unusable)?;
        self.answered(path, |url| self.http.post(url).body(body.clone())).await
    }

    /// Asks without saying anything.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<A: Message>(&self, path: &str) -> Result<A, ClientError> {
        self.answered(path, |url| self.http.get(url)).await
    }

    async fn answered<A: Message>(
        &self,
        path: &str,
        request: impl Fn(Url) -> reqwest::RequestBuilder,
    ) -> Result<A, ClientError> {
        let (response, url) = self.send(path, request).await?;
        Ok(read(&body(response, A::MAX_BYTES, &url).await?)?)
    }

    /// Content by its digest, from a byte on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn content(&self, digest: Sha256, from: u64) -> Result<(Response, u64), ClientError> {
        let (response, _) = self
            .send(&format!("{}{digest}", paths::CONTENT), |url| {
                let request = self.http.get(url);
                if from > 0 {
                    request.header(reqwest::header::RANGE, format!("bytes={from}-"))
                } else {
                    request
                }
            })
            .await?;
        let begins = if response.status() == StatusCode::PARTIAL_CONTENT { from } else { 0 };
        Ok((response, begins))
    }

    /// A document's envelope.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn document(&self, digest: Sha256, limit: usize) -> Result<Vec<u8>, ClientError> {
        let (response, _) = self.content(digest, 0).await?;
        let url = response.url().clone();
        body(response, limit, &url).await
    }

    /// The answer of the first controller that answers. One that refuses has answered.
    async fn send(
        &self,
        path: &str,
        request: impl Fn(Url) -> reqwest::RequestBuilder,
    ) -> Result<(Response, Url), ClientError> {
        let mut last = unusable("no controller is named");
        for controller in &self.controllers {
            let url = controller.join(path).map_err(unusable)?;
            match request(url.clone()).send().await {
                Ok(response) if response.status().is_success() => return Ok((response, url)),
                Ok(response) => {
                    let status = response.status();
                    let after = retry_after(&response);
                    let bytes = body(response, Denial::MAX_BYTES, &url).await.unwrap_or_default();
                    let words = read::<Denial>(&bytes)
                        .map_or_else(|_| format!("status {status}"), |denial| denial.error);
                    last = match status {
                        // Also no other is asked: whoever has too much to do is not helped by a second question.
                        StatusCode::TOO_MANY_REQUESTS => ClientError::Limited { words, after },
                        _ => ClientError::Refused { words, status },
                    };
                    if last.is_refusal() {
                        return Err(last);
                    }
                }
                Err(source) => last = ClientError::Reach { url: url.to_string(), source },
            }
        }
        Err(last)
    }
}

/// What the other side of TLS said when it broke off.
fn alert(error: &reqwest::Error) -> Option<rustls::AlertDescription> {
    let mut error: &(dyn std::error::Error + 'static) = error;
    loop {
        // An error of I/O keeps what it is made of to itself.
        let inner = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = tls.or_else(|| error.downcast_ref()) {
            return Some(*alert);
        }
        error = error.source()?;
    }
}

/// How long to wait, by an answer's own word; by ours if it has none that can be read.
fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get(reqwest::header::RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(RETRY_AFTER, Duration::from_secs)
}

async fn body(mut response: Response, limit: usize, url: &Url) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|source| ClientError::Reach { url: url.to_string(), source })?
    {
        if bytes.len() + chunk.len() > limit {
            return Err(unusable(format_args!("{url}: expected at most {limit} bytes, found more")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
