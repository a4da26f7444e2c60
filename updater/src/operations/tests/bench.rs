//! A simulated host with an engine on it, and signed manifests for it.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use manifests::{Envelope, HostKernel, SecretKey, Sha256};
use system::clock::Interrupt;
use system::lock::{HostLock, Turn};
use system::medium::Medium;

use crate::kernel::survival::{Scheduled, Trial};
use crate::operations::apply::{Applied, Quarantine, Request};
use crate::operations::hold::Heeding;
use crate::operations::host::{Adapters, Host};
use crate::operations::resume::Resumed;
use crate::operations::rollback::Back;
use crate::operations::*;
use crate::plan::Plan;
use crate::simulated::containers::{FakeContainers, vulnerable};
use crate::simulated::machine::{FakeMachine, FakeModule, Replace};
use crate::simulated::packages::FakeHost;
use crate::state::payloads::PayloadDirectory;
use crate::transaction::driver::{Boundary, Onward};

pub(crate) const KERNEL: &str = "6.1.0-50-amd64";

/// What is signed. `MODULE`, `LAYER`, `OLD_DEB` and `NEW_DEB` stand for name, digest and size of the payload files.
pub(crate) const MANIFEST: &str = r#"
schema: 1
name: greet
version: 3
issued: 2026-11-01T00:00:00Z
expires: 2026-12-01T00:00:00Z
severity: critical
summary: One kernel fix, one library fix
targets: {arch: [x86_64], kernels: [6.1.0-50-amd64]}
components:
  - kind: livepatch
    module: one_function
    payload: MODULE
    kernel: 6.1.0-50-amd64
    patches: [{object: vmlinux, functions: [{name: cmdline_proc_show}]}]
  - kind: layer
    payload: LAYER
    format: tar
    replaces: [{path: /usr/lib/libgreet.so.1, sha256: "VULNERABLE"}]
    without_checkpoint: fail
    probes: [{kind: tcp, port: 7000, timeout: 5s, interval: 100ms, successes: 1}]
settle: 1s
"#;

/// The livepatch part of it alone.
pub(crate) fn livepatch_only(text: &str) -> String {
    let (head, rest) = text.split_once("  - kind: layer").unwrap();
    head.to_owned() + &rest[rest.find("settle:").unwrap()..]
}

/// A simulated host.
pub(crate) struct Bench {
    pub(crate) store: tempfile::TempDir,
    /// Payload files, and the files of the kernel.
    files: tempfile::TempDir,
    pub(crate) machine: Arc<FakeMachine>,
    pub(crate) containers: Arc<FakeContainers>,
    /// Packages and services.
    pub(crate) host: Arc<FakeHost>,
    kernel: Mutex<&'static str>,
    /// Whether somebody looks, every minute, whether the host lives on.
    watched: Arc<AtomicBool>,
    /// Whether operators go past a hold.
    despite_hold: AtomicBool,
    /// How many manifests were signed.
    signed: AtomicUsize,
    /// Since when the policy says that the key is revoked.
    revoked: Mutex<Option<&'static str>>,
    /// At how many more looks the place of checkpoints is in memory, and not on a device that anybody can read.
    pub(crate) private_looks: Arc<AtomicUsize>,
    /// What the host's settings say beside where its store and policy are.
    settings: Mutex<Config>,
}

impl Bench {
    /// With one container, `web`, that runs the vulnerable library.
    pub(crate) fn new() -> Self {
        Self::with(FakeMachine::new(), |containers| containers.with("web"))
    }

    pub(crate) fn with(machine: FakeMachine, add: impl FnOnce(FakeContainers) -> FakeContainers) -> Self {
        let machine = Arc::new(machine.with_module("one_function", FakeModule::default()));
        let host = Arc::new(FakeHost::new(Arc::clone(&machine)));
        let containers = Arc::new(add(FakeContainers::new(Arc::clone(&machine), Arc::clone(&host))));
        let bench = Self {
            store: memory_directory(),
            files: memory_directory(),
            machine,
            containers,
            host,
            kernel: Mutex::new(KERNEL),
            watched: Arc::default(),
            despite_hold: AtomicBool::new(false),
            signed: AtomicUsize::new(0),
            revoked: Mutex::default(),
            private_looks: Arc::default(),
            settings: Mutex::default(),
        };
        bench.write("one-function.ko", &module("one-function"));
        bench.write("fix.tar", &[0; 1024]);
        bench.write("old.deb", b"libgreet1 1.0-1 amd64\n");
        bench.write("new.deb", b"libgreet1 1.0-2 amd64\n");
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.1.0-50-amd64\n"),
            (
                "proc/kallsyms",
                "ffffffff81000100 t cmdline_proc_show\nffffffff81000200 T klp_enable_patch\n\
                 ffffffff81000240 T helper\n",
            ),
            ("proc/modules", ""),
            (
                "boot/config-6.1.0-50-amd64",
                "CONFIG_SMP=y\nCONFIG_PREEMPT_BUILD=y\nCONFIG_MODULES=y\nCONFIG_MODULE_UNLOAD=y\n\
                 CONFIG_MODVERSIONS=y\nCONFIG_LIVEPATCH=y\nCONFIG_HAVE_RELIABLE_STACKTRACE=y\n",
            ),
            ("sys/kernel/tracing/available_filter_functions", "cmdline_proc_show\n"),
            ("sys/kernel/security/lockdown", "[none] integrity confidentiality\n"),
            ("sys/module/module/parameters/sig_enforce", "N\n"),
        ] {
            bench.write(path, text.as_bytes());
        }
        bench
    }

    /// Writes a payload file, or a file of the kernel.
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.payloads().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn payloads(&self) -> PathBuf {
        self.files.path().to_owned()
    }

    /// From now on the host's settings are these.
    pub(crate) fn set(&self, settings: Config) {
        *self.settings.lock().unwrap() = settings;
    }

    pub(crate) fn config(&self) -> Config {
        let policy = self.files.path().join("policy.yaml");
        let own = self.settings.lock().unwrap().clone();
        Config { store: self.store.path().to_owned(), policy, ..own }
    }

    /// From now on operators go past holds.
    pub(crate) fn go_past_holds(&self) {
        self.despite_hold.store(true, Ordering::SeqCst);
    }

    fn heeding(&self) -> Heeding {
        if self.despite_hold.load(Ordering::SeqCst) { Heeding::Despite } else { Heeding::Heed }
    }

    /// A new process of the program.
    pub(crate) fn engine(&self) -> Engine {
        self.try_engine().unwrap()
    }

    pub(crate) fn try_engine(&self) -> Result<Engine, EngineError> {
        let (machine, containers) = (Arc::clone(&self.machine), Arc::clone(&self.containers));
        let (watched, private_looks) = (Arc::clone(&self.watched), Arc::clone(&self.private_looks));
        let one_less = |left: usize| left.checked_sub(1);
        let host = Host {
            medium: Box::new(move |_| {
                Ok(match private_looks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
                    Ok(_) => Medium::Memory,
                    Err(_) => Medium::Readable { what: "device sda without encryption".to_owned() },
                })
            }),
            root: self.files.path().to_owned(),
            hold_file: self.files.path().join("hold"),
            name: "bench".to_owned(),
            kernel_version: "#1 SMP".to_owned(),
            arch: "x86_64".to_owned(),
            kernel: HostKernel {
                release: self.kernel.lock().unwrap().parse().unwrap(),
                build_id: None,
                package: None,
            },
            incarnation: self.machine.incarnation(),
            clock: self.machine.clone(),
            freezer: self.machine.clone(),
            leases: self.machine.leases().clone(),
            mounts: self.containers.clone(),
            hold: self.containers.clone(),
            limits: self.containers.clone(),
            layers: self.containers.clone(),
            observer: self.containers.clone(),
            everywhere: self.host.clone(),
            packages: self.host.clone(),
            services: self.host.clone(),
            watch: Box::new(move |trial| {
                watched.store(trial == Trial::Runs, Ordering::SeqCst);
                Ok(Scheduled::BySystemd)
            }),
            connect: Box::new(move |_| {
                Ok(Adapters {
                    livepatch: machine.clone(),
                    lifecycle: containers.clone(),
                    checkpointer: containers.clone(),
                    recreator: containers.clone(),
                    prober: containers.clone(),
                })
            }),
        };
        Engine::with(self.config(), host)
    }

    /// The manifest with its payload files filled in.
    pub(crate) fn text(&self, text: &str) -> String {
        let payload = |file: &str| {
            let bytes = fs::read(self.payloads().join(file)).unwrap();
            format!("{{file: {file}, sha256: \"{}\", size: {}}}", Sha256::of(&bytes), bytes.len())
        };
        let manifests::FileIdentity::Sha256(vulnerable) = vulnerable() else { unreachable!() };
        text.replace("MODULE", &payload("one-function.ko"))
            .replace("LAYER", &payload("fix.tar"))
            .replace("OLD_DEB", &payload("old.deb"))
            .replace("NEW_DEB", &payload("new.deb"))
            .replace("VULNERABLE", &vulnerable.to_string())
    }

    /// Signs the manifest with its payload files filled in, for a policy that has the key; its file.
    pub(crate) fn sign(&self, text: &str) -> PathBuf {
        let text = self.text(text);
        let key = SecretKey::from_seed([1; 32]);
        let public = key.public();
        let revoked = self.revoked.lock().unwrap().map(|at| format!(", revoked: {at}")).unwrap_or_default();
        let policy = format!(
            "schema: 1\nkeys: [{{name: forge, id: {}, public: {public}{revoked}}}]\n\
             roles: [{{name: build, keys: [forge], threshold: 1}}]\n",
            public.id()
        );
        self.write("policy.yaml", policy.as_bytes());
        let mut envelope = Envelope::of_manifest(text.into_bytes());
        envelope.sign(&key).unwrap();
        let file = format!("{}.manifest.json", self.signed.fetch_add(1, Ordering::SeqCst));
        self.write(&file, envelope.to_json().as_bytes());
        self.payloads().join(file)
    }

    /// From the next signature on the policy says that the key is revoked since then.
    pub(crate) fn revoke_key(&self, since: &'static str) {
        *self.revoked.lock().unwrap() = Some(since);
    }

    pub(crate) fn plan(&self, text: &str) -> Result<Plan, EngineError> {
        self.plan_signed(&self.sign(text))
    }

    /// Plans a manifest that was signed before.
    pub(crate) fn plan_signed(&self, manifest: &Path) -> Result<Plan, EngineError> {
        let payloads = PayloadDirectory(self.payloads());
        self.engine().plan(&Request {
            manifest,
            payloads: &payloads,
            quarantine: Quarantine::Heed,
            heeding: Heeding::Heed,
            along: None,
        })
    }

    /// Another command holds the host.
    pub(crate) fn hold(&self, purpose: &str) -> HostLock {
        HostLock::take(self.store.path(), purpose, Turn::Now, &*self.machine).unwrap()
    }

    pub(crate) fn apply(&self, text: &str) -> Result<Driven, EngineError> {
        self.apply_until(text, &Undisturbed)
    }

    pub(crate) fn apply_until(&self, text: &str, seen: &dyn Boundaries) -> Result<Driven, EngineError> {
        self.apply_as(text, Quarantine::Heed, seen)
    }

    /// An operator insists on a livepatch in quarantine.
    pub(crate) fn retry(&self, text: &str) -> Result<Driven, EngineError> {
        self.apply_as(text, Quarantine::Retry, &Undisturbed)
    }

    fn apply_as(
        &self,
        text: &str,
        quarantine: Quarantine,
        seen: &dyn Boundaries,
    ) -> Result<Driven, EngineError> {
        match self.apply_any(text, quarantine, seen)? {
            Applied::Transaction { driven, .. } => Ok(driven),
            Applied::Nothing(plan) => panic!("nothing to do: {plan:?}"),
        }
    }

    /// An apply that may have nothing to do.
    pub(crate) fn apply_all(&self, text: &str) -> Applied {
        self.apply_any(text, Quarantine::Heed, &Undisturbed).unwrap()
    }

    fn apply_any(
        &self,
        text: &str,
        quarantine: Quarantine,
        seen: &dyn Boundaries,
    ) -> Result<Applied, EngineError> {
        self.apply_file(&self.sign(text), quarantine, seen)
    }

    /// Applies a manifest that was signed before.
    pub(crate) fn apply_signed(&self, manifest: &Path) -> Result<Applied, EngineError> {
        self.apply_file(manifest, Quarantine::Heed, &Undisturbed)
    }

    fn apply_file(
        &self,
        manifest: &Path,
        quarantine: Quarantine,
        seen: &dyn Boundaries,
    ) -> Result<Applied, EngineError> {
        let listeners = Listeners { event: &|_| {}, told: &|_| {}, boundaries: seen };
        let payloads = PayloadDirectory(self.payloads());
        let request =
            Request { manifest, payloads: &payloads, quarantine, heeding: self.heeding(), along: None };
        self.engine().apply(&request, &listeners, &|_, _| {})
    }

    /// Applies a livepatch of that name which replaces every other.
    pub(crate) fn apply_replacing(&self, name: &str, version: u32) -> Driven {
        self.try_apply_replacing(name, version).unwrap()
    }

    pub(crate) fn try_apply_replacing(&self, name: &str, version: u32) -> Result<Driven, EngineError> {
        self.try_apply_module(name, version, &replacing_module(name))
    }

    /// Applies these bytes as a livepatch of that name which replaces every other.
    pub(crate) fn try_apply_module(
        &self,
        name: &str,
        version: u32,
        bytes: &[u8],
    ) -> Result<Driven, EngineError> {
        let replaces = FakeModule { replace: Replace::All, ..FakeModule::default() };
        self.machine.teach(name, replaces);
        self.write("one-function.ko", bytes);
        let text = livepatch_only(MANIFEST)
            .replace("module: one_function", &format!("module: {name}\n    replace: all"))
            .replace("version: 3", &format!("version: {version}"));
        self.apply(&text)
    }

    pub(crate) fn rollback(&self) -> Result<Driven, EngineError> {
        self.rollback_until(&Undisturbed)
    }

    pub(crate) fn rollback_until(&self, seen: &dyn Boundaries) -> Result<Driven, EngineError> {
        let listeners = Listeners { event: &|_| {}, told: &|_| {}, boundaries: seen };
        self.engine().rollback(None, Back::Files, self.heeding(), &listeners, &|_, _| {})
    }

    pub(crate) fn resume(&self) -> Resumed {
        self.resume_until(&Undisturbed).unwrap()
    }

    pub(crate) fn resume_until(&self, seen: &dyn Boundaries) -> Result<Resumed, EngineError> {
        let listeners = Listeners { event: &|_| {}, told: &|_| {}, boundaries: seen };
        self.engine().resume(Turn::Now, &listeners)
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst)
    }

    pub(crate) fn reboot(&self) {
        self.watched.store(false, Ordering::SeqCst);
        self.machine.reboot();
        self.containers.reboot();
        self.host.reboot();
    }

    /// `systemctl soft-reboot`.
    pub(crate) fn soft_reboot(&self) {
        self.watched.store(false, Ordering::SeqCst);
        self.machine.soft_reboot();
        self.containers.soft_reboot();
        self.host.reboot();
    }

    pub(crate) fn reboot_into(&self, kernel: &'static str) {
        *self.kernel.lock().unwrap() = kernel;
        self.reboot();
    }

    /// Runs something that the program may die of; whether it died.
    pub(crate) fn died(&self, run: impl FnOnce()) -> bool {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let died = catch_unwind(AssertUnwindSafe(run)).is_err();
        std::panic::set_hook(quiet);
        died
    }
}

/// A directory in memory where there is one: thousands of transactions are synced in these tests.
fn memory_directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A fixture of patch-tools, compiled once.
pub(crate) fn module(name: &str) -> Vec<u8> {
    static COMPILED: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    COMPILED.lock().unwrap().entry(name.to_owned()).or_insert_with(|| compile(&source(name))).clone()
}

/// The fixture `one-function` as another livepatch, which replaces every other.
pub(crate) fn replacing_module(name: &str) -> Vec<u8> {
    let text = source("one-function")
        .replace("one_function", name)
        .replace(".objs = objs", ".objs = objs, .replace = 1");
    compile(&text)
}

/// As [`replacing_module`], with a `klp_state` 7 of this version and a callback that cleans up, if it has one.
pub(crate) fn module_with_state(name: &str, version: Option<u32>, cleanup: &str) -> Vec<u8> {
    let (before, states) = match version {
        Some(version) => (
            format!("static struct klp_state states[] = {{ {{ .id = 7, .version = {version} }}, {{ }} }};\n"),
            ", .states = states",
        ),
        None => (String::new(), ""),
    };
    let text = source("one-function")
        .replace("one_function", name)
        .replace(
            "static int new_show",
            &format!("{before}static void clean(void *object) {{ helper(5); }}\nstatic int new_show"),
        )
        .replace("{ .funcs = funcs }", &format!("{{ .funcs = funcs{cleanup} }}"))
        .replace(".objs = objs", &format!(".objs = objs, .replace = 1{states}"));
    compile(&text)
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../patch-tools/tests/modules")
}

fn source(name: &str) -> String {
    fs::read_to_string(sources().join(name).join("module.c")).unwrap()
}

/// The fixture as no kbuild would leave it.
pub(crate) fn module_without_build_id(name: &str) -> Vec<u8> {
    compile_with(&source(name), "--build-id=none")
}

fn compile(text: &str) -> Vec<u8> {
    // As kbuild does it: the build id is what a loaded module is known by.
    compile_with(text, "--build-id=sha1")
}

#[expect(clippy::disallowed_methods, reason = "a compiler is run")]
fn compile_with(text: &str, build_id: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("module.c");
    fs::write(&file, text).unwrap();
    let object = directory.path().join("module.o");
    let compiled = Command::new("gcc")
        .args(["-c", "-O2", "-g0", "-ffreestanding", "-fno-pic", "-fno-pie", "-mcmodel=kernel"])
        .args(["-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables"])
        .arg("-I")
        .arg(sources())
        .arg("-o")
        .arg(&object)
        .arg(&file)
        .status()
        .expect("gcc is needed to compile the fixtures");
    assert!(compiled.success(), "{text}");
    let module = directory.path().join("module.ko");
    let linked = Command::new("ld").args(["-r", build_id, "-o"]).arg(&module).arg(&object).status();
    assert!(linked.expect("ld is needed to link the fixtures").success(), "{text}");
    fs::read(module).unwrap()
}

/// Nobody interferes.
pub(crate) struct Undisturbed;

impl Interrupt for Undisturbed {
    fn asked(&self) -> bool {
        false
    }
}

impl Boundaries for Undisturbed {
    fn reached(&self, _: &Boundary<'_>) -> Onward {
        Onward::Continue
    }
}

/// The power fails at the nth boundary, counted from 0.
pub(crate) struct Cut {
    pub(crate) at: usize,
    reached: AtomicUsize,
}

impl Cut {
    pub(crate) fn at(at: usize) -> Self {
        Self { at, reached: AtomicUsize::new(0) }
    }
}

impl Interrupt for Cut {
    fn asked(&self) -> bool {
        false
    }
}

impl Boundaries for Cut {
    fn reached(&self, _: &Boundary<'_>) -> Onward {
        match self.reached.fetch_add(1, Ordering::SeqCst) == self.at {
            true => Onward::Cut,
            false => Onward::Continue,
        }
    }
}

/// An operator's signal arrives at the nth question about it, and stays.
pub(crate) struct Signal {
    nth: usize,
    asked: AtomicUsize,
}

impl Signal {
    pub(crate) fn at(nth: usize) -> Self {
        Self { nth, asked: AtomicUsize::new(0) }
    }
}

impl Interrupt for Signal {
    fn asked(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst) >= self.nth
    }
}

impl Boundaries for Signal {
    fn reached(&self, _: &Boundary<'_>) -> Onward {
        match self.asked() {
            true => Onward::TurnBack,
            false => Onward::Continue,
        }
    }
}
