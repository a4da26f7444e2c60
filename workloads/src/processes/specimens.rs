//! Real processes and mappings for tests: programs that are copied, started, and changed on disk.

#![expect(clippy::disallowed_methods, reason = "real processes are looked at")]

use std::ffi::{OsStr, c_void};
use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::ptr::NonNull;

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::model::Pid;
use crate::processes::mapping;

/// A copy of `sleep` that runs.
pub(crate) struct Running {
    child: Child,
    pub(crate) program: PathBuf,
    pub(crate) directory: tempfile::TempDir,
}

impl Running {
    pub(crate) fn new() -> Self {
        Self::called("sleeper")
    }

    pub(crate) fn called(name: impl AsRef<OsStr>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join(Path::new(name.as_ref()));
        fs::copy("/bin/sleep", &program).unwrap();
        let child = Command::new(&program).arg("600").spawn().unwrap();
        Self::started(child, program, directory)
    }

    /// `program` of `root`, with `root` as its root.
    pub(crate) fn started(child: Child, program: PathBuf, directory: tempfile::TempDir) -> Self {
        let running = Self { child, program, directory };
        // `spawn` returns before the new program is mapped.
        let own = fs::read("/proc/self/comm").unwrap();
        while fs::read(format!("/proc/{}/comm", running.pid())).unwrap() == own || !running.maps_something() {
        }
        running
    }

    /// A program that maps nothing but itself: linked statically, with what Go's linker writes as its only build id.
    /// With `code`, it makes code in memory.
    pub(crate) fn linked_statically(build: &str, code: Code) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("static");
        link_statically(build, &program);
        let argument = match code {
            Code::FromFile => "0",
            Code::InMemory => "1",
        };
        let child = Command::new(&program).arg(argument).stdout(Stdio::piped()).spawn().unwrap();
        let mut running = Self { child, program, directory };
        let mut ready = [0];
        running.child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        running
    }

    fn maps_something(&self) -> bool {
        let mut maps = Vec::new();
        mapping::read(self.pid(), &mut maps).unwrap();
        // The loader comes with the program; the library after it.
        mapping::mapped(&maps).files.iter().any(|one| one.name.windows(5).any(|five| five == b"libc."))
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid(self.child.id())
    }

    /// Puts another file in its place, as package managers do.
    pub(crate) fn replace(&self, with: &str) {
        let new = self.directory.path().join("new");
        fs::copy(with, &new).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, &self.program).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the code of a specimen comes from.
#[derive(Clone, Copy)]
pub(crate) enum Code {
    FromFile,
    InMemory,
}

/// Says that it is ready when it is, and waits.
const WAITS: &str = r#"
    #include <sys/mman.h>
    #include <unistd.h>
    __asm__(".pushsection .note.go.buildid,\"a\",@note\n"
            ".long 4, 2f - 1f, 4\n.ascii \"Go\\0\\0\"\n"
            "1: .ascii \"BUILD\"\n2: .balign 4\n.popsection");
    int main(int argc, char **argv) {
        if (argv[1][0] == '1')
            mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        write(1, "r", 1);
        for (;;) pause();
    }
"#;

/// Links the specimen of that build.
pub(crate) fn link_statically(build: &str, program: &Path) {
    let source = program.with_extension("c");
    fs::write(&source, WAITS.replace("BUILD", build)).unwrap();
    let linked = Command::new("gcc")
        .args(["-w", "-O1", "-static", "-Wl,--build-id=none", "-o"])
        .args([program, &*source])
        .status()
        .expect("gcc is needed to link specimens");
    assert!(linked.success());
}

/// A mapping of this very process.
pub(crate) struct Mapped {
    at: NonNull<c_void>,
}

/// Enough of a file to be seen.
const LENGTH: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

impl Mapped {
    pub(crate) fn shared(file: impl AsFd) -> Self {
        // SAFETY: a new mapping at a place that the kernel chooses; nothing is ever read or written through it.
        let at = unsafe { mmap(None, LENGTH, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0) };
        Self { at: at.unwrap() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `shared`, of that length, which nobody else knows of.
        unsafe { munmap(self.at, LENGTH.get()) }.unwrap();
    }
}

/// Of `include/uapi/asm-generic/fcntl.h`.
const F_SETSIG: i32 = 10;

/// Takes a write lease on a file that nobody else has open: who opens it has to wait, or gets `EWOULDBLOCK`.
pub(crate) fn lease(file: &File) {
    // The holder is told of who waits by a signal, which by default is one that ends it.
    for (request, number) in [(F_SETSIG, libc::SIGURG), (libc::F_SETLEASE, libc::F_WRLCK)] {
        // SAFETY: the descriptor is open, and the argument of these requests is a number (fcntl(2)).
        let done = unsafe { libc::fcntl(file.as_raw_fd(), request, number) };
        assert_eq!(done, 0, "a lease: {}", std::io::Error::last_os_error());
    }
}

/// A file of this content, in a directory of its own.
pub(crate) fn file(content: &[u8]) -> (tempfile::TempDir, PathBuf, File) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, content).unwrap();
    let open = File::options().read(true).write(true).open(&path).unwrap();
    (directory, path, open)
}
