//! `update policy`: look at a trust policy, put a signed one in force, take up revocations.

use std::path::PathBuf;

use jiff::SignedDuration;
use manifests::document::DocumentKind;
use manifests::policy::{Edition, PolicyKey, Role};
use manifests::{Policy, Sha256, UtcTime};
use serde::Serialize;
use serde_json::json;
use system::clock::{Clock as _, SystemClock};
use system::exit::{Exit, Failure, State};

use crate::cli::output::{line, object};
use crate::cli::resume::REVOKED;
use crate::cli::{Global, failures};
use crate::operations::policy::{Installed, TakenUp};
use crate::operations::trust;

/// Keys that end within this time are worth a word now.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Check, install and revoke: whom this host believes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(Check),
    Install(Install),
    Revoke(Revoke),
    ResetClock(ResetClock),
}

/// Put a signed policy in force
///
/// The first one is believed by its fingerprint: without --expect it is printed and nothing is done. Each later one
/// has to be signed under the rules of the one in force and under its own, and no earlier edition is ever taken.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  update policy install team.policy.json --expect 4a5e…\n  update policy install team-7.policy.json"
)]
struct Install {
    /// The signed policy
    policy: PathBuf,
    /// Its fingerprint: the SHA-256 of the signed bytes, from its authors
    #[arg(long, value_name = "SHA256")]
    expect: Option<Sha256>,
}

/// Take up a signed revocation of keys, manifests or payloads, for good
///
/// What is revoked is not accepted any more. What is in force of it stays so, is shown by update status, and is not
/// brought back by a boot unless the policy says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  update policy revoke stolen-key.revocation.json")]
struct Revoke {
    /// The signed revocation
    revocation: PathBuf,
}

/// Forget the latest time that an accepted document proves, which a signer's wrong clock may have set
///
/// Versions and revocations stay. Who did it and why is kept in the journal.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  update policy reset-clock --reason 'the build host was a year ahead'")]
struct ResetClock {
    /// Why, for whoever reads the journal later
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Check that a trust policy is valid and that its roles can be filled today
///
/// Exit code 3 when it is not, or when keys that are revoked or past their time leave a role that
/// nobody can fill any more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  update policy check /etc/update/policy.yaml")]
struct Check {
    /// The policy; the default is the one that the configuration names
    policy: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global) -> Result<(), Failure> {
    match &args.command {
        Command::Check(args) => check(args, global),
        Command::Install(args) => install(args, global),
        Command::Revoke(args) => revoke(args, global),
        Command::ResetClock(args) => reset_clock(args, global),
    }
}

fn install(args: &Install, global: &Global) -> Result<(), Failure> {
    let installed = global.engine()?.install_policy(&args.policy, args.expect).map_err(failures::engine)?;
    if global.json {
        object(&installed);
        return Ok(());
    }
    let Installed { fingerprint, version, issued, replaced } = installed;
    let before = replaced.map(|version| format!(", in place of edition {version}")).unwrap_or_default();
    line(&format!("edition {version}, issued {issued}, is in force{before}"));
    line(&format!("fingerprint {fingerprint}"));
    Ok(())
}

fn revoke(args: &Revoke, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    let taken = engine.revoke(&args.revocation).map_err(failures::engine)?;
    // What is in force already is the operator's next concern.
    let touched = engine.status().map(|status| status.revoked().count()).map_err(failures::engine)?;
    if global.json {
        object(&json!({ "revocation": taken, "in_force": touched }));
    } else {
        let TakenUp { reason, issued, keys, manifests, payloads } = taken;
        line(&format!(
            "revoked since {issued}: {keys} keys, {manifests} manifests, {payloads} payloads ({reason})"
        ));
    }
    if touched == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::NeedsOperator, "this host has what was revoked")
        .state(State::Named(format!(
            "the revocation is remembered; {touched} things of it are in force, as update status shows"
        )))
        .next(REVOKED))
}

/// What was forgotten.
#[derive(Debug, Serialize)]
struct Forgotten {
    forgotten: Option<UtcTime>,
}

fn reset_clock(args: &ResetClock, global: &Global) -> Result<(), Failure> {
    let engine = global.engine()?;
    let forgotten = engine.reset_clock(&args.reason).map_err(failures::engine)?;
    match (global.json, forgotten) {
        (true, forgotten) => object(&Forgotten { forgotten }),
        (false, Some(was)) => line(&format!("forgotten: documents of up to {was} had been accepted")),
        (false, None) => line("there was nothing to forget"),
    }
    Ok(())
}

fn check(args: &Check, global: &Global) -> Result<(), Failure> {
    let path = match &args.policy {
        Some(path) => path.clone(),
        None => global.settings()?.policy,
    };
    let (policy, fingerprint) = trust::read_edition(&path).map_err(failures::trust)?;
    let now = UtcTime::floor(SystemClock.now());
    let report = Report::new(&policy, fingerprint, now);
    if global.json {
        object(&report);
    } else {
        report.print();
    }
    let lacking = policy.lacking_at(now);
    let Some((role, missing)) = lacking.first() else {
        // A policy without a rule for manifests lacks no signature, and lets none through either.
        return match policy.fillable_at(DocumentKind::Manifest, now) {
            true => Ok(()),
            false => Err(Failure::new(Exit::Refused, format!("{} lets no manifest through", path.display()))
                .because("a rule that says who signs manifests", "none")
                .next("add one under rules")),
        };
    };
    Err(Failure::new(Exit::Refused, format!("role {} of {} cannot be filled", role.name, path.display()))
        .because(format!("{} keys in force", role.threshold), format!("{missing} too few"))
        .next("update key generate, and add the new key to the policy"))
}

/// What is shown of a policy.
#[derive(Debug, Serialize)]
struct Report<'a> {
    valid: bool,
    fillable: bool,
    fingerprint: Sha256,
    edition: Option<Edition>,
    roles: &'a [Role],
    keys: Vec<KeyReport<'a>>,
}

#[derive(Debug, Serialize)]
struct KeyReport<'a> {
    #[serde(flatten)]
    key: &'a PolicyKey,
    standing: KeyStanding,
    used: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum KeyStanding {
    InForce,
    EndsSoon,
    Expired,
    Revoked,
}

impl<'a> Report<'a> {
    fn new(policy: &'a Policy, fingerprint: Sha256, now: UtcTime) -> Self {
        let used = |key: &PolicyKey| policy.roles().iter().any(|role| role.keys.contains(&key.name));
        let keys = policy.keys().iter();
        let keys = keys.map(|key| KeyReport { key, standing: KeyStanding::of(key, now), used: used(key) });
        Self {
            valid: true,
            fillable: policy.fillable_at(DocumentKind::Manifest, now),
            fingerprint,
            edition: policy.edition(),
            roles: policy.roles(),
            keys: keys.collect(),
        }
    }

    fn print(&self) {
        let edition =
            self.edition.map(|Edition { version, issued }| format!("edition {version}, issued {issued}"));
        line(&edition.unwrap_or_else(|| "no edition: it can be replaced by hand only".to_owned()));
        line(&format!("fingerprint {}", self.fingerprint));
        for Role { name, keys, threshold, .. } in self.roles {
            let keys: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
            line(&format!("role {name:<18} {threshold} of {}", keys.join(", ")));
        }
        for KeyReport { key, standing, used } in &self.keys {
            let standing = match (standing, key.not_after, key.revoked) {
                (KeyStanding::Revoked, _, Some(since)) => format!("REVOKED since {since}"),
                (KeyStanding::Expired, Some(last), _) => format!("EXPIRED at {last}"),
                (_, Some(last), None) => format!("in force until {last}"),
                (_, _, Some(from)) => format!("in force, to be revoked at {from}"),
                _ => "in force".to_owned(),
            };
            let unused = if *used { "" } else { "; in no role" };
            line(&format!("key  {:<18} {:.16}…  {standing}{unused}", key.name, key.id));
        }
    }
}

impl KeyStanding {
    fn of(key: &PolicyKey, now: UtcTime) -> Self {
        let soon = now.timestamp().saturating_add(SOON).map_or(now, UtcTime::floor);
        match (key.counts_at(now), key.counts_at(soon)) {
            (true, true) => Self::InForce,
            (true, false) => Self::EndsSoon,
            (false, _) if key.revoked.is_some_and(|since| since <= now) => Self::Revoked,
            (false, _) => Self::Expired,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use manifests::SecretKey;

    use super::*;

    /// What a check of a schema-2 policy with these rules comes to.
    fn checked(rules: &str) -> Result<(), Failure> {
        let public = SecretKey::from_seed([1; 32]).public();
        let text = format!(
            "schema: 2\nversion: 1\nissued: 2026-11-01T00:00:00Z\n\
             keys: [{{name: forge, id: {}, public: {public}}}]\n\
             roles: [{{name: build, keys: [forge], threshold: 1}}]\n\
             rules:\n{rules}",
            public.id()
        );
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        check(&Check { policy: Some(path) }, &Global { json: false, config: None })
    }

    const POLICIES: &str = "  - {document: policy, any_of: [[build]]}\n";
    const MANIFESTS: &str = "  - {document: manifest, any_of: [[build]]}\n";

    #[test]
    fn a_policy_without_a_rule_for_manifests_is_refused_and_told_what_it_lacks() {
        let failure = checked(POLICIES).unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused);
        let words = failure.for_person();
        assert!(words.contains("lets no manifest through"), "{words}");
        assert!(words.contains("a rule that says who signs manifests"), "{words}");
        assert!(checked(&format!("{POLICIES}{MANIFESTS}")).is_ok(), "with the rule it passes");
    }
}
