//! The differ against damaged input: pairs of objects with a few bytes changed in one of them.
//!
//! Each mutant must be compared or refused, without a panic; an error must point into the file. What a
//! comparison emits must be a proper object again. `MUTATIONS=100000 cargo test --release --test diff_mutation`
//! is the long run; see `tests/support/mutant.rs` for making one mutant again.

mod compiled;
mod support;

use compiled::Case;
use patch_tools::diff::{DiffError, Options, Side, SymbolTable, compare};
use patch_tools::elf::Elf;
use patch_tools::klp;
use patch_tools::module::ObjectName;
use support::mutant::run;

/// Cases that between them have every kind of section.
const CASES: [&str; 12] = [
    "alternatives",
    "callbacks",
    "cold-split",
    "data-pointing-into-itself",
    "ex-table",
    "export-added",
    "jump-label-in-patch",
    "new-table-of-patched-functions",
    "once-flags-are-duplicated",
    "shared-text-section",
    "static-local-moved",
    "switch-jump-table",
];

fn compares(orig: &[u8], patched: &[u8], damaged: Side) -> bool {
    match compare(orig, patched, &Options::new(ObjectName::Vmlinux)) {
        Ok(diff) => {
            serde_json::to_string(diff.report()).unwrap();
            if let Some(object) = diff.object() {
                Elf::parse(object).unwrap();
                // Not linked: what `ld` makes of it is another matter, but it must be readable as it is.
                Elf::parse(&klp::finish(object).unwrap()).unwrap();
            }
            true
        }
        Err(DiffError::Malformed { side, source }) => {
            let file = if side == Side::Original { orig } else { patched };
            assert!(side == damaged && source.offset <= file.len() as u64, "{source}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn halves(pick: fn(&Case) -> &Vec<u8>) -> Vec<Vec<u8>> {
    CASES.iter().map(|name| pick(&Case::load(name)).clone()).collect()
}

#[test]
fn damaged_patched_objects_are_compared_or_refused_with_an_offset_in_the_file() {
    let (orig, patched) = (halves(|case| &case.orig), halves(|case| &case.patched));
    let (accepted, refused) = run(&patched, |index, data| compares(&orig[index], data, Side::Patched));
    assert!(accepted + refused <= 1 || (accepted > 0 && refused > 0), "{accepted} read, {refused} refused");
}

#[test]
fn damaged_original_objects_are_compared_or_refused_with_an_offset_in_the_file() {
    let (orig, patched) = (halves(|case| &case.orig), halves(|case| &case.patched));
    let (accepted, refused) = run(&orig, |index, data| compares(data, &patched[index], Side::Original));
    assert!(accepted + refused <= 1 || (accepted > 0 && refused > 0), "{accepted} read, {refused} refused");
}

#[test]
fn damaged_symbol_sources_are_read_or_refused() {
    let kallsyms = b"ffffffff81000000 T _text\nffffffff81000040 t helper\t[loop]\n".repeat(20);
    let readelf = b"     3: ffffffff81000100    21 FUNC    LOCAL  DEFAULT    1 helper\n".repeat(20);
    let symvers = b"0x12345678\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n".repeat(20);
    let elf = Case::load("static-local-moved").orig;
    run(&[kallsyms, readelf, symvers, elf], |_, data| {
        SymbolTable::new().read(data, &ObjectName::Vmlinux).is_ok()
    });
}
