//! How to see that something works.
//!
//! A probe is tried, and tried again `interval` after each attempt ended, until it has succeeded
//! `successes` times in a row. It has failed when that has not come about within `timeout`, counted
//! from its first attempt. While the host settles, each probe must keep succeeding.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::duration::Span;
use crate::names::NameError;
use crate::scalar::as_string;
use crate::text::Argument;

/// Time that a probe has to succeed, when the manifest does not say.
pub const DEFAULT_TIMEOUT: Span = Span::from_secs(30);
/// Pause between two attempts, when the manifest does not say.
pub const DEFAULT_INTERVAL: Span = Span::from_millis(500);
/// Successes in a row, when the manifest does not say.
pub const DEFAULT_SUCCESSES: u32 = 1;

fn default_timeout() -> Span {
    DEFAULT_TIMEOUT
}

fn default_interval() -> Span {
    DEFAULT_INTERVAL
}

fn default_successes() -> u32 {
    DEFAULT_SUCCESSES
}

fn default_status() -> u16 {
    200
}

fn default_address() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

/// One probe: what is tried, and how patiently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Probe {
    /// What one attempt does.
    #[serde(flatten)]
    pub check: Check,
    /// Time from the first attempt to the last needed success; also the longest that one attempt
    /// may take. 100ms to 10m.
    #[schemars(default = "default_timeout")]
    pub timeout: Span,
    /// Pause between two attempts, 10ms to 1m.
    #[schemars(default = "default_interval")]
    pub interval: Span,
    /// How many successes in a row are needed, 1 to 100.
    #[schemars(default = "default_successes", range(min = 1, max = 100))]
    pub successes: u32,
}

/// What one attempt of a probe does. A container's probes act inside the container (`exec`) or
/// from its network namespace (`http`, `tcp`); the manifest's own probes act on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Check {
    /// Runs a command; status 0 is success.
    Exec {
        /// The program and its arguments. On the host the program must be an absolute path.
        #[schemars(length(min = 1, max = 64))]
        command: Vec<Argument>,
    },
    /// Sends a GET request (HTTP/1.1, no redirects followed).
    Http {
        /// Where to; an address, not a name.
        url: HttpUrl,
        /// The status that is success.
        #[schemars(default = "default_status", range(min = 100, max = 599))]
        status: u16,
    },
    /// Opens a TCP connection and closes it.
    Tcp {
        /// The port.
        port: NonZeroU16,
        /// The address.
        #[schemars(default = "default_address")]
        address: IpAddr,
    },
}

impl Check {
    /// The word as manifests write it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
        }
    }
}

/// Shows what the attempt does, on one line, safe for a terminal.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec { command } => {
                f.write_str("exec")?;
                for argument in command {
                    let text = argument.as_str();
                    let plain = !text.is_empty()
                        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(&c));
                    if plain { write!(f, " {text}")? } else { write!(f, " {text:?}")? }
                }
                Ok(())
            }
            Self::Http { url, status } => write!(f, "http {url} = {status}"),
            Self::Tcp { port, address } => {
                write!(f, "tcp {}", SocketAddr::new(*address, port.get()))
            }
        }
    }
}

/// Every field of every kind; see `RawComponent` for why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProbe {
    kind: RawKind,
    command: Option<Vec<Argument>>,
    url: Option<HttpUrl>,
    status: Option<u16>,
    port: Option<NonZeroU16>,
    address: Option<IpAddr>,
    #[serde(default = "default_timeout")]
    timeout: Span,
    #[serde(default = "default_interval")]
    interval: Span,
    #[serde(default = "default_successes")]
    successes: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Exec,
    Http,
    Tcp,
}

impl<'de> Deserialize<'de> for Probe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawProbe::deserialize(deserializer)?;
        let (command, url, status, port, address) = (
            ("command", raw.command.is_some()),
            ("url", raw.url.is_some()),
            ("status", raw.status.is_some()),
            ("port", raw.port.is_some()),
            ("address", raw.address.is_some()),
        );
        let check = match raw.kind {
            RawKind::Exec => {
                super::foreign("exec", &[url, status, port, address])?;
                Check::Exec { command: raw.command.ok_or_else(|| de::Error::missing_field("command"))? }
            }
            RawKind::Http => {
                super::foreign("http", &[command, port, address])?;
                Check::Http {
                    url: raw.url.ok_or_else(|| de::Error::missing_field("url"))?,
                    status: raw.status.unwrap_or_else(default_status),
                }
            }
            RawKind::Tcp => {
                super::foreign("tcp", &[command, url, status])?;
                Check::Tcp {
                    port: raw.port.ok_or_else(|| de::Error::missing_field("port"))?,
                    address: raw.address.unwrap_or_else(default_address),
                }
            }
        };
        Ok(Self { check, timeout: raw.timeout, interval: raw.interval, successes: raw.successes })
    }
}

/// A plain `http` URL whose host is an IP address or `localhost`: a probe must not hang on, or be
/// led astray by, a name server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpUrl {
    text: String,
    address: SocketAddr,
    path_at: usize,
}

impl HttpUrl {
    /// Where to connect; `localhost` is 127.0.0.1.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The request target: path and query, `/` when the URL has none.
    pub fn target(&self) -> &str {
        match &self.text[self.path_at..] {
            "" => "/",
            path => path,
        }
    }

    /// The host and port as written, for the `Host` header.
    pub fn authority(&self) -> &str {
        &self.text["http://".len()..self.path_at]
    }
}

as_string!(HttpUrl);

impl FromStr for HttpUrl {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = || {
            NameError::new(
                "probe URL",
                "http://ADDRESS[:PORT][/PATH] with an IP address or localhost, at most 2048 printable ASCII characters",
                text,
            )
        };
        if text.len() > 2048 || !text.bytes().all(|c| c.is_ascii_graphic()) || text.contains('#') {
            return Err(refuse());
        }
        let rest = text.strip_prefix("http://").ok_or_else(refuse)?;
        let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
        let path_at = "http://".len() + authority.len();
        if text[path_at..].starts_with('?') {
            return Err(refuse());
        }
        let local =
            authority.strip_prefix("localhost").filter(|port| port.is_empty() || port.starts_with(':'));
        let local = local.map(|port| format!("127.0.0.1{port}"));
        let plain = local.as_deref().unwrap_or(authority);
        let address = plain
            .parse::<SocketAddr>()
            .ok()
            .or_else(|| plain.parse::<Ipv4Addr>().ok().map(|ip| SocketAddr::new(ip.into(), 80)))
            .or_else(|| {
                let ip = plain.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
                Some(SocketAddr::new(IpAddr::V6(ip), 80))
            })
            .filter(|address| address.port() != 0)
            .ok_or_else(refuse)?;
        Ok(Self { text: text.to_owned(), address, path_at })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl JsonSchema for HttpUrl {
    fn schema_name() -> Cow<'static, str> {
        "HttpUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^http://([0-9.]+|\[[0-9a-fA-F:.]+\]|localhost)(:[0-9]{1,5})?(/.*)?$",
            "maxLength": 2048,
            "description": "A plain http URL whose host is an IP address or localhost."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_an_address_and_never_a_name() {
        let url: HttpUrl = "http://127.0.0.1:8080/health?deep=1".parse().unwrap();
        assert_eq!(url.address(), "127.0.0.1:8080".parse().unwrap());
        assert_eq!((url.authority(), url.target()), ("127.0.0.1:8080", "/health?deep=1"));
        let url: HttpUrl = "http://[::1]".parse().unwrap();
        assert_eq!((url.address(), url.target()), ("[::1]:80".parse().unwrap(), "/"));
        let url: HttpUrl = "http://localhost:81".parse().unwrap();
        assert_eq!(url.address(), "127.0.0.1:81".parse().unwrap());
        for bad in [
            "https://127.0.0.1/",
            "http://example.org/",
            "http://localhost.evil/",
            "http://localhost1/",
            "http://user@127.0.0.1/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/\r\nX: y",
            "http://127.0.0.1/#part",
            "http://127.0.0.1?x",
            "http:///",
            "",
        ] {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad:?} was taken");
        }
    }
}
