//! One place of a repository, as the verifier sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use manifests::Sha256;
use sigstore_tuf::Error;
use sigstore_tuf::transport::{FetchFuture, Repository};

use crate::client::keys;
use crate::store::Store;
use crate::transport::mirrors::{Mirror, Mirrors};

/// Fetches metadata from one mirror, or takes what is kept where that is known to be the same.
#[derive(Debug, Clone)]
pub(super) struct Place {
    mirror: Mirror,
    mirrors: Mirrors,
    store: Store,
    fetched: Arc<AtomicU64>,
}

impl Place {
    pub(super) fn new(mirror: Mirror, mirrors: Mirrors, store: Store) -> Self {
        Self { mirror, mirrors, store, fetched: Arc::default() }
    }

    /// Bytes fetched so far.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    pub(super) fn metadata(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Error> {
        if let Some(kept) = self.kept(name) {
            return Ok(Some(kept));
        }
        let url = self.mirror.metadata(name);
        let bytes = self
            .mirrors
            .whole(&url, most)
            .map_err(|error| Error::transport_with_source(format!("{url} was not fetched"), error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        keys::spelled_one_way(&bytes)?;
        match name.ends_with(".root.json") {
            true => keys::each_once(&bytes)?,
            false => keys::each_delegated_once(&bytes)?,
        }
        Ok(Some(bytes))
    }

    /// `7.ROLE.json`, if what is kept as `ROLE.json` has the digest that the kept snapshot gives for version 7.
    /// The verifier asks for roles only after it has kept their snapshot, and checks these bytes as any others.
    fn kept(&self, name: &str) -> Option<Vec<u8>> {
        let (version, role) = name.split_once('.')?;
        let version: u64 = version.parse().ok()?;
        if ["root.json", "timestamp.json", "snapshot.json"].contains(&role) {
            return None;
        }
        let snapshot: serde_json::Value = serde_json::from_slice(&self.store.known("snapshot.json")?).ok()?;
        // Names with anything escaped in them are looked up under another one, and are simply fetched.
        let pin = snapshot.get("signed")?.get("meta")?.get(role)?;
        let expected = pin.get("hashes")?.get("sha256")?.as_str()?;
        if pin.get("version")?.as_u64()? != version {
            return None;
        }
        let kept = self.store.known(role)?;
        (Sha256::of(&kept).to_string() == expected).then_some(kept)
    }
}

impl Repository for Place {
    fn fetch_metadata<'a>(&'a self, name: &'a str, most: u64) -> FetchFuture<'a> {
        let answer = self.metadata(name, most);
        Box::pin(async move { answer })
    }

    fn fetch_target<'a>(&'a self, path: &'a str, _: u64) -> FetchFuture<'a> {
        let path = path.to_owned();
        Box::pin(async move { Err(Error::Malformed(format!("target {path} is not for memory"))) })
    }
}
