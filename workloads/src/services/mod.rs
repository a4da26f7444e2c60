//! Services of the host, as systemd runs them.
//!
//! systemd restarts them, all that are asked for in one go: so it sees to their order and conflicts, leaves the sockets
//! of socket units open, and hands a service the descriptors that it had put into its store.
//!
//! What this does not do: enable, mask, or edit units, and decide which services are restarted; [`caution`] says of which
//! that is not a matter of course.

pub mod systemd;

use manifests::ServiceName;
use serde::{Deserialize, Serialize};
use system::command::CommandError;

pub use self::systemd::Systemd;

/// A service as systemd sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its unit.
    pub name: ServiceName,
    /// Whether it runs, in systemd's word: `active`, `activating`, `inactive`, `failed`.
    pub active: String,
    /// What `Type=` says.
    pub kind: String,
    /// Which run of it this is; another one after every start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// How often systemd has restarted it by itself since somebody started it.
    pub restarts: u32,
    /// How it came to an end, if it did: `success`, `exit-code`, `watchdog`, …
    pub result: String,
    /// Why it cannot be restarted by hand, in systemd's word, if it cannot: `RefuseManualStop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuses: Option<String>,
    /// Socket units that start it, and keep its sockets open while it does not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<String>,
    /// How many descriptors systemd keeps for it.
    #[serde(default)]
    pub kept_descriptors: u32,
}

impl Service {
    /// Whether it runs, and is done with starting.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active == "active"
    }

    /// Whether it has come to a bad end, and nobody has started it since.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.active == "failed"
    }

    /// How it stands, for people: `active`, `failed (exit-code)`.
    #[must_use]
    pub fn standing(&self) -> String {
        match self.result.as_str() {
            "" | "success" => self.active.clone(),
            result => format!("{} ({result})", self.active),
        }
    }

    /// Whether both are one and the same run of it.
    #[must_use]
    pub fn is_the_same_run_as(&self, other: &Self) -> bool {
        self.invocation.is_some() && self.invocation == other.invocation
    }
}

/// The service manager.
pub trait Services {
    /// How these stand, in this order. One that it does not know is `inactive`.
    ///
    /// # Errors
    /// [`ServiceError`].
    fn look(&self, names: &[ServiceName]) -> Result<Vec<Service>, ServiceError>;

    /// Restarts them, and starts those that do not run, together; waits until systemd calls them started. Units that
    /// changed on disk are read again before.
    ///
    /// # Errors
    /// [`ServiceError`]; some may have been restarted then.
    fn restart(&self, names: &[ServiceName]) -> Result<(), ServiceError>;
}

/// A request to the service manager that failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A command could not be run, or said no.
    #[error("{doing}")]
    Command {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: CommandError,
    },
    /// What it says is not as expected.
    #[error("systemd's answer about {name} is not as expected: {found:?}")]
    Answer {
        /// The service.
        name: ServiceName,
        /// The answer.
        found: String,
    },
}

/// Services whose restart takes away what people and networks are in the middle of, by their names and what that is.
/// Most are of needrestart's own list.
const CAUTIONS: [(&str, &str); 26] = [
    ("systemd-logind", "login sessions hang on it"),
    ("user@", "it is a user's own session"),
    ("getty@", "somebody may be logged in on it"),
    ("serial-getty@", "somebody may be logged in on it"),
    ("container-getty@", "somebody may be logged in on it"),
    ("console-getty", "somebody may be logged in on it"),
    ("autovt@", "somebody may be logged in on it"),
    ("gdm", "graphical sessions hang on it"),
    ("gdm3", "graphical sessions hang on it"),
    ("lightdm", "graphical sessions hang on it"),
    ("sddm", "graphical sessions hang on it"),
    ("display-manager", "graphical sessions hang on it"),
    ("dbus", "the message bus of the host hangs on it"),
    ("dbus-broker", "the message bus of the host hangs on it"),
    ("networking", "the host's network hangs on it"),
    ("ifup@", "the host's network hangs on it"),
    ("NetworkManager", "the host's network hangs on it"),
    ("systemd-networkd", "the host's network hangs on it"),
    ("wpa_supplicant", "the host's network hangs on it"),
    ("dhcpcd", "the host's network hangs on it"),
    ("docker", "containers may end with it"),
    ("containerd", "containers hang on it"),
    ("libvirtd", "virtual machines hang on it"),
    ("lxcfs", "containers hang on it"),
    ("iscsid", "file systems hang on it"),
    ("multipathd", "file systems hang on it"),
];

/// Beginning of the names of this program's own units.
const OWN: &str = "update-";

/// Why a service is not restarted as a matter of course; nothing of most.
#[must_use]
pub fn caution(name: &ServiceName) -> Option<&'static str> {
    let unit = name.as_str().strip_suffix(".service").unwrap_or(name.as_str());
    if unit.starts_with(OWN) {
        return Some("it is this program's own");
    }
    let is = |known: &str| match known.strip_suffix('@') {
        Some(template) => unit.split_once('@').is_some_and(|(name, _)| name == template),
        None => unit == known,
    };
    CAUTIONS.iter().find(|(known, _)| is(known)).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_people_and_networks_hang_on_call_for_caution_and_others_do_not() {
        for (name, word) in [
            ("systemd-logind.service", "login"),
            ("user@1000.service", "session"),
            ("getty@tty1.service", "logged in"),
            ("dbus.service", "bus"),
            ("networking.service", "network"),
            ("update-agent.service", "own"),
            ("update-resume.service", "own"),
            ("docker.service", "containers"),
        ] {
            let why = caution(&name.parse().unwrap());
            assert!(why.is_some_and(|why| why.contains(word)), "{name}: {why:?}");
        }
        for name in [
            "nginx.service",
            "ssh.service",
            "postgresql@15-main.service",
            "gettysburg.service",
            "dbus-x.service",
        ] {
            assert_eq!(caution(&name.parse().unwrap()), None, "{name}");
        }
    }
}
