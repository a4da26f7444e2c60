//! A server that keeps metrics, asked as Prometheus is: `POST api/v1/query`, one instant vector with a number for each host.
//!
//! What answers is believed in nothing but numbers: they can make a rollout wait or pause, and nothing else. Its answer
//! is bounded in time and size, no redirect is followed, and what is strange about it is said and is no number.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::rollout::Unanswered;
use manifests::bounded;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, StatusCode};
use serde::Deserialize;
use url::{Host, Url};

/// How long one question may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes of an answer: a hundred thousand hosts with labels of usual length.
pub const MAX_ANSWER: u64 = 16 << 20;

/// The most bytes of a token, and of a file of authorities.
const MAX_TOKEN: usize = 16 << 10;
const MAX_AUTHORITIES: usize = 1 << 20;

/// Whom to ask, and how.
#[derive(Debug, Clone)]
pub struct Asking {
    /// Where it is: `https://…`, or `http://` on this machine. What its paths begin with belongs to it.
    pub address: String,
    /// The file with the token that it wants to see, read anew for each question.
    pub token: Option<PathBuf>,
    /// Believe the authorities of this file (PEM), and no others; else those of the system.
    pub authorities: Option<PathBuf>,
    /// The label that names a host.
    pub label: String,
    /// How long one question may take, from the connection to the last byte.
    pub patience: Duration,
}

/// Why it cannot be asked like this.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// No address of one.
    #[error("{address}: {why}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No label.
    #[error("expected the name of a label (letters, digits, underscores), found {label:?}")]
    Label {
        /// What was given.
        label: String,
    },
    /// A file cannot be used.
    #[error("read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be spoken.
    #[error("make ready to ask {address}")]
    Client {
        /// Whom.
        address: String,
        /// Why.
        source: reqwest::Error,
    },
}

/// A server that can be asked.
#[derive(Debug, Clone)]
pub struct Prometheus {
    client: Client,
    url: Url,
    token: Option<PathBuf>,
    label: String,
}

/// What kind of answer it is; what else is in it is not looked at.
#[derive(Deserialize)]
struct Kind {
    status: String,
    #[serde(default)]
    data: Option<KindOfData>,
}

#[derive(Deserialize)]
struct KindOfData {
    #[serde(rename = "resultType")]
    result: String,
}

/// An answer that is a vector.
#[derive(Deserialize)]
struct Vector {
    data: Found,
}

#[derive(Deserialize)]
struct Found {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    /// When, and a number in words; nothing of a histogram.
    #[serde(default)]
    value: Option<(f64, String)>,
}

impl Prometheus {
    /// Makes ready to ask; nothing is asked yet.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn new(asking: &Asking) -> Result<Self, Unusable> {
        let url = address(&asking.address)?;
        let mut letters = asking.label.chars();
        let begins = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !begins || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            return Err(Unusable::Label { label: asking.label.clone() });
        }
        // Whoever comes second finds the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder()
            .user_agent(concat!("update-controller/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            .timeout(asking.patience);
        let builder = match &asking.authorities {
            Some(path) => builder.tls_certs_only(authorities(path)?),
            None => builder,
        };
        let failed = |source| Unusable::Client { address: asking.address.clone(), source };
        let client = builder.build().map_err(failed)?;
        let this = Self { client, url, token: asking.token.clone(), label: asking.label.clone() };
        this.token()?;
        Ok(this)
    }

    fn token(&self) -> Result<Option<String>, Unusable> {
        let Some(path) = &self.token else { return Ok(None) };
        let text = String::from_utf8(read(path, MAX_TOKEN)?).unwrap_or_default();
        let token = text.trim();
        match token.is_empty() || token.contains(|letter: char| !letter.is_ascii_graphic()) {
            true => Err(Unusable::File {
                path: path.clone(),
                source: io::Error::new(io::ErrorKind::InvalidData, "expected a token in one line of ASCII"),
            }),
            false => Ok(Some(token.to_owned())),
        }
    }

    /// Asks for one number of each host: what its label says, and the numbers under that.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn ask(&self, query: &str) -> Result<Vec<(String, f64)>, Unanswered> {
        let token = self.token().map_err(|error| {
            tracing::warn!(error = system::error::with_causes(&error), "metrics are not asked for");
            Unanswered::Unreachable
        })?;
        let form: String =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        let request = self
            .client
            .post(self.url.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let failed = |error: reqwest::Error| {
            tracing::debug!(error = system::error::with_causes(&error), "metrics are not there");
            if error.is_timeout() { Unanswered::Late } else { Unanswered::Unreachable }
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        match status {
            StatusCode::OK => {}
            // So it says that it cannot read or carry out what was asked.
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => return Err(Unanswered::Refused),
            _ => return Err(Unanswered::Status { code: status.as_u16() }),
        }
        let bytes = whole(&mut response).await.map_err(|error| error.map_or(TOO_LARGE, failed))?;
        self.read(&bytes)
    }

    /// What an answer says.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn read(&self, bytes: &[u8]) -> Result<Vec<(String, f64)>, Unanswered> {
        let kind: Kind = serde_json::from_slice(bytes).map_err(|_| Unanswered::Strange)?;
        match (kind.status.as_str(), kind.data.as_ref().map(|data| data.result.as_str())) {
            ("success", Some("vector")) => {}
            ("success", Some("scalar" | "string" | "matrix")) => return Err(Unanswered::NotAVector),
            ("error", _) => return Err(Unanswered::Refused),
            _ => return Err(Unanswered::Strange),
        }
        let vector: Vector = serde_json::from_slice(bytes).map_err(|_| Unanswered::Strange)?;
        let series = vector.data.result;
        let nameless = !series.is_empty();
        let mut numbers = Vec::with_capacity(series.len());
        for Series { mut metric, value } in series {
            let (_, number) = value.ok_or(Unanswered::NotAVector)?;
            let number: f64 = number.parse().map_err(|_| Unanswered::Strange)?;
            // One of something else than a host.
            let Some(name) = metric.remove(&self.label) else { continue };
            numbers.push((name, number));
        }
        match numbers.is_empty() && nameless {
            true => Err(Unanswered::Nameless),
            false => Ok(numbers),
        }
    }
}

const TOO_LARGE: Unanswered = Unanswered::TooLarge { limit: MAX_ANSWER };

/// All bytes of an answer; no error if they are too many.
async fn whole(response: &mut Response) -> Result<Vec<u8>, Option<reqwest::Error>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Some)? {
        if (bytes.len() + chunk.len()) as u64 > MAX_ANSWER {
            return Err(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The address of its queries.
fn address(text: &str) -> Result<Url, Unusable> {
    let refuse = |why| Unusable::Address { address: text.to_owned(), why };
    let mut url = Url::parse(text)
        .map_err(|_| refuse("expected an address, such as https://prometheus.example.org"))?;
    let here = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if here => {}
        "http" => return Err(refuse("expected https; http is for what runs on this machine")),
        _ => return Err(refuse("expected https, or http on this machine")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("expected no password in it: put a token into the file of --prometheus-token"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("expected no query and no fragment: they are made here"));
    }
    let path = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn read(path: &Path, most: usize) -> Result<Vec<u8>, Unusable> {
    let failed = |source| Unusable::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    bounded::read(file, most).map_err(|error| failed(io::Error::other(error)))
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, Unusable> {
    let failed = |source| Unusable::File { path: path.to_owned(), source };
    let found = Certificate::from_pem_bundle(&read(path, MAX_AUTHORITIES)?)
        .map_err(|error| failed(io::Error::other(error)))?;
    match found.is_empty() {
        true => Err(failed(io::Error::new(
            io::ErrorKind::InvalidData,
            "expected certificates in PEM, found none",
        ))),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prometheus(address: &str) -> Result<Prometheus, Unusable> {
        let (address, label) = (address.to_owned(), "instance".to_owned());
        Prometheus::new(&Asking { address, token: None, authorities: None, label, patience: PATIENCE })
    }

    fn read(answer: &str) -> Result<Vec<(String, f64)>, Unanswered> {
        prometheus("http://127.0.0.1:9090").unwrap().read(answer.as_bytes())
    }

    #[test]
    fn it_is_asked_over_https_or_on_this_machine() {
        for (given, asked) in [
            ("https://metrics.example.org", "https://metrics.example.org/api/v1/query"),
            (
                "https://metrics.example.org/prometheus/",
                "https://metrics.example.org/prometheus/api/v1/query",
            ),
            ("http://127.0.0.1:9090/", "http://127.0.0.1:9090/api/v1/query"),
            ("http://[::1]:9090", "http://[::1]:9090/api/v1/query"),
            ("http://localhost", "http://localhost/api/v1/query"),
        ] {
            assert_eq!(prometheus(given).unwrap().url.as_str(), asked);
        }
        for (given, why) in [
            ("http://metrics.example.org", "expected https; http is for what runs on this machine"),
            ("http://10.0.0.1", "expected https; http"),
            ("http://localhost.example.org", "expected https; http"),
            ("file:///etc/passwd", "expected https, or http"),
            ("https://me:secret@metrics.example.org", "--prometheus-token"),
            ("https://metrics.example.org/?query=up", "expected no query"),
            ("metrics", "expected an address"),
        ] {
            let error = prometheus(given).unwrap_err().to_string();
            assert!(error.contains(why), "{given}: {error}");
        }
    }

    #[test]
    fn an_answer_is_one_number_for_each_host_or_it_is_none() {
        let vector = |result: &str| {
            read(&format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}},"warnings":["w"]}}"#
            ))
        };
        let one = r#"{"metric":{"instance":"web-1:9100","job":"node"},"value":[1764400000.123,"1.5"]}"#;
        let nan = r#"{"metric":{"instance":"web-2"},"value":[1764400000,"NaN"]}"#;
        let most = r#"{"metric":{"instance":"web-3"},"value":[1764400000,"+Inf"]}"#;
        let numbers = vector(&format!("{one},{nan},{most}")).unwrap();
        assert_eq!(numbers[0], ("web-1:9100".to_owned(), 1.5));
        assert!(numbers[1].1.is_nan() && numbers[2].1 == f64::INFINITY);
        assert_eq!(vector(""), Ok(Vec::new()));
        assert_eq!(vector(r#"{"metric":{},"value":[1,"1"]}"#), Err(Unanswered::Nameless));
        assert_eq!(vector(r#"{"metric":{"instance":"a"},"value":[1,"a lot"]}"#), Err(Unanswered::Strange));
        let histogram = r#"{"metric":{"instance":"a"},"histogram":[1,{"count":"1","sum":"1"}]}"#;
        assert_eq!(vector(histogram), Err(Unanswered::NotAVector));
        for (answer, why) in [
            (
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#,
                Unanswered::NotAVector,
            ),
            (r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#, Unanswered::NotAVector),
            (r#"{"status":"error","errorType":"bad_data","error":"parse error"}"#, Unanswered::Refused),
            (r#"{"status":"success"}"#, Unanswered::Strange),
            ("<html>", Unanswered::Strange),
            ("", Unanswered::Strange),
        ] {
            assert_eq!(read(answer), Err(why), "{answer}");
        }
    }
}
