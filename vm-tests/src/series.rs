//! The kernels that people run: one of each series boots, and takes livepatches that `patch-tools` built for it with the
//! compiler of its own Debian release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::lab::spec::MachineSpec;
use crate::product::{Build, Product};

/// A function of the kernel itself.
const CMDLINE: &str = r#"
--- a/fs/proc/cmdline.c
+++ b/fs/proc/cmdline.c
@@ -7,5 +7,5 @@
 static int cmdline_proc_show(struct seq_file *m, void *v)
 {
-	seq_puts(m, saved_command_line);
+	seq_puts(m, "nobody's business");
 	seq_putc(m, '\n');
 	return 0;
"#;

/// A function of a module.
const SIZELIMIT: &str = r#"
--- a/drivers/block/loop.c
+++ b/drivers/block/loop.c
@@ -690,4 +690,4 @@
 static ssize_t loop_attr_sizelimit_show(struct loop_device *lo, char *buf)
 {
-	return sysfs_emit(buf, "%llu\n", (unsigned long long)lo->lo_sizelimit);
+	return sysfs_emit(buf, "%llu of %u\n", (unsigned long long)lo->lo_sizelimit, lo->lo_flags);
 }
"#;

/// The lines of both files move, and nothing of them changes.
const MOVED: &str = r#"
--- a/fs/proc/cmdline.c
+++ b/fs/proc/cmdline.c
@@ -7,4 +7,5 @@
 static int cmdline_proc_show(struct seq_file *m, void *v)
 {
+
 	seq_puts(m, saved_command_line);
 	seq_putc(m, '\n');
--- a/drivers/block/loop.c
+++ b/drivers/block/loop.c
@@ -690,3 +690,4 @@
 static ssize_t loop_attr_sizelimit_show(struct loop_device *lo, char *buf)
 {
+
 	return sysfs_emit(buf, "%llu\n", (unsigned long long)lo->lo_sizelimit);
"#;

/// What both show, as one line.
const LOOK: &str = "echo $(cat /proc/cmdline) / $(cat /sys/block/loop0/loop/sizelimit)";

/// One livepatch for both functions, loaded, used, disabled and unloaded.
///
/// # Errors
/// If anything of it is not as it should be.
pub fn takes_a_livepatch(lab: &Lab, release: &str) -> Result<()> {
    let work = tempfile::tempdir()?;
    let module = build(work.path(), release)?;
    finds_nothing_where_lines_move(work.path(), release)?;
    let machine = lab.boot(&MachineSpec::with_kernel(release))?;
    ensure!(machine.sh("uname -r")?.trim() == release);
    machine.guest().push(&module, "/root/fix.ko")?;
    machine.sh("modprobe loop && truncate -s 1M /root/disk && losetup /dev/loop0 /root/disk")?;
    let before = machine.sh(LOOK)?;
    ensure!(before.contains("console=ttyS0") && before.trim().ends_with("/ 0"), "{before}");

    machine.sh("insmod /root/fix.ko
        until read -r t </sys/kernel/livepatch/livepatch_fix/transition && [ $t = 0 ]; do sleep 0.1; done")?;
    let patched = machine.sh(LOOK)?;
    ensure!(patched.trim() == "nobody's business / 0 of 0", "{patched}");

    machine.sh("echo 0 >/sys/kernel/livepatch/livepatch_fix/enabled
        while [ -e /sys/kernel/livepatch/livepatch_fix ]; do sleep 0.1; done
        rmmod livepatch_fix")?;
    ensure!(machine.sh(LOOK)? == before);
    ensure!(machine.splats()?.is_empty(), "{:?}", machine.splats()?);
    Ok(())
}

/// Builds the livepatch and returns its file.
fn build(work: &Path, release: &str) -> Result<PathBuf> {
    let report =
        patch_tools_build(work, release, &[("cmdline.patch", CMDLINE), ("sizelimit.patch", SIZELIMIT)], 0)?;
    let module = report["files"]["module"].as_str().context("the module's file")?;
    Ok(work.join(module))
}

/// A livepatch of nothing is refused.
fn finds_nothing_where_lines_move(work: &Path, release: &str) -> Result<()> {
    let report = patch_tools_build(work, release, &[("moved.patch", MOVED)], 3)?;
    ensure!(report["details"]["reason"] == "unchanged", "{report}");
    Ok(())
}

fn patch_tools_build(work: &Path, release: &str, patches: &[(&str, &str)], code: i32) -> Result<Value> {
    for (name, patch) in patches {
        fs::write(work.join(name), patch)?;
    }
    let built = Command::new(Product::build(Build::Tests)?.patch_tools)
        .arg("build")
        .args(patches.iter().map(|(name, _)| name))
        .args(["--name", "fix", "--json", "--kernel", release])
        .current_dir(work)
        .output()
        .context("starting patch-tools")?;
    let text = String::from_utf8_lossy(&built.stdout);
    let told = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.code() == Some(code), "expected exit code {code}: {}\n{text}{told}", built.status);
    Ok(serde_json::from_str(&text)?)
}
