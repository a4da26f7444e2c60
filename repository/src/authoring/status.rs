//! What ends when, and whose signatures are missing.

use jiff::{SignedDuration, Timestamp};
use manifests::UtcTime;
use serde::Serialize;

use crate::authoring::metadata::{Root, Signed, Targets};
use crate::authoring::publish::Published;
use crate::authoring::{AuthoringError, OFFLINE_ALARM, ONLINE_ALARM, Repository};

/// A repository as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// What is served.
    pub roles: Vec<RoleStatus>,
    /// What is staged.
    pub drafts: Vec<DraftStatus>,
}

/// A document that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleStatus {
    /// The role.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// From when on clients refuse it.
    pub expires: UtcTime,
    /// How many manifests it lists.
    pub manifests: usize,
    /// Whether it is time to do something.
    pub standing: Standing,
}

/// Whether a document has to be signed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Not yet.
    Valid,
    /// Now: it ends soon.
    EndsSoon,
    /// It should have been: clients refuse it.
    Expired,
}

/// A draft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DraftStatus {
    /// The role.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// What it lacks; nothing if it can be published.
    pub lacks: Option<String>,
}

impl Standing {
    fn of(expires: UtcTime, alarm: SignedDuration, now: Timestamp) -> Self {
        let left = expires.timestamp().duration_since(now);
        match (left <= SignedDuration::ZERO, left <= alarm) {
            (true, _) => Self::Expired,
            (false, true) => Self::EndsSoon,
            (false, false) => Self::Valid,
        }
    }
}

impl Status {
    /// What has to be signed again.
    pub fn due(&self) -> impl Iterator<Item = &RoleStatus> {
        self.roles.iter().filter(|role| role.standing != Standing::Valid)
    }
}

impl Repository {
    /// What is served and what is staged.
    ///
    /// # Errors
    /// [`AuthoringError`].
    pub fn status(&self, now: Timestamp) -> Result<Status, AuthoringError> {
        let published = Published::read(self)?;
        let mut roles = Vec::new();
        let mut push = |role: &str, version, expires, manifests, alarm| {
            let standing = Standing::of(expires, alarm, now);
            roles.push(RoleStatus { role: role.to_owned(), version, expires, manifests, standing });
        };
        if let Some(root) = &published.root {
            push("root", root.signed.head.version, root.signed.head.expires, 0, OFFLINE_ALARM);
        }
        for role in published.pins.keys() {
            if let Some(targets) = published.role(self, role)? {
                let manifests = targets.signed.targets.keys();
                let manifests =
                    manifests.filter(|path| crate::client::catalogue::manifest_of(path).is_some()).count();
                push(
                    role,
                    targets.signed.head.version,
                    targets.signed.head.expires,
                    manifests,
                    OFFLINE_ALARM,
                );
            }
        }
        for (role, meta) in [("snapshot", &published.snapshot), ("timestamp", &published.timestamp)] {
            if let Some(meta) = meta {
                push(role, meta.signed.head.version, meta.signed.head.expires, 0, ONLINE_ALARM);
            }
        }
        let authorities = published.authorities(self)?;
        let mut drafts = Vec::new();
        for role in self.drafts()? {
            let (version, lacks) = if role == "root" {
                let draft: Signed<Root> = self.staged_document(&role)?;
                (draft.signed.head.version, authorities.lacking(&role, &draft)?)
            } else {
                let draft: Signed<Targets> = self.staged_document(&role)?;
                (draft.signed.head.version, authorities.lacking(&role, &draft)?)
            };
            drafts.push(DraftStatus { role, version, lacks });
        }
        Ok(Status { roles, drafts })
    }
}
