//! What a host refuses, or undoes, of hosts that are not as planned.

use system::exit::Exit;

use super::*;
use crate::operations::tests::bench::{Bench, MANIFEST, module};

/// The refusal's words; the host must not have been touched.
fn refused(bench: &Bench, text: &str) -> String {
    let error = bench.apply(text).unwrap_err();
    assert!(!matches!(error, EngineError::Stopped { .. }), "{error:?}");
    whole(bench, Outcome::RolledBack, "refused");
    assert!(bench.engine().journal().all().unwrap().is_empty(), "a transaction was begun");
    let failure = crate::cli::failures::engine(error);
    assert_eq!(failure.exit(), Exit::Refused, "{failure:?}");
    failure.for_person()
}

#[test]
fn a_module_for_another_kernel_is_refused() {
    let bench = Bench::new();
    let bytes = replaced(&module("one-function"), b"6.1.0-50-amd64", b"6.1.0-51-amd64");
    bench.write("one-function.ko", &bytes);
    let words = refused(&bench, MANIFEST);
    assert!(words.contains("expected 6.1.0-50-amd64, found 6.1.0-51-amd64"), "{words}");
}

#[test]
fn a_host_of_another_kernel_is_refused() {
    let bench = Bench::new();
    let words = refused(&bench, &MANIFEST.replace("6.1.0-50-amd64", "6.1.0-51-amd64"));
    assert!(words.contains("this host's kernel: expected 6.1.0-51-amd64, found 6.1.0-50-amd64"), "{words}");
}

#[test]
fn a_module_that_patches_other_functions_than_claimed_is_refused() {
    let bench = Bench::new();
    let words = refused(&bench, &MANIFEST.replace("name: cmdline_proc_show", "name: version_proc_show"));
    assert!(words.contains("vmlinux:cmdline_proc_show,0: expected not patched"), "{words}");
    assert!(words.contains("vmlinux:version_proc_show,0: expected patched"), "{words}");
}

#[test]
fn a_module_without_patch_tables_is_refused() {
    let bench = Bench::new();
    bench.write("one-function.ko", &module("not-a-livepatch"));
    let words = refused(&bench, MANIFEST);
    assert!(words.contains("a module without patch tables"), "{words}");
}

#[test]
fn a_module_that_is_cut_short_anywhere_is_refused() {
    let bench = Bench::new();
    let whole = module("one-function");
    for length in [1, 3, 63, 64, 1000, whole.len() / 2, whole.len() - 1] {
        bench.write("one-function.ko", &whole[..length]);
        let words = refused(&bench, MANIFEST);
        assert!(words.contains("livepatch one_function cannot be read"), "{length} bytes: {words}");
    }
}

#[test]
fn a_payload_that_is_missing_long_short_or_changed_is_refused_before_anything() {
    let bench = Bench::new();
    let manifest = bench.sign(MANIFEST);
    let right = std::fs::read(bench.payloads().join("fix.tar")).unwrap();
    let apply = || bench.plan_signed(&manifest).unwrap_err();
    let changes = [vec![1; right.len()], right[1..].to_vec(), [right.clone(), vec![0]].concat()];
    for bytes in changes {
        bench.write("fix.tar", &bytes);
        assert_eq!(crate::cli::failures::engine(apply()).exit(), Exit::NotAuthentic);
    }
    std::fs::remove_file(bench.payloads().join("fix.tar")).unwrap();
    let failure = crate::cli::failures::engine(apply());
    assert_eq!(failure.exit(), Exit::Refused);
    assert!(failure.for_person().contains("--payloads"), "{failure:?}");
    whole(&bench, Outcome::RolledBack, "payloads");
}

#[test]
fn a_host_without_runc_is_refused_and_told_so() {
    let bench = Bench::new();
    bench.containers.make(Trouble::NoRuntime);
    let failure = crate::cli::failures::engine(bench.apply(MANIFEST).unwrap_err());
    let words = failure.for_person();
    assert_eq!(failure.exit(), Exit::Refused);
    assert!(words.contains("runc is not installed") && words.contains("next:"), "{words}");
    bench.containers.mend();
    whole(&bench, Outcome::RolledBack, "no runc");
}

#[test]
fn a_host_without_criu_is_refused_unless_the_manifest_says_otherwise() {
    let bench = Bench::with(FakeMachine::new(), |all| {
        all.with("web").with_obstacle(ObstacleKind::MissingProgram, "criu")
    });
    let words = refused(&bench, MANIFEST);
    assert!(words.contains("criu") && words.contains("needed for checkpoints"), "{words}");
}

#[test]
fn a_container_that_vanishes_between_plan_and_apply_is_left_alone_and_the_rest_undone() {
    let bench = Bench::new();
    bench.containers.make(Trouble::Vanishes);
    let why = rolled_back(&bench.apply(MANIFEST).unwrap());
    assert!(why.contains("it ended since the plan was made"), "{why}");
    assert_eq!(bench.containers.process("web"), None, "it is not for us to start what ended by itself");
    assert_eq!(bench.machine.modules(), <[String; 0]>::default());
    assert_eq!(lowers(&bench), 1);
    nothing_left(&bench, "vanished");
}

#[test]
fn a_disk_that_is_full_during_the_dump_leaves_the_container_running_as_it_was() {
    let bench = Bench::new();
    bench.containers.make(Trouble::DiskFull);
    let why = rolled_back(&bench.apply(MANIFEST).unwrap());
    assert!(why.contains("No space left on device"), "{why}");
    whole(&bench, Outcome::RolledBack, "disk full");
}

#[test]
fn a_second_apply_at_once_is_told_who_holds_the_host() {
    let bench = Bench::new();
    let _held = bench.hold("apply other v1");
    let failure = crate::cli::failures::engine(bench.apply(MANIFEST).unwrap_err());
    assert_eq!(failure.exit(), Exit::Busy);
    let words = failure.for_person();
    assert!(words.contains(&format!("pid {}, apply other v1", std::process::id())), "{words}");
}

#[test]
fn a_store_that_is_not_writable_is_refused() {
    let bench = Bench::new();
    // Root may write everywhere, but not make a file below a file.
    let blocked = bench.store.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let error = Journal::open(&blocked).unwrap_err();
    let failure = crate::cli::failures::engine(error.into());
    assert_eq!(failure.exit(), Exit::Refused);
    assert!(failure.for_person().contains("store is writable"), "{failure:?}");
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}
