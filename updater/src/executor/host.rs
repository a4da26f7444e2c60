//! What this host is: to its fleet, and to whoever wants to know.

use fleet::local::{Answer, Look, Membership};
use fleet::protocol::HostFacts;
use manifests::{LabelValue, Nonce};

use super::Executor;
use super::answer::words;
use crate::config;
use crate::operations::Engine;
use crate::operations::errand::Member;

impl Executor {
    /// The host's engine, and what this host is in its fleet.
    pub(super) fn engine(&self) -> Result<(Engine, Option<Membership>), String> {
        let membership = config::membership(&self.around.membership).map_err(|error| words(&error))?;
        let groups = membership.as_ref().map_or(&[][..], |membership| &membership.groups);
        let engine = (self.around.engine)(groups).map_err(|error| words(&error))?;
        Ok((engine, membership))
    }

    /// The engine of a host that is in a fleet, and who it is there.
    pub(super) fn member(&self) -> Result<(Engine, Member), String> {
        let (engine, membership) = self.engine()?;
        let membership = membership.ok_or_else(|| {
            let path = self.around.membership.display();
            format!("{path} is not there: this host is in no fleet; update enrol")
        })?;
        let groups = engine.config().groups.clone();
        Ok((engine, Member { host: membership.host, groups }))
    }

    pub(super) fn look(&self) -> Result<Answer, String> {
        let (engine, membership) = self.engine()?;
        let boot = engine.incarnation().boot_id.to_string();
        Ok(Answer::Host(Look {
            host: membership.as_ref().map(|membership| membership.host),
            groups: engine.config().groups.clone(),
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
