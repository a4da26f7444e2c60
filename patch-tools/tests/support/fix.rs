//! Fixes for the stock kernel that tests build: edits of its source, as the patches that an author would write.
//!
//! The source comes from the cache, which the first test that needs it fills: a minute or two, once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use patch_tools::build::cache::Cache;
use patch_tools::build::kernel::{Kernel, KernelChoice};
use patch_tools::build::progress::Quiet;
use patch_tools::build::tree::Tree;

/// The kernel of the lab.
pub(crate) const KERNEL: &str = "6.1.0-50-amd64";

/// The prepared tree of the kernel.
pub(crate) fn tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(|| {
        let cache = Cache::of_user().unwrap();
        let kernel =
            Kernel::obtain(&cache, &KernelChoice::Packages(KERNEL.parse().unwrap()), &Quiet).unwrap();
        Tree::obtain(&cache, &kernel.tree, 2, &Quiet).unwrap()
    })
}

/// The content of a file of the kernel.
pub(crate) fn original(path: &str) -> String {
    fs::read_to_string(tree().source().join(path)).unwrap()
}

/// A file of the kernel in which the first `from` is `to`.
pub(crate) fn edited(path: &str, from: &str, to: &str) -> String {
    let content = original(path);
    assert!(content.contains(from), "{path} has no {from:?}");
    content.replacen(from, to, 1)
}

/// The unified diff of a file of the kernel and its new content.
pub(crate) fn patch(path: &str, content: &str) -> String {
    diff(path, &original(path), content)
}

/// The unified diff between two contents.
pub(crate) fn diff(path: &str, old: &str, new: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut diff = Command::new("diff");
    diff.arg("-u").current_dir(directory.path());
    for (side, content) in [("a", old), ("b", new)] {
        fs::write(directory.path().join(side), content).unwrap();
        diff.arg("--label").arg(format!("{side}/{path}"));
    }
    let output = diff.args(["a", "b"]).output().expect("diff is needed to make patches");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A fix that any test can use: `/proc/cmdline` says one more word.
pub(crate) fn cmdline() -> String {
    let path = "fs/proc/cmdline.c";
    patch(path, &edited(path, "\tseq_puts(m, saved", "\tseq_puts(m, \"fixed \");\n\tseq_puts(m, saved"))
}

/// A directory with a patch in it.
pub(crate) struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// `patch-tools` with arguments, run here.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patch-tools"));
        command.args(arguments).current_dir(self.path());
        command
    }

    /// Runs `patch-tools`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs `patch-tools`, which prints JSON and ends with a code.
    pub(crate) fn json(&self, arguments: &[&str], code: i32) -> serde_json::Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
    }
}

/// The strings of a JSON list.
pub(crate) fn strings(value: &serde_json::Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}
