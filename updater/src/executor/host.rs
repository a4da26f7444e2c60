//! What this host is: to its fleet, and to whoever wants to know.

use std::collections::BTreeSet;
use std::path::Path;

use fleet::local::{Answer, Look, Membership};
use fleet::protocol::HostFacts;
use manifests::{GroupName, LabelValue, Nonce};

use super::Executor;
use super::answer::words;
use crate::config::Config;
use crate::operations::errand::Member;

impl Executor {
    /// Who this host is in its fleet.
    pub(super) fn member(&self, config: &Config) -> Result<(Member, Membership), String> {
        let path = &self.around.membership;
        let membership = read(path)?.ok_or_else(|| {
            format!("{} is not there: this host is in no fleet; update enrol", path.display())
        })?;
        let groups = groups(config, Some(&membership));
        Ok((Member { host: membership.host, groups }, membership))
    }

    pub(super) fn look(&self) -> Result<Answer, String> {
        let engine = (self.around.engine)().map_err(|error| words(&error))?;
        let membership = read(&self.around.membership)?;
        let boot = engine.incarnation().boot_id.to_string();
        Ok(Answer::Host(Look {
            host: membership.as_ref().map(|membership| membership.host),
            groups: groups(engine.config(), membership.as_ref()),
            facts: HostFacts {
                name: label(&nix::unistd::gethostname().unwrap_or_default().to_string_lossy()),
                kernel: engine.kernel().release.clone(),
                cpu: cpu(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
                services: Vec::new(),
            },
            boot: nonce(&boot)?,
            epoch: engine.seen().map_err(|error| words(&error))?.epoch,
        }))
    }
}

fn groups(config: &Config, membership: Option<&Membership>) -> Vec<GroupName> {
    let enrolled = membership.into_iter().flat_map(|membership| &membership.groups);
    let groups: BTreeSet<GroupName> = config.groups.iter().chain(enrolled).cloned().collect();
    groups.into_iter().collect()
}

/// What this host is in its fleet; nothing if it is in none.
fn read(path: &Path) -> Result<Option<Membership>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let facts = file.metadata().map_err(|error| failed(&error))?;
    crate::config::expect_unchangeable(&facts, path).map_err(|error| failed(&error))?;
    let bytes = manifests::bounded::read(file, Membership::MAX_BYTES).map_err(|error| failed(&error))?;
    Membership::parse(&bytes).map(Some).map_err(|error| failed(&words(&error)))
}

/// Any text as a label: what a label cannot hold becomes a dash.
fn label(text: &str) -> LabelValue {
    let kept: String = text
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(63)
        .collect();
    let kept = kept.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let kept = if kept.is_empty() { "unknown" } else { kept };
    kept.parse().expect("letters, digits, dots, dashes and underscores, a letter or digit at both ends")
}

/// The processor's model.
fn cpu(cpuinfo: &str) -> LabelValue {
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    label(model.map_or("unknown", |(_, model)| model))
}

/// A boot id as the fleet writes it: its digits.
fn nonce(boot: &str) -> Result<Nonce, String> {
    boot.replace('-', "").parse().map_err(|error| format!("the boot id {boot}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_calls_itself_becomes_a_label() {
        let model = "processor\t: 0\nmodel name\t: AMD EPYC 7B13 (64) @ 2.2GHz\n";
        assert_eq!(cpu(model).as_str(), "AMD-EPYC-7B13--64----2.2GHz");
        assert_eq!(cpu("").as_str(), "unknown");
        assert_eq!(label("\u{1b}[2J").as_str(), "2J");
        assert_eq!(label("---").as_str(), "unknown");
        assert_eq!(label(&"x".repeat(200)).as_str().len(), 63);
        assert_eq!(
            nonce("3b18e1b0-8d0c-4f3c-9f21-0d8a7f0f8c11").unwrap().to_string(),
            "3b18e1b08d0c4f3c9f210d8a7f0f8c11"
        );
    }
}
