//! From a distribution's source to a running kernel and back: two real fixes, one to the kernel itself and one to a
//! module.

use anyhow::Result;
use vm_tests::lab::Lab;
use vm_tests::lab::kernel::DEFAULT_RELEASE;
use vm_tests::product::{Build, Product};
use vm_tests::prove::{self, Beginning, Counts, Options};

#[test]
fn real_fixes_to_the_kernel_and_to_a_module_are_built_loaded_used_and_unloaded() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let options = Options {
        kernel: DEFAULT_RELEASE.to_owned(),
        // A fixed version: what a later one changes in these files is not known.
        later: Some("6.1.192-2".to_owned()),
        limit: 2,
        only: ["security/keys/persistent.c", "drivers/bluetooth/btrtl.c"].map(str::to_owned).to_vec(),
        // As the tests are built: a release would be built for this test alone.
        program: Some(Product::build(Build::Tests)?.patch_tools),
        report: dir.path().join("report.md"),
        jobs: 2,
        beginning: Beginning::Anew,
    };
    let report = prove::run(&Lab::for_test()?, &options)?;
    let text = std::fs::read_to_string(&options.report)?;
    assert_eq!(report.total(), Counts { proven: 2, ..Counts::default() }, "{text}");
    Ok(())
}
