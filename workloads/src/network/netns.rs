//! Doing something inside a network namespace.
//!
//! `setns` changes one thread only, so the work runs on a thread of its own that ends with it:
//! no other thread ever sees the namespace, and children made there live in it.
//!
//! Trap: `/proc/net` follows the *process*'s first thread; inside, read `/proc/thread-self/net`.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, statfs};

use crate::model::NetworkPlace;

/// Runs `work` in the namespace that `place` names; `None` when the namespace is the container's own
/// and so cannot be named from outside.
///
/// # Errors
/// The namespace's file cannot be opened or is not a network namespace.
pub(crate) fn inside<T: Send>(
    place: &NetworkPlace,
    work: impl FnOnce() -> T + Send,
) -> io::Result<Option<T>> {
    match place {
        NetworkPlace::Host => Ok(Some(work())),
        NetworkPlace::Own => Ok(None),
        NetworkPlace::Path(path) | NetworkPlace::Engine(path) => entered(path, work).map(Some),
        NetworkPlace::Unknown(why) => Err(io::Error::other(why.clone())),
    }
}

/// Runs `work` in the namespace behind a file.
pub(crate) fn entered<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Whether the place still names a namespace. A name whose mount is gone is an empty file: after a soft reboot
/// `/run` has what was in it, and nothing is mounted there.
#[must_use]
pub fn is_there(place: &NetworkPlace) -> bool {
    match place {
        // Whatever is made anew is there again.
        NetworkPlace::Host | NetworkPlace::Engine(_) => true,
        NetworkPlace::Own | NetworkPlace::Unknown(_) => false,
        NetworkPlace::Path(path) => {
            statfs(path).is_ok_and(|found| found.filesystem_type() == FsType(libc::NSFS_MAGIC as _))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_lost_its_mount_is_not_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_there(&NetworkPlace::Path(file.path().to_owned())));
        assert!(!is_there(&NetworkPlace::Path("/no/such/namespace".into())));
        assert!(is_there(&NetworkPlace::Path("/proc/self/ns/net".into())));
    }

    #[test]
    fn a_missing_namespace_is_an_error_and_the_work_is_not_done() {
        let place = NetworkPlace::Path("/no/such/namespace".into());
        let error = inside(&place, || panic!("must not run")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_containers_own_namespace_is_not_entered() {
        assert_eq!(inside(&NetworkPlace::Own, || 1).unwrap(), None);
        assert_eq!(inside(&NetworkPlace::Host, || 1).unwrap(), Some(1));
    }

    #[test]
    fn a_file_that_is_no_namespace_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(entered(file.path(), || ()).is_err());
    }
}
