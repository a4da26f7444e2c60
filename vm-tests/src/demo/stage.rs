//! Everything that is there before the curtain rises: programs, keys, policy, manifests, and a guest with a
//! running container.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::fixtures::Fixtures;
use crate::lab::cache::Recipe;
use crate::lab::host::{self, Step};
use crate::lab::machine::{Machine, Snapshot};
use crate::lab::spec::MachineSpec;
use crate::lab::{Lab, kernel::DEFAULT_RELEASE};

/// Where manifests and payloads are in the guest.
pub const GUEST_DIR: &str = "/root/manifests";

/// Programs and signed manifests on this machine.
#[derive(Debug)]
pub struct Stage {
    fixtures: Fixtures,
    programs: Programs,
    bench: tempfile::TempDir,
}

/// The built programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `update`, with the boundaries at which the lab can cut the power.
    pub update: PathBuf,
    /// `patch-tools`.
    pub patch_tools: PathBuf,
}

impl Programs {
    /// Build them as they are in this workspace.
    ///
    /// # Errors
    /// If cargo fails.
    pub fn build() -> Result<Self> {
        let step = Step::begin("building update and patch-tools");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's folder")?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .current_dir(root)
            .args(["build", "--quiet", "--locked", "--profile", "lab", "-p", "updater", "-p", "patch-tools"])
            .args(["--features", "updater/power-cuts"])
            .status()?;
        ensure!(status.success(), "cargo build ended with {status}");
        step.end();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(Self { update: target.join("lab/update"), patch_tools: target.join("lab/patch-tools") })
    }
}

impl Stage {
    /// Build and sign everything.
    ///
    /// # Errors
    /// If something cannot be built or signed.
    pub fn set(lab: &Lab) -> Result<Self> {
        let programs = Programs::build()?;
        let fixtures = Fixtures::build(lab)?;
        let stage = Self { fixtures, programs, bench: tempfile::tempdir()? };
        for name in ["build", "security"] {
            let key = stage.file(name);
            stage.host(&stage.programs.update, &["key", "generate", "--out", &key])?;
        }
        fs::write(stage.path("policy.yaml"), stage.policy()?)?;
        for payload in [
            &stage.fixtures.livepatch_cmdline,
            &stage.fixtures.livepatch_version,
            &stage.fixtures.layer_fixed,
            &stage.fixtures.layer_broken,
        ] {
            fs::copy(payload, stage.bench.path().join(payload.file_name().context("a payload's name")?))?;
        }
        let fixtures = &stage.fixtures;
        let good = Update {
            name: "greet-2026-001",
            summary: "Close the hole in /proc/cmdline and in libgreet",
            livepatch: &fixtures.livepatch_cmdline,
            module: "livepatch_cmdline",
            function: "cmdline_proc_show",
            layer: &fixtures.layer_fixed,
            replaces: &fixtures.vulnerable_build_id,
        };
        let bad = Update {
            name: "greet-2026-002",
            summary: "A second fix that does not work",
            livepatch: &fixtures.livepatch_version,
            module: "livepatch_version",
            function: "version_proc_show",
            layer: &fixtures.layer_broken,
            replaces: &fixtures.fixed_build_id,
        };
        stage.sign(&good)?;
        stage.sign(&bad)?;
        Ok(stage)
    }

    /// A snapshot of a guest in which the container runs; kept in the cache.
    ///
    /// # Errors
    /// If the guest cannot be brought there.
    pub fn container(&self, lab: &Lab) -> Result<Snapshot> {
        let spec = MachineSpec::with_kernel(DEFAULT_RELEASE);
        let recipe = Recipe::of([self.fixtures.identity()]);
        lab.snapshot("container", &spec, recipe, |machine| self.fixtures.install(machine))
    }

    /// Put programs, units, policy and manifests into a guest.
    ///
    /// # Errors
    /// If the guest cannot be reached.
    pub fn dress(&self, machine: &Machine) -> Result<()> {
        let guest = machine.guest();
        guest.push(&self.programs.update, "/usr/bin/update")?;
        guest.push(&self.programs.patch_tools, "/usr/bin/patch-tools")?;
        let dist =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's folder")?.join("dist");
        push_tree(machine, &dist, Path::new("/"))?;
        guest.write_file("/etc/update/policy.yaml", &fs::read(self.path("policy.yaml"))?, 0o644)?;
        for entry in fs::read_dir(self.bench.path())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).context("a file's name")?;
            if name.ends_with(".manifest.json") || name.ends_with(".ko") || name.ends_with(".zst") {
                guest.push(&path, &format!("{GUEST_DIR}/{name}"))?;
            }
        }
        machine.sh(
            "systemctl daemon-reload && systemctl enable update-resume.service update-guard.service && sync",
        )?;
        Ok(())
    }

    fn sign(&self, update: &Update<'_>) -> Result<()> {
        let yaml = self.path(&format!("{}.yaml", update.name));
        let signed = self.path(&format!("{}.manifest.json", update.name));
        fs::write(&yaml, update.manifest()?)?;
        let (yaml, signed) = (yaml.display().to_string(), signed.display().to_string());
        let key = |name: &str| format!("{}.key", self.file(name));
        self.host(&self.programs.patch_tools, &["sign", &yaml, "--key", &key("build"), "-o", &signed])?;
        self.host(&self.programs.patch_tools, &["sign", &signed, "--key", &key("security"), "-o", &signed])
    }

    fn policy(&self) -> Result<String> {
        let mut keys = String::new();
        for name in ["build", "security"] {
            let public = fs::read_to_string(format!("{}.pub", self.file(name)))?;
            for (number, line) in
                public.lines().filter(|line| !line.trim_start().starts_with('#')).enumerate()
            {
                keys.push_str(if number == 0 { "  - " } else { "    " });
                keys.push_str(line);
                keys.push('\n');
            }
        }
        Ok(format!(
            "schema: 1\nkeys:\n{keys}roles:\n  - {{name: build, keys: [build], threshold: 1}}\n  - {{name: security-review, keys: [security], threshold: 1}}\n"
        ))
    }

    fn host(&self, program: &Path, arguments: &[&str]) -> Result<()> {
        host::run(Command::new(program).args(arguments)).map(drop)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.bench.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

/// One manifest of the demo.
struct Update<'a> {
    name: &'a str,
    summary: &'a str,
    livepatch: &'a Path,
    module: &'a str,
    function: &'a str,
    layer: &'a Path,
    replaces: &'a str,
}

impl Update<'_> {
    fn manifest(&self) -> Result<String> {
        let (ko, ko_digest, ko_size) = payload(self.livepatch)?;
        let (tar, tar_digest, tar_size) = payload(self.layer)?;
        let (issued, expires) = (date("-1 hour")?, date("+30 days")?);
        let Self { name, summary, module, function, replaces, .. } = self;
        Ok(format!(
            "schema: 1
name: {name}
version: 1
issued: {issued}
expires: {expires}
severity: high
summary: {summary}
fixes: [CVE-2026-0001]
targets: {{arch: [x86_64], kernels: [{DEFAULT_RELEASE}]}}
components:
  - kind: livepatch
    module: {module}
    payload: {{file: {ko}, sha256: {ko_digest}, size: {ko_size}}}
    kernel: {DEFAULT_RELEASE}
    patches: [{{object: vmlinux, functions: [{{name: {function}}}]}}]
    transition: {{deadline: 60s}}
  - kind: layer
    payload: {{file: {tar}, sha256: {tar_digest}, size: {tar_size}}}
    format: tar+zstd
    replaces: [{{path: /usr/lib/libgreet.so.1, build_id: {replaces:?}}}]
    without_checkpoint: fail
    probes:
      - {{kind: exec, command: [/usr/bin/greetd, --probe], timeout: 2m, interval: 500ms, successes: 1}}
settle: 1s
"
        ))
    }
}

/// A time relative to now, as manifests write it.
fn date(offset: &str) -> Result<String> {
    let text = host::run(Command::new("date").args(["-u", "-d", offset, "+%Y-%m-%dT%H:%M:%SZ"]))?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

fn payload(path: &Path) -> Result<(String, String, usize)> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let name = path.file_name().and_then(|name| name.to_str()).context("a payload's name")?;
    Ok((name.to_owned(), format!("{:?}", hex::encode(Sha256::digest(&bytes))), bytes.len()))
}

fn push_tree(machine: &Machine, from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a file's name")?);
        if path.is_dir() {
            push_tree(machine, &path, &target)?;
        } else {
            machine.guest().push(&path, &target.display().to_string())?;
        }
    }
    Ok(())
}
