//! Containers of users' own engines, which root's engines do not know. They are found and told, so that nobody takes them for
//! fixed, and left alone.
//!
//! Such a container has a scope of the user's systemd, whose name says what made it:
//! `user-1000.slice/user@1000.service/user.slice/libpod-ID.scope`.

use std::fs;
use std::path::Path;

use crate::model::Unreadable;

/// Where systemd's users have their control groups.
pub(super) const USERS: &str = "/sys/fs/cgroup/user.slice";

/// How far below it a container's group lies.
const DEPTH: usize = 5;

/// What the names of scopes begin with, and the engine that made them.
const ENGINES: [(&str, &str); 3] = [("libpod-", "podman"), ("docker-", "docker"), ("nerdctl-", "nerdctl")];

/// podman's own process beside a container.
const CONMON: &str = "conmon-";

/// All below the control groups of users.
pub(super) fn told(users: &Path) -> Vec<Unreadable> {
    let mut told = Vec::new();
    let mut waiting = vec![(users.to_path_buf(), DEPTH)];
    while let Some((directory, depth)) = waiting.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some((engine, id)) = container(&name) {
                let user = directory.strip_prefix(users).unwrap_or(&directory).display();
                told.push(Unreadable {
                    container: format!("{engine}:{}", id.get(..12).unwrap_or(id)),
                    why: format!("it is rootless, of a user's own {engine} ({user}), and is left alone"),
                });
            } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push((entry.path(), depth - 1));
            }
        }
    }
    told.sort_by(|a, b| a.container.cmp(&b.container));
    told
}

/// The engine and the container of a scope.
fn container(scope: &str) -> Option<(&'static str, &str)> {
    let name = scope.strip_suffix(".scope")?;
    let (engine, id) =
        ENGINES.iter().find_map(|(prefix, engine)| Some((*engine, name.strip_prefix(prefix)?)))?;
    (!id.starts_with(CONMON)).then_some((engine, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_users_containers_are_told_with_their_engine_and_their_user() {
        let users = tempfile::tempdir().unwrap();
        let of_alice = "user-1000.slice/user@1000.service";
        for group in [
            "user.slice/libpod-0123456789abcdef.scope/container",
            "user.slice/libpod-conmon-0123456789abcdef.scope",
            "user.slice/docker-fedcba9876543210.scope",
            "app.slice/nerdctl-aa.scope",
            "app.slice/docker.service/inner",
            "session.slice/dbus.service",
        ] {
            fs::create_dir_all(users.path().join(of_alice).join(group)).unwrap();
        }
        let told = told(users.path());
        let names: Vec<&str> = told.iter().map(|one| one.container.as_str()).collect();
        assert_eq!(names, ["docker:fedcba987654", "nerdctl:aa", "podman:0123456789ab"]);
        assert!(
            told[0].why.contains("of a user's own docker (user-1000.slice/user@1000.service"),
            "{}",
            told[0].why
        );
        assert!(super::told(Path::new("/nonexistent")).is_empty());
    }
}
