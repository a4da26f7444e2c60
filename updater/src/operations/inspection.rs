//! What a payload really is, beside what a manifest says of it: the module's own tables, and where it is said to come from.
//!
//! Looked at only where the payload is there and is the signed one. Nothing of a module is run. What is said of where it
//! comes from lies beside it: `NAME.intoto.json` (provenance, as `patch-tools build` writes it), `NAME.rebuild.json` (the
//! word of somebody who built it again, `patch-tools verify --statement`), and both in envelopes, as `patch-tools sign
//! --type evidence` makes them (`NAME.intoto.evidence.json`).

use std::fs::File;
use std::io;
use std::path::Path;

use manifests::bounded;
use manifests::provenance::Origin;
use manifests::{
    Envelope, FileName, ImageComponent, ImageDigest, KeyId, KeyName, LivepatchComponent, Payload, Policy,
    Sha256, TrustFloor, UtcTime,
};
use patch_tools::check::{Finding, Severity};
use patch_tools::module::{Module, Replace};
use serde::Serialize;
use system::error::with_causes;
use workloads::images::ImageArchive;

use crate::kernel::preflight::claims;

/// The largest record of an origin that is read.
const MAX_RECORD: usize = 4 << 20;

/// What a livepatch's module is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "module", rename_all = "kebab-case")]
pub enum Inspection {
    /// It was read.
    Read(Box<Content>),
    /// It is no module, or not one that can be read: no host loads it.
    Unreadable {
        /// Why.
        why: String,
    },
}

/// What is in a module, and how that stands to the claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Content {
    /// What the kernel will call it.
    pub name: Option<String>,
    /// Its build.
    pub build_id: Option<String>,
    /// The kernel that it was built for.
    pub kernel: Option<String>,
    /// What its tables say that it patches.
    pub patches: Vec<ObjectFound>,
    /// Whether it takes the place of other livepatches.
    pub replace: Option<Replace>,
    /// Functions of it that run when it is enabled or disabled, with when.
    pub callbacks: Vec<(String, String)>,
    /// Whether a signature for the kernel's own check is appended; it is not verified here.
    pub kernel_signature: bool,
    /// Where it differs from the claim, the worst first.
    pub differences: Vec<Finding>,
}

/// An object that a module patches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObjectFound {
    /// `vmlinux` or a module.
    pub object: String,
    /// Functions with their positions among those of one name; 0 says that there is one.
    pub functions: Vec<(String, u64)>,
}

impl Content {
    /// Whether no host would refuse it for what it patches.
    pub fn agrees(&self) -> bool {
        self.differences.iter().all(|finding| finding.severity != Severity::Refuse)
    }
}

/// What an image's payload is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "image", rename_all = "kebab-case")]
pub enum ImageFound {
    /// It has the image, and every byte of that is what its digests say.
    Read {
        /// The digest of its manifest.
        manifest: ImageDigest,
        /// What it runs on: `linux/amd64`.
        platform: String,
        /// How many layers it has.
        layers: usize,
        /// What they unpack to, in bytes.
        unpacked: u64,
    },
    /// It has not, or something is amiss with it: no host takes it.
    Unreadable {
        /// Why.
        why: String,
    },
}

/// A record of where a payload comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OriginFound {
    /// Its file.
    pub file: String,
    /// What it says; nothing if it says nothing of these bytes.
    #[serde(flatten)]
    pub says: Option<Origin>,
    /// Why it says nothing.
    pub problem: Option<String>,
    /// Keys of the policy whose signatures of it hold; nothing of one without an envelope.
    pub signed_by: Option<Vec<KeyName>>,
    /// Keys whose signatures do not count: not the policy's, or not holding.
    pub not_counting: Vec<KeyId>,
}

/// Reads the image of a component from a file that has its bytes, all of it.
pub fn inspect_image(component: &ImageComponent, directory: &Path) -> ImageFound {
    let read = || -> Result<ImageFound, Box<dyn std::error::Error>> {
        let file = File::open(directory.join(component.payload.file.as_str()))?;
        let archive = ImageArchive::open(&file, &component.image)?;
        Ok(ImageFound::Read {
            manifest: archive.manifest(),
            platform: archive.platform().to_string(),
            layers: archive.diff_ids().count(),
            unpacked: archive.check_layers()?,
        })
    };
    read().unwrap_or_else(|error| ImageFound::Unreadable { why: with_causes(&*error) })
}

/// Reads the module of a component from a file that has its bytes.
pub fn inspect(component: &LivepatchComponent, directory: &Path) -> Inspection {
    let payload = &component.payload;
    let unreadable = |why: String| Inspection::Unreadable { why };
    let bytes = match read(&directory.join(payload.file.as_str()), payload.size) {
        Ok(bytes) => bytes,
        Err(error) => return unreadable(error.to_string()),
    };
    if Sha256::of(&bytes) != payload.sha256 {
        return unreadable("it was changed while it was looked at".to_owned());
    }
    let module = match Module::parse(&bytes) {
        Ok(module) => module,
        Err(error) => return unreadable(error.to_string()),
    };
    let mut differences = claims(component, &module);
    differences.sort_by_key(|finding| finding.severity);
    let objects = module.objects().iter().map(|object| ObjectFound {
        object: object.name.to_string(),
        functions: object
            .functions
            .iter()
            .map(|function| (function.old_name.clone(), function.sympos))
            .collect(),
    });
    let callbacks = module.objects().iter().flat_map(|object| object.callbacks.iter());
    Inspection::Read(Box::new(Content {
        patches: objects.collect(),
        callbacks: callbacks.map(|(when, name)| (when.to_owned(), name.to_owned())).collect(),
        replace: module.livepatch.as_ref().map(|livepatch| livepatch.replace),
        kernel: module.release().map(str::to_owned),
        kernel_signature: module.signature.is_some(),
        name: module.name,
        build_id: module.build_id,
        differences,
    }))
}

fn read(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let limit = usize::try_from(size).map_err(io::Error::other)?;
    bounded::read(file, limit).map_err(io::Error::other)
}

/// The records beside a payload; of each kind the one in an envelope, if there is one.
pub fn origins(
    payload: &Payload,
    directory: &Path,
    policy: &Policy,
    floor: &TrustFloor,
    now: UtcTime,
) -> Vec<OriginFound> {
    let stem = stem(&payload.file);
    let found = ["intoto", "rebuild"].into_iter().filter_map(|kind| {
        let names = [format!("{stem}.{kind}.evidence.json"), format!("{stem}.{kind}.json")];
        names.into_iter().find_map(|file| {
            let bytes = match std::fs::File::open(directory.join(&file)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                opened => {
                    opened.and_then(|opened| bounded::read(opened, MAX_RECORD).map_err(io::Error::other))
                }
            };
            Some(match bytes {
                Ok(bytes) => judge(file, &bytes, payload.sha256, policy, floor, now),
                Err(error) => silent(file, error.to_string()),
            })
        })
    });
    found.collect()
}

fn stem(file: &FileName) -> &str {
    let name = file.as_str();
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

fn silent(file: String, why: String) -> OriginFound {
    OriginFound { file, says: None, problem: Some(why), signed_by: None, not_counting: Vec::new() }
}

fn judge(
    file: String,
    bytes: &[u8],
    of: Sha256,
    policy: &Policy,
    floor: &TrustFloor,
    now: UtcTime,
) -> OriginFound {
    let envelope = if file.ends_with(".evidence.json") {
        match Envelope::parse(bytes) {
            Ok(envelope) if envelope.payload_type() == manifests::statement::PAYLOAD_TYPE => Some(envelope),
            Ok(envelope) => return silent(file, format!("its payload type is {}", envelope.payload_type())),
            Err(error) => return silent(file, error.to_string()),
        }
    } else {
        None
    };
    let statement = envelope.as_ref().map_or(bytes, |envelope| envelope.unverified_payload());
    let (says, problem) = match Origin::parse(statement, of) {
        Ok(origin) => (Some(origin), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let (mut signed_by, mut not_counting) = (Vec::new(), Vec::new());
    if let Some(envelope) = &envelope {
        let message = envelope.signed_bytes();
        for signature in envelope.signatures() {
            let known = policy.keys().iter().find(|key| key.id == signature.key);
            let counts = known.filter(|key| {
                let in_time = key.counts_at(now) && !floor.revoked.keys.contains_key(&key.id);
                in_time && key.public.verifies(&message, &signature.bytes)
            });
            match counts {
                Some(key) => signed_by.push(key.name.clone()),
                None => not_counting.push(signature.key),
            }
        }
    }
    OriginFound { file, says, problem, signed_by: envelope.map(|_| signed_by), not_counting }
}
