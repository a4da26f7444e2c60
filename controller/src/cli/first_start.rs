//! What a first start makes for whoever has nothing yet: the policy of a fleet with one operator, and the first way in.

use std::fs;
use std::path::{Path, PathBuf};

use manifests::{GroupName, KeyName, Nonce, Policy, PublicKey, PublicKeyFile, UtcTime, bounded};
use system::clock::{Clock as _, SystemClock};
use system::durable;
use system::exit::{Exit, Failure};

use super::hosts::after;
use super::serve::unusable;
use crate::authority::Authority;
use crate::enrolment::{self, Terms};

/// What the controller's key is called in a policy that is made here.
const CONTROLLER: &str = "controller";

/// The group of the first hosts.
pub(super) const GROUP: &str = "hosts";

/// How many hosts the first line lets in, and for how long.
pub(super) const HOSTS: u32 = 10;
const TIME: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

fn refuse(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(Exit::Refused, error)
}

/// Sees to it that there is a policy at `path` in which `operator` signs what changes hosts, and this controller grants.
/// Whether it was made; one that is there is left as it is.
pub(super) fn policy(path: &Path, operator: &Path, controller: &PublicKey) -> Result<bool, Failure> {
    let operator = read(operator)?;
    if path.exists() {
        let policy = super::serve::read_policy(path)?;
        let knows = |key: &PublicKey| policy.key(key.id()).is_some();
        if [&operator.public, controller].into_iter().all(knows) {
            return Ok(false);
        }
        return Err(Failure::new(
            Exit::Refused,
            format!("{} is there, and of another fleet or operator", path.display()),
        )
        .because(
            format_args!("the keys {} and {}", operator.public.id(), controller.id()),
            "a policy without one of them",
        )
        .next(format_args!("name it with --policy instead of --operator, or remove {}", path.display())));
    }
    let text = text(&operator, controller)?;
    // What is not one by its own reader is not written.
    Policy::parse(text.as_bytes()).map_err(refuse)?;
    durable::replace(path, text.as_bytes()).map_err(|error| refuse(unusable(path, error)))?;
    // It is to be copied to hosts, and has nothing to hide.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(path, mode).map_err(|error| refuse(unusable(path, error)))?;
    Ok(true)
}

fn read(path: &Path) -> Result<PublicKeyFile, Failure> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Failure::new(Exit::Usage, error)
            .because("a public key of `update key generate`", path.display())
            .next("update key generate --out operator; then again with operator.pub")
    };
    let file = fs::File::open(path).map_err(|error| failed(unusable(path, error).into()))?;
    let bytes = bounded::read(file, PublicKeyFile::MAX_BYTES).map_err(|error| failed(error.into()))?;
    let key = PublicKeyFile::parse(&bytes).map_err(|error| failed(error.into()))?;
    match key.name.to_string() == CONTROLLER {
        true => Err(failed(format!("{CONTROLLER} is what the controller's own key is called").into())),
        false => Ok(key),
    }
}

fn text(operator: &PublicKeyFile, controller: &PublicKey) -> Result<String, Failure> {
    let controller = PublicKeyFile::new(CONTROLLER.parse().map_err(refuse)?, controller.clone());
    let entry = |key: &PublicKeyFile| {
        format!("  - {{name: {}, id: {}, public: \"{}\"}}\n", key.name, key.id, key.public)
    };
    let (now, name) = (UtcTime::floor(SystemClock.now()), &operator.name);
    Ok(format!(
        "# Who may change the hosts of this fleet: one person. A team has a policy of its own (key ceremony).\n\
         schema: 2\nversion: 1\nissued: {now}\nkeys:\n{}{}roles:\n\
         \x20 - {{name: operators, keys: [{name}], threshold: 1}}\n\
         \x20 - {{name: controllers, keys: [{CONTROLLER}], threshold: 1}}\n\
         rules:\n\
         \x20 - {{document: policy, any_of: [[operators]]}}\n\
         \x20 - {{document: revocation, any_of: [[operators]]}}\n\
         \x20 - {{document: manifest, any_of: [[operators]]}}\n\
         \x20 - {{document: rollout, any_of: [[operators]]}}\n\
         \x20 - {{document: order, any_of: [[operators]]}}\n\
         \x20 - {{document: grant, any_of: [[controllers]]}}\n",
        entry(operator),
        entry(&controller),
    ))
}

/// Where such a policy is, in the controller's directory.
pub(super) fn policy_in(directory: &Path) -> PathBuf {
    directory.join("policy.yaml")
}

/// The first hosts' way in: a token, and until when it counts.
pub(super) fn way_in(authority: &Authority, by: &KeyName) -> Result<(Nonce, UtcTime), Failure> {
    let group: GroupName = GROUP.parse().map_err(refuse)?;
    let terms = Terms {
        groups: vec![group],
        domain: "default".parse().map_err(refuse)?,
        role: "host".parse().map_err(refuse)?,
        hosts: HOSTS,
        expires: after(TIME)?,
    };
    let token = enrolment::make(authority, &terms, by).map_err(refuse)?;
    Ok((token, terms.expires))
}

#[cfg(test)]
mod tests {
    use manifests::SecretKey;

    use super::*;

    fn public(seed: u8) -> PublicKey {
        SecretKey::from_seed([seed; 32]).public()
    }

    fn key_file(directory: &Path, name: &str, seed: u8) -> PathBuf {
        let path = directory.join(format!("{name}.pub"));
        fs::write(&path, PublicKeyFile::new(name.parse().unwrap(), public(seed)).to_text()).unwrap();
        path
    }

    #[test]
    fn a_policy_for_one_operator_is_made_once_and_another_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (path, anna) = (policy_in(directory.path()), key_file(directory.path(), "anna", 1));
        assert!(policy(&path, &anna, &public(9)).unwrap());
        let made = fs::read(&path).unwrap();
        let read = Policy::parse(&made).unwrap();
        let now = UtcTime::floor(SystemClock.now());
        for kind in [
            manifests::DocumentKind::Policy,
            manifests::DocumentKind::Manifest,
            manifests::DocumentKind::Rollout,
            manifests::DocumentKind::Order,
            manifests::DocumentKind::Grant,
        ] {
            assert!(read.fillable_at(kind, now), "{kind:?}");
        }
        assert!(!policy(&path, &anna, &public(9)).unwrap(), "the same again changes nothing");
        assert_eq!(fs::read(&path).unwrap(), made);
        let ben = key_file(directory.path(), "ben", 2);
        for (operator, controller) in [(&ben, public(9)), (&anna, public(8))] {
            let refused = policy(&path, operator, &controller).unwrap_err().to_string();
            assert!(refused.contains("of another fleet or operator"), "{refused}");
        }
        assert_eq!(fs::read(&path).unwrap(), made);
    }

    #[test]
    fn what_is_no_public_key_makes_no_policy() {
        let directory = tempfile::tempdir().unwrap();
        let path = policy_in(directory.path());
        let secret = directory.path().join("anna.key");
        fs::write(&secret, SecretKey::from_seed([1; 32]).to_pem().as_bytes()).unwrap();
        let namesake = key_file(directory.path(), "controller", 1);
        for operator in [&secret, &namesake, &directory.path().join("nobody.pub")] {
            assert!(policy(&path, operator, &public(9)).is_err(), "{}", operator.display());
            assert!(!path.exists());
        }
    }
}
