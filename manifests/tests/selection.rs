//! Which components of one manifest hosts with different kernels take.

use manifests::{ComponentFit, HostKernel, KernelOutcome, KernelPackage, Manifest};

const MANY: &str = include_str!("../examples/many-kernels.yaml");
const BUILD_49: &str = "0123456789abcdef0123456789abcdef01234567";
const BUILD_50: &str = "89abcdef0123456789abcdef0123456789abcdef";
const OTHER_BUILD: &str = "ffffffffffffffffffffffffffffffffffffffff";

fn manifest(text: &str) -> Manifest {
    Manifest::parse(text.as_bytes()).unwrap()
}

/// The example without its layer.
fn kernel_only() -> String {
    MANY.split_once("  - kind: layer").unwrap().0.to_owned()
}

fn host(release: &str, build_id: Option<&str>, package: Option<&str>) -> HostKernel {
    HostKernel {
        release: release.parse().unwrap(),
        build_id: build_id.map(|id| id.parse().unwrap()),
        package: package.map(|text| {
            let (distribution, version) = text.split_once(' ').unwrap();
            KernelPackage { distribution: distribution.parse().unwrap(), version: version.parse().unwrap() }
        }),
    }
}

/// Outcome, indices taken, and the fit of each livepatch in a word.
fn select(text: &str, host: &HostKernel) -> (KernelOutcome, Vec<usize>, Vec<&'static str>) {
    let selection = manifest(text).for_kernel(host);
    let words = selection.livepatches.iter().map(|(_, fit)| match fit {
        ComponentFit::Fits => "fits",
        ComponentFit::Fixed { .. } => "fixed",
        ComponentFit::OtherBuild { .. } => "other build",
        ComponentFit::NotFixedYet { .. } => "not fixed yet",
        ComponentFit::OtherKernel => "other kernel",
    });
    (selection.outcome, selection.taken.clone(), words.collect())
}

#[test]
fn each_kernel_takes_the_module_that_was_built_for_it_and_every_layer() {
    use KernelOutcome::Applies;
    let older = host("6.1.0-49-amd64", Some(BUILD_49), Some("debian 6.1.175-1"));
    assert_eq!(select(MANY, &older), (Applies, vec![0, 2], vec!["fits", "not fixed yet"]));
    let newer = host("6.1.0-50-amd64", Some(BUILD_50), Some("debian 6.1.176-1"));
    assert_eq!(select(MANY, &newer), (Applies, vec![1, 2], vec!["not fixed yet", "fits"]));
    assert_eq!(manifest(MANY).for_kernel(&newer).for_other_kernels().collect::<Vec<_>>(), [0]);
}

#[test]
fn a_kernel_with_the_fix_built_in_needs_no_module() {
    let fixed = host("6.1.0-51-amd64", Some(OTHER_BUILD), Some("debian 6.1.177-1"));
    assert_eq!(select(&kernel_only(), &fixed), (KernelOutcome::NotNeeded, vec![], vec!["fixed", "fixed"]));
    assert_eq!(
        select(MANY, &fixed),
        (KernelOutcome::Applies, vec![2], vec!["fixed", "fixed"]),
        "the layer is"
    );
}

#[test]
fn a_kernel_without_module_and_without_fix_is_refused_with_all_of_the_manifest() {
    use KernelOutcome::NoneFits;
    for (host, fit) in [
        (host("6.1.0-48-amd64", None, Some("debian 6.1.174-1")), "not fixed yet"),
        (host("6.1.0-51-amd64", None, Some("debian 6.1.177-1~rc1")), "not fixed yet"),
        (host("6.1.0-51-amd64", None, None), "other kernel"),
        (host("6.1.0-51-oem", None, Some("ubuntu 6.1.999-1")), "other kernel"),
        (host("6.12.6-amd64", None, Some("debian 6.12.6-1")), "other kernel"),
    ] {
        assert_eq!(select(MANY, &host), (NoneFits, vec![], vec![fit; 2]), "{host:?}");
    }
}

#[test]
fn another_build_of_the_same_release_is_another_kernel() {
    let rebuilt = host("6.1.0-50-amd64", Some(OTHER_BUILD), None);
    let expected = (KernelOutcome::NoneFits, vec![], vec!["other kernel", "other build"]);
    assert_eq!(select(MANY, &rebuilt), expected);
    assert_eq!(select(MANY, &host("6.1.0-50-amd64", None, None)), expected, "a kernel without a build id");
    let fixed = host("6.1.0-50-amd64", Some(OTHER_BUILD), Some("debian 6.1.177-1"));
    assert_eq!(select(&kernel_only(), &fixed).0, KernelOutcome::NotNeeded, "rebuilt with the fix");
}

#[test]
fn an_older_document_without_build_ids_goes_by_the_release() {
    let text = kernel_only()
        .lines()
        .filter(|line| !line.contains("kernel_build_id"))
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    let (outcome, taken, _) = select(&text, &host("6.1.0-50-amd64", Some(OTHER_BUILD), None));
    assert_eq!((outcome, taken), (KernelOutcome::Applies, vec![1]));
    let fixed = host("6.1.0-50-amd64", Some(OTHER_BUILD), Some("debian 6.1.177-1"));
    assert_eq!(
        select(&text, &fixed).0,
        KernelOutcome::NotNeeded,
        "a package under the same release, with the fix"
    );
}

#[test]
fn a_module_for_this_very_build_is_taken_whatever_the_package_version_says() {
    let host = host("6.1.0-50-amd64", Some(BUILD_50), Some("debian 6.1.178-1"));
    assert_eq!(select(MANY, &host).1, [1, 2]);
}

#[test]
fn a_manifest_without_livepatches_goes_by_its_targets() {
    let truth = include_str!("truth.yaml");
    let (before, layer) = truth.split_once("  - kind: livepatch").unwrap();
    let layer = before.to_owned() + "  - kind: layer" + layer.split_once("  - kind: layer").unwrap().1;
    let other = host("6.12.6-amd64", None, None);
    assert_eq!(select(&layer, &other), (KernelOutcome::NoneFits, vec![], vec![]));
    let any = layer.replace("  kernels: [6.1.0-50-amd64]\n", "");
    assert_eq!(select(&any, &other), (KernelOutcome::Applies, vec![0], vec![]));
}
