//! Control groups: their paths, and whose they are.
//!
//! Only the unified hierarchy (cgroup v2) counts; on a host without it, tasks have no
//! [`CgroupPath`] and nothing is ever frozen. [`Owners`] decides whose a group is: first from the
//! containers that the runtime reports, then from the names that the common runtimes give to their
//! groups. Nothing is guessed beyond that: an unknown group is [`CgroupOwner::Unknown`].
//!
//! Below its own group a container makes groups as it likes and calls them what it likes, in any bytes. So
//! ownership goes by ancestry: from the root downwards, the first group that is somebody's decides for all below
//! it, and their names are not looked at.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use manifests::ContainerId;
use serde::{Deserialize, Serialize};

/// A group's path below the hierarchy's root: `/` or `/a/b`, without `.`, `..` or empty parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupPath(String);

/// A text that is not the path of a group in view.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a control group path: expected / or /a/b without . and ..")]
pub struct CgroupPathError(String);

impl FromStr for CgroupPath {
    type Err = CgroupPathError;

    fn from_str(text: &str) -> Result<Self, CgroupPathError> {
        let below = text.strip_prefix('/').ok_or_else(|| CgroupPathError(text.to_owned()))?;
        let well_formed = below.is_empty()
            || below.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\n'));
        if well_formed { Ok(Self(text.to_owned())) } else { Err(CgroupPathError(text.to_owned())) }
    }
}

impl TryFrom<String> for CgroupPath {
    type Error = CgroupPathError;

    fn try_from(text: String) -> Result<Self, CgroupPathError> {
        text.parse()
    }
}

impl From<CgroupPath> for String {
    fn from(path: CgroupPath) -> Self {
        path.0
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl CgroupPath {
    /// The path as text, with its leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The group named in `/proc/PID/cgroup`: the line with hierarchy 0. `None` for a task that is
    /// not in the unified hierarchy, whose group lies outside this namespace, or was removed.
    #[must_use]
    pub fn from_proc(text: &str) -> Option<Self> {
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        if path.ends_with(" (deleted)") {
            return None;
        }
        path.parse().ok()
    }

    /// The same, as it is in `/proc/PID/cgroup`.
    #[must_use]
    pub fn bytes_from_proc(content: &[u8]) -> Option<&[u8]> {
        content.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))
    }

    /// `self` is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root()
            || self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The root of the hierarchy; it cannot be frozen.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// Where the group's files are, with the hierarchy mounted on `mount`.
    #[must_use]
    pub fn below(&self, mount: &Path) -> PathBuf {
        mount.join(self.0.trim_start_matches('/'))
    }

    fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }
}

/// Whose group it is, which decides whether it may be frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "name")]
pub enum CgroupOwner {
    /// A container, by its runtime's id.
    Container(ContainerId),
    /// A systemd service of the host, by its unit.
    Service(String),
    /// The root group, `init.scope`, or a group that this program is in: never frozen.
    Protected,
    /// Anything else: login sessions, groups made by hand.
    Unknown,
}

impl fmt::Display for CgroupOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(id) => write!(f, "container {id}"),
            Self::Service(unit) => write!(f, "service {unit}"),
            Self::Protected => f.write_str("the host itself"),
            Self::Unknown => f.write_str("no container"),
        }
    }
}

/// A container that the runtime reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownContainer {
    /// Its id.
    pub id: ContainerId,
    /// Its group; groups below it are its own, too.
    pub cgroup: CgroupPath,
}

/// Tells whose a group is.
#[derive(Clone, Debug)]
pub struct Owners {
    /// The group that this program runs in; `None` outside the unified hierarchy.
    own: Option<CgroupPath>,
    containers: Vec<KnownContainer>,
}

/// Prefixes of systemd scopes that container engines make: `docker-<id>.scope` and so on.
const SCOPES: [&str; 5] = ["docker-", "libpod-", "crio-", "cri-containerd-", "runc-"];

impl Owners {
    /// For a program that runs in `own`.
    #[must_use]
    pub fn new(own: Option<CgroupPath>, containers: Vec<KnownContainer>) -> Self {
        Self { own, containers }
    }

    /// Whose `cgroup` is.
    #[must_use]
    pub fn owner(&self, cgroup: &CgroupPath) -> CgroupOwner {
        self.place(cgroup.as_str().as_bytes()).owner
    }

    /// Whose a task's group is, by its path as the kernel shows it in `/proc/PID/cgroup`.
    #[must_use]
    pub fn place(&self, path: &[u8]) -> Place {
        let whole = std::str::from_utf8(path).ok().and_then(|text| text.parse::<CgroupPath>().ok());
        let (owner, group) = match self.of_container(path) {
            Some((id, group)) => (CgroupOwner::Container(id), Some(group)),
            None => match whole {
                Some(whole) => (Self::owner_of_host_group(&whole), Some(whole)),
                None => (CgroupOwner::Unknown, None),
            },
        };
        // Freezing a group freezes everything below it, so every ancestor of the own group is out of bounds.
        let holds_us = |group: &CgroupPath| self.own.as_ref().is_some_and(|own| own.is_within(group));
        match group {
            Some(group) if group.is_root() || holds_us(&group) => {
                Place { owner: CgroupOwner::Protected, group: Some(group) }
            }
            group => Place { owner, group },
        }
    }

    fn of_container(&self, path: &[u8]) -> Option<(ContainerId, CgroupPath)> {
        let is_within = |group: &CgroupPath| {
            let rest = path.strip_prefix(group.as_str().as_bytes());
            !group.is_root() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let known = self.containers.iter().filter(|container| is_within(&container.cgroup));
        if let Some(known) = known.max_by_key(|container| container.cgroup.as_str().len()) {
            return Some((known.id.clone(), known.cgroup.clone()));
        }
        let ends = path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        // From the root downwards: what stands below a container's group is named by the container.
        ends.chain([path.len()]).find_map(|end| {
            let group: CgroupPath = std::str::from_utf8(&path[..end]).ok()?.parse().ok()?;
            let id = container_by_name(group.parts().next_back()?)?;
            Some((id, group))
        })
    }

    fn owner_of_host_group(group: &CgroupPath) -> CgroupOwner {
        match group.parts().next() {
            None | Some("init.scope") => CgroupOwner::Protected,
            // Login sessions, and what users' own systemd makes of them.
            Some("user.slice") => CgroupOwner::Unknown,
            Some(_) => {
                let unit = group.parts().find(|part| part.ends_with(".service"));
                unit.map_or(CgroupOwner::Unknown, |unit| CgroupOwner::Service(unit.to_owned()))
            }
        }
    }
}

/// The systemd units that a task is in, by the names of its groups.
///
/// For people, who ask systemd about them: whoever may make groups may call them as he likes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Units {
    /// The service or scope of the host.
    pub unit: Option<String>,
    /// Below a user's own systemd: its service or scope.
    pub user_unit: Option<String>,
}

impl Units {
    /// Those of a group, by its path as the kernel shows it in `/proc/PID/cgroup`.
    #[must_use]
    pub fn of(path: &[u8]) -> Self {
        let is_unit = |part: &&[u8]| part.ends_with(b".service") || part.ends_with(b".scope");
        let name = |part: &[u8]| std::str::from_utf8(part).ok().map(str::to_owned);
        let mut parts = path.split(|byte| *byte == b'/');
        let Some(unit) = parts.find(is_unit) else { return Self::default() };
        let user_unit = match unit.starts_with(b"user@") {
            true => parts.find(is_unit).and_then(name),
            false => None,
        };
        Self { unit: name(unit), user_unit }
    }
}

/// Whose group a task is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose it is.
    pub owner: CgroupOwner,
    /// The group that is all of its owner's: a container's own, whichever group below it the task is in; else the
    /// task's. Absent if it has no name that can be written down, or lies outside of our view.
    pub group: Option<CgroupPath>,
}

/// The container id in the name of a group, by the habits of the common engines.
fn container_by_name(part: &str) -> Option<ContainerId> {
    if let Some(scope) = part.strip_suffix(".scope") {
        // `libpod-conmon-<id>.scope` holds the monitor of the container, not the container.
        return SCOPES
            .iter()
            .find_map(|prefix| scope.strip_prefix(prefix))
            .filter(|id| !id.starts_with("conmon-"))
            .and_then(|id| id.parse().ok());
    }
    let is_engine_id = part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_engine_id.then(|| part.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> CgroupPath {
        text.parse().unwrap()
    }

    fn owner(text: &str) -> CgroupOwner {
        let known = KnownContainer { id: "web-1".parse().unwrap(), cgroup: path("/runc/web-1") };
        Owners::new(Some(path("/system.slice/update.service")), vec![known]).owner(&path(text))
    }

    #[test]
    fn a_group_outside_the_namespace_or_removed_has_no_path() {
        assert_eq!(CgroupPath::from_proc("0::/../../x\n"), None);
        assert_eq!(CgroupPath::from_proc("0::/web-1 (deleted)\n"), None);
        assert_eq!(CgroupPath::from_proc("4:memory:/web-1\n"), None);
        assert_eq!(CgroupPath::from_proc("1:name=systemd:/a\n0::/web-1\n"), Some(path("/web-1")));
    }

    #[test]
    fn within_compares_whole_components() {
        assert!(path("/runc/web-1/sub").is_within(&path("/runc/web-1")));
        assert!(!path("/runc/web-10").is_within(&path("/runc/web-1")));
        assert!(path("/a").is_within(&path("/")));
    }

    #[test]
    fn the_root_init_and_every_group_above_this_program_are_protected() {
        for group in ["/", "/init.scope", "/system.slice", "/system.slice/update.service"] {
            assert_eq!(owner(group), CgroupOwner::Protected, "{group}");
        }
    }

    #[test]
    fn a_group_below_a_reported_container_belongs_to_it() {
        assert_eq!(owner("/runc/web-1"), CgroupOwner::Container("web-1".parse().unwrap()));
        assert_eq!(
            owner("/runc/web-1/system.slice/a.service"),
            CgroupOwner::Container("web-1".parse().unwrap())
        );
    }

    #[test]
    fn engines_are_known_by_the_names_of_their_groups() {
        let id = "a".repeat(64);
        for group in [
            format!("/system.slice/docker-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope/container"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("/kubepods/besteffort/pod1/{id}"),
        ] {
            assert_eq!(owner(&group), CgroupOwner::Container(id.parse().unwrap()), "{group}");
        }
    }

    #[test]
    fn the_monitor_of_a_container_is_not_the_container() {
        let id = "a".repeat(64);
        assert_eq!(owner(&format!("/machine.slice/libpod-conmon-{id}.scope")), CgroupOwner::Unknown);
    }

    #[test]
    fn services_and_sessions_are_told_apart() {
        assert_eq!(owner("/system.slice/cron.service"), CgroupOwner::Service("cron.service".to_owned()));
        assert_eq!(owner("/user.slice/user-0.slice/session-1.scope"), CgroupOwner::Unknown);
    }

    #[test]
    fn units_are_the_outermost_of_the_host_and_of_a_user() {
        let units = |path: &str| {
            let Units { unit, user_unit } = Units::of(path.as_bytes());
            (unit.unwrap_or_default(), user_unit.unwrap_or_default())
        };
        let both = |unit: &str, user: &str| (unit.to_owned(), user.to_owned());
        assert_eq!(units("/system.slice/cron.service"), both("cron.service", ""));
        assert_eq!(
            units("/system.slice/system-getty.slice/getty@tty1.service"),
            both("getty@tty1.service", "")
        );
        assert_eq!(units("/system.slice/a.service/b.service"), both("a.service", ""));
        assert_eq!(units("/init.scope"), both("init.scope", ""));
        assert_eq!(units("/user.slice/user-0.slice/session-1.scope"), both("session-1.scope", ""));
        let below = "/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(units(&format!("{below}/app.slice/x.service")), both("user@1000.service", "x.service"));
        assert_eq!(units(below), both("user@1000.service", ""));
        assert_eq!(units("/runc/web"), both("", ""));
        assert_eq!(Units::of(b"/system.slice/\xff\xfe.service").unit, None);
    }

    #[test]
    fn what_a_container_calls_its_groups_decides_nothing() {
        let engines = format!("/system.slice/docker-{}.scope", "b".repeat(64));
        for (of, group) in [("web-1", "/runc/web-1"), (&*"b".repeat(64), &*engines)] {
            for below in [
                &b"/init.scope"[..],
                b"/user.slice/user-0.slice/session-1.scope",
                b"/system.slice/update.service",
                b"/docker-cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc.scope",
                b"/\xff\xfe",
                b"/gone (deleted)",
                b"/ (deleted)",
            ] {
                let own = Some(path("/system.slice/update.service"));
                let known = KnownContainer { id: "web-1".parse().unwrap(), cgroup: path("/runc/web-1") };
                let place = Owners::new(own, vec![known]).place(&[group.as_bytes(), below].concat());
                assert_eq!(place.owner, CgroupOwner::Container(of.parse().unwrap()), "{group}{below:?}");
                assert_eq!(place.group, Some(path(group)), "the container as a whole is frozen");
            }
        }
    }

    #[test]
    fn a_users_own_systemd_makes_no_services_of_the_host_and_none_of_its_groups_is_protected() {
        for group in [
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/cron.service",
        ] {
            assert_eq!(owner(group), CgroupOwner::Unknown, "{group}");
        }
        assert_eq!(owner("/system.slice/a.service/b.service"), CgroupOwner::Service("a.service".to_owned()));
    }

    #[test]
    fn a_group_out_of_view_or_without_a_name_that_can_be_written_is_nobodys() {
        for odd in [&b"/../../x"[..], b"/\xff", b"/gone (deleted)/../x", b""] {
            let place = Owners::new(None, Vec::new()).place(odd);
            assert_eq!((place.owner, place.group), (CgroupOwner::Unknown, None), "{odd:?}");
        }
    }
}
