//! Drafts: adding and withdrawing manifests, delegating, rotating keys, signing.
//!
//! A draft is a document with the version after the published one. Each change empties its signatures: what people
//! sign is what they see. [`Batch`] holds the drafts of one command and writes them at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use manifests::{Component, Envelope, KernelRelease, Manifest, Payload, PublicKey, SecretKey, Sha256};
use serde::Serialize;
use sha2::Digest as _;
use system::durable;

use crate::authoring::metadata::{
    Delegated, Delegations, Document, Hashes, Head, Key, Keyholders, Root, Signed, TargetFile, Targets,
    known_as,
};
use crate::authoring::publish::Published;
use crate::authoring::{AuthoringError, ROOT, Repository, TARGETS, disk, ends, io_error, placed, split};
use crate::client::catalogue::{self, CUSTOM, MANIFEST, Note};

/// The largest metadata file.
pub(super) const LARGEST: usize = crate::store::LARGEST;

/// Who may sign for a role.
#[derive(Debug, Clone)]
pub struct Holders {
    /// Their keys.
    pub keys: Vec<PublicKey>,
    /// How many of them it takes.
    pub threshold: u32,
}

/// Who founds a repository.
#[derive(Debug, Clone)]
pub struct Founders {
    /// Who says who signs.
    pub root: Holders,
    /// Who says what is in it.
    pub targets: Holders,
    /// What signs that it is up to date; on the machine that publishes.
    pub online: Holders,
}

/// How the holders of a role change. Nothing of all this only makes a draft that is valid for longer.
#[derive(Debug, Clone, Default)]
pub struct Rotation {
    /// Keys that come.
    pub add: Vec<PublicKey>,
    /// Ids of keys that go: of TUF, or of this project.
    pub remove: Vec<String>,
    /// Another threshold.
    pub threshold: Option<u32>,
}

/// A manifest that was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Added {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// The role that lists it.
    pub role: String,
}

/// A draft that a key has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignedDraft {
    /// The role.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// What is in it that is not published, in words.
    pub changes: Vec<String>,
}

/// The drafts of one command.
pub(super) struct Batch<'a> {
    repository: &'a Repository,
    published: Published,
    now: Timestamp,
    targets: BTreeMap<String, Signed<Targets>>,
    changed: BTreeSet<String>,
}

impl Repository {
    /// Makes a repository, of which nothing is signed yet.
    ///
    /// # Errors
    /// [`AuthoringError`].
    pub fn init(directory: &Path, founders: &Founders, now: Timestamp) -> Result<Self, AuthoringError> {
        let taken = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
        if taken {
            return Err(AuthoringError::NotEmpty { directory: directory.to_owned() });
        }
        let (mut keys, mut roles) = (BTreeMap::new(), BTreeMap::new());
        let named = [
            ("root", &founders.root),
            ("targets", &founders.targets),
            ("snapshot", &founders.online),
            ("timestamp", &founders.online),
        ];
        for (role, holders) in named {
            let (own, role_keys) = keyholders(role, holders)?;
            keys.extend(own);
            roles.insert(role.to_owned(), role_keys);
        }
        let (delegated, holders) = keyholders("targets", &founders.targets)?;
        let first =
            Delegated { name: "m1".to_owned(), holders, terminating: true, paths: vec![split::pattern("")] };
        let root =
            Root { head: Head::new("root", 1, ends(now, ROOT)?), consistent_snapshot: true, keys, roles };
        expect_apart(&root)?;
        let delegations = Some(Delegations { keys: delegated, roles: vec![first] });
        let head = || ends(now, TARGETS).map(|end| Head::new("targets", 1, end));
        let targets = Targets { head: head()?, targets: BTreeMap::new(), delegations };
        let m1 = Targets { head: head()?, targets: BTreeMap::new(), delegations: None };

        let repository = Self { directory: directory.to_owned() };
        for directory in [repository.metadata(), repository.targets(), repository.staged()] {
            disk::make_directory(&directory)?;
        }
        repository.stage("root", &Signed::unsigned(root))?;
        repository.stage("targets", &Signed::unsigned(targets))?;
        repository.stage("m1", &Signed::unsigned(m1))?;
        Ok(repository)
    }

    /// Stages signed manifests and their payloads, which lie beside them or in `payloads`.
    ///
    /// Who signed them is not asked: that is for the hosts' policies. That each payload is the named one, is.
    ///
    /// # Errors
    /// [`AuthoringError`]; then nothing is staged.
    pub fn add(
        &self,
        manifests: &[PathBuf],
        payloads: Option<&Path>,
        now: Timestamp,
    ) -> Result<Vec<Added>, AuthoringError> {
        let _lock = self.lock()?;
        let mut batch = Batch::new(self, now)?;
        let mut added = Vec::new();
        for path in manifests {
            let (manifest, bytes) = read_manifest(path)?;
            let beside =
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut files = vec![(MANIFEST.to_owned(), listed(&bytes, Some(note(&manifest))))];
            self.stage_target(
                &catalogue::path(&manifest.name, manifest.version, MANIFEST),
                &files[0].1,
                &bytes,
            )?;
            for payload in manifest.payloads() {
                let from = payloads.unwrap_or(beside).join(payload.file.as_str());
                let file = self.stage_payload(&manifest, payload, &from)?;
                files.push((payload.file.to_string(), file));
            }
            let role = batch.list(manifest.name.as_str(), manifest.version, files)?;
            added.push(Added { name: manifest.name.to_string(), version: manifest.version, role });
        }
        durable::sync_file_system(&self.staged()).map_err(io_error("sync", &self.staged()))?;
        batch.save()?;
        Ok(added)
    }

    /// Stages that a version of a manifest is not listed any more; all of them without one. Hosts that have it keep it.
    ///
    /// # Errors
    /// [`AuthoringError::Unlisted`].
    pub fn withdraw(
        &self,
        name: &str,
        version: Option<u64>,
        now: Timestamp,
    ) -> Result<Vec<String>, AuthoringError> {
        let _lock = self.lock()?;
        let mut batch = Batch::new(self, now)?;
        let unlisted = || AuthoringError::Unlisted { what: name.to_owned() };
        let role =
            split::role_of(batch.delegations()?, name).map(|role| role.name.clone()).ok_or_else(unlisted)?;
        let below = version.map_or(format!("{name}/"), |version| format!("{name}/{version}/"));
        let targets = &mut batch.draft(&role)?.signed.targets;
        let gone: Vec<String> = targets.keys().filter(|path| path.starts_with(&below)).cloned().collect();
        targets.retain(|path, _| !path.starts_with(&below));
        if gone.is_empty() {
            return Err(unlisted());
        }
        batch.save()?;
        Ok(gone)
    }

    /// Stages that other people sign for names with a prefix.
    ///
    /// # Errors
    /// [`AuthoringError`].
    pub fn delegate(
        &self,
        prefix: &str,
        holders: &Holders,
        now: Timestamp,
    ) -> Result<String, AuthoringError> {
        let _lock = self.lock()?;
        let (keys, role_keys) = keyholders(prefix, holders)?;
        let mut batch = Batch::new(self, now)?;
        let targets = batch.draft("targets")?;
        let delegations = targets
            .signed
            .delegations
            .as_mut()
            .ok_or_else(|| AuthoringError::Unlisted { what: "delegation".to_owned() })?;
        let name = split::fresh(delegations);
        delegations.keys.extend(keys);
        let paths = vec![split::pattern(prefix)];
        // Before all that are not longer: the first that has a prefix of a name is the name's.
        let longer = |role: &Delegated| role.paths.iter().all(|path| path.len() > paths[0].len());
        let at = delegations.roles.iter().position(|role| !longer(role)).unwrap_or(delegations.roles.len());
        delegations
            .roles
            .insert(at, Delegated { name: name.clone(), holders: role_keys, terminating: true, paths });
        batch.reassign(prefix, &name)?;
        batch.save()?;
        Ok(name)
    }

    /// Stages a change of who signs for a role, or only a later end of it. Returns the roles below targets for which a
    /// removed key signs all the same: each role has holders of its own.
    ///
    /// # Errors
    /// [`AuthoringError`].
    pub fn rotate(
        &self,
        role: &str,
        rotation: &Rotation,
        now: Timestamp,
    ) -> Result<Vec<String>, AuthoringError> {
        let _lock = self.lock()?;
        let changes = !rotation.add.is_empty() || !rotation.remove.is_empty() || rotation.threshold.is_some();
        let mut batch = Batch::new(self, now)?;
        if ["root", "targets", "snapshot", "timestamp"].contains(&role) {
            if role == "targets" && !changes {
                batch.draft("targets")?;
                batch.save()?;
                return Ok(Vec::new());
            }
            let mut root = batch.root(now)?;
            let mut holders = root
                .signed
                .roles
                .get(role)
                .cloned()
                .ok_or_else(|| AuthoringError::Unlisted { what: role.to_owned() })?;
            rotate(role, &mut root.signed.keys, &mut holders, rotation)?;
            root.signed.roles.insert(role.to_owned(), holders);
            let used: BTreeSet<String> =
                root.signed.roles.values().flat_map(|holders| holders.keyids.iter().cloned()).collect();
            root.signed.keys.retain(|id, _| used.contains(id));
            expect_apart(&root.signed)?;
            self.stage("root", &root)?;
            let below = batch.draft("targets")?.signed.delegations.take();
            return Ok(below.map(|below| still_holding(&below, &rotation.remove)).unwrap_or_default());
        }
        let mut still = Vec::new();
        if changes {
            let targets = batch.draft("targets")?;
            let unlisted = || AuthoringError::Unlisted { what: format!("role {role}") };
            let below = targets.signed.delegations.as_mut().ok_or_else(unlisted)?;
            let Delegations { keys, roles } = &mut *below;
            let at = roles.iter().position(|one| one.name == role).ok_or_else(unlisted)?;
            let mut holders = roles[at].holders.clone();
            rotate(role, keys, &mut holders, rotation)?;
            roles[at].holders = holders;
            let used: BTreeSet<String> =
                roles.iter().flat_map(|role| role.holders.keyids.iter().cloned()).collect();
            keys.retain(|id, _| used.contains(id));
            still = still_holding(below, &rotation.remove);
        }
        batch.draft(role)?;
        batch.save()?;
        Ok(still)
    }

    /// Stages everything again that ends within this time. Returns the roles.
    ///
    /// # Errors
    /// [`AuthoringError`].
    pub fn renew(&self, within: SignedDuration, now: Timestamp) -> Result<Vec<String>, AuthoringError> {
        let published = Published::read(self)?;
        let by = ends(now, within)?;
        let mut roles = Vec::new();
        if published.root.as_ref().is_some_and(|root| root.signed.head.expires <= by) {
            roles.push("root".to_owned());
        }
        for role in published.pins.keys() {
            let ends = published.role(self, role)?.map(|role| role.signed.head.expires);
            if ends.is_some_and(|end| end <= by) {
                roles.push(role.clone());
            }
        }
        for role in &roles {
            self.rotate(role, &Rotation::default(), now)?;
        }
        Ok(roles)
    }

    /// Signs every draft that this key signs for.
    ///
    /// # Errors
    /// [`AuthoringError::NothingToSign`].
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<SignedDraft>, AuthoringError> {
        let _lock = self.lock()?;
        let id = Key::new(&key.public()).id();
        let published = Published::read(self)?;
        let authorities = published.authorities(self)?;
        let mut done = Vec::new();
        for role in self.drafts()? {
            let may = authorities.of(&role).iter().any(|(holders, _)| holders.keyids.contains(&id));
            if !may {
                continue;
            }
            done.push(match role.as_str() {
                "root" => {
                    let mut draft: Signed<Root> = self.staged_document("root")?;
                    draft.sign(key);
                    self.stage("root", &draft)?;
                    let old = published.root.as_ref().map(|root| &root.signed);
                    SignedDraft {
                        role,
                        version: draft.signed.head.version,
                        changes: changes_of_root(old, &draft.signed),
                    }
                }
                _ => {
                    let mut draft: Signed<Targets> = self.staged_document(&role)?;
                    draft.sign(key);
                    self.stage(&role, &draft)?;
                    let old = published.role(self, &role)?;
                    let changes = changes_of_targets(old.as_ref().map(|old| &old.signed), &draft.signed);
                    SignedDraft { role, version: draft.signed.head.version, changes }
                }
            });
        }
        match done.is_empty() {
            true => Err(AuthoringError::NothingToSign { key: key.public().id() }),
            false => Ok(done),
        }
    }

    /// Takes over the signatures of drafts that were signed elsewhere: `staged/` of a copy of this repository, or files
    /// of it. Returns the roles and how many signatures came.
    ///
    /// # Errors
    /// [`AuthoringError::AnotherDraft`].
    pub fn collect(&self, from: &Path) -> Result<Vec<(String, usize)>, AuthoringError> {
        let _lock = self.lock()?;
        let mut collected = Vec::new();
        for role in self.drafts()? {
            let path = if from.is_dir() { from.join(format!("{role}.json")) } else { from.to_owned() };
            if path.file_name().and_then(|name| name.to_str()) != Some(&format!("{role}.json")) {
                continue;
            }
            let Some(bytes) = disk::read(&path, LARGEST)? else { continue };
            let count = match role.as_str() {
                "root" => self.take_signatures::<Root>(&role, &path, &bytes)?,
                _ => self.take_signatures::<Targets>(&role, &path, &bytes)?,
            };
            collected.push((role, count));
        }
        Ok(collected)
    }

    fn take_signatures<T: Document + PartialEq>(
        &self,
        role: &str,
        path: &Path,
        bytes: &[u8],
    ) -> Result<usize, AuthoringError> {
        let other: Signed<T> = Signed::parse(&path.display().to_string(), bytes)?;
        let mut own: Signed<T> = self.staged_document(role)?;
        if own.signed != other.signed {
            return Err(AuthoringError::AnotherDraft { path: path.to_owned(), role: role.to_owned() });
        }
        let before = own.signatures.len();
        for signature in other.signatures {
            if own.signatures.iter().all(|known| known.keyid != signature.keyid) {
                own.signatures.push(signature);
            }
        }
        self.stage(role, &own)?;
        Ok(own.signatures.len() - before)
    }

    /// The roles that have a draft.
    pub(super) fn drafts(&self) -> Result<Vec<String>, AuthoringError> {
        let names = disk::names(&self.staged())?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")).map(str::to_owned).collect())
    }

    pub(super) fn staged_document<T: Document>(&self, role: &str) -> Result<Signed<T>, AuthoringError> {
        let path = self.staged().join(format!("{role}.json"));
        match disk::read(&path, LARGEST)? {
            Some(bytes) => Signed::parse(&path.display().to_string(), &bytes),
            None => Err(AuthoringError::Unlisted { what: format!("draft of {role}") }),
        }
    }

    fn stage<T: Document>(&self, role: &str, document: &Signed<T>) -> Result<(), AuthoringError> {
        disk::write(&self.staged().join(format!("{role}.json")), &document.to_bytes())
    }

    fn stage_target(&self, path: &str, file: &TargetFile, bytes: &[u8]) -> Result<(), AuthoringError> {
        let to = self.staged().join("targets").join(placed(path, &file.hashes.sha256));
        disk::make_directory(to.parent().unwrap_or(&to))?;
        disk::write(&to, bytes)
    }

    /// Copies a payload, hashing what is copied.
    fn stage_payload(
        &self,
        manifest: &Manifest,
        payload: &Payload,
        from: &Path,
    ) -> Result<TargetFile, AuthoringError> {
        let path = catalogue::path(&manifest.name, manifest.version, payload.file.as_str());
        let to = self.staged().join("targets").join(placed(&path, &payload.sha256));
        disk::make_directory(to.parent().unwrap_or(&to))?;
        let copy = || -> io::Result<(Sha256, u64)> {
            use io::{Read as _, Write as _};
            let mut source = fs::File::open(from)?.take(payload.size.saturating_add(1));
            let mut copy = durable::Unnamed::with_mode(&to, 0o644)?;
            let (mut hash, mut size, mut chunk) = (sha2::Sha256::new(), 0, vec![0; 256 << 10]);
            loop {
                let read = source.read(&mut chunk)?;
                if read == 0 {
                    break;
                }
                hash.update(&chunk[..read]);
                copy.write_all(&chunk[..read])?;
                size += read as u64;
            }
            let digest = Sha256::from_bytes(hash.finalize().into());
            if (digest, size) == (payload.sha256, payload.size) {
                copy.replace()?;
            }
            Ok((digest, size))
        };
        let (digest, size) = copy().map_err(io_error("copy", from))?;
        if (digest, size) != (payload.sha256, payload.size) {
            let words = |digest: &Sha256, size: u64| format!("{digest}, {size} bytes");
            return Err(AuthoringError::Payload {
                path: from.to_owned(),
                expected: words(&payload.sha256, payload.size),
                found: words(&digest, size),
            });
        }
        Ok(TargetFile { length: size, hashes: Hashes { sha256: digest }, custom: None })
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(repository: &'a Repository, now: Timestamp) -> Result<Self, AuthoringError> {
        let published = Published::read(repository)?;
        Ok(Self { repository, published, now, targets: BTreeMap::new(), changed: BTreeSet::new() })
    }

    /// The root after the published one, to be changed.
    fn root(&self, now: Timestamp) -> Result<Signed<Root>, AuthoringError> {
        let mut root = match self.repository.drafts()?.iter().any(|role| role == "root") {
            true => self.repository.staged_document("root")?,
            false => {
                let mut root = self
                    .published
                    .root
                    .clone()
                    .ok_or_else(|| AuthoringError::Unlisted { what: "root".to_owned() })?;
                root.signed.head.version += 1;
                root
            }
        };
        root.signatures.clear();
        root.signed.head.expires = ends(now, ROOT)?;
        Ok(root)
    }

    /// The current document of `targets` or of a role below it: its draft, or what is published.
    fn current(&mut self, role: &str) -> Result<&Signed<Targets>, AuthoringError> {
        if !self.targets.contains_key(role) {
            let staged = self.repository.staged().join(format!("{role}.json")).exists();
            let document = match staged {
                true => self.repository.staged_document(role)?,
                false => {
                    let published = self.published.role(self.repository, role)?;
                    let fresh = || -> Result<_, AuthoringError> {
                        let head = Head::new("targets", 0, ends(self.now, TARGETS)?);
                        Ok(Signed::unsigned(Targets { head, targets: BTreeMap::new(), delegations: None }))
                    };
                    published.map_or_else(fresh, Ok)?
                }
            };
            self.targets.insert(role.to_owned(), document);
        }
        Ok(&self.targets[role])
    }

    /// The same, to be changed: it is a draft from here on.
    pub(super) fn draft(&mut self, role: &str) -> Result<&mut Signed<Targets>, AuthoringError> {
        self.current(role)?;
        let version = self.published.pins.get(role).map_or(0, |pin| pin.version) + 1;
        let end = ends(self.now, TARGETS)?;
        self.changed.insert(role.to_owned());
        let draft = self.targets.get_mut(role).expect("it was just put there");
        draft.signatures.clear();
        draft.signed.head.version = version;
        draft.signed.head.expires = end;
        Ok(draft)
    }

    fn delegations(&mut self) -> Result<&Delegations, AuthoringError> {
        let unlisted = || AuthoringError::Unlisted { what: "delegation".to_owned() };
        self.current("targets")?.signed.delegations.as_ref().ok_or_else(unlisted)
    }

    /// Lists the files of a version of a manifest, and splits the role if it is too large now.
    pub(super) fn list(
        &mut self,
        name: &str,
        version: u64,
        files: Vec<(String, TargetFile)>,
    ) -> Result<String, AuthoringError> {
        let unlisted = || AuthoringError::Unlisted { what: format!("role for {name}") };
        let role =
            split::role_of(self.delegations()?, name).map(|role| role.name.clone()).ok_or_else(unlisted)?;
        let manifest = format!("{name}/{version}/{MANIFEST}");
        if let Some(known) = self.current(&role)?.signed.targets.get(&manifest) {
            let same = files.iter().any(|(file, new)| file == MANIFEST && new.hashes == known.hashes);
            return match same {
                true => Ok(role),
                false => Err(AuthoringError::VersionTaken { name: name.to_owned(), version }),
            };
        }
        let draft = &mut self.draft(&role)?.signed.targets;
        draft.extend(files.into_iter().map(|(file, target)| (format!("{name}/{version}/{file}"), target)));
        if !split::is_large(draft) {
            return Ok(role);
        }
        let mut listed = self.draft(&role)?.signed.clone();
        let mut delegations = self.delegations()?.clone();
        let new = split::split(&mut delegations, &role, &mut listed);
        if new.is_empty() {
            return Ok(role);
        }
        self.draft(&role)?.signed.targets = listed.targets;
        for (name, targets) in new {
            self.draft(&name)?.signed.targets = targets;
        }
        self.draft("targets")?.signed.delegations = Some(delegations);
        split::role_of(self.delegations()?, name).map(|role| role.name.clone()).ok_or_else(unlisted)
    }

    /// Moves the names with a prefix from wherever they are listed to a new role.
    fn reassign(&mut self, prefix: &str, to: &str) -> Result<(), AuthoringError> {
        let delegations = self.delegations()?.clone();
        let mut moved = BTreeMap::new();
        for role in delegations.roles.iter().filter(|role| role.name != to) {
            let belongs = |path: &str| {
                let name = path.split('/').next().unwrap_or(path);
                name.starts_with(prefix)
                    && split::role_of(&delegations, name).is_some_and(|role| role.name == to)
            };
            if self.current(&role.name)?.signed.targets.keys().any(|path| belongs(path)) {
                let targets = &mut self.draft(&role.name)?.signed.targets;
                moved.extend(
                    targets.iter().filter(|(path, _)| belongs(path)).map(|(p, f)| (p.clone(), f.clone())),
                );
                targets.retain(|path, _| !belongs(path));
            }
        }
        self.draft(to)?.signed.targets = moved;
        Ok(())
    }

    pub(super) fn save(&self) -> Result<(), AuthoringError> {
        for role in &self.changed {
            self.repository.stage(role, &self.targets[role])?;
        }
        Ok(())
    }
}

/// The holders of a role as they are written.
fn keyholders(role: &str, holders: &Holders) -> Result<(BTreeMap<String, Key>, Keyholders), AuthoringError> {
    let keys: BTreeMap<String, Key> = holders.keys.iter().map(Key::new).map(|key| (key.id(), key)).collect();
    let written = Keyholders { keyids: keys.keys().cloned().collect(), threshold: holders.threshold };
    expect_fillable(role, &written)?;
    Ok((keys, written))
}

fn expect_fillable(role: &str, holders: &Keyholders) -> Result<(), AuthoringError> {
    let (keys, threshold) = (holders.keyids.len(), holders.threshold);
    match threshold >= 1 && threshold as usize <= keys {
        true => Ok(()),
        false => Err(AuthoringError::Threshold { role: role.to_owned(), keys, threshold }),
    }
}

/// Whoever takes the machine that publishes must not hold a key of the people, and whoever says what is in a repository
/// need not be able to say who may.
fn expect_apart(root: &Root) -> Result<(), AuthoringError> {
    for (one, other) in [
        ("root", "targets"),
        ("root", "snapshot"),
        ("root", "timestamp"),
        ("targets", "snapshot"),
        ("targets", "timestamp"),
    ] {
        let of = |role: &str| root.roles.get(role).map_or(&[][..], |holders| &holders.keyids);
        if let Some(key) = of(one).iter().find(|key| of(other).contains(key)) {
            return Err(AuthoringError::KeyTwice {
                key: key.clone(),
                one: one.to_owned(),
                other: other.to_owned(),
            });
        }
    }
    Ok(())
}

fn rotate(
    role: &str,
    keys: &mut BTreeMap<String, Key>,
    holders: &mut Keyholders,
    rotation: &Rotation,
) -> Result<(), AuthoringError> {
    for gone in &rotation.remove {
        let is = |id: &String| {
            let own = keys.get(id).and_then(Key::public).map(|key| key.id().to_string());
            id == gone || own.as_ref() == Some(gone)
        };
        let before = holders.keyids.len();
        holders.keyids.retain(|id| !is(id));
        if holders.keyids.len() == before {
            return Err(AuthoringError::Unlisted { what: format!("key {gone} in role {role}") });
        }
    }
    for key in rotation.add.iter().map(Key::new) {
        let id = key.id();
        if !holders.keyids.contains(&id) {
            holders.keyids.push(id.clone());
        }
        keys.insert(id, key);
    }
    holders.keyids.sort_unstable();
    holders.threshold = rotation.threshold.unwrap_or(holders.threshold);
    expect_fillable(role, holders)
}

/// The roles below targets for which one of these keys signs.
fn still_holding(below: &Delegations, gone: &[String]) -> Vec<String> {
    let holds = |keyids: &[String]| {
        keyids
            .iter()
            .any(|id| gone.contains(id) || gone.contains(&known_as(&below.keys, std::slice::from_ref(id))))
    };
    let roles = below.roles.iter().filter(|role| holds(&role.holders.keyids));
    roles.map(|role| role.name.clone()).collect()
}

fn read_manifest(path: &Path) -> Result<(Manifest, Vec<u8>), AuthoringError> {
    let missing = || io_error("read", path)(io::ErrorKind::NotFound.into());
    let bytes = disk::read(path, Envelope::MAX_BYTES)?.ok_or_else(missing)?;
    let envelope = Envelope::parse(&bytes)
        .map_err(|source| AuthoringError::Envelope { path: path.to_owned(), source })?;
    let manifest = Manifest::parse(envelope.unverified_payload())
        .map_err(|source| AuthoringError::Manifest { path: path.to_owned(), source })?;
    Ok((manifest, bytes))
}

pub(super) fn listed(bytes: &[u8], note: Option<Note>) -> TargetFile {
    let custom = note.map(|note| serde_json::json!({ CUSTOM: note }));
    TargetFile { length: bytes.len() as u64, hashes: Hashes { sha256: Sha256::of(bytes) }, custom }
}

/// What is said of a manifest beside it.
fn note(manifest: &Manifest) -> Note {
    let kernels: BTreeSet<KernelRelease> = manifest
        .components
        .iter()
        .filter_map(|component| match component {
            Component::Livepatch(livepatch) => Some(livepatch.kernel.clone()),
            _ => None,
        })
        .collect();
    Note {
        severity: manifest.severity,
        issued: manifest.issued,
        expires: manifest.expires,
        fixes: manifest.fixes.clone(),
        kernels: kernels.into_iter().collect(),
        layers: manifest.components.iter().any(|component| !matches!(component, Component::Livepatch(_))),
    }
}

fn changes_of_targets(old: Option<&Targets>, new: &Targets) -> Vec<String> {
    let empty = BTreeMap::new();
    let before = old.map_or(&empty, |old| &old.targets);
    let mut changes = Vec::new();
    for (path, file) in &new.targets {
        match before.get(path) {
            None => changes.push(format!("lists {path}, sha256 {}", file.hashes.sha256)),
            Some(known) if known.hashes != file.hashes => {
                changes.push(format!("lists OTHER BYTES as {path}"))
            }
            Some(_) => {}
        }
    }
    changes.extend(
        before.keys().filter(|path| !new.targets.contains_key(*path)).map(|path| format!("drops {path}")),
    );
    let roles = |targets: Option<&Targets>| -> Vec<Delegated> {
        targets
            .and_then(|targets| targets.delegations.as_ref())
            .map_or_else(Vec::new, |all| all.roles.clone())
    };
    let (before, after) = (roles(old), roles(Some(new)));
    for role in &after {
        if !before.contains(role) {
            let Keyholders { keyids, threshold } = &role.holders;
            changes.push(format!(
                "leaves {} to {}, {threshold} of {}",
                role.paths.join(" "),
                role.name,
                new.delegations.as_ref().map_or_else(String::new, |all| known_as(&all.keys, keyids))
            ));
        }
    }
    for role in before.iter().filter(|role| after.iter().all(|one| one.name != role.name)) {
        changes.push(format!("takes everything from {}", role.name));
    }
    if changes.is_empty() {
        changes.push(format!("is valid until {}", new.head.expires));
    }
    changes
}

fn changes_of_root(old: Option<&Root>, new: &Root) -> Vec<String> {
    let mut changes = Vec::new();
    for (role, holders) in &new.roles {
        if old.and_then(|old| old.roles.get(role)) != Some(holders) {
            changes.push(format!(
                "{role} is signed by {} of {}",
                holders.threshold,
                known_as(&new.keys, &holders.keyids)
            ));
        }
    }
    if changes.is_empty() {
        changes.push(format!("is valid until {}", new.head.expires));
    }
    changes
}
