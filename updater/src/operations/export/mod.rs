//! The journal's records for somebody else's log: where they lie elsewhere, a change here shows.
//!
//! Each line or entry carries all that a record's hash is of, so that the chain can be checked from the log alone, and in
//! words what happened. Contents stay here, but for what is said of them; their digests go along.
//!
//! - `journald`: the native protocol of systemd's journal
//! - `syslog`: RFC 5424 lines, to standard output or a socket
//!
//! What this does not do: wait for anybody. Nothing is read from a socket, and a log that is not there is an error. TLS
//! is the local syslog's business.

mod journald;
mod syslog;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use manifests::NameError;
use manifests::chain::{Exported, Head};
use serde_json::Value;
use system::durable;

use crate::operations::{Engine, EngineError};
use crate::state::author::Actor;

pub use self::journald::MESSAGE_ID;

/// How many records are read at a time.
const BATCH: usize = 256;

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// systemd's journal on this host.
    Journald,
    /// Lines on standard output.
    Lines,
    /// A datagram a line.
    Udp(SocketAddr),
    /// Lines with their lengths before them (RFC 6587, 3.4.1).
    Tcp(SocketAddr),
    /// A datagram a line, to a socket of this host such as `/dev/log`.
    Unix(PathBuf),
}

/// A word that is no target.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected journald, syslog, udp:ADDRESS:PORT, tcp:ADDRESS:PORT or unix:PATH, with an address in digits"
)]
pub struct TargetError;

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.split_once(':') {
            None if text == "journald" => Ok(Self::Journald),
            None if text == "syslog" => Ok(Self::Lines),
            // Names are not resolved: root would read what a server says.
            Some(("udp", address)) => address.parse().map(Self::Udp).map_err(|_| TargetError),
            Some(("tcp", address)) => address.parse().map(Self::Tcp).map_err(|_| TargetError),
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            _ => Err(TargetError),
        }
    }
}

/// Why records did not get where they were to go.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log is not there, or does not take them.
    #[error("hand record {seq} of the journal to {to}")]
    Send {
        /// The first record that did not arrive.
        seq: u64,
        /// Where it was to go.
        to: String,
        /// Why.
        source: io::Error,
    },
    /// What is kept of how far an export came cannot be read or written.
    #[error("keep in {path} how far the export came")]
    Cursor {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what an export writes there.
    #[error("{path} does not say how far an export came")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should be.
        source: NameError,
    },
}

/// How far an export came, kept in a file: a head of the journal that lies outside of it.
#[derive(Debug, Clone)]
pub struct Cursor(pub PathBuf);

impl Cursor {
    /// The last record that was handed on; none if there is no such file.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn read(&self) -> Result<Option<Head>, ExportError> {
        let path = || self.0.clone();
        match std::fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ExportError::Cursor { path: path(), source }),
            Ok(text) => {
                let head =
                    text.trim().parse().map_err(|source| ExportError::Unreadable { path: path(), source })?;
                Ok(Some(head))
            }
        }
    }

    fn keep(&self, head: Head) -> Result<(), ExportError> {
        durable::replace(&self.0, format!("{head}\n").as_bytes())
            .map_err(|source| ExportError::Cursor { path: self.0.clone(), source })
    }
}

/// Takes records to where they go.
pub struct Sender {
    target: Target,
    host: String,
    open: Open,
}

enum Open {
    Datagrams(std::os::unix::net::UnixDatagram, PathBuf),
    Udp(std::net::UdpSocket),
    Tcp(std::net::TcpStream),
    Lines(Box<dyn FnMut(&str)>),
}

impl Sender {
    /// Opens the way; `lines` takes what goes to standard output.
    ///
    /// # Errors
    /// If there is no such way.
    pub fn open(target: Target, host: &str, lines: Box<dyn FnMut(&str)>) -> io::Result<Self> {
        use std::net::{TcpStream, UdpSocket};
        use std::os::unix::net::UnixDatagram;
        let open = match &target {
            Target::Journald => Open::Datagrams(UnixDatagram::unbound()?, PathBuf::from(journald::SOCKET)),
            Target::Unix(path) => Open::Datagrams(UnixDatagram::unbound()?, path.clone()),
            Target::Lines => Open::Lines(lines),
            Target::Udp(address) => {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Open::Udp(socket)
            }
            Target::Tcp(address) => Open::Tcp(TcpStream::connect(address)?),
        };
        Ok(Self { target, host: host.to_owned(), open })
    }

    /// Hands one record on.
    ///
    /// # Errors
    /// [`ExportError::Send`].
    pub fn send(&mut self, exported: &Exported) -> Result<(), ExportError> {
        use std::io::Write as _;
        let said = said(exported);
        let line = || syslog::line(&self.host, &exported.record, &said);
        let sent = match &mut self.open {
            Open::Lines(print) => {
                print(&line());
                Ok(())
            }
            Open::Datagrams(socket, path) => {
                let bytes = match self.target {
                    Target::Journald => journald::entry(&exported.record, &said),
                    _ => line().into_bytes(),
                };
                socket.send_to(&bytes, path).map(drop)
            }
            Open::Udp(socket) => socket.send(line().as_bytes()).map(drop),
            Open::Tcp(stream) => {
                let line = line();
                stream.write_all(format!("{} {line}", line.len()).as_bytes())
            }
        };
        sent.map_err(|source| ExportError::Send {
            seq: exported.record.seq,
            to: self.target.to_string(),
            source,
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Journald => f.write_str("journald"),
            Self::Lines => f.write_str("standard output"),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What is said of a record, beside what its hash is of.
struct Said {
    /// Who wrote it; nobody that is known of what was there before the chain.
    by: Option<Actor>,
    /// In words.
    words: String,
}

fn said(Exported { record, fields }: &Exported) -> Said {
    let by: Option<Actor> = serde_json::from_str(&record.by).unwrap_or_default();
    let value = |wanted: &str| {
        let mut fields = fields.iter().flatten();
        fields.find(|(name, _)| name == wanted).and_then(|(_, value)| value.as_deref())
    };
    let json = |wanted: &str| value(wanted).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let what = match record.kind.as_str() {
        "transaction" => {
            let origin = json("origin").unwrap_or_default();
            let (kind, name) =
                (origin["kind"].as_str().unwrap_or("begin"), origin["name"].as_str().unwrap_or("?"));
            format!("transaction {} began: {kind} {name} v{}", record.about, origin["version"])
        }
        "event" => {
            let event = json("event").unwrap_or_default();
            let step = event["step"].as_u64().map(|step| format!(" step {step}")).unwrap_or_default();
            let outcome = event["outcome"].as_str().map(|outcome| format!(" {outcome}")).unwrap_or_default();
            let name = event["event"].as_str().unwrap_or("?").to_owned();
            format!("transaction {}: {name}{step}{outcome}", record.about)
        }
        "audit" => value("what").unwrap_or("an operator's act").to_owned(),
        "grant" => format!("grant {:.12} taken: {}", record.about, value("action").unwrap_or("?")),
        "forgotten" => format!("transaction {} forgotten, past its time", record.about),
        "start" => format!("the chain begins: {}", record.about),
        other => format!("{other} {}", record.about),
    };
    let who = by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
    Said { by, words: format!("record {}: {what}{who}", record.seq) }
}

impl Engine {
    /// Hands on the records after `after` to `take`, in their order, and keeps how far that came; gives how far.
    ///
    /// # Errors
    /// [`EngineError::Journal`], [`EngineError::Export`]: what was handed on before is not handed on again.
    pub fn export(
        &self,
        after: Head,
        cursor: Option<&Cursor>,
        take: &mut dyn FnMut(&Exported) -> Result<(), ExportError>,
    ) -> Result<Head, EngineError> {
        let mut reached = after;
        loop {
            let records = self.journal().records(reached.seq, BATCH)?;
            let Some(last) = records.last() else { return Ok(reached) };
            let end = last.record.head();
            for exported in &records {
                take(exported)?;
            }
            reached = end;
            if let Some(cursor) = cursor {
                cursor.keep(reached)?;
            }
        }
    }

    /// What this host is called.
    pub fn host_name(&self) -> &str {
        &self.host.name
    }

    /// Waits, by this host's clock.
    pub fn pause(&self, duration: std::time::Duration) {
        self.host.clock.sleep(duration);
    }
}

/// Reads an exported journal.
///
/// # Errors
/// If it cannot be read, or is longer than any journal.
pub fn read_exported(path: &Path) -> io::Result<Vec<u8>> {
    /// A busy host writes 30 MB a year.
    const MOST: usize = 1 << 30;
    let file = std::fs::File::open(path)?;
    manifests::bounded::read(file, MOST).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
