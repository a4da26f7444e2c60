//! The places that have the same files, in the order in which they are asked.
//!
//! Metadata of one refresh comes from one place, so that no place can mix its own with another's; a target, whose
//! digest is known, is taken from wherever it goes on.

use std::io::{self, Read};
use std::sync::Arc;

use system::clock::Clock;
use url::Url;

use crate::transport::{Body, FetchError, Metered, Patience, Transport, too_long};

/// A place: `metadata/`, `targets/` and, where manifests are logged, `log/` lie below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    metadata: Url,
    targets: Url,
    log: Url,
}

/// An address that no repository can have.
#[derive(Debug, thiserror::Error)]
#[error("{address:?} is no place of a repository: expected https://HOST/PATH/, http or file")]
pub struct NotAPlace {
    /// What was given.
    pub address: String,
}

impl Mirror {
    /// The place at an address. With or without a `/` at its end.
    ///
    /// # Errors
    /// [`NotAPlace`].
    pub fn parse(address: &str) -> Result<Self, NotAPlace> {
        let refuse = || NotAPlace { address: address.to_owned() };
        let base: Url = format!("{}/", address.trim_end_matches('/')).parse().map_err(|_| refuse())?;
        let known = ["http", "https", "file"].contains(&base.scheme());
        if !known || base.query().is_some() || base.fragment().is_some() {
            return Err(refuse());
        }
        let below = |name| base.join(name).map_err(|_| refuse());
        Ok(Self { metadata: below("metadata/")?, targets: below("targets/")?, log: below("log/")? })
    }

    /// A place whose two parts lie apart; it has no log of its own.
    pub fn apart(metadata: Url, targets: Url) -> Self {
        let metadata = closed(metadata);
        let log = below(&metadata, "log/");
        Self { metadata, targets: closed(targets), log }
    }

    /// Where a metadata file is. In its name all is escaped already that is no letter, digit, `-`, `_`, `.` or `~`.
    pub fn metadata(&self, name: &str) -> Url {
        let mut url = self.metadata.clone();
        // A name with anything else in it is none that the verifier makes.
        let name: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.~%".contains(*c)).collect();
        url.set_path(&format!("{}{name}", self.metadata.path()));
        url
    }

    /// Where a file of the log is.
    pub fn log(&self, path: &str) -> Url {
        below(&self.log, path)
    }

    /// Where a target file is.
    pub fn target(&self, path: &str) -> Url {
        below(&self.targets, path)
    }
}

fn closed(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url
}

/// The address of `path` below `base`; never above it, whatever the path says.
fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let mut escaped = String::from(base.path());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            escaped.push('/');
        }
        // Dots would be resolved by the address itself, and not only where they stand alone: a line feed or a tab
        // between them is dropped before. So nothing is left to it but what means itself.
        match segment {
            "." => escaped.push_str("%252E"),
            ".." => escaped.push_str("%252E%252E"),
            _ => segment.bytes().for_each(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => escaped.push(byte.into()),
                // RFC 3986, 3.3, `pchar`.
                _ if b"-._~!$&'()*+,;=:@".contains(&byte) => escaped.push(byte.into()),
                _ => escaped.push_str(&format!("%{byte:02X}")),
            }),
        }
    }
    url.set_path(&escaped);
    url
}

/// Mirrors, and how to reach them.
#[derive(Clone)]
pub struct Mirrors {
    places: Vec<Mirror>,
    transport: Arc<dyn Transport>,
    patience: Patience,
    clock: Arc<dyn Clock + Send + Sync>,
}

impl std::fmt::Debug for Mirrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirrors").field("places", &self.places).finish_non_exhaustive()
    }
}

impl Mirrors {
    /// These places by this transport.
    pub fn new(
        places: Vec<Mirror>,
        transport: Arc<dyn Transport>,
        patience: Patience,
        clock: Arc<dyn Clock + Send + Sync>,
    ) -> Self {
        Self { places, transport, patience, clock }
    }

    /// Other places by another transport, with the same patience.
    pub(crate) fn by(&self, places: Vec<Mirror>, transport: Arc<dyn Transport>) -> Self {
        Self { places, transport, patience: self.patience, clock: self.clock.clone() }
    }

    /// The places, in order.
    pub fn places(&self) -> &[Mirror] {
        &self.places
    }

    /// A whole file of at most `most` bytes from one address; nothing if it is not there.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn whole(&self, url: &Url, most: u64) -> Result<Option<Vec<u8>>, FetchError> {
        let Some(body) = self.transport.open(url, 0)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let mut body = Metered::new(body.bytes, most, self.patience, self.clock.clone());
        body.read_to_end(&mut bytes).map_err(|source| FetchError::Io { url: url.clone(), source })?;
        Ok(Some(bytes))
    }

    /// The bytes of a target from `from` on, `length` in all. Where one place falls silent, is slow or ends
    /// early, the next goes on.
    ///
    /// # Errors
    /// None of the places has it; what the last one said.
    pub fn target(&self, path: &str, from: u64, length: u64) -> Result<Option<Target>, FetchError> {
        let mut target =
            Target { mirrors: self.clone(), path: path.to_owned(), at: from, length, place: 0, body: None };
        match target.connect() {
            Ok(true) => Ok(Some(target)),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The bytes of a target, from one place after the other.
pub struct Target {
    mirrors: Mirrors,
    path: String,
    at: u64,
    length: u64,
    place: usize,
    body: Option<Metered<Box<dyn Read + Send>>>,
}

impl Target {
    /// Asks places, from the current one on, until one has the rest. False if all say that it is not there.
    fn connect(&mut self) -> Result<bool, FetchError> {
        let mut problem = None;
        while let Some(place) = self.mirrors.places.get(self.place) {
            let url = place.target(&self.path);
            match self.begin(&url) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => problem = Some(error),
            }
            self.place += 1;
        }
        problem.map_or(Ok(false), Err)
    }

    fn begin(&mut self, url: &Url) -> Result<bool, FetchError> {
        let Some(Body { from, bytes }) = self.mirrors.transport.open(url, self.at)? else { return Ok(false) };
        // One byte more than there may be is enough to know that there are more.
        let most = self.length.saturating_sub(from).saturating_add(1);
        let mut body = Metered::new(bytes, most, self.mirrors.patience, self.mirrors.clock.clone());
        let skipped = io::copy(&mut (&mut body).take(self.at - from), &mut io::sink())
            .map_err(|source| FetchError::Io { url: url.clone(), source })?;
        if skipped < self.at - from {
            let source =
                io::Error::new(io::ErrorKind::UnexpectedEof, "it has fewer bytes than we have already");
            return Err(FetchError::Io { url: url.clone(), source });
        }
        self.body = Some(body);
        Ok(true)
    }
}

impl Read for Target {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(body) = &mut self.body else {
                return Err(io::Error::other(format!("no place has the rest of {}", self.path)));
            };
            let problem = match body.read(buffer) {
                Ok(0) if self.at >= self.length => return Ok(0),
                Ok(0) => io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("expected {} bytes, found {}", self.length, self.at),
                ),
                Ok(read) if self.at + read as u64 > self.length => return Err(too_long(self.length)),
                Ok(read) => {
                    self.at += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.body = None;
            self.place += 1;
            match self.connect() {
                Ok(true) => {}
                // The first problem says more than that the others have nothing either.
                Ok(false) | Err(_) => return Err(problem),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_climb_out_stay_below() {
        let place = Mirror::parse("https://example.org/updates").unwrap();
        for name in [
            "../x",
            "a/../../x",
            "..",
            ".",
            "./x",
            "/etc/passwd",
            "%2e%2e/x",
            "\\..\\x",
            "a?b",
            "a#b",
            "\n../x",
            ".\t./x",
            "a/\r../../../x",
            "\0../x",
        ] {
            let url = place.target(name);
            assert!(url.as_str().starts_with("https://example.org/updates/targets/"), "{name}: {url}");
            assert_eq!((url.query(), url.fragment()), (None, None), "{name}");
            let url = place.metadata(&format!("1.{name}.json"));
            assert!(url.as_str().starts_with("https://example.org/updates/metadata/"), "{name}: {url}");
            assert_eq!((url.query(), url.fragment()), (None, None), "{name}");
        }
        assert!(place.metadata("1.%2Frole.json").as_str().ends_with("/metadata/1.%2Frole.json"));
        let file = Mirror::parse("file:///srv/updates").unwrap();
        let climbs = file.target("a/../../../etc/passwd").to_file_path().unwrap();
        assert!(climbs.components().all(|part| part != std::path::Component::ParentDir), "{climbs:?}");
        assert!(climbs.starts_with("/srv/updates/targets"));
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for bad in ["", "here", "ftp://x/", "https://x/?y", "https://x/#y", "/srv"] {
            assert!(Mirror::parse(bad).is_err(), "{bad:?}");
        }
    }
}
