//! Programs of others, and environments with packages from PyPI.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program; whether it succeeded, and what it said.
#[expect(clippy::disallowed_methods, reason = "a test runs a peer")]
pub(crate) fn run(program: &Path, arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

/// The interpreter of an environment that has a package, made once for each package and kept in the build directory.
/// `trial` runs where everything is there.
pub(crate) fn environment(package: &str, more: &[&str], trial: &str) -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(package);
    let python = home.join("bin/python");
    // Tests run in processes of their own, at once.
    let lock = std::fs::File::create(home.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !run(Path::new("python3"), &["--version"]).0 {
        panic!("python3 is needed: apt-get install python3 python3-venv");
    }
    if !python.exists() || !run(&python, &["-c", trial]).0 {
        let (made, words) = run(Path::new("python3"), &["-m", "venv", "--clear", home.to_str().unwrap()]);
        assert!(made, "python3-venv is needed: {words}");
        let install = ["-m", "pip", "install", "--quiet", package];
        let (installed, words) = run(&python, &[&install, more].concat());
        assert!(installed, "{words}");
    }
    python
}
