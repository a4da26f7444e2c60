//! The built program: evidence of this host, checked as another host checks it; the journal, checked and handed on.
//!
//! The commands of docs/auditing.md are run word for word.

#![expect(clippy::disallowed_methods, reason = "the program is run")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// A store and settings of their own, and the program as root runs it. Without root there is nothing to see.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root, as the program does");
        let host = Self { directory: tempfile::tempdir().unwrap() };
        let (store, policy) = (host.path("store"), host.path("policy.yaml"));
        let settings = format!("store: {}\npolicy: {}\n", store.display(), policy.display());
        host.write("update.yaml", &settings);
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_update"));
        command.args(arguments).arg("--config").arg(self.path("update.yaml"));
        command.current_dir(self.directory.path()).output().unwrap()
    }

    /// What a command that has to succeed prints.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {words}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The words of a command that is refused with this exit code.
    fn refused(&self, arguments: &[&str], exit: i32) -> String {
        let output = self.run(arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {words}");
        words
    }

    /// Asks for evidence, and keeps it and the key.
    fn evidence(&self, nonce: &str) {
        self.write("host.pub", &self.says(&["evidence", "key"]));
        self.write("host.evidence.json", &self.says(&["evidence", "--nonce", nonce]));
    }
}

#[test]
fn what_a_host_says_now_is_checked_elsewhere_and_each_replay_is_refused() {
    let (host, other) = (Host::new(), Host::new());
    host.evidence("audit-7");
    other.evidence("audit-7");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let asked = [
        "evidence",
        "verify",
        "host.evidence.json",
        "--key",
        "host.pub",
        "--nonce",
        "audit-7",
        "--boot",
        boot.trim(),
    ];
    let words = host.says(&asked);
    assert!(words.contains("answers   audit-7") && words.contains("not proven\n"), "{words}");
    assert!(words.contains("that the host tells the truth"), "{words}");
    let json: Value = serde_json::from_str(&host.says(&[&asked[..], &["--json"]].concat())).unwrap();
    let predicate = &json["statement"]["predicate"];
    assert_eq!(json["statement"]["predicateType"], "urn:update:host-evidence:v1");
    assert_eq!(predicate["boot"]["id"], boot.trim());
    assert_eq!(predicate["nonce"], "audit-7");
    assert_eq!(
        predicate["kernel"]["release"],
        nix::sys::utsname::uname().unwrap().release().to_str().unwrap()
    );

    // Another host's, another boot's, another question's, one of the past.
    let replay = |arguments: &[&str], words: &str| {
        let said = host.refused(arguments, 4);
        assert!(said.contains(words), "{words:?}: {said}");
    };
    fs::copy(other.path("host.evidence.json"), host.path("other.evidence.json")).unwrap();
    replay(
        &["evidence", "verify", "other.evidence.json", "--key", "host.pub"],
        "no host that is known here signed it",
    );
    replay(
        &["evidence", "verify", "host.evidence.json", "--key", "host.pub", "--host", "web-2"],
        "it is of another host",
    );
    let boot = "00000000-0000-4000-8000-000000000000";
    replay(
        &["evidence", "verify", "host.evidence.json", "--key", "host.pub", "--boot", boot],
        "another boot",
    );
    replay(
        &["evidence", "verify", "host.evidence.json", "--key", "host.pub", "--nonce", "audit-8"],
        "it does not answer this question",
    );
    std::thread::sleep(std::time::Duration::from_millis(1100));
    replay(
        &["evidence", "verify", "host.evidence.json", "--key", "host.pub", "--max-age", "0s"],
        "it is too old",
    );
    let text = fs::read_to_string(host.path("host.evidence.json")).unwrap();
    let mut envelope: Value = serde_json::from_str(&text).unwrap();
    let payload = envelope["payload"].as_str().unwrap().replace('A', "B");
    envelope["payload"] = payload.into();
    host.write("changed.json", &envelope.to_string());
    replay(&["evidence", "verify", "changed.json", "--key", "host.pub"], "does not hold");
    host.refused(&["evidence", "verify", "none.json", "--key", "host.pub"], 3);
    host.refused(&["evidence", "verify", "host.evidence.json"], 2);
}

#[test]
fn a_host_about_which_no_manifest_says_anything_makes_no_vex_document() {
    let host = Host::new();
    let words = host.refused(&["evidence", "--vex"], 3);
    assert!(words.contains("no manifest that is known here names a vulnerability"), "{words}");
}

#[test]
fn the_journal_is_checked_kept_elsewhere_and_every_tampering_is_named() {
    let host = Host::new();
    host.says(&["hold", "--until", "4h", "--reason", "the audit"]);
    host.says(&["unhold"]);
    let verified: Value = serde_json::from_str(&host.says(&["history", "--verify", "--json"])).unwrap();
    let head = verified["head"].as_str().unwrap().to_owned();
    assert!(head.starts_with("3:"), "{verified}");
    assert!(host.says(&["history", "--verify", "--head", &head]).contains("the journal holds"));
    host.write("journal.jsonl", &host.says(&["history", "--records", "--json"]));
    let offline = ["history", "--verify", "--from", "journal.jsonl", "--head", &head];
    assert!(host.says(&offline).contains(&head));
    assert!(host.says(&["history", "--records"]).contains("uid 0"));

    // Lines for a log, each with all that its hash is of.
    let lines = host.says(&["history", "--export", "syslog"]);
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(
        lines.lines().all(|line| line.starts_with("<109>1 ") && line.contains("[record@32473 seq=")),
        "{lines}"
    );
    assert!(lines.contains("held until") && lines.contains(head.split(':').nth(1).unwrap()), "{lines}");
    let cursor = host.path("cursor");
    let export = ["history", "--export", "syslog", "--cursor", cursor.to_str().unwrap()];
    assert_eq!(host.says(&export).lines().count(), 3);
    assert_eq!(host.says(&export), "", "what was handed on is not repeated");
    assert_eq!(fs::read_to_string(&cursor).unwrap().trim(), head);

    // A line of the copy that somebody changed.
    let text = fs::read_to_string(host.path("journal.jsonl")).unwrap();
    host.write("edited.jsonl", &text.replace("the audit", "the party"));
    let words = host.refused(&["history", "--verify", "--from", "edited.jsonl"], 4);
    assert!(words.contains("record 2 (audit 1): its content was changed"), "{words}");
    let cut: String = text.lines().take(2).map(|line| line.to_owned() + "\n").collect();
    host.write("cut.jsonl", &cut);
    let words = host.refused(&["history", "--verify", "--from", "cut.jsonl", "--head", &head], 4);
    assert!(words.contains("its end was cut off"), "{words}");

    // The end of the journal itself: the cursor is a head that lies elsewhere.
    let db = rusqlite::Connection::open(host.path("store/journal.sqlite")).unwrap();
    db.execute_batch("DELETE FROM audit WHERE seq = 2; DELETE FROM chain WHERE seq = 3").unwrap();
    drop(db);
    assert!(host.says(&["history", "--verify"]).contains("not proven: that its end was not cut off"));
    assert!(host.refused(&["history", "--verify", "--head", &head], 4).contains("its end was cut off"));
    assert!(host.refused(&export, 4).contains("its end was cut off"));
    let db = rusqlite::Connection::open(host.path("store/journal.sqlite")).unwrap();
    db.execute("UPDATE audit SET who = 'uid 1000'", []).unwrap();
    drop(db);
    let words = host.refused(&["history", "--verify"], 4);
    assert!(words.contains("record 2 (audit 1): its content was changed"), "{words}");
}

/// The shell commands of a guide, block by block.
fn blocks(guide: &str) -> Vec<&str> {
    guide.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_auditors_guide_runs_word_for_word() {
    let host = Host::new();
    let program = format!(
        "#!/bin/sh\nexec {} \"$@\" --config {}\n",
        env!("CARGO_BIN_EXE_update"),
        host.path("update.yaml").display()
    );
    fs::create_dir(host.path("bin")).unwrap();
    fs::write(host.path("bin/update"), program).unwrap();
    fs::set_permissions(host.path("bin/update"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", host.path("bin").display());
    let run = |commands: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", commands]).env("PATH", &path).current_dir(host.directory.path());
        let output = shell.output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    let guide = include_str!("../../docs/auditing.md");
    let commands = blocks(guide);
    assert_eq!(commands.len(), 6, "{commands:?}");
    for command in commands {
        // The head stands in the evidence of step 3.
        let head = host.run(&["history", "--verify", "--json"]).stdout;
        let head: Value = serde_json::from_slice(&head).unwrap();
        let command = command.replace("HEAD", head["head"].as_str().unwrap());
        let (code, said) = run(&command);
        // No manifest was applied here: the guide says that this exits with 3.
        let expected = if command.contains("--vex") { 3 } else { 0 };
        assert_eq!(code, Some(expected), "{command}\n{said}");
    }

    // The whole check of the records, as docs/evidence.md has it.
    let reference = include_str!("../../docs/evidence.md");
    let check = reference.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    fs::write(host.path("check.py"), check).unwrap();
    let head = host.run(&["history", "--verify", "--json"]).stdout;
    let head: Value = serde_json::from_slice(&head).unwrap();
    let (code, said) = run("python3 check.py <journal.jsonl");
    assert_eq!((code, said.trim()), (Some(0), head["head"].as_str().unwrap()));
    let (code, _) = run("sed s/held/hold/ journal.jsonl | sed s/made/wrote/ | python3 check.py");
    assert_eq!(code, Some(1), "what was changed does not pass");
}
