//! A company's log and its bundles by commands alone: publisher, witnesses, auditor, a host without a network.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use clap::Parser as _;
use jiff::SignedDuration;
use manifests::{Envelope, PublicKeyFile, SecretKey, UtcTime};
use system::clock::{Clock as _, SystemClock};
use system::exit::Failure;

use super::*;
use crate::cli::Cli;

const ORIGIN: &str = "updates.example.org/log";

struct Company(tempfile::TempDir);

impl Company {
    /// Keys, a repository with a log, and a host's policy that wants two of three witnesses.
    fn founded() -> Self {
        let company = Self(tempfile::tempdir().unwrap());
        for name in ["root", "targets", "online", "log", "w1", "w2", "w3", "build"] {
            company.done(&format!("key generate --out @{name}"));
        }
        company.done("repo init @repo --root @root.pub --root-threshold 1 --targets @targets.pub --targets-threshold 1 --online @online.pub");
        company.done(&format!("log init @repo/public/log --origin {ORIGIN} --key @log.key"));
        let log = company.key("log", ORIGIN, NoteKeyKind::Log);
        let mut policy = format!("log {log}\n");
        for name in ["w1", "w2", "w3"] {
            policy += &format!(
                "witness {name} {}\n",
                company.key(name, &format!("{name}.example"), NoteKeyKind::Witness)
            );
        }
        policy += "group company 2 w1 w2 w3\nquorum company\n";
        fs::write(company.path("company.policy"), &policy).unwrap();
        let build = company.public("build");
        let block: String = policy.lines().map(|line| format!("  {line}\n")).collect();
        let text = format!(
            "schema: 2\nversion: 1\nissued: 2026-01-01T00:00:00Z\n\
             keys: [{{name: build, id: {}, public: \"{}\"}}]\nroles: [{{name: build, keys: [build], threshold: 1}}]\n\
             rules:\n- {{document: manifest, any_of: [[build]]}}\n- {{document: policy, any_of: [[build]]}}\n\
             transparency: |\n{block}",
            build.id, build.public
        );
        company.private("policy.yaml", &text);
        company.private("update.yaml", &format!("store: {}\n", company.path("store").display()));
        company.publish(1, &[]);
        company
    }

    fn private(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn public(&self, name: &str) -> PublicKeyFile {
        PublicKeyFile::parse(&fs::read(self.path(&format!("{name}.pub"))).unwrap()).unwrap()
    }

    fn key(&self, name: &str, called: &str, kind: NoteKeyKind) -> NoteKey {
        NoteKey::new(called.parse().unwrap(), kind, self.public(name).public)
    }

    /// A command, in which `@` stands for the directory of the company.
    fn run(&self, words: &str) -> Result<(), Failure> {
        let directory = format!("{}/", self.0.path().display());
        let words = words.replace(" @", &format!(" {directory}"));
        let config = self.path("update.yaml");
        let mut line = vec!["update", "--json"];
        if config.exists() {
            line.extend(["--config", config.to_str().unwrap()]);
        }
        line.extend(words.split(' '));
        Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{words}: {error}")).run()
    }

    fn done(&self, words: &str) {
        self.run(words).unwrap_or_else(|failure| panic!("{words}: {}", failure.for_person()));
    }

    fn refused(&self, words: &str) -> (u8, String) {
        let failure = self.run(words).unwrap_err();
        (failure.exit().code(), failure.for_person())
    }

    /// A manifest by the build key and perhaps others, published.
    fn publish(&self, version: u64, others: &[&str]) {
        let now = SystemClock.now();
        let (issued, expires) = (
            UtcTime::floor(now - SignedDuration::from_hours(1)),
            UtcTime::floor(now + SignedDuration::from_hours(240)),
        );
        let payload = format!("module {version}");
        let text = format!(
            "schema: 1\nname: greet\nversion: {version}\nissued: {issued}\nexpires: {expires}\nseverity: high\n\
             summary: A fix\ntargets: {{arch: [x86_64], kernels: [6.1.0-50-amd64]}}\ncomponents:\n  - kind: layer\n    \
             payload: {{file: fix.tar, sha256: {0}, size: {1}}}\n    format: tar\n    \
             replaces: [{{path: /usr/lib/libgreet.so.1, sha256: {0}}}]\n    without_checkpoint: fail\n    \
             probes: [{{kind: tcp, port: 7000, timeout: 5s, interval: 100ms, successes: 1}}]\n",
            Sha256::of(payload.as_bytes()),
            payload.len()
        );
        let mut envelope = Envelope::of_manifest(text.into_bytes());
        for name in ["build"].iter().chain(others) {
            let key =
                SecretKey::from_pem(&fs::read_to_string(self.path(&format!("{name}.key"))).unwrap()).unwrap();
            envelope.sign(&key).unwrap();
        }
        fs::create_dir_all(self.path("out")).unwrap();
        fs::write(self.path(&format!("out/greet-{version}.json")), envelope.to_json()).unwrap();
        fs::write(self.path("out/fix.tar"), payload).unwrap();
        self.done(&format!("repo add @repo @out/greet-{version}.json"));
        let _ = self.run("repo sign @repo --key @root.key");
        self.done("repo sign @repo --key @targets.key");
        self.done("repo publish @repo --key @online.key --log-key @log.key");
    }

    fn witness(&self, name: &str, log: &str) -> Result<(), Failure> {
        let vkey = self.key("log", ORIGIN, NoteKeyKind::Log);
        self.run(&format!("log witness @{log} --log-key {vkey} --name {name}.example --key @{name}.key --state @{name}.state --out @{name}.checkpoint"))
    }

    fn cosign(&self, names: &[&str]) {
        for name in names {
            self.witness(name, "repo/public/log").unwrap();
            self.done(&format!("log add @repo/public/log --cosigned @{name}.checkpoint"));
        }
    }
}

#[test]
fn a_company_keeps_a_log_with_its_own_witnesses_by_commands_alone() {
    let company = Company::founded();
    let vkey = company.key("log", ORIGIN, NoteKeyKind::Log);
    let verify = format!("log verify @repo/public/log --log-key {vkey} --keep @kept.checkpoint");
    company.done(&verify);
    company.done("log show @repo/public/log");
    company.done("log show @w1.pub --name w1.example");
    let (exit, words) = company.refused("log verify @repo/public/log --log-policy @company.policy");
    assert_eq!(exit, 4, "{words}");
    company.cosign(&["w1", "w2"]);
    company.done("log verify @repo/public/log --log-policy @company.policy");
    company.done("log proof @repo/public/log @out/greet-1.json");
    company.done("log show @out/greet-1.json.tlog-proof");
    company.done("verify @out/greet-1.json --policy @policy.yaml");

    company.publish(2, &["w3"]);
    company.done(&format!("{verify} --since @kept.checkpoint"));
    let (exit, words) = company.refused("log add @repo/public/log --cosigned @w1.checkpoint");
    assert!(exit == 3 && words.contains("update log witness"), "{words}");
    assert_eq!(company.refused("log proof @repo/public/log @company.policy").0, 4);
    let (exit, words) = company.refused("verify @out/greet-2.json --policy @policy.yaml");
    assert!(exit == 4 && words.contains("nothing proves that it was published"), "{words}");

    // Who holds a key looks for what it did not sign.
    let monitor = format!("log monitor @repo/public/log --log-key {vkey}");
    company.done(&format!(
        "{monitor} --name greet --signer @build.pub --expect @out/greet-1.json --expect @out/greet-2.json"
    ));
    company.done(&format!("{monitor} --signer @w1.pub --expect @out/greet-1.json"));
    let (exit, words) = company.refused(&format!("{monitor} --signer @w3.pub --expect @out/greet-1.json"));
    assert!(exit == 6 && words.contains("entry 1"), "{words}");
    company.done(&format!("{monitor} --signer @w3.pub"));
    company.done(&format!(
        "{monitor} --expect @out/greet-1.json --expect @out/greet-2.json --state @watched.state"
    ));
    company.done(&format!("{monitor} --expect @out/greet-1.json --state @watched.state"));
}

#[test]
fn a_log_that_forks_is_refused_by_witness_auditor_and_monitor_and_shown() {
    let company = Company::founded();
    company.cosign(&["w1"]);
    let vkey = company.key("log", ORIGIN, NoteKeyKind::Log);
    company.done(&format!("log verify @repo/public/log --log-key {vkey} --keep @kept.checkpoint"));
    company.done(&format!("log monitor @repo/public/log --log-key {vkey} --state @watched.state"));
    company.done(&format!("log init @other.d/log --origin {ORIGIN} --key @log.key"));
    company.publish(2, &[]);
    company.done("log add @other.d/log --key @log.key @out/greet-2.json");
    let failure = company.witness("w1", "other.d/log").unwrap_err();
    let words = failure.for_person();
    assert!(
        failure.exit().code() == 4 && words.contains("has forked") && words.contains("1 entries with root"),
        "{words}"
    );
    assert_eq!(fs::read_dir(company.path("w1.state/forks")).unwrap().count(), 2);
    let (exit, words) =
        company.refused(&format!("log verify @other.d/log --log-key {vkey} --since @kept.checkpoint"));
    assert!(exit == 4 && words.contains("has forked") && words.contains("kept.checkpoint.forks"), "{words}");
    let (exit, words) =
        company.refused(&format!("log monitor @other.d/log --log-key {vkey} --state @watched.state"));
    assert!(exit == 4 && words.contains("has forked"), "{words}");
    // The honest one goes on.
    company.witness("w1", "repo/public/log").unwrap();
    let stranger = company.key("w2", ORIGIN, NoteKeyKind::Log);
    assert_eq!(company.refused(&format!("log verify @repo/public/log --log-key {stranger}")).0, 4);
    let witness = company.key("w2", "w2.example", NoteKeyKind::Witness);
    assert_eq!(company.refused(&format!("log verify @repo/public/log --log-key {witness}")).0, 2);
}

#[test]
fn a_bundle_is_verified_by_a_host_that_has_its_policy_alone() {
    let company = Company::founded();
    company.cosign(&["w2", "w3"]);
    company.done("bundle create greet --out @x.upd --repository @repo/.");
    company.done("bundle show @x.upd");
    company.done("verify @x.upd --policy @policy.yaml");
    assert_eq!(company.refused("bundle create greet@9 --out @y.upd --repository @repo/.").0, 3);
    assert_eq!(company.refused("bundle create greet --out @y.upd --repository @nowhere.d").0, 3);
    let whole = fs::read(company.path("x.upd")).unwrap();
    let payload = whole.windows(8).position(|window| window == b"module 1").unwrap();
    for (what, bytes) in [
        ("cut", whole[..whole.len() - 512].to_vec()),
        ("longer", [&whole[..], b"x"].concat()),
        ("empty", Vec::new()),
        ("another payload", [&whole[..payload], b"MODULE 1", &whole[payload + 8..]].concat()),
    ] {
        fs::write(company.path("bad.upd"), bytes).unwrap();
        let (exit, words) = company.refused("verify @bad.upd --policy @policy.yaml");
        assert_eq!(exit, 4, "{what}: {words}");
    }
    assert_eq!(company.refused("bundle show @nothing.upd").0, 3);
    // A host that pins the repository's root takes what is of it, and nothing else.
    let pinned = |root: &str| {
        company.private(
            "update.yaml",
            &format!(
                "store: {}\nrepository: {{places: [], root: {}}}\n",
                company.path("store").display(),
                company.path(root).display()
            ),
        );
    };
    pinned("repo/public/metadata/1.root.json");
    company.done("verify @x.upd --policy @policy.yaml");
    company.done("repo init @foreign.d --root @w1.pub --root-threshold 1 --targets @w2.pub --targets-threshold 1 --online @online.pub");
    company.done("repo sign @foreign.d --key @w1.key");
    company.done("repo sign @foreign.d --key @w2.key");
    company.done("repo publish @foreign.d --key @online.key");
    pinned("foreign.d/public/metadata/1.root.json");
    let (exit, words) = company.refused("verify @x.upd --policy @policy.yaml");
    assert!(exit == 4 && words.contains("whose root this host pins"), "{words}");
    assert!(!company.path("store").exists(), "verify changes nothing");
}
