//! Publication, and the daily refresh.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use manifests::SecretKey;
use serde::Serialize;
use sigstore_tuf::metadata as verifier;
use system::clock::SystemClock;
use system::durable;

use crate::authoring::draft::LARGEST;
use crate::authoring::metadata::{
    Document, Head, Key, Keyholders, Meta, Pin, Root, Signed, Targets, known_as,
};
use crate::authoring::{AuthoringError, ONLINE, Repository, disk, ends, io_error};
use crate::client::Client;
use crate::crypto;
use crate::log::store::Appended;
use crate::store::Store;
use crate::transport::Patience;
use crate::transport::file::Files;
use crate::transport::mirrors::{Mirror, Mirrors};

/// How many earlier versions of a document stay, for mirrors and hosts that are in the middle of fetching them.
const KEPT: u64 = 16;

/// What is served.
pub(super) struct Published {
    pub(super) root: Option<Signed<Root>>,
    pub(super) timestamp: Option<Signed<Meta>>,
    pub(super) snapshot: Option<Signed<Meta>>,
    /// `targets` and the roles below it, by name.
    pub(super) pins: BTreeMap<String, Pin>,
}

/// Who must sign what is staged.
pub(super) struct Authorities {
    /// The root before, if there was one.
    old: Option<Root>,
    /// The root after.
    new: Root,
    /// `targets` after.
    targets: Option<Targets>,
}

/// What came of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Publication {
    /// Roles that were published, with their versions.
    pub roles: Vec<(String, u64)>,
    /// The version of the timestamp.
    pub timestamp: u64,
    /// What came into the repository's log; nothing where it has none, or nothing of it is logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logged: Option<Appended>,
}

impl Published {
    pub(super) fn read(repository: &Repository) -> Result<Self, AuthoringError> {
        let metadata = repository.metadata();
        let versions = disk::names(&metadata)?;
        let roots = versions.iter().filter_map(|name| name.strip_suffix(".root.json")?.parse::<u64>().ok());
        let root = roots
            .max()
            .map(|version| read(&metadata, &format!("{version}.root.json")))
            .transpose()?
            .flatten();
        let timestamp: Option<Signed<Meta>> = read(&metadata, "timestamp.json")?;
        let version = timestamp.as_ref().and_then(|timestamp| timestamp.signed.meta.get("snapshot.json"));
        let snapshot = version.map(|pin| read(&metadata, &format!("{}.snapshot.json", pin.version)));
        let snapshot: Option<Signed<Meta>> = snapshot.transpose()?.flatten();
        let pins = snapshot.as_ref().map_or_else(BTreeMap::new, |snapshot| {
            let name =
                |(name, pin): (&String, &Pin)| Some((name.strip_suffix(".json")?.to_owned(), pin.clone()));
            snapshot.signed.meta.iter().filter_map(name).collect()
        });
        Ok(Self { root, timestamp, snapshot, pins })
    }

    /// `targets`, or a role below it.
    pub(super) fn role(
        &self,
        repository: &Repository,
        role: &str,
    ) -> Result<Option<Signed<Targets>>, AuthoringError> {
        match self.pins.get(role) {
            Some(pin) => read(&repository.metadata(), &format!("{}.{role}.json", pin.version)),
            None => Ok(None),
        }
    }

    pub(super) fn authorities(&self, repository: &Repository) -> Result<Authorities, AuthoringError> {
        let drafts = repository.drafts()?;
        let staged = |role: &str| drafts.iter().any(|draft| draft == role);
        let unlisted = || AuthoringError::Unlisted { what: "root".to_owned() };
        let published = self.root.as_ref().map(|root| root.signed.clone());
        let new = match staged("root") {
            true => repository.staged_document::<Root>("root")?.signed,
            false => published.clone().ok_or_else(unlisted)?,
        };
        // After a publication that was cut short, the root that is staged is served already.
        let old = match published {
            Some(root)
                if root.head.version == new.head.version && staged("root") && root.head.version > 1 =>
            {
                let before = format!("{}.root.json", root.head.version - 1);
                read::<Root>(&repository.metadata(), &before)?.map(|root| root.signed)
            }
            Some(root) if root.head.version < new.head.version => Some(root),
            _ => None,
        };
        let targets = match staged("targets") {
            true => Some(repository.staged_document::<Targets>("targets")?.signed),
            false => self.role(repository, "targets")?.map(|targets| targets.signed),
        };
        Ok(Authorities { old, new, targets })
    }
}

fn read<T: Document>(directory: &Path, name: &str) -> Result<Option<Signed<T>>, AuthoringError> {
    let path = directory.join(name);
    disk::read(&path, LARGEST)?.map(|bytes| Signed::parse(&path.display().to_string(), &bytes)).transpose()
}

impl Authorities {
    /// Who must sign a role, each with the keys that are meant. A root needs those before and its own.
    pub(super) fn of(&self, role: &str) -> Vec<(Keyholders, BTreeMap<String, Key>)> {
        let of_root = |root: &Root| root.roles.get(role).map(|holders| (holders.clone(), root.keys.clone()));
        match role {
            "root" => self.old.iter().chain([&self.new]).filter_map(of_root).collect(),
            "targets" | "snapshot" | "timestamp" => of_root(&self.new).into_iter().collect(),
            _ => {
                let delegations = self.targets.as_ref().and_then(|targets| targets.delegations.as_ref());
                let found = delegations
                    .and_then(|all| all.roles.iter().find(|one| one.name == role).map(|one| (all, one)));
                found.map(|(all, one)| (one.holders.clone(), all.keys.clone())).into_iter().collect()
            }
        }
    }

    /// What a draft lacks; nothing if the verifier that clients use takes it.
    pub(super) fn lacking<T: Document>(
        &self,
        role: &str,
        draft: &Signed<T>,
    ) -> Result<Option<String>, AuthoringError> {
        let needed = self.of(role);
        if needed.is_empty() {
            return Ok(Some(format!("{role}: nothing is left to it")));
        }
        for (holders, keys) in needed {
            let Err(why) = verify(role, draft, &holders, &keys)? else { continue };
            let signers = draft.signers(&keys);
            let missing: Vec<String> =
                holders.keyids.iter().filter(|id| !signers.contains(id)).cloned().collect();
            let has = holders.keyids.iter().filter(|id| signers.contains(id)).count();
            return Ok(Some(match has >= holders.threshold as usize {
                // The count says yes and the verifier no: it knows why.
                true => format!("{role}: {why}"),
                false => {
                    format!("{role}: {has} of {}, any of {}", holders.threshold, known_as(&keys, &missing))
                }
            }));
        }
        Ok(None)
    }
}

/// Whether the verifier that clients use counts enough signatures.
fn verify<T: Document>(
    role: &str,
    document: &Signed<T>,
    holders: &Keyholders,
    keys: &BTreeMap<String, Key>,
) -> Result<Result<(), sigstore_tuf::Error>, AuthoringError> {
    crypto::install();
    let bytes = document.to_bytes();
    let convert =
        || -> Result<(BTreeMap<String, sigstore_tuf::Key>, verifier::RoleKeys), serde_json::Error> {
            let keys = serde_json::from_value(serde_json::to_value(keys)?)?;
            Ok((keys, serde_json::from_value(serde_json::to_value(holders)?)?))
        };
    let (keys, holders) =
        convert().map_err(|source| AuthoringError::Malformed { what: format!("keys of {role}"), source })?;
    let kind = serde_json::to_value(&document.signed)
        .ok()
        .and_then(|value| Some(value["_type"].as_str()?.to_owned()));
    Ok(match kind.as_deref() {
        Some("root") => verifier::Metadata::<verifier::Root>::from_slice(&bytes)
            .and_then(|document| document.verify_threshold(&keys, &holders, role)),
        Some("snapshot") => verifier::Metadata::<verifier::Snapshot>::from_slice(&bytes)
            .and_then(|document| document.verify_threshold(&keys, &holders, role)),
        Some("timestamp") => verifier::Metadata::<verifier::Timestamp>::from_slice(&bytes)
            .and_then(|document| document.verify_threshold(&keys, &holders, role)),
        _ => verifier::Metadata::<verifier::Targets>::from_slice(&bytes)
            .and_then(|document| document.verify_threshold(&keys, &holders, role)),
    })
}

/// A document that goes out: its file name and its bytes.
pub(super) type Outgoing = Vec<(String, Vec<u8>)>;

impl Repository {
    /// Publishes everything that is staged, all of it or nothing, and signs that it is up to date.
    ///
    /// # Errors
    /// [`AuthoringError::Unsigned`], [`AuthoringError::NotOnline`], [`AuthoringError::NotAccepted`] and nothing is
    /// published; [`AuthoringError::Io`], and what was served before is still whole.
    pub fn publish(&self, online: &[SecretKey], now: Timestamp) -> Result<Publication, AuthoringError> {
        self.publish_logged(online, None, now)
    }

    /// The same with the key of the repository's log, which it needs where there is one: what comes to be listed is in
    /// the log first.
    ///
    /// # Errors
    /// As [`Repository::publish`], [`AuthoringError::NoLogKey`], [`AuthoringError::Log`].
    pub fn publish_logged(
        &self,
        online: &[SecretKey],
        log_key: Option<&SecretKey>,
        now: Timestamp,
    ) -> Result<Publication, AuthoringError> {
        let _lock = self.lock()?;
        let published = Published::read(self)?;
        let authorities = published.authorities(self)?;
        let (mut roots, mut roles, mut lacking, mut done) =
            (Outgoing::new(), Outgoing::new(), Vec::new(), Vec::new());
        let mut pins = published.pins.clone();
        for role in self.drafts()? {
            let (version, bytes, lacks) = if role == "root" {
                let draft: Signed<Root> = self.staged_document(&role)?;
                (draft.signed.head.version, draft.to_bytes(), authorities.lacking(&role, &draft)?)
            } else {
                let draft: Signed<Targets> = self.staged_document(&role)?;
                (draft.signed.head.version, draft.to_bytes(), authorities.lacking(&role, &draft)?)
            };
            lacking.extend(lacks);
            let file = format!("{version}.{role}.json");
            if role == "root" {
                roots.push((file, bytes));
            } else {
                pins.insert(role.clone(), Pin::of(version, &bytes));
                roles.push((file, bytes));
            }
            done.push((role, version));
        }
        if !lacking.is_empty() {
            return Err(AuthoringError::Unsigned { lacking });
        }
        let (mut last, timestamp) = self.freshly_signed(&published, &authorities, pins, online, now)?;
        let mut outgoing = roles.clone();
        outgoing.append(&mut roots);
        outgoing.append(&mut last);
        self.expect_accepted(&authorities, &outgoing, now)?;
        let logged = self.append_listed(&roles, log_key)?;
        self.publish_targets()?;
        self.write(&outgoing)?;
        for (role, _) in &done {
            let path = self.staged().join(format!("{role}.json"));
            durable::forget(&path).map_err(io_error("remove", &path))?;
        }
        self.prune();
        Ok(Publication { roles: done, timestamp, logged })
    }

    /// Signs once more that what is published is up to date. Leaves alone what is staged.
    ///
    /// # Errors
    /// As [`Repository::publish`].
    pub fn refresh(&self, online: &[SecretKey], now: Timestamp) -> Result<Publication, AuthoringError> {
        let _lock = self.lock()?;
        let published = Published::read(self)?;
        let unlisted = || AuthoringError::Unlisted { what: "publication".to_owned() };
        let new = published.root.as_ref().map(|root| root.signed.clone()).ok_or_else(unlisted)?;
        if published.snapshot.is_none() {
            return Err(unlisted());
        }
        let authorities = Authorities { old: None, new, targets: None };
        let (outgoing, timestamp) =
            self.freshly_signed(&published, &authorities, published.pins.clone(), online, now)?;
        self.write(&outgoing)?;
        self.prune();
        Ok(Publication { roles: Vec::new(), timestamp, logged: None })
    }

    fn freshly_signed(
        &self,
        published: &Published,
        authorities: &Authorities,
        pins: BTreeMap<String, Pin>,
        online: &[SecretKey],
        now: Timestamp,
    ) -> Result<(Outgoing, u64), AuthoringError> {
        let next = |meta: &Option<Signed<Meta>>| meta.as_ref().map_or(0, |meta| meta.signed.head.version) + 1;
        let end = ends(now, ONLINE)?;
        let meta = pins.into_iter().map(|(role, pin)| (format!("{role}.json"), pin)).collect();
        let version = next(&published.snapshot);
        let head = Head::new("snapshot", version, end);
        let snapshot = self.sign_online("snapshot", Meta { head, meta }, authorities, online)?;
        let meta = BTreeMap::from([("snapshot.json".to_owned(), Pin::of(version, &snapshot))]);
        let current = next(&published.timestamp);
        let head = Head::new("timestamp", current, end);
        let timestamp = self.sign_online("timestamp", Meta { head, meta }, authorities, online)?;
        let outgoing =
            vec![(format!("{version}.snapshot.json"), snapshot), ("timestamp.json".to_owned(), timestamp)];
        Ok((outgoing, current))
    }

    fn sign_online(
        &self,
        role: &'static str,
        meta: Meta,
        authorities: &Authorities,
        online: &[SecretKey],
    ) -> Result<Vec<u8>, AuthoringError> {
        let mut document = Signed::unsigned(meta);
        let needed = authorities.of(role);
        for key in online {
            let id = Key::new(&key.public()).id();
            if needed.iter().any(|(holders, _)| holders.keyids.contains(&id)) {
                document.sign(key);
            }
        }
        for (holders, keys) in &needed {
            verify(role, &document, holders, keys)?
                .map_err(|source| AuthoringError::NotOnline { role, source })?;
        }
        Ok(document.to_bytes())
    }

    /// That a client which knows what is served now takes what is to be served: tried with one, beside it.
    fn expect_accepted(
        &self,
        authorities: &Authorities,
        outgoing: &Outgoing,
        now: Timestamp,
    ) -> Result<(), AuthoringError> {
        let trial = self.directory.join(".trial");
        let clean = || match fs::remove_dir_all(&trial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("remove", &trial)(error))
            }
            _ => Ok(()),
        };
        clean()?;
        let place = trial.join("metadata");
        disk::make_directory(&place)?;
        let root_before = match &authorities.old {
            Some(old) => old.head.version,
            None => authorities.new.head.version,
        };
        // What a client may ask for: the roots from the one before on, and all roles that are listed.
        for name in disk::names(&self.metadata())? {
            let from = self.metadata().join(&name);
            fs::hard_link(&from, place.join(&name)).map_err(io_error("link", &from))?;
        }
        for (name, bytes) in outgoing {
            let path = place.join(name);
            // Never through a link into what is served.
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes).map_err(io_error("write", &path))?;
        }
        let root = place.join(format!("{root_before}.root.json"));
        let root = disk::read(&root, LARGEST)?.unwrap_or_default();
        let absolute = fs::canonicalize(&trial).map_err(io_error("find", &trial))?;
        let address = url::Url::from_directory_path(absolute).map_or_else(|()| String::new(), String::from);
        let mirror = Mirror::parse(&address)
            .map_err(|error| io_error("address", &trial)(std::io::Error::other(error.to_string())))?;
        let mirrors = Mirrors::new(vec![mirror], Arc::new(Files), Patience::default(), Arc::new(SystemClock));
        let store = Store::new(&trial.join("store"));
        let changed: Vec<&str> = outgoing.iter().filter_map(|(name, _)| name.split('.').nth(1)).collect();
        let accepted = Client::refresh(&root, &mirrors, &store, now)
            .and_then(|mut client| client.catalogue_of(&changed));
        clean()?;
        accepted.map(drop).map_err(|error| AuthoringError::NotAccepted(Box::new(error)))
    }

    /// Moves staged files to where they are served; they mean nothing before a role lists them.
    fn publish_targets(&self) -> Result<(), AuthoringError> {
        let staged = self.staged().join("targets");
        if !staged.is_dir() {
            return Ok(());
        }
        for name in disk::names(&staged)? {
            for version in disk::names(&staged.join(&name))? {
                let (from, to) =
                    (staged.join(&name).join(&version), self.targets().join(&name).join(&version));
                disk::make_directory(&to)?;
                for file in disk::names(&from)? {
                    let (from, to) = (from.join(&file), to.join(&file));
                    fs::rename(&from, &to).map_err(io_error("move", &from))?;
                }
            }
        }
        durable::sync_file_system(&self.targets()).map_err(io_error("sync", &self.targets()))?;
        durable::remove(&staged).map_err(io_error("remove", &staged))
    }

    /// In this order: what is served is complete after each of them.
    fn write(&self, outgoing: &Outgoing) -> Result<(), AuthoringError> {
        outgoing.iter().try_for_each(|(name, bytes)| disk::write(&self.metadata().join(name), bytes))
    }

    /// Removes versions that nobody fetches any more. Roots stay for good: they lead hosts from theirs to the latest.
    fn prune(&self) {
        let Ok(names) = disk::names(&self.metadata()) else { return };
        let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
        let split = |name: &'_ str| -> Option<(u64, String)> {
            let (version, role) = name.split_once('.')?;
            Some((version.parse().ok()?, role.to_owned()))
        };
        for name in &names {
            if let (Some((version, _)), Some((_, role))) = (split(name), name.split_once('.')) {
                let known = latest.entry(role).or_default();
                *known = version.max(*known);
            }
        }
        for name in &names {
            let Some((version, role)) = split(name) else { continue };
            let newest = latest.get(role.as_str()).copied().unwrap_or(0);
            if role != "root.json" && version + KEPT < newest {
                // It is tried again tomorrow.
                let _ = fs::remove_file(self.metadata().join(name));
            }
        }
    }
}
