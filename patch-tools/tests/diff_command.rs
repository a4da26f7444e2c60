//! `patch-tools diff` as its user meets it: exit codes, output, every kind of symbol file.

mod compiled;
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use compiled::{Case, compile};
use serde_json::Value;
use support::kernel::{Kallsyms, Packing, bzimage, vmlinux};

/// A directory with `orig.o` and `patched.o`.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new(orig: &[u8], patched: &[u8]) -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap() };
        bench.put("orig.o", orig);
        bench.put("patched.o", patched);
        bench
    }

    fn of(name: &str) -> Self {
        let case = Case::load(name);
        Self::new(&case.orig, &case.patched)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn diff(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_patch-tools"))
            .args(["diff", "orig.o", "patched.o"])
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.diff(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_change_ends_with_0_and_leaves_the_object() {
    let bench = Bench::of("body-changed");
    let output = bench.diff(&["-o", "out.o"]);
    assert_eq!(code(&output), 0);
    assert_eq!(
        stdout(&output),
        "changed: a livepatch of vmlinux can carry it\n\
         changed functions\n  show\n\
         livepatch symbols\n  vmlinux:printk,0\n\
         written to out.o\n"
    );
    assert!(bench.directory.path().join("out.o").is_file());
}

#[test]
fn no_change_ends_with_3_and_writes_nothing() {
    let bench = Bench::of("line-argument-only");
    let output = bench.diff(&["-o", "out.o"]);
    assert_eq!(code(&output), 3);
    assert_eq!(
        stdout(&output),
        "unchanged: nothing that runs differs\n\
         ignored\n  sleeps: only line numbers passed to __might_sleep changed\n"
    );
    assert!(!bench.directory.path().join("out.o").exists());
}

#[test]
fn a_refused_change_ends_with_3_says_why_and_writes_nothing() {
    let bench = Bench::of("data-resized");
    let output = bench.diff(&["-o", "out.o"]);
    assert_eq!(code(&output), 3);
    let text = stdout(&output);
    assert!(text.starts_with("refused: a livepatch of vmlinux cannot carry it\n  - limits: "), "{text}");
    assert!(text.contains("from 16 to 20 bytes; use a shadow variable [data-resized]"), "{text}");
    assert!(!bench.directory.path().join("out.o").exists());
}

#[test]
fn json_has_every_list_and_the_relocations_in_full() {
    let json = Bench::of("static-local-moved").json(&[]);
    assert_eq!(json["verdict"], "changed");
    assert_eq!(json["changed_functions"], serde_json::json!(["second"]));
    assert_eq!(json["new_functions"], serde_json::json!(["inserted"]));
    for list in ["callbacks", "ignored", "refused"] {
        assert_eq!(json[list], serde_json::json!([]), "{list}");
    }
    let relocations = json["klp_relocations"].as_array().unwrap();
    let count = relocations.iter().find(|one| one["symbol"] == "count.0").unwrap();
    assert_eq!(count["section"], ".text.second");
    assert_eq!(count["type"], "R_X86_64_PC32");
    assert_eq!((&count["object"], &count["sympos"]), (&Value::from("vmlinux"), &Value::from(0)));
    assert!(count["offset"].is_u64() && count["addend"].is_i64());
    let refused = Bench::of("static-data-changed").json(&[]);
    assert_eq!(refused["refused"][0]["symbol"], "limits");
    assert!(refused["refused"][0]["reason"].as_str().unwrap().contains("offset 0xc"));
    let ignored = Bench::of("line-argument-only").json(&[]);
    assert_eq!(ignored["ignored"][0]["function"], "sleeps");
}

#[test]
fn why_shows_both_sides_of_the_first_difference() {
    let bench = Bench::of("string-literal-changed");
    let text = stdout(&bench.diff(&["--why"])).to_owned();
    assert!(text.contains("show: code, first difference at 0x"), "{text}");
    assert!(text.contains("  - 0x") && text.contains("# \"value %d\\n\" (R_X86_64_32S)"), "{text}");
    assert!(text.contains("  + 0x") && text.contains("# \"number %d\\n\" (R_X86_64_32S)"), "{text}");
    let json = bench.json(&["--why"]);
    assert_eq!(json["why"][0]["function"], "show");
    assert!(json["why"][0]["orig"].as_str().unwrap().contains("mov $0, %rdi"));
}

#[test]
fn damaged_and_missing_files_end_with_3_and_say_where_the_damage_is() {
    let bench = Bench::of("body-changed");
    bench.put("patched.o", &Case::load("body-changed").patched[..100]);
    let output = bench.diff(&[]);
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).starts_with("error: patched object is malformed\n  because: at offset 0x"));
    assert!(stderr(&output).contains("(rule section-table)"), "{}", stderr(&output));
    std::fs::remove_file(bench.directory.path().join("patched.o")).unwrap();
    let output = bench.diff(&[]);
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).starts_with("error: cannot read patched.o\n  because: "), "{}", stderr(&output));
}

#[test]
fn an_object_name_that_no_kernel_object_can_have_is_a_usage_error() {
    let bench = Bench::of("body-changed");
    for bad in ["", "a.ko", "a/b", "name with spaces"] {
        assert_eq!(code(&bench.diff(&["--object", bad])), 2, "{bad}");
    }
}

#[test]
fn symbols_of_the_wrong_object_are_refused_with_a_hint() {
    let bench = Bench::of("body-changed");
    bench.put("kallsyms", b"ffffffff81000000 T _text\n");
    let output = bench.diff(&["--symbols", "kallsyms", "--object", "ext4"]);
    assert_eq!(code(&output), 3);
    assert_eq!(
        stderr(&output),
        "error: expected symbols of ext4 among those given, but there are none\n\
         state:    nothing was changed\n\
         next:     give the symbols of that object with a further --symbols\n"
    );
}

#[test]
fn a_file_without_symbols_of_any_known_kind_is_refused() {
    let bench = Bench::of("body-changed");
    for (name, bytes) in [("text", &b"no symbols here\n"[..]), ("empty", b""), ("binary", &[0xff; 2000])] {
        bench.put(name, bytes);
        let output = bench.diff(&["--symbols", name]);
        assert_eq!(code(&output), 3, "{name}");
        assert!(stderr(&output).contains("expected kallsyms text"), "{}", stderr(&output));
    }
}

/// The source whose symbols the small kernel of `support::kernel` has.
fn small_kernel_case() -> Bench {
    let orig = "int helper(int); int klp_enable_patch(int);\n\
        static __attribute__((noinline)) int notrace_function(int v) { return klp_enable_patch(v) * 2; }\n\
        int cmdline_proc_show(int v) { return helper(v) + notrace_function(v) + 1; }\n";
    Bench::new(&compile(orig, &[]), &compile(&orig.replace("+ 1", "+ 2"), &[]))
}

/// `object:symbol,position` of the relocations in the report.
fn symbols(json: &Value) -> Vec<String> {
    let relocations = json["klp_relocations"].as_array().unwrap_or_else(|| panic!("{json}"));
    let mut found: Vec<String> = relocations
        .iter()
        .map(|one| format!("{}:{}", one["object"].as_str().unwrap(), one["symbol"].as_str().unwrap()))
        .collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn every_kind_of_symbol_source_gives_the_same_answer() {
    let bench = small_kernel_case();
    let kernel = vmlinux(Kallsyms::WithSequences);
    let image = bench.put("vmlinuz", &bzimage(&kernel, Packing::Gzip));
    let raw = bench.put("vmlinux", &kernel);
    let kallsyms = "ffffffff81000100 t cmdline_proc_show\nffffffff81000140 t notrace_function\n\
        ffffffff81000200 T klp_enable_patch\nffffffff81000240 T helper\nffffffff81040000 r __ksymtab_helper\n\
        ffffffff81040010 r __ksymtab_klp_enable_patch\nffffffff81040020 r __ksymtab___fentry__\n";
    let kallsyms = bench.put("kallsyms", kallsyms.as_bytes());
    let program = bench.put(
        "symbols.s",
        b"\
        .text\n.type cmdline_proc_show, @function\ncmdline_proc_show: .zero 64\n.size cmdline_proc_show, 0\n\
        .type notrace_function, @function\nnotrace_function: .zero 64\n\
        .globl klp_enable_patch, helper\n.type helper, @function\nklp_enable_patch: helper: .zero 64\n\
        .data\n__ksymtab_helper: __ksymtab_klp_enable_patch: __ksymtab___fentry__: .zero 12\n",
    );
    let elf = bench.directory.path().join("symbols.elf");
    let assembled = Command::new("gcc").arg("-c").arg("-o").arg(&elf).arg(program).status().unwrap();
    assert!(assembled.success());
    let readelf = Command::new("readelf").args(["-s", "--wide"]).arg(&elf).output().unwrap().stdout;
    let readelf = bench.put("readelf", &readelf);
    let symvers = bench.put("Module.symvers", b"0x00000001\t__fentry__\tvmlinux\tEXPORT_SYMBOL\t\n");
    for source in [image, raw, kallsyms, elf, readelf] {
        let sources = ["--symbols", path(&source), "--symbols", path(&symvers)];
        let json = bench.json(&sources);
        assert_eq!(symbols(&json), ["vmlinux:notrace_function"], "{}: {json}", source.display());
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
