//! What the module reader makes of modules that have one condition each.

mod support;

use patch_tools::elf::Rule;
use patch_tools::module::{Module, Need, ObjectName, Replace, SignerIdentity, State, TableForm};
use support::{compile, module, with_klp_relocations};

/// `object:function,position by replacement` of every function.
fn functions(module: &Module) -> Vec<String> {
    let objects = module.objects().iter();
    objects
        .flat_map(|object| {
            object.functions.iter().map(move |function| {
                let new = function.new_symbol.as_deref().unwrap_or("?");
                format!("{}:{},{} by {new}", object.name, function.old_name, function.sympos)
            })
        })
        .collect()
}

/// The rule that a fixture breaks, with an offset that lies within the file.
fn broken_rule(name: &str) -> Rule {
    let data = compile(name);
    let error = Module::parse(&data).expect_err(name);
    assert!(error.offset < data.len() as u64, "{error}");
    error.rule
}

#[test]
fn a_module_that_patches_one_function_is_read_whole() {
    let module = module("one-function");
    assert!(module.is_livepatch());
    assert_eq!(module.name.as_deref(), Some("one_function"));
    assert_eq!(module.release(), Some("6.1.0-50-amd64"));
    assert_eq!(functions(&module), ["vmlinux:cmdline_proc_show,0 by new_show"]);
    let livepatch = module.livepatch.as_ref().unwrap();
    assert_eq!((livepatch.form, livepatch.replace), (TableForm::KlpPatch, Replace::None));
    assert!(livepatch.objects[0].functions[0].new_size.unwrap() > 0);
    assert!(livepatch.objects[0].callbacks.iter().next().is_none());
}

#[test]
fn imports_carry_the_crcs_of_the_versions_section() {
    let module = module("one-function");
    let found: Vec<_> =
        module.imports.iter().map(|import| (import.name.as_str(), import.crc, import.need)).collect();
    assert!(found.contains(&("klp_enable_patch", Some(0xb27d_e5fe), Need::Required)), "{found:?}");
    assert!(found.contains(&("helper", None, Need::Required)), "{found:?}");
    assert!(found.contains(&("module_layout", Some(0xbce1_a965), Need::Layout)), "{found:?}");
}

#[test]
fn objects_positions_callbacks_states_and_replace_are_read() {
    let module = module("several-objects");
    assert_eq!(
        functions(&module),
        [
            "vmlinux:cmdline_proc_show,0 by new_one",
            "vmlinux:version_proc_show,2 by new_two",
            "loop:lo_release,0 by new_three",
        ]
    );
    let livepatch = module.livepatch.as_ref().unwrap();
    assert_eq!(livepatch.replace, Replace::All);
    assert_eq!(livepatch.states, [State { id: 7, version: 3 }]);
    let callbacks: Vec<_> = livepatch.objects[0].callbacks.iter().collect();
    assert_eq!(callbacks, [("pre_patch", "before"), ("post_unpatch", "after")]);
    assert_eq!(livepatch.objects[1].name, ObjectName::Module("loop".to_owned()));
}

#[test]
fn the_patch_is_found_however_its_address_is_loaded() {
    let expected = ["vmlinux:cmdline_proc_show,0 by new_show"];
    assert_eq!(functions(&module("argument-by-lea")), expected);
    assert_eq!(functions(&module("argument-from-variable")), expected);
}

#[test]
fn kpatch_tables_are_read_with_callbacks_and_forced_functions() {
    let module = module("kpatch-tables");
    assert_eq!(
        functions(&module),
        ["vmlinux:cmdline_proc_show,0 by new_show", "loop:lo_release,2 by new_release",]
    );
    let livepatch = module.livepatch.unwrap();
    assert_eq!((livepatch.form, livepatch.replace), (TableForm::Kpatch, Replace::DecidedAtLoad));
    assert_eq!(livepatch.forced, ["new_show"]);
    assert_eq!(livepatch.objects[1].callbacks.pre_patch.as_deref(), Some("before"));
}

#[test]
fn klp_build_tables_are_read_with_callbacks() {
    let module = module("klp-build-tables");
    assert_eq!(
        functions(&module),
        ["vmlinux:cmdline_proc_show,1 by new_show", "loop:lo_release,0 by new_release",]
    );
    let livepatch = module.livepatch.unwrap();
    assert_eq!(livepatch.form, TableForm::KlpBuild);
    assert_eq!(livepatch.objects[1].callbacks.pre_patch.as_deref(), Some("before"));
}

#[test]
fn an_ordinary_module_is_read_and_called_no_livepatch() {
    let module = module("not-a-livepatch");
    assert!(!module.is_livepatch());
    assert!(module.livepatch.is_none() && module.objects().is_empty());
}

#[test]
fn a_livepatch_that_enables_nothing_has_no_tables() {
    let module = module("no-enable-call");
    assert!(module.is_livepatch());
    assert!(module.livepatch.is_none());
}

#[test]
fn tables_that_the_kernel_would_misread_are_refused_by_rule() {
    assert_eq!(broken_rule("two-patches"), Rule::KlpSinglePatch);
    assert_eq!(broken_rule("internal-field-set"), Rule::KlpLayout);
    assert_eq!(broken_rule("pointer-without-relocation"), Rule::KlpPointer);
    assert_eq!(broken_rule("table-without-end"), Rule::KlpTable);
    assert_eq!(broken_rule("replacement-in-data"), Rule::KlpTable);
    assert_eq!(broken_rule("name-without-end"), Rule::KlpString);
}

#[test]
fn livepatch_relocations_name_section_symbol_and_position() {
    let module = Module::parse(&with_klp_relocations()).unwrap();
    let [symbol] = module.klp_symbols.as_slice() else { panic!("{:?}", module.klp_symbols) };
    assert_eq!((symbol.name.as_str(), symbol.sympos), ("proc_cmdline_helper", 2));
    let [relocation] = module.klp_relocations.as_slice() else { panic!("{:?}", module.klp_relocations) };
    assert_eq!(relocation.object, ObjectName::Vmlinux);
    assert_eq!(relocation.symbol.as_ref(), Some(symbol));
    assert_eq!(relocation.kind, object::elf::R_X86_64_PLT32);
    // The loader resolves none of them.
    assert!(module.imports.iter().all(|import| !import.name.starts_with(".klp.sym.")));
}

#[test]
fn a_livepatch_symbol_with_a_name_of_another_form_is_refused() {
    let mut data = with_klp_relocations();
    let name = b".klp.sym.vmlinux.proc_cmdline_helper,2";
    let at = data.windows(name.len()).position(|window| window == name).unwrap();
    data[at + name.len() - 1] = b'x';
    assert_eq!(Module::parse(&data).unwrap_err().rule, Rule::KlpSymbol);
}

#[test]
fn every_cut_of_a_module_is_an_error() {
    let data = compile("several-objects");
    for length in 0..data.len() {
        // The section table is at the end, so that no cut is complete.
        Module::parse(&data[..length]).expect_err("a cut module");
    }
}

/// A signature as `scripts/sign-file` makes it: CMS without certificates and attributes.
fn sign(module: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("module"), module).unwrap();
    let run = |args: &[&str]| {
        let output = std::process::Command::new("openssl")
            .args(args)
            .current_dir(directory.path())
            .output()
            .expect("openssl is needed to sign");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-sha256",
        "-days",
        "1",
        "-set_serial",
        "0x1234abcd",
        "-subj",
        "/O=Example/CN=Module signing",
        "-keyout",
        "key",
        "-out",
        "cert",
    ]);
    run(&[
        "cms",
        "-sign",
        "-binary",
        "-noattr",
        "-nocerts",
        "-md",
        "sha256",
        "-signer",
        "cert",
        "-inkey",
        "key",
        "-in",
        "module",
        "-outform",
        "DER",
        "-out",
        "signature",
    ]);
    let signature = std::fs::read(path("signature")).unwrap();
    let mut signed = module.to_vec();
    signed.extend_from_slice(&signature);
    signed.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0, 0]);
    signed.extend_from_slice(&u32::try_from(signature.len()).unwrap().to_be_bytes());
    signed.extend_from_slice(b"~Module signature appended~\n");
    signed
}

#[test]
fn an_appended_signature_tells_signer_and_algorithms() {
    let signed = sign(&compile("one-function"));
    let module = Module::parse(&signed).unwrap();
    assert_eq!(functions(&module).len(), 1);
    let signature = module.signature.unwrap();
    let [signer] = signature.signers.as_slice() else { panic!("{signature:?}") };
    let expected =
        SignerIdentity::Certificate { issuer: "Module signing".to_owned(), serial: "1234abcd".to_owned() };
    assert_eq!(signer.identity, expected);
    assert_eq!((signer.digest.as_str(), signer.algorithm.as_str()), ("sha256", "rsa"));
}

#[test]
fn a_signature_longer_than_the_file_is_refused() {
    let mut signed = sign(&compile("one-function"));
    let length = signed.len() - 28 - 4;
    signed[length] = 0x7f;
    assert_eq!(Module::parse(&signed).unwrap_err().rule, Rule::Signature);
}

#[test]
fn a_file_of_another_machine_or_class_is_refused_with_its_offset() {
    let mut data = compile("one-function");
    data[18] = 183;
    let error = Module::parse(&data).unwrap_err();
    assert_eq!((error.rule, error.offset), (Rule::ElfMachine, 18));
    data[4] = 1;
    assert_eq!(Module::parse(&data).unwrap_err().rule, Rule::ElfClass);
    assert_eq!(Module::parse(b"#!/bin/sh\n").unwrap_err().rule, Rule::FileSize);
    assert_eq!(Module::parse(&[b'x'; 4096]).unwrap_err().rule, Rule::ElfMagic);
}
