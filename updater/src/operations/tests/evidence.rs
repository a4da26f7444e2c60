//! What a host says of itself, by its journal and by what its kernel shows, and what it does not say.

use jiff::SignedDuration;
use manifests::evidence::{Evidence, Expected, Said, check};
use manifests::vex::{Document, Status};
use manifests::{Envelope, PublicKeyFile};
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::operations::evidence::{EvidenceKeyError, Question, What};
use crate::operations::tests::bench::{Bench, MANIFEST, livepatch_only};

const CVE: &str = "CVE-2026-0001";

/// The livepatch part of the manifest, with a vulnerability that it fixes.
fn fix() -> String {
    livepatch_only(MANIFEST).replace("\ntargets:", &format!("\nfixes: [{CVE}]\ntargets:"))
}

fn ask(bench: &Bench, what: What) -> Result<Envelope, EngineError> {
    let nonce = Some("audit-7".parse().unwrap());
    bench.engine().evidence(&Question { what, nonce, fleet: None, manifests: Vec::new() })
}

/// What the host says, checked with its own key as somebody else checks it.
fn said(bench: &Bench, what: What) -> Said {
    let envelope = ask(bench, what).unwrap();
    let keys = [bench.engine().evidence_key().unwrap()];
    let nonce = "audit-7".parse().unwrap();
    let now = system::clock::Clock::now(&*bench.machine);
    let expected = Expected {
        keys: &keys,
        host: Some("bench"),
        boot: None,
        nonce: Some(&nonce),
        max_age: SignedDuration::from_mins(1),
        now,
    };
    let json = envelope.to_json();
    check(&Envelope::parse(json.as_bytes()).unwrap(), &expected).unwrap().said
}

fn evidence(bench: &Bench) -> Evidence {
    match said(bench, What::Everything) {
        Said::Evidence(statement) => statement.predicate,
        Said::Vex(_) => panic!("not what was asked for"),
    }
}

fn vex(bench: &Bench) -> Document {
    match said(bench, What::Vex) {
        Said::Vex(statement) => statement.predicate,
        Said::Evidence(_) => panic!("not what was asked for"),
    }
}

fn status(evidence: &Evidence) -> Vec<(&str, Status)> {
    evidence.vulnerabilities.iter().map(|one| (one.cve.as_str(), one.status)).collect()
}

#[test]
fn a_livepatch_in_force_is_shown_with_what_brought_it_and_its_vulnerability_is_none_here() {
    let bench = Bench::new();
    let driven = bench.apply(&fix()).unwrap();
    bench.write("sys/kernel/tracing/enabled_functions", b"cmdline_proc_show (1) R I     tramp: 0x0\n");
    let said = evidence(&bench);
    let [livepatch] = &said.livepatches[..] else { panic!("{said:?}") };
    assert!(livepatch.in_force && livepatch.build_id.is_some(), "{livepatch:?}");
    let function = &livepatch.patches[0].functions[0];
    assert_eq!(
        (livepatch.patches[0].object.as_str(), function.name.as_str()),
        ("vmlinux", "cmdline_proc_show")
    );
    assert_eq!((function.symbols, function.redirected), (Some(1), Some(true)));
    let ours = livepatch.ours.as_ref().unwrap();
    assert!(ours.shows_claim, "{ours:?}");
    assert_eq!(ours.transaction, driven.id.to_string());
    let manifest = ours.manifest.as_ref().unwrap();
    assert_eq!((manifest.name.as_str(), manifest.version, manifest.fixes.len()), ("greet", 3, 1));
    assert_eq!(manifest.signed_by, ["forge for build"]);
    assert_eq!(status(&said), [(CVE, Status::NotAffected)]);
    assert_eq!(said.transactions.len(), 1);
    assert_eq!(said.journal.head, bench.engine().journal().head().unwrap());
    assert_eq!(said.journal.broken, None);
    assert!(said.policy.is_some());
    assert_eq!(said.workloads[0].id, "web");
}

#[test]
fn a_function_that_ftrace_lists_by_another_name_of_its_place_is_redirected_all_the_same() {
    let bench = Bench::new();
    bench.apply(&fix()).unwrap();
    let symbols =
        b"ffffffff81000100 t __ia32_alias\nffffffff81000100 t cmdline_proc_show\nffffffff81000240 T helper\n";
    bench.write("proc/kallsyms", symbols);
    for (listed, redirected) in [("__ia32_alias", true), ("cmdline_proc_show", true), ("helper", false)] {
        bench.write("sys/kernel/tracing/enabled_functions", format!("{listed} (1) R I M\n").as_bytes());
        let said = evidence(&bench);
        let function = &said.livepatches[0].patches[0].functions[0];
        assert_eq!((function.symbols, function.redirected), (Some(1), Some(redirected)), "{listed}");
    }
}

#[test]
fn the_vex_document_says_so_of_the_kernel_that_runs_and_is_bound_to_host_boot_and_time() {
    let bench = Bench::new();
    assert!(matches!(ask(&bench, What::Vex), Err(EngineError::NothingToState)));
    bench.apply(&fix()).unwrap();
    let document = vex(&bench);
    let key = bench.engine().evidence_key().unwrap().id;
    assert_eq!((document.id.host, &document.id.nonce), (key, &Some("audit-7".parse().unwrap())));
    assert_eq!(document.id.boot.to_string(), bench.machine.incarnation().boot_id.to_string());
    let [statement] = &document.statements[..] else { panic!("{document:?}") };
    let json = serde_json::to_value(statement).unwrap();
    assert_eq!(json["status"], "not_affected");
    assert_eq!(json["justification"], "inline_mitigations_already_exist");
    assert_eq!(json["vulnerability"]["name"], CVE);
    // The simulated kernel is of no package.
    assert_eq!(json["products"][0]["identifiers"]["purl"], "pkg:generic/linux@6.1.0-50-amd64");
    assert!(json.get("impact_statement").is_none(), "the schema has one of the two");
}

#[test]
fn what_is_not_in_force_any_more_is_told_as_open() {
    let bench = Bench::new();
    bench.apply(&fix()).unwrap();
    bench.rollback().unwrap();
    let said = evidence(&bench);
    assert_eq!((said.livepatches.len(), status(&said)), (0, vec![(CVE, Status::Affected)]));
    let json = serde_json::to_value(&vex(&bench).statements[0]).unwrap();
    assert_eq!(json["status"], "affected");
    assert_eq!(json["action_statement"], "apply greet version 3 or a later one: update apply");

    let bench = Bench::new();
    bench.apply(&fix()).unwrap();
    bench.reboot();
    let said = evidence(&bench);
    assert_eq!((said.missing.len(), status(&said)), (1, vec![(CVE, Status::Affected)]));
}

#[test]
fn a_manifest_that_fixes_files_too_does_not_say_whose_its_vulnerabilities_are() {
    let bench = Bench::new();
    bench.apply(&MANIFEST.replace("\ntargets:", &format!("\nfixes: [{CVE}]\ntargets:"))).unwrap();
    let said = evidence(&bench);
    assert_eq!(status(&said), [(CVE, Status::UnderInvestigation)]);
    assert_eq!(said.workloads[0].fixes.len(), 1, "the fix is named by its digest");
    assert_eq!(said.workloads[0].files.as_deref(), Some("as committed"));
}

#[test]
fn a_journal_that_was_tampered_with_is_told_in_the_evidence() {
    let bench = Bench::new();
    bench.apply(&fix()).unwrap();
    let db = rusqlite::Connection::open(bench.store.path().join("journal.sqlite")).unwrap();
    // The manifest is another one than was verified: it is not believed, and nothing is said by it.
    db.execute("UPDATE transactions SET manifest = replace(manifest, 'payload', 'payl0ad')", []).unwrap();
    drop(db);
    let said = evidence(&bench);
    assert!(said.journal.broken.unwrap().contains("content was changed"));
    assert_eq!(said.vulnerabilities, []);
    assert_eq!(said.livepatches[0].ours.as_ref().unwrap().manifest, None);
    assert!(
        said.livepatches[0].ours.as_ref().unwrap().shows_claim,
        "the module's own tables say what it patches"
    );
}

#[test]
fn the_key_is_made_once_is_its_owners_alone_and_stays() {
    let bench = Bench::new();
    let key = bench.engine().evidence_key().unwrap();
    assert_eq!(bench.engine().evidence_key().unwrap(), key);
    assert_eq!(PublicKeyFile::parse(key.to_text().as_bytes()).unwrap(), key);
    let path = bench.store.path().join("evidence.key");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let audit = crate::state::floors::audit(&bench.engine().journal()).unwrap();
    assert!(audit.iter().any(|(_, _, what)| what.contains("made the key")), "{audit:?}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        bench.engine().evidence_key(),
        Err(EngineError::EvidenceKey(EvidenceKeyError::Open { mode: 0o644, .. }))
    ));
}
