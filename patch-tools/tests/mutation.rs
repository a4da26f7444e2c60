//! The readers against damaged input: thousands of modules and kernels with a few bytes changed.
//!
//! Each mutant must be read or refused, without a panic, and a refusal must point into the file. The order is
//! fixed by a seed; `MUTATIONS=100000 cargo test --release --test mutation` is the long run, and a failure
//! prints the mutant's number, which is enough to make it again (`MUTATION=number` runs only that one).

mod support;

use patch_tools::check::{KernelFacts, ObjectFacts, check};
use patch_tools::elf::Malformed;
use patch_tools::image::{ImageError, KernelImage};
use patch_tools::module::Module;
use support::kernel::{Kallsyms, RELEASE, kcore, vmlinux};
use support::mutant::{run, selection};
use support::{compile, fixtures};

fn points_into(error: &Malformed, data: &[u8]) {
    assert!(error.offset <= data.len() as u64, "{error} in a file of {:#x} bytes", data.len());
}

fn read_module(data: &[u8], facts: &KernelFacts) -> bool {
    let facts_of_object = ObjectFacts::parse(data);
    match Module::parse(data) {
        Ok(module) => {
            serde_json::to_string(&module).unwrap();
            check(&module, facts);
            true
        }
        Err(error) => {
            points_into(&error, data);
            assert!(facts_of_object.is_err());
            false
        }
    }
}

fn read_kernel(data: &[u8]) -> bool {
    match KernelImage::parse(data) {
        Ok(image) => {
            if let Ok(Some(btf)) = image.btf() {
                btf.structure_names().for_each(|name| drop(btf.structure(name)));
            }
            true
        }
        Err(ImageError::Malformed(error)) => {
            points_into(&error, data);
            false
        }
        Err(_) => false,
    }
}

#[test]
fn mutated_modules_are_read_or_refused_with_an_offset_in_the_file() {
    let facts = KernelFacts::from_image(&KernelImage::parse(&vmlinux(Kallsyms::WithSequences)).unwrap());
    let originals: Vec<_> = fixtures().iter().map(|name| compile(name)).collect();
    let (accepted, refused) = run(&originals, |_, data| read_module(data, &facts));
    // Both have to happen, or the mutator changes too much or too little to test anything.
    if selection().count() > 100 {
        assert!(accepted > 0 && refused > 0, "{accepted} read, {refused} refused");
    }
}

#[test]
fn mutated_kernels_are_read_or_refused_with_an_offset_in_the_file() {
    let originals = [Kallsyms::Classic, Kallsyms::WithSequences, Kallsyms::OffsetsLast, Kallsyms::FromPlaces]
        .map(vmlinux);
    let (accepted, refused) = run(&originals, |_, data| read_kernel(data));
    if selection().count() > 100 {
        assert!(accepted > 0 && refused > 0, "{accepted} read, {refused} refused");
    }
}

#[test]
fn mutated_kernel_memory_is_read_or_left_alone() {
    let host = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(host.path().join("proc/sys/kernel")).unwrap();
    std::fs::write(host.path().join("proc/sys/kernel/osrelease"), RELEASE).unwrap();
    std::fs::write(host.path().join("proc/kallsyms"), "").unwrap();
    let module = support::module("one-function");
    let originals =
        [Kallsyms::Classic, Kallsyms::WithSequences, Kallsyms::OffsetsLast, Kallsyms::FromPlaces].map(kcore);
    let (accepted, refused) = run(&originals, |_, data| {
        std::fs::write(host.path().join("proc/kcore"), data).unwrap();
        let facts = KernelFacts::gather(host.path(), &module).unwrap();
        check(&module, &facts);
        facts.exports.is_some()
    });
    if selection().count() > 100 {
        assert!(accepted > 0 && refused > 0, "{accepted} read, {refused} refused");
    }
}
