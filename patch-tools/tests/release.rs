//! `patch-tools release`: the same fix for several kernels, one of which there is no package of.

mod support;

use std::fs;

use manifests::{Component, Manifest, Replace};
use support::fix::{self, Bench, KERNEL};

/// A name that no Debian release gives its kernels.
const FOREIGN: &str = "6.8.0-45-generic";

#[test]
fn a_kernel_that_refuses_stands_in_the_way_of_the_manifest_unless_told_otherwise() {
    let bench = Bench::new();
    bench.put("fix.patch", fix::cmdline());
    let kernels = format!("{KERNEL},{FOREIGN}");
    let arguments =
        ["release", "fix.patch", "--name", "hide", "--issued", "2026-11-01T00:00:00Z", "-o", "out"];
    let arguments = [&arguments[..], &["--kernels", &kernels]].concat();

    let report = bench.json(&arguments, 3);
    assert!(report["manifest"].is_null());
    assert!(!bench.path().join("out").exists());

    let report =
        bench.json(&[&arguments[..], &["--partial", "--fixed-in", "debian:6.1:6.1.999-1"]].concat(), 0);
    let outcomes: Vec<(&str, &str)> = report["kernels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kernel| (kernel["kernel"].as_str().unwrap(), kernel["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(outcomes, [(KERNEL, "built"), (FOREIGN, "refused")]);
    assert_eq!(report["kernels"][1]["details"]["reason"], "kernel");

    let manifest = fs::read(bench.path().join("out/hide.yaml")).unwrap();
    let manifest = Manifest::parse(&manifest).unwrap();
    let [Component::Livepatch(livepatch)] = &manifest.components[..] else { panic!("one livepatch") };
    let file = bench.path().join("out").join(livepatch.payload.file.as_str());
    assert_eq!(fs::metadata(file).unwrap().len(), livepatch.payload.size);
    assert_eq!(livepatch.payload.file.as_str(), format!("livepatch-hide_{KERNEL}.ko"));
    assert_eq!((livepatch.module.as_str(), livepatch.replace), ("livepatch_hide", Replace::All));
    assert!(livepatch.kernel_build_id.is_some());
    assert_eq!(livepatch.fixed_in[0].version.as_str(), "6.1.999-1");
}
