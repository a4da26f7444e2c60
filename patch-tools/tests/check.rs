//! Every rule of `check`, on a host that is a directory of files and on a small kernel image.

mod support;

use std::path::Path;

use patch_tools::check::{
    Finding, KernelFacts, ObjectFacts, Severity, SymbolList, Traceable, check, loadable,
};
use patch_tools::image::{Export, KernelImage};
use patch_tools::module::{EntryTarget, Module, Signature, SignerIdentity};
use support::kernel::{Kallsyms, RELEASE, kcore, vmlinux};
use support::{compile, module};

const KALLSYMS: &str = "\
ffffffff81000000 T _stext
ffffffff81000100 t cmdline_proc_show
ffffffff81000140 t notrace_function
ffffffff81000200 T klp_enable_patch
ffffffff81000240 T helper
ffffffff81000300 t version_proc_show
ffffffff81000400 t version_proc_show
ffffffff81000500 d some_data
ffffffffc0000000 t lo_release\t[loop]
ffffffffc0000100 t lo_other\t[loop]
";

/// A running host below a directory of its own.
struct Host(tempfile::TempDir);

impl Host {
    /// A host on which the fixtures `one-function` and `several-objects` fit.
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.write("proc/sys/kernel/osrelease", &format!("{RELEASE}\n"));
        host.write("proc/sys/kernel/tainted", "0\n");
        host.write("proc/kallsyms", KALLSYMS);
        host.write("proc/modules", "loop 40960 0 - Live 0x0000000000000000\n");
        host.write(
            &format!("boot/config-{RELEASE}"),
            "CONFIG_SMP=y\nCONFIG_PREEMPT_BUILD=y\nCONFIG_MODULES=y\nCONFIG_MODULE_UNLOAD=y\n\
             CONFIG_MODVERSIONS=y\nCONFIG_LIVEPATCH=y\nCONFIG_HAVE_RELIABLE_STACKTRACE=y\n",
        );
        host.write(
            "sys/kernel/tracing/available_filter_functions",
            "cmdline_proc_show\nversion_proc_show\nversion_proc_show\nlo_release [loop]\n",
        );
        host.write("sys/kernel/tracing/enabled_functions", "");
        host.write("sys/kernel/debug/kprobes/list", "");
        host.write("sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
        host.write("sys/module/module/parameters/sig_enforce", "N\n");
        host.write(&format!("lib/modules/{RELEASE}/modules.builtin"), "kernel/fs/ext4/ext4.ko\n");
        host
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn replace(&self, path: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.0.path().join(path)).unwrap();
        assert!(text.contains(from), "{path} does not hold {from:?}");
        self.write(path, &text.replace(from, to));
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.0.path().join(path)).unwrap();
    }

    fn facts(&self) -> KernelFacts {
        KernelFacts::from_running(self.0.path()).unwrap()
    }

    /// What is found for a fixture, with the host's module files.
    fn check(&self, fixture: &str) -> Vec<Finding> {
        let module = module(fixture);
        let mut facts = self.facts();
        facts.add_module_files(&self.0.path().join("lib/modules").join(RELEASE), &module).unwrap();
        check(&module, &facts)
    }

    /// What remains of the findings for `one-function` when the host has been changed.
    fn with(change: impl FnOnce(&Host)) -> Vec<Finding> {
        let host = Host::new();
        change(&host);
        host.check("one-function")
    }
}

/// The only finding of that severity, as rule and subject.
#[track_caller]
fn only(findings: &[Finding], severity: Severity) -> (&'static str, &str) {
    let of_severity: Vec<_> = findings.iter().filter(|finding| finding.severity == severity).collect();
    let [finding] = of_severity.as_slice() else { panic!("{findings:#?}") };
    (finding.rule, &finding.subject)
}

#[track_caller]
fn refused(findings: &[Finding]) -> (&'static str, &str) {
    assert!(!loadable(findings));
    only(findings, Severity::Refuse)
}

#[test]
fn a_module_that_fits_has_no_finding_but_what_the_loader_checks() {
    let host = Host::new();
    for fixture in ["one-function", "several-objects"] {
        let findings = host.check(fixture);
        assert!(loadable(&findings));
        assert_eq!(only(&findings, Severity::Note), ("symbol-crc", "module"));
        assert_eq!(findings.len(), 1, "{findings:#?}");
    }
}

#[test]
fn a_module_that_the_loader_would_enter_behind_the_start_of_a_function_is_refused() {
    let findings = Host::new().check("entry-moved");
    assert_eq!(refused(&findings), ("entry", "struct module+0x50"));
    let entries = module("entry-moved").entries;
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1].target, EntryTarget::Function("cleanup_module".to_owned()));
}

#[test]
fn a_module_for_another_kernel_is_refused() {
    let findings = Host::with(|host| host.write("proc/sys/kernel/osrelease", "6.1.0-49-amd64\n"));
    assert_eq!(refused(&findings), ("vermagic", "release"));
    let findings = Host::with(|host| {
        host.replace(&format!("boot/config-{RELEASE}"), "CONFIG_PREEMPT_BUILD=y\n", "");
    });
    assert_eq!(refused(&findings), ("vermagic", "flags"));
}

#[test]
fn a_kernel_without_livepatching_is_refused() {
    for option in ["CONFIG_LIVEPATCH", "CONFIG_HAVE_RELIABLE_STACKTRACE", "CONFIG_MODULES"] {
        let findings = Host::with(|host| {
            host.replace(&format!("boot/config-{RELEASE}"), &format!("{option}=y\n"), "");
        });
        assert_eq!(refused(&findings), ("config", option));
    }
}

#[test]
fn an_unsigned_module_is_refused_where_signatures_are_enforced_or_the_kernel_is_locked_down() {
    let findings = Host::with(|host| host.write("sys/module/module/parameters/sig_enforce", "Y\n"));
    assert_eq!(refused(&findings), ("signature", "module"));
    let findings = Host::with(|host| {
        host.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    });
    assert_eq!(refused(&findings), ("signature", "module"));
}

/// Lines of `/proc/keys`, as a stock kernel shows them to root under Secure Boot.
const KEYS: &str = "\
02a1b0e5 I------     1 perm 1f030000     0     0 asymmetri Build time autogenerated kernel key: 092fa7c73d21b4c79e449372fdf50a49a6f4ec79: X509.rsa a6f4ec79 []
1ba0c1a2 I------     1 perm 1f010000     0     0 asymmetri Debian Secure Boot CA: 6ccece7e4c6c0d1f6149f3dd27dfcc5cbb419ea1: X509.rsa bb419ea1 []
2f7d3c11 I------     4 perm 1f0b0000     0     0 keyring   .builtin_trusted_keys: 2
30b5c6f0 I--Q---     3 perm 1f3f0000     0 65534 keyring   _uid.0: empty
";

#[test]
fn where_signatures_are_wanted_that_of_a_key_which_the_kernel_does_not_know_is_refused() {
    let signed = |signer: SignerIdentity, keys: Option<&str>, lockdown: &str| {
        let host = Host::new();
        host.write("sys/kernel/security/lockdown", lockdown);
        if let Some(keys) = keys {
            host.write("proc/keys", keys);
        }
        let mut module = module("one-function");
        module.signature = Some(Signature::by(signer));
        check(&module, &host.facts())
    };
    let locked = "none [integrity] confidentiality\n";
    let key = |id: &str| SignerIdentity::Key { key_id: id.to_owned() };
    let known = key("6CCECE7E4C6C0D1F6149F3DD27DFCC5CBB419EA1");
    assert!(loadable(&signed(known, Some(KEYS), locked)));
    // Part of an identifier is none.
    for unknown in ["bb419ea1", "", "00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff"] {
        assert_eq!(refused(&signed(key(unknown), Some(KEYS), locked)), ("signature", "signer"));
        assert!(loadable(&signed(key(unknown), Some(KEYS), "[none] integrity confidentiality\n")));
    }
    // What cannot be known is said, and is for the kernel to decide.
    let by_serial = SignerIdentity::Certificate { issuer: "owner".to_owned(), serial: "1234".to_owned() };
    for findings in [signed(by_serial, Some(KEYS), locked), signed(key("00"), None, locked)] {
        assert!(loadable(&findings));
        assert!(findings.iter().any(|finding| finding.subject == "signer"), "{findings:#?}");
    }
}

#[test]
fn an_imported_symbol_that_the_kernel_lacks_is_refused() {
    let findings = Host::with(|host| host.replace("proc/kallsyms", "T helper", "T other_helper"));
    assert_eq!(refused(&findings), ("symbol-exported", "helper"));
}

#[test]
fn a_function_that_is_missing_or_data_or_not_traceable_is_refused() {
    let show = ("function-present", "vmlinux:cmdline_proc_show");
    let findings = Host::with(|host| host.replace("proc/kallsyms", "cmdline_proc_show", "cmdline_show"));
    assert_eq!(refused(&findings), show);
    let findings = Host::with(|host| host.replace("proc/kallsyms", "t cmdline_proc", "d cmdline_proc"));
    assert_eq!(refused(&findings), show);
    let traceable = "sys/kernel/tracing/available_filter_functions";
    let findings = Host::with(|host| host.replace(traceable, "cmdline_proc_show\n", ""));
    assert_eq!(refused(&findings), ("function-traceable", "vmlinux:cmdline_proc_show"));
    // The function of that name in a module is another one.
    let findings =
        Host::with(|host| host.replace(traceable, "cmdline_proc_show\n", "cmdline_proc_show [loop]\n"));
    assert_eq!(refused(&findings), ("function-traceable", "vmlinux:cmdline_proc_show"));
}

#[test]
fn a_function_that_is_traceable_by_another_of_its_names_is_taken() {
    let host = Host::new();
    let traceable = "sys/kernel/tracing/available_filter_functions";
    host.replace(traceable, "cmdline_proc_show\n", "__do_show\n");
    let line = KALLSYMS.lines().find(|line| line.ends_with(" cmdline_proc_show")).unwrap();
    host.replace(
        "proc/kallsyms",
        line,
        &format!("{line}\n{}", line.replace("cmdline_proc_show", "__do_show")),
    );
    let findings = host.check("one-function");
    assert!(loadable(&findings), "{findings:#?}");
}

#[test]
fn a_name_that_stands_twice_needs_a_position_and_one_that_exists() {
    let twice = "ffffffff81000180 t cmdline_proc_show\nffffffff81000200 T klp_enable_patch";
    let findings = Host::with(|host| {
        host.replace("proc/kallsyms", "ffffffff81000200 T klp_enable_patch", twice);
    });
    assert_eq!(refused(&findings), ("sympos", "vmlinux:cmdline_proc_show"));
    let host = Host::new();
    host.replace("proc/kallsyms", "ffffffff81000400 t version_proc_show\n", "");
    assert_eq!(refused(&host.check("several-objects")), ("sympos", "vmlinux:version_proc_show,2"));
}

#[test]
fn an_object_that_is_not_loaded_is_checked_by_its_file() {
    let host = Host::new();
    host.write("proc/modules", "");
    assert_eq!(refused(&host.check("several-objects")), ("object", "loop"), "no file either");
    let path = host.0.path().join(format!("lib/modules/{RELEASE}/kernel/drivers/block"));
    std::fs::create_dir_all(&path).unwrap();
    let packed = zstd::encode_all(&compile("object-loop")[..], 1).unwrap();
    std::fs::write(path.join("loop.ko.zst"), packed).unwrap();
    // Kallsyms of a host that has not loaded the module does not have its symbols.
    host.write(
        "proc/kallsyms",
        &KALLSYMS
            .lines()
            .filter(|line| !line.contains("[loop]"))
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    );
    let findings = host.check("several-objects");
    assert!(loadable(&findings), "{findings:#?}");
    assert!(findings.iter().any(|finding| finding.rule == "object" && finding.severity == Severity::Note));
}

#[test]
fn a_module_file_tells_which_functions_ftrace_can_hook() {
    let facts = ObjectFacts::parse(&compile("object-loop")).unwrap();
    let traceable = |name| facts.symbols.iter().find(|symbol| symbol.name == name).unwrap().traceable;
    assert!(traceable("lo_release"));
    assert!(!traceable("lo_hidden"));
}

#[test]
fn an_object_that_is_built_in_or_a_loaded_one_without_the_function_is_refused() {
    let host = Host::new();
    host.write("proc/modules", "");
    host.replace(
        &format!("lib/modules/{RELEASE}/modules.builtin"),
        "fs/ext4/ext4.ko",
        "drivers/block/loop.ko",
    );
    let findings = host.check("several-objects");
    assert_eq!(refused(&findings), ("object", "loop"));
    assert!(findings[0].found.contains("part of the kernel image"), "{findings:#?}");
    let host = Host::new();
    host.replace("proc/kallsyms", "t lo_release", "t lo_release_other");
    assert_eq!(refused(&host.check("several-objects")), ("function-present", "loop:lo_release"));
}

#[test]
fn a_module_of_that_name_that_is_loaded_is_refused() {
    let findings = Host::with(|host| host.write("proc/modules", "one_function 16384 1 - Live 0x0\n"));
    assert_eq!(refused(&findings), ("name", "one_function"));
}

#[test]
fn another_livepatch_on_the_function_is_noted_and_one_in_transition_refuses() {
    let host = Host::new();
    host.write("sys/kernel/livepatch/earlier/enabled", "1\n");
    host.write("sys/kernel/livepatch/earlier/transition", "0\n");
    host.write("sys/kernel/livepatch/earlier/vmlinux/cmdline_proc_show,1/patched", "1\n");
    // The earlier livepatch is itself the one that redirects the function.
    host.write(
        "sys/kernel/tracing/enabled_functions",
        "cmdline_proc_show (1) R I     \ttramp: 0xffffffffc0400000\n",
    );
    let findings = host.check("one-function");
    assert!(loadable(&findings), "{findings:#?}");
    assert!(findings.iter().any(|finding| finding.rule == "stacking"), "{findings:#?}");
    let replaced = host.check("several-objects");
    assert!(replaced.iter().any(|finding| finding.rule == "replace" && finding.subject == "earlier"));
    host.write("sys/kernel/livepatch/earlier/transition", "1\n");
    assert_eq!(refused(&host.check("one-function")), ("transition", "earlier"));
}

#[test]
fn a_probe_is_warned_of_and_one_that_redirects_the_function_refuses() {
    let findings = Host::with(|host| {
        host.write(
            "sys/kernel/debug/kprobes/list",
            "ffffffff81000110  k  cmdline_proc_show+0x10    [OPTIMIZED]\n\
             ffffffff81000140  k  notrace_function+0x0\n",
        );
    });
    assert!(loadable(&findings));
    assert_eq!(only(&findings, Severity::Warn), ("probe", "vmlinux:cmdline_proc_show"));
    let findings = Host::with(|host| {
        host.write(
            "sys/kernel/tracing/enabled_functions",
            "cmdline_proc_show (1) R I  \ttramp: 0xffffffffc0400000\n",
        );
    });
    assert_eq!(refused(&findings), ("probe", "vmlinux:cmdline_proc_show"));
    let findings = Host::with(|host| {
        host.write(
            "sys/kernel/tracing/enabled_functions",
            "cmdline_proc_show (1)    \ttramp: 0xffffffffc0400000\n",
        );
    });
    assert!(loadable(&findings), "a tracer that does not redirect is no conflict: {findings:#?}");
}

#[test]
fn a_kernel_that_has_oopsed_is_warned_of_and_a_livepatched_one_is_not() {
    let findings = Host::with(|host| host.write("proc/sys/kernel/tainted", "128\n"));
    assert_eq!(only(&findings, Severity::Warn), ("taint", "kernel"));
    let findings = Host::with(|host| host.write("proc/sys/kernel/tainted", "32768\n"));
    assert!(findings.iter().all(|finding| finding.rule != "taint"));
}

#[test]
fn facts_that_cannot_be_had_are_notes_and_never_silence() {
    let findings = Host::with(|host| {
        host.remove(&format!("boot/config-{RELEASE}"));
        host.remove("sys/kernel/tracing/available_filter_functions");
        host.remove("sys/kernel/tracing/enabled_functions");
        host.remove("sys/kernel/debug/kprobes/list");
    });
    assert!(loadable(&findings));
    let noted: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(noted, ["vermagic", "config", "symbol-crc", "function-traceable", "probe"]);
}

#[test]
fn a_module_that_is_no_livepatch_is_refused() {
    let findings = Host::new().check("not-a-livepatch");
    assert_eq!(refused(&findings), ("livepatch", "module"));
    assert_eq!(refused(&Host::new().check("no-enable-call")), ("livepatch", "module"));
}

#[test]
fn without_kallsyms_there_are_no_facts() {
    let host = Host::new();
    host.remove("proc/kallsyms");
    let error = KernelFacts::from_running(host.0.path()).unwrap_err();
    assert!(error.path.ends_with("proc/kallsyms"));
    assert!(KernelFacts::from_running(Path::new("/nonexistent")).is_err());
}

#[test]
fn the_kernels_memory_tells_crcs_and_ftrace_locations_without_the_text_of_kallsyms() {
    for order in [Kallsyms::Classic, Kallsyms::WithSequences, Kallsyms::OffsetsLast, Kallsyms::FromPlaces] {
        let host = Host::new();
        std::fs::write(host.0.path().join("proc/kcore"), kcore(order)).unwrap();
        host.remove("proc/kallsyms");
        host.remove("sys/kernel/tracing/available_filter_functions");
        let module = module("one-function");
        let mut facts = KernelFacts::gather(host.0.path(), &module).unwrap();
        let exports = facts.exports.as_mut().unwrap();
        assert_eq!(exports["klp_enable_patch"].crc, Some(0xb27d_e5fe));
        assert_eq!(exports["klp_enable_patch"].namespace.as_deref(), Some("SPACE"));
        exports.get_mut("klp_enable_patch").unwrap().namespace = None;
        exports.get_mut("helper").unwrap().crc = None;
        assert_eq!(check(&module, &facts), [], "{order:?}");
    }
}

#[test]
fn a_module_that_patches_modules_needs_the_text_of_kallsyms_beside_the_kernels_memory() {
    let host = Host::new();
    std::fs::write(host.0.path().join("proc/kcore"), kcore(Kallsyms::WithSequences)).unwrap();
    let facts = KernelFacts::gather(host.0.path(), &module("several-objects")).unwrap();
    assert!(matches!(facts.symbols, SymbolList::Proc(_)));
    assert!(facts.exports.is_some());
    host.remove("proc/kallsyms");
    KernelFacts::gather(host.0.path(), &module("several-objects")).expect_err("no symbols of modules");
}

#[test]
fn memory_that_does_not_look_as_expected_gives_way_to_the_text() {
    let good = kcore(Kallsyms::WithSequences);
    let damage = |text: &[u8]| {
        let mut core = good.clone();
        let at = core.windows(text.len()).position(|window| window == text).unwrap();
        core[at] ^= 1;
        core
    };
    for core in
        [damage(b"VMCOREINFO"), damage(b"\x007\x008\x009\x00"), damage(b"\x07T_etext"), good[..5000].to_vec()]
    {
        let host = Host::new();
        std::fs::write(host.0.path().join("proc/kcore"), core).unwrap();
        let facts = KernelFacts::gather(host.0.path(), &module("one-function")).unwrap();
        assert!(matches!(facts.symbols, SymbolList::Proc(_)));
        assert!(matches!(facts.traceable, Traceable::Listed(_)));
        assert!(facts.exports.is_none());
    }
}

/// Facts of the small kernel, with exports that fit `one-function`.
fn image_facts() -> KernelFacts {
    let mut facts = KernelFacts::from_image(&KernelImage::parse(&vmlinux(Kallsyms::WithSequences)).unwrap());
    let exports = facts.exports.as_mut().unwrap();
    exports.insert("helper".to_owned(), Export { crc: None, namespace: None });
    exports.get_mut("klp_enable_patch").unwrap().namespace = None;
    facts
}

fn check_image(facts: &KernelFacts) -> Vec<Finding> {
    check(&module("one-function"), facts)
}

#[test]
fn a_module_that_fits_an_image_is_loadable_with_what_an_image_cannot_tell_noted() {
    let findings = check_image(&image_facts());
    let rules: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
    assert_eq!(rules, ["config", "signature"], "{findings:#?}");
    assert!(loadable(&findings));
}

#[test]
fn a_crc_that_differs_is_refused_with_both() {
    let mut facts = image_facts();
    facts.exports.as_mut().unwrap().get_mut("klp_enable_patch").unwrap().crc = Some(0xdead_beef);
    let findings = check_image(&facts);
    assert_eq!(refused(&findings), ("symbol-crc", "klp_enable_patch"));
    assert_eq!((findings[0].expected.as_str(), findings[0].found.as_str()), ("0xdeadbeef", "0xb27de5fe"));
}

#[test]
fn a_symbol_not_exported_or_in_a_namespace_not_imported_is_refused() {
    let mut facts = image_facts();
    facts.exports.as_mut().unwrap().remove("helper");
    assert_eq!(refused(&check_image(&facts)), ("symbol-exported", "helper"));
    let mut facts = image_facts();
    facts.exports.as_mut().unwrap().get_mut("helper").unwrap().namespace = Some("INTERNAL".to_owned());
    assert_eq!(refused(&check_image(&facts)), ("symbol-namespace", "helper"));
}

#[test]
fn a_function_without_an_ftrace_location_in_the_image_is_refused() {
    let mut facts = image_facts();
    facts.traceable = Traceable::Sites(vec![0xffff_ffff_8100_0200]);
    assert_eq!(refused(&check_image(&facts)), ("function-traceable", "vmlinux:cmdline_proc_show"));
}

#[test]
fn livepatch_symbols_and_relocations_are_checked_against_the_kernel() {
    let data = support::with_klp_relocations();
    let parsed = Module::parse(&data).unwrap();
    let mut facts = image_facts();
    // The fixture wants the second of a name that the small kernel does not have.
    let findings = check(&parsed, &facts);
    assert_eq!(refused(&findings), ("klp-symbol", "vmlinux:proc_cmdline_helper,2"));
    let kallsyms = |count| {
        let line = "ffffffff81000600 t proc_cmdline_helper\n";
        SymbolList::Proc(format!("{KALLSYMS}{}", line.repeat(count)).into_bytes())
    };
    facts.symbols = kallsyms(1);
    assert_eq!(refused(&check(&parsed, &facts)), ("klp-symbol", "vmlinux:proc_cmdline_helper,2"));
    facts.symbols = kallsyms(2);
    let findings = check(&parsed, &facts);
    assert!(loadable(&findings), "{findings:#?}");
}
