//! The differ, one directory of `tests/diff` for each behaviour.
//!
//! A directory holds `orig.c` and `patched.c`, which are compiled the way the kernel is, `expect.json`, and
//! where positions matter `symbols.txt`. Each case also goes through what follows a comparison: the emitted
//! object is linked with `ld -r`, finished, and read back.

mod compiled;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use compiled::behaviour::{Expected, Names, check, link, run};
use compiled::{Case, compile};
use patch_tools::diff::{Options, SymbolTable, Verdict, compare, new_globals};
use patch_tools::elf::{Elf, Place};
use patch_tools::klp;
use patch_tools::module::ObjectName;

fn holds(name: &str) {
    check(&Case::load(name), Names::Exact).unwrap_or_else(|error| panic!("{error:?}"));
}

macro_rules! cases {
    ($($name:ident)*) => {
        const CASES: &[&str] = &[$(stringify!($name)),*];
        mod case {
            $(#[test] fn $name() { super::holds(&stringify!($name).replace('_', "-")); })*
        }
    };
}

cases! {
    aliases alternative_feature_changed alternative_replacement_changed alternatives ambiguous_symbol
    body_changed btf_ids_changed bug_flags_changed bug_table callbacks clones_renumbered cold_part_appears cold_part_of_an_alias
    cold_split constant_data_changed constprop_clone_changed crc_changed data_alignment_changed
    data_initialised data_pointing_into_itself data_renamed data_resized data_retyped_pointer ex_table
    ex_table_type_changed export_added export_made_gpl export_moved_to_namespace export_removed
    exported_by_another_module exported_by_vmlinux exported_function_changed file_level_assembler_changed
    file_names_tell_namesakes_apart forced_and_ignored function_pointer_to_patched function_removed
    immediate_for_another_function init_changed init_data_changed init_line_only init_made_permanent
    init_unchanged_beside_a_fix initcall_added jump_label_in_module jump_label_in_patch
    jump_behind_the_start labels_table_carried_along labels_table_moves_with_the_code labels_table_used_by_others
    labels_table_writable runtime_constant runtime_constant_elsewhere runtime_constant_of_the_file runtime_constant_added runtime_shift place_kept_by_a_table
    jump_label_in_vmlinux line_and_code_changed line_argument_on_branches line_argument_only
    line_in_a_text_only line_in_a_text_that_is_not_printed
    lines_moved_only made_static module_text_changed moved_to_unlikely_section new_data new_function
    new_function_without_fentry new_global new_percpu_data new_table_of_patched_functions no_change
    no_fentry not_exported_to_modules once_flags_are_duplicated once_state_is_kept parameter_table_changed
    patched_function_has_namesakes printed_line_only printed_number_changed recursive_function
    reference_to_init refers_to_what_another_file_brings return_sites section_of_unusual_type section_symbol_relocs shared_data_section_grows shared_text_section
    shared_text_section_shifts smp_locks special_section_of_unknown_shape static_call_in_module
    static_call_in_vmlinux static_data_changed static_local_moved static_local_out_of_line
    static_local_vanished static_locals_reordered string_data_changed string_literal_changed strings_moved
    switch_jump_table switch_jump_table_only symbol_not_in_kernel alias_becomes_a_function function_becomes_an_alias function_becomes_data unnamed_variable symbol_of_another_size
    alternative_without_replacement alternative_without_replacement_beside_a_change part_without_entry tracepoint_in_module
    variables_with_names_of_macros data_becomes_a_static_local data_renamed_behind_a_helper
    data_no_longer_needed data_renamed_and_grown static_constants_vanished
    unnamed_data_changed unnamed_data_between_variables_changed alternative_refers_to_a_module
    module_needs_another_one module_uses_more_of_another_one aligned_neighbour_in_a_shared_section
    alignment_in_a_shared_section_changed
    static_locals_shifted static_locals_kept_in_order
    undefined_has_a_local_namesake undefined_is_data_elsewhere undefined_is_local_elsewhere
    export_strings_move_as_variables export_strings_move export_flags_changed export_flags_unchanged_beside_a_change jump_table_of_three_addresses bug_table_with_formats bug_table_with_formats_line_only bug_table_without_file_names alternatives_of_14_bytes alternatives_of_13_bytes fixup fixup_changed patchable_entry_at_the_start patchable_entry_before_the_start room_for_a_thunk_before_the_start sanitizer_places_move sanitizer_places_beside_a_change coverage_data_beside_a_change coverage_data_changed linked_from_two_files linked_from_two_files_namesake_changed marks_for_other_tools keys_and_texts_of_a_function warning_helpers_line_only
    debug_descriptors_of_old_kernels debug_descriptors_numbered_apart export_marks export_mark_added export_mark_changed export_mark_removed
    constructors_of_sanitizers function_without_entry function_without_entry_whose_address_is_taken fixup_ends_with_a_call refcount_out_of_line unwind_tables common_symbols common_symbol_added common_symbol_resized
    new_and_unused unexported_local_symbol warn_line_only weak_overridden weak_overridden_is_called wide_string_changed wide_string_copied_whole
}

#[test]
fn every_directory_is_a_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diff");
    let directories = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    let found: BTreeSet<String> = directories
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap().replace('-', "_"))
        .collect();
    assert_eq!(found, CASES.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for name in ["new-function", "static-local-moved", "alternatives", "switch-jump-table"] {
        let case = Case::load(name);
        let once = run(&case, &Expected::default());
        let again = run(&case, &Expected::default());
        assert_eq!(once.object(), again.object(), "{name}");
    }
}

#[test]
fn new_globals_are_known_before_the_comparison() {
    let case = Case::load("new-global");
    assert_eq!(new_globals(&case.orig, &case.patched).unwrap(), ["helper_for_others"]);
}

#[test]
fn a_global_of_another_file_of_the_patch_is_left_to_the_linker() {
    let case = Case::load("body-changed");
    let mut options = Options::new(ObjectName::Vmlinux);
    options.provided.insert("printk".to_owned());
    let diff = compare(&case.orig, &case.patched, &options).unwrap();
    assert!(diff.report().klp_relocations.is_empty());
}

#[test]
fn a_change_without_effect_says_what_became_of_each_part() {
    let told = |name: &str| run(&Case::load(name), &Expected::default()).report().without_effect();
    assert_eq!(
        told("new-and-unused"),
        [
            "sleeps: only line numbers passed to __might_sleep changed",
            "helper: new, and nothing that is replaced uses it",
            "table: new, and nothing that is replaced uses it"
        ]
    );
    assert_eq!(told("no-change"), ["nothing that runs differs"]);
}

#[test]
fn an_address_found_by_matching_settles_which_namesake_is_meant() {
    let case = Case::load("ambiguous-symbol");
    let mut table = SymbolTable::new();
    table.read(case.symbols.as_ref().unwrap(), &ObjectName::Vmlinux).unwrap();
    let mut options = Options::new(ObjectName::Vmlinux);
    options.symbols = Some(&table);
    options.addresses.insert("helper".to_owned(), 0xffff_ffff_8100_0500);
    let diff = compare(&case.orig, &case.patched, &options).unwrap();
    let positions: BTreeSet<_> =
        diff.report().klp_relocations.iter().map(|one| (one.symbol.as_str(), one.sympos)).collect();
    assert_eq!(positions, BTreeSet::from([("helper", 3)]));
}

#[test]
fn the_first_differing_instruction_is_shown_for_both_sides() {
    let case = Case::load("body-changed");
    let diff = run(&case, &Expected::default());
    let explanation = diff.explanations()[0].to_string();
    let lines: Vec<&str> = explanation.lines().collect();
    assert!(lines[0].starts_with("show: code, first difference at 0x"), "{explanation}");
    assert!(
        lines[1].contains("0x1(") || lines[1].contains("$0x1") || lines[1].contains("1("),
        "{explanation}"
    );
    assert!(
        lines[2].contains("0x2(") || lines[2].contains("$0x2") || lines[2].contains("2("),
        "{explanation}"
    );
    let case = Case::load("string-literal-changed");
    let explanation = run(&case, &Expected::default()).explanations()[0].to_string();
    assert!(explanation.contains("\"value %d\\n\""), "{explanation}");
    assert!(explanation.contains("\"number %d\\n\""), "{explanation}");
    let case = Case::load("wide-string-changed");
    let explanation = run(&case, &Expected::default()).explanations()[0].to_string();
    assert!(explanation.contains("\"SetupMode!\""), "{explanation}");
}

#[test]
fn a_wide_string_is_carried_to_the_end_of_its_terminator() {
    let diff = run(&Case::load("wide-string-copied-whole"), &Expected::default());
    let elf = Elf::parse(diff.object().unwrap()).unwrap();
    let strings = elf.section(".rodata.show.str2.2").or(elf.section(".rodata.str2.2")).unwrap();
    let text: Vec<u8> = "SecureBoot\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(strings.data, text);
}

#[test]
fn strings_of_characters_that_c_does_not_have_are_refused() {
    let mut case = Case::load("wide-string-copied-whole");
    for object in [&mut case.orig, &mut case.patched] {
        let entry = {
            let elf = Elf::parse(object).unwrap();
            let index = elf.sections().iter().position(|one| one.entry_size == 2).unwrap();
            // `e_shoff`, entries of 64 bytes, of which `sh_entsize` is the last field.
            u64::from_le_bytes(object[40..48].try_into().unwrap()) as usize + index * 64 + 56
        };
        object[entry] = 3;
    }
    let diff = run(&case, &Expected::default());
    let rules: BTreeSet<&str> = diff.report().refused.iter().map(|one| one.reason.id()).collect();
    assert!(rules.contains("unsupported-section"), "{rules:?}");
}

/// A source with this many functions in sections of their own, before the one that changes.
fn crowded(functions: usize, show: &str) -> String {
    format!(
        r#"asm(".altmacro\n.macro one n\n.section .text.f\\n, \"ax\", @progbits\n.globl f\\n\n"
            ".type f\\n, @function\nf\\n: ret\n.size f\\n, 1\n.endm\n"
            ".set i, 0\n.rept {functions}\none %i\n.set i, i + 1\n.endr\n.noaltmacro\n.text\n");
        int outside(int);
        int show(int value) {{ {show} }}"#
    )
}

#[test]
fn more_sections_than_16_bits_can_number_are_compared() {
    let build = |show: &str| compile(&crowded(66_000, show), &[]);
    let (orig, patched) = (build("return outside(value);"), build("return outside(value) + 1;"));
    assert!(Elf::parse(&orig).unwrap().sections().len() > 66_000);
    let diff = compare(&orig, &patched, &Options::new(ObjectName::Vmlinux)).unwrap();
    assert_eq!(diff.report().changed_functions, ["show"]);
    assert!(klp::finish(&link(&[diff.object().unwrap()])).is_ok());
}

#[test]
fn more_sections_than_16_bits_can_number_are_written_and_no_module_is_made_of_them() {
    use patch_tools::klp::write::{Contents, NewPlace, NewSection, NewSymbol, write};
    let names: Vec<String> = (0..65_500).map(|index| format!(".text.f{index}")).collect();
    let sections: Vec<NewSection<'_>> = names
        .iter()
        .map(|name| NewSection {
            name: name.into(),
            kind: object::elf::SHT_PROGBITS,
            flags: 6,
            alignment: 1,
            entry_size: 0,
            link: None,
            contents: Contents::Bytes(vec![0xc3].into()),
            tables: Vec::new(),
        })
        .collect();
    let symbols: Vec<NewSymbol<'_>> = names
        .iter()
        .enumerate()
        .map(|(index, name)| NewSymbol {
            name: name[6..].into(),
            kind: object::elf::STT_FUNC,
            binding: object::elf::STB_GLOBAL,
            other: 0,
            place: NewPlace::Section(index),
            value: 0,
            size: 1,
        })
        .collect();
    let file = write(&sections, &symbols);
    let elf = Elf::parse(&file).unwrap();
    for symbol in elf.symbols().iter().skip(1) {
        let Place::Section(section) = symbol.place else { panic!("{symbol:?}") };
        assert_eq!(elf.sections()[section].name, format!(".text.{}", symbol.name));
    }
    // Another reader agrees.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("many.o");
    std::fs::write(&path, &file).unwrap();
    let listed = Command::new("readelf").args(["-sW"]).arg(&path).output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert!(listed.lines().any(|line| line.ends_with("65500 f65499")), "{listed}");
    assert!(matches!(klp::finish(&file), Err(klp::FinishError::TooManySections(65_504))));
}

#[test]
fn a_module_says_what_it_needs() {
    let modinfo = r#"__attribute__((section(".modinfo"), used))
        static const char name[] = "name=loop", depends[] = "depends=other,third-one";
        int show(int value) { return value; }"#;
    let named = |name: &str| ObjectName::Module(name.to_owned());
    let mut table = SymbolTable::new();
    table.read(&compile(modinfo, &[]), &named("unit")).unwrap();
    let needs = |other| table.needs(&named("loop"), &named(other));
    assert_eq!([needs("other"), needs("third_one"), needs("fourth")], [true, true, false]);
}

#[test]
fn a_file_for_another_os_abi_is_refused() {
    let mut case = Case::load("body-changed");
    case.patched[7] = 3;
    let diff = run(&case, &Expected::default());
    assert_eq!(diff.report().verdict, Verdict::Refused);
    assert_eq!(diff.report().refused[0].reason.id(), "header-mismatch");
}

#[test]
fn assembler_output_is_refused() {
    let object = compile("asm(\".globl f\\n.type f, @function\\nf: ret\\n.size f, 1\");", &["-fno-ident"]);
    let diff = compare(&object, &object, &Options::new(ObjectName::Vmlinux)).unwrap();
    assert_eq!(diff.report().refused[0].reason.id(), "not-compiled");
}

#[test]
fn a_truncated_file_is_an_error_that_names_offset_and_rule() {
    let case = Case::load("body-changed");
    for length in [0, 10, 64, case.orig.len() / 2, case.orig.len() - 1] {
        let options = Options::new(ObjectName::Vmlinux);
        let error = compare(&case.orig[..length], &case.patched, &options).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.to_string().contains("original"), "{error}");
        assert!(source.starts_with("at offset 0x") && source.contains("(rule "), "{source}");
    }
}

#[test]
fn symbols_of_another_object_are_an_error() {
    let case = Case::load("jump-label-in-module");
    let mut table = SymbolTable::new();
    table.read(b"ffffffff81000000 T _text\n", &ObjectName::Vmlinux).unwrap();
    let mut options = Options::new(ObjectName::Module("loop".to_owned()));
    options.symbols = Some(&table);
    let error = compare(&case.orig, &case.patched, &options).unwrap_err();
    assert_eq!(error.to_string(), "expected symbols of loop among those given, but there are none");
}
