//! A person's connection to a controller: one file says where it is, who they are, and whom to believe.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::protocol::Denial;
use manifests::bounded::{self, BoundedError};
use manifests::yaml::YamlError;
use reqwest::header::{CONNECTION, CONTENT_LENGTH};
use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Runtime};
use url::Url;

/// How long a controller may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest file of a person, and the largest answer.
const MAX_FILE: usize = 64 << 10;
const MAX_ANSWER: u64 = 256 << 20;

/// By which a controller that does not lead says who does: `https://NAME:PORT`.
pub const LEADER: &str = "update-leader";

/// Where a controller is and who asks: kept in a file that is its owner's alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The controller, `https://…`.
    pub controller: String,
    /// What shows who asks.
    pub token: String,
    /// The authority's certificate in PEM; no other is believed.
    pub authority: String,
}

/// Why a controller did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The account cannot be read.
    #[error("read the account {path}")]
    Account {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BoundedError,
    },
    /// It is not one.
    #[error("the account {path} is not valid")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Why.
        source: YamlError,
    },
    /// Its address or its authority is of no use.
    #[error("the account cannot be used: {why}")]
    Unusable {
        /// Why.
        why: String,
    },
    /// The controller cannot be reached, or somebody else answered.
    #[error("ask {url}")]
    Reach {
        /// What was asked.
        url: Url,
        /// Why it failed.
        source: reqwest::Error,
    },
    /// It refused, in its own words.
    #[error("{words}")]
    Refused {
        /// What it says.
        words: String,
        /// With which status.
        status: StatusCode,
    },
    /// A file cannot be read.
    #[error("read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its answer is not one of this version.
    #[error("the controller's answer cannot be read")]
    Answer(#[from] serde_json::Error),
}

impl Account {
    /// Reads an account.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn read(path: &Path) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Account { path: path.to_owned(), source };
        let file = std::fs::File::open(path)
            .map_err(|source| ClientError::File { path: path.to_owned(), source })?;
        let bytes = bounded::read(file, MAX_FILE).map_err(failed)?;
        manifests::yaml::from_slice(&bytes, MAX_FILE)
            .map_err(|source| ClientError::Yaml { path: path.to_owned(), source })
    }
}

/// A connection.
pub struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    base: Url,
    token: String,
}

impl Client {
    /// Makes ready to ask; nothing is asked yet.
    ///
    /// # Errors
    /// [`ClientError::Unusable`].
    pub fn new(account: &Account) -> Result<Self, ClientError> {
        let unusable = |why: String| ClientError::Unusable { why };
        let base = Url::parse(&account.controller).map_err(|error| unusable(error.to_string()))?;
        if base.scheme() != "https" {
            return Err(unusable(format!("expected an address of https, found {}", account.controller)));
        }
        let authority = Certificate::from_pem(account.authority.as_bytes())
            .map_err(|error| unusable(format!("its authority: {error}")))?;
        // Whoever comes second finds the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .tls_certs_only([authority])
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(PATIENCE)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { runtime, http, base, token: account.token.clone() })
    }

    /// Where it is.
    pub fn address(&self) -> &Url {
        &self.base
    }

    /// Asks for something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        Ok(serde_json::from_slice(&self.ask(Method::GET, path, None)?)?)
    }

    /// Asks for a text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn text(&self, path: &str) -> Result<String, ClientError> {
        Ok(String::from_utf8_lossy(&self.ask(Method::GET, path, None)?).into_owned())
    }

    /// Tells something.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, value: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(value)?;
        Ok(serde_json::from_slice(&self.ask(Method::POST, path, Some(body))?)?)
    }

    /// Hands a file in.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn put(&self, path: &str, file: &Path) -> Result<(), ClientError> {
        let failed = |source| ClientError::File { path: file.to_owned(), source };
        // Found first: whoever does not lead would not listen to the end of something large, and may not be heard.
        let leader = self.runtime.block_on(async {
            let health = self.http.get(join(&self.base, "/healthz").ok()?).send().await.ok()?;
            leader(&health)
        });
        let base = leader.unwrap_or_else(|| self.base.clone());
        self.send(&base, path, |url| {
            let opened = std::fs::File::open(file).map_err(failed)?;
            let size = opened.metadata().map_err(failed)?.len();
            let opened = tokio::fs::File::from_std(opened);
            let stream = tokio_util::io::ReaderStream::with_capacity(opened, 64 << 10);
            let body = reqwest::Body::wrap_stream(stream);
            // Whoever has it already does not listen to it, and ends the connection: nothing else may be asked over that.
            let request = self.http.put(url).header(CONNECTION, "close");
            Ok(request.header(CONTENT_LENGTH, size).body(body))
        })
        .map(drop)
    }

    fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, ClientError> {
        self.send(&self.base, path, |url| {
            let request = self.http.request(method.clone(), url);
            Ok(if let Some(body) = &body { request.body(body.clone()) } else { request })
        })
    }

    /// Sends a request; once more to the controller that leads, if the one that was asked does not. Both have shown
    /// certificates of the fleet's authority.
    fn send(
        &self,
        base: &Url,
        path: &str,
        request: impl Fn(Url) -> Result<RequestBuilder, ClientError>,
    ) -> Result<Vec<u8>, ClientError> {
        self.runtime.block_on(async {
            let url = join(base, path)?;
            let first = self.sent(request(url.clone())?, &url).await?;
            if let Some(url) = leader(&first).and_then(|leader| leader.join(path).ok())
                && let Ok(second) = self.sent(request(url.clone())?, &url).await
            {
                return read(second, &url).await;
            }
            read(first, &url).await
        })
    }

    async fn sent(&self, request: RequestBuilder, url: &Url) -> Result<Response, ClientError> {
        let sent = request.bearer_auth(&self.token).send().await;
        sent.map_err(|source| ClientError::Reach { url: url.clone(), source })
    }
}

fn join(base: &Url, path: &str) -> Result<Url, ClientError> {
    base.join(path).map_err(|error| ClientError::Unusable { why: error.to_string() })
}

/// Who leads, if whoever answered does not.
fn leader(response: &Response) -> Option<Url> {
    response.headers().get(LEADER)?.to_str().ok()?.parse().ok()
}

async fn read(mut response: Response, url: &Url) -> Result<Vec<u8>, ClientError> {
    let status = response.status();
    let mut bytes = Vec::new();
    let broken = |source| ClientError::Reach { url: url.clone(), source };
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > MAX_ANSWER {
            let words = format!("its answer has more than {MAX_ANSWER} bytes");
            return Err(ClientError::Refused { words, status });
        }
    }
    if status.is_success() {
        return Ok(bytes);
    }
    let words = match serde_json::from_slice::<Denial>(&bytes) {
        Ok(denial) => denial.error,
        Err(_) => format!("the controller answers with status {status}"),
    };
    Err(ClientError::Refused { words, status })
}
