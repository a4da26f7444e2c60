//! `patch-tools build` and `verify` with the stock kernel, from a source diff to a module.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use patch_tools::module::Module;
use serde_json::{Value, json};
use support::fix::{self, Bench, KERNEL, strings};

fn built(bench: &Bench, arguments: &[&str]) -> Value {
    bench.json(&[&["build"], arguments, &["--kernel", KERNEL]].concat(), 0)
}

/// Two builds at once work in different copies of the source; directories for intermediate files and for the
/// results differ, too.
#[test]
fn two_builds_in_different_directories_give_the_same_bytes() {
    let patch = fix::cmdline();
    let benches = [Bench::new(), Bench::new()];
    let running: Vec<_> = benches
        .iter()
        .enumerate()
        .map(|(index, bench)| {
            bench.put("fix.patch", &patch);
            fs::create_dir(bench.path().join("intermediate")).unwrap();
            let output = format!("result-{index}");
            let mut command = bench.command(&["build", "fix.patch", "--kernel", KERNEL, "-o", &output]);
            command.env("TMPDIR", bench.path().join("intermediate")).stderr(Stdio::piped());
            (output, command.spawn().unwrap())
        })
        .collect();
    let mut results = Vec::new();
    for ((output, child), bench) in running.into_iter().zip(&benches) {
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let directory = bench.path().join(output);
        let read = |name| fs::read(directory.join(name)).unwrap();
        let names = ["livepatch-fix.ko", "livepatch-fix.component.yaml", "livepatch-fix.intoto.json"];
        results.push(names.map(read));
        assert_eq!(fs::read_dir(bench.path().join("intermediate")).unwrap().count(), 0);
    }
    assert_eq!(results[0], results[1]);
    let provenance: Value = serde_json::from_slice(&results[0][2]).unwrap();
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    let text = String::from_utf8_lossy(&results[0][2]);
    assert!(!text.contains(benches[0].path().to_str().unwrap()) && !text.contains("update-lab"), "{text}");
}

#[test]
fn a_module_that_is_what_the_patch_gives_is_told_from_one_that_is_not() {
    let bench = Bench::new();
    bench.put("fix.patch", fix::cmdline());
    built(&bench, &["fix.patch"]);
    let module = fs::read(bench.path().join("livepatch-fix.ko")).unwrap();
    let verify = ["verify", "given.ko", "--patch", "fix.patch", "--kernel", KERNEL];

    let mut signed = module.clone();
    signed.extend(b"SIGNATURE");
    signed.extend([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    signed.extend(b"~Module signature appended~\n");
    bench.put("given.ko", signed);
    let same = bench.json(&verify, 0);
    assert_eq!((&same["identical"], &same["signature_set_aside"]), (&json!(true), &json!(true)));
    assert_eq!(same["given"], same["rebuilt"]);

    // One byte of the new function: `seq_puts` is given other text.
    let mut changed = module.clone();
    let at = changed.windows(6).position(|window| window == b"fixed ").unwrap();
    changed[at] = b'F';
    bench.put("given.ko", &changed);
    let different = bench.json(&verify, 4);
    assert_eq!(different["identical"], json!(false));
    let differences = strings(&different["differences"]).join("\n");
    assert!(differences.contains("str1.1 differs"), "{differences}");

    // An instruction of it.
    let elf = patch_tools::elf::Elf::parse(&module).unwrap();
    let section = elf.section(".text.cmdline_proc_show").unwrap();
    let mut changed = module.clone();
    let last = (section.offset + section.size) as usize - 1;
    changed[last] ^= 1;
    bench.put("given.ko", &changed);
    let output = bench.run(&verify);
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("given.ko is not what the patch gives"), "{text}");
    assert!(text.contains("cmdline_proc_show differs from +0x"), "{text}");

    bench.put("given.ko", b"\x7fELF nothing");
    assert_eq!(bench.json(&verify, 3)["kind"], "refused");
}

/// vmlinux and a module, several files, a new function, new data, callbacks, a shadow variable, all in one
/// livepatch that replaces the others.
#[test]
fn a_fix_of_kernel_and_module_with_callbacks_and_a_shadow_variable_is_one_livepatch() {
    let (cmdline, directory) = ("fs/proc/cmdline.c", "fs/minix/dir.c");
    let show = "static int cmdline_proc_show(struct seq_file *m, void *v)\n{\n";
    let author = "#include <update/livepatch.h>\n\nLIVEPATCH_SHADOW(reads, u32, 0x7e7a0001)\n\
        static u32 all_reads = 40;\n\
        static noinline u32 count_read(struct file *file)\n{\n\tu32 *reads = reads_get_or_alloc(file, GFP_KERNEL);\n\n\
        \tall_reads++;\n\treturn reads ? ++*reads : 0;\n}\n\
        static int announce(struct klp_object *obj)\n{\n\tpr_info(\"counting\\n\");\n\treturn 0;\n}\n\
        static void forget(struct klp_object *obj)\n{\n\treads_free_all();\n}\n\
        LIVEPATCH_PRE_PATCH(announce);\nLIVEPATCH_POST_UNPATCH(forget);\n\n";
    let call = "\tseq_printf(m, \"%u/%u \", count_read(m->file), all_reads);\n";
    let content = fix::edited(cmdline, show, &format!("{author}{show}{call}"));
    let readdir = "\tif (pos >= inode->i_size)\n";
    let minix =
        fix::edited(directory, readdir, &format!("\tif (pos == 0x7e7a)\n\t\treturn -EINVAL;\n{readdir}"));
    let bench = Bench::new();
    bench.put("fix.patch", fix::patch(cmdline, &content) + &fix::patch(directory, &minix));
    let result =
        built(&bench, &["fix.patch", "--name", "Several Things", "--replace", "--fixes", "CVE-2026-10001"]);

    let units: Vec<(&str, &str, Vec<&str>)> = result["units"]
        .as_array()
        .unwrap()
        .iter()
        .map(|unit| {
            (
                unit["source"].as_str().unwrap(),
                unit["object"].as_str().unwrap(),
                strings(&unit["changed_functions"]),
            )
        })
        .collect();
    assert_eq!(
        units,
        [(directory, "minix", vec!["minix_readdir"]), (cmdline, "vmlinux", vec!["cmdline_proc_show"])]
    );
    assert_eq!(strings(&result["units"][1]["new_data"]), ["all_reads"]);
    assert!(strings(&result["units"][1]["new_functions"]).contains(&"count_read"));
    let file = bench.path().join("livepatch-several-things.ko");
    let module = Module::parse(&fs::read(file).unwrap()).unwrap();
    assert_eq!(module.name.as_deref(), Some("livepatch_several_things"));
    let livepatch = module.livepatch.as_ref().unwrap();
    assert_eq!(livepatch.replace, patch_tools::module::Replace::All);
    let inspected = bench.json(&["inspect", "livepatch-several-things.ko"], 0);
    let text = inspected.to_string();
    for wanted in ["\"vmlinux\"", "\"minix\"", "pre_patch", "post_unpatch", "klp_shadow_get_or_alloc"] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
    let component = fs::read_to_string(bench.path().join("livepatch-several-things.component.yaml")).unwrap();
    assert!(component.contains("CVE-2026-10001") && component.contains("minix_readdir"), "{component}");
}

#[test]
fn patches_on_top_of_each_other_make_one_cumulative_livepatch() {
    let (path, first) = ("fs/proc/cmdline.c", fix::cmdline());
    let once = fix::edited(path, "\tseq_puts(m, saved", "\tseq_puts(m, \"fixed \");\n\tseq_puts(m, saved");
    let twice = once.replace("fixed ", "fixed twice ");
    let bench = Bench::new();
    bench.put("1.patch", first);
    bench.put("2.patch", fix::diff(path, &once, &twice));
    built(&bench, &["1.patch", "2.patch", "--name", "both"]);
    let module = fs::read(bench.path().join("livepatch-both.ko")).unwrap();
    assert!(module.windows(12).any(|window| window == b"fixed twice "));
    // The other way round the second does not fit.
    let failure = bench.json(&["build", "2.patch", "--kernel", KERNEL], 3);
    assert!(failure["error"].as_str().unwrap().contains("hunk 1 does not apply at line"), "{failure}");
}

#[test]
fn a_header_affects_the_units_whose_text_it_changes_and_no_other() {
    // Seven units of minix include it, two of them use what changes.
    let header = "fs/minix/minix.h";
    let content = fix::edited(header, "s_version\n", "s_version + (inode->i_ino == 0x7e7a)\n");
    let users: Vec<String> = fs::read_dir(fix::tree().source().join("fs/minix"))
        .unwrap()
        .map(|entry| format!("fs/minix/{}", entry.unwrap().file_name().into_string().unwrap()))
        .filter(|path| path.ends_with(".c") && fix::original(path).contains("INODE_VERSION("))
        .collect();
    assert!((1..7).contains(&users.len()), "{users:?}");
    let bench = Bench::new();
    bench.put("fix.patch", fix::patch(header, &content));
    let result = built(&bench, &["fix.patch"]);
    let mut units: Vec<&str> =
        result["units"].as_array().unwrap().iter().map(|unit| unit["source"].as_str().unwrap()).collect();
    let mut users: Vec<&str> = users.iter().map(String::as_str).collect();
    units.sort();
    users.sort();
    assert_eq!(units, users);

    // A comment changes no unit at all, however many include it.
    bench.put("fix.patch", fix::patch(header, &fix::edited(header, "s_version\n", "s_version /* new */\n")));
    let failure = bench.json(&["build", "fix.patch", "--kernel", KERNEL], 3);
    assert!(
        failure["error"].as_str().unwrap().contains("changes nothing that the compiler sees"),
        "{failure}"
    );
}

#[test]
fn what_a_header_changes_beyond_the_kernels_functions_is_refused_with_the_place() {
    let bench = Bench::new();
    for (path, from, to, expected) in [
        (
            "arch/x86/kvm/vmx/run_flags.h",
            "VMX_RUN_VMRESUME_SHIFT\t",
            "VMX_RUN_VMRESUME_SHIFT\t2 +",
            "changes arch/x86/kvm/vmx/vmenter.S, which is assembler",
        ),
        (
            "arch/x86/include/asm/suspend_64.h",
            "\tunsigned long cr0, cr2",
            "\tunsigned long fresh;\n\tunsigned long cr0, cr2",
            "arch/x86/kernel/asm-offsets.c computes for assembler code: saved_context_cr0 from",
        ),
        (
            "security/selinux/include/classmap.h",
            "\t{ \"security\",",
            "\t{ \"fresh\",\n\t  { \"look\", NULL } },\n\t{ \"security\",",
            "the build's own program scripts/selinux/genheaders/genheaders is compiled from it",
        ),
        (
            "include/scsi/scsi_devinfo.h",
            "#define BLIST_NOLUN",
            "#define BLIST_FRESH BLIST_NOLUN\n#define BLIST_NOLUN",
            "a rule in drivers/scsi/Makefile reads it to generate code",
        ),
        (
            "lib/vdso/gettimeofday.c",
            "#include <vdso/helpers.h>\n",
            "#include <vdso/helpers.h>\nint fresh;\n",
            "changes arch/x86/entry/vdso/vclock_gettime.c, which is part of the vDSO",
        ),
        (
            "arch/x86/realmode/rm/wakemain.c",
            "void main(void)\n{",
            "void main(void)\n{\n\tbeep(1);",
            "which is part of the code in which processors start and wake up",
        ),
    ] {
        bench.put("fix.patch", fix::patch(path, &fix::edited(path, from, to)));
        let failure = bench.json(&["build", "fix.patch", "--kernel", KERNEL], 3);
        let error = failure["error"].as_str().unwrap();
        assert!(error.contains(expected), "{path}: {error}");
        assert_eq!(failure["details"]["reason"], "beyond-functions");
    }
}

#[test]
fn a_build_that_is_killed_leaves_the_cache_usable() {
    let bench = Bench::new();
    bench.put("fix.patch", fix::cmdline());
    for step in ["compiling", "matching"] {
        let mut build = bench.command(&["build", "fix.patch", "--kernel", KERNEL, "--name", "killed"]);
        let mut child = build.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let reached = lines.map_while(Result::ok).any(|line| line.trim_start().starts_with(step));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(reached, "{step} was not told");
        assert!(!bench.path().join("livepatch-killed.ko").exists());
    }
    built(&bench, &["fix.patch"]);
    let verify = ["verify", "livepatch-fix.ko", "--patch", "fix.patch", "--kernel", KERNEL];
    assert_eq!(bench.json(&verify, 0)["identical"], json!(true));
}

#[test]
fn a_program_that_asks_for_json_gets_errors_as_json() {
    let bench = Bench::new();
    bench.put("fix.patch", "--- a/fs/namei.c\n+++ b/fs/namei.c\n@@ -1,1 +1,1 @@\n-old\n");
    bench.put("garbage.ko", [0xff; 64]);
    let long = ["verify", "garbage.ko", "--patch", "fix.patch", "--kernel", KERNEL];
    for arguments in [
        &["build", "fix.patch", "--kernel", KERNEL][..],
        &["lint", "fix.patch", "--kernel", KERNEL],
        &["build", "absent.patch", "--kernel", KERNEL],
        &["inspect", "garbage.ko"],
        &["diff", "garbage.ko", "garbage.ko"],
        &["check", "garbage.ko", "--image", "garbage.ko"],
        &long,
    ] {
        let output = bench.run(&[arguments, &["--json"]].concat());
        let failure: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(failure["exit"], output.status.code().unwrap(), "{arguments:?}");
        assert!(!failure["error"].as_str().unwrap().is_empty(), "{arguments:?}");
        assert!(failure["causes"].is_array() && failure["kind"].is_string(), "{failure}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

/// A kernel that is not in packages: its source, configuration and image as files. The source is this kernel's,
/// put together anew, so that the tree is prepared once more.
#[test]
fn a_kernel_given_as_files_is_built_for_as_one_from_packages() {
    let tree = fix::tree();
    let cache = patch_tools::build::cache::Cache::of_user().unwrap();
    let config = tree.output().join(".config");
    let images: Vec<_> = fs::read_dir(cache.packages().with_file_name("images"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("boot").join(format!("vmlinuz-{KERNEL}")))
        .filter(|image| image.is_file())
        .collect();
    let bench = Bench::new();
    bench.put("fix.patch", fix::cmdline());
    built(&bench, &["fix.patch", "--name", "packages"]);
    let [source, config, image] = [tree.source(), &config, &images[0]].map(|path| path.to_str().unwrap());
    let files = ["--source", source, "--config", config, "--image", image];
    let arguments = [&["build", "fix.patch", "--name", "packages", "-o", "files"][..], &files].concat();
    let result = bench.json(&arguments, 0);
    assert_eq!(result["kernel"], KERNEL);
    let read =
        |directory: &str| fs::read(bench.path().join(directory).join("livepatch-packages.ko")).unwrap();
    assert!(read(".") == read("files"), "the modules differ");
    let provenance = fs::read(bench.path().join("files/livepatch-packages.intoto.json")).unwrap();
    let provenance: Value = serde_json::from_slice(&provenance).unwrap();
    let inputs = provenance["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    let inputs: Vec<&str> = inputs.iter().map(|one| one["uri"].as_str().unwrap()).collect();
    let image = format!("file:vmlinuz-{KERNEL}");
    assert_eq!(inputs, ["file:fix.patch", "file:source", "file:.config", &image]);
    // Modules were not given, so a fix to one is refused.
    let path = "fs/minix/dir.c";
    let before = "\tif (pos >= inode->i_size)\n";
    let content = fix::edited(path, before, &format!("\tif (pos == 0x7e7a)\n\t\treturn -EINVAL;\n{before}"));
    bench.put("module.patch", fix::patch(path, &content));
    let failure = bench.json(&[&["build", "module.patch"][..], &files].concat(), 3);
    assert!(
        failure["error"].as_str().unwrap().contains("no directory with the shipped modules"),
        "{failure}"
    );
}

/// The compiler is content with it and the differ sees changed functions only; marks that exist have the old shape.
#[test]
fn a_member_more_in_a_structure_of_the_file_is_refused() {
    let file = "kernel/audit_fsnotify.c";
    let member = "\tstruct fsnotify_mark mark; /* fsnotify mark on the inode */\n";
    let larger = fix::edited(file, member, &format!("\tlong events;\n{member}"));
    let bench = Bench::new();
    bench.put("fix.patch", fix::patch(file, &larger));
    let failure = bench.json(&["build", "fix.patch", "--kernel", KERNEL], 3);
    let refused = &failure["details"]["refused"];
    assert_eq!(refused.as_array().map(Vec::len), Some(1), "{failure}");
    assert_eq!(refused[0]["rule"], "layout-changed");
    assert!(refused[0]["reason"].as_str().unwrap().contains("struct audit_fsnotify_mark"), "{failure}");

    // Unless its author answers for it; who reviews the patch reads so in it, and is told.
    let accept = "#include <update/livepatch.h>\nLIVEPATCH_LAYOUT(struct audit_fsnotify_mark);\n";
    bench.put("accepted.patch", fix::patch(file, &format!("{larger}\n{accept}")));
    let accepted = built(&bench, &["accepted.patch"]);
    assert!(strings(&accepted["units"][0]["changed_functions"]).contains(&"audit_alloc_mark"), "{accepted}");
    let lint = bench.json(&["lint", "accepted.patch", "--kernel", KERNEL], 0);
    assert_eq!(lint["risk"], "medium", "{lint}");
}

/// What was stored as one value would be read as another.
#[test]
fn an_enumeration_whose_values_get_another_meaning_is_refused() {
    let file = "mm/khugepaged.c";
    let first = "enum scan_result {\n";
    let bench = Bench::new();
    bench.put("fix.patch", fix::patch(file, &fix::edited(file, first, &format!("{first}\tSCAN_NONE,\n"))));
    let failure = bench.json(&["build", "fix.patch", "--kernel", KERNEL], 3);
    let refused = failure["details"]["refused"].as_array().unwrap();
    let layout =
        refused.iter().find(|one| one["rule"] == "layout-changed").unwrap_or_else(|| panic!("{failure}"));
    assert!(
        layout["reason"]
            .as_str()
            .unwrap()
            .contains("enum scan_result changes (4 bytes as before; SCAN_ADDRESS_RANGE moves from 23 to 24"),
        "{failure}"
    );
}

/// `drivers/gpu/drm/Makefile` builds it, and `drivers/gpu/drm/bridge` has a Makefile of its own.
#[test]
fn a_unit_below_another_makefile_belongs_to_the_module_that_names_it() {
    let file = "drivers/gpu/drm/bridge/panel.c";
    let check = "\tif (!bridge->encoder) {\n";
    let bench = Bench::new();
    let stricter = fix::edited(file, check, "\tif (!bridge->encoder || flags == 0x7e7a) {\n");
    bench.put("fix.patch", fix::patch(file, &stricter));
    let unit = &built(&bench, &["fix.patch"])["units"][0];
    assert_eq!(unit["object"], "drm_kms_helper");
    assert_eq!(strings(&unit["changed_functions"]), ["panel_bridge_attach"]);
}
