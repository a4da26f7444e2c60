//! Who runs this program: kept with each record of the journal.

use std::fmt;

use manifests::Sha256;
use serde::{Deserialize, Serialize};

/// Who runs this program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The user that the program ran as.
    pub uid: u32,
    /// The user that logged in, as the kernel keeps it (`/proc/self/loginuid`).
    pub login_uid: Option<u32>,
    /// The user that `sudo` says it ran for.
    pub sudo_user: Option<String>,
}

impl Author {
    /// Whoever runs this process.
    #[expect(
        clippy::disallowed_methods,
        reason = "whom sudo ran it for is told there and nowhere else; nothing depends on it"
    )]
    pub fn current() -> Self {
        // 4294967295 is what the kernel says of who never logged in.
        let login =
            std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
        let sudo = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty() && name.len() <= 64);
        Self {
            uid: nix::unistd::getuid().as_raw(),
            login_uid: login.filter(|uid| *uid != u32::MAX),
            sudo_user: sudo,
        }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)?;
        if let Some(user) = &self.sudo_user {
            write!(f, ", by sudo for {user}")?;
        }
        match self.login_uid {
            Some(login) if login != self.uid => write!(f, ", logged in as uid {login}"),
            _ => Ok(()),
        }
    }
}

/// Who wrote a record, and by whose word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Who ran the program.
    #[serde(flatten)]
    pub author: Author,
    /// The grant of a controller by which this host's executor acted; `null` of an operator's command.
    pub grant: Option<Sha256>,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.grant {
            Some(grant) => write!(f, "{}, for the fleet by grant {grant:.12}…", self.author),
            None => write!(f, "{}", self.author),
        }
    }
}
