//! Which manifests a repository has.
//!
//! A manifest is the target `NAME/VERSION/manifest.json`, a payload of it `NAME/VERSION/FILE`. The roles that may list
//! them are those to which `targets` delegates by patterns `PREFIX*/*/*`, each terminating; of them, the first in order
//! whose pattern matches a path is the only one that is asked about it (TUF 5.6.7). Delegations of delegated roles are
//! not followed here.
//!
//! What stands beside a manifest ([`Note`]) is signed like the listing, and selects what to fetch. It is not the manifest.

use jiff::Timestamp;
use manifests::{CveId, KernelRelease, ManifestName, Severity, UtcTime};
use serde::{Deserialize, Serialize};
use sigstore_tuf::metadata::{DelegatedRole, Targets};
use sigstore_tuf::{Error as TufError, TrustedMetadataSet};

use crate::client::{Client, ClientError};
use crate::crypto;
use crate::store::Store;

/// The file name of a manifest in a repository.
pub const MANIFEST: &str = "manifest.json";

/// The field of `custom` that is ours.
pub(crate) const CUSTOM: &str = "update";

/// The largest role that is read, in bytes.
const ROLE: u64 = 5_000_000;

/// The path of a file that belongs to a manifest.
pub fn path(name: &ManifestName, version: u64, file: &str) -> String {
    format!("{name}/{version}/{file}")
}

/// What a repository says of a manifest before it is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How urgent it is.
    pub severity: Severity,
    /// When it was issued.
    pub issued: UtcTime,
    /// Until when hosts take it.
    pub expires: UtcTime,
    /// What it fixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<CveId>,
    /// The kernels that its livepatches are for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<KernelRelease>,
    /// Whether it changes files of containers, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub layers: bool,
}

/// A manifest that a repository has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: ManifestName,
    /// Its version.
    pub version: u64,
    /// What is said of it; nothing where that cannot be read.
    pub note: Option<Note>,
}

impl Client {
    /// All manifests, by name, versions rising. Fetches every role that is not kept.
    ///
    /// # Errors
    /// [`ClientError::Lookup`].
    pub fn catalogue(&mut self) -> Result<Vec<Entry>, ClientError> {
        self.entries(&|_| true)
    }

    /// The manifests that these roles list.
    pub(crate) fn catalogue_of(&mut self, roles: &[&str]) -> Result<Vec<Entry>, ClientError> {
        self.entries(&|role| roles.contains(&role))
    }

    /// The versions of one manifest, rising. Fetches the one role that may list it.
    ///
    /// # Errors
    /// [`ClientError::Lookup`].
    pub fn versions(&mut self, name: &ManifestName) -> Result<Vec<Entry>, ClientError> {
        let probe = path(name, 1, MANIFEST);
        let delegations = self.delegations();
        let role = first(&delegations, &probe)?.map(|role| role.name.clone());
        let mut entries = self.entries(&|one| Some(one) == role.as_deref())?;
        entries.retain(|entry| entry.name == *name);
        Ok(entries)
    }

    fn delegations(&self) -> Vec<DelegatedRole> {
        delegations(&self.trusted)
    }

    fn entries(&mut self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Entry>, ClientError> {
        for role in self.delegations().iter().filter(|role| wanted(&role.name)) {
            let what = || format!("role {}", role.name);
            self.load(&role.name).map_err(|source| ClientError::Lookup { what: what(), source })?;
        }
        entries(&self.trusted, wanted)
    }

    /// Makes a role known that `targets` delegates to.
    fn load(&mut self, role: &str) -> Result<(), TufError> {
        if self.trusted.targets_role(role).is_some() {
            return Ok(());
        }
        let pin = self.trusted.snapshot().and_then(|snapshot| snapshot.meta.get(&format!("{role}.json")));
        // Not in the snapshot: not published yet.
        let Some(version) = pin.map(|pin| pin.version) else { return Ok(()) };
        let name = match self.trusted.root().consistent_snapshot {
            true => format!("{version}.{role}.json"),
            false => format!("{role}.json"),
        };
        let bytes = self.place.metadata(&name, ROLE)?.ok_or_else(|| Error::missing(&name))?;
        self.trusted.update_delegated_targets(&bytes, role, "targets", self.now)?;
        sigstore_tuf::cache::MetadataStore::store(&self.store, &format!("{role}.json"), &bytes)
    }
}

/// The manifests that what is kept of a repository lists, by name, versions rising; nobody is asked, and nothing is too
/// old. Kept files that do not hold, or not together, are as good as none.
pub fn known(store: &Store) -> Vec<Entry> {
    // Before everything that is signed ends.
    let ever = Timestamp::UNIX_EPOCH;
    let listed = || -> Result<Vec<Entry>, ClientError> {
        let kept = |name: &str| store.known(name).ok_or_else(|| Error::missing(name));
        let verified = || -> Result<TrustedMetadataSet, TufError> {
            let mut trusted = TrustedMetadataSet::from_root(&kept("root.json")?)?;
            trusted.update_timestamp(&kept("timestamp.json")?, ever)?;
            trusted.update_snapshot(&kept("snapshot.json")?, ever)?;
            trusted.update_targets(&kept("targets.json")?, ever)?;
            for role in delegations(&trusted) {
                // One that was not fetched, or not since it changed, is not known.
                if let Some(bytes) = store.known(&format!("{}.json", role.name)) {
                    let _ = trusted.update_delegated_targets(&bytes, &role.name, "targets", ever);
                }
            }
            Ok(trusted)
        };
        crypto::install();
        let what = || "what is kept".to_owned();
        entries(&verified().map_err(|source| ClientError::Lookup { what: what(), source })?, &|_| true)
    };
    listed().unwrap_or_default()
}

fn delegations(trusted: &TrustedMetadataSet) -> Vec<DelegatedRole> {
    let targets = trusted.targets_role("targets");
    targets.and_then(|targets| targets.delegations.as_ref()).map_or_else(Vec::new, |all| all.roles.clone())
}

/// What targets and those of the wanted roles list that are known, by name, versions rising.
fn entries(trusted: &TrustedMetadataSet, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Entry>, ClientError> {
    let delegations = delegations(trusted);
    let mut entries = Vec::new();
    if let Some(targets) = trusted.targets_role("targets") {
        entries.extend(listed(targets));
    }
    for role in delegations.iter().filter(|role| wanted(&role.name)) {
        let Some(targets) = trusted.targets_role(&role.name) else { continue };
        for entry in listed(targets) {
            // What a role lists outside of what was delegated to it is nobody's word.
            let vouches = first(&delegations, &path(&entry.name, entry.version, MANIFEST))?;
            if vouches.is_some_and(|vouches| vouches.name == role.name) {
                entries.push(entry);
            }
        }
    }
    entries.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
    entries.dedup_by(|a, b| (&a.name, a.version) == (&b.name, b.version));
    Ok(entries)
}

struct Error;

impl Error {
    fn missing(name: &str) -> TufError {
        TufError::transport(format!("{name} is in the snapshot and not there"))
    }
}

/// The first role that a path is delegated to.
fn first<'a>(delegations: &'a [DelegatedRole], path: &str) -> Result<Option<&'a DelegatedRole>, ClientError> {
    for role in delegations {
        let lookup = |source| ClientError::Lookup { what: path.to_owned(), source };
        if may_match(role, path) && role.matches_path(path).map_err(lookup)? {
            return Ok(Some(role));
        }
    }
    Ok(None)
}

/// Whether it is worth asking the verifier, which compiles each pattern anew: what comes before a pattern's first sign
/// stands for itself.
fn may_match(role: &DelegatedRole, path: &str) -> bool {
    let Some(patterns) = &role.paths else { return true };
    patterns.iter().any(|pattern| {
        let literal = pattern.split(['*', '?', '[']).next().unwrap_or("");
        path.starts_with(literal)
    })
}

pub(crate) fn listed(targets: &Targets) -> impl Iterator<Item = Entry> + '_ {
    targets.targets.iter().filter_map(|(path, target)| {
        let (name, version) = manifest_of(path)?;
        let note = target.custom.as_ref().and_then(|custom| custom.get(CUSTOM)).cloned();
        let note = note.and_then(|note| serde_json::from_value(note).ok());
        Some(Entry { name, version, note })
    })
}

/// The manifest whose path this is.
pub(crate) fn manifest_of(path: &str) -> Option<(ManifestName, u64)> {
    let mut parts = path.split('/');
    let (name, version, file) = (parts.next()?, parts.next()?, parts.next()?);
    let number: u64 = version.parse().ok().filter(|_| file == MANIFEST && parts.next().is_none())?;
    (number > 0 && number.to_string() == version).then_some((name.parse().ok()?, number))
}
