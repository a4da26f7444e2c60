//! Who signs: makes keys and a trust policy, writes manifests, and signs them with the real programs.
//!
//! Two roles have to agree, as in a company: `build` (one key) and `security-review` (two of three).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixtures::greet::{LIBRARY, Library, digest_and_size};
use crate::fixtures::livepatch::Livepatch;
use crate::lab::control::Guest;
use crate::lab::host::{built, program, run};
use crate::product::Product;
use crate::scene::Props;

/// The keys that exist, and that sign a manifest unless a test wants otherwise.
pub const KEYS: [&str; 4] = ["build-2026", "alice", "bob", "carol"];
/// Enough signatures for every role.
pub const SIGNERS: [&str; 3] = ["build-2026", "alice", "bob"];
/// Where a release is put in a guest.
pub const RELEASES: &str = "/root/releases";

/// Keys, and the programs that use them.
#[derive(Debug)]
pub struct Publisher {
    dir: TempDir,
    product: Product,
}

/// A manifest to be written; the payloads are those of the scene.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Name of the manifest.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Kernel fix.
    pub livepatch: Option<Livepatch>,
    /// Library that the layer brings; it replaces [`Library::Vulnerable`] and [`Library::Fixed`],
    /// whichever of them is not itself.
    pub library: Option<Library>,
    /// How long the transition may take.
    pub deadline: String,
    /// YAML of what may be done to tasks that are stuck; empty for nothing.
    pub stuck: String,
    /// YAML of what narrows the containers; empty for none.
    pub containers: String,
    /// What becomes of a container that cannot be checkpointed: `fail`, `skip` or `restart`.
    pub without_checkpoint: String,
    /// What goes back when a container fails: `all`, or `workload`.
    pub on_failure: String,
    /// YAML of the layer's probes.
    pub probes: String,
    /// How long everything has to stay well before the commit.
    pub settle: String,
}

impl Draft {
    /// Fixes the kernel and the library, and works.
    pub fn fix() -> Self {
        Self {
            name: "greet-2026-001".to_owned(),
            version: 1,
            livepatch: Some(Livepatch::Cmdline),
            library: Some(Library::Fixed),
            deadline: "60s".to_owned(),
            stuck: String::new(),
            containers: "\n    containers:\n      labels: [{name: tier, value: web}]".to_owned(),
            without_checkpoint: "fail".to_owned(),
            on_failure: "all".to_owned(),
            probes: "
      - {kind: http, url: \"http://127.0.0.1:8080/health\", status: 200, timeout: 20s, interval: 500ms}
      - {kind: exec, command: [/usr/bin/greetd, --check], timeout: 2m, interval: 500ms}"
                .to_owned(),
            settle: "1s".to_owned(),
        }
    }

    /// Fixes one more function, and breaks the library: its probe fails.
    pub fn broken() -> Self {
        Self {
            name: "greet-2026-002".to_owned(),
            livepatch: Some(Livepatch::Version),
            library: Some(Library::Broken),
            ..Self::fix()
        }
    }

    /// The manifest's text.
    pub fn yaml(&self, props: &Props, kernel: &str) -> Result<String> {
        let day = Duration::from_secs(24 * 3600);
        let (issued, expires) =
            (timestamp(SystemTime::now() - day)?, timestamp(SystemTime::now() + 30 * day)?);
        let mut yaml = format!(
            "schema: 1\nname: {}\nversion: {}\nissued: {issued}\nexpires: {expires}\nseverity: critical\n\
            summary: Hide the secrets that the kernel and libgreet show\nfixes: [CVE-2026-0001]\n\
            targets: {{arch: [x86_64], kernels: [{kernel}]}}\ncomponents:\n",
            self.name, self.version
        );
        if let Some(patch) = self.livepatch {
            let (sha256, size) = digest_and_size(&props.livepatches.path(patch))?;
            yaml += &format!(
                "  - kind: livepatch
    module: {module}
    payload: {{file: {file}, sha256: {sha256}, size: {size}}}
    kernel: {kernel}
    patches:
      - object: vmlinux
        functions: [{{name: {function}}}]
    replace: {replace}
    transition:
      deadline: {deadline}{stuck}\n",
                deadline = self.deadline,
                stuck = self.stuck,
                module = patch.module_name(),
                file = patch.file_name(),
                function = patch.function().unwrap_or("none"),
                replace = if patch.replaces_all() { "all" } else { "none" },
            );
        }
        if let Some(library) = self.library {
            let (sha256, size) = digest_and_size(&props.greet.layer(library))?;
            let mut replaced = String::new();
            for old in [Library::Vulnerable, Library::Fixed].into_iter().filter(|old| *old != library) {
                replaced +=
                    &format!("\n      - {{path: {LIBRARY}, build_id: {}}}", props.greet.build_id(old)?);
            }
            yaml += &format!(
                "  - kind: layer
    payload: {{file: {file}, sha256: {sha256}, size: {size}}}
    format: tar+zstd
    replaces:{replaced}{containers}
    without_checkpoint: {without_checkpoint}
    on_failure: {on_failure}
    probes:{probes}\n",
                file = layer_name(library),
                containers = self.containers,
                without_checkpoint = self.without_checkpoint,
                on_failure = self.on_failure,
                probes = self.probes,
            );
        }
        yaml += &format!("settle: {}\nrollback: {{on_failure: automatic}}\n", self.settle);
        Ok(yaml)
    }

    /// Files of this host that go with the manifest, and their names beside it.
    pub fn payloads(&self, props: &Props) -> Vec<(PathBuf, String)> {
        let livepatch =
            self.livepatch.map(|patch| (props.livepatches.path(patch), patch.file_name().to_owned()));
        let layer = self.library.map(|library| (props.greet.layer(library), layer_name(library)));
        livepatch.into_iter().chain(layer).collect()
    }
}

fn layer_name(library: Library) -> String {
    format!("greet-{}.tar.zst", library.number())
}

impl Publisher {
    /// Makes the keys.
    pub fn new(product: &Product) -> Result<Self> {
        let publisher = Self { dir: tempfile::tempdir()?, product: product.clone() };
        for key in KEYS {
            run(tool(&product.update).args(["key", "generate", "--out"]).arg(publisher.file(key)))?;
        }
        Ok(publisher)
    }

    /// A trust policy for the keys.
    pub fn policy(&self) -> Result<String> {
        let mut policy = "schema: 1\nkeys:\n".to_owned();
        for name in KEYS {
            let key = self.public(name)?;
            let (id, public) = (text(&key, "id")?, text(&key, "public")?);
            policy += &format!("  - {{name: {name}, id: {id}, public: \"{public}\"}}\n");
        }
        policy += "roles:
  - {name: build, keys: [build-2026], threshold: 1}
  - {name: security-review, keys: [alice, bob, carol], threshold: 2}\n";
        Ok(policy)
    }

    /// A trust policy for the same keys, and for a fleet: these keys (their names in this publisher's directory, without
    /// `.pub`) sign rollouts and orders, and grants.
    ///
    /// # Errors
    /// If the keys cannot be read.
    pub fn fleet_policy(&self, people: &str, controller: &str) -> Result<String> {
        let mut keys = String::new();
        for name in KEYS.into_iter().chain([people, controller]) {
            let key = self.public(name)?;
            let (id, public) = (text(&key, "id")?, text(&key, "public")?);
            keys += &format!("  - {{name: {name}, id: {id}, public: \"{public}\"}}\n");
        }
        Ok(format!(
            "schema: 2
version: 1
issued: 2026-01-01T00:00:00Z
keys:
{keys}roles:
  - {{name: build, keys: [build-2026], threshold: 1}}
  - {{name: security-review, keys: [alice, bob, carol], threshold: 2}}
  - {{name: operators, keys: [{people}], threshold: 1}}
  - {{name: controllers, keys: [{controller}], threshold: 1}}
rules:
  - {{document: policy, any_of: [[security-review]]}}
  - {{document: manifest, any_of: [[build, security-review]]}}
  - {{document: rollout, any_of: [[operators]]}}
  - {{document: order, any_of: [[operators]]}}
  - {{document: grant, any_of: [[controllers]]}}
"
        ))
    }

    /// Makes one more key; its private part.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn key(&self, name: &str) -> Result<PathBuf> {
        run(tool(&self.product.update).args(["key", "generate", "--out"]).arg(self.file(name)))?;
        Ok(self.file(&format!("{name}.key")))
    }

    /// Signs a manifest by each of `signers`, and returns the envelope.
    pub fn sign(&self, yaml: &str, signers: &[&str]) -> Result<Vec<u8>> {
        let (manifest, envelope) =
            (self.dir.path().join("manifest.yaml"), self.dir.path().join("envelope.json"));
        fs::write(&manifest, yaml)?;
        let _ = fs::remove_file(&envelope);
        let mut input = &manifest;
        for signer in signers {
            let key = self.file(&format!("{signer}.key"));
            let mut sign = tool(&self.product.patch_tools);
            sign.arg("sign").arg(input).arg("--key").arg(key).arg("--out").arg(&envelope);
            run(&mut sign)?;
            input = &envelope;
        }
        fs::read(&envelope).with_context(|| format!("reading {}", envelope.display()))
    }

    /// Puts the policy in place in a guest.
    pub fn install_policy(&self, guest: &Guest) -> Result<()> {
        guest.write_file("/etc/update/policy.yaml", self.policy()?.as_bytes(), 0o644)
    }

    /// Signs a draft by enough keys and puts it with its payloads into a guest; returns its path there.
    pub fn publish(&self, guest: &Guest, draft: &Draft, props: &Props, kernel: &str) -> Result<String> {
        let envelope = self.sign(&draft.yaml(props, kernel)?, &SIGNERS)?;
        place(guest, &draft.name, &draft.payloads(props), &envelope)
    }

    fn public(&self, name: &str) -> Result<Value> {
        let mut show = tool(&self.product.update);
        let shown = run(show.args(["key", "show", "--json"]).arg(self.file(&format!("{name}.pub"))))?;
        Ok(serde_json::from_slice(&shown)?)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Puts an envelope with files beside it into a directory of [`RELEASES`]; returns the envelope's path.
pub fn place(guest: &Guest, dir: &str, files: &[(PathBuf, String)], envelope: &[u8]) -> Result<String> {
    let dir = format!("{RELEASES}/{dir}");
    for (from, name) in files {
        guest.write_file(&format!("{dir}/{name}"), &fs::read(from)?, 0o644)?;
    }
    let path = format!("{dir}/update.manifest.json");
    guest.write_file(&path, envelope, 0o644)?;
    Ok(path)
}

fn tool(path: &Path) -> Command {
    built(path)
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("update key show gives no {field}"))
}

/// RFC 3339, in UTC.
fn timestamp(time: SystemTime) -> Result<String> {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let out = run(program("date").args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]))?;
    Ok(String::from_utf8(out)?.trim().to_owned())
}
