//! Writing a rollout document for the fleet that is there: who is first, and how early each part may begin at most.

use std::path::{Path, PathBuf};

use fleet::assurance::{Assurance, assure};
use fleet::host::Host;
use fleet::policy::RolloutPolicy;
use fleet::schedule::schedule;
use fleet::waves::Layout;
use manifests::{
    DocumentKind, Envelope, Manifest, Period, Profile, RollbackAllowed, Rollout, SecretKey, Sha256, Summary,
    UtcTime,
};
use patch_tools::signing::{self, Passphrase};
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure};

use super::asked;
use super::hosts::after;
use crate::client::Client;

/// What a rollout is made of.
#[derive(Debug, clap::Args)]
pub(super) struct Source {
    /// The signed manifest
    pub(super) manifest: PathBuf,
    /// How it goes through the fleet
    #[arg(long, value_name = "FILE")]
    pub(super) policy: PathBuf,
    /// How long the rollout counts
    #[arg(long = "for", value_name = "TIME", default_value = "14d", value_parser = humantime::parse_duration)]
    time: std::time::Duration,
    /// How long after its change a host may be told to go back
    #[arg(long, value_name = "TIME", default_value = "7d")]
    rollback_within: Period,
    /// A rollout that ends when this one begins, besides those of the manifest's earlier versions (may be repeated)
    #[arg(long, value_name = "DIGEST")]
    supersedes: Vec<Sha256>,
    /// By the policy's profile for emergencies
    #[arg(long)]
    emergency: bool,
    /// One line for people: what, and why so
    #[arg(long, value_name = "TEXT")]
    summary: Option<Summary>,
}

/// A rollout that nobody has signed yet.
pub(super) struct Draft {
    pub(super) document: Rollout,
    pub(super) text: String,
    pub(super) assurance: Assurance,
}

pub(super) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| Failure::new(Exit::Refused, error);
    let file = std::fs::File::open(path)
        .map_err(|error| failed(format!("read {}: {error}", path.display()).into()))?;
    manifests::bounded::read(file, limit).map_err(|error| failed(error.into()))
}

pub(super) fn text(path: &Path, limit: usize) -> Result<String, Failure> {
    String::from_utf8(read(path, limit)?).map_err(|error| Failure::new(Exit::Refused, error))
}

pub(super) fn envelope(path: &Path) -> Result<Envelope, Failure> {
    Envelope::parse(&read(path, 2 * DocumentKind::MAX_BYTES)?).map_err(|error| {
        Failure::new(Exit::Refused, error)
            .because("a signed document", path.display())
            .next(format!("patch-tools sign {}", path.display()))
    })
}

/// The manifest in an envelope, for what it says of itself; who signed it, the controller and the hosts judge.
pub(super) fn manifest(envelope: &Envelope) -> Result<Manifest, Failure> {
    Manifest::parse(envelope.unverified_payload()).map_err(|error| Failure::new(Exit::Refused, error))
}

pub(super) fn rollout_policy(path: &Path) -> Result<(RolloutPolicy, String), Failure> {
    let text = text(path, 512 << 10)?;
    let policy = RolloutPolicy::parse(text.as_bytes())
        .map_err(|error| Failure::new(Exit::Refused, error).next("docs/rollout-policy.md"))?;
    Ok((policy, text))
}

/// The hosts that a controller knows.
pub(super) fn inventory(client: &Client) -> Result<Vec<Host>, Failure> {
    let hosts: Vec<serde_json::Value> = client.get("/v1/hosts").map_err(asked)?;
    let host = |mut value: serde_json::Value| {
        for beside in ["name", "last_seen", "cloned"] {
            value.as_object_mut().and_then(|object| object.remove(beside));
        }
        serde_json::from_value(value)
    };
    hosts.into_iter().map(host).collect::<Result<_, _>>().map_err(|error| Failure::new(Exit::Refused, error))
}

/// Everything that does not fit, with its arithmetic.
pub(super) fn unfit(why: &[fleet::assurance::Unfit]) -> Failure {
    let words: Vec<String> = why.iter().map(ToString::to_string).collect();
    Failure::new(Exit::Refused, format!("the policy does not fit this fleet: {}", words.join("; ")))
        .next("update rollout simulate POLICY; docs/rollout-policy.md")
}

impl Source {
    pub(super) fn draft(&self, client: &Client) -> Result<Draft, Failure> {
        let envelope = envelope(&self.manifest)?;
        let manifest = manifest(&envelope)?;
        let (policy, text) = rollout_policy(&self.policy)?;
        let effective = match self.emergency {
            false => policy.clone(),
            true => policy.in_emergency().ok_or_else(|| {
                Failure::new(Exit::Refused, "the policy knows no emergency")
                    .because("a policy with `emergency`", self.policy.display())
            })?,
        };
        let inventory = inventory(client)?;
        // Whom the first wave takes of each kind is drawn; hosts cannot foretell it, nor can who writes the policy.
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| Failure::new(Exit::Refused, error))?;
        let layout = Layout::new(&effective, Sha256::from_bytes(seed), &inventory);
        let issued = UtcTime::floor(SystemClock.now());
        let expires = after(self.time)?;
        let assurance = assure(&effective, &layout, issued, expires).map_err(|why| unfit(&why))?;
        let schedule = schedule(&effective, &layout, issued)
            .ok_or_else(|| Failure::new(Exit::Refused, "the selector names no host"))?;
        let summary = match &self.summary {
            Some(summary) => summary.clone(),
            None => manifest.summary.clone(),
        };
        let document = Rollout {
            schema: Default::default(),
            name: manifest.name.clone(),
            manifest: envelope.payload_digest(),
            policy: Sha256::of(text.as_bytes()),
            issued,
            expires,
            summary,
            profile: if self.emergency { Profile::Emergency } else { Profile::Ordinary },
            groups: effective.selector.groups.clone(),
            supersedes: self.supersedes.clone(),
            schedule,
            rollback: RollbackAllowed { within: self.rollback_within },
        };
        let text = serde_yaml::to_string(&document).map_err(|error| Failure::new(Exit::Bug, error))?;
        // As every reader reads it.
        Rollout::parse(text.as_bytes()).map_err(|error| Failure::new(Exit::Refused, error))?;
        Ok(Draft { document, text, assurance })
    }
}

/// Signs what was written, with each key.
pub(super) fn sign(
    kind: DocumentKind,
    text: &str,
    keys: &[PathBuf],
    passphrase: Option<&Path>,
) -> Result<Envelope, Failure> {
    let mut envelope = Envelope::new(kind, text.as_bytes().to_vec());
    for path in keys {
        let key: SecretKey = signing::read_key(path, &Passphrase::from_file(passphrase))
            .map_err(|error| Failure::new(Exit::Refused, error))?;
        envelope.sign(&key).map_err(|error| Failure::new(Exit::Refused, error))?;
    }
    Ok(envelope)
}
